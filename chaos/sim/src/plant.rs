//! Planted hazards: one at a time, so that the tests can show that the simulator would find it. Without the cargo feature
//! `plant` every question is answered `false` at compile time.

/// A hazard of the catalogue, planted in the ledger, in apply, or in the simulator's own wiring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hazard {
    /// 1.1: the smallest pending block minus one is taken for data_synced.
    SmallestPending,
    /// 1.1: the interval of a dropped block is forgotten one entry after its drop.
    ForgetIntervalEarly,
    /// 2.1: what is acknowledged is taken for a floor.
    DeleteAtAck,
    /// 3.3: what an ended session left in doubt is sent again under a new one.
    RetryUnderNewSession,
    /// 3: a retried request is applied again, as if no reply had been kept.
    ReplyTableIgnored,
    /// 3: a node answers questions without a proof that it still leads.
    StaleRead,
    /// 5.1: the mirror judges an entry before the proposal and not in apply.
    JudgeOutsideApply,
    /// 6.4: blocks that a rewind makes live again are not owed.
    RewindWithoutReowing,
    /// 7.1: apply takes what the node's own log has not flushed.
    ApplyAheadOfLog,
    /// 7.1: of the transactions that the state is to store at once, the last one alone is stored.
    StoredWithGaps,
    /// 7.6: a node votes on as if it had lost nothing.
    VoteAfterLoss,
    /// Messages are believed without their checksum.
    FlippedBitsBelieved,
    /// 1.6 and law 16: a worker's evidence is about another object than the one in the bucket.
    FalseEvidence,
}

impl Hazard {
    /// The fault in the syncer that stands for it, where it is planted there.
    #[cfg(feature = "plant")]
    fn of_syncer(self) -> Option<farshore_syncer::plant::Plant> {
        use farshore_syncer::plant::Plant;
        match self {
            Hazard::SmallestPending => Some(Plant::SmallestPendingMinusOne),
            Hazard::ForgetIntervalEarly => Some(Plant::ForgetIntervalEarly),
            Hazard::DeleteAtAck => Some(Plant::DeleteAtAck),
            Hazard::JudgeOutsideApply => Some(Plant::JudgeOutsideApply),
            Hazard::RewindWithoutReowing => Some(Plant::RewindWithoutReowing),
            _ => None,
        }
    }
}

#[cfg(feature = "plant")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Hazard>> = const { std::cell::Cell::new(None) };
}

/// Plants one hazard on this thread, or with `None` mends it.
#[cfg(feature = "plant")]
pub fn set(hazard: Option<Hazard>) {
    PLANTED.with(|cell| cell.set(hazard));
    farshore_syncer::plant::set(hazard.and_then(Hazard::of_syncer));
    farshore_primary::plant::set_reads_unproven(hazard == Some(Hazard::StaleRead));
    farshore_primary::plant::set_reply_table_ignored(hazard == Some(Hazard::ReplyTableIgnored));
}

/// Whether this hazard is planted on this thread.
#[cfg(feature = "plant")]
pub fn is(hazard: Hazard) -> bool {
    PLANTED.with(|cell| cell.get()) == Some(hazard)
}

/// Whether this hazard is planted: never.
#[cfg(not(feature = "plant"))]
#[inline(always)]
pub const fn is(_: Hazard) -> bool {
    false
}
