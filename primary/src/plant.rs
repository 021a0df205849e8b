//! Planted faults of this room, for the tests that must find them. Without the cargo feature `plant` nothing is broken.

use farshore_meta::kv::{KvRead, StorageError};
use farshore_types::SharedEntry;

#[cfg(feature = "plant")]
thread_local! {
    static IGNORED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    static UNPROVEN: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Breaks law 10 on this thread, or mends it: a retried request is done again.
#[cfg(feature = "plant")]
pub fn set_reply_table_ignored(ignored: bool) {
    IGNORED.with(|cell| cell.set(ignored));
}

/// On this thread a node answers questions without a proof that it leads, or mends that.
#[cfg(feature = "plant")]
pub fn set_reads_unproven(unproven: bool) {
    UNPROVEN.with(|cell| cell.set(unproven));
}

/// Whether questions are answered without a proof of leadership.
#[cfg(feature = "plant")]
pub(crate) fn reads_unproven() -> bool {
    UNPROVEN.with(|cell| cell.get())
}

/// Whether questions are answered without a proof of leadership: never.
#[cfg(not(feature = "plant"))]
#[inline(always)]
pub(crate) const fn reads_unproven() -> bool {
    false
}

/// The entry as it would be if no reply were kept: requests that were done before get the next sequence.
#[cfg(feature = "plant")]
pub(crate) fn without_replies(kv: &dyn KvRead, entry: &SharedEntry) -> Result<Option<SharedEntry>, StorageError> {
    use farshore_types::{Sequence, SharedBody};
    use std::collections::BTreeMap;
    if !IGNORED.with(|cell| cell.get()) {
        return Ok(None);
    }
    let mut highs: BTreeMap<_, _> = farshore_meta::sessions(kv)?.into_iter().map(|session| (session.id, session.high)).collect();
    let mut entry = entry.clone();
    if let SharedBody::Batch(requests) = &mut entry.body {
        for request in requests {
            let Some(high) = highs.get_mut(&request.session) else { continue };
            if request.sequence <= *high {
                request.sequence = Sequence(high.0 + 1);
            }
            if request.sequence.0 == high.0 + 1 {
                *high = request.sequence;
            }
        }
    }
    Ok(Some(entry))
}

/// Nothing is planted.
#[cfg(not(feature = "plant"))]
#[inline(always)]
pub(crate) fn without_replies(_: &dyn KvRead, _: &SharedEntry) -> Result<Option<SharedEntry>, StorageError> {
    Ok(None)
}
