//! An open directory's place in a listing that is too long to hold; pure.
//!
//! Positions count from 0: `.`, `..`, then the entries in byte order of names. The kernel goes on from any position that
//! it was given before: the next one, or a little back when a reply did not fit the caller's buffer. So the pages that
//! were read are remembered by their names only, and the last [`PAGES_HELD`] with their entries; a page that is needed
//! again is read again between the same names, so that no entry that stayed is seen twice or missed.

use farshore_types::DirEntry;

/// Entries asked for at a time.
pub(super) const PAGE_ENTRIES: u32 = 1000;
/// Pages whose entries are kept; at the bound the least lately read goes.
const PAGES_HELD: usize = 2;
/// Most pages in one listing: 1 billion entries. Beyond it the listing ends with an error.
const PAGES_MAX: usize = 1_000_000;
/// Positions of `.` and `..`.
pub(super) const DOTS: u64 = 2;

/// A page that was read once: where it starts, how it was asked for, and where it ended.
#[derive(Clone, Debug)]
struct Page {
    first: u64,
    count: u64,
    after: Option<Vec<u8>>,
    last: Option<Vec<u8>>,
}

/// What must be read before the cursor can go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    page: usize,
    /// Exclusive; `None` from the first.
    pub after: Option<Vec<u8>>,
}

impl Wanted {
    /// The first page, which every listing begins with.
    pub fn first() -> Wanted {
        Wanted { page: 0, after: None }
    }
}

/// What there is at a position.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum At<'a> {
    Entry(&'a DirEntry),
    /// No entry there any more; go on at this position.
    Skip(u64),
    Read(Wanted),
    End,
}

/// The listing is longer than the cursor can hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// The cursor. States: nothing read, partly read, `complete` (the last page is known).
#[derive(Debug, Default)]
pub(super) struct Cursor {
    pages: Vec<Page>,
    held: Vec<(usize, Vec<DirEntry>)>,
    complete: bool,
}

impl Cursor {
    /// Forgets all pages: a listing from position 0 is afresh (rewinddir).
    pub fn rewind(&mut self) {
        *self = Cursor::default();
    }

    /// What there is at a position, which is not one of the dots.
    pub fn at(&self, position: u64) -> At<'_> {
        assert!(position >= DOTS, "the dots are not in the listing");
        let index = self.pages.partition_point(|page| page.first + page.count <= position);
        let Some(page) = self.pages.get(index) else {
            if self.complete {
                return At::End;
            }
            return At::Read(Wanted { page: index, after: self.pages.last().and_then(|page| page.last.clone()) });
        };
        let Some((_, entries)) = self.held.iter().find(|(held, _)| *held == index) else {
            return At::Read(Wanted { page: index, after: page.after.clone() });
        };
        match entries.get((position - page.first) as usize) {
            Some(entry) => At::Entry(entry),
            None => At::Skip(page.first + page.count),
        }
    }

    /// Takes in what a read brought. `more`: whether entries follow the last one.
    pub fn take(&mut self, wanted: Wanted, mut entries: Vec<DirEntry>, more: bool) -> Result<(), TooLong> {
        if let Some(known) = self.pages.get(wanted.page) {
            // Read again: what grew beyond the page's end belongs to the next one.
            if let Some(last) = &known.last {
                entries.retain(|entry| entry.name <= *last);
            }
        } else {
            assert_eq!(wanted.page, self.pages.len(), "pages are read in order");
            if self.pages.len() >= PAGES_MAX {
                return Err(TooLong);
            }
            let first = self.pages.last().map_or(DOTS, |page| page.first + page.count);
            let last = entries.last().map(|entry| entry.name.clone());
            self.complete = !more || entries.is_empty();
            if entries.is_empty() {
                return Ok(());
            }
            self.pages.push(Page { first, count: entries.len() as u64, after: wanted.after, last });
        }
        self.held.retain(|(page, _)| *page != wanted.page);
        if self.held.len() >= PAGES_HELD {
            self.held.remove(0);
        }
        self.held.push((wanted.page, entries));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_types::{Attr, Ino, LogIndex, NodeKind};
    use std::collections::BTreeSet;

    fn entry(name: &str) -> DirEntry {
        let attr = Attr { version: LogIndex(1), ..Attr::zero(Ino(9), NodeKind::File) };
        DirEntry { name: name.as_bytes().to_vec(), attr }
    }

    /// A directory that answers as the volume does, and counts the questions.
    struct Directory {
        names: BTreeSet<String>,
        limit: usize,
        reads: usize,
    }

    impl Directory {
        fn new(count: usize, limit: usize) -> Self {
            Directory { names: (0..count).map(|n| format!("{n:06}")).collect(), limit, reads: 0 }
        }

        fn read(&mut self, after: Option<&[u8]>) -> (Vec<DirEntry>, bool) {
            self.reads += 1;
            let rest = self.names.iter().filter(|name| after.is_none_or(|after| name.as_bytes() > after));
            let mut found: Vec<_> = rest.take(self.limit + 1).map(|name| entry(name)).collect();
            let more = found.len() > self.limit;
            found.truncate(self.limit);
            (found, more)
        }
    }

    /// Lists up to `count` entries from a position; returns the names and the position to go on from.
    fn list(cursor: &mut Cursor, directory: &mut Directory, mut position: u64, count: usize) -> (Vec<String>, u64) {
        let mut names = Vec::new();
        while names.len() < count {
            let wanted = match cursor.at(position) {
                At::Entry(entry) => {
                    names.push(String::from_utf8(entry.name.clone()).unwrap());
                    position += 1;
                    continue;
                }
                At::Skip(next) => {
                    assert!(next > position);
                    position = next;
                    continue;
                }
                At::End => break,
                At::Read(wanted) => wanted,
            };
            let (entries, more) = directory.read(wanted.after.as_deref());
            cursor.take(wanted, entries, more).unwrap();
        }
        (names, position)
    }

    #[test]
    fn a_long_directory_is_listed_once_with_one_read_a_page() {
        let mut directory = Directory::new(100_000, 1000);
        let mut cursor = Cursor::default();
        let (names, end) = list(&mut cursor, &mut directory, DOTS, usize::MAX);
        assert_eq!(names.len(), 100_000);
        assert!(names.is_sorted());
        assert_eq!(end, DOTS + 100_000);
        assert_eq!(directory.reads, 100);
        assert_eq!(cursor.held.len(), PAGES_HELD);
    }

    #[test]
    fn an_empty_directory_ends_at_once() {
        let mut directory = Directory::new(0, 10);
        let mut cursor = Cursor::default();
        assert_eq!(list(&mut cursor, &mut directory, DOTS, 5), (vec![], DOTS));
        assert_eq!(list(&mut cursor, &mut directory, DOTS, 5), (vec![], DOTS));
        assert_eq!(directory.reads, 1);
    }

    #[test]
    fn a_step_back_over_a_page_reads_nothing_again() {
        let mut directory = Directory::new(25, 10);
        let mut cursor = Cursor::default();
        list(&mut cursor, &mut directory, DOTS, 12);
        let reads = directory.reads;
        let (names, _) = list(&mut cursor, &mut directory, DOTS + 8, 3);
        assert_eq!(names, ["000008", "000009", "000010"]);
        assert_eq!(directory.reads, reads);
    }

    #[test]
    fn changes_during_the_listing_hide_and_repeat_no_entry_that_stayed() {
        let mut directory = Directory::new(30, 10);
        let mut cursor = Cursor::default();
        let (mut seen, position) = list(&mut cursor, &mut directory, DOTS, 15);
        directory.names.remove("000003");
        directory.names.remove("000021");
        directory.names.insert("000000a".into());
        let (rest, _) = list(&mut cursor, &mut directory, position, usize::MAX);
        seen.extend(rest);
        let mut expected: Vec<_> = (0..30).map(|n| format!("{n:06}")).collect();
        expected.retain(|name| name != "000021");
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_page_read_again_stays_between_its_names() {
        let mut directory = Directory::new(40, 10);
        let mut cursor = Cursor::default();
        list(&mut cursor, &mut directory, DOTS, usize::MAX);
        // The first page lost two entries; read again it must not reach into the second.
        directory.names.remove("000001");
        directory.names.remove("000002");
        let (names, _) = list(&mut cursor, &mut directory, DOTS, 9);
        assert_eq!(names[..8], ["000000", "000003", "000004", "000005", "000006", "000007", "000008", "000009"]);
        assert_eq!(names[8], "000010");
    }

    #[test]
    fn rewinding_shows_what_is_there_now() {
        let mut directory = Directory::new(3, 10);
        let mut cursor = Cursor::default();
        list(&mut cursor, &mut directory, DOTS, usize::MAX);
        directory.names.insert("zz".into());
        assert_eq!(list(&mut cursor, &mut directory, DOTS, usize::MAX).0.len(), 3);
        cursor.rewind();
        assert_eq!(list(&mut cursor, &mut directory, DOTS, usize::MAX).0.len(), 4);
    }
}
