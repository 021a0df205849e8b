//! From the slices of a chunk to the blocks that a read needs. Pure.
//!
//! Later pieces of a list lie above earlier ones; what no piece covers reads as zeros.

use farshore_types::{BlockKey, SliceId, SliceView};

/// A block, and what its bytes must look like (law 16).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct BlockRef {
    pub key: BlockKey,
    pub crc32c: u32,
}

/// A part of a chunk that comes from one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Where it starts inside the chunk, in bytes.
    pub at: u32,
    /// At least 1.
    pub length: u32,
    /// The block and where the part starts inside it; `None`: zeros.
    pub source: Option<(BlockRef, u32)>,
}

/// A slice list that contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("metadata names slice {0} with a piece or checksums that do not fit its length")]
pub(crate) struct LayoutError(pub SliceId);

/// The parts of `from..to` of a chunk, in order, without gaps.
pub(crate) fn segments(views: &[SliceView], from: u32, to: u32, block_size: u32) -> Result<Vec<Segment>, LayoutError> {
    assert!(block_size > 0, "a volume's block size is never 0");
    let mut uncovered = if from < to { vec![(from, to)] } else { Vec::new() };
    let mut found = Vec::new();
    for view in views.iter().rev() {
        if uncovered.is_empty() {
            break;
        }
        let (start, end) = (view.position, view.position.saturating_add(view.length));
        let mut rest = Vec::with_capacity(uncovered.len() + 1);
        for (low, high) in uncovered {
            let (cut_low, cut_high) = (low.max(start), high.min(end));
            if cut_low >= cut_high {
                rest.push((low, high));
                continue;
            }
            cut_blocks(view, cut_low, cut_high, block_size, &mut found)?;
            rest.extend([(low, cut_low), (cut_high, high)].into_iter().filter(|(low, high)| low < high));
        }
        uncovered = rest;
    }
    found.extend(uncovered.into_iter().map(|(low, high)| Segment { at: low, length: high - low, source: None }));
    found.sort_by_key(|segment| segment.at);
    assert_eq!(found.iter().map(|s| u64::from(s.length)).sum::<u64>(), u64::from(to.saturating_sub(from)), "no gap, no overlap");
    Ok(found)
}

/// Cuts `low..high` of the chunk, which `view` covers, at the borders of the slice's blocks.
fn cut_blocks(view: &SliceView, low: u32, high: u32, block_size: u32, found: &mut Vec<Segment>) -> Result<(), LayoutError> {
    if view.slice.id == SliceId::HOLE {
        found.push(Segment { at: low, length: high - low, source: None });
        return Ok(());
    }
    let wrong = LayoutError(view.slice.id);
    let mut at = low;
    while at < high {
        let in_slice = (at - view.position).checked_add(view.offset).ok_or(wrong.clone())?;
        let index = in_slice / block_size;
        let block_start = index * block_size;
        if in_slice >= view.slice.size {
            return Err(wrong);
        }
        let size = block_size.min(view.slice.size - block_start);
        let crc32c = *view.slice.checksums.get(index as usize).ok_or(wrong.clone())?;
        let inside = in_slice - block_start;
        let length = (size - inside).min(high - at);
        let block = BlockRef { key: BlockKey { slice: view.slice.id, index, size }, crc32c };
        found.push(Segment { at, length, source: Some((block, inside)) });
        at += length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_types::Slice;
    use proptest::prelude::*;

    const BLOCK: u32 = 16;
    const CHUNK: u32 = 256;

    fn view(id: u64, position: u32, length: u32, offset: u32, size: u32) -> SliceView {
        let count = if id == 0 { 0 } else { size.div_ceil(BLOCK) };
        let slice = Slice { id: SliceId(id), size, checksums: (0..count).map(|n| id as u32 * 100 + n).collect() };
        SliceView { position, length, offset, slice, origin: None }
    }

    /// Byte `at` of slice `id`, so that every byte tells where it came from.
    fn byte(id: u64, at: u32) -> (u64, u32) {
        if id == 0 { (0, 0) } else { (id, at) }
    }

    fn views() -> impl Strategy<Value = Vec<SliceView>> {
        let one = (0..CHUNK - 1, 1..80u32, 0..40u32, 0..20u32, any::<bool>());
        proptest::collection::vec(one, 0..12).prop_map(|all| {
            let cut = |n: usize, (position, length, offset, tail, hole): (u32, u32, u32, u32, bool)| {
                let length = length.min(CHUNK - position);
                let id = if hole { 0 } else { n as u64 + 1 };
                view(id, position, length, if hole { 0 } else { offset }, offset + length + tail)
            };
            all.into_iter().enumerate().map(|(n, one)| cut(n, one)).collect()
        })
    }

    proptest! {
        #[test]
        fn a_read_sees_what_a_byte_array_would(views in views(), from in 0..CHUNK, len in 0..CHUNK) {
            let to = (from + len).min(CHUNK);
            let mut model = vec![(0u64, 0u32); CHUNK as usize];
            for view in &views {
                for n in 0..view.length {
                    model[(view.position + n) as usize] = byte(view.slice.id.0, view.offset + n);
                }
            }
            let mut at = from;
            for segment in segments(&views, from, to, BLOCK).unwrap() {
                prop_assert_eq!(segment.at, at);
                prop_assert!(segment.length > 0);
                for n in 0..segment.length {
                    let got = match &segment.source {
                        None => (0, 0),
                        Some((block, inside)) => {
                            prop_assert!(inside + n < block.key.size, "inside the block");
                            prop_assert_eq!(block.crc32c, block.key.slice.0 as u32 * 100 + block.key.index);
                            byte(block.key.slice.0, block.key.index * BLOCK + inside + n)
                        }
                    };
                    prop_assert_eq!(got, model[(at + n) as usize]);
                }
                at += segment.length;
            }
            prop_assert_eq!(at, to.max(from));
        }
    }

    #[test]
    fn a_list_that_contradicts_itself_is_refused() {
        assert_eq!(segments(&[view(7, 0, 40, 0, 30)], 0, 40, BLOCK), Err(LayoutError(SliceId(7))));
        let mut short = view(8, 0, 40, 0, 40);
        short.slice.checksums.pop();
        assert_eq!(segments(&[short], 0, 40, BLOCK), Err(LayoutError(SliceId(8))));
    }
}
