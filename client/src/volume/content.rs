//! Reading: what is committed, with what was written here and is not committed yet above it.
//!
//! Uncommitted data is looked at first and the committed lists after: a slice leaves the buffer only when the inode knows
//! its commit, so a byte is seen in at least one of the two.

use super::Volume;
use super::files::FileHandle;
use super::namespace::unexpected;
use super::table::OpenInode;
use crate::error::{FsError, FsErrorKind};
use crate::layout::{BlockRef, Segment, segments};
use crate::read::BlockError;
use bytes::{Bytes, BytesMut};
use farshore_types::{CHUNK_SIZE, Query, QueryReply, SliceView};
use futures::StreamExt;
use std::sync::{Arc, PoisonError};

/// Blocks fetched at once for one read.
const PARALLEL_MAX: usize = 8;
/// Bytes answered to one read, at most; whoever wants more asks again.
pub const READ_MAX: u32 = 16 << 20;

/// A part of a read: where it goes in the answer, and where it comes from.
struct Part {
    at: usize,
    length: usize,
    block: BlockRef,
    inside: usize,
}

impl Volume {
    /// At most `len` bytes from `offset`; fewer only at the end of the file, or beyond [`READ_MAX`].
    pub async fn read(&self, handle: &FileHandle, offset: u64, len: u32) -> Result<Bytes, FsError> {
        self.valid(handle)?;
        if !handle.flags().read {
            return Err(FsError::new(FsErrorKind::BadHandle, format!("read of {}", handle.ino())));
        }
        let inode = handle.inode();
        let mut out = BytesMut::zeroed(len.min(READ_MAX) as usize);
        let (covered, dirty_end) = inode.writer.overlay(offset, &mut out);
        let committed = self.attr_of(inode).await?.size;
        let end = committed.max(dirty_end).min(offset.saturating_add(out.len() as u64));
        if end <= offset {
            return Ok(Bytes::new());
        }
        out.truncate((end - offset) as usize);
        let committed_end = end.min(committed);
        let fully_covered = covered.iter().any(|(low, high)| *low <= offset && end <= *high);
        if committed_end > offset && !fully_covered {
            // The buffer's bytes lie above: kept aside while the committed ones are filled in.
            let above = (!covered.is_empty()).then(|| out.clone());
            out.fill(0);
            self.fill(inode, offset, &mut out[..(committed_end - offset) as usize]).await?;
            if let Some(above) = above {
                for (low, high) in covered {
                    let range = (low - offset) as usize..(high.min(end).max(low) - offset) as usize;
                    out[range.clone()].copy_from_slice(&above[range]);
                }
            }
        }
        self.read_ahead(handle, offset, end, committed).await;
        Ok(out.freeze())
    }

    /// Fills `out`, which is all zeros, with committed bytes.
    async fn fill(&self, inode: &OpenInode, offset: u64, out: &mut [u8]) -> Result<(), FsError> {
        let parts = self.parts(inode, offset, out.len()).await?;
        match self.fetch(&parts, out).await {
            Ok(()) => return Ok(()),
            Err((block, BlockError::Failed(text))) => return Err(self.unreadable(inode, block, &text).await),
            Err((_, BlockError::Absent)) => {}
        }
        // Hazard 2.4: the list may be old and its blocks deleted; the leader's present one decides, once.
        inode.forget_entirely();
        self.attr_of(inode).await?;
        let parts = self.parts(inode, offset, out.len()).await?;
        out.fill(0);
        match self.fetch(&parts, out).await {
            Ok(()) => Ok(()),
            Err((block, error)) => {
                if error == BlockError::Absent {
                    self.counters.absent();
                }
                Err(self.unreadable(inode, block, &error.to_string()).await)
            }
        }
    }

    async fn unreadable(&self, inode: &OpenInode, block: BlockRef, reason: &str) -> FsError {
        let path = self.path_for_log(inode.ino).await;
        tracing::warn!(block = %block.key, path, "a block cannot be read: {reason}");
        FsError::io(format!("{path}: block {} cannot be read: {reason}", block.key))
    }

    async fn parts(&self, inode: &OpenInode, offset: u64, length: usize) -> Result<Vec<Part>, FsError> {
        let mut parts = Vec::new();
        let (mut at, end) = (offset, offset + length as u64);
        while at < end {
            let chunk = (at / CHUNK_SIZE) as u32;
            let chunk_start = u64::from(chunk) * CHUNK_SIZE;
            let chunk_end = end.min(chunk_start + CHUNK_SIZE);
            let views = self.slices_of(inode, chunk).await?;
            for segment in self.cut(inode, &views, at - chunk_start, chunk_end - chunk_start)? {
                if let Some((block, inside)) = segment.source {
                    let start = (chunk_start + u64::from(segment.at) - offset) as usize;
                    parts.push(Part { at: start, length: segment.length as usize, block, inside: inside as usize });
                }
            }
            at = chunk_end;
        }
        Ok(parts)
    }

    fn cut(&self, inode: &OpenInode, views: &[SliceView], from: u64, to: u64) -> Result<Vec<Segment>, FsError> {
        let found = segments(views, from as u32, to as u32, self.record.block_size);
        found.map_err(|error| FsError::io(format!("inode {}: {error}", inode.ino)))
    }

    async fn slices_of(&self, inode: &OpenInode, chunk: u32) -> Result<Arc<[SliceView]>, FsError> {
        if let Some(slices) = inode.slices(chunk) {
            return Ok(slices);
        }
        let ino = inode.ino;
        let changes = inode.changes();
        let context = || format!("slices of chunk {chunk} of {ino}");
        match self.ask(Query::Slices { ino, chunk }, context).await? {
            QueryReply::Slices(slices) => {
                let slices: Arc<[SliceView]> = slices.into();
                inode.learned_slices(chunk, slices.clone(), changes);
                Ok(slices)
            }
            other => Err(unexpected(&other, context())),
        }
    }

    async fn fetch(&self, parts: &[Part], out: &mut [u8]) -> Result<(), (BlockRef, BlockError)> {
        let get = |(at, part): (usize, &Part)| {
            let (blocks, block) = (self.blocks.clone(), part.block);
            async move { (at, blocks.get(block).await) }
        };
        let gets: Vec<_> = parts.iter().enumerate().map(get).collect();
        let mut gets = futures::stream::iter(gets).buffer_unordered(PARALLEL_MAX);
        while let Some((at, data)) = gets.next().await {
            let part = &parts[at];
            let data = data.map_err(|error| (part.block, error))?;
            let from = &data[part.inside..part.inside + part.length];
            out[part.at..part.at + part.length].copy_from_slice(from);
        }
        Ok(())
    }

    /// Starts fetches behind a sequential reader; errors wait for whoever reads there.
    async fn read_ahead(&self, handle: &FileHandle, offset: u64, end: u64, size: u64) {
        let block_size = u64::from(self.record.block_size);
        let range = {
            let mut habit = handle.ahead().lock().unwrap_or_else(PoisonError::into_inner);
            habit.advance(offset, end, block_size)
        };
        let to = range.end.min(size);
        if range.start >= to {
            return;
        }
        // Only lists that are here already: a reader does not wait for what it did not ask.
        let chunk = (range.start / CHUNK_SIZE) as u32;
        let chunk_start = u64::from(chunk) * CHUNK_SIZE;
        let Some(views) = handle.inode().slices(chunk) else { return };
        let to = to.min(chunk_start + CHUNK_SIZE) - chunk_start;
        let Ok(found) = self.cut(handle.inode(), &views, range.start - chunk_start, to) else { return };
        let mut last = None;
        for (block, _) in found.into_iter().filter_map(|segment| segment.source) {
            if last != Some(block) {
                self.blocks.read_ahead(block);
                last = Some(block);
            }
        }
    }
}
