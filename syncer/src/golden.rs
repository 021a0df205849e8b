//! Law 26: the bytes of every persisted row and entry, fixed. A change here is a new format byte, never a new expectation.

use crate::floors::Floor;
use crate::fullsync::{Finding, FindingKind, FullSync, Report};
use crate::home::Home;
use crate::ledger::counters::{Class, Counters, Tally};
use crate::ledger::damage::{DamageKind, DamageRow};
use crate::ledger::deletions::DeletionRow;
use crate::ledger::history::History;
use crate::ledger::owed::{OwedRow, owed_key};
use crate::ledger::writeoff::{WriteOffState, WrittenOff};
use crate::local::{Completion, LocalOp, Pause};
use crate::reason::Reason;
use crate::rows::{decode, encode};
use farshore_types::*;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::{Debug, Write};

const BLOCK: BlockKey = BlockKey { slice: SliceId(0x0102), index: 3, size: 4096 };

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

fn golden<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T, bytes: &str) {
    let encoded = encode(&value);
    assert_eq!(hex(&encoded), bytes, "{value:?}");
    assert_eq!(decode::<T>(b"key", &encoded).unwrap(), value);
    let mut other = encoded.clone();
    other[0] += 1;
    assert!(decode::<T>(b"key", &other).is_err(), "an unknown format is not guessed at");
    let longer = [encoded.as_slice(), &[0]].concat();
    assert!(decode::<T>(b"key", &longer).is_err(), "bytes after the value are damage");
}

fn lineage() -> Lineage {
    let id = EpochId { number: 1, cluster: ClusterId(2) };
    Lineage(vec![Epoch { id, parent: EpochId::default(), start: LogIndex(7), chain: Chain([0xAB; 32]) }])
}

#[test]
fn law_26_golden_rows() {
    assert_eq!(hex(&owed_key(LogIndex(5), BLOCK)), "4c6f000000000000000500000000000001020000000300001000");
    golden(Home { cluster: ClusterId(1), region: RegionId(2), incarnation: Incarnation(3), block_size: 65536 }, "01010203808004");
    golden(
        OwedRow { time: LogTime(9), unverified: true, class: Class::History, tries: 2, reason: Some(Reason::Denied) },
        "01090102020104",
    );
    golden(DeletionRow { control: ControlTime(300) }, "01ac02");
    golden(
        DamageRow { kind: DamageKind::Rotten, added: LogIndex(4), found: ControlTime(5), tries: 1, reason: None },
        "010204050100",
    );
    let written = WrittenOff {
        state: WriteOffState::Undone,
        added: LogIndex(1),
        time: LogTime(2),
        reason: "r".into(),
        by: "b".into(),
        at: ControlTime(3),
        applied: LogIndex(4),
    };
    golden(written, "01010102017201620304");
    golden(History { until: LogIndex(6), cursor: Some(SliceId(8)), pending: true, unverified: false }, "010601080100");
    golden(Pause { until: ControlTime(1), reason: "r".into(), by: "b".into(), since: ControlTime(2) }, "01010172016202");
    golden(
        Floor { floor: LogIndex(9), lineage: lineage() },
        "0109010102000007abababababababababababababababababababababababababababababababab",
    );
    let tally = Tally { blocks: 1, bytes: ByteCount(2) };
    let counters = Counters {
        owed: [(Class::Live, tally)].into(),
        failing: [(Reason::Other, 3)].into(),
        damaged: tally,
        rejected: 4,
        ..Counters::default()
    };
    golden(counters, "010100010200010c03000000010200000000000004");
    let report = Report {
        run: 1,
        begin: LogIndex(2),
        listed: 3,
        counts: [(FindingKind::Foreign, 4)].into(),
        kept: 5,
        ..Report::default()
    };
    golden(
        FullSync { running: None, last: Some(report), next: Some(ControlTime(6)), interval: ControlTime(7), runs: 8 },
        "0100010102000000030104040501060708",
    );
    golden(Finding::WrongSize { block: BLOCK, found: 1 }, "0101820203802001");
}

#[test]
fn law_26_golden_entries() {
    let task = TaskId([0x11; 16]);
    golden(
        LocalOp::Completions(vec![Completion {
            task,
            block: BLOCK,
            length: 4096,
            crc32c: 0xFFFF_FFFF,
            incarnation: Incarnation(1),
        }]),
        "0100011111111111111111111111111111111182020380208020ffffffff0f01",
    );
    golden(LocalOp::Absent { blocks: vec![BLOCK], incarnation: Incarnation(1) }, "010101820203802001");
    golden(LocalOp::Deleted { blocks: vec![BLOCK], incarnation: Incarnation(1) }, "010201820203802001");
    golden(LocalOp::CommitFloor { floor: LogIndex(300) }, "0103ac02");
    golden(LocalOp::KnownFloors(vec![(ClusterId(1), LogIndex(2), Lineage::default())]), "010401010200");
    golden(LocalOp::Failing { block: BLOCK, reason: Reason::NoSource, tries: 2 }, "010582020380200002");
    golden(LocalOp::WriteOff { block: BLOCK, reason: "r".into(), by: "b".into() }, "0106820203802001720162");
    golden(LocalOp::UndoWriteOff { block: BLOCK, by: "b".into() }, "010782020380200162");
    golden(LocalOp::Pause { until: ControlTime(1), reason: "r".into(), by: "b".into() }, "01080101720162");
    golden(LocalOp::Resume, "0109");
    golden(LocalOp::Tick { delta: ControlTime(5) }, "010a05");
    golden(LocalOp::OweHistory { cursor: Some(SliceId(4)), limit: 5 }, "010b010405");
    golden(LocalOp::FullSyncSchedule { interval: ControlTime(6) }, "010c06");
    golden(LocalOp::FullSyncStart { begin: LogIndex(7) }, "010d07");
    golden(LocalOp::FullSyncGroup { run: 1, findings: vec![Finding::Missing(BLOCK)] }, "010e0101008202038020");
    golden(LocalOp::FullSyncFinish { run: 1, listed: 2, partial: true }, "010f010201");
    golden(LocalOp::Damage { blocks: vec![(BLOCK, DamageKind::Missing)] }, "011001820203802000");
}
