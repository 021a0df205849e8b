//! Frozen blocks on their way to the first bucket, and the bound of everything that is buffered.

use super::ids::{Issued, SliceIds};
use crate::backoff;
use crate::error::FsError;
use crate::layout::BlockRef;
use crate::read::Blocks;
use crate::session::{OpError, Session};
use crate::stores::Stores;
use bytes::Bytes;
use farshore_objects::BucketError;
use farshore_types::{BlockKey, SliceId};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

/// PUTs at once.
const UPLOADS_MAX: usize = 16;
/// PUTs of one block before its writer hears of the failure.
const ATTEMPTS_MAX: u32 = 5;
/// The wait between them: first, and at most.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// How often a writer that waits for room asks again for a flush.
const NUDGE: Duration = Duration::from_millis(500);

/// Wakes the flusher, and says whether writers wait for room.
#[derive(Debug, Default)]
pub(crate) struct Pressure {
    pub work: Notify,
    full: AtomicBool,
}

impl Pressure {
    /// Whether writers waited for room since the last look.
    pub fn take_full(&self) -> bool {
        self.full.swap(false, Ordering::AcqRel)
    }
}

#[derive(Debug)]
enum State {
    Missing,
    Running(JoinHandle<Result<u32, UploadError>>),
    Done(u32),
}

#[derive(Debug, thiserror::Error)]
enum UploadError {
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error("no slice id: {0}")]
    Ids(OpError),
    #[error("the upload was stopped: {0}")]
    Stopped(String),
}

/// One slice's upload: its id, and its blocks in order.
#[derive(Debug, Default)]
pub(super) struct SliceUpload {
    issued: OnceCell<Issued>,
    blocks: Mutex<Vec<State>>,
    /// The name is taken by other content: the id must not be used again.
    taken: AtomicBool,
}

impl SliceUpload {
    /// Whether its id may be named in a commit of this session.
    pub fn is_usable(&self, generation: u64) -> bool {
        !self.taken.load(Ordering::Acquire) && self.issued.get().is_none_or(|issued| issued.generation == generation)
    }

    fn blocks(&self) -> MutexGuard<'_, Vec<State>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all writers of a client share.
pub(crate) struct Uploads {
    stores: Arc<Stores>,
    cache: Arc<Blocks>,
    pub(super) session: Arc<Session>,
    pub(super) ids: SliceIds,
    pub(super) block_size: u32,
    slots: Semaphore,
    room: Arc<Semaphore>,
    room_bytes: u32,
    wait_max: Duration,
    pub pressure: Pressure,
}

impl Uploads {
    /// `buffer_size` bounds the bytes that are buffered at once; a writer waits at most `wait_max` for room.
    pub fn new(
        stores: Arc<Stores>,
        cache: Arc<Blocks>,
        session: Arc<Session>,
        block_size: u32,
        buffer_size: u64,
        wait_max: Duration,
    ) -> Arc<Uploads> {
        let room_bytes = buffer_size.clamp(1, u64::from(u32::MAX >> 1)) as u32;
        Arc::new(Uploads {
            stores,
            cache,
            ids: SliceIds::new(session.clone()),
            session,
            block_size,
            slots: Semaphore::new(UPLOADS_MAX),
            room: Arc::new(Semaphore::new(room_bytes as usize)),
            room_bytes,
            wait_max,
            pressure: Pressure::default(),
        })
    }

    /// The most that one reservation may ask for.
    pub fn reservation_max(&self) -> u32 {
        self.room_bytes
    }

    /// Bytes that are buffered now.
    pub fn buffered(&self) -> u64 {
        u64::from(self.room_bytes) - self.room.available_permits() as u64
    }

    /// Room for so many bytes; waits until commits make some.
    pub async fn reserve(&self, bytes: u32) -> Result<OwnedSemaphorePermit, FsError> {
        assert!(bytes <= self.room_bytes, "the caller cuts writes to what can ever fit");
        if let Ok(permit) = self.room.clone().try_acquire_many_owned(bytes) {
            return Ok(permit);
        }
        let mut room = std::pin::pin!(self.room.clone().acquire_many_owned(bytes));
        let deadline = tokio::time::Instant::now() + self.wait_max;
        loop {
            self.pressure.full.store(true, Ordering::Release);
            self.pressure.work.notify_one();
            tokio::select! {
                permit = &mut room => return permit.map_err(|_| FsError::io("the write buffer was closed")),
                _ = tokio::time::sleep(NUDGE) => {}
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(FsError::io(format!("the write buffer of {} bytes stayed full", self.room_bytes)));
            }
        }
    }

    /// Starts the upload of a block that will not change any more.
    pub(super) fn start(self: &Arc<Self>, upload: &Arc<SliceUpload>, index: u32, data: Bytes) {
        let mut blocks = upload.blocks();
        while blocks.len() <= index as usize {
            blocks.push(State::Missing);
        }
        if let State::Missing = blocks[index as usize] {
            let (uploads, of) = (self.clone(), upload.clone());
            blocks[index as usize] = State::Running(tokio::spawn(async move { uploads.put(&of, index, data).await }));
        }
    }

    async fn put(&self, upload: &SliceUpload, index: u32, data: Bytes) -> Result<u32, UploadError> {
        let _slot = self.slots.acquire().await.map_err(|error| UploadError::Stopped(error.to_string()))?;
        let issued = upload.issued.get_or_try_init(|| self.ids.next()).await.map_err(UploadError::Ids)?;
        let key = BlockKey { slice: issued.id, index, size: data.len() as u32 };
        let crc32c = crc32c::crc32c(&data);
        let mut failures = 0;
        loop {
            match self.stores.first().put(&key, data.clone(), crc32c).await {
                Ok(()) => {
                    self.cache.remember(BlockRef { key, crc32c }, &data);
                    return Ok(crc32c);
                }
                Err(error) if error.is_transient() && failures + 1 < ATTEMPTS_MAX => {
                    tokio::time::sleep(backoff::delay(RETRY_FIRST, RETRY_MAX, failures)).await;
                    failures += 1;
                }
                Err(error) => {
                    if let BucketError::Conflict { .. } = error {
                        tracing::error!(block = %key, "an object of this name has other content: {error}");
                        upload.taken.store(true, Ordering::Release);
                    }
                    return Err(error.into());
                }
            }
        }
    }

    /// Waits for all `blocks` of a slice; starts those that are missing, or that failed before.
    pub(super) async fn finish(
        self: &Arc<Self>,
        upload: &Arc<SliceUpload>,
        blocks: &[Bytes],
    ) -> Result<(SliceId, Vec<u32>), FsError> {
        assert!(!blocks.is_empty(), "a slice has at least one byte");
        for (index, data) in blocks.iter().enumerate() {
            self.start(upload, index as u32, data.clone());
        }
        // All are waited for, also after a failure: an old one must not be taken for the next attempt's.
        let mut checksums = Vec::with_capacity(blocks.len());
        let mut failure = None;
        for index in 0..blocks.len() {
            let state = std::mem::replace(&mut upload.blocks()[index], State::Missing);
            let result = match state {
                State::Done(crc32c) => Ok(crc32c),
                State::Running(task) => task.await.unwrap_or_else(|error| Err(UploadError::Stopped(error.to_string()))),
                State::Missing => Err(UploadError::Stopped("it was never started".to_owned())),
            };
            match result {
                Ok(crc32c) => {
                    upload.blocks()[index] = State::Done(crc32c);
                    checksums.push(crc32c);
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        if let Some(error) = failure {
            return Err(FsError::io(format!("upload: {error}")));
        }
        let issued = upload.issued.get().ok_or_else(|| FsError::io("upload: no slice id"))?;
        Ok((issued.id, checksums))
    }
}
