//! What the requests of one mount share, and the bounds under which they run (law 27).
//!
//! [`IN_FLIGHT_MAX`] requests run, [`WAITING_MAX`] more wait in line, beyond that the kernel gets ENOMEM. The kernel itself
//! has one request for each blocked thread and a bounded number in the background, so the line is short in practice.
//! A request that has no answer after [`ANSWER_WITHIN`], or when the mount ends, is answered with EIO: a caller in the
//! kernel cannot be killed while it waits for us. What it asked may have been done or not (law 10).

use super::cursor::Cursor;
use super::file::OpenFile;
use super::handles::{Table, Told, Versions};
use super::notify::Attributes;
use crate::{FsError, Volume};
use fuser::Errno;
use fuser::{
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs,
    ReplyWrite,
};
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

/// Requests that run at a time.
pub(super) const IN_FLIGHT_MAX: usize = 1024;
/// Requests that wait for their turn; beyond it ENOMEM.
const WAITING_MAX: usize = 65_536;
/// Longest time before a request is answered with EIO. Beyond the volume's own bound of a call, with room for retries.
const ANSWER_WITHIN: Duration = Duration::from_secs(300);
/// How long the kernel may keep the attributes and the names that it was told. What a client tells from its own memory is up to
/// 0.1 s old by then; together a second.
pub(super) const TTL: Duration = Duration::from_millis(900);

/// What all requests of one mount share.
pub(super) struct Shared {
    pub volume: Arc<Volume>,
    pub runtime: Handle,
    pub files: Table<OpenFile>,
    pub dirs: Table<tokio::sync::Mutex<Cursor>>,
    pub versions: Arc<Versions>,
    pub told: Told,
    /// Empty until the handshake is over; no open comes before.
    pub attributes: OnceLock<Attributes>,
    closing: watch::Sender<bool>,
    permits: Semaphore,
    waiting: AtomicUsize,
}

/// A reply that can carry an error.
pub(super) trait Answer: Send + 'static {
    fn fail(self, errno: Errno);
}

macro_rules! answers {
    ($($reply:ty),*) => {
        $(impl Answer for $reply {
            fn fail(self, errno: Errno) {
                self.error(errno);
            }
        })*
    };
}
answers!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyEmpty,
    ReplyEntry,
    ReplyOpen,
    ReplyStatfs,
    ReplyWrite
);

/// The number for the kernel; what a person must look at is logged, here where the error is consumed.
pub(super) fn errno(error: FsError) -> Errno {
    let number = error.errno();
    if matches!(number, libc::EIO | libc::ESHUTDOWN) {
        tracing::warn!("answered with an input or output error: {error}");
        return Errno::EIO;
    }
    Errno::from_i32(number)
}

impl Shared {
    pub fn new(volume: Arc<Volume>, runtime: Handle) -> Arc<Shared> {
        Arc::new(Shared {
            volume,
            runtime,
            files: Table::default(),
            dirs: Table::default(),
            versions: Arc::new(Versions::default()),
            told: Told::default(),
            attributes: OnceLock::new(),
            closing: watch::Sender::new(false),
            permits: Semaphore::new(IN_FLIGHT_MAX),
            waiting: AtomicUsize::new(0),
        })
    }

    /// From now on requests that have no answer get EIO.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Runs `work` on tokio and answers with `done`, or with the error. Never waits.
    pub fn answer<R, T>(
        self: &Arc<Self>,
        reply: R,
        work: impl Future<Output = Result<T, Errno>> + Send + 'static,
        done: impl FnOnce(R, T) + Send + 'static,
    ) where
        R: Answer,
        T: Send + 'static,
    {
        self.admit(reply, |shared, reply| async move {
            match shared.within_bounds(work).await {
                Ok(value) => done(reply, value),
                Err(errno) => reply.fail(errno),
            }
        });
    }

    /// Starts a request on tokio with its reply, or refuses it at the bound. Never waits.
    pub fn admit<R: Answer, F>(self: &Arc<Self>, reply: R, run: impl FnOnce(Arc<Shared>, R) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX + IN_FLIGHT_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return reply.fail(Errno::ENOMEM);
        }
        let shared = self.clone();
        self.runtime.spawn(async move {
            run(shared.clone(), reply).await;
            shared.waiting.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Runs work in its turn, not for ever, and not beyond the end of the mount.
    pub async fn within_bounds<T>(&self, work: impl Future<Output = Result<T, Errno>>) -> Result<T, Errno> {
        let mut closing = self.closing.subscribe();
        let run = async {
            let _permit = self.permits.acquire().await.map_err(|_| Errno::EIO)?;
            work.await
        };
        tokio::select! {
            biased;
            outcome = tokio::time::timeout(ANSWER_WITHIN, run) => outcome.unwrap_or_else(|_| {
                tracing::warn!("a request had no answer within {} s and was answered with EIO", ANSWER_WITHIN.as_secs());
                Err(Errno::EIO)
            }),
            _ = closing.wait_for(|closing| *closing) => Err(Errno::EIO),
        }
    }
}
