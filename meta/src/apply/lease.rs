//! A lease on a directory: while a session holds it, no other changes the directory's names, so that the holder may tell
//! programs of a name before the cluster has it. With it go inode numbers that the holder gives to what it makes.
//!
//! A session holds what it made and asked to hold, until it gives it back, or ends. What another session wants there is
//! refused as [`ErrorKind::Leased`]; that one recalls the lease, of which the holder hears as of any change by others, and
//! tries again. A holder that has not given it back [`RECALL_US`] later holds it no more, when the one who waits says so: it
//! counts from the answer to its recall, since the holder hears of that only when it is applied, which may be long after the
//! entry got its time. All of it is shared state, since a lease must hold also at the next leader.

use super::{Apply, Fail};
use crate::change::Event;
use crate::inode::{Body, Inode};
use crate::key;
use crate::kv::StorageError;
use crate::row::{Numbers, encode};
use crate::txn::SharedRead;
use farshore_types::{ErrorKind, Ino, LEASES_VERSION, Reply, SessionId, SliceId};

/// Numbers of one [`farshore_types::Op::AllocInos`], inclusive.
pub const MAX_ALLOC_INOS: u32 = 65_536;
/// Directories of one [`farshore_types::Op::GiveBack`], inclusive.
pub const MAX_GIVE_BACK: usize = 1024;
/// How long a holder has to give a lease back, in microseconds of the entries' time.
pub const RECALL_US: u64 = 1_000_000;

impl Apply<'_> {
    /// Clusters of an older version know no leases (law 4).
    pub(super) fn check_leases(&self) -> Result<(), Fail> {
        if self.header.version < LEASES_VERSION { Err(ErrorKind::Unsupported.into()) } else { Ok(()) }
    }

    /// Refuses whoever may not change names in the directory. A lease whose holder's session ended is none.
    pub(super) fn check_holder(&self, inode: &mut Inode) -> Result<(), Fail> {
        let Body::Directory { lease: slot @ Some(_) } = &mut inode.body else { return Ok(()) };
        match *slot {
            Some(lease) if self.session == Some(lease.holder) => Ok(()),
            Some(lease) if self.is_open(lease.holder)? => Err(ErrorKind::Leased.into()),
            _ => {
                *slot = None;
                Ok(())
            }
        }
    }

    fn is_open(&self, session: SessionId) -> Result<bool, StorageError> {
        Ok(self.txn.bytes(&key::window(session))?.is_some())
    }

    pub(super) fn alloc_inos(&mut self, session: SessionId, count: u32) -> Result<Reply, Fail> {
        self.check_leases()?;
        let next = self.first_id(self.header.next_ino, count, MAX_ALLOC_INOS)?;
        self.header.next_ino += u64::from(count);
        self.txn.put(&key::numbers(session), encode(&Numbers { next, end: next + u64::from(count) }))?;
        Ok(Reply::Inos { first: Ino(next), count })
    }

    /// The session's numbers after it has used this one; those below it are void. It must be of the present epoch's: in an older
    /// one's others may have been made (law 7).
    pub(super) fn numbers_from(&self, session: SessionId, ino: Ino) -> Result<Numbers, Fail> {
        let numbers: Numbers = self.txn.row(&key::numbers(session))?.ok_or(ErrorKind::InvalidArgument)?;
        if !(numbers.next..numbers.end).contains(&ino.0) {
            return Err(ErrorKind::InvalidArgument.into());
        }
        if SliceId(ino.0).slot() != self.header.slot {
            return Err(ErrorKind::Stale.into());
        }
        Ok(Numbers { next: ino.0 + 1, ..numbers })
    }

    pub(super) fn give_back(&mut self, session: SessionId, dirs: &[Ino]) -> Result<Reply, Fail> {
        self.check_leases()?;
        if !(1..=MAX_GIVE_BACK).contains(&dirs.len()) {
            return Err(ErrorKind::InvalidArgument.into());
        }
        for dir in dirs {
            self.give_back_one(session, *dir)?;
        }
        Ok(Reply::Done)
    }

    fn give_back_one(&mut self, session: SessionId, dir: Ino) -> Result<(), StorageError> {
        if let Some(mut inode) = self.txn.row::<Inode>(&key::inode(dir))?
            && let Body::Directory { lease: slot @ Some(_) } = &mut inode.body
            && slot.is_some_and(|lease| lease.holder == session)
        {
            *slot = None;
            self.put_inode(dir, &inode)?;
        }
        Ok(())
    }

    pub(super) fn recall(&mut self, dir: Ino, name: &[u8], take: bool) -> Result<Reply, Fail> {
        self.check_leases()?;
        super::op::check_name(name)?;
        let below = self.dentry(dir, name)?.map(|dentry| dentry.ino);
        for ino in [Some(dir), below].into_iter().flatten() {
            self.recall_one(ino, take)?;
        }
        Ok(Reply::Done)
    }

    fn recall_one(&mut self, ino: Ino, take: bool) -> Result<(), StorageError> {
        let Some(mut inode) = self.txn.row::<Inode>(&key::inode(ino))? else { return Ok(()) };
        let Body::Directory { lease: slot } = &mut inode.body else { return Ok(()) };
        let Some(lease) = slot.as_mut().filter(|lease| Some(lease.holder) != self.session) else { return Ok(()) };
        // Each time anew: a holder that has another connection since may not have heard of it.
        self.event(Event::Recalled { holder: lease.holder, directory: ino });
        let over = take && lease.recalled.is_some_and(|since| self.header.time.0.saturating_sub(since.0) >= RECALL_US);
        if over || !self.is_open(lease.holder)? {
            *slot = None;
        } else {
            lease.recalled.get_or_insert(self.header.time);
        }
        self.put_inode(ino, &inode)
    }
}
