//! What lies in a bucket, counted by ourselves: the files of an embedded bucket, without asking its server.
//!
//! A key `a/b/c` is the file `a/b/c=` below the bucket's directory; names that start with a dot are the server's own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The blocks in a bucket's directory: the last part of each key, with its file.
pub fn blocks(directory: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    visit(directory, &mut found);
    found
}

fn visit(directory: &Path, found: &mut BTreeMap<String, PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Ok(kind) = entry.file_type() else { continue };
        if name.starts_with('.') {
            continue;
        }
        match name.strip_suffix('=') {
            None if kind.is_dir() => visit(&entry.path(), found),
            Some(name) if kind.is_file() && size_of(name).is_some() => {
                found.insert(name.to_owned(), entry.path());
            }
            _ => {}
        }
    }
}

/// The length that a block's name tells: `ID_INDEX_SIZE`; `None` for what is no block.
pub fn size_of(name: &str) -> Option<u64> {
    let numbers: Vec<u64> = name.split('_').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    match numbers[..] {
        [_, _, size] => Some(size),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        };
        put("demo/chunks/0/0/1_0_5=");
        put("demo/chunks/0/0/1_1_7=");
        put("demo/farshore_identity=");
        put(".tmp/2_0_5=");
        put("demo/chunks/0/0/3_0_5");
        let found = blocks(dir.path());
        assert_eq!(found.keys().collect::<Vec<_>>(), ["1_0_5", "1_1_7"]);
        assert_eq!(found.keys().filter_map(|name| size_of(name)).sum::<u64>(), 12);
    }
}
