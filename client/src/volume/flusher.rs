//! Commits what waits too long, what cannot grow any more, and everything when the buffer is full.

use super::attributes::{self, HELD_MAX};
use super::table::{OpenInode, OpenInodes};
use crate::session::Session;
use crate::write::{Extent, Uploads};
use futures::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Written data waits at most about this long for its commit.
const DIRTY_MAX: Duration = Duration::from_secs(5);
/// How often ages are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Inodes flushed at once.
const PARALLEL_MAX: usize = 8;

/// Runs until `stop` says so.
pub(super) async fn run(open: Arc<OpenInodes>, uploads: Arc<Uploads>, session: Arc<Session>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            _ = uploads.pressure.work.notified() => {}
            _ = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let full = uploads.pressure.take_full();
        let due = open.dirty().into_iter().filter_map(|inode| due(&inode, full).map(|due| (inode, due)));
        let session = &session;
        futures::stream::iter(due)
            .for_each_concurrent(PARALLEL_MAX, |(inode, due)| async move {
                match due {
                    Due::Data(extent) => inode.writer.flush_in_background(extent, inode.as_ref()).await,
                    Due::Attributes => attributes::commit_in_background(&inode, session).await,
                }
            })
            .await;
    }
}

/// What is to be committed of an inode.
enum Due {
    Data(Extent),
    /// Held attributes, and with them all data.
    Attributes,
}

fn due(inode: &OpenInode, full: bool) -> Option<Due> {
    if inode.held_for().is_some_and(|age| age >= HELD_MAX) {
        return Some(Due::Attributes);
    }
    if full || inode.writer.dirty_for().is_some_and(|age| age >= DIRTY_MAX) {
        return Some(Due::Data(Extent::All));
    }
    inode.writer.has_sealed().then_some(Due::Data(Extent::Sealed))
}
