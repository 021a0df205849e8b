//! What a client's own caches and the kernel's must forget.
//!
//! A subscriber owns a bounded queue. When it is full, everything in it is replaced by one [`Invalidation::Reset`]:
//! forgetting too much is right, forgetting too little is not (laws 27, 29).

use farshore_types::Ino;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::Notify;

/// Invalidations that wait for one subscriber; at the bound they become one reset.
const QUEUE_MAX: usize = 4096;

/// Something that others changed, and that must be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalidation {
    /// Attributes and content of an inode.
    Inode(Ino),
    /// The entry of this name in a directory.
    Entry { parent: Ino, name: Vec<u8> },
    /// Everything: messages were lost, the session ended, or history changed.
    Reset,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<VecDeque<Invalidation>>,
    arrived: Notify,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Invalidation>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One subscriber's end.
#[derive(Debug)]
pub struct InvalidationStream {
    queue: Arc<Queue>,
}

impl InvalidationStream {
    /// The next one; waits for it. Must be called from one task at a time.
    pub async fn next(&self) -> Invalidation {
        loop {
            if let Some(next) = self.try_next() {
                return next;
            }
            self.queue.arrived.notified().await;
        }
    }

    /// The next one, if it is there.
    pub fn try_next(&self) -> Option<Invalidation> {
        self.queue.lock().pop_front()
    }
}

/// All subscribers of a client.
#[derive(Debug, Default)]
pub(crate) struct Subscribers {
    queues: Mutex<Vec<Weak<Queue>>>,
}

impl Subscribers {
    pub fn subscribe(&self) -> InvalidationStream {
        let queue = Arc::new(Queue::default());
        self.lock().push(Arc::downgrade(&queue));
        InvalidationStream { queue }
    }

    pub fn publish(&self, items: &[Invalidation]) {
        self.lock().retain(|queue| {
            let Some(queue) = queue.upgrade() else { return false };
            let mut waiting = queue.lock();
            if items.contains(&Invalidation::Reset) || waiting.len() + items.len() > QUEUE_MAX {
                waiting.clear();
                waiting.push_back(Invalidation::Reset);
            } else {
                waiting.extend(items.iter().cloned());
            }
            assert!(waiting.len() <= QUEUE_MAX, "a subscriber's queue is bounded");
            drop(waiting);
            queue.arrived.notify_one();
            true
        });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Queue>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn law_27_an_overflow_becomes_one_reset() {
        let subscribers = Subscribers::default();
        let stream = subscribers.subscribe();
        subscribers.publish(&[Invalidation::Inode(Ino(7))]);
        assert_eq!(stream.next().await, Invalidation::Inode(Ino(7)));
        for ino in 0..=QUEUE_MAX as u64 {
            subscribers.publish(&[Invalidation::Inode(Ino(ino))]);
        }
        assert_eq!(stream.next().await, Invalidation::Reset);
        assert_eq!(stream.try_next(), None);
        subscribers.publish(&[Invalidation::Entry { parent: Ino(1), name: b"a".to_vec() }, Invalidation::Reset]);
        assert_eq!(stream.next().await, Invalidation::Reset);
        assert_eq!(stream.try_next(), None);
    }
}
