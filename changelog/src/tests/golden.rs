//! The persisted bytes, byte for byte (law 26). A change here is a new format version.

use super::*;
use crate::batch::{BatchBuilder, Kind, Record};
use crate::format::{SegmentHeader, Void};
use crate::{FailureMark, SmallFile};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn law_26_golden_segment_header() {
    let header = SegmentHeader {
        group: GROUP,
        ordinal: 2,
        first: 0x0102,
        below: 0x0101,
        sequence: 7,
        previous: 0xAABB_CCDD,
        void: Some(Void { ordinal: 1, offset: 1024 }),
    };
    let bytes = header.encode();
    assert_eq!(
        hex(&bytes[..72]),
        "4653484c4f47010088776655443322110200000000000000020100000000000001010000000000000700000000000000ddccbbaa0000000001000000000000000004000000000000"
    );
    assert!(bytes[72..504].iter().all(|byte| *byte == 0));
    assert_eq!(hex(&bytes[504..]), "07cb398b534547e7");
    assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
    let plain = SegmentHeader { void: None, ..header };
    assert_eq!(SegmentHeader::decode(&plain.encode()), Ok(plain));
}

#[test]
fn law_26_golden_batch() {
    let mut builder = BatchBuilder::default();
    builder.start();
    builder.push(Record { kind: Kind::Truncate, index: 5, group: GROUP, payload: &[] });
    builder.push(Record { kind: Kind::Entry, index: 5, group: GROUP, payload: b"five" });
    let (bytes, crc) = builder.finish(9, 8, 0x0102_0304);
    assert_eq!(bytes.len(), 512);
    assert_eq!(
        hex(&bytes[..48]),
        "46424154000200000900000000000000080000000000000002000000040302013c000000000000005a7723c7484452e7"
    );
    assert_eq!(hex(&bytes[48..76]), "16314c3f000000000500000000000000887766554433221102000000");
    assert_eq!(hex(&bytes[76..108]), "652704ca04000000050000000000000088776655443322110100000066697665");
    assert!(bytes[108..504].iter().all(|byte| *byte == 0));
    assert_eq!(hex(&bytes[504..]), "aa945485454e44e7");
    assert_eq!(crc, u32::from_le_bytes(bytes[504..508].try_into().unwrap()));
}

#[test]
fn law_26_golden_small_file_and_names() {
    let disk = MemDisk::default();
    let path = Path::new("/node/vote");
    SmallFile::open(Arc::new(disk.clone()), path).unwrap().store(b"value").unwrap();
    let bytes = disk.bytes(path);
    assert_eq!(bytes.len(), 8192);
    assert_eq!(hex(&bytes[..29]), "465348534d4c01000100000000000000050000000000000076616c7565");
    assert!(bytes[29..4088].iter().all(|byte| *byte == 0));
    assert_eq!(hex(&bytes[4088..4096]), "a7616cec534d4ce7");
    assert_eq!(bytes[..4096], bytes[4096..], "both copies are equal");
    drop(open(&disk, 2560));
    assert_eq!(disk.segments(), vec![dir().join("0000000000-00000000000000000000.seg")]);
}

#[test]
fn law_26_golden_failure_mark() {
    let mark = FailureMark { untrusted_from: RaftIndex(0x0102), cause: "why".to_owned(), segment: 3, offset: 1536 };
    assert_eq!(hex(&mark.encode()), "020100000000000003000000000000000006000000000000776879");
    assert_eq!(FailureMark::decode(&mark.encode()), Some(mark));
}
