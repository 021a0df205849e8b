//! Directories that this client holds: nobody else changes their names, as the cluster has promised.
//!
//! A client holds what it made, if the mount wants it ([`crate::config::Durable::AtClose`]), until others want it: of that it
//! hears as of any change by others, and gives it back, behind what it has still to say of it, and with it all that it has not
//! used just now: whoever wants one directory of a tree often wants the next. After a new connection, which may have missed
//! such a word, no lease is relied on any more; it is given back when somebody asks.

use crate::invalidation::Invalidation;
use farshore_types::{Attr, Ino, SET_GID};
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Directories held at once; at the bound the oldest is given back.
const LEASES_MAX: usize = 16_384;
/// What was not used for so long goes with what others want.
const IDLE: Duration = Duration::from_secs(1);

type Place = (Ino, Vec<u8>);

#[derive(Debug)]
struct Leased {
    attr: Attr,
    /// Where it was made.
    place: Place,
    /// Whether nobody can have asked for it unheard.
    sure: bool,
    /// When something was made in it last.
    used: Instant,
}

#[derive(Debug, Default)]
struct Inner {
    leased: HashMap<Ino, Leased>,
    /// What is surely still where it was made.
    places: HashMap<Place, Ino>,
    order: VecDeque<Ino>,
    recalled: Vec<Ino>,
}

/// The leases of one client.
#[derive(Debug, Default)]
pub(super) struct Leases {
    inner: Mutex<Inner>,
    /// Says that there is something to give back.
    pub recalled: Notify,
}

impl Leases {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cluster has made the directory, and this client its holder.
    pub fn granted(&self, dir: &Attr, parent: Ino, name: &[u8]) {
        let mut inner = self.inner();
        if inner.leased.len() >= LEASES_MAX {
            inner.give_back_oldest();
            self.recalled.notify_one();
        }
        let place = (parent, name.to_vec());
        inner.places.insert(place.clone(), dir.ino);
        inner.leased.insert(dir.ino, Leased { attr: dir.clone(), place, sure: true, used: Instant::now() });
        inner.order.push_back(dir.ino);
    }

    /// The directory of this name is gone, and its lease with it.
    pub fn removed(&self, parent: Ino, name: &[u8]) {
        let mut inner = self.inner();
        if let Some(ino) = inner.places.remove(&(parent, name.to_vec())) {
            inner.take(ino);
        }
    }

    /// This name leads elsewhere now.
    pub fn moved(&self, parent: Ino, name: &[u8]) {
        self.inner().places.remove(&(parent, name.to_vec()));
    }

    /// The group of what is made in a directory by somebody of this group; `None` when the directory is not surely held.
    pub fn group_in(&self, dir: Ino, gid: u32) -> Option<u32> {
        let mut inner = self.inner();
        let leased = inner.leased.get_mut(&dir).filter(|leased| leased.sure)?;
        leased.used = Instant::now();
        Some(if leased.attr.mode & SET_GID != 0 { leased.attr.gid } else { gid })
    }

    /// The directory's attributes as this client has changed them.
    pub fn changed(&self, attr: &Attr) {
        if let Some(leased) = self.inner().leased.get_mut(&attr.ino) {
            leased.attr = attr.clone();
        }
    }

    /// What others did, or want to do.
    pub fn invalidated(&self, item: &Invalidation) {
        let mut inner = self.inner();
        if let Invalidation::Entry { parent, name } = item {
            inner.places.remove(&(*parent, name.clone()));
        }
        match item {
            Invalidation::Inode(ino) | Invalidation::Entry { parent: ino, .. } => {
                if inner.take(*ino) {
                    inner.recalled.push(*ino);
                    self.recalled.notify_one();
                }
            }
            Invalidation::Reset => inner.leased.values_mut().for_each(|leased| leased.sure = false),
        }
    }

    /// Leases end with their session.
    pub fn session_lost(&self) {
        *self.inner() = Inner::default();
    }

    /// What is to be given back: from now on nothing is made in it.
    pub fn take_recalled(&self) -> Vec<Ino> {
        let mut inner = self.inner();
        let mut recalled = std::mem::take(&mut inner.recalled);
        if !recalled.is_empty() {
            let idle: Vec<Ino> =
                inner.leased.iter().filter(|(_, leased)| leased.used.elapsed() > IDLE).map(|(ino, _)| *ino).collect();
            idle.iter().for_each(|ino| {
                inner.take(*ino);
            });
            recalled.extend(idle);
        }
        recalled
    }

    /// What could not be given back so far.
    pub fn put_back(&self, recalled: &[Ino]) {
        self.inner().recalled.extend_from_slice(recalled);
    }
}

impl Inner {
    fn take(&mut self, ino: Ino) -> bool {
        let Some(leased) = self.leased.remove(&ino) else { return false };
        if self.places.get(&leased.place) == Some(&ino) {
            self.places.remove(&leased.place);
        }
        if self.order.len() > 2 * LEASES_MAX {
            self.order.retain(|ino| self.leased.contains_key(ino));
        }
        true
    }

    fn give_back_oldest(&mut self) {
        while let Some(ino) = self.order.pop_front() {
            if self.take(ino) {
                self.recalled.push(ino);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_types::{LogIndex, NodeKind, Timestamp};

    fn dir(ino: u64, mode: u16) -> Attr {
        let (time, kind) = (Timestamp::default(), NodeKind::Directory);
        let (atime, mtime, ctime, version) = (time, time, time, LogIndex(1));
        Attr { ino: Ino(ino), kind, mode, uid: 0, gid: 7, nlink: 2, size: 0, rdev: 0, atime, mtime, ctime, version }
    }

    #[test]
    fn a_lease_counts_until_others_want_it_and_is_given_back_then() {
        let leases = Leases::default();
        assert_eq!(leases.group_in(Ino(5), 1), None);
        leases.granted(&dir(5, 0o755), Ino(1), b"d");
        leases.granted(&dir(6, 0o2755), Ino(1), b"e");
        assert_eq!((leases.group_in(Ino(5), 1), leases.group_in(Ino(6), 1)), (Some(1), Some(7)));
        leases.changed(&dir(5, 0o2755));
        assert_eq!(leases.group_in(Ino(5), 1), Some(7));
        leases.invalidated(&Invalidation::Entry { parent: Ino(5), name: b"x".to_vec() });
        leases.invalidated(&Invalidation::Inode(Ino(5)));
        assert_eq!((leases.group_in(Ino(5), 1), leases.take_recalled()), (None, vec![Ino(5)]), "given back once");
        assert_eq!(leases.take_recalled(), []);
    }

    #[test]
    fn after_a_new_connection_no_lease_is_sure_and_all_are_given_back_on_demand() {
        let leases = Leases::default();
        leases.granted(&dir(5, 0o755), Ino(1), b"d");
        leases.invalidated(&Invalidation::Reset);
        assert_eq!((leases.group_in(Ino(5), 1), leases.take_recalled()), (None, vec![]));
        leases.invalidated(&Invalidation::Inode(Ino(5)));
        assert_eq!(leases.take_recalled(), [Ino(5)]);
        leases.granted(&dir(6, 0o755), Ino(1), b"e");
        leases.session_lost();
        leases.invalidated(&Invalidation::Inode(Ino(6)));
        assert_eq!(leases.take_recalled(), [], "the cluster has forgotten it");
    }

    #[test]
    fn a_lease_that_was_moved_is_not_lost_with_another_directory_of_its_old_name() {
        let leases = Leases::default();
        for (ino, how) in [(5, "by this client"), (6, "by others")] {
            leases.granted(&dir(ino, 0o755), Ino(1), b"d");
            match how {
                "by this client" => leases.moved(Ino(1), b"d"),
                _ => leases.invalidated(&Invalidation::Entry { parent: Ino(1), name: b"d".to_vec() }),
            }
            leases.removed(Ino(1), b"d");
            assert!(leases.group_in(Ino(ino), 1).is_some(), "moved {how}");
        }
        leases.granted(&dir(7, 0o755), Ino(1), b"d");
        leases.invalidated(&Invalidation::Inode(Ino(5)));
        leases.removed(Ino(1), b"d");
        assert_eq!(leases.group_in(Ino(7), 1), None, "its own place is still known");
    }

    #[test]
    fn what_is_not_used_goes_with_what_others_want() {
        let leases = Leases::default();
        (5..=7).for_each(|ino| leases.granted(&dir(ino, 0o755), Ino(1), b"d"));
        leases.inner().leased.get_mut(&Ino(6)).unwrap().used = Instant::now().checked_sub(2 * IDLE).unwrap();
        assert_eq!(leases.take_recalled(), [], "nobody wants anything");
        leases.invalidated(&Invalidation::Inode(Ino(5)));
        let recalled = leases.take_recalled();
        assert_eq!(recalled, [Ino(5), Ino(6)]);
        leases.put_back(&recalled[1..]);
        assert_eq!(leases.take_recalled(), [Ino(6)]);
        assert!(leases.group_in(Ino(7), 1).is_some());
    }

    #[test]
    fn law_27_leases_are_bounded_and_a_removed_directory_takes_no_place() {
        let leases = Leases::default();
        for n in 0..2 * LEASES_MAX as u64 {
            leases.granted(&dir(n + 2, 0o755), Ino(1), b"same");
            leases.removed(Ino(1), b"same");
        }
        assert_eq!(leases.take_recalled(), []);
        for n in 0..=LEASES_MAX as u64 {
            leases.granted(&dir(n + 100_000, 0o755), Ino(1), n.to_string().as_bytes());
        }
        assert_eq!(leases.take_recalled(), [Ino(100_000)], "the oldest");
        let inner = leases.inner();
        assert_eq!((inner.leased.len(), inner.places.len()), (LEASES_MAX, LEASES_MAX));
        assert!(inner.order.len() <= 2 * LEASES_MAX + 1);
    }
}
