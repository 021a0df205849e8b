//! Reading batches out of a segment through a buffer, and entries out of the files by index.

use crate::Entry;
use crate::batch::{Kind, Records, record_bytes};
use crate::catalogue::{Catalogue, Run};
use crate::disk::DiskFile;
use crate::error::LogError;
use crate::format::{BATCH_HEADER, BatchHeader};
use farshore_types::RaftIndex;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// How many bytes one read asks for, unless a batch is larger.
const READ_BYTES: usize = 128 << 10;

/// A window on a file that moves forward.
pub(crate) struct Window<'a> {
    file: &'a dyn DiskFile,
    /// Nothing at or after this offset is read.
    limit: u64,
    offset: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    pub fn new(file: &'a dyn DiskFile, limit: u64) -> Window<'a> {
        Window { file, limit, offset: 0, bytes: Vec::new() }
    }

    /// The bytes at `offset`, as many as are there up to `length`.
    pub fn at(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        let length = length.min(self.limit.saturating_sub(offset) as usize);
        let here = offset >= self.offset && offset + length as u64 <= self.offset + self.bytes.len() as u64;
        if !here {
            let ask = length.max(READ_BYTES).min(self.limit.saturating_sub(offset) as usize);
            self.bytes.resize(ask, 0);
            let got = self.file.read_at(offset, &mut self.bytes)?;
            self.bytes.truncate(got);
            self.offset = offset;
        }
        let from = (offset - self.offset) as usize;
        Ok(&self.bytes[from.min(self.bytes.len())..(from + length).min(self.bytes.len())])
    }

    /// The batch at `offset`: its header, and all its bytes if they are there. No checksum but the header's is looked at.
    pub fn batch(&mut self, offset: u64) -> io::Result<Option<(BatchHeader, &[u8])>> {
        let Some(header) = BatchHeader::decode(self.at(offset, BATCH_HEADER)?) else { return Ok(None) };
        let length = header.length as usize;
        let bytes = self.at(offset, length)?;
        Ok((bytes.len() == length).then_some((header, bytes)))
    }
}

/// Reads entries `from..to` out of the files: as many as fit into `max_bytes`, and at least one.
pub(crate) fn read(catalogue: &Mutex<Catalogue>, from: u64, to: u64, max_bytes: usize) -> Result<Vec<Entry>, LogError> {
    let mut entries = Vec::new();
    let mut left = max_bytes;
    let mut next = from;
    while next < to {
        // The lock is held for the look-up only: a flush under way does not stop a reader, nor a reader a flush.
        let run = catalogue.lock().unwrap_or_else(PoisonError::into_inner).locate(next);
        let Some(run) = run else { break };
        if !read_run(&run, &mut next, to, &mut left, &mut entries)? {
            break;
        }
    }
    Ok(entries)
}

/// Reads on in one run; whether there is room for more.
fn read_run(run: &Run, next: &mut u64, to: u64, left: &mut usize, entries: &mut Vec<Entry>) -> Result<bool, LogError> {
    let end = run.end.min(to);
    let mut window = Window::new(run.segment.file.as_ref(), run.segment.used);
    let mut offset = run.offset;
    while *next < end {
        let damaged = |index: u64| LogError::Damaged { segment: run.segment.path.clone(), offset, index: RaftIndex(index) };
        let batch = window.batch(offset).map_err(|error| LogError::io("read", &run.segment.path, &error))?;
        let Some((header, bytes)) = batch else { return Err(damaged(*next)) };
        for record in Records::of(&header, bytes) {
            let Some(record) = record else { return Err(damaged(*next)) };
            if record.kind != Kind::Entry || record.index < *next {
                continue;
            }
            if record.index != *next {
                return Err(damaged(*next));
            }
            if record_bytes(record.payload.len()) > *left && !entries.is_empty() {
                return Ok(false);
            }
            *left = left.saturating_sub(record_bytes(record.payload.len()));
            entries.push((RaftIndex(record.index), Arc::from(record.payload)));
            *next += 1;
            if *next == end {
                break;
            }
        }
        offset += u64::from(header.length);
    }
    Ok(true)
}
