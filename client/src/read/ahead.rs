//! How far to read ahead of a sequential reader. Pure.
//!
//! A read that starts where the last one ended doubles the window, up to [`WINDOW_BLOCKS_MAX`]; any other closes it.

/// Blocks ahead of a reader, at most.
const WINDOW_BLOCKS_MAX: u64 = 8;
/// Bytes ahead of a reader, at most, whatever the block size.
const WINDOW_BYTES_MAX: u64 = 32 << 20;

/// One handle's reading habit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Readahead {
    expected: u64,
    window: u64,
    /// Up to where was read ahead already.
    ahead: u64,
}

impl Readahead {
    /// A read of `offset..end` comes; what to fetch behind it, as a range that may be empty.
    pub fn advance(&mut self, offset: u64, end: u64, block_size: u64) -> std::ops::Range<u64> {
        let max = WINDOW_BYTES_MAX.min(WINDOW_BLOCKS_MAX * block_size).max(block_size);
        if offset == self.expected {
            self.window = (self.window * 2).clamp(block_size, max);
        } else {
            self.window = 0;
            self.ahead = 0;
        }
        self.expected = end;
        let from = end.max(self.ahead);
        let to = end + self.window;
        // Fetching in whole blocks: nothing to do until at least one fits.
        if self.window == 0 || to < from + block_size.min(self.window) {
            return from..from;
        }
        self.ahead = to;
        from..to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn law_27_a_sequential_reader_opens_a_window_that_is_bounded() {
        let block = 1 << 20;
        let mut habit = Readahead::default();
        let mut fetched = 0;
        let mut at = 0;
        for _ in 0..4096 {
            let range = habit.advance(at, at + (128 << 10), block);
            at += 128 << 10;
            assert!(range.is_empty() || range.start >= fetched, "nothing is fetched twice");
            assert!(range.end <= at + WINDOW_BLOCKS_MAX * block);
            fetched = fetched.max(range.end);
        }
        assert!(fetched > at, "it stays ahead");
        assert!(habit.advance(3 << 30, (3 << 30) + 4096, block).is_empty(), "a jump closes the window");
        assert!(!habit.advance((3 << 30) + 4096, (3 << 30) + 8192, block).is_empty(), "the next in line opens it");
    }
}
