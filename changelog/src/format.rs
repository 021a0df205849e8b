//! The bytes of a segment: its header, and batches of records (law 26). Numbers are little-endian.
//!
//! A segment is one sector of header and then batches, each starting at a sector, then zeros to the preallocated end.
//! ```text
//! segment header  512  "FSHLOG" version:2 group:8 ordinal:8 first:8 below:8 sequence:8 previous:4 0:4
//!                      void_ordinal:8 void_offset:8 0.. crc:4 mark:4
//! batch header     48  "FBAT" length:4 sequence:8 flushed:8 count:4 previous:4 body:4 0:4 crc:4 mark:4
//! record        28+n   crc:4 n:4 index:8 group:8 kind:1 0:3 payload:n
//! batch trailer     8  crc:4 mark:4, the last bytes of the batch's last sector
//! ```
//! - Batches fill whole sectors, so that no write touches a sector that holds flushed bytes.
//! - `sequence` counts batches through all segments; `previous` is the trailer's checksum of the batch before, so that a
//!   batch left over from another past never continues the log.
//! - `flushed` is the sequence up to which batches were durable when this one was written: it tells damage from a tear.
//! - The marks end in a byte that is not zero: a write that broke off inside a batch leaves its last byte zero.
//! - Each record carries the group, so that groups can share a log later.

use farshore_types::GroupId;

/// The unit that a disk writes as a whole, and the alignment of batches.
pub(crate) const SECTOR: usize = 512;
pub(crate) const VERSION: u16 = 1;
/// Size of a segment file.
pub const DEFAULT_SEGMENT_BYTES: u64 = 64 << 20;
/// The smallest segment that makes sense: the header, a batch of two sectors, and room for marks.
pub const MIN_SEGMENT_BYTES: u64 = 5 * SECTOR as u64;
/// The largest entry; a larger one is refused.
pub const MAX_ENTRY_BYTES: usize = 4 << 20;
/// The largest batch, framing included. A group of appends is cut into batches of at most this.
pub const MAX_BATCH_BYTES: usize = 8 << 20;

const SEGMENT_MAGIC: &[u8; 6] = b"FSHLOG";
const BATCH_MAGIC: &[u8; 4] = b"FBAT";
const SEGMENT_MARK: &[u8; 4] = b"SEG\xE7";
const HEADER_MARK: &[u8; 4] = b"HDR\xE7";
const TRAILER_MARK: &[u8; 4] = b"END\xE7";
pub(crate) const BATCH_HEADER: usize = 48;
pub(crate) const RECORD_HEADER: usize = 28;
pub(crate) const TRAILER: usize = 8;
const NO_VOID: u64 = u64::MAX;

const _: () = assert!(BATCH_HEADER + RECORD_HEADER + TRAILER <= SECTOR, "a mark fits into one sector");
const _: () = assert!(MAX_ENTRY_BYTES + SECTOR <= MAX_BATCH_BYTES, "the largest entry fits into one batch");
const _: () = assert!(MAX_BATCH_BYTES as u64 + SECTOR as u64 <= DEFAULT_SEGMENT_BYTES, "a batch fits into a segment");

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes were sliced"))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were sliced"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes were sliced"))
}

pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Rounds up to whole sectors.
pub(crate) fn sectors(bytes: usize) -> usize {
    bytes.div_ceil(SECTOR) * SECTOR
}

/// A place in the log from which on everything before the segment that says so is void: it was damaged, and given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Void {
    pub ordinal: u64,
    pub offset: u64,
}

/// The first sector of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub group: GroupId,
    /// Counts segments: dense, from 0.
    pub ordinal: u64,
    /// The index at which the log continued when the segment was made.
    pub first: u64,
    /// The log was purged below this index then.
    pub below: u64,
    /// The sequence of the segment's first batch.
    pub sequence: u64,
    /// The checksum of the batch before it.
    pub previous: u32,
    pub void: Option<Void>,
}

/// Why a segment's header was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    Damaged,
    Version(u16),
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; SECTOR] {
        let mut bytes = [0u8; SECTOR];
        put(&mut bytes, 0, SEGMENT_MAGIC);
        put(&mut bytes, 6, &VERSION.to_le_bytes());
        put(&mut bytes, 8, &self.group.0.to_le_bytes());
        put(&mut bytes, 16, &self.ordinal.to_le_bytes());
        put(&mut bytes, 24, &self.first.to_le_bytes());
        put(&mut bytes, 32, &self.below.to_le_bytes());
        put(&mut bytes, 40, &self.sequence.to_le_bytes());
        put(&mut bytes, 48, &self.previous.to_le_bytes());
        let void = self.void.unwrap_or(Void { ordinal: NO_VOID, offset: NO_VOID });
        put(&mut bytes, 56, &void.ordinal.to_le_bytes());
        put(&mut bytes, 64, &void.offset.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..SECTOR - 8]);
        put(&mut bytes, SECTOR - 8, &crc.to_le_bytes());
        put(&mut bytes, SECTOR - 4, SEGMENT_MARK);
        bytes
    }

    pub fn decode(bytes: &[u8; SECTOR]) -> Result<SegmentHeader, BadHeader> {
        let sealed = &bytes[..6] == SEGMENT_MAGIC
            && &bytes[SECTOR - 4..] == SEGMENT_MARK
            && u32_at(bytes, SECTOR - 8) == crc32c::crc32c(&bytes[..SECTOR - 8]);
        if !sealed {
            return Err(BadHeader::Damaged);
        }
        let version = u16_at(bytes, 6);
        if version != VERSION {
            return Err(BadHeader::Version(version));
        }
        let void = Void { ordinal: u64_at(bytes, 56), offset: u64_at(bytes, 64) };
        Ok(SegmentHeader {
            group: GroupId(u64_at(bytes, 8)),
            ordinal: u64_at(bytes, 16),
            first: u64_at(bytes, 24),
            below: u64_at(bytes, 32),
            sequence: u64_at(bytes, 40),
            previous: u32_at(bytes, 48),
            void: (void.ordinal != NO_VOID).then_some(void),
        })
    }
}

/// The first bytes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    /// The whole batch: header, records, padding and trailer; whole sectors.
    pub length: u32,
    pub sequence: u64,
    /// Batches up to this sequence (exclusive) were durable when this one was written.
    pub flushed: u64,
    pub count: u32,
    pub previous: u32,
    /// The bytes of all records.
    pub body: u32,
}

impl BatchHeader {
    pub fn encode(&self) -> [u8; BATCH_HEADER] {
        let mut bytes = [0u8; BATCH_HEADER];
        put(&mut bytes, 0, BATCH_MAGIC);
        put(&mut bytes, 4, &self.length.to_le_bytes());
        put(&mut bytes, 8, &self.sequence.to_le_bytes());
        put(&mut bytes, 16, &self.flushed.to_le_bytes());
        put(&mut bytes, 24, &self.count.to_le_bytes());
        put(&mut bytes, 28, &self.previous.to_le_bytes());
        put(&mut bytes, 32, &self.body.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..40]);
        put(&mut bytes, 40, &crc.to_le_bytes());
        put(&mut bytes, 44, HEADER_MARK);
        bytes
    }

    /// `None` if these bytes are not a batch's header.
    pub fn decode(bytes: &[u8]) -> Option<BatchHeader> {
        let sealed = bytes.len() >= BATCH_HEADER
            && &bytes[..4] == BATCH_MAGIC
            && &bytes[44..48] == HEADER_MARK
            && u32_at(bytes, 40) == crc32c::crc32c(&bytes[..40]);
        if !sealed {
            return None;
        }
        let header = BatchHeader {
            length: u32_at(bytes, 4),
            sequence: u64_at(bytes, 8),
            flushed: u64_at(bytes, 16),
            count: u32_at(bytes, 24),
            previous: u32_at(bytes, 28),
            body: u32_at(bytes, 32),
        };
        let length = header.length as usize;
        let fits =
            length.is_multiple_of(SECTOR) && length <= MAX_BATCH_BYTES && BATCH_HEADER + header.body as usize + TRAILER <= length;
        fits.then_some(header)
    }
}

/// The trailer of a batch with these bytes before it.
pub(crate) fn trailer(crc: u32) -> [u8; TRAILER] {
    let mut bytes = [0u8; TRAILER];
    put(&mut bytes, 0, &crc.to_le_bytes());
    put(&mut bytes, 4, TRAILER_MARK);
    bytes
}

/// Whether a whole batch, header to trailer, has its trailer and the checksum in it; the checksum, if so.
pub(crate) fn sealed(batch: &[u8]) -> Option<u32> {
    let at = batch.len().checked_sub(TRAILER)?;
    let crc = u32_at(batch, at);
    (&batch[at + 4..] == TRAILER_MARK && crc == crc32c::crc32c(&batch[..at])).then_some(crc)
}
