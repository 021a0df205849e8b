//! Apply of one cluster's log, entry by entry, over the store in memory (laws 1, 3, 7, 8, 19, 20; hazards 5.1, 5.6).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

use farshore_changelog::extend;
use farshore_meta::MACHINE_VERSION;
use farshore_meta::kv::{Memory, Space, Store};
use farshore_primary::raft::types::{Refusal, Response};
use farshore_primary::{Effect, Own, Proposal, apply, local};
use farshore_types::{
    Chain, ClusterId, Compression, Control, Digest, Epoch, EpochId, GroupId, Incarnation, Ino, Lineage, LogIndex, LogTime,
    NewNode, Op, RaftIndex, RegionId, RegionRecord, Sequence, SessionId, SessionInfo, SessionRequest, SharedBody, SharedEntry,
    Slot, Uuid, VolumeRecord,
};

const US: ClusterId = ClusterId(0);
const EU: ClusterId = ClusterId(1);
const SESSION: SessionId = SessionId([3; 16]);

/// A cluster's state, and its Raft log's length.
struct Cluster {
    id: ClusterId,
    store: Memory,
    raft: u64,
}

impl Cluster {
    fn new(id: ClusterId) -> Cluster {
        Cluster { id, store: Memory::new(), raft: 0 }
    }

    fn apply(&mut self, proposal: &Proposal) -> Response {
        self.raft += 1;
        let old = self.store.read().unwrap();
        let mut kv = self.store.write().unwrap();
        let own = Own { cluster: self.id, machine: MACHINE_VERSION };
        let effect: Effect = apply(&mut *kv, own, RaftIndex(self.raft), &proposal.encode(), Some(&*old)).unwrap();
        kv.commit().unwrap();
        effect.response
    }

    fn shared(&mut self, body: SharedBody) -> Response {
        let header = farshore_meta::header(&*self.store.read().unwrap()).unwrap();
        let entry = SharedEntry { epoch: header.lineage.head_id(), time: LogTime(header.time.0 + 1), body };
        self.apply(&Proposal::Shared(farshore_meta::encode_entry(&entry)))
    }

    fn start(&mut self, number: u64, slot: Slot) -> Response {
        let header = farshore_meta::header(&*self.store.read().unwrap()).unwrap();
        let id = EpochId { number, cluster: self.id };
        let epoch = Epoch { id, parent: header.lineage.head_id(), start: header.index, chain: header.chain };
        let body = SharedBody::Control(Control::Start { epoch, slot });
        let entry = SharedEntry { epoch: id, time: LogTime(header.time.0 + 1), body };
        self.apply(&Proposal::Shared(farshore_meta::encode_entry(&entry)))
    }

    fn make(&mut self, sequence: u64, name: &str) -> Response {
        let op = Op::Make { parent: Ino::ROOT, name: name.into(), node: NewNode::File, mode: 0o644, uid: 0, gid: 0 };
        let request = SessionRequest { session: SESSION, sequence: Sequence(sequence), acknowledged: Sequence(0), op };
        self.shared(SharedBody::Batch(vec![request]))
    }

    fn position(&self) -> (LogIndex, Chain, Digest, Lineage) {
        let kv = self.store.read().unwrap();
        let header = farshore_meta::header(&*kv).unwrap();
        (header.index, header.chain, farshore_meta::digest(&*kv).unwrap(), header.lineage)
    }

    fn rows(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let kv = self.store.read().unwrap();
        let rows = kv.scan(Space::Shared, &[], None).unwrap();
        rows.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
    }
}

fn volume() -> VolumeRecord {
    let region = |id: u8| RegionRecord {
        id: RegionId(id),
        name: format!("r{id}"),
        cluster: Some(ClusterId(id)),
        incarnation: Incarnation(0),
        bucket: Uuid([id + 1; 16]),
    };
    VolumeRecord {
        name: "v".to_owned(),
        uuid: Uuid([9; 16]),
        group: GroupId(5),
        block_size: 4 << 20,
        compression: Compression::None,
        encrypted: false,
        trash_days: 0,
        regions: vec![region(0), region(1)],
    }
}

/// A primary with a session, and the canonical bytes of everything that it applied.
fn primary() -> Cluster {
    let mut us = Cluster::new(US);
    us.start(1, Slot::of(US, 0).unwrap());
    us.shared(SharedBody::Control(Control::Format(volume())));
    let info = SessionInfo { host: "h".into(), mount: String::new(), options: String::new(), bucket: None };
    us.shared(SharedBody::Control(Control::OpenSession { session: SESSION, info }));
    us
}

fn refusal(response: &Response) -> Option<Refusal> {
    if let Response::Refused { why, .. } = response { Some(*why) } else { None }
}

/// The primary's history as proposals for a mirror: replays the same bodies.
fn history(bodies: &[SharedEntry]) -> Vec<Proposal> {
    let mut chain = Chain::default();
    let mut proposals = vec![];
    for (at, entry) in bodies.iter().enumerate() {
        let (index, canonical) = (LogIndex(at as u64 + 1), farshore_meta::encode_entry(entry));
        proposals.push(Proposal::Mirrored { index, previous: chain, epoch: entry.epoch, canonical: canonical.clone() });
        chain = extend(&chain, index, &canonical);
    }
    proposals
}

fn entries() -> Vec<SharedEntry> {
    let id = EpochId { number: 1, cluster: US };
    let epoch = Epoch { id, parent: EpochId::default(), start: LogIndex(0), chain: Chain::default() };
    let bodies = [
        SharedBody::Control(Control::Start { epoch, slot: Slot::of(US, 0).unwrap() }),
        SharedBody::Control(Control::Format(volume())),
        SharedBody::Control(Control::Freeze),
    ];
    bodies.into_iter().enumerate().map(|(at, body)| SharedEntry { epoch: id, time: LogTime(at as u64 + 1), body }).collect()
}

fn lineage_of_entries() -> Lineage {
    let id = EpochId { number: 1, cluster: US };
    Lineage(vec![Epoch { id, parent: EpochId::default(), start: LogIndex(0), chain: Chain::default() }])
}

#[test]
fn law_1_indices_are_dense_and_only_shared_entries_have_one() {
    let mut us = primary();
    assert_eq!(us.position().0, LogIndex(3));
    us.apply(&Proposal::Follow { lineage: us.position().3 });
    us.apply(&Proposal::Trim { below: LogIndex(0) });
    assert_eq!(us.position().0, LogIndex(3), "local entries take none");
    assert!(matches!(us.make(1, "a"), Response::Shared { index: LogIndex(4), .. }));
    let kv = us.store.read().unwrap();
    let at = local::position(&*kv, LogIndex(4)).unwrap().unwrap();
    assert_eq!((at.raft, at.chain), (RaftIndex(6), us.position().1), "its place in the Raft log is remembered");
}

#[test]
fn law_3_the_judge_in_apply_lets_each_entry_in_once_and_only_in_order() {
    let (entries, mut eu) = (entries(), Cluster::new(EU));
    let proposals = history(&entries);
    assert_eq!(refusal(&eu.apply(&proposals[0])), Some(Refusal::Fenced), "nothing is followed yet");
    eu.apply(&Proposal::Follow { lineage: lineage_of_entries() });
    assert_eq!(refusal(&eu.apply(&proposals[1])), Some(Refusal::Gap));
    assert_eq!(refusal(&eu.apply(&proposals[0])), None);
    assert_eq!(refusal(&eu.apply(&proposals[0])), Some(Refusal::Duplicate), "hazard 5.1: a second leader proposes it again");
    assert_eq!(refusal(&eu.apply(&proposals[1])), None);
    let Proposal::Mirrored { index, epoch, canonical, .. } = proposals[2].clone() else { unreachable!() };
    let forked = Proposal::Mirrored { index, previous: Chain([1; 32]), epoch, canonical: canonical.clone() };
    assert_eq!(refusal(&eu.apply(&forked)), Some(Refusal::Fork));
    let previous = eu.position().1;
    let other = EpochId { number: 1, cluster: EU };
    let fenced = Proposal::Mirrored { index, previous, epoch: other, canonical };
    assert_eq!(refusal(&eu.apply(&fenced)), Some(Refusal::Fenced), "law 8: the same number of another cluster");
    let before = eu.rows();
    assert_eq!(refusal(&eu.apply(&proposals[0])), Some(Refusal::Duplicate));
    assert_eq!(eu.rows(), before, "a refused entry changes nothing");
}

#[test]
fn a_mirror_applies_to_the_same_state_and_digest() {
    let mut eu = Cluster::new(EU);
    let entries = entries();
    eu.apply(&Proposal::Follow { lineage: lineage_of_entries() });
    for proposal in history(&entries) {
        assert_eq!(refusal(&eu.apply(&proposal)), None);
    }
    let mut us = Cluster::new(US);
    for entry in &entries {
        us.apply(&Proposal::Shared(farshore_meta::encode_entry(entry)));
    }
    assert_eq!(us.position(), eu.position());
    assert_eq!(us.rows(), eu.rows());
}

#[test]
fn law_7_a_start_needs_the_next_slot_and_a_higher_number() {
    let mut us = primary();
    let slot = |start| Slot::of(US, start).unwrap();
    assert_eq!(refusal(&us.start(2, slot(0))), Some(Refusal::StaleStart), "a used slot");
    assert_eq!(refusal(&us.start(1, slot(1))), Some(Refusal::StaleStart), "a number that was heard");
    assert_eq!(refusal(&us.start(2, slot(1))), None);
    assert_eq!(us.position().3.head_id(), EpochId { number: 2, cluster: US });
}

#[test]
fn law_8_a_cluster_that_is_not_the_head_writes_nothing() {
    let mut eu = Cluster::new(EU);
    eu.apply(&Proposal::Follow { lineage: lineage_of_entries() });
    for proposal in history(&entries()[..2]) {
        eu.apply(&proposal);
    }
    let before = eu.rows();
    assert_eq!(refusal(&eu.shared(SharedBody::Control(Control::Freeze))), Some(Refusal::WrongEpoch));
    assert_eq!(eu.rows(), before);
}

#[test]
fn law_21_frozen_it_takes_no_request_until_the_next_start() {
    let mut us = primary();
    assert_eq!(refusal(&us.shared(SharedBody::Control(Control::Freeze))), None);
    assert_eq!(refusal(&us.make(1, "a")), Some(Refusal::Frozen));
    assert_eq!(refusal(&us.start(2, Slot::of(US, 1).unwrap())), None);
    assert_eq!(refusal(&us.make(1, "a")), None);
}

#[test]
fn law_20_a_rewind_goes_back_to_what_was_and_numbers_are_not_used_again() {
    let mut us = primary();
    let (rows, position) = (us.rows(), us.position());
    us.make(1, "a");
    us.make(2, "b");
    us.start(2, Slot::of(US, 1).unwrap());
    let lineage = position.3.clone();
    assert!(matches!(us.apply(&Proposal::Rewind { to: position.0, lineage }), Response::Shared { .. }));
    assert_eq!((us.rows(), us.position()), (rows, position.clone()));
    assert!(local::position(&*us.store.read().unwrap(), position.0.next()).unwrap().is_none());
    let again = us.start(2, Slot::of(US, 1).unwrap());
    assert_eq!(refusal(&again), Some(Refusal::StaleStart), "law 7: the counters were not rewound");
    assert_eq!(refusal(&us.start(3, Slot::of(US, 2).unwrap())), None);
    let above = Proposal::Rewind { to: LogIndex(99), lineage: Lineage::default() };
    assert_eq!(refusal(&us.apply(&above)), Some(Refusal::Gap));
}

#[test]
fn law_20_below_the_trimmed_before_images_there_is_no_rewind() {
    let mut us = primary();
    us.make(1, "a");
    us.apply(&Proposal::Trim { below: LogIndex(3) });
    let rows = us.rows();
    let refused = us.apply(&Proposal::Rewind { to: LogIndex(1), lineage: us.position().3 });
    assert_eq!(refusal(&refused), Some(Refusal::CannotRewind));
    assert_eq!(us.rows(), rows);
}

fn reset(of: &Cluster, digest: Digest, into: &mut Cluster) -> Response {
    let (index, chain, _, lineage) = of.position();
    let snapshot = [5; 16];
    into.apply(&Proposal::ResetBegin { snapshot, index, chain, digest, lineage });
    for rows in of.rows().chunks(3) {
        into.apply(&Proposal::ResetRows { snapshot, rows: rows.to_vec() });
    }
    into.apply(&Proposal::ResetRows { snapshot: [6; 16], rows: vec![(b"zz".to_vec(), b"of another".to_vec())] });
    into.apply(&Proposal::ResetCommit { snapshot })
}

#[test]
fn hazard_5_6_a_snapshot_takes_effect_whole_or_not_at_all() {
    let mut us = primary();
    us.make(1, "a");
    let digest = us.position().2;
    let mut eu = Cluster::new(EU);
    assert_eq!(refusal(&reset(&us, Digest(digest.0 ^ 1), &mut eu)), Some(Refusal::Fork), "another digest");
    assert_eq!(eu.position().0, LogIndex(0));
    assert_eq!(refusal(&reset(&us, digest, &mut eu)), None);
    assert_eq!((eu.rows(), eu.position()), (us.rows(), us.position()));
    let kv = eu.store.read().unwrap();
    assert_eq!(farshore_syncer::home(&*kv).unwrap().unwrap().region, RegionId(1), "it keeps its own region's ledger now");
    assert!(farshore_syncer::history(&*kv).unwrap().pending, "hazard 1.3: the history is owed");
    assert_eq!(kv.scan(Space::Local, b"Z", Some(b"[")).unwrap().count(), 0, "nothing is left staged");
}
