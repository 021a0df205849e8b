//! What a node persists outside the metadata and the ledger, byte for byte (law 26): its own rows, the entries of its log, the
//! vote, and a checkpoint's position.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

use farshore_meta::kv::{KvWrite, Memory, Space, StorageError, Store};
use farshore_primary::boot::Identity;
use farshore_primary::local::{self, Counters, Position, RaftApplied};
use farshore_primary::raft::Member;
use farshore_primary::raft::snapshot::Meta;
use farshore_primary::raft::types::{Entry, EntryPayload, LeaderId, LogId, Membership, Payload, StoredMembership};
use farshore_primary::{Announced, Proposal};
use farshore_types::{Chain, ClusterId, Digest, Lineage, LogIndex, LogTime, NodeId, RaftIndex};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn at(index: u64) -> LogId {
    LogId { leader_id: LeaderId { term: 3, node_id: 2 }, index }
}

fn membership() -> Membership {
    let nodes = BTreeMap::from([(1, Member::new("a", "h:1")), (2, Member::new("b", "h:2"))]);
    Membership::new(vec![BTreeSet::from([1])], nodes).unwrap()
}

fn applied() -> RaftApplied {
    RaftApplied { log_id: Some(at(7)), membership: StoredMembership::new(Some(at(5)), membership()) }
}

/// The row that `set` writes, and its key.
#[track_caller]
fn row(set: impl FnOnce(&mut dyn KvWrite) -> Result<(), StorageError>, key: &str, value: &str) {
    let store = Memory::new();
    let mut kv = store.write().unwrap();
    set(&mut *kv).unwrap();
    kv.commit().unwrap();
    let kv = store.read().unwrap();
    let rows: Vec<_> = kv.scan(Space::Local, &[], None).unwrap().map(|row| row.unwrap()).collect();
    assert_eq!(rows.iter().map(|(key, value)| (hex(key), hex(value))).collect::<Vec<_>>(), [(key.to_owned(), value.to_owned())]);
}

#[test]
fn law_26_the_node_s_own_rows_have_golden_bytes() {
    row(|kv| local::set_applied(kv, &applied()), "5061", "0101030207010302050101010201056140683a3102056240683a32");
    row(|kv| local::set_followed(kv, &Lineage::default()), "5066", "0100");
    row(|kv| local::set_counters(kv, &Counters { starts: 300, heard: 5 }), "5063", "01ac0205");
    let position = Position { raft: RaftIndex(300), time: LogTime(4), chain: Chain([9; 32]) };
    row(
        |kv| local::set_position(kv, LogIndex(2), position),
        "50690000000000000002",
        "01ac02040909090909090909090909090909090909090909090909090909090909090909",
    );
    row(|kv| local::set_diverged(kv, LogIndex(300)), "5044", "01ac02");
    row(|kv| local::set_removed(kv, NodeId(258), "use-a"), "50670000000000000102", "01057573652d61");
    row(|kv| local::set_nodes_of(kv, ClusterId(1), &["h:1".to_owned()]), "506e01", "010103683a31");
}

#[track_caller]
fn golden<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: T, bytes: &str) {
    let written = postcard::to_stdvec(&value).unwrap();
    assert_eq!(hex(&written), bytes);
    assert_eq!(postcard::from_bytes::<T>(&written).unwrap(), value);
}

#[test]
fn law_26_the_log_s_entries_and_its_small_values_have_golden_bytes() {
    golden(Entry { log_id: at(300), payload: EntryPayload::Blank }, "0302ac0200");
    let trim = Payload(Proposal::Trim { below: LogIndex(2) }.encode());
    golden(Entry { log_id: at(1), payload: EntryPayload::Normal(trim) }, "0302010103010a02");
    golden(
        Entry { log_id: at(0), payload: EntryPayload::Membership(membership()) },
        "030200020101010201056140683a3102056240683a32",
    );
    golden(openraft::impls::Vote { leader_id: LeaderId { term: 3, node_id: 2 }, committed: true }, "030201");
    golden(at(300), "0302ac02");
}

#[test]
fn law_26_a_checkpoint_s_position_and_an_announced_snapshot_have_golden_bytes() {
    let RaftApplied { log_id, membership } = applied();
    golden(Meta { last_log_id: log_id, last_membership: membership }, "01030207010302050101010201056140683a3102056240683a3200");
    let announced = Announced {
        snapshot: [1; 16],
        index: LogIndex(2),
        chain: Chain([3; 32]),
        digest: Digest(4),
        lineage: Lineage::default(),
    };
    golden(announced, "010101010101010101010101010101010203030303030303030303030303030303030303030303030303030303030303030400");
}

#[test]
fn law_26_a_directory_s_identity_has_a_golden_text() {
    let identity = Identity { volume: "v".into(), cluster: ClusterId(1), node: NodeId(9), name: "a".into() };
    let text = r#"{"volume":"v","cluster":1,"node":9,"name":"a"}"#;
    assert_eq!(serde_json::to_string(&identity).unwrap(), text);
    assert_eq!(serde_json::from_str::<Identity>(text).unwrap(), identity);
}
