//! The writer of one inode, shared by all its handles in this client.
//!
//! Order is everything here: slices are uploaded in any order, and committed in the order in which they were written, by
//! one flush at a time. A slice leaves the buffer after its commit was answered and the inode knows of it, so that a reader
//! sees it in one of the two.

use super::pending::{FullBlock, Pending};
use super::upload::{SliceUpload, Uploads};
use crate::error::FsError;
use crate::session::OpError;
use bytes::Bytes;
use farshore_types::{Attr, ErrorKind, Ino, LogIndex, NewSlice, Op, Reply};
use futures::future::{BoxFuture, OptionFuture};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

/// Slices in one commit.
const COMMIT_MAX: usize = 128;
/// Blocks in one commit, unless one slice has more: each is a checksum in an entry of the log, whose size is bounded.
const COMMIT_BLOCKS_MAX: usize = 8192;
/// Slices of one inode that wait; at the bound a writer flushes before it goes on.
const PENDING_MAX: usize = 1024;
/// Bytes taken from one write at a time.
const PIECE_BYTES: u32 = 1 << 20;
/// How often the same bytes are uploaded again under new ids in one flush.
const RECOMMITS_MAX: u32 = 5;

/// Who must know the inode as a commit left it.
pub(crate) trait Committed: Sync {
    /// A change of this client's own has left these attributes, in the entry of this index.
    fn committed(&self, attr: Attr, index: LogIndex);
    /// The committed length.
    fn size(&self) -> u64;
    /// Comes before every commit: hands the session what must go before it.
    fn begin(&self) -> BoxFuture<'_, Result<(), FsError>>;
}

/// How far to flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Everything written before the call.
    All,
    /// The oldest slices that cannot grow any more.
    Sealed,
}

/// Where a write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    At(u64),
    /// The end of the file.
    End,
}

struct Buffer {
    pending: Pending<Arc<SliceUpload>>,
    room: Option<OwnedSemaphorePermit>,
    /// Data was given up, and nobody has heard of it yet.
    lost: Option<FsError>,
    /// Data could not be committed so far, and nobody has heard of it yet.
    trouble: Option<FsError>,
    since: Option<Instant>,
    clear_set_id: bool,
}

pub(crate) struct Writer {
    ino: Ino,
    uploads: Arc<Uploads>,
    buffer: Mutex<Buffer>,
    flushing: tokio::sync::Mutex<()>,
}

/// One slice of a commit.
struct Sending {
    serial: u64,
    chunk: u32,
    position: u32,
    size: u32,
    upload: Arc<SliceUpload>,
    blocks: Vec<Bytes>,
}

/// What one attempt to commit came to.
enum Attempt {
    Done,
    /// The ids are of no use any more: upload again under new ones.
    Again,
}

impl Writer {
    pub fn new(ino: Ino, uploads: Arc<Uploads>) -> Writer {
        let pending = Pending::new(uploads.block_size);
        let buffer = Buffer { pending, room: None, lost: None, trouble: None, since: None, clear_set_id: false };
        Writer { ino, uploads, buffer: Mutex::new(buffer), flushing: tokio::sync::Mutex::new(()) }
    }

    /// Takes all of `data`. Waits for room; answers a failure of earlier writes that nobody has heard of yet.
    pub async fn write(&self, place: Place, data: Bytes, clear_set_id: bool, inode: &dyn Committed) -> Result<usize, FsError> {
        let piece_max = PIECE_BYTES.min(self.uploads.reservation_max()) as usize;
        let mut next = None;
        for piece in data.chunks(piece_max) {
            let room = self.uploads.reserve(piece.len() as u32).await?;
            if self.lock().pending.slices().count() >= PENDING_MAX {
                self.flush(Extent::All, inode).await?;
            }
            let mut buffer = self.lock();
            if let Some(error) = buffer.lost.take().or_else(|| buffer.trouble.take()) {
                return Err(error);
            }
            let offset = next.unwrap_or_else(|| match place {
                Place::At(offset) => offset,
                Place::End => inode.size().max(buffer.pending.end()),
            });
            next = Some(offset + piece.len() as u64);
            buffer.clear_set_id |= clear_set_id;
            buffer.since.get_or_insert_with(Instant::now);
            match &mut buffer.room {
                Some(held) => held.merge(room),
                none => *none = Some(room),
            }
            let full = buffer.pending.write(offset, piece, Arc::default);
            self.start(&mut buffer, full);
        }
        Ok(data.len())
    }

    fn start(&self, buffer: &mut Buffer, full: Vec<FullBlock>) {
        for block in full {
            let slice = buffer.pending.slice_mut(block.serial).expect("a block was frozen in a slice that is there");
            let upload = slice.upload.clone();
            if slice.is_sealed() {
                self.uploads.pressure.work.notify_one();
            }
            self.uploads.start(&upload, block.index, block.data);
        }
    }

    /// Where the furthest uncommitted byte ends; 0 without any.
    pub fn dirty_end(&self) -> u64 {
        self.lock().pending.end()
    }

    /// How long the oldest uncommitted byte has waited.
    pub fn dirty_for(&self) -> Option<Duration> {
        let buffer = self.lock();
        buffer.since.filter(|_| !buffer.pending.is_empty()).map(|since| since.elapsed())
    }

    pub fn has_sealed(&self) -> bool {
        self.lock().pending.slices().next().is_some_and(|slice| slice.is_sealed())
    }

    /// Copies uncommitted bytes over `out`; returns the ranges covered, and the furthest uncommitted end.
    pub fn overlay(&self, offset: u64, out: &mut [u8]) -> (Vec<(u64, u64)>, u64) {
        let buffer = self.lock();
        (buffer.pending.overlay(offset, out), buffer.pending.end())
    }

    /// Uploads and commits. What fails in passing stays buffered; what metadata refuses is given up, and reported.
    pub async fn flush(&self, extent: Extent, inode: &dyn Committed) -> Result<(), FsError> {
        let _turn = self.flushing.lock().await;
        self.flush_in_turn(extent, inode).await
    }

    /// Flushes, then runs `then` before any other flush: for truncation, which must not overtake writes.
    pub async fn flush_then<T>(
        &self,
        inode: &dyn Committed,
        then: impl Future<Output = Result<T, FsError>>,
    ) -> Result<T, FsError> {
        let _turn = self.flushing.lock().await;
        self.flush_in_turn(Extent::All, inode).await?;
        then.await
    }

    /// As [`Writer::flush`] of all, with an operation sent behind the last commit without waiting for its answer: the
    /// session keeps their order. `then` may be called again when the commit has to be.
    pub async fn flush_with<T, F>(&self, inode: &dyn Committed, then: impl Fn() -> F) -> Result<T, FsError>
    where
        F: Future<Output = Result<T, FsError>>,
    {
        let _turn = self.flushing.lock().await;
        let target = self.lock().pending.slices().last().map_or(0, |slice| slice.serial);
        let outcome = loop {
            let (mut batch, clear_set_id) = self.batch(Extent::All, target);
            if batch.is_empty() {
                break then().await;
            }
            if self.lock().pending.slices().nth(batch.len()).is_some_and(|slice| slice.serial <= target) {
                self.commit(batch, clear_set_id, inode).await?;
                continue;
            }
            break self.commit_with(&mut batch, clear_set_id, inode, &then).await?;
        };
        self.report()?;
        outcome
    }

    async fn commit_with<T, F>(
        &self,
        batch: &mut [Sending],
        clear_set_id: bool,
        inode: &dyn Committed,
        then: &impl Fn() -> F,
    ) -> Result<Result<T, FsError>, FsError>
    where
        F: Future<Output = Result<T, FsError>>,
    {
        for _ in 0..RECOMMITS_MAX {
            match self.attempt(batch, clear_set_id, inode, Some(then())).await? {
                (Attempt::Done, Some(outcome)) => return Ok(outcome),
                (Attempt::Done, None) => return Ok(then().await),
                (Attempt::Again, _) => self.renew(batch, |_| true),
            }
        }
        Err(self.too_often())
    }

    /// As [`Writer::flush`], for nobody in particular: a failure is kept for the next who asks.
    pub async fn flush_in_background(&self, extent: Extent, inode: &dyn Committed) {
        let _turn = self.flushing.lock().await;
        if let Err(error) = self.commit_pending(extent, inode).await {
            tracing::warn!(ino = %self.ino, "written data could not be committed: {error}");
            let mut buffer = self.lock();
            if buffer.lost.is_none() {
                buffer.trouble = Some(error);
            }
        }
    }

    /// Runs `then` before any other flush, whatever is written.
    pub async fn in_turn<T>(&self, then: impl Future<Output = T>) -> T {
        let _turn = self.flushing.lock().await;
        then.await
    }

    /// Something of this inode was given up: the next who asks hears it.
    pub fn lose(&self, error: FsError) {
        self.lock().lost.get_or_insert(error);
    }

    /// Gives up what could not be committed; returns how many bytes are lost.
    pub fn abandon(&self) -> u64 {
        let mut buffer = self.lock();
        let lost = buffer.pending.slices().map(|slice| u64::from(slice.length())).sum();
        let count = buffer.pending.slices().count();
        forget_first(&mut buffer, count);
        lost
    }

    async fn flush_in_turn(&self, extent: Extent, inode: &dyn Committed) -> Result<(), FsError> {
        let done = self.commit_pending(extent, inode).await;
        let reported = self.report();
        done.and(reported)
    }

    /// What failed on the way and got through in the end is of no interest; what was given up is, once.
    fn report(&self) -> Result<(), FsError> {
        let mut buffer = self.lock();
        buffer.trouble = None;
        buffer.lost.take().map_or(Ok(()), Err)
    }

    async fn commit_pending(&self, extent: Extent, inode: &dyn Committed) -> Result<(), FsError> {
        let target = self.lock().pending.slices().last().map_or(0, |slice| slice.serial);
        loop {
            let (batch, clear_set_id) = self.batch(extent, target);
            if batch.is_empty() {
                return Ok(());
            }
            self.commit(batch, clear_set_id, inode).await?;
        }
    }

    /// The oldest slices, sealed, with their uploads under way.
    fn batch(&self, extent: Extent, target: u64) -> (Vec<Sending>, bool) {
        let mut buffer = self.lock();
        let wanted =
            |slice: &&super::pending::PendingSlice<_>| slice.serial <= target && (extent == Extent::All || slice.is_sealed());
        let mut blocks = 0;
        let fits = |slice: &&super::pending::PendingSlice<_>| {
            let first = blocks == 0;
            blocks += slice.length().div_ceil(self.uploads.block_size) as usize;
            first || blocks <= COMMIT_BLOCKS_MAX
        };
        let count = buffer.pending.slices().take(COMMIT_MAX).take_while(wanted).take_while(fits).count();
        let full = buffer.pending.seal_first(count);
        self.start(&mut buffer, full);
        let sending = |slice: &super::pending::PendingSlice<Arc<SliceUpload>>| Sending {
            serial: slice.serial,
            chunk: slice.chunk,
            position: slice.position,
            size: slice.length(),
            upload: slice.upload.clone(),
            blocks: slice.frozen(),
        };
        let batch = buffer.pending.slices().take(count).map(sending).collect();
        (batch, buffer.clear_set_id)
    }

    async fn commit(&self, mut batch: Vec<Sending>, clear_set_id: bool, inode: &dyn Committed) -> Result<(), FsError> {
        for _ in 0..RECOMMITS_MAX {
            match self.attempt(&mut batch, clear_set_id, inode, None::<std::future::Ready<()>>).await?.0 {
                Attempt::Done => return Ok(()),
                Attempt::Again => self.renew(&mut batch, |_| true),
            }
        }
        Err(self.too_often())
    }

    fn too_often(&self) -> FsError {
        FsError::io(format!("commit of inode {}: sessions or epochs ended {RECOMMITS_MAX} times on the way", self.ino))
    }

    /// Uploads and commits once. What is to go behind the commit is begun right after it, and its outcome given back;
    /// there is none when it did not come to a commit.
    async fn attempt<T>(
        &self,
        batch: &mut [Sending],
        clear_set_id: bool,
        inode: &dyn Committed,
        behind: Option<impl Future<Output = T>>,
    ) -> Result<(Attempt, Option<T>), FsError> {
        let session = &self.uploads.session;
        let generation = session.generation();
        self.renew(batch, |upload| !upload.is_usable(generation));
        for slice in batch.iter() {
            for (index, data) in slice.blocks.iter().enumerate() {
                self.uploads.start(&slice.upload, index as u32, data.clone());
            }
        }
        let mut slices = Vec::with_capacity(batch.len());
        for slice in batch.iter() {
            let (id, checksums) = self.uploads.finish(&slice.upload, &slice.blocks).await?;
            slices.push(NewSlice { chunk: slice.chunk, position: slice.position, id, size: slice.size, checksums });
        }
        if !batch.iter().all(|slice| slice.upload.is_usable(session.generation())) {
            return Ok((Attempt::Again, None));
        }
        inode.begin().await?;
        let context = || format!("commit {} slices of inode {}", batch.len(), self.ino);
        // `join` polls the first one first: the session takes them in this order.
        let commit = session.call(Op::CommitSlices { ino: self.ino, slices, clear_set_id });
        let (committed, behind) = futures::future::join(commit, OptionFuture::from(behind)).await;
        let attempt = match committed {
            Ok((Reply::Attr(attr), index)) => {
                inode.committed(attr, index);
                forget_first(&mut self.lock(), batch.len());
                Ok(Attempt::Done)
            }
            Ok((other, _)) => Err(FsError::io(format!("{}: unexpected answer {other:?}", context()))),
            Err(OpError::SessionLost) => Ok(Attempt::Again),
            Err(OpError::Refused(ErrorKind::SliceOfOlderEpoch | ErrorKind::SliceConflict)) => {
                self.uploads.ids.discard().await;
                Ok(Attempt::Again)
            }
            Err(error @ OpError::Refused(_)) => {
                // Metadata will never take it: keeping it would only fill the buffer.
                let error = FsError::of_op(error, context());
                tracing::warn!(ino = %self.ino, slices = batch.len(), "written data is given up: {error}");
                let mut buffer = self.lock();
                forget_first(&mut buffer, batch.len());
                buffer.lost = Some(error.clone());
                Err(error)
            }
            Err(error) => Err(FsError::of_op(error, context())),
        };
        Ok((attempt?, behind))
    }

    /// New ids for slices whose old ones may not be named.
    fn renew(&self, batch: &mut [Sending], which: impl Fn(&SliceUpload) -> bool) {
        let mut buffer = self.lock();
        for slice in batch.iter_mut().filter(|slice| which(&slice.upload)) {
            slice.upload = Arc::default();
            if let Some(kept) = buffer.pending.slice_mut(slice.serial) {
                kept.upload = slice.upload.clone();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the oldest slices out of the buffer and gives their room back.
fn forget_first(buffer: &mut Buffer, count: usize) {
    buffer.pending.remove_first(count);
    let left: u64 = buffer.pending.slices().map(|slice| u64::from(slice.length())).sum();
    if buffer.pending.is_empty() {
        (buffer.room, buffer.since, buffer.clear_set_id) = (None, None, false);
        return;
    }
    buffer.since = Some(Instant::now());
    if let Some(room) = &mut buffer.room {
        let excess = (room.num_permits() as u64).saturating_sub(left);
        drop(room.split(excess as usize));
    }
}
