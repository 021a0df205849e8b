//! Files that this client has made in directories that it holds, and not told the cluster of yet.
//!
//! A program gets its file at once. The creation goes to the cluster with the first commit of the file, in one step, or
//! [`HOLD_MAX`] later, and before anything that could see whether it was done: another operation on names, a question about
//! the file or its directory. Its numbers are the cluster's, taken in ranges, and used in ascending order, as the cluster
//! wants it: whoever sends a creation sends all those before it.
//!
//! A creation can fail still: the volume is full, the session has ended. The file's close says so then, and its fsync.

use super::namespace::{KNOWN_MAX, names_of};
use super::observer::CacheObserver;
use super::table::OpenInode;
use crate::error::FsError;
use crate::session::{Done, OpError, Session};
use farshore_types::{Attr, ErrorKind, Ino, LogIndex, MAX_NAME, NewNode, NodeKind, Op, Query, Reply, Timestamp};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

/// How long a creation is kept back, at most. With the way to the cluster it is there within the second that names may be old.
const HOLD_MAX: Duration = Duration::from_millis(500);
/// Creations without an answer; beyond it files are made at the cluster.
const CREATIONS_MAX: usize = 256;
/// Directories given back in one operation.
const GIVE_BACK_MAX: usize = 512;
/// Numbers taken at once.
const RANGE: u32 = 256;

/// How far a creation is.
#[derive(Clone, Debug)]
enum Stage {
    /// Nobody else knows of it.
    Held,
    Sent,
    Done(Result<(), FsError>),
}

/// A file on its way into the tree.
pub(super) struct Creation {
    op: Op,
    parent: Ino,
    name: Vec<u8>,
    inode: Arc<OpenInode>,
    generation: u64,
    stage: watch::Sender<Stage>,
    /// Nobody has the file open any more: the cluster need not hold it open.
    given_up: AtomicBool,
    all: Arc<Creations>,
}

impl std::fmt::Debug for Creation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Creation({}, {:?})", self.inode.ino, *self.stage.borrow())
    }
}

/// Numbers for new files, of one session and connection.
#[derive(Debug, Default)]
struct Numbers {
    next: u64,
    left: u32,
    of: (u64, u64),
}

/// A file that was made here.
pub(super) struct Held {
    pub inode: Arc<OpenInode>,
    /// The session that it is open in.
    pub generation: u64,
    pub attr: Attr,
}

/// All creations of one client.
pub(super) struct Creations {
    session: Arc<Session>,
    caches: Arc<CacheObserver>,
    call_timeout: Duration,
    /// Without an answer, by number.
    pending: Mutex<BTreeMap<Ino, Arc<Creation>>>,
    /// Held while a file gets its number and its place among the others.
    numbers: tokio::sync::Mutex<Numbers>,
    /// Held while creations are handed to the session.
    sending: tokio::sync::Mutex<()>,
    /// Says that a creation waits.
    waits: Notify,
}

impl Creation {
    /// Hands it to the session, if that was not done: what the session is given next comes after it.
    pub async fn begin(&self) -> Result<(), FsError> {
        if !self.is_held() {
            return Ok(());
        }
        self.all.begin(Bound::Included(self.inode.ino)).await.map_err(|error| FsError::of_op(error, self.context()))
    }

    fn is_held(&self) -> bool {
        matches!(*self.stage.borrow(), Stage::Held)
    }

    /// What came of it.
    pub async fn outcome(&self) -> Result<(), FsError> {
        self.begin().await?;
        let mut stage = self.stage.subscribe();
        let done = stage.wait_for(|stage| matches!(stage, Stage::Done(_)));
        match tokio::time::timeout(self.all.call_timeout, done).await {
            Ok(Ok(stage)) => match &*stage {
                Stage::Done(done) => done.clone(),
                _ => unreachable!("it was waited for"),
            },
            _ => Err(FsError::of_op(OpError::Unknown, self.context())),
        }
    }

    /// Nobody uses the file any more.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
        // The answer may have come since it was looked for.
        if matches!(*self.stage.borrow(), Stage::Done(Ok(()))) {
            self.all.session.closed(self.inode.ino, self.generation);
        }
    }

    fn is(&self, parent: Ino, name: &[u8]) -> bool {
        self.parent == parent && self.name == name
    }

    fn context(&self) -> String {
        format!("make `{}` in {}", String::from_utf8_lossy(&self.name), self.parent)
    }
}

impl Creations {
    pub fn new(session: Arc<Session>, caches: Arc<CacheObserver>, call_timeout: Duration) -> Arc<Creations> {
        let (pending, numbers, sending, waits) = Default::default();
        Arc::new(Creations { session, caches, call_timeout, pending, numbers, sending, waits })
    }

    fn pending(&self) -> MutexGuard<'_, BTreeMap<Ino, Arc<Creation>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The group of a file of this name, if it may be made here first. Where the cluster was heard just now, a recall was as well.
    fn may_hold(&self, parent: Ino, name: &[u8], gid: u32) -> Option<u32> {
        let known = self.session.silent_for() < KNOWN_MAX && name.len() <= MAX_NAME && self.caches.names.has_not(parent, name);
        if known { self.caches.leases.group_in(parent, gid) } else { None }
    }

    /// Makes a file that the cluster does not know of yet, and enters its inode by `enter`; `None`: ask the cluster to make it.
    pub async fn hold(
        self: &Arc<Self>,
        parent: Ino,
        name: &[u8],
        (mode, uid, gid): (u16, u32, u32),
        enter: impl FnOnce(Ino) -> Arc<OpenInode>,
    ) -> Option<Held> {
        self.may_hold(parent, name, gid)?;
        let mut numbers = self.numbers.lock().await;
        let of = (self.session.generation(), self.session.connections());
        if numbers.left == 0 || numbers.of != of {
            // Others may have waited for numbers in vain before.
            self.may_hold(parent, name, gid)?;
            *numbers = self.take_numbers(of).await?;
        }
        // The lease may have been recalled meanwhile: looked at where a recall that comes later finds the file.
        let mut pending = self.pending();
        let group = self.may_hold(parent, name, gid).filter(|_| pending.len() < CREATIONS_MAX)?;
        let ino = Ino(numbers.next);
        let attr = new_file(ino, (mode, uid, group));
        if !self.caches.names.hold_file(parent, name, &attr) {
            return None;
        }
        (numbers.next, numbers.left) = (numbers.next + 1, numbers.left - 1);
        let (node, name) = (NewNode::File, name.to_vec());
        let op = Op::MakeAs { parent, name: name.clone(), node, mode, uid, gid, ino: Some(ino), lease: false };
        let (inode, generation) = (enter(ino), of.0);
        let (stage, given_up) = (watch::Sender::new(Stage::Held), AtomicBool::new(false));
        let all = self.clone();
        let creation = Arc::new(Creation { op, parent, name, inode: inode.clone(), generation, stage, given_up, all });
        inode.made_here(attr.clone(), creation.clone());
        pending.insert(ino, creation);
        self.waits.notify_one();
        Some(Held { inode, generation, attr })
    }

    /// A range of numbers. Those before it are void: what has some of them goes first.
    async fn take_numbers(self: &Arc<Self>, of: (u64, u64)) -> Option<Numbers> {
        self.begin(Bound::Unbounded).await.ok()?;
        match self.session.call(Op::AllocInos { count: RANGE }).await {
            Ok((Reply::Inos { first, count }, _)) => Some(Numbers { next: first.0, left: count, of }),
            Ok((other, _)) => {
                tracing::warn!("numbers for new files: unexpected answer {other:?}");
                None
            }
            Err(error) => {
                tracing::debug!("no numbers for new files, which the cluster makes instead: {error}");
                None
            }
        }
    }

    /// Hands all that is held to the session: what the session is given next comes after it.
    pub async fn begin_all(self: &Arc<Self>) -> Result<(), OpError> {
        if self.pending().is_empty() { Ok(()) } else { self.begin(Bound::Unbounded).await }
    }

    async fn begin(self: &Arc<Self>, last: Bound<Ino>) -> Result<(), OpError> {
        let _turn = self.sending.lock().await;
        let up_to: Vec<_> = self.pending().range((Bound::Unbounded, last)).map(|(_, creation)| creation.clone()).collect();
        for creation in up_to.into_iter().filter(|creation| creation.is_held()) {
            if creation.generation != self.session.generation() {
                self.settle(&creation, Err(FsError::of_op(OpError::SessionLost, creation.context())));
                continue;
            }
            let answer = self.session.begin(creation.op.clone(), true, creation.generation).await?;
            creation.stage.send_replace(Stage::Sent);
            tokio::spawn(self.clone().hear(creation, answer));
        }
        Ok(())
    }

    async fn hear(self: Arc<Self>, creation: Arc<Creation>, answer: oneshot::Receiver<Result<Done, OpError>>) {
        let done = match answer.await.unwrap_or(Err(OpError::Closed)) {
            Ok(Done { reply: Reply::Attr(attr), index, opened }) => {
                self.caches.names.made_file(creation.parent, &attr);
                creation.inode.made_as(attr, index);
                self.opened(&creation, opened).await;
                Ok(())
            }
            Ok(Done { reply, .. }) => {
                Err(FsError::refused(ErrorKind::Io, format!("{}: unexpected answer {reply:?}", creation.context())))
            }
            Err(error) => Err(FsError::of_op(error, creation.context())),
        };
        self.settle(&creation, done);
    }

    /// The node holds the file open, or is asked to; or need not any more.
    async fn opened(&self, creation: &Creation, opened: Option<u64>) {
        let ino = creation.inode.ino;
        let generation = match opened {
            Some(generation) => generation,
            None => {
                let generation = self.session.count_open(ino);
                if let Err(error) = self.session.query(Query::Open { ino }).await {
                    tracing::debug!(%ino, "a new file is not held open: {error}");
                }
                generation
            }
        };
        if creation.given_up.load(Ordering::Acquire) {
            self.session.closed(ino, generation);
        }
    }

    fn settle(&self, creation: &Creation, done: Result<(), FsError>) {
        if let Err(error) = &done {
            tracing::warn!(ino = %creation.inode.ino, "a file that a program has open was not made: {error}");
            self.caches.names.forget(creation.parent);
        }
        self.pending().remove(&creation.inode.ino);
        creation.inode.was_made(done.clone());
        creation.stage.send_replace(Stage::Done(done));
    }

    /// Waits for the creations on which the answer depends. The one who made a file hears how it went.
    pub async fn settle_for(self: &Arc<Self>, query: &Query) {
        let concerns = |creation: &Creation| match query {
            Query::Lookup { parent, name } => creation.is(*parent, name),
            Query::ReadDir { ino, .. } => creation.parent == *ino,
            Query::GetAttr { ino } | Query::Parent { ino } => creation.inode.ino == *ino || creation.parent == *ino,
            Query::Open { ino } | Query::Slices { ino, .. } | Query::PathOf { ino } | Query::ReadLink { ino } => {
                creation.inode.ino == *ino
            }
            Query::Close { .. } | Query::StatFs => false,
        };
        let _ = self.settle_where(concerns).await;
    }

    /// Waits for what is to be removed, moved or linked, and for what may be replaced: a name that this client could not make
    /// after all is not its to change.
    pub async fn settle_names(self: &Arc<Self>, op: &Op) -> Result<(), FsError> {
        match op {
            Op::Unlink { .. } | Op::Rename { .. } => {
                let names = names_of(op);
                self.settle_where(|creation| names.iter().any(|(parent, name)| creation.is(*parent, name))).await
            }
            Op::Link { ino, .. } => self.settle_where(|creation| creation.inode.ino == *ino).await,
            _ => Ok(()),
        }
    }

    /// Waits for all in a directory.
    pub async fn settle_in(self: &Arc<Self>, dir: Ino) -> Result<(), FsError> {
        self.settle_where(|creation| creation.parent == dir).await
    }

    /// Waits until all are done that there are now.
    pub async fn settle_all(self: &Arc<Self>) -> Result<(), FsError> {
        self.settle_where(|_| true).await
    }

    async fn settle_where(self: &Arc<Self>, which: impl Fn(&Creation) -> bool) -> Result<(), FsError> {
        let all: Vec<_> = self.pending().values().filter(|creation| which(creation)).cloned().collect();
        futures::future::join_all(all.iter().map(|creation| creation.outcome())).await.into_iter().collect()
    }

    /// Sends what has waited long enough, and gives back leases that were recalled, until `stop` says so.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut due: Option<Instant> = None;
        loop {
            let at = due.unwrap_or_else(Instant::now);
            tokio::select! {
                () = async { drop(stop.wait_for(|stop| *stop).await) } => break,
                () = self.waits.notified(), if due.is_none() => due = Some(Instant::now() + HOLD_MAX),
                () = tokio::time::sleep_until(at), if due.is_some() => {
                    // What has no room at the session now has it at the next time.
                    due = self.give_back().await.is_err().then(|| Instant::now() + HOLD_MAX);
                }
                () = self.caches.leases.recalled.notified() => {
                    if self.give_back().await.is_err() {
                        due.get_or_insert_with(|| Instant::now() + HOLD_MAX);
                    }
                }
            }
        }
        // What a volume that was not shut down has not sent, nobody will.
        let left: Vec<_> = self.pending().values().cloned().collect();
        for creation in left.into_iter().filter(|creation| creation.is_held()) {
            self.settle(&creation, Err(FsError::of_op(OpError::Closed, creation.context())));
        }
    }

    /// Sends what is held, and gives back what was recalled. What was made under a lease goes before it: a lease is in the list only
    /// once nothing is made under it any more. Nobody waits for the answers, so that the next who asks is served.
    async fn give_back(self: &Arc<Self>) -> Result<(), OpError> {
        let generation = self.session.generation();
        let dirs = self.caches.leases.take_recalled();
        let mut sent = 0;
        let done = async {
            self.begin_all().await?;
            for dirs in dirs.chunks(GIVE_BACK_MAX) {
                let answer = self.session.begin(Op::GiveBack { dirs: dirs.to_vec() }, false, generation).await?;
                tokio::spawn(answer);
                sent += dirs.len();
            }
            Ok(())
        }
        .await;
        self.caches.leases.put_back(&dirs[sent..]);
        done
    }
}

/// As the cluster will make it, by this client's clock, and of a version below all.
fn new_file(ino: Ino, (mode, uid, gid): (u16, u32, u32)) -> Attr {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = Timestamp { secs: since.as_secs() as i64, nanos: since.subsec_micros() * 1000 };
    let (kind, nlink, size, rdev) = (NodeKind::File, 1, 0, 0);
    let (atime, mtime, ctime, version) = (time, time, time, LogIndex(0));
    Attr { ino, kind, mode, uid, gid, nlink, size, rdev, atime, mtime, ctime, version }
}
