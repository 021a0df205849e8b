//! Replacing the shared state by a snapshot of the primary.
//!
//! The rows travel as entries of the mirror's own Raft log and wait in a staging area of the local space. Only when all
//! are there and their digest is the announced one do they become the shared state, in one transaction, on every node
//! at the same Raft entry. Local state survives (hazard 5.6).

use farshore_meta::kv::{KvRead, KvWrite, Row, Space, StorageError};
use farshore_types::{Chain, Digest, Lineage, LogIndex};
use serde::{Deserialize, Serialize};

/// The announced snapshot, while its rows arrive.
const ANNOUNCED: &[u8] = b"Pz";
/// Prefix of staged rows, and the first key after them.
const STAGED: &[u8] = b"Z";
const STAGED_END: &[u8] = b"[";
/// Rows moved between looks at the iterator (law 27): bounds the memory of a commit.
const MOVE_ROWS: usize = 4096;

type Rows<'a> = Box<dyn Iterator<Item = Row<'a>> + 'a>;

/// A snapshot that is on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    pub snapshot: [u8; 16],
    pub index: LogIndex,
    pub chain: Chain,
    pub digest: Digest,
    pub lineage: Lineage,
}

fn announced(kv: &dyn KvRead) -> Result<Option<Announced>, StorageError> {
    let Some(bytes) = kv.get(Space::Local, ANNOUNCED)? else { return Ok(None) };
    postcard::from_bytes(bytes).map(Some).map_err(|_| StorageError::damaged(Space::Local, ANNOUNCED, "cannot be decoded"))
}

/// Starts afresh: what an earlier snapshot staged is dropped.
pub fn begin(kv: &mut dyn KvWrite, snapshot: &Announced) -> Result<(), StorageError> {
    clear(kv, Space::Local, STAGED, Some(STAGED_END))?;
    let bytes = postcard::to_stdvec(snapshot).expect("an announcement always serialises into memory");
    kv.put(Space::Local, ANNOUNCED, &bytes)
}

/// Stages rows; those of another snapshot than the announced one are ignored.
pub fn stage(kv: &mut dyn KvWrite, snapshot: [u8; 16], rows: &[(Vec<u8>, Vec<u8>)]) -> Result<(), StorageError> {
    if announced(kv)?.is_none_or(|announced| announced.snapshot != snapshot) {
        return Ok(());
    }
    for (key, value) in rows {
        kv.put(Space::Local, &[STAGED, key].concat(), value)?;
    }
    Ok(())
}

/// Makes the staged rows the shared state. `None`, and nothing changed, when they are not the announced snapshot.
pub fn commit(kv: &mut dyn KvWrite, snapshot: [u8; 16]) -> Result<Option<Announced>, StorageError> {
    let Some(announced) = announced(kv)?.filter(|announced| announced.snapshot == snapshot) else { return Ok(None) };
    let digest = farshore_meta::digest_of(&Staged(kv))?;
    if digest != announced.digest {
        return Ok(None);
    }
    clear(kv, Space::Shared, &[], None)?;
    clear(kv, Space::Undo, &[], None)?;
    loop {
        let rows: Vec<(Vec<u8>, Vec<u8>)> = kv
            .scan(Space::Local, STAGED, Some(STAGED_END))?
            .take(MOVE_ROWS)
            .map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())))
            .collect::<Result<_, _>>()?;
        if rows.is_empty() {
            break;
        }
        for (key, value) in rows {
            kv.put(Space::Shared, &key[STAGED.len()..], &value)?;
            kv.delete(Space::Local, &key)?;
        }
    }
    kv.delete(Space::Local, ANNOUNCED)?;
    let header = farshore_meta::header(kv)?;
    assert_eq!((header.index, header.chain), (announced.index, announced.chain), "a snapshot's rows hold its own header");
    Ok(Some(announced))
}

/// The staged rows as if they were the shared state already.
struct Staged<'k>(&'k dyn KvRead);

fn unstaged(row: Row<'_>) -> Row<'_> {
    row.map(|(key, value)| (&key[STAGED.len()..], value))
}

impl KvRead for Staged<'_> {
    fn get<'a>(&'a self, _: Space, key: &[u8]) -> Result<Option<&'a [u8]>, StorageError> {
        self.0.get(Space::Local, &[STAGED, key].concat())
    }

    fn scan<'a>(&'a self, _: Space, from: &[u8], to: Option<&[u8]>) -> Result<Rows<'a>, StorageError> {
        let end = to.map_or(STAGED_END.to_vec(), |to| [STAGED, to].concat());
        Ok(Box::new(self.0.scan(Space::Local, &[STAGED, from].concat(), Some(&end))?.map(unstaged)))
    }

    fn scan_back<'a>(&'a self, _: Space, from: &[u8], to: Option<&[u8]>) -> Result<Rows<'a>, StorageError> {
        let end = to.map_or(STAGED_END.to_vec(), |to| [STAGED, to].concat());
        Ok(Box::new(self.0.scan_back(Space::Local, &[STAGED, from].concat(), Some(&end))?.map(unstaged)))
    }
}

fn clear(kv: &mut dyn KvWrite, space: Space, from: &[u8], to: Option<&[u8]>) -> Result<(), StorageError> {
    loop {
        let keys: Vec<Vec<u8>> =
            kv.scan(space, from, to)?.take(MOVE_ROWS).map(|row| row.map(|(key, _)| key.to_vec())).collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Ok(());
        }
        for key in keys {
            kv.delete(space, &key)?;
        }
    }
}
