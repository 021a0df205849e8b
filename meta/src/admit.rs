//! Which entry may take the next LogIndex: the fence inside apply (laws 3, 8, 19, 21). What is refused takes no index;
//! the caller asks before it stamps an entry, and apply asserts it.

use crate::header::{Header, MACHINE_VERSION};
use farshore_types::{Control, Epoch, EpochId, LogIndex, RESERVED_SLOT, SLOT_STRIPES, SharedBody, SharedEntry, Slot};

/// Requests in one batch, inclusive.
pub const MAX_ENTRY_REQUESTS: usize = 256;

/// Why an entry takes no index.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the entry or the state needs a version of the state machine that this build does not know; the node stops")]
    UnknownVersion,
    #[error("the entry is of epoch {entry}, the lineage's head is {head}")]
    OtherEpoch { entry: EpochId, head: EpochId },
    #[error("the start of epoch {epoch} does not continue this lineage at index {applied}")]
    OtherLineage { epoch: EpochId, applied: LogIndex },
    #[error("slot {0} is not of the starting cluster's stripe, is reserved, or was used before")]
    SlotTaken(Slot),
    #[error("no epoch has started yet: only `format` and a start are admissible")]
    NotStarted,
    #[error("the volume is frozen until the next start")]
    Frozen,
    #[error("a batch has 1 to {MAX_ENTRY_REQUESTS} requests, this one has {0}")]
    BatchSize(usize),
}

/// The canonical bytes of an entry, which the chain and the changelog carry.
pub fn encode_entry(entry: &SharedEntry) -> Vec<u8> {
    postcard::to_stdvec(entry).expect("postcard fails only for lengths that are not known beforehand")
}

/// Reads an entry; what this build cannot read comes from a newer one, and is not guessed at (law 4).
pub fn decode_entry(bytes: &[u8]) -> Result<SharedEntry, Refusal> {
    match postcard::take_from_bytes(bytes) {
        Ok((entry, [])) => Ok(entry),
        _ => Err(Refusal::UnknownVersion),
    }
}

/// The epoch of an entry, without reading the rest of it.
pub fn epoch_of_entry(bytes: &[u8]) -> Option<EpochId> {
    postcard::take_from_bytes(bytes).ok().map(|(epoch, _)| epoch)
}

/// Whether `entry` may be the one after `header`.
pub fn admissible(header: &Header, entry: &SharedEntry) -> Result<(), Refusal> {
    admissible_to(MACHINE_VERSION, header, entry)
}

/// The same for a node that knows the state machine only up to the version `known`.
pub fn admissible_to(known: u32, header: &Header, entry: &SharedEntry) -> Result<(), Refusal> {
    if header.version > known || matches!(&entry.body, SharedBody::Control(Control::Version(version)) if *version > known) {
        return Err(Refusal::UnknownVersion);
    }
    if let SharedBody::Control(Control::Start { epoch, slot }) = &entry.body {
        return admissible_start(header, entry.epoch, epoch, *slot);
    }
    let head = header.lineage.head_id();
    if entry.epoch != head {
        return Err(Refusal::OtherEpoch { entry: entry.epoch, head });
    }
    if header.frozen {
        return Err(Refusal::Frozen);
    }
    match &entry.body {
        SharedBody::Control(Control::Format(_)) => Ok(()),
        _ if header.lineage.head().is_none() => Err(Refusal::NotStarted),
        SharedBody::Batch(requests) if !(1..=MAX_ENTRY_REQUESTS).contains(&requests.len()) => {
            Err(Refusal::BatchSize(requests.len()))
        }
        _ => Ok(()),
    }
}

/// A start continues exactly this history, and brings a slot of its own (laws 7, 8, 19).
fn admissible_start(header: &Header, entry_epoch: EpochId, epoch: &Epoch, slot: Slot) -> Result<(), Refusal> {
    let continues = epoch.id == entry_epoch
        && epoch.parent == header.lineage.head_id()
        && epoch.id.number > epoch.parent.number
        && epoch.start == header.index
        && epoch.chain == header.chain;
    if !continues {
        return Err(Refusal::OtherLineage { epoch: epoch.id, applied: header.index });
    }
    let own = slot < RESERVED_SLOT && slot.0 % SLOT_STRIPES == u16::from(epoch.id.cluster.0);
    if !own || header.slots.iter().any(|(used, _)| *used == slot) {
        return Err(Refusal::SlotTaken(slot));
    }
    Ok(())
}
