//! The judge: may this mirrored entry be applied now? (law 3)
//!
//! Pure, and meant to run inside apply: an entry that is not accepted is a no-op there. The same function before the
//! proposal is only an optimisation. Epochs are compared by identity, never by their numbers (law 8).

use farshore_types::{Chain, EpochId, Lineage, LogIndex};

/// What a mirrored entry says of its place in history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    pub index: LogIndex,
    /// The chain just before the entry.
    pub previous: Chain,
    /// The epoch in which the entry was proposed.
    pub epoch: EpochId,
}

/// What is to be done with an offered entry. Everything but `Accept` is a no-op in apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    /// It is applied already.
    Duplicate,
    /// Entries are missing before it; `expected` is the one to ask for.
    Gap {
        expected: LogIndex,
    },
    /// It follows another history than the one applied here.
    Fork,
    /// The followed lineage has another epoch at that index, or none.
    Fenced,
}

/// Judges `offer` against what is applied here and the lineage that is followed.
///
/// The start record of an epoch is the entry at `Epoch::start + 1`, which [`Lineage::at`] counts to that epoch already.
pub fn judge(applied: LogIndex, chain: &Chain, followed: &Lineage, offer: &Offer) -> Verdict {
    if offer.index <= applied {
        return Verdict::Duplicate;
    }
    let expected = applied.next();
    if offer.index > expected {
        return Verdict::Gap { expected };
    }
    assert_eq!(offer.index, expected, "neither duplicate nor gap, so it is the next one");
    if offer.previous != *chain {
        return Verdict::Fork;
    }
    match followed.at(offer.index) {
        Some(epoch) if epoch.id == offer.epoch => Verdict::Accept,
        _ => Verdict::Fenced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_types::{ClusterId, Epoch};
    use proptest::prelude::*;

    fn id(number: u64, cluster: u8) -> EpochId {
        EpochId { number, cluster: ClusterId(cluster) }
    }

    fn epoch(number: u64, cluster: u8, start: u64) -> Epoch {
        Epoch { id: id(number, cluster), parent: EpochId::default(), start: LogIndex(start), chain: Chain::default() }
    }

    fn lineage() -> Lineage {
        Lineage(vec![epoch(1, 0, 0), epoch(2, 1, 10)])
    }

    fn offer(index: u64, previous: u8, epoch: EpochId) -> Offer {
        Offer { index: LogIndex(index), previous: Chain([previous; 32]), epoch }
    }

    const HERE: Chain = Chain([7; 32]);

    fn at_5(offered: Offer) -> Verdict {
        judge(LogIndex(5), &HERE, &lineage(), &offered)
    }

    #[test]
    fn law_3_the_next_entry_is_accepted() {
        assert_eq!(at_5(offer(6, 7, id(1, 0))), Verdict::Accept);
        assert_eq!(judge(LogIndex(0), &HERE, &lineage(), &offer(1, 7, id(1, 0))), Verdict::Accept);
    }

    #[test]
    fn law_3_what_is_applied_is_a_duplicate_whatever_else_it_says() {
        assert_eq!(at_5(offer(5, 7, id(1, 0))), Verdict::Duplicate);
        assert_eq!(at_5(offer(1, 0, id(9, 9))), Verdict::Duplicate);
        assert_eq!(at_5(offer(0, 7, id(1, 0))), Verdict::Duplicate);
    }

    #[test]
    fn law_3_a_gap_names_the_entry_that_is_missing() {
        assert_eq!(at_5(offer(7, 7, id(1, 0))), Verdict::Gap { expected: LogIndex(6) });
        assert_eq!(at_5(offer(u64::MAX, 0, id(9, 9))), Verdict::Gap { expected: LogIndex(6) });
    }

    #[test]
    fn law_3_another_chain_is_a_fork() {
        assert_eq!(at_5(offer(6, 8, id(1, 0))), Verdict::Fork);
        assert_eq!(at_5(offer(6, 8, id(2, 1))), Verdict::Fork);
    }

    #[test]
    fn law_8_an_epoch_that_the_lineage_does_not_have_there_is_fenced() {
        assert_eq!(at_5(offer(6, 7, id(2, 1))), Verdict::Fenced, "too early for the second epoch");
        assert_eq!(at_5(offer(6, 7, id(1, 1))), Verdict::Fenced, "the same number of another cluster");
        assert_eq!(judge(LogIndex(5), &HERE, &Lineage::default(), &offer(6, 7, id(1, 0))), Verdict::Fenced);
    }

    #[test]
    fn law_8_the_start_record_belongs_to_the_epoch_that_it_starts() {
        let at_10 = |epoch| judge(LogIndex(10), &HERE, &lineage(), &offer(11, 7, epoch));
        assert_eq!(at_10(id(2, 1)), Verdict::Accept);
        assert_eq!(at_10(id(1, 0)), Verdict::Fenced);
        let at_9 = |epoch| judge(LogIndex(9), &HERE, &lineage(), &offer(10, 7, epoch));
        assert_eq!(at_9(id(1, 0)), Verdict::Accept);
        assert_eq!(at_9(id(2, 1)), Verdict::Fenced);
    }

    #[test]
    fn the_last_index_there_is_does_not_overflow() {
        let verdict = judge(LogIndex(u64::MAX), &HERE, &lineage(), &offer(u64::MAX, 7, id(2, 1)));
        assert_eq!(verdict, Verdict::Duplicate);
    }

    proptest! {
        #[test]
        fn law_3_accept_if_and_only_if_all_conditions_hold(
            applied in 0u64..14, index in 0u64..16, same_chain: bool, number in 1u64..3, cluster in 0u8..2,
        ) {
            let offered = offer(index, if same_chain { 7 } else { 8 }, id(number, cluster));
            let verdict = judge(LogIndex(applied), &HERE, &lineage(), &offered);
            // Written without Lineage::at, so that the two cannot be wrong together.
            let there = if index == 0 { None } else if index <= 10 { Some((1, 0)) } else { Some((2, 1)) };
            let all = index == applied + 1 && same_chain && there == Some((number, cluster));
            prop_assert_eq!(verdict == Verdict::Accept, all);
            prop_assert_eq!(verdict == Verdict::Duplicate, index <= applied);
            prop_assert_eq!(verdict == Verdict::Gap { expected: LogIndex(applied + 1) }, index > applied + 1);
        }
    }
}
