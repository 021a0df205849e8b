//! Applying one entry of the cluster's Raft log: shared state, ledger and local rows in one transaction. Values in,
//! values out: no async, no clock (law 4).

use crate::local::{self, Position};
use crate::proposal::{Proposal, ProposalError};
use crate::raft::types::{LocalAnswer, Refusal, Response};
use crate::reset;
use farshore_changelog::{Offer, Verdict, extend, judge};
use farshore_meta::kv::{KvRead, KvWrite, StorageError};
use farshore_meta::{Applied, Changes, Event, Stamped};
use farshore_syncer::{self as syncer, Home, LocalOutcome, LocalTxn};
use farshore_types::{ClusterId, Control, Epoch, Lineage, LogIndex, RaftIndex, SharedBody, SharedEntry, Slot, VolumeRecord};

/// The node must stop: its storage failed, or the log holds what it cannot understand (laws 4, 5).
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Proposal(#[from] ProposalError),
    #[error("the log needs a newer version of the state machine than this node knows: upgrade it")]
    Version,
}

/// Whose log is applied, and up to which version of the state machine the node can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Own {
    pub cluster: ClusterId,
    pub machine: u32,
}

/// What an entry did: the answer to its proposer, and what the node's memory must hear of.
pub struct Effect {
    pub response: Response,
    /// Without its outcomes: those are in the response.
    pub applied: Option<Applied>,
}

impl Effect {
    fn refused(why: Refusal, applied: LogIndex) -> Effect {
        Effect { response: Response::Refused { why, applied }, applied: None }
    }

    fn accepted() -> Effect {
        Effect { response: Response::Local(LocalAnswer { done: true, ..LocalAnswer::default() }), applied: None }
    }
}

/// Applies the entry that stands at `at` in the Raft log of `own` cluster. `old` reads the state as it was when the
/// transaction began; only a reset asks for it, and a reset is always the first entry of its transaction.
pub fn apply(
    kv: &mut dyn KvWrite,
    own: Own,
    at: RaftIndex,
    proposal: &[u8],
    old: Option<&dyn KvRead>,
) -> Result<Effect, ApplyError> {
    match Proposal::decode(proposal)? {
        Proposal::Shared(canonical) => apply_own(kv, own, at, &canonical),
        Proposal::Mirrored { index, previous, epoch, canonical } => {
            let header = farshore_meta::header(kv)?;
            let followed = local::followed(kv)?;
            let verdict = judge(header.index, &header.chain, &followed, &Offer { index, previous, epoch });
            let why = match verdict {
                _ if syncer::plant::is(syncer::plant::Plant::JudgeOutsideApply) => {
                    return apply_mirrored(kv, own, at, &canonical);
                }
                Verdict::Accept => return apply_mirrored(kv, own, at, &canonical),
                Verdict::Duplicate => Refusal::Duplicate,
                Verdict::Gap { .. } => Refusal::Gap,
                Verdict::Fork => Refusal::Fork,
                Verdict::Fenced => Refusal::Fenced,
            };
            Ok(Effect::refused(why, header.index))
        }
        Proposal::Follow { lineage } => {
            hear(kv, &lineage)?;
            local::set_followed(kv, &lineage)?;
            Ok(Effect::accepted())
        }
        Proposal::Home { volume } => {
            note_volume(kv, own, &volume)?;
            Ok(Effect::accepted())
        }
        Proposal::Local(op) => {
            let header = farshore_meta::header(kv)?;
            let outcome = syncer::apply_local(&mut LocalTxn::new(kv), &op, header.index, &header.lineage)?;
            Ok(Effect { response: Response::Local(local_answer(outcome)), applied: None })
        }
        Proposal::Rewind { to, lineage } => apply_rewind(kv, to, &lineage),
        Proposal::ResetBegin { snapshot, index, chain, digest, lineage } => {
            reset::begin(kv, &reset::Announced { snapshot, index, chain, digest, lineage })?;
            Ok(Effect::accepted())
        }
        Proposal::ResetRows { snapshot, rows } => {
            reset::stage(kv, snapshot, &rows)?;
            Ok(Effect::accepted())
        }
        Proposal::ResetCommit { snapshot } => apply_reset(kv, own, snapshot, old),
        Proposal::Diverged { index } => {
            local::set_diverged(kv, index)?;
            Ok(Effect::accepted())
        }
        Proposal::Trim { below } => {
            farshore_meta::trim_undo(kv, below)?;
            local::forget_positions(kv, LogIndex(0), below, farshore_meta::MAX_TRIM)?;
            Ok(Effect::accepted())
        }
        Proposal::Nodes { cluster, addresses } => {
            local::set_nodes_of(kv, cluster, &addresses)?;
            Ok(Effect::accepted())
        }
    }
}

fn local_answer(outcome: LocalOutcome) -> LocalAnswer {
    let LocalOutcome { done, copied, rejected, owed, lowest_owed, run, damaged, .. } = outcome;
    LocalAnswer { done, copied, rejected, owed, lowest_owed, run, damaged }
}

fn decode_entry(canonical: &[u8]) -> Result<SharedEntry, ApplyError> {
    farshore_meta::decode_entry(canonical).map_err(|_| ApplyError::Version)
}

/// A shared entry of this cluster as primary.
fn apply_own(kv: &mut dyn KvWrite, own: Own, at: RaftIndex, canonical: &[u8]) -> Result<Effect, ApplyError> {
    let entry = decode_entry(canonical)?;
    let header = farshore_meta::header(kv)?;
    if let SharedBody::Control(Control::Start { epoch, slot }) = &entry.body {
        let counters = local::counters(kv)?;
        let fresh = Slot::of(own.cluster, counters.starts) == Some(*slot);
        if !fresh || epoch.id.cluster != own.cluster || epoch.id.number <= counters.heard {
            return Ok(Effect::refused(Refusal::StaleStart, header.index));
        }
    } else if entry.epoch.cluster != own.cluster {
        return Ok(Effect::refused(Refusal::WrongEpoch, header.index));
    }
    apply_entry(kv, own, at, &entry, canonical)
}

/// A shared entry of the followed primary that the judge accepted.
fn apply_mirrored(kv: &mut dyn KvWrite, own: Own, at: RaftIndex, canonical: &[u8]) -> Result<Effect, ApplyError> {
    let entry = decode_entry(canonical)?;
    apply_entry(kv, own, at, &entry, canonical)
}

fn apply_entry(
    kv: &mut dyn KvWrite,
    own: Own,
    at: RaftIndex,
    entry: &SharedEntry,
    canonical: &[u8],
) -> Result<Effect, ApplyError> {
    let header = farshore_meta::header(kv)?;
    match farshore_meta::admissible_to(own.machine, &header, entry) {
        Ok(()) => {}
        Err(farshore_meta::Refusal::UnknownVersion) => return Err(ApplyError::Version),
        Err(farshore_meta::Refusal::Frozen) => return Ok(Effect::refused(Refusal::Frozen, header.index)),
        Err(_) => return Ok(Effect::refused(Refusal::WrongEpoch, header.index)),
    }
    let index = header.index.next();
    let chain = extend(&header.chain, index, canonical);
    let planted = crate::plant::without_replies(kv, entry)?;
    let mut applied = farshore_meta::apply_shared(kv, &Stamped { index, chain, entry: planted.as_ref().unwrap_or(entry) })?;
    local::set_position(kv, index, Position { raft: at, time: entry.time, chain })?;
    local::note_digest(kv, index)?;
    note_control(kv, own, entry)?;
    let control = syncer::control_time(kv)?;
    syncer::apply_changes(&mut LocalTxn::new(kv), &applied.changes, index, control)?;
    let response = Response::Shared { index, outcomes: std::mem::take(&mut applied.outcomes) };
    Ok(Effect { response, applied: Some(applied) })
}

/// What control entries mean for this cluster's own rows.
fn note_control(kv: &mut dyn KvWrite, own: Own, entry: &SharedEntry) -> Result<(), StorageError> {
    match &entry.body {
        SharedBody::Control(Control::Start { epoch, .. }) => note_start(kv, own, epoch),
        SharedBody::Control(Control::Format(volume)) => note_volume(kv, own, volume),
        _ => Ok(()),
    }
}

/// This cluster keeps the ledger of its own region from the moment that it knows the volume (law 15).
fn note_volume(kv: &mut dyn KvWrite, own: Own, volume: &VolumeRecord) -> Result<(), StorageError> {
    let Some(region) = volume.region_of(own.cluster) else { return Ok(()) };
    let home = Home { cluster: own.cluster, region: region.id, incarnation: region.incarnation, block_size: volume.block_size };
    syncer::set_home(&mut LocalTxn::new(kv), &home)?;
    local::set_home_volume(kv, volume)
}

/// Slots and epoch numbers are counted where no rewind reaches (law 7).
fn note_start(kv: &mut dyn KvWrite, own: Own, epoch: &Epoch) -> Result<(), StorageError> {
    let mut counters = local::counters(kv)?;
    counters.heard = counters.heard.max(epoch.id.number);
    if epoch.id.cluster == own.cluster {
        counters.starts += 1;
        let lineage = farshore_meta::header(kv)?.lineage;
        local::set_followed(kv, &lineage)?;
    }
    local::set_counters(kv, &counters)
}

fn hear(kv: &mut dyn KvWrite, lineage: &Lineage) -> Result<(), StorageError> {
    let mut counters = local::counters(kv)?;
    counters.heard = counters.heard.max(lineage.0.iter().map(|epoch| epoch.id.number).max().unwrap_or(0));
    local::set_counters(kv, &counters)
}

/// RaftIndex goes on, LogIndex goes back (law 20).
fn apply_rewind(kv: &mut dyn KvWrite, to: LogIndex, lineage: &Lineage) -> Result<Effect, ApplyError> {
    let before = farshore_meta::header(kv)?;
    if to > before.index {
        return Ok(Effect::refused(Refusal::Gap, before.index));
    }
    let mut changes = match farshore_meta::rewind(kv, to) {
        Ok(changes) => changes,
        Err(farshore_meta::RewindError::Storage(error)) => return Err(error.into()),
        Err(_) => return Ok(Effect::refused(Refusal::CannotRewind, before.index)),
    };
    hear(kv, lineage)?;
    local::set_followed(kv, lineage)?;
    local::forget_positions(kv, to.next(), before.index.next(), usize::MAX)?;
    let after = farshore_meta::header(kv)?;
    let control = syncer::control_time(kv)?;
    syncer::apply_changes(&mut LocalTxn::new(kv), &changes, to, control)?;
    changes.events.push(Event::Lineage(after.lineage));
    Ok(Effect {
        response: Response::Shared { index: to, outcomes: vec![] },
        applied: Some(Applied { index: to, outcomes: vec![], changes }),
    })
}

/// The snapshot's rows become the shared state; the ledger becomes the difference (hazard 1.4).
fn apply_reset(kv: &mut dyn KvWrite, own: Own, snapshot: [u8; 16], old: Option<&dyn KvRead>) -> Result<Effect, ApplyError> {
    let before = farshore_meta::header(kv)?;
    let Some(announced) = reset::commit(kv, snapshot)? else {
        return Ok(Effect::refused(Refusal::Fork, before.index));
    };
    hear(kv, &announced.lineage)?;
    local::set_followed(kv, &announced.lineage)?;
    local::forget_positions(kv, LogIndex(0), before.index.next(), usize::MAX)?;
    if let Some(volume) = farshore_meta::volume(kv)? {
        note_volume(kv, own, &volume)?;
    }
    let old = old.filter(|_| before.index > LogIndex(0));
    let control = syncer::control_time(kv)?;
    syncer::after_reset(&mut LocalTxn::new(kv), old, announced.index, control)?;
    let lineage = farshore_meta::header(kv)?.lineage;
    let changes = Changes { events: vec![Event::Lineage(lineage)], rewound: Some(announced.index), ..Changes::default() };
    Ok(Effect {
        response: Response::Shared { index: announced.index, outcomes: vec![] },
        applied: Some(Applied { index: announced.index, outcomes: vec![], changes }),
    })
}
