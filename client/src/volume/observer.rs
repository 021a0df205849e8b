//! What the session says of changes by others, brought to this client's caches first and to subscribers after.

use super::names::OwnNames;
use super::table::OpenInodes;
use crate::invalidation::{Invalidation, InvalidationStream, Subscribers};
use crate::session::Observer;
use std::sync::Arc;

pub(crate) struct CacheObserver {
    open: Arc<OpenInodes>,
    pub(super) names: OwnNames,
    subscribers: Subscribers,
}

impl CacheObserver {
    pub fn new(open: Arc<OpenInodes>) -> CacheObserver {
        CacheObserver { open, names: OwnNames::default(), subscribers: Subscribers::default() }
    }

    pub fn subscribe(&self) -> InvalidationStream {
        self.subscribers.subscribe()
    }
}

impl Observer for CacheObserver {
    fn invalidated(&self, items: Vec<Invalidation>) {
        for item in &items {
            self.names.invalidated(item);
            match item {
                Invalidation::Inode(ino) => self.open.forget(*ino),
                Invalidation::Entry { .. } => {}
                Invalidation::Reset => self.open.forget_all(),
            }
        }
        self.subscribers.publish(&items);
    }

    fn reset(&self) {
        self.names.invalidated(&Invalidation::Reset);
        self.open.forget_all();
        self.subscribers.publish(&[Invalidation::Reset]);
    }

    fn session_lost(&self) {
        self.reset();
    }
}
