//! Batches: what one write carries and one flush makes durable. Building them, and taking them apart.

use crate::format::*;
use farshore_types::GroupId;

/// What a record says. The numbers are persisted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An entry with its payload.
    Entry = 1,
    /// All entries from this index on are void. Only ever the first record of a batch.
    Truncate = 2,
    /// All entries below this index are purged.
    Purge = 3,
}

/// One record of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub kind: Kind,
    pub index: u64,
    pub group: GroupId,
    pub payload: &'a [u8],
}

/// The bytes that a record with such a payload takes.
pub(crate) fn record_bytes(payload: usize) -> usize {
    RECORD_HEADER + payload
}

/// The bytes of a batch with so many bytes of records.
pub(crate) fn batch_bytes(body: usize) -> usize {
    sectors(BATCH_HEADER + body + TRAILER)
}

/// Builds batches in one buffer that is kept from batch to batch, so that a payload is copied once and nothing allocated.
#[derive(Default)]
pub(crate) struct BatchBuilder {
    bytes: Vec<u8>,
    count: u32,
}

impl BatchBuilder {
    /// Starts a batch.
    pub fn start(&mut self) {
        self.bytes.clear();
        self.bytes.resize(BATCH_HEADER, 0);
        self.count = 0;
    }

    /// Adds a record.
    pub fn push(&mut self, record: Record<'_>) {
        assert!(record.kind != Kind::Truncate || self.count == 0, "a truncation opens its batch");
        assert!(record.payload.len() <= MAX_ENTRY_BYTES, "the size of entries is checked before");
        let mut header = [0u8; RECORD_HEADER];
        put(&mut header, 4, &(record.payload.len() as u32).to_le_bytes());
        put(&mut header, 8, &record.index.to_le_bytes());
        put(&mut header, 16, &record.group.0.to_le_bytes());
        header[24] = record.kind as u8;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&header[4..]), record.payload);
        put(&mut header, 0, &crc.to_le_bytes());
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(record.payload);
        self.count += 1;
    }

    /// How long the batch is if nothing is added.
    pub fn length(&self) -> usize {
        batch_bytes(self.bytes.len() - BATCH_HEADER)
    }

    /// Ends the batch: its bytes, and its checksum, which the next batch names.
    pub fn finish(&mut self, sequence: u64, flushed: u64, previous: u32) -> (&[u8], u32) {
        assert!(self.count > 0, "a batch carries something");
        let body = self.bytes.len() - BATCH_HEADER;
        let length = batch_bytes(body);
        assert!(length <= MAX_BATCH_BYTES, "batches are cut before they are built");
        let header = BatchHeader { length: length as u32, sequence, flushed, count: self.count, previous, body: body as u32 };
        self.bytes.resize(length, 0);
        put(&mut self.bytes, 0, &header.encode());
        let crc = crc32c::crc32c(&self.bytes[..length - TRAILER]);
        put(&mut self.bytes, length - TRAILER, &trailer(crc));
        (&self.bytes, crc)
    }
}

/// The records of a batch whose header was decoded; ends early, with `None` inside, at bytes that are no record.
pub(crate) struct Records<'a> {
    body: &'a [u8],
    left: u32,
}

impl<'a> Records<'a> {
    pub fn of(header: &BatchHeader, batch: &'a [u8]) -> Records<'a> {
        Records { body: &batch[BATCH_HEADER..BATCH_HEADER + header.body as usize], left: header.count }
    }

    fn decode(&self) -> Option<(Record<'a>, usize)> {
        let header = self.body.get(..RECORD_HEADER)?;
        let length = u32_at(header, 4) as usize;
        let whole = self.body.get(..RECORD_HEADER.checked_add(length)?)?;
        if u32_at(header, 0) != crc32c::crc32c(&whole[4..]) {
            return None;
        }
        let kind = match header[24] {
            1 => Kind::Entry,
            2 => Kind::Truncate,
            3 => Kind::Purge,
            _ => return None,
        };
        let payload = &whole[RECORD_HEADER..];
        Some((Record { kind, index: u64_at(header, 8), group: GroupId(u64_at(header, 16)), payload }, whole.len()))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Option<Record<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        match self.decode() {
            Some((record, length)) => {
                self.left -= 1;
                self.body = &self.body[length..];
                Some(Some(record))
            }
            None => {
                self.left = 0;
                Some(None)
            }
        }
    }
}
