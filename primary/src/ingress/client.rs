//! What the hub keeps of one connected client, and what waits for it.

use farshore_meta::Touched;
use farshore_types::{Ino, LogIndex, SessionInfo};
use farshore_wire::v1::{self, ServerFrame, hello::Kind, server_frame::Frame};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc};

/// Touched inodes and names kept for one client; past it the client drops all its caches (law 27).
const PENDING_TOUCHES: usize = 8192;

/// Invalidations that wait for a client.
#[derive(Default)]
pub(super) struct PendingTouches {
    pub index: LogIndex,
    pub touched: BTreeSet<Touched>,
    pub reset: bool,
}

/// A connected client.
pub struct Client {
    pub kind: Kind,
    pub info: SessionInfo,
    pub region: String,
    pub(super) out: mpsc::Sender<ServerFrame>,
    pub wake: Arc<Notify>,
    pub(super) heard_us: u64,
    /// The client says so of each inode once, however many handles it has: what is said again after a reconnection changes nothing.
    pub(super) opens: BTreeSet<Ino>,
    /// Directories that it made on this connection, and those in which it made them.
    pub(super) made: BTreeSet<Ino>,
    pub(super) pending: PendingTouches,
    pub(super) closed: bool,
    /// Tells two connections of one session apart.
    pub(super) connection: u64,
    /// The highest version of the state machine whose answers it understands.
    pub(super) machine: u32,
}

impl Client {
    /// What others changed goes first: who hears an answer has heard of all that was done before it. Nothing comes before a welcome.
    pub(super) fn send(&mut self, frame: Frame) {
        if !matches!(frame, Frame::Welcome(_))
            && let Some(message) = self.take_touches()
        {
            self.push(Frame::Invalidations(message));
        }
        self.push(frame);
    }

    /// What it must be told about its caches, if anything.
    pub(super) fn take_touches(&mut self) -> Option<v1::Invalidations> {
        if self.pending.touched.is_empty() && !self.pending.reset {
            return None;
        }
        let pending = std::mem::take(&mut self.pending);
        let mut message = v1::Invalidations { log_index: pending.index.0, reset: pending.reset, ..Default::default() };
        for touched in pending.touched {
            match touched {
                Touched::Inode(ino) => message.inodes.push(ino.0),
                Touched::Entry { parent, name } => {
                    message.entries.push(v1::TouchedEntry { parent: parent.0, name: name.into() });
                }
            }
        }
        Some(message)
    }

    /// It must be told of this before it hears anything else.
    pub(super) fn touched(&mut self, touched: Touched, index: LogIndex) {
        self.pending.index = self.pending.index.max(index);
        if self.pending.touched.len() < PENDING_TOUCHES {
            self.pending.touched.insert(touched);
        } else {
            self.pending.reset = true;
        }
        self.wake.notify_one();
    }

    pub(super) fn push(&mut self, frame: Frame) {
        if self.out.try_send(ServerFrame { frame: Some(frame) }).is_err() {
            self.closed = true;
            self.wake.notify_one();
        }
    }
}
