//! What clients do: a few groups of names at a time, each for a bounded number of operations, then fresh ones.
//!
//! All clients of a history share one arena, so that they meet at the same names. Which operation comes next follows from the
//! draws alone. Each value that is written is written once, so that a reader of an old one is caught.

use crate::{Answer, Call, NAMES, Name};
use farshore_types::RenameMode;

/// Groups in which clients are at one time.
const OPEN: usize = 3;
/// Operations of a group: of most, and of the long ones, of which there is one in [`LONG_OF`]; both and as many again.
const SHORT: u64 = 40;
const LONG: u64 = 150;
const LONG_OF: u64 = 10;
/// Inodes of a group that are asked for by number: the latest that were seen.
const INODES: usize = 6;
/// Longest commit, in blocks.
const BLOCKS: u64 = 3;

struct Group {
    number: u64,
    left: u64,
    inodes: Vec<u64>,
}

/// The groups that are open now. `below` draws a number below its argument.
pub struct Arena {
    open: Vec<Group>,
    next_group: u64,
    unique: u32,
    commits: bool,
}

impl Arena {
    /// Groups are numbered from `first_group`, which no earlier history of the volume may have reached. `commits`: whether
    /// slices are committed; their blocks are the caller's to upload.
    pub fn new(first_group: u64, commits: bool) -> Self {
        Arena { open: vec![], next_group: first_group, unique: 0, commits }
    }

    /// Something to do, in one of the open groups; only questions for a client that `asks_only`.
    pub fn next(&mut self, asks_only: bool, below: &mut dyn FnMut(u64) -> u64) -> (u64, Call) {
        while self.open.len() < OPEN {
            let length = if below(LONG_OF) == 0 { LONG } else { SHORT };
            self.open.push(Group { number: self.next_group, left: length + below(length), inodes: vec![] });
            self.next_group += 1;
        }
        let at = below(OPEN as u64) as usize;
        let name = Name(below(u64::from(NAMES)) as u8);
        let inodes = &self.open[at].inodes;
        let ino = if inodes.is_empty() { None } else { Some(inodes[below(inodes.len() as u64) as usize]) };
        self.unique += 1;
        let call = if asks_only { question(name, ino, below) } else { self.any(name, ino, below) };
        let group = &mut self.open[at];
        let number = group.number;
        group.left -= 1;
        if group.left == 0 {
            self.open.remove(at);
        }
        (number, call)
    }

    fn any(&self, name: Name, ino: Option<u64>, below: &mut dyn FnMut(u64) -> u64) -> Call {
        let unique = self.unique;
        let other = Name((name.0 + 1 + below(u64::from(NAMES) - 1) as u8) % NAMES);
        match (below(100), ino) {
            (0..16, _) => Call::Make { name, uid: unique },
            (16..25, _) => Call::Unlink { name },
            (25..35, _) => {
                let modes = [RenameMode::Replace, RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange];
                Call::Rename { from: name, to: other, mode: modes[below(4) as usize] }
            }
            (35..40, Some(ino)) => Call::Link { ino, name },
            (40..52, Some(ino)) => Call::SetAttr { ino, mode: below(0o1000) as u16, uid: unique },
            (52..57, Some(ino)) => Call::Truncate { ino, size: u64::from(unique) },
            (57..62, Some(ino)) if self.commits => Call::Commit { ino, size: (1 + below(BLOCKS)) as u32 * crate::BLOCK },
            _ => question(name, ino, below),
        }
    }

    /// What an answer showed, which others may ask for from now on.
    pub fn learn(&mut self, group: u64, answer: &Answer) {
        let Some(group) = self.open.iter_mut().find(|open| open.number == group) else { return };
        for seen in answer.inodes() {
            if !group.inodes.contains(&seen.ino) {
                group.inodes.push(seen.ino);
            }
        }
        let over = group.inodes.len().saturating_sub(INODES);
        group.inodes.drain(..over);
    }
}

fn question(name: Name, ino: Option<u64>, below: &mut dyn FnMut(u64) -> u64) -> Call {
    match (below(10), ino) {
        (0..4, Some(ino)) => Call::GetAttr { ino },
        (4..6, _) => Call::List,
        _ => Call::Lookup { name },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Seen;
    use std::collections::BTreeMap;

    #[test]
    fn groups_are_left_for_fresh_ones_and_every_kind_of_operation_is_drawn() {
        let mut arena = Arena::new(0, true);
        let mut state = 1u64;
        let mut below = |bound: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % bound
        };
        let mut lengths: BTreeMap<u64, u64> = BTreeMap::new();
        let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
        for at in 0..20_000 {
            let (group, call) = arena.next(false, &mut below);
            *lengths.entry(group).or_default() += 1;
            *kinds.entry(call.to_string().split(' ').next().unwrap().to_owned()).or_default() += 1;
            arena.learn(group, &Answer::Inode(Seen { ino: at, nlink: 1, mode: 0, uid: 0, size: 0 }));
            assert!(arena.next(true, &mut below).1.is_query());
        }
        assert_eq!(kinds.len(), 10, "{kinds:?}");
        assert!(lengths.len() > 100, "{} groups", lengths.len());
        assert!(lengths.values().all(|length| *length < 2 * LONG));
    }
}
