//! Telling the kernel what to forget (law 29).
//!
//! Two threads of their own, which answer no request:
//! - `farshore-notify` drops pages, attributes and names that others changed. It may wait inside the kernel for a page or
//!   a directory that a request holds, so nobody ever waits for it. Its queue is bounded: names that find it full become
//!   an invalidation of their directory (the kernel keeps a name for a second at most), and inodes that find it full
//!   become a reset.
//! - `farshore-attrs` drops attributes alone, which waits for no request, and is waited for by an open that found newer
//!   attributes at the leader than the kernel was told: a read after that open then sees the new size (close-to-open).

use super::handles::{Versions, lock};
use crate::Invalidation;
use farshore_types::Ino;
use fuser::{INodeNo, Notifier};
use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// Inodes that wait to be dropped; at the bound everything is dropped instead.
const INODES_MAX: usize = 8192;
/// Names that wait to be dropped; at the bound a name becomes its directory.
const ENTRIES_MAX: usize = 8192;
/// Opens that wait for their attributes to be dropped; at the bound further opens wait in line.
const ATTRIBUTES_MAX: usize = 1024;

/// What the thread does next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Entry(Ino, Vec<u8>),
    Inode(Ino),
    Reset,
}

/// What waits, coalesced; pure.
#[derive(Debug, Default)]
struct Waiting {
    inodes: BTreeSet<Ino>,
    entries: VecDeque<(Ino, Vec<u8>)>,
    reset: bool,
    closed: bool,
}

impl Waiting {
    fn push(&mut self, invalidation: Invalidation) {
        match invalidation {
            // A reset covers all inodes, but not names: those it leaves to their time to live.
            Invalidation::Inode(_) if self.reset => {}
            Invalidation::Inode(ino) => {
                self.inodes.insert(ino);
            }
            Invalidation::Entry { parent, name } if self.entries.len() < ENTRIES_MAX => self.entries.push_back((parent, name)),
            Invalidation::Entry { parent, .. } => return self.push(Invalidation::Inode(parent)),
            Invalidation::Reset => self.reset = true,
        }
        if self.inodes.len() >= INODES_MAX {
            self.reset = true;
        }
        if self.reset {
            self.inodes.clear();
        }
        assert!(self.inodes.len() < INODES_MAX && self.entries.len() <= ENTRIES_MAX, "the queue is bounded (law 27)");
    }

    fn pop(&mut self) -> Option<Step> {
        if std::mem::take(&mut self.reset) {
            return Some(Step::Reset);
        }
        if let Some((parent, name)) = self.entries.pop_front() {
            return Some(Step::Entry(parent, name));
        }
        self.inodes.pop_first().map(Step::Inode)
    }
}

/// The queue of the thread that drops what others changed.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

impl Queue {
    /// Never waits.
    pub fn push(&self, invalidation: Invalidation) {
        lock(&self.waiting).push(invalidation);
        self.arrived.notify_one();
    }

    /// Lets the thread end; what still waits is dropped.
    pub fn close(&self) {
        lock(&self.waiting).closed = true;
        self.arrived.notify_one();
    }

    fn next(&self) -> Option<Step> {
        let mut waiting = lock(&self.waiting);
        loop {
            if waiting.closed {
                return None;
            }
            if let Some(step) = waiting.pop() {
                return Some(step);
            }
            waiting = self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Starts the thread that drops what others changed. It ends with its queue or with the connection.
pub(super) fn start(queue: Arc<Queue>, notifier: Notifier, versions: Arc<Versions>) -> io::Result<()> {
    let run = move || {
        while let Some(step) = queue.next() {
            let told = match step {
                Step::Entry(parent, name) => notifier.inval_entry(INodeNo(parent.0), OsStr::from_bytes(&name)),
                Step::Inode(ino) => notifier.inval_inode(INodeNo(ino.0), 0, 0),
                Step::Reset => versions.reset().into_iter().try_for_each(|ino| notifier.inval_inode(INodeNo(ino.0), 0, 0)),
            };
            if let Err(error) = told
                && is_gone(&error)
            {
                return;
            }
        }
    };
    std::thread::Builder::new().name("farshore-notify".into()).spawn(run).map(drop)
}

/// The end at which opens ask for attributes to be dropped.
#[derive(Clone, Debug)]
pub(super) struct Attributes {
    asked: mpsc::Sender<(Ino, oneshot::Sender<()>)>,
}

impl Attributes {
    /// Starts the thread. It ends when the last clone of the sender is gone, or with the connection.
    pub fn start(notifier: Notifier) -> io::Result<Attributes> {
        let (asked, mut asks) = mpsc::channel::<(Ino, oneshot::Sender<()>)>(ATTRIBUTES_MAX);
        let run = move || {
            while let Some((ino, done)) = asks.blocking_recv() {
                // A negative offset means the attributes alone.
                let told = notifier.inval_inode(INodeNo(ino.0), -1, 0);
                // The asker may have given up; then nobody needs to know.
                let _ = done.send(());
                if let Err(error) = told
                    && is_gone(&error)
                {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("farshore-attrs".into()).spawn(run)?;
        Ok(Attributes { asked })
    }

    /// Returns when the kernel has no attributes of the inode any more, or is gone itself.
    pub async fn forget(&self, ino: Ino) {
        let (done, wait) = oneshot::channel();
        if self.asked.send((ino, done)).await.is_ok() {
            // An error means that the thread ended with the connection.
            let _ = wait.await;
        }
    }
}

/// Whether the connection has ended. Every other error concerns one inode or name that the kernel no longer knows.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOTCONN | libc::EBADF | libc::EPERM))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(waiting: &mut Waiting) -> Vec<Step> {
        std::iter::from_fn(|| waiting.pop()).collect()
    }

    #[test]
    fn the_same_inode_waits_once() {
        let mut waiting = Waiting::default();
        waiting.push(Invalidation::Inode(Ino(4)));
        waiting.push(Invalidation::Entry { parent: Ino(1), name: b"a".to_vec() });
        waiting.push(Invalidation::Inode(Ino(4)));
        assert_eq!(drain(&mut waiting), [Step::Entry(Ino(1), b"a".to_vec()), Step::Inode(Ino(4))]);
    }

    #[test]
    fn law_27_too_many_names_become_their_directory() {
        let mut waiting = Waiting::default();
        for n in 0..ENTRIES_MAX + 10 {
            waiting.push(Invalidation::Entry { parent: Ino(9), name: n.to_string().into_bytes() });
        }
        let steps = drain(&mut waiting);
        assert_eq!(steps.len(), ENTRIES_MAX + 1);
        assert_eq!(steps.last(), Some(&Step::Inode(Ino(9))));
    }

    #[test]
    fn law_27_too_many_inodes_become_a_reset() {
        let mut waiting = Waiting::default();
        for ino in 0..2 * INODES_MAX as u64 {
            waiting.push(Invalidation::Inode(Ino(ino)));
        }
        assert_eq!(drain(&mut waiting), [Step::Reset]);
        waiting.push(Invalidation::Inode(Ino(1)));
        assert_eq!(drain(&mut waiting), [Step::Inode(Ino(1))], "after the reset it goes on as before");
    }

    #[test]
    fn a_reset_covers_the_inodes_that_wait() {
        let mut waiting = Waiting::default();
        waiting.push(Invalidation::Inode(Ino(4)));
        waiting.push(Invalidation::Reset);
        waiting.push(Invalidation::Inode(Ino(5)));
        assert_eq!(drain(&mut waiting), [Step::Reset]);
    }

    #[test]
    fn a_closed_queue_ends_its_reader() {
        let queue = Queue::default();
        queue.push(Invalidation::Reset);
        queue.close();
        assert_eq!(queue.next(), None);
    }
}
