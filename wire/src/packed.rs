//! Entries of a changelog's batch in fewer bytes: LZ4 over what both sides know of the batch before. One session's entries are alike in
//! most of their bytes, also when each has a batch of its own.

use crate::codec::MAX_MESSAGE_BYTES;
use crate::v1;
use bytes::Bytes;
use prost::Message;

/// Bytes of the last batch that the next one may repeat: LZ4 reaches 64 KiB back, a batch of one entry needs the one before. Part of the
/// protocol: both ends must know the same.
const KNOWN: usize = 2 << 10;

/// A packed batch cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PackedError {
    #[error("a packed batch claims {0} bytes, more than a message may have")]
    TooLong(usize),
    #[error("a packed batch is damaged, or does not follow the batch before it")]
    Damaged,
}

/// One end of a stream of batches; the other end has seen the same ones.
#[derive(Debug, Default)]
pub struct Packing {
    /// The end of the last batch, unpacked.
    known: Vec<u8>,
}

impl Packing {
    /// The entries, packed, and their bytes unpacked; `None` when that makes them no shorter. They count as sent either way.
    pub fn pack(&mut self, entries: &[Bytes]) -> Option<(Vec<u8>, usize)> {
        let plain = plain(entries);
        let packed = lz4_flex::block::compress_with_dict(&plain, &self.known);
        let length = plain.len();
        self.know(&plain);
        (packed.len() < length).then_some((packed, length))
    }

    /// The entries of a packed batch that has `length` bytes unpacked.
    pub fn unpack(&mut self, packed: &[u8], length: usize) -> Result<Vec<Bytes>, PackedError> {
        if length > MAX_MESSAGE_BYTES {
            return Err(PackedError::TooLong(length));
        }
        let plain = lz4_flex::block::decompress_with_dict(packed, length, &self.known).map_err(|_| PackedError::Damaged)?;
        if plain.len() != length {
            return Err(PackedError::Damaged);
        }
        self.know(&plain);
        Ok(v1::PackedEntries::decode(Bytes::from(plain)).map_err(|_| PackedError::Damaged)?.entries)
    }

    /// A batch came, or goes, as it is.
    pub fn pass(&mut self, entries: &[Bytes]) {
        self.know(&plain(entries));
    }

    fn know(&mut self, plain: &[u8]) {
        self.known.clear();
        self.known.extend_from_slice(&plain[plain.len().saturating_sub(KNOWN)..]);
    }
}

fn plain(entries: &[Bytes]) -> Vec<u8> {
    v1::PackedEntries { entries: entries.to_vec() }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "these are tests")]

    use super::*;

    /// Entries 2 and 3 behind entry 1, as lz4_flex 0.13 packs them.
    const GOLDEN: [&str; 2] = ["0f3b002260303030303032", "0f3b002260303030303033"];

    fn entry(number: u32, length: usize) -> Bytes {
        let name = format!("a session's sixteen bytes, and the name file-{number:012}");
        name.bytes().cycle().take(length.max(name.len())).collect()
    }

    #[test]
    fn what_is_packed_comes_back_whatever_came_before() {
        let (mut there, mut here) = (Packing::default(), Packing::default());
        let batches: Vec<Vec<Bytes>> = vec![
            vec![entry(1, 0)],
            vec![entry(2, 0)],
            vec![],
            vec![Bytes::new()],
            (0..500).map(|number| entry(number, 0)).collect(),
            vec![entry(3, 100_000)],
            vec![Bytes::from((0..=255u8).collect::<Vec<_>>()), Bytes::from_static(b"x")],
            vec![entry(4, 0)],
        ];
        for entries in batches {
            match there.pack(&entries) {
                Some((packed, length)) => assert_eq!(here.unpack(&packed, length).unwrap(), entries),
                None => here.pass(&entries),
            }
        }
    }

    #[test]
    fn an_entry_that_is_like_the_one_before_is_short_also_alone() {
        let mut packing = Packing::default();
        packing.pass(&[entry(1, 0)]);
        let (packed, length) = packing.pack(&[entry(2, 0)]).unwrap();
        assert!(packed.len() * 2 < length, "{} of {length}", packed.len());
    }

    #[test]
    fn a_batch_that_is_damaged_or_follows_another_one_is_no_batch() {
        let (mut there, mut here) = (Packing::default(), Packing::default());
        there.pass(&[entry(1, 0)]);
        let (packed, length) = there.pack(&[entry(2, 0)]).unwrap();
        assert!(matches!(here.unpack(&packed, length), Err(PackedError::Damaged)), "the one before never came");
        here.pass(&[entry(1, 0)]);
        assert!(matches!(here.unpack(&packed, MAX_MESSAGE_BYTES + 1), Err(PackedError::TooLong(_))));
        for other in [length - 1, length + 1, 0] {
            assert!(matches!(here.unpack(&packed, other), Err(PackedError::Damaged)), "{other}");
        }
        assert!(matches!(here.unpack(&packed[..packed.len() - 1], length), Err(PackedError::Damaged)));
    }

    #[test]
    fn law_26_batches_that_were_packed_are_read_for_ever() {
        let mut packing = Packing::default();
        packing.pass(&[entry(1, 0)]);
        for (golden, number) in GOLDEN.iter().zip(2..) {
            let bytes: Vec<u8> =
                (0..golden.len() / 2).map(|at| u8::from_str_radix(&golden[2 * at..2 * at + 2], 16).unwrap()).collect();
            let length = plain(&[entry(number, 0)]).len();
            assert_eq!(packing.unpack(&bytes, length).unwrap(), [entry(number, 0)]);
        }
    }
}
