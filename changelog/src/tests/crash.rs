//! Power cuts at any point, any subset of unsynced sectors and names surviving: the log comes back as it was at some
//! batch between the last flush and the cut. Never less, never anything else, and never called damaged (law 24).

use super::*;
use proptest::prelude::*;
use rand_free::Coin;

/// A seeded coin, so that a failing case can be replayed.
mod rand_free {
    pub struct Coin(pub u64);

    impl Coin {
        pub fn flip(&mut self) -> bool {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            self.0 >> 63 == 1
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append { count: u64, length: usize },
    Truncate { back: u64 },
    Purge { back: u64 },
    Sync,
    Crash { seed: u64 },
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1u64..4, 0usize..500).prop_map(|(count, length)| Step::Append { count, length }),
        2 => (0u64..6).prop_map(|back| Step::Truncate { back }),
        1 => (0u64..6).prop_map(|back| Step::Purge { back }),
        3 => Just(Step::Sync),
        2 => any::<u64>().prop_map(|seed| Step::Crash { seed }),
        1 => Just(Step::Kill),
    ]
}

/// What the log must be: its first index and its entries.
#[derive(Clone, Debug, PartialEq)]
struct Model {
    first: u64,
    entries: Vec<Entry>,
}

impl Model {
    fn of(files: &LogFiles) -> Model {
        let first = files.purged().map_or(0, |purged| purged.0 + 1);
        let entries = everything(files);
        assert_eq!(files.next().0, first + entries.len() as u64);
        Model { first, entries }
    }

    fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }
}

const SEGMENT: u64 = 4096;

fn run(steps: Vec<Step>) {
    let mut disk = MemDisk::default();
    let (mut files, _) = open(&disk, SEGMENT);
    // Every state since the last flush; the last one is the present.
    let mut states = vec![Model { first: 0, entries: Vec::new() }];
    for (version, step) in steps.into_iter().enumerate() {
        let mut now = states.last().unwrap().clone();
        match step {
            Step::Append { count, length } => {
                let next = now.next();
                let more: Vec<_> = (next..next + count).map(|index| entry(index, version as u8, length)).collect();
                files.append(&more).unwrap();
                now.entries.extend(more);
                states.push(now);
            }
            Step::Truncate { back } => {
                let keep = now.next().saturating_sub(back).max(now.first);
                files.truncate_after(keep.checked_sub(1).map(RaftIndex)).unwrap();
                now.entries.truncate((keep - now.first) as usize);
                states.push(now);
            }
            Step::Purge { back } => {
                // With back 0 this purges two entries beyond the end.
                let Some(upto) = (now.next() + 1).checked_sub(back).filter(|upto| *upto >= now.first) else { continue };
                files.purge(RaftIndex(upto)).unwrap();
                let gone = (upto + 1 - now.first).min(now.entries.len() as u64);
                now.entries.drain(..gone as usize);
                now.first = upto + 1;
                states = vec![now];
            }
            Step::Sync => {
                files.sync().unwrap();
                states = vec![now];
            }
            Step::Crash { seed } => {
                drop(files);
                let mut coin = Coin(seed);
                disk = disk.crash(|| coin.flip());
                let (reopened, recovered) = open(&disk, SEGMENT);
                files = reopened;
                assert_eq!(recovered.damage, None, "a power cut is not damage");
                let found = Model::of(&files);
                assert!(states.contains(&found), "found {found:?}, could be {states:?}");
                states = vec![found];
            }
            Step::Kill => {
                drop(files);
                let (reopened, recovered) = open(&disk, SEGMENT);
                files = reopened;
                assert_eq!((recovered.torn, recovered.damage), (None, None), "the machine went on: all is there");
                states = vec![now];
            }
        }
        assert_eq!(Model::of(&files), *states.last().unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn law_24_a_power_cut_loses_nothing_that_was_flushed(steps in proptest::collection::vec(step(), 1..40)) {
        run(steps);
    }
}

#[test]
fn law_24_the_check_fires_when_a_flush_is_left_out() {
    // The planted fault: what the caller believes to be flushed was only written.
    let disk = MemDisk::default();
    let (mut files, _) = open(&disk, SEGMENT);
    files.append(&entries(0..3)).unwrap();
    let (after, _) = open(&disk.crash(|| false), SEGMENT);
    assert_eq!(everything(&after), vec![]);
}
