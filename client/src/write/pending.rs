//! Writes of one inode that are not committed: slices in write order. Pure.
//!
//! A write lengthens an open slice of its chunk when it begins inside the slice's last, unfrozen block or right at its
//! end, and touches nothing that was written later; otherwise it opens a new slice. A block is frozen when it is full, and
//! from then on never changes, since its upload may have begun (hazard 8.2). Later slices lie above earlier ones, here and in
//! metadata, so slices are committed in order.

use bytes::{Bytes, BytesMut};
use farshore_types::CHUNK_SIZE;
use std::collections::VecDeque;

/// Slices of one chunk that still grow; beyond it the oldest is sealed.
const OPEN_PER_CHUNK_MAX: usize = 8;

/// A block of a slice: it grows, and then never changes again.
#[derive(Debug)]
enum Block {
    Growing(BytesMut),
    Frozen(Bytes),
}

impl Block {
    fn bytes(&self) -> &[u8] {
        match self {
            Block::Growing(bytes) => bytes,
            Block::Frozen(bytes) => bytes,
        }
    }
}

/// One slice; `T` is what its upload keeps with it.
#[derive(Debug)]
pub(super) struct PendingSlice<T> {
    pub serial: u64,
    pub chunk: u32,
    /// Where it starts inside the chunk.
    pub position: u32,
    pub upload: T,
    blocks: Vec<Block>,
    length: u32,
    sealed: bool,
}

impl<T> PendingSlice<T> {
    pub fn length(&self) -> u32 {
        self.length
    }

    pub fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// The blocks of a sealed slice.
    pub fn frozen(&self) -> Vec<Bytes> {
        let frozen = |block: &Block| match block {
            Block::Frozen(bytes) => bytes.clone(),
            Block::Growing(_) => unreachable!("a sealed slice has no growing block"),
        };
        self.blocks.iter().map(frozen).collect()
    }

    fn end(&self) -> u32 {
        self.position + self.length
    }

    fn file_start(&self) -> u64 {
        u64::from(self.chunk) * CHUNK_SIZE + u64::from(self.position)
    }

    /// From where on bytes may still change, relative to the chunk.
    fn soft_start(&self) -> u32 {
        let frozen: usize = self.blocks.iter().map(|b| if let Block::Frozen(bytes) = b { bytes.len() } else { 0 }).sum();
        self.position + frozen as u32
    }

    fn accepts(&self, position: u32) -> bool {
        !self.sealed && position >= self.soft_start() && position <= self.end()
    }
}

/// A block that was just frozen and can be uploaded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FullBlock {
    pub serial: u64,
    pub index: u32,
    pub data: Bytes,
}

/// All uncommitted writes of one inode.
#[derive(Debug)]
pub(super) struct Pending<T> {
    block_size: u32,
    slices: VecDeque<PendingSlice<T>>,
    next_serial: u64,
}

impl<T> Pending<T> {
    pub fn new(block_size: u32) -> Pending<T> {
        assert!(block_size > 0 && u64::from(block_size) <= CHUNK_SIZE, "format refuses other block sizes");
        Pending { block_size, slices: VecDeque::new(), next_serial: 1 }
    }

    pub fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }

    pub fn slices(&self) -> impl Iterator<Item = &PendingSlice<T>> {
        self.slices.iter()
    }

    pub fn slice_mut(&mut self, serial: u64) -> Option<&mut PendingSlice<T>> {
        self.slices.iter_mut().find(|slice| slice.serial == serial)
    }

    /// Where the furthest uncommitted byte ends.
    pub fn end(&self) -> u64 {
        self.slices.iter().map(|s| s.file_start() + u64::from(s.length)).max().unwrap_or(0)
    }

    /// Takes a write; returns the blocks that it filled, in order.
    pub fn write(&mut self, offset: u64, data: &[u8], mut upload: impl FnMut() -> T) -> Vec<FullBlock> {
        let mut full = Vec::new();
        let (mut offset, mut data) = (offset, data);
        while !data.is_empty() {
            let chunk = (offset / CHUNK_SIZE) as u32;
            let position = (offset % CHUNK_SIZE) as u32;
            let length = data.len().min((CHUNK_SIZE - u64::from(position)) as usize);
            let (now, later) = data.split_at(length);
            self.write_chunk(chunk, position, now, &mut upload, &mut full);
            offset += length as u64;
            data = later;
        }
        full
    }

    fn write_chunk(&mut self, chunk: u32, position: u32, data: &[u8], upload: &mut impl FnMut() -> T, full: &mut Vec<FullBlock>) {
        let at = match self.target(chunk, position, data.len() as u32) {
            Some(at) => at,
            None => {
                self.seal_oldest_open(chunk, full);
                let (serial, upload) = (self.next_serial, upload());
                self.next_serial += 1;
                let slice = PendingSlice { serial, chunk, position, upload, blocks: Vec::new(), length: 0, sealed: false };
                self.slices.push_back(slice);
                self.slices.len() - 1
            }
        };
        let block_size = self.block_size as usize;
        extend(&mut self.slices[at], position, data, block_size, full);
    }

    /// The slice that a write may go into: none that was opened later touches the same bytes.
    fn target(&self, chunk: u32, position: u32, length: u32) -> Option<usize> {
        for (at, slice) in self.slices.iter().enumerate().rev().filter(|(_, slice)| slice.chunk == chunk) {
            if slice.accepts(position) {
                return Some(at);
            }
            if slice.position < position + length && position < slice.end() {
                return None;
            }
        }
        None
    }

    fn seal_oldest_open(&mut self, chunk: u32, full: &mut Vec<FullBlock>) {
        let open = |slice: &&mut PendingSlice<T>| slice.chunk == chunk && !slice.sealed;
        if self.slices.iter_mut().filter(open).count() >= OPEN_PER_CHUNK_MAX
            && let Some(oldest) = self.slices.iter_mut().find(open)
        {
            full.extend(seal(oldest));
        }
    }

    /// Seals the first `count` slices, so that they can be uploaded whole; returns the blocks frozen by it.
    pub fn seal_first(&mut self, count: usize) -> Vec<FullBlock> {
        self.slices.iter_mut().take(count).filter_map(seal).collect()
    }

    /// Takes away slices that were committed, or given up; all must be the oldest.
    pub fn remove_first(&mut self, count: usize) -> Vec<PendingSlice<T>> {
        self.slices.drain(..count).collect()
    }

    /// Copies what lies in `offset..offset + out.len()` over `out`; returns the ranges that it covered, in file offsets.
    pub fn overlay(&self, offset: u64, out: &mut [u8]) -> Vec<(u64, u64)> {
        let to = offset + out.len() as u64;
        let mut covered = Vec::new();
        for slice in &self.slices {
            let mut start = slice.file_start();
            for block in &slice.blocks {
                let bytes = block.bytes();
                let end = start + bytes.len() as u64;
                let (low, high) = (start.max(offset), end.min(to));
                if low < high {
                    out[(low - offset) as usize..(high - offset) as usize]
                        .copy_from_slice(&bytes[(low - start) as usize..(high - start) as usize]);
                    covered.push((low, high));
                }
                start = end;
            }
        }
        covered
    }
}

fn seal<T>(slice: &mut PendingSlice<T>) -> Option<FullBlock> {
    slice.sealed = true;
    let index = slice.blocks.len().checked_sub(1)?;
    freeze(slice, index)
}

fn freeze<T>(slice: &mut PendingSlice<T>, index: usize) -> Option<FullBlock> {
    let Block::Growing(bytes) = &mut slice.blocks[index] else { return None };
    let data = std::mem::take(bytes).freeze();
    slice.blocks[index] = Block::Frozen(data.clone());
    Some(FullBlock { serial: slice.serial, index: index as u32, data })
}

fn extend<T>(slice: &mut PendingSlice<T>, position: u32, data: &[u8], block_size: usize, full: &mut Vec<FullBlock>) {
    assert!(slice.accepts(position), "frozen bytes never change (hazard 8.2)");
    let mut at = (position - slice.position) as usize;
    let mut data = data;
    while !data.is_empty() {
        let (index, inside) = (at / block_size, at % block_size);
        if index == slice.blocks.len() {
            slice.blocks.push(Block::Growing(BytesMut::new()));
        }
        let Block::Growing(block) = &mut slice.blocks[index] else { unreachable!("`accepts` keeps writes out of frozen blocks") };
        let count = data.len().min(block_size - inside);
        let (now, later) = data.split_at(count);
        let over = count.min(block.len() - inside);
        block[inside..inside + over].copy_from_slice(&now[..over]);
        block.extend_from_slice(&now[over..]);
        if block.len() == block_size {
            full.extend(freeze(slice, index));
        }
        at += count;
        data = later;
    }
    slice.length = slice.length.max(at as u32);
    if u64::from(slice.end()) == CHUNK_SIZE {
        full.extend(seal(slice));
    }
    let sum: usize = slice.blocks.iter().map(|b| b.bytes().len()).sum();
    assert_eq!(sum, slice.length as usize, "a slice is as long as its blocks");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::segments;
    use farshore_types::{Slice, SliceId, SliceView};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const BLOCK: u32 = 64;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, usize),
        Commit(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        // Around a chunk's border, so that writes cross it.
        let base = CHUNK_SIZE - 512;
        let write = (0..1024u64, 1..300usize).prop_map(move |(at, len)| Step::Write(base + at, len));
        let tail = (0..40u64, 1..100usize).prop_map(move |(n, len)| Step::Write(base + n * 25, len));
        proptest::collection::vec(prop_oneof![3 => write, 3 => tail, 1 => (0..6usize).prop_map(Step::Commit)], 1..60)
    }

    /// What metadata and bucket would hold after the commits.
    #[derive(Default)]
    struct Committed {
        views: BTreeMap<u32, Vec<SliceView>>,
        objects: BTreeMap<(u64, u32), Bytes>,
    }

    impl Committed {
        fn commit(&mut self, pending: &mut Pending<()>, count: usize, uploaded: &BTreeMap<(u64, u32), Bytes>) {
            let count = count.min(pending.slices.len());
            let last: Vec<FullBlock> = pending.seal_first(count);
            let mut objects = uploaded.clone();
            objects.extend(last.into_iter().map(|b| ((b.serial, b.index), b.data)));
            for slice in pending.remove_first(count) {
                let blocks = slice.frozen();
                for (index, data) in blocks.iter().enumerate() {
                    let sent = &objects[&(slice.serial, index as u32)];
                    assert_eq!(sent, data, "what was handed to the upload never changed");
                    self.objects.insert((slice.serial, index as u32), data.clone());
                }
                let checksums = blocks.iter().map(|b| crc32c::crc32c(b)).collect();
                let id = SliceId(slice.serial);
                let view = SliceView {
                    position: slice.position,
                    length: slice.length,
                    offset: 0,
                    slice: Slice { id, size: slice.length, checksums },
                    origin: None,
                };
                self.views.entry(slice.chunk).or_default().push(view);
            }
        }

        fn read(&self, offset: u64, out: &mut [u8]) {
            for (n, byte) in out.iter_mut().enumerate() {
                let at = offset + n as u64;
                let (chunk, position) = ((at / CHUNK_SIZE) as u32, (at % CHUNK_SIZE) as u32);
                let views = self.views.get(&chunk).map_or(&[][..], |views| views);
                let segment = &segments(views, position, position + 1, BLOCK).unwrap()[0];
                *byte = segment
                    .source
                    .as_ref()
                    .map_or(0, |(block, inside)| self.objects[&(block.key.slice.0, block.key.index)][*inside as usize]);
            }
        }
    }

    proptest! {
        #[test]
        fn buffers_and_commits_read_as_one_file(steps in steps()) {
            let base = CHUNK_SIZE - 512;
            let mut model = vec![0u8; 2048];
            let mut pending = Pending::<()>::new(BLOCK);
            let mut uploaded = BTreeMap::new();
            let mut committed = Committed::default();
            for (n, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Write(offset, len) => {
                        let data: Vec<u8> = (0..len).map(|i| (n * 31 + i + 1) as u8).collect();
                        let at = (offset - base) as usize;
                        model[at..at + len].copy_from_slice(&data);
                        for block in pending.write(offset, &data, || ()) {
                            let before = uploaded.insert((block.serial, block.index), block.data);
                            prop_assert!(before.is_none(), "a block is frozen once");
                        }
                    }
                    Step::Commit(count) => committed.commit(&mut pending, count, &uploaded),
                }
                let mut seen = vec![0u8; 2048];
                committed.read(base, &mut seen);
                pending.overlay(base, &mut seen);
                prop_assert_eq!(&seen, &model);
            }
        }
    }

    #[test]
    fn a_sequential_writer_makes_one_slice_a_chunk() {
        let mut pending = Pending::<()>::new(1 << 20);
        let data = vec![1u8; 300_000];
        let mut offset = 0;
        let mut full = 0;
        while offset < CHUNK_SIZE + 5_000_000 {
            full += pending.write(offset, &data, || ()).len() as u64;
            offset += data.len() as u64;
        }
        assert_eq!(pending.slices.len(), 2);
        assert_eq!(full, offset >> 20);
        assert!(pending.slices[0].is_sealed() && !pending.slices[1].is_sealed());
        assert_eq!(pending.end(), offset);
    }

    #[test]
    fn law_27_open_slices_of_a_chunk_are_bounded() {
        let mut pending = Pending::<()>::new(BLOCK);
        for n in 0..100 {
            pending.write(n * 200, b"x", || ());
        }
        let open = pending.slices().filter(|slice| !slice.is_sealed()).count();
        assert_eq!(open, OPEN_PER_CHUNK_MAX);
    }
}
