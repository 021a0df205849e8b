//! The fence inside apply: which entry may take the next index (laws 3, 4, 7, 8, 19, 21).
#![allow(clippy::unwrap_used)]

mod support;

use farshore_meta::kv::Store;
use farshore_meta::{MACHINE_VERSION, Refusal, Stamped, admissible, admissible_to, apply_shared, decode_entry, encode_entry};
use farshore_types::*;
use support::*;

fn refusal(h: &History<farshore_meta::kv::Memory>, entry: &SharedEntry) -> Option<Refusal> {
    admissible(&h.header(), entry).err()
}

#[test]
fn law_19_entries_of_another_epoch_take_no_index() {
    let mut h = History::in_memory();
    let old = h.entry(SharedBody::Control(Control::Tick(ControlTime(1))));
    assert_eq!(refusal(&h, &old), None);
    h.start(EU, 0);
    let head = h.header().lineage.head_id();
    assert_eq!(refusal(&h, &old), Some(Refusal::OtherEpoch { entry: old.epoch, head }));
    // Law 8: the same number of another cluster is another epoch.
    let twin = SharedEntry { epoch: EpochId { cluster: US, ..head }, ..old };
    assert!(matches!(refusal(&h, &twin), Some(Refusal::OtherEpoch { .. })));
}

#[test]
fn law_8_a_start_continues_exactly_this_history() {
    let mut h = History::in_memory();
    let good = h.entry(h.start_body(EU, 0));
    assert_eq!(refusal(&h, &good), None);
    let SharedBody::Control(Control::Start { epoch, slot }) = good.body else { panic!() };
    let start = |epoch: Epoch, slot| SharedEntry {
        epoch: epoch.id,
        time: good.time,
        body: SharedBody::Control(Control::Start { epoch, slot }),
    };
    let other = EpochId { number: 9, cluster: EU };
    for wrong in [
        Epoch { parent: other, ..epoch },
        Epoch { start: epoch.start.next(), ..epoch },
        Epoch { chain: Chain([1; 32]), ..epoch },
        Epoch { id: EpochId { number: 1, ..epoch.id }, ..epoch },
    ] {
        assert!(matches!(refusal(&h, &start(wrong, slot)), Some(Refusal::OtherLineage { .. })), "{wrong:?}");
    }
    let misnamed = SharedEntry { epoch: other, ..start(epoch, slot) };
    assert!(matches!(refusal(&h, &misnamed), Some(Refusal::OtherLineage { .. })));
    for slot in [Slot(0), Slot(2), RESERVED_SLOT] {
        assert_eq!(refusal(&h, &start(epoch, slot)), Some(Refusal::SlotTaken(slot)), "law 7");
    }
    h.start(EU, 0);
    let again = h.entry(h.start_body(EU, 0));
    assert_eq!(refusal(&h, &again), Some(Refusal::SlotTaken(Slot(1))));
}

#[test]
fn law_21_a_frozen_volume_takes_only_a_start() {
    let mut h = History::in_memory();
    h.control(Control::Freeze).unwrap();
    for body in [
        SharedBody::Control(Control::Freeze),
        SharedBody::Control(Control::Tick(ControlTime(1))),
        SharedBody::Batch(vec![h.request(ALICE, unlink(Ino::ROOT, "x"))]),
    ] {
        assert_eq!(refusal(&h, &h.entry(body)), Some(Refusal::Frozen));
    }
    h.start(EU, 0);
    assert!(!h.header().frozen);
    h.control(Control::Tick(ControlTime(1))).unwrap();
}

#[test]
fn law_4_an_unknown_version_or_entry_stops_the_node() {
    let mut h = History::in_memory();
    let newer = h.entry(SharedBody::Control(Control::Version(MACHINE_VERSION + 1)));
    assert_eq!(refusal(&h, &newer), Some(Refusal::UnknownVersion));
    let tick = h.entry(SharedBody::Control(Control::Tick(ControlTime(1))));
    let raised = farshore_meta::Header { version: MACHINE_VERSION + 1, ..h.header() };
    assert_eq!(admissible(&raised, &tick), Err(Refusal::UnknownVersion));
    h.control(Control::Version(MACHINE_VERSION)).unwrap();
    assert_eq!(h.header().version, MACHINE_VERSION);
    assert_eq!(h.control(Control::Version(MACHINE_VERSION)), Err(ErrorKind::InvalidArgument), "it is raised, never lowered");
    let tick = h.entry(SharedBody::Control(Control::Tick(ControlTime(1))));
    let older = MACHINE_VERSION - 1;
    assert_eq!(admissible_to(older, &h.header(), &tick), Err(Refusal::UnknownVersion), "an older node stops");
    let bytes = encode_entry(&tick);
    assert_eq!(decode_entry(&bytes), Ok(tick));
    assert_eq!(decode_entry(&[bytes.as_slice(), &[0]].concat()), Err(Refusal::UnknownVersion));
    assert_eq!(decode_entry(&bytes[..bytes.len() - 1]), Err(Refusal::UnknownVersion));
    let mut future = bytes.clone();
    let at = future.len() - 2;
    future[at] = 0x7F;
    assert_eq!(decode_entry(&future), Err(Refusal::UnknownVersion), "a control entry that a later version has");
}

#[test]
fn before_the_first_start_only_a_format_is_taken() {
    let mut h = History::empty(farshore_meta::kv::Memory::new());
    let tick = h.entry(SharedBody::Control(Control::Tick(ControlTime(1))));
    assert_eq!(refusal(&h, &tick), Some(Refusal::NotStarted));
    for broken in [
        VolumeRecord { block_size: 3 << 20, ..volume() },
        VolumeRecord { block_size: 32 << 10, ..volume() },
        VolumeRecord { compression: Compression::Lz4, ..volume() },
        VolumeRecord { encrypted: true, ..volume() },
        VolumeRecord { trash_days: 1, ..volume() },
    ] {
        assert_eq!(h.control(Control::Format(broken)), Err(ErrorKind::Unsupported), "honoured or refused, never ignored");
    }
    for (id, cluster) in [(0, 1), (1, 0), (1, 16)] {
        let mut broken = volume();
        broken.regions[1].id = RegionId(id);
        broken.regions[1].cluster = Some(ClusterId(cluster));
        assert_eq!(h.control(Control::Format(broken)), Err(ErrorKind::InvalidArgument), "region {id}, cluster {cluster}");
    }
    h.control(Control::Format(volume())).unwrap();
    assert_eq!(h.control(Control::Format(volume())), Err(ErrorKind::Exists));
    h.start(US, 0);
    assert_eq!(refusal(&h, &h.entry(SharedBody::Batch(vec![]))), Some(Refusal::BatchSize(0)));
    // A start may come first as well.
    let mut h = History::empty(farshore_meta::kv::Memory::new());
    h.start(US, 0);
    assert_eq!(h.control(Control::OpenSession { session: ALICE, info: info() }), Err(ErrorKind::NotFound));
    h.control(Control::Format(volume())).unwrap();
    h.open(ALICE);
}

#[test]
#[should_panic(expected = "law 1")]
fn law_1_an_index_that_skips_is_a_bug() {
    let h = History::in_memory();
    let entry = h.entry(SharedBody::Control(Control::Freeze));
    let index = h.header().index.next().next();
    let _ = apply_shared(&mut *h.store.write().unwrap(), &Stamped { index, chain: Chain::default(), entry: &entry });
}

#[test]
fn law_6_control_time_is_the_sum_of_ticks() {
    let mut h = History::in_memory();
    h.control(Control::Tick(ControlTime(5))).unwrap();
    h.control(Control::Tick(ControlTime(7))).unwrap();
    assert_eq!(h.control(Control::Tick(ControlTime(u64::MAX))), Err(ErrorKind::InvalidArgument));
    assert_eq!(h.header().control, ControlTime(12));
}

#[test]
fn law_14_the_roster_keeps_who_holds_deletions() {
    let mut h = History::in_memory();
    let roster = |h: &History<farshore_meta::kv::Memory>| {
        let members = farshore_meta::roster(&*h.store.read().unwrap()).unwrap();
        members.into_iter().map(|member| (member.cluster, member.needs_snapshot)).collect::<Vec<_>>()
    };
    for cluster in [EU, US, EU] {
        h.control(Control::RosterAdd { cluster }).unwrap();
    }
    h.control(Control::RosterNeedsSnapshot { cluster: EU, needs: true }).unwrap();
    h.control(Control::RosterAdd { cluster: EU }).unwrap();
    assert_eq!(roster(&h), [(US, false), (EU, true)], "law 25: it needs a snapshot and is still on the roster");
    h.control(Control::RosterRemove { cluster: US }).unwrap();
    assert_eq!(h.control(Control::RosterRemove { cluster: US }), Err(ErrorKind::NotFound));
    assert_eq!(roster(&h), [(EU, true)]);
}

#[test]
fn a_wall_clock_that_goes_back_takes_no_file_time_back() {
    let mut h = History::in_memory();
    let late = h.header().time;
    let request = h.request(ALICE, make(Ino::ROOT, "f", NewNode::File));
    let entry = SharedEntry { time: LogTime(5), ..h.entry(SharedBody::Batch(vec![request])) };
    h.apply_entry(entry);
    assert_eq!((h.header().time, h.attr(Ino::ROOT).mtime), (late, Timestamp::from_log_time(late)));
}
