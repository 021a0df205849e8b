//! Reading ahead of whoever walks a whole state. The kernel reads the state's file page by page, which is right for single
//! rows; a walk would then wait for each page of a state that is not in memory. Here the walk says where in the map its rows
//! lie, and what lies around them is read at once: much of it, as long as the walk comes through there, else little.

use std::collections::VecDeque;

/// Bits of an address within a page.
const PAGE_BITS: u32 = 12;
/// Bits of an address within a window, which is read at once: from 16 KiB to 1 MiB.
const LEAST_BITS: u32 = 14;
const MOST_BITS: u32 = 20;
/// The first one: a state whose pages lie in any order is not read many times over before that is known.
const FIRST_BITS: u32 = 16;
/// What the kernel reads at least when it is asked at once; of more it may read the beginning only.
const READ_AT_ONCE: usize = 128 << 10;
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
        Ahead { read, page: 0, bits: FIRST_BITS, windows: VecDeque::with_capacity(REMEMBERED), pages: 0, entered: 0 }
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
    for part in (address..address + bytes).step_by(READ_AT_ONCE) {
        let bytes = READ_AT_ONCE.min(address + bytes - part);
        // SAFETY: advice only; the kernel refuses addresses that are not mapped, and changes none that are.
        unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(part), bytes, libc::MADV_WILLNEED) };
    }
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

    /// How many times over the pages of the walk are read.
    fn times(read: &[(usize, usize)], pages: usize) -> f64 {
        read.iter().map(|(_, bytes)| *bytes as f64).sum::<f64>() / (pages << PAGE_BITS) as f64
    }

    #[test]
    fn a_walk_in_order_is_read_ahead_and_hardly_anything_twice() {
        let read = walk((0..100_000).flat_map(|page| [page, page]));
        assert!(times(&read, 100_000) < 1.02, "{}", times(&read, 100_000));
        let large = &read[read.len() - 300..];
        let expected = large[0].0..=large[0].0 + (299 << MOST_BITS);
        assert!(large.iter().map(|(address, _)| *address).eq(expected.step_by(1 << MOST_BITS)), "one behind the other");
        assert!(large.last().is_some_and(|(address, bytes)| address + bytes > 100_000 << PAGE_BITS), "and what follows");
    }

    #[test]
    fn each_third_page_is_as_good_as_all() {
        let read = walk((0..100_000).map(|page| page * 3));
        assert!(read[600..].iter().all(|(_, bytes)| *bytes == 1 << MOST_BITS), "the windows have grown");
        assert!(times(&read, 300_000) < 1.02);
    }

    #[test]
    fn a_walk_without_order_reads_little_beside_its_pages_until_it_finds_some() {
        let scattered = |count: usize| (1..count).map(|at| at * 7919 % 1_000_003);
        let read = walk(scattered(100_000));
        assert!(read[5_000..].iter().all(|(_, bytes)| *bytes == 1 << LEAST_BITS), "the windows have shrunk");
        assert!(times(&read, 100_000) < 4.3, "four pages for each from the beginning on, about");
        let read = walk(scattered(100_000).chain(2_000_000..2_100_000));
        assert_eq!(read.last().map(|last| last.1), Some(1 << MOST_BITS), "and grow again");
    }
}
