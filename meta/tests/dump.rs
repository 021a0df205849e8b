//! The stream of a state: what goes in comes out, and nothing that is damaged is believed (laws 25, 26).
#![allow(clippy::unwrap_used)]

mod support;

use farshore_meta::kv::{Memory, Space, Store};
use farshore_meta::{DumpError, DumpHeader, load_into, read_dump, verify_dump, write_dump};
use farshore_types::*;
use support::*;

fn history(store: impl Store) -> History<impl Store> {
    let mut h = History::started(store);
    let file = h.make(Ino::ROOT, "f", NewNode::File);
    let id = h.alloc(ALICE, 3);
    h.op(commit(file, vec![slice(id, 0, 0, 3 * BLOCK)])).unwrap();
    let mut kv = h.store.write().unwrap();
    kv.put(Space::Local, b"ledger", b"owed").unwrap();
    kv.commit().unwrap();
    h
}

fn dump(store: &impl Store, spaces: &[Space]) -> Vec<u8> {
    let kv = store.read().unwrap();
    let header = DumpHeader::of(&*kv, GroupId(7), b"raft".to_vec(), spaces).unwrap();
    let mut out = Vec::new();
    write_dump(&*kv, spaces, &header, &mut out).unwrap();
    out
}

fn all(store: &impl Store) -> [Rows; 3] {
    Space::ALL.map(|space| rows(&*store.read().unwrap(), space))
}

#[test]
fn law_25_a_state_comes_back_byte_by_byte_from_one_store_into_the_other() {
    on_both(|from| {
        on_both(|to| {
            let h = history(from());
            let bytes = dump(&h.store, &Space::ALL);
            let target = history(to()).store;
            let header = load_into(&target, &mut bytes.as_slice()).unwrap();
            assert_eq!((header.raft.as_slice(), header.index, header.spaces.len()), (b"raft".as_slice(), h.header().index, 3));
            assert!(all(&target) == all(&h.store));
            // Also over another state, of which nothing stays.
            let target = history(to()).store;
            assert_eq!(load_into(&target, &mut bytes.as_slice()).unwrap(), header);
            assert!(all(&target) == all(&h.store));
        });
    });
}

#[test]
fn law_25_a_bit_that_flipped_in_the_state_is_found_by_the_dump() {
    let h = history(Memory::new());
    assert!(verify_dump(&mut dump(&h.store, &Space::ALL).as_slice()).is_ok());
    let shared = rows(&*h.store.read().unwrap(), Space::Shared);
    for (key, value) in shared.iter().filter(|(_, value)| !value.is_empty()) {
        let mut kv = h.store.write().unwrap();
        let mut bent = value.clone();
        *bent.last_mut().unwrap() ^= 1;
        kv.put(Space::Shared, key, &bent).unwrap();
        kv.commit().unwrap();
        let kv = h.store.read().unwrap();
        // The header's own rows may not even decode any more, which is found as well.
        let header = DumpHeader::of(&*kv, GroupId(7), vec![], &Space::ALL);
        let found = header.map_err(DumpError::from).and_then(|header| {
            let mut out = vec![];
            write_dump(&*kv, &Space::ALL, &header, &mut out)?;
            verify_dump(&mut out.as_slice())
        });
        assert!(found.is_err(), "{key:?}");
        drop(kv);
        let mut kv = h.store.write().unwrap();
        kv.put(Space::Shared, key, value).unwrap();
        kv.commit().unwrap();
    }
}

#[test]
fn law_2_a_mirrors_snapshot_replaces_the_shared_part_and_its_before_images_only() {
    let h = history(Memory::new());
    let target = history(Memory::new());
    let mut target = History { store: target.store, log: vec![], used: Default::default(), acknowledged: 0 };
    target.control(Control::Tick(ControlTime(1))).unwrap();
    let bytes = dump(&h.store, &[Space::Shared]);
    load_into(&target.store, &mut bytes.as_slice()).unwrap();
    let [shared, undo, local] = all(&target.store);
    let [expected, ..] = all(&h.store);
    assert!(shared == expected && undo.is_empty() && local.len() == 1);
}

#[test]
fn law_25_every_flipped_byte_and_every_cut_is_found() {
    let h = history(Memory::new());
    let bytes = dump(&h.store, &Space::ALL);
    let target = Memory::new();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x20;
        assert!(load_into(&target, &mut damaged.as_slice()).is_err(), "byte {at} of {}", bytes.len());
        assert!(load_into(&target, &mut &bytes[..at]).is_err(), "cut at {at} of {}", bytes.len());
    }
    assert!(all(&target).iter().all(Vec::is_empty), "a load is all or nothing");
    let mut newer = bytes.clone();
    newer[8] = 2;
    assert!(matches!(load_into(&target, &mut newer.as_slice()), Err(DumpError::UnknownVersion(2))));
}

#[test]
fn law_25_a_block_is_verified_before_it_is_used() {
    let h = history(Memory::new());
    let mut bytes = dump(&h.store, &[Space::Shared]);
    let last_of_block = bytes.len() - 1 - 8 - 32 - 4 - 1;
    bytes[last_of_block] ^= 1;
    let mut rows = 0;
    let result = read_dump(&mut bytes.as_slice(), &mut |_, _, _| {
        rows += 1;
        Ok(())
    });
    assert!(matches!(result, Err(DumpError::Damaged(_))) && rows == 0);
}

#[test]
fn law_25_a_state_whose_digest_is_another_is_not_believed() {
    let h = history(Memory::new());
    // A row changed behind the digest's back, in a stream that is sound in itself.
    let mut kv = h.store.write().unwrap();
    kv.put(Space::Shared, b"u", b"\x01\x07\x07").unwrap();
    kv.commit().unwrap();
    let bytes = dump(&h.store, &[Space::Shared]);
    let target = Memory::new();
    assert!(matches!(load_into(&target, &mut bytes.as_slice()), Err(DumpError::OtherDigest { .. })));
    assert!(all(&target).iter().all(Vec::is_empty));
}

#[test]
fn many_rows_take_many_blocks() {
    let h = History::in_memory();
    let mut kv = h.store.write().unwrap();
    let long = vec![b'x'; 300_000];
    for row in 0..20_000u32 {
        kv.put(Space::Local, &row.to_be_bytes(), &row.to_le_bytes().repeat(9)).unwrap();
    }
    // More than one part of a state that replaces another.
    for row in 0..64 {
        kv.put(Space::Local, &[b'z', row], &long).unwrap();
    }
    kv.commit().unwrap();
    let bytes = dump(&h.store, &Space::ALL);
    on_both(|new| {
        let target = new();
        load_into(&target, &mut bytes.as_slice()).unwrap();
        assert!(all(&target) == all(&h.store));
    });
}

#[test]
fn law_26_the_stream_has_golden_bytes() {
    let header = DumpHeader {
        group: GroupId(7),
        raft: b"raft".to_vec(),
        index: LogIndex(300),
        chain: Chain([0xAB; 32]),
        digest: Digest(0x0102),
        spaces: vec![Space::Shared, Space::Local],
    };
    let mut out = Vec::new();
    let store = Memory::new();
    let mut kv = store.write().unwrap();
    kv.put(Space::Local, b"key", b"value").unwrap();
    write_dump(&*kv, &header.spaces, &header, &mut out).unwrap();
    let hex: String = out.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN);
    assert_eq!(read_dump(&mut out.as_slice(), &mut |_, _, _| Ok(())).unwrap(), header);
}

/// Header, one block, end.
const GOLDEN: &str = concat!(
    "46415244554d500a010000002d070472616674ac02abababababababababababababababababababababababababababababab",
    "abab820202000241054ef3",
    "4202000000010000000e0003000000056b657976616c7565c346236c",
    "450000000000000001e0ecd661d7a694f7c24a7189c8f57dc38282fc1612686ef6d69d01710b663344",
);
