//! The stream of a state: a checkpoint's body, a follower's snapshot (all spaces), a mirror's snapshot (the shared one).
//!
//! ```text
//! magic(8) version(1) length(4) header  crc32c(4)                    over all before it
//! 'B' space(1) rows(4) length(4) rows.. crc32c(4)                    over the block; any number of blocks
//! 'E' rows(8) blake3(32)                                             over the whole stream before the hash
//! ```
//! A row is key length(2), value length(4), key, value; numbers are big-endian. A reader uses no block before its
//! checksum is verified, and [`load_into`] believes no state whose digest, computed afresh, is not the header's (law 25).

use crate::digest::RowHasher;
use crate::header::{digest, header};
use crate::key;
use crate::kv::{KvRead, KvWrite, Space, StorageError, Store};
use farshore_types::{Chain, Digest, GroupId, LogIndex};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};

const MAGIC: &[u8; 8] = b"FARDUMP\n";
/// Version of the stream.
const DUMP_VERSION: u8 = 1;
const BLOCK_TAG: u8 = b'B';
const END_TAG: u8 = b'E';
/// A block is closed when its rows reach this many bytes.
const BLOCK_TARGET: usize = 256 << 10;
/// Longest block that a reader takes; a single row may be longer than [`BLOCK_TARGET`].
const MAX_BLOCK: usize = 1 << 30;
/// Longest header that a reader takes: what Raft adds is a membership and a vote.
const MAX_HEADER: usize = 16 << 20;

/// What a stream holds, and where it stands in the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpHeader {
    pub group: GroupId,
    /// The caller's own: Raft's position and membership; empty for a mirror.
    pub raft: Vec<u8>,
    pub index: LogIndex,
    pub chain: Chain,
    pub digest: Digest,
    pub spaces: Vec<Space>,
}

/// The header as it is stored.
#[derive(Serialize, Deserialize)]
struct StoredHeader {
    group: GroupId,
    raft: Vec<u8>,
    index: LogIndex,
    chain: Chain,
    digest: Digest,
    spaces: Vec<u8>,
}

/// Why a stream was not written, or not believed.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("the stream of the state failed: {0}")]
    Io(#[from] io::Error),
    #[error("the stream of the state is damaged: {0}")]
    Damaged(&'static str),
    #[error("the stream of the state has version {0}, which this build does not know")]
    UnknownVersion(u8),
    #[error("the rows of the state have digest {found}, but it was kept as {expected}: a bit of the state has flipped")]
    OtherDigest { expected: Digest, found: Digest },
}

impl DumpHeader {
    /// The header of a dump of `kv` as it stands.
    pub fn of(kv: &dyn KvRead, group: GroupId, raft: Vec<u8>, spaces: &[Space]) -> Result<DumpHeader, StorageError> {
        let at = header(kv)?;
        Ok(DumpHeader { group, raft, index: at.index, chain: at.chain, digest: digest(kv)?, spaces: spaces.to_vec() })
    }

    /// Magic, version, header and checksum.
    fn encode(&self) -> Vec<u8> {
        let stored = StoredHeader {
            group: self.group,
            raft: self.raft.clone(),
            index: self.index,
            chain: self.chain,
            digest: self.digest,
            spaces: self.spaces.iter().map(|space| *space as u8).collect(),
        };
        let body = postcard::to_stdvec(&stored).expect("postcard fails only for lengths that are not known beforehand");
        let mut bytes = [MAGIC.as_slice(), &[DUMP_VERSION], &(body.len() as u32).to_be_bytes(), &body].concat();
        bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
        bytes
    }
}

fn space_of(number: u8) -> Result<Space, DumpError> {
    Space::ALL.into_iter().find(|space| *space as u8 == number).ok_or(DumpError::Damaged("a space that does not exist"))
}

/// Writes the rows of `spaces`, which the header must name. The caller flushes and syncs.
pub fn write_dump(kv: &dyn KvRead, spaces: &[Space], header: &DumpHeader, out: &mut dyn Write) -> Result<(), DumpError> {
    assert_eq!(spaces, header.spaces, "the header names the spaces that follow");
    let mut out = Writer { out, hash: blake3::Hasher::new() };
    out.write(&header.encode())?;
    let mut total = 0u64;
    for space in spaces {
        let mut block = Block::new(*space);
        for row in kv.scan(*space, &[], None)? {
            let (key, value) = row?;
            total += 1;
            block.push(key, value);
            if block.bytes.len() >= BLOCK_TARGET {
                out.block(&mut block)?;
            }
        }
        if block.rows > 0 {
            out.block(&mut block)?;
        }
    }
    out.write(&[END_TAG])?;
    out.write(&total.to_be_bytes())?;
    let hash = out.hash.finalize();
    Ok(out.out.write_all(hash.as_bytes())?)
}

struct Writer<'a> {
    out: &'a mut dyn Write,
    hash: blake3::Hasher,
}

impl Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.out.write_all(bytes)
    }

    fn block(&mut self, block: &mut Block) -> Result<(), DumpError> {
        let length = block.bytes.len() - Block::HEAD;
        if length > MAX_BLOCK {
            return Err(DumpError::Damaged("a row is longer than a block may be"));
        }
        block.bytes[2..6].copy_from_slice(&block.rows.to_be_bytes());
        block.bytes[6..10].copy_from_slice(&(length as u32).to_be_bytes());
        self.write(&block.bytes)?;
        self.write(&crc32c::crc32c(&block.bytes).to_be_bytes())?;
        *block = Block::new(block.space);
        Ok(())
    }
}

struct Block {
    space: Space,
    rows: u32,
    bytes: Vec<u8>,
}

impl Block {
    /// Tag, space, rows, length.
    const HEAD: usize = 10;

    fn new(space: Space) -> Block {
        let mut bytes = Vec::with_capacity(BLOCK_TARGET + BLOCK_TARGET / 4);
        bytes.extend([BLOCK_TAG, space as u8, 0, 0, 0, 0, 0, 0, 0, 0]);
        Block { space, rows: 0, bytes }
    }

    fn push(&mut self, key: &[u8], value: &[u8]) {
        self.rows += 1;
        self.bytes.extend((key.len() as u16).to_be_bytes());
        self.bytes.extend((value.len() as u32).to_be_bytes());
        self.bytes.extend(key);
        self.bytes.extend(value);
    }
}

/// Takes the rows of a verified block.
type Into<'a> = &'a mut dyn FnMut(Space, &[u8], &[u8]) -> Result<(), StorageError>;

/// Reads a stream and hands on each row of each block that is proven. Rows that were handed on count only when this
/// returns without an error: the end may be missing.
pub fn read_dump(input: &mut dyn Read, into: Into) -> Result<DumpHeader, DumpError> {
    let mut reader = Reader::over(input);
    let header = reader.header()?;
    reader.rows(&header, into)?;
    Ok(header)
}

/// Reads what a stream says of itself, and none of its rows.
pub fn read_dump_header(input: &mut dyn Read) -> Result<DumpHeader, DumpError> {
    Reader::over(input).header()
}

/// Reads a stream to its end and computes the digest of its shared rows afresh: what [`load_into`] would believe.
pub fn verify_dump(input: &mut dyn Read) -> Result<DumpHeader, DumpError> {
    let mut reader = Reader::over(input);
    let head = reader.header()?;
    let found = rows_and_digest(&mut reader, &head, &mut |_, _, _| Ok(()))?;
    let whole = !head.spaces.contains(&Space::Shared) || found == head.digest;
    if whole { Ok(head) } else { Err(DumpError::OtherDigest { expected: head.digest, found }) }
}

struct Reader<'a> {
    input: &'a mut dyn Read,
    hash: blake3::Hasher,
}

impl<'a> Reader<'a> {
    fn over(input: &'a mut dyn Read) -> Reader<'a> {
        Reader { input, hash: blake3::Hasher::new() }
    }

    /// Appends exactly `length` bytes; memory follows the bytes that come, not the length that is claimed.
    fn append(&mut self, length: usize, to: &mut Vec<u8>) -> Result<(), DumpError> {
        let start = to.len();
        let read = (&mut *self.input).take(length as u64).read_to_end(to)?;
        if read < length {
            return Err(DumpError::Damaged("it ends too early"));
        }
        self.hash.update(&to[start..]);
        Ok(())
    }

    fn checked(&mut self, bytes: &mut Vec<u8>, what: &'static str) -> Result<(), DumpError> {
        let length = bytes.len();
        self.append(4, bytes)?;
        let (body, sum) = bytes.split_at(length);
        if crc32c::crc32c(body).to_be_bytes() != sum {
            return Err(DumpError::Damaged(what));
        }
        bytes.truncate(length);
        Ok(())
    }

    fn header(&mut self) -> Result<DumpHeader, DumpError> {
        const HEAD: usize = MAGIC.len() + 5;
        let mut bytes = Vec::new();
        self.append(HEAD, &mut bytes)?;
        if !bytes.starts_with(MAGIC) {
            return Err(DumpError::Damaged("it does not begin as one"));
        }
        if bytes[MAGIC.len()] != DUMP_VERSION {
            return Err(DumpError::UnknownVersion(bytes[MAGIC.len()]));
        }
        let length = number(&bytes[MAGIC.len() + 1..]);
        if length > MAX_HEADER {
            return Err(DumpError::Damaged("its header is too long"));
        }
        self.append(length, &mut bytes)?;
        self.checked(&mut bytes, "its header's checksum is wrong")?;
        let stored: StoredHeader =
            postcard::from_bytes(&bytes[HEAD..]).map_err(|_| DumpError::Damaged("its header cannot be read"))?;
        let spaces = stored.spaces.iter().map(|space| space_of(*space)).collect::<Result<_, _>>()?;
        Ok(DumpHeader {
            group: stored.group,
            raft: stored.raft,
            index: stored.index,
            chain: stored.chain,
            digest: stored.digest,
            spaces,
        })
    }

    fn rows(&mut self, header: &DumpHeader, into: Into) -> Result<(), DumpError> {
        let mut total = 0u64;
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            self.append(1, &mut bytes)?;
            match bytes[0] {
                BLOCK_TAG => total += u64::from(self.block(header, &mut bytes, into)?),
                END_TAG => return self.end(&mut bytes, total),
                _ => return Err(DumpError::Damaged("neither a block nor the end follows")),
            }
        }
    }

    fn block(&mut self, header: &DumpHeader, bytes: &mut Vec<u8>, into: Into) -> Result<u32, DumpError> {
        self.append(Block::HEAD - 1, bytes)?;
        let space = space_of(bytes[1])?;
        let (rows, length) = (number(&bytes[2..]) as u32, number(&bytes[6..]));
        if !header.spaces.contains(&space) || length > MAX_BLOCK {
            return Err(DumpError::Damaged("a block that the header does not announce"));
        }
        self.append(length, bytes)?;
        self.checked(bytes, "a block's checksum is wrong")?;
        let mut rest = &bytes[Block::HEAD..];
        for _ in 0..rows {
            let (key, value, after) = split_row(rest).ok_or(DumpError::Damaged("a row leaves its block"))?;
            into(space, key, value)?;
            rest = after;
        }
        if rest.is_empty() { Ok(rows) } else { Err(DumpError::Damaged("a block has more bytes than rows")) }
    }

    fn end(&mut self, bytes: &mut Vec<u8>, total: u64) -> Result<(), DumpError> {
        self.append(8, bytes)?;
        if bytes[1..9] != total.to_be_bytes() {
            return Err(DumpError::Damaged("rows are missing"));
        }
        let hash = self.hash.finalize();
        self.append(32, bytes)?;
        if bytes[9..] == *hash.as_bytes() { Ok(()) } else { Err(DumpError::Damaged("its checksum is wrong")) }
    }
}

/// The big-endian number in the first four bytes, which the caller has read.
fn number(bytes: &[u8]) -> usize {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize
}

/// Key, value and rest.
fn split_row(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (lengths, rest) = bytes.split_at_checked(6)?;
    let key = usize::from(u16::from_be_bytes([lengths[0], lengths[1]]));
    let (key, rest) = rest.split_at_checked(key)?;
    let (value, rest) = rest.split_at_checked(number(&lengths[2..]))?;
    Some((key, value, rest))
}

/// Hands on each row, as [`read_dump`] does; returns the digest of the shared ones, computed afresh.
fn rows_and_digest(reader: &mut Reader, head: &DumpHeader, into: Into) -> Result<Digest, DumpError> {
    let mut found = RowHasher::new(Digest::default());
    reader.rows(head, &mut |space, key, value| {
        if space == Space::Shared && key != key::DIGEST {
            found.add(key, value);
        }
        into(space, key, value)
    })?;
    Ok(found.digest())
}

/// The header of a state's stream.
fn state_header(reader: &mut Reader) -> Result<DumpHeader, DumpError> {
    let head = reader.header()?;
    if head.spaces.contains(&Space::Shared) { Ok(head) } else { Err(DumpError::Damaged("it lacks the shared space")) }
}

/// Empties the spaces that the stream holds. Before-images of the replaced history go with them.
fn clear(kv: &mut dyn KvWrite, head: &DumpHeader) -> Result<(), StorageError> {
    head.spaces.iter().chain([&Space::Undo]).try_for_each(|space| kv.clear(*space))
}

/// Whether what was loaded is what the header says: the digest is computed afresh (law 25).
fn check(kv: &dyn KvRead, head: DumpHeader, found: Digest) -> Result<DumpHeader, DumpError> {
    if found != head.digest || digest(kv)? != head.digest {
        return Err(DumpError::OtherDigest { expected: head.digest, found });
    }
    let at = header(kv)?;
    if (at.index, at.chain) != (head.index, head.chain) {
        return Err(DumpError::Damaged("its rows stand at another index than its header"));
    }
    Ok(head)
}

/// Replaces the spaces that the stream holds by its rows: all or nothing. With all spaces in it, the memory that this takes
/// does not grow with the state.
pub fn load_into(store: &impl Store, input: &mut dyn Read) -> Result<DumpHeader, DumpError> {
    let mut reader = Reader::over(input);
    let head = state_header(&mut reader)?;
    let whole = Space::ALL.iter().all(|space| head.spaces.contains(space));
    let mut kv = if whole { store.replace()? } else { store.write()? };
    clear(&mut *kv, &head)?;
    let found = rows_and_digest(&mut reader, &head, &mut |space, key, value| kv.put(space, key, value))?;
    let head = check(&*kv, head, found)?;
    kv.commit()?;
    Ok(head)
}
