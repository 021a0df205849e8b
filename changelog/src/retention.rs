//! How far the log may be purged, and which mirror holds it too long (law 25). Pure.
//!
//! The log is purged up to the older of two checkpoints, never above what a mirror on the roster still needs. Once it
//! takes more than its limit, the mirror furthest behind is to be marked `needs snapshot` by an entry, one at a time; when
//! the mark is committed it no longer holds the log. It still holds deletions, which are not decided here (law 14).

use farshore_types::{ByteCount, ClusterId, RaftIndex};

/// A mirror on the roster, as this node's log sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    pub cluster: ClusterId,
    /// The first entry that it still needs.
    pub needs: RaftIndex,
    /// It is marked already.
    pub needs_snapshot: bool,
}

/// What to do about the log's length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Purge up to here, inclusive.
    pub purge_upto: Option<RaftIndex>,
    /// Propose to mark this mirror.
    pub mark: Option<ClusterId>,
}

/// Decides. `checkpoint` is the last entry in the older of the two newest checkpoints; without it nothing is purged.
pub fn retention(checkpoint: Option<RaftIndex>, holders: &[Holder], retained: ByteCount, limit: ByteCount) -> Retention {
    let Some(checkpoint) = checkpoint else { return Retention::default() };
    let holding = holders.iter().filter(|holder| !holder.needs_snapshot);
    // Of several equally far behind, the lowest number: every node that decides, decides the same.
    let slowest = holding.min_by_key(|holder| (holder.needs, holder.cluster)).filter(|slowest| slowest.needs <= checkpoint);
    match slowest {
        None => Retention { purge_upto: Some(checkpoint), mark: None },
        Some(slowest) => Retention {
            purge_upto: slowest.needs.0.checked_sub(1).map(RaftIndex),
            mark: (retained > limit).then_some(slowest.cluster),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(cluster: u8, needs: u64, needs_snapshot: bool) -> Holder {
        Holder { cluster: ClusterId(cluster), needs: RaftIndex(needs), needs_snapshot }
    }

    fn decide(checkpoint: u64, holders: &[Holder], retained: u64) -> (Option<u64>, Option<u8>) {
        let decided = retention(Some(RaftIndex(checkpoint)), holders, ByteCount(retained), ByteCount(100));
        (decided.purge_upto.map(|index| index.0), decided.mark.map(|cluster| cluster.0))
    }

    #[test]
    fn law_25_never_above_the_checkpoint_nor_above_what_a_mirror_needs() {
        assert_eq!(retention(None, &[], ByteCount(1000), ByteCount(100)), Retention::default());
        assert_eq!(decide(50, &[], 10), (Some(50), None));
        assert_eq!(decide(50, &[holder(1, 51, false)], 10), (Some(50), None));
        assert_eq!(decide(50, &[holder(1, 50, false)], 10), (Some(49), None));
        assert_eq!(decide(50, &[holder(1, 40, false), holder(2, 30, false)], 10), (Some(29), None));
        assert_eq!(decide(50, &[holder(1, 0, false)], 10), (None, None));
    }

    #[test]
    fn law_25_beyond_the_limit_the_slowest_mirror_is_marked_and_then_holds_no_more() {
        let slow = [holder(1, 40, false), holder(2, 30, false), holder(3, 30, false)];
        assert_eq!(decide(50, &slow, 100), (Some(29), None));
        assert_eq!(decide(50, &slow, 101), (Some(29), Some(2)));
        assert_eq!(decide(50, &[slow[0], holder(2, 30, true)], 101), (Some(39), Some(1)));
        assert_eq!(decide(50, &[holder(2, 30, true)], 101), (Some(50), None));
        assert_eq!(decide(50, &[holder(1, 51, false)], 101), (Some(50), None), "the checkpoint holds it, not the mirror");
    }
}
