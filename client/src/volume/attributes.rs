//! Changes of attributes: what they do to a file that is open here, and what is kept back until its data is committed.
//!
//! By default a change is committed when its call returns. Under [`Durable::AtClose`] those of a file that is open for
//! writing wait in its inode, for this client laid over what the cluster says, and go with its data in one step: at the
//! next close or fsync, or when the flusher finds them [`HELD_MAX`] old. A change to the owner or mode that the file has
//! already, as of a program that unpacks its own files, only moves its ctime: that waits by default too, and the owner and
//! mode are not sent.

use super::Volume;
use super::namespace::unexpected;
use super::table::OpenInode;
use crate::config::Durable;
use crate::error::{FsError, FsErrorKind};
use crate::session::Session;
use crate::write::{Committed, Extent};
use farshore_types::{Attr, Ino, LogIndex, Op, Query, Reply, TimeChange};
use std::time::Duration;

/// Run as the file's owner, or group.
const SET_ID: u16 = 0o6000;
/// How long a change is kept back at most, about.
pub(super) const HELD_MAX: Duration = Duration::from_secs(1);

/// What [`Volume::setattr`] changes; `None` leaves a thing as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    pub mode: Option<u16>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<TimeChange>,
    pub mtime: Option<TimeChange>,
}

impl SetAttr {
    /// Both changes, the second one last.
    pub(super) fn then(self, later: SetAttr) -> SetAttr {
        SetAttr {
            mode: later.mode.or(self.mode),
            uid: later.uid.or(self.uid),
            gid: later.gid.or(self.gid),
            size: later.size.or(self.size),
            atime: later.atime.or(self.atime),
            mtime: later.mtime.or(self.mtime),
        }
    }

    fn op(self, ino: Ino) -> Op {
        let SetAttr { mode, uid, gid, atime, mtime, .. } = self;
        Op::SetAttr { ino, mode, uid, gid, atime, mtime }
    }

    /// Whether it can wait: it says what the attributes become, whenever it is done.
    fn can_wait(self) -> bool {
        self.size.is_none() && self.atime != Some(TimeChange::Now) && self.mtime != Some(TimeChange::Now)
    }

    /// Whether mode and owner are as they are to be. A mode with a bit that a commit of data may clear is not.
    fn is_done(self, attr: &Attr) -> bool {
        let SetAttr { mode, uid, gid, .. } = self;
        let same_mode = mode.is_none_or(|mode| mode == attr.mode && mode & SET_ID == 0);
        let same_owner = uid.is_none_or(|uid| uid == attr.uid) && gid.is_none_or(|gid| gid == attr.gid);
        same_mode && same_owner
    }

    /// Whether it is about nothing else.
    fn is_of_owner_and_mode(self) -> bool {
        self.size.is_none() && self.atime.is_none() && self.mtime.is_none()
    }

    /// Attributes as they will be.
    pub(super) fn over(self, attr: &mut Attr) {
        let time = |change: Option<TimeChange>, before| match change {
            Some(TimeChange::At(time)) => time,
            _ => before,
        };
        attr.mode = self.mode.unwrap_or(attr.mode);
        attr.uid = self.uid.unwrap_or(attr.uid);
        attr.gid = self.gid.unwrap_or(attr.gid);
        attr.atime = time(self.atime, attr.atime);
        attr.mtime = time(self.mtime, attr.mtime);
    }
}

impl Volume {
    pub(super) async fn change_attributes(&self, ino: Ino, change: SetAttr) -> Result<Attr, FsError> {
        let Some(inode) = self.open.get(ino) else {
            let attr = self.changing([ino], self.change_attr(change.op(ino), || format!("set attributes of {ino}"))).await?;
            self.caches.leases.changed(&attr);
            return Ok(attr);
        };
        if inode.is_writable() {
            if self.config.durable == Durable::AtClose && change.can_wait() {
                let attr = self.getattr(ino).await?;
                return self.hold(&inode, change, attr).await;
            }
            if change.is_of_owner_and_mode() && change.is_done(&self.getattr(ino).await?) {
                // What others have done meanwhile the leader knows.
                let attr = self.ask_attr(Query::GetAttr { ino }, || format!("attributes of {ino}")).await?;
                if change.is_done(&attr) {
                    return self.hold(&inode, SetAttr::default(), attr).await;
                }
            }
        }
        let held = inode.held();
        let attr = send(&inode, &self.session, held.map_or(change, |(held, _)| held.then(change))).await?;
        if let Some((_, mark)) = held {
            inode.sent(mark);
        }
        Ok(self.with_local(attr))
    }

    async fn hold(&self, inode: &OpenInode, change: SetAttr, attr: Attr) -> Result<Attr, FsError> {
        inode.hold(change);
        if !inode.is_writable() {
            // The close that would have sent it came first.
            commit(inode, &self.session).await?;
        }
        Ok(self.with_local(attr))
    }
}

/// Commits what was written, and the attributes behind it in the same step.
async fn send(inode: &OpenInode, session: &Session, change: SetAttr) -> Result<Attr, FsError> {
    let reply = inode.writer.flush_with(inode, || call(inode, session, change)).await?;
    learn(inode, reply, || context(inode))
}

async fn call(inode: &OpenInode, session: &Session, change: SetAttr) -> Result<(Reply, LogIndex), FsError> {
    inode.begin().await?;
    let answer = session.call(change.op(inode.ino)).await;
    answer.map_err(|error| FsError::of_op(error, context(inode)))
}

fn context(inode: &OpenInode) -> String {
    format!("set attributes of {}", inode.ino)
}

/// An inode as a change of this client's own has left it.
pub(super) fn learn(
    inode: &OpenInode,
    (reply, index): (Reply, LogIndex),
    context: impl FnOnce() -> String,
) -> Result<Attr, FsError> {
    match reply {
        Reply::Attr(attr) => {
            inode.committed(attr.clone(), index);
            Ok(attr)
        }
        other => Err(unexpected(&other, context())),
    }
}

/// Commits an inode: its creation, what was written to it and what is held of it, in one step where that is possible.
pub(super) async fn commit(inode: &OpenInode, session: &Session) -> Result<(), FsError> {
    let committed = commit_rest(inode, session).await;
    inode.made().await.and(committed)
}

async fn commit_rest(inode: &OpenInode, session: &Session) -> Result<(), FsError> {
    let Some((held, mark)) = inode.held() else { return inode.writer.flush(Extent::All, inode).await };
    let sent = send(inode, session, held).await;
    if is_settled(&sent) {
        inode.sent(mark);
    }
    sent.map(drop)
}

/// As [`commit`], for nobody in particular: what is given up is kept for the next who asks.
pub(super) async fn commit_in_background(inode: &OpenInode, session: &Session) {
    inode.writer.flush_in_background(Extent::All, inode).await;
    let Some((held, mark)) = inode.held() else { return };
    let sent = inode.writer.in_turn(call(inode, session, held)).await.and_then(|reply| learn(inode, reply, || context(inode)));
    if is_settled(&sent) {
        inode.sent(mark);
    }
    match sent {
        Err(error @ FsError { kind: FsErrorKind::Refused(_), .. }) => inode.writer.lose(error),
        Err(error) => tracing::warn!("not done so far: {error}"),
        Ok(_) => {}
    }
}

/// What was refused would be refused again; what has no answer is sent again with the next.
fn is_settled(sent: &Result<Attr, FsError>) -> bool {
    matches!(sent, Ok(_) | Err(FsError { kind: FsErrorKind::Refused(_), .. }))
}
