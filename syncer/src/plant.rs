//! Planted faults: one broken law at a time, so that the tests can show that they would find it.
//!
//! Without the cargo feature `plant` every question is answered `false` at compile time.

/// One broken rule or one literal misreading; the names are those of the model of the laws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// data_synced ignores blocks that were dropped before they were copied (13).
    SmallestPendingMinusOne,
    /// Deletes when every cluster has applied the drop, not when its floor has passed it (14).
    DeleteAtAck,
    /// Ids come from a counter in shared state alone (7). Planted where ids are issued.
    NoSlots,
    /// An interval is forgotten one entry after its drop (13).
    ForgetIntervalEarly,
    /// Blocks that a rewind makes live again are not owed (20).
    RewindWithoutReowing,
    /// The deletion rule asks only the clusters that are up (14). Planted where the roster is named.
    LiveInsteadOfRoster,
    /// The floor is reported, and not kept by the cluster that reported it (14).
    FloorNotCommitted,
    /// A mirrored entry is judged when proposed, not when applied (3). Planted where entries are applied.
    JudgeOutsideApply,
    /// A reported floor is a bare LogIndex, compared without its lineage (14).
    BareFloor,
    /// An interval is forgotten once data_synced, not the committed floor, has passed it (13).
    ForgetAtDataSynced,
    /// Intervals above the floor are merged, and cut at a rewind (13).
    MergeIntervals,
    /// data_synced is a number also below the own floor or with unverified blocks (20).
    NoNullAfterRewind,
    /// The next slot is read from shared state, which a rewind takes back (7). Planted where slots are taken.
    SlotInSharedState,
    /// Origin names a region, so a replaced bucket is believed to hold the block (12).
    OriginIsARegion,
}

impl Plant {
    pub const ALL: [Plant; 14] = [
        Plant::SmallestPendingMinusOne,
        Plant::DeleteAtAck,
        Plant::NoSlots,
        Plant::ForgetIntervalEarly,
        Plant::RewindWithoutReowing,
        Plant::LiveInsteadOfRoster,
        Plant::FloorNotCommitted,
        Plant::JudgeOutsideApply,
        Plant::BareFloor,
        Plant::ForgetAtDataSynced,
        Plant::MergeIntervals,
        Plant::NoNullAfterRewind,
        Plant::SlotInSharedState,
        Plant::OriginIsARegion,
    ];
}

#[cfg(feature = "plant")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Plant>> = const { std::cell::Cell::new(None) };
}

/// Breaks one rule on this thread, or with `None` mends it.
#[cfg(feature = "plant")]
pub fn set(plant: Option<Plant>) {
    PLANTED.with(|cell| cell.set(plant));
}

/// Whether this rule is broken on this thread.
#[cfg(feature = "plant")]
pub fn is(plant: Plant) -> bool {
    PLANTED.with(|cell| cell.get()) == Some(plant)
}

/// Whether this rule is broken: never.
#[cfg(not(feature = "plant"))]
#[inline(always)]
pub const fn is(_: Plant) -> bool {
    false
}
