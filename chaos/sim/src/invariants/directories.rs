//! In the end every directory holds what its writer was told, each deed done once, and nothing else (law 10).

use crate::board::Directory;
use farshore_meta::kv::KvRead;
use farshore_types::{Query, QueryReply, SliceId};

/// Most entries of one directory that are looked at.
const ENTRIES: u32 = 1000;

fn ask(kv: &dyn KvRead, query: Query) -> Result<QueryReply, String> {
    let answer = farshore_meta::query(kv, &query).map_err(|error| error.to_string())?;
    answer.map_err(|kind| format!("{query:?} was answered {kind:?}"))
}

/// Compares one directory with the state.
pub fn check(kv: &dyn KvRead, directory: &Directory) -> Result<(), String> {
    let Some(ino) = directory.ino else { return Ok(()) };
    let said = |what: String| format!("{}: {what}", directory.name);
    let QueryReply::Entries { entries, .. } = ask(kv, Query::ReadDir { ino, after: None, limit: ENTRIES })? else {
        return Err(said("it is no directory".to_owned()));
    };
    let mut found = std::collections::BTreeMap::new();
    for entry in entries {
        found.insert(String::from_utf8_lossy(&entry.name).into_owned(), entry.attr);
    }
    for name in directory.files.keys().chain(found.keys()).filter(|name| !directory.unknown.contains(*name)) {
        match (directory.files.get(name), found.get(name)) {
            (Some(known), Some(attr)) if (known.ino, known.size) == (attr.ino, attr.size) => {
                if let Some(slice) = known.slice.filter(|slice| !shows(kv, attr.ino, *slice)) {
                    return Err(said(format!("{name} does not show slice {slice}")));
                }
            }
            (known, attr) => return Err(said(format!("{name} should be {known:?}, and is {attr:?}"))),
        }
    }
    Ok(())
}

fn shows(kv: &dyn KvRead, ino: farshore_types::Ino, slice: SliceId) -> bool {
    match ask(kv, Query::Slices { ino, chunk: 0 }) {
        Ok(QueryReply::Slices(views)) => views.iter().any(|view| view.slice.id == slice),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_meta::kv::{Memory, Store};
    use farshore_types::Ino;

    #[test]
    fn it_fires() {
        let store = Memory::new();
        let kv = store.read().expect("memory is always there");
        let mut directory = Directory { name: "d".into(), ..Directory::default() };
        assert_eq!(check(&*kv, &directory), Ok(()), "it was never acknowledged");
        directory.ino = Some(Ino(77));
        assert!(check(&*kv, &directory).is_err(), "an acknowledged directory is gone");
    }
}
