//! One of each message, with fixed content.

use farshore_primary::Proposal;
use farshore_primary::raft::Member;
use farshore_primary::raft::types::{Entry, EntryPayload, LeaderId, LogId, Membership, Payload, StoredMembership, Types};
use farshore_types::{
    Chain, ClusterId, Compression, Control, ControlTime, Epoch, EpochId, GroupId, Incarnation, Ino, Lineage, LogIndex, LogTime,
    NewNode, Op, Query, RegionId, RegionRecord, SessionId, SessionInfo, SharedBody, SharedEntry, Slot, Uuid, VolumeRecord,
};
use farshore_wire::admin::{AdminAnswer, AdminCall, NewMember};
use farshore_wire::v1::{self, changelog_frame, client_frame, hello::Kind, server_frame, tail_frame};
use farshore_wire::{encode, header};
use openraft::TokioRuntime;
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};

pub const VOLUME: &str = "v";
pub const GROUP: u64 = 5;
pub const SESSION: SessionId = SessionId([7; 16]);
type Named = Vec<(&'static str, Vec<u8>)>;
type Raft = Types<TokioRuntime>;

pub fn volume() -> VolumeRecord {
    let region = |id: u8, name: &str| RegionRecord {
        id: RegionId(id),
        name: name.to_owned(),
        cluster: Some(ClusterId(id)),
        incarnation: Incarnation(0),
        bucket: Uuid([id + 1; 16]),
    };
    VolumeRecord {
        name: VOLUME.to_owned(),
        uuid: Uuid([9; 16]),
        group: GroupId(GROUP),
        block_size: 4 << 20,
        compression: Compression::None,
        encrypted: false,
        trash_days: 0,
        regions: vec![region(0, "us"), region(1, "eu")],
    }
}

/// The first entries of a volume: the start of epoch 1, the record, a tick.
pub fn history() -> Vec<SharedEntry> {
    let id = EpochId { number: 1, cluster: ClusterId(0) };
    let epoch = Epoch { id, parent: EpochId::default(), start: LogIndex(0), chain: Chain::default() };
    let bodies = [
        Control::Start { epoch, slot: Slot(0) },
        Control::Format(volume()),
        Control::Tick(ControlTime(3)),
        Control::RosterAdd { cluster: ClusterId(1) },
    ];
    let entry = |(at, control)| SharedEntry { epoch: id, time: LogTime(at as u64 + 1), body: SharedBody::Control(control) };
    bodies.into_iter().enumerate().map(entry).collect()
}

pub fn client() -> Named {
    let info = SessionInfo { host: "h".into(), mount: "/m".into(), options: String::new(), bucket: None };
    let hello = v1::Hello {
        header: Some(header(VOLUME, GROUP)),
        session: SESSION.0.to_vec().into(),
        kind: Kind::Writer.into(),
        info: encode(&info),
        ..Default::default()
    };
    let make = Op::Make { parent: Ino::ROOT, name: b"frozen".to_vec(), node: NewNode::File, mode: 0o644, uid: 1, gid: 2 };
    let request = v1::Request { sequence: 1, op: encode(&make), open: false };
    let lookup = Query::Lookup { parent: Ino::ROOT, name: b"frozen".to_vec() };
    let query = v1::QueryRequest { id: 9, query: encode(&lookup) };
    let copied = v1::completion::Result::Copied(v1::Copied { length: 4, crc32c: 5, from_region: 1 });
    let completion = v1::Completion { task: vec![1; 16].into(), result: Some(copied) };
    let listed = v1::ListedObject { name: "chunks/0/0/1_0_4".into(), size: 4 };
    let listing = v1::Listing { task: vec![2; 16].into(), objects: vec![listed], last: true, failed: String::new() };
    let (parent, name, node, dir) = (Ino::ROOT, b"held".to_vec(), NewNode::File, Ino(2));
    let of_leases = [
        Op::MakeAs { parent, name: name.clone(), node, mode: 0o644, uid: 1, gid: 2, ino: Some(Ino(9)), lease: false },
        Op::AllocInos { count: 256 },
        Op::GiveBack { dirs: vec![dir] },
        Op::Recall { dir, name, take: true },
    ];
    let of_leases = of_leases.iter().map(|op| v1::Request { sequence: 1, op: encode(op), open: true }).collect();
    use client_frame::Frame;
    let frames = [
        ("hello", Frame::Hello(hello)),
        ("requests_of_leases", Frame::Requests(v1::Requests { acknowledged: 0, requests: of_leases })),
        ("requests", Frame::Requests(v1::Requests { acknowledged: 0, requests: vec![request] })),
        ("queries", Frame::Queries(v1::Queries { queries: vec![query] })),
        ("renew", Frame::Renew(v1::Renew {})),
        ("capacity", Frame::Capacity(v1::Capacity { slots: 3 })),
        ("completions", Frame::Completions(v1::Completions { completions: vec![completion] })),
        ("front", Frame::Front(v1::Front { blocks: vec![v1::Block { slice: 1, index: 2, size: 3 }] })),
        ("listing", Frame::Listing(listing)),
        ("goodbye", Frame::Goodbye(v1::Goodbye {})),
    ];
    frames.into_iter().map(|(name, frame)| (name, v1::ClientFrame { frame: Some(frame) }.encode_to_vec())).collect()
}

pub fn server() -> Named {
    let welcome = v1::Welcome {
        protocol: 1,
        epoch_number: 1,
        log_index: 4,
        lease_ms: 60_000,
        volume: encode(&volume()),
        highest_sequence: 2,
        mirror: true,
        nodes: vec!["h:1".into(), "h:2".into()],
        ..Default::default()
    };
    let lease = v1::Lease {
        task: vec![1; 16].into(),
        block: Some(v1::Block { slice: 1, index: 2, size: 3 }),
        target_region: 1,
        source_regions: vec![0],
        valid_ms: 5,
        ..Default::default()
    };
    let touched = v1::TouchedEntry { parent: 1, name: b"n".to_vec().into() };
    let reply = v1::Reply { sequence: 1, log_index: 5, outcome: vec![0, 1].into(), opened: false };
    let answer = v1::Answer { id: 9, log_index: 5, result: vec![0, 1].into() };
    let refused = v1::Refused { kind: v1::refused::Kind::NotLeader.into(), text: "t".into(), leader: "h:2".into() };
    use server_frame::Frame;
    let frames = [
        ("welcome", Frame::Welcome(welcome)),
        ("replies", Frame::Replies(v1::Replies { replies: vec![reply] })),
        ("answers", Frame::Answers(v1::Answers { answers: vec![answer] })),
        (
            "invalidations",
            Frame::Invalidations(v1::Invalidations { log_index: 5, inodes: vec![1], entries: vec![touched], reset: true }),
        ),
        ("leases", Frame::Leases(v1::Leases { leases: vec![lease] })),
        ("refused", Frame::Refused(refused)),
        ("revoked", Frame::Revoked(v1::Revoked { tasks: vec![vec![1; 16].into()] })),
        ("nodes", Frame::Nodes(v1::Nodes { addresses: vec!["h:1".into()], machine: 0 })),
        ("nodes_of_a_version", Frame::Nodes(v1::Nodes { addresses: vec!["h:1".into()], machine: 7 })),
        ("welcome_of_a_version", Frame::Welcome(v1::Welcome { machine: 7, ..Default::default() })),
    ];
    frames.into_iter().map(|(name, frame)| (name, v1::ServerFrame { frame: Some(frame) }.encode_to_vec())).collect()
}

fn log_id(index: u64) -> LogId {
    LogId { leader_id: LeaderId { term: u64::from(index > 0), node_id: if index > 0 { 2 } else { 0 } }, index }
}

fn membership() -> Membership {
    let nodes = BTreeMap::from([(1, Member::new("us-a", "h:1")), (2, Member::new("us-b", "h:2"))]);
    Membership::new(vec![BTreeSet::from([1, 2])], nodes).unwrap()
}

/// What the leader, node 2, sends to node 1, whose log is empty.
pub fn raft() -> Named {
    let proposal =
        |entry: &SharedEntry| EntryPayload::Normal(Payload(Proposal::Shared(farshore_meta::encode_entry(entry)).encode()));
    let mut payloads = vec![EntryPayload::Membership(membership()), EntryPayload::Blank];
    payloads.extend(history().iter().map(proposal));
    let entry = |(at, payload)| Entry { log_id: log_id(at as u64), payload };
    let entries: Vec<Entry> = payloads.into_iter().enumerate().map(entry).collect();
    let last = entries.last().map(|entry| entry.log_id);
    let committed = openraft::impls::Vote { leader_id: LeaderId { term: 1, node_id: 2 }, committed: true };
    let asked = openraft::impls::Vote { leader_id: LeaderId { term: 2, node_id: 2 }, committed: false };
    let append = AppendEntriesRequest::<Raft> { vote: committed, prev_log_id: None, entries, leader_commit: last };
    let vote = VoteRequest::<Raft>::new(asked, last);
    let transfer = TransferLeaderRequest::<Raft>::new(committed, 1, last);
    let meta = farshore_primary::raft::snapshot::Meta {
        last_log_id: last,
        last_membership: StoredMembership::new(Some(log_id(0)), membership()),
    };
    let bytes = |value: Result<Vec<u8>, postcard::Error>| value.unwrap();
    let append = bytes(postcard::to_stdvec(&append));
    let request = v1::RaftRequest {
        header: Some(header(VOLUME, 0)),
        cluster: 1,
        kind: v1::raft_request::Kind::Append.into(),
        body: vec![1, 2].into(),
        target: 1,
    };
    let chunk =
        v1::SnapshotChunk { header: Some(header(VOLUME, 0)), cluster: 1, meta: vec![1].into(), data: vec![2].into(), target: 1 };
    vec![
        ("append", append),
        ("vote", bytes(postcard::to_stdvec(&vote))),
        ("transfer_leader", bytes(postcard::to_stdvec(&transfer))),
        ("snapshot_meta", bytes(postcard::to_stdvec(&(committed, meta)))),
        ("confirm", bytes(postcard::to_stdvec(&farshore_primary::ConfirmAsk { leader: committed.leader_id }))),
        ("standing_ask", v1::StandingAsk { node: 2 }.encode_to_vec()),
        ("entries_ask", v1::EntriesAsk { from: 3, to: 4 }.encode_to_vec()),
        ("request", request.encode_to_vec()),
        ("snapshot_chunk", chunk.encode_to_vec()),
    ]
}

pub fn changelog() -> Named {
    let start = v1::TailStart {
        header: Some(header(VOLUME, GROUP)),
        cluster: 1,
        cursor: 0,
        chain: vec![0; 32].into(),
        lineage: encode(&Lineage::default()),
        // Version 1 began without it.
        takes_short: false,
    };
    let figures = serde_json::to_vec(&farshore_wire::view::RegionFigures::default()).unwrap();
    let acknowledge = v1::Acknowledge {
        applied: 2,
        floor: 1,
        lineage: encode(&Lineage::default()),
        figures: figures.clone().into(),
        machine: 2,
        ..Default::default()
    };
    let tail = |frame| v1::TailFrame { frame: Some(frame) }.encode_to_vec();
    let entries: Vec<_> = history().iter().map(|entry| farshore_meta::encode_entry(entry).into()).collect();
    let beat = v1::Beat {
        committed: 4,
        lineage: encode(&Lineage::default()),
        floors: encode(&Vec::<(ClusterId, LogIndex, Lineage)>::new()),
        figures: figures.into(),
        now_us: 1,
        nodes: vec!["h:1".into()],
        ..Default::default()
    };
    let batch = v1::Batch { first: 1, chain: vec![0; 32].into(), entries, ..Default::default() };
    let packed = v1::Batch { first: 1, packed: vec![1, 2].into(), unpacked_bytes: 3, ..Default::default() };
    let feed = |frame| v1::ChangelogFrame { frame: Some(frame) }.encode_to_vec();
    let refused = v1::TailRefused { kind: v1::tail_refused::Kind::Trimmed.into(), text: "t".into(), leader: "h:1".into() };
    vec![
        ("tail_start", tail(tail_frame::Frame::Start(start))),
        ("acknowledge", tail(tail_frame::Frame::Acknowledge(acknowledge))),
        ("batch", feed(changelog_frame::Frame::Batch(batch))),
        ("batch_packed", feed(changelog_frame::Frame::Batch(packed))),
        ("packed_entries", v1::PackedEntries { entries: vec![vec![1].into(), vec![2].into()] }.encode_to_vec()),
        ("beat", feed(changelog_frame::Frame::Beat(beat))),
        ("refused", feed(changelog_frame::Frame::Refused(refused))),
        ("snapshot_request", v1::SnapshotRequest { header: Some(header(VOLUME, GROUP)), cluster: 1 }.encode_to_vec()),
    ]
}

/// Calls of operators' tools, and answers whose shape tools of that version rely on.
pub fn admin() -> Vec<(&'static str, String)> {
    let member = NewMember { id: 1, name: "us-a".into(), address: "us".into() };
    let calls = [
        ("health", AdminCall::Health),
        ("initialize", AdminCall::Initialize { members: vec![member.clone()] }),
        ("members", AdminCall::Members),
        ("member_add", AdminCall::MemberAdd { member, instead_of: Some(2) }),
        ("member_change", AdminCall::MemberChange { add: None, remove: Some(4) }),
        ("format", AdminCall::Format { volume: volume() }),
        ("follow", AdminCall::Follow { volume: volume() }),
        ("roster_add", AdminCall::RosterAdd { cluster: 1 }),
        ("status", AdminCall::Status),
        ("lag", AdminCall::Lag),
        ("replication_status", AdminCall::ReplicationStatus { limit: 3 }),
        ("replication_pause", AdminCall::ReplicationPause { seconds: Some(5), reason: "r".into(), by: "b".into() }),
        ("replication_resume", AdminCall::ReplicationResume),
        ("full_sync_start", AdminCall::FullSyncStart { dry_run: true }),
        ("full_sync_status", AdminCall::FullSyncStatus),
        ("locate", AdminCall::Locate { slice: 3 }),
        ("step_down", AdminCall::StepDown),
        ("identity", AdminCall::Identity { region: "us".into() }),
    ];
    let answers = [
        ("answer_done", AdminAnswer::Done),
        ("answer_not_leader", AdminAnswer::NotLeader { leader: Some("h:1".into()) }),
        ("answer_not_yet", AdminAnswer::NotYet { message: "m".into() }),
        ("answer_failed", AdminAnswer::Failed { message: "m".into() }),
    ];
    let calls = calls.into_iter().map(|(name, call)| (name, serde_json::to_string(&call).unwrap()));
    calls.chain(answers.into_iter().map(|(name, answer)| (name, serde_json::to_string(&answer).unwrap()))).collect()
}
