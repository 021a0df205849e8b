//! Reading ahead of whoever walks a whole state. The kernel reads the state's file page by page, which is right for single
//! rows; a walk would then wait for each page of a state that is not in memory. Here the walk says where in the map its rows
//! lie, and what lies around them is read at once: much of it, as long as the walk comes through there, else little.

use std::collections::VecDeque;

/// Bits of an address within a page.
const PAGE_BITS: u32 = 12;
/// Bits of an address within a window, which is read at once: from 16 KiB to 1 MiB.
const LEAST_BITS: u32 = 14;
const MOST_BITS: u32 = 20;
/// The windows that were read last; the walk is in several at once, since each page leads to the next.
const REMEMBERED: usize = 32;
/// Pages after which the size of a window is thought over.
const JUDGED_PAGES: usize = 1024;

/// A walk.
pub(super) struct Ahead<F> {
    /// Reads so many bytes from this address on in the background.
    read: F,
    page: usize,
    bits: u32,
    windows: VecDeque<usize>,
    /// Pages walked through, and windows entered that were not read before, since the size was thought over.
    pages: usize,
    entered: usize,
}

impl<F: FnMut(usize, usize)> Ahead<F> {
    pub fn new(read: F) -> Ahead<F> {
        Ahead { read, page: 0, bits: MOST_BITS, windows: VecDeque::with_capacity(REMEMBERED), pages: 0, entered: 0 }
    }

    /// The walk is at this address.
    pub fn at(&mut self, address: usize) {
        if self.page == address >> PAGE_BITS {
            return;
        }
        self.page = address >> PAGE_BITS;
        self.pages += 1;
        let window = address >> self.bits;
        if self.ask(window) {
            self.entered += 1;
        }
        if self.bits == MOST_BITS {
            self.ask(window + 1);
        }
        if self.pages == JUDGED_PAGES {
            self.judge();
        }
    }

    /// Whether the window was not read before.
    fn ask(&mut self, window: usize) -> bool {
        let new = !self.windows.contains(&window);
        if new {
            if self.windows.len() == REMEMBERED {
                self.windows.pop_front();
            }
            self.windows.push_back(window);
            (self.read)(window << self.bits, 1 << self.bits);
        }
        new
    }

    /// Windows of which an eighth or less was walked through shrink; those of which more than a quarter was grow.
    fn judge(&mut self) {
        let walked = (self.pages / self.entered.max(1)) << PAGE_BITS;
        let before = self.bits;
        if walked <= 1 << self.bits >> 3 {
            self.bits = (self.bits - 1).max(LEAST_BITS);
        } else if walked > 1 << self.bits >> 2 {
            self.bits = (self.bits + 1).min(MOST_BITS);
        }
        if self.bits != before {
            self.windows.clear();
        }
        (self.pages, self.entered) = (0, 0);
    }
}

/// Asks the kernel to read a part of a mapped file in the background.
pub(super) fn will_need(address: usize, bytes: usize) {
    // SAFETY: advice only; the kernel refuses addresses that are not mapped, and changes none that are.
    unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(address), bytes, libc::MADV_WILLNEED) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read on a walk through these pages.
    fn walk(pages: impl Iterator<Item = usize>) -> Vec<(usize, usize)> {
        let mut read = vec![];
        let mut ahead = Ahead::new(|address, bytes| read.push((address, bytes)));
        pages.for_each(|page| ahead.at((page << PAGE_BITS) + 100));
        read
    }

    #[test]
    fn a_walk_in_order_is_read_once_and_ahead() {
        let read = walk((0..10_000).flat_map(|page| [page, page]));
        let expected: Vec<_> = (0..=10_000 / 256 + 1).map(|window| (window << MOST_BITS, 1 << MOST_BITS)).collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn each_third_page_is_as_good_as_all() {
        let read = walk((0..100_000).map(|page| page * 3));
        assert!(read.iter().all(|(_, bytes)| *bytes == 1 << MOST_BITS), "{read:?}");
        assert_eq!(read.len(), 300_000 / 256 + 2);
    }

    #[test]
    fn a_walk_without_order_reads_little_beside_its_pages_until_it_finds_some() {
        let scattered = |count: usize| (1..count).map(|at| at * 7919 % 1_000_003);
        let read = walk(scattered(100_000));
        assert!(read[20_000..].iter().all(|(_, bytes)| *bytes == 1 << LEAST_BITS), "the windows have shrunk");
        let read = walk(scattered(100_000).chain(2_000_000..2_100_000));
        assert_eq!(read.last().map(|last| last.1), Some(1 << MOST_BITS), "and grow again");
    }
}
