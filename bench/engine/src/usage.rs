//! What a state weighs: rows by kind, and pages by space, as LMDB keeps them.

use crate::error::{Doing, EngineError};
use farshore_meta::kv::{KvRead, Lmdb, Pages, Space, Store};
use serde::Serialize;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Rows of one kind: of shared rows the first byte of the key, of local ones the first two.
#[derive(Debug, Default, Serialize)]
pub struct Kind {
    pub rows: u64,
    pub key_bytes: u64,
    pub value_bytes: u64,
    pub bytes_per_file: f64,
}

/// One tree of pages; the file has free pages besides.
#[derive(Debug, Serialize)]
pub struct TableUsage {
    pub page_bytes: u64,
    pub depth: u32,
    pub bytes_per_file: f64,
}

/// One space.
#[derive(Debug, Serialize)]
pub struct SpaceUsage {
    pub rows: u64,
    /// Of its tables.
    pub page_bytes: u64,
    pub bytes_per_file: f64,
    pub tables: BTreeMap<&'static str, TableUsage>,
    pub kinds: BTreeMap<String, Kind>,
}

#[derive(Debug, Serialize)]
pub struct Usage {
    pub files: u64,
    /// The state's file: its length, and what the disk holds of it.
    pub file_bytes: u64,
    pub disk_bytes: u64,
    pub disk_bytes_per_file: f64,
    /// Of pages that hold rows, freed ones left out: of all spaces, and without before-images, which last only until the
    /// floors have passed them.
    pub page_bytes_per_file: f64,
    pub page_bytes_per_file_without_undo: f64,
    /// Keys and values alone: what pages would hold if they were full.
    pub row_bytes_per_file_without_undo: f64,
    pub spaces: BTreeMap<&'static str, SpaceUsage>,
}

const NAMES: [(Space, &str); 3] = [(Space::Shared, "shared"), (Space::Undo, "undo"), (Space::Local, "local")];

/// Measures the state in a directory that nobody has open.
pub fn measure(state: &Path, files: u64) -> Result<Usage, EngineError> {
    let mut spaces = BTreeMap::new();
    {
        let store = Lmdb::open(state).doing("open the state")?;
        let pages = store.pages().doing("read the state")?;
        let kv = store.read().doing("read the state")?;
        for (space, name) in NAMES {
            let of_space = pages.iter().filter(|(_, of_table, _)| *of_table == space);
            let tables: BTreeMap<_, _> = of_space.map(|(name, _, pages)| (*name, table(*pages, files))).collect();
            let page_bytes = tables.values().map(|table| table.page_bytes).sum();
            let kinds = kinds(&*kv, space, files)?;
            let rows = kinds.values().map(|kind| kind.rows).sum();
            let bytes_per_file = page_bytes as f64 / files as f64;
            spaces.insert(name, SpaceUsage { rows, page_bytes, bytes_per_file, tables, kinds });
        }
    }
    let about = std::fs::metadata(state.join("data.mdb")).doing("look at the state's file")?;
    let in_pages: u64 = spaces.values().map(|space| space.page_bytes).sum();
    let lasting = || spaces.iter().filter(|(name, _)| **name != "undo").map(|(_, space)| space);
    let lasting_pages: u64 = lasting().map(|space| space.page_bytes).sum();
    let lasting_rows = lasting().flat_map(|space| space.kinds.values()).map(|kind| kind.bytes_per_file).sum();
    Ok(Usage {
        files,
        file_bytes: about.len(),
        disk_bytes: about.blocks() * 512,
        disk_bytes_per_file: (about.blocks() * 512) as f64 / files as f64,
        page_bytes_per_file: in_pages as f64 / files as f64,
        page_bytes_per_file_without_undo: lasting_pages as f64 / files as f64,
        row_bytes_per_file_without_undo: lasting_rows,
        spaces,
    })
}

fn table(pages: Pages, files: u64) -> TableUsage {
    TableUsage { page_bytes: pages.bytes, depth: pages.depth, bytes_per_file: pages.bytes as f64 / files as f64 }
}

fn kinds(kv: &dyn KvRead, space: Space, files: u64) -> Result<BTreeMap<String, Kind>, EngineError> {
    let mut kinds: BTreeMap<String, Kind> = BTreeMap::new();
    for row in kv.scan(space, &[], None).doing("read the state")? {
        let (key, value) = row.doing("read the state")?;
        let prefix = match space {
            Space::Shared => &key[..1],
            Space::Undo => b"undo",
            Space::Local => &key[..key.len().min(2)],
        };
        let name: String = prefix.iter().map(|byte| std::ascii::escape_default(*byte).to_string()).collect();
        let kind = kinds.entry(name).or_default();
        kind.rows += 1;
        kind.key_bytes += key.len() as u64;
        kind.value_bytes += value.len() as u64;
    }
    for kind in kinds.values_mut() {
        kind.bytes_per_file = (kind.key_bytes + kind.value_bytes) as f64 / files as f64;
    }
    Ok(kinds)
}
