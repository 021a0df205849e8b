//! Before-images (law 20): one row of the undo space for each LogIndex, with the value that every shared key it changed
//! had before. They reach down to the lowest floor of the roster; whoever owns the floors trims.

use crate::kv::{KvRead, KvWrite, Space, StorageError};
use farshore_types::LogIndex;
use serde::{Deserialize, Serialize, Serializer};

/// Version of an undo row's encoding.
const UNDO_VERSION: u8 = 1;
/// Rows that one call of [`trim_undo`] removes at most.
pub const MAX_TRIM: usize = 4096;

/// A shared key with its value before an entry; `None`: absent.
#[derive(Serialize, Deserialize)]
pub(crate) struct BeforeImage<'a> {
    #[serde(borrow, serialize_with = "as_bytes")]
    pub key: &'a [u8],
    #[serde(borrow, serialize_with = "as_maybe_bytes")]
    pub value: Option<&'a [u8]>,
}

// Serde's own way would put byte after byte.
fn as_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

fn as_maybe_bytes<S: Serializer>(bytes: &Option<&[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
    struct Bytes<'a>(&'a [u8]);
    impl Serialize for Bytes<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(self.0)
        }
    }
    match bytes {
        Some(bytes) => serializer.serialize_some(&Bytes(bytes)),
        None => serializer.serialize_none(),
    }
}

pub(crate) fn undo_key(index: LogIndex) -> [u8; 8] {
    index.0.to_be_bytes()
}

/// The bytes of an undo row. Equal histories have equal undo rows: `images` are in the order in which the entry wrote the keys
/// first.
pub(crate) fn encode_undo(images: &[BeforeImage<'_>]) -> Vec<u8> {
    let size: usize = images.iter().map(|image| 4 + image.key.len() + image.value.map_or(0, <[u8]>::len)).sum();
    let mut bytes = Vec::with_capacity(size);
    bytes.push(UNDO_VERSION);
    postcard::to_extend(images, bytes).expect("postcard fails only for lengths that are not known beforehand")
}

/// The images in an undo row.
pub(crate) fn decode_undo<'a>(key: &[u8], bytes: &'a [u8]) -> Result<Vec<BeforeImage<'a>>, StorageError> {
    let damaged = |what| StorageError::damaged(Space::Undo, key, what);
    match bytes.split_first() {
        Some((&UNDO_VERSION, rest)) => match postcard::take_from_bytes(rest) {
            Ok((images, [])) => Ok(images),
            _ => Err(damaged("the before-images cannot be read")),
        },
        _ => Err(damaged("the before-images have a version that this build does not know")),
    }
}

/// The lowest index to which [`crate::rewind`] can go; the applied one when there is no undo row.
pub fn lowest_reachable(kv: &dyn KvRead) -> Result<LogIndex, StorageError> {
    match kv.scan(Space::Undo, &[], None)?.next() {
        Some(row) => {
            let (key, _) = row?;
            let first = crate::key::number(key, 0).filter(|first| *first > 0);
            first.map(|first| LogIndex(first - 1)).ok_or_else(|| StorageError::damaged(Space::Undo, key, "the key is no index"))
        }
        None => Ok(crate::header(kv)?.index),
    }
}

/// Removes before-images that reach below `below`: that index itself stays reachable. Removes at most [`MAX_TRIM`] rows
/// and says how many it removed; fewer than that means that it is done.
pub fn trim_undo(kv: &mut dyn KvWrite, below: LogIndex) -> Result<usize, StorageError> {
    let mut keys = Vec::new();
    for row in kv.scan(Space::Undo, &[], Some(&undo_key(below.next())))?.take(MAX_TRIM) {
        keys.push(row?.0.to_vec());
    }
    for key in &keys {
        kv.delete(Space::Undo, key)?;
    }
    Ok(keys.len())
}
