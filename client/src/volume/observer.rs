//! What the session says of changes by others, brought to this client's caches first and to subscribers after.

use super::leases::Leases;
use super::names::OwnNames;
use super::table::OpenInodes;
use crate::invalidation::{Invalidation, InvalidationStream, Subscribers};
use crate::session::Observer;
use std::sync::Arc;

pub(crate) struct CacheObserver {
    open: Arc<OpenInodes>,
    pub(super) names: OwnNames,
    pub(super) leases: Leases,
    subscribers: Subscribers,
}

impl CacheObserver {
    pub fn new(open: Arc<OpenInodes>) -> CacheObserver {
        CacheObserver { open, names: OwnNames::default(), leases: Leases::default(), subscribers: Subscribers::default() }
    }

    pub fn subscribe(&self) -> InvalidationStream {
        self.subscribers.subscribe()
    }
}

impl Observer for CacheObserver {
    fn invalidated(&self, items: Vec<Invalidation>) {
        for item in &items {
            self.names.invalidated(item);
            self.leases.invalidated(item);
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
        self.leases.invalidated(&Invalidation::Reset);
        self.open.forget_all();
        self.subscribers.publish(&[Invalidation::Reset]);
    }

    fn session_lost(&self) {
        self.reset();
        self.leases.session_lost();
    }
}
