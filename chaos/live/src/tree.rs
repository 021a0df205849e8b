//! Trees of files: making one out of a seed, and reading one for comparison.

use crate::Random;
use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What one name in a tree is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    Directory { mode: u32 },
    File { mode: u32, links: u64, owner: (u32, u32), content: Vec<u8> },
    Link { target: PathBuf },
    Other { mode: u32 },
}

/// Reads a tree, paths relative to its root.
pub fn read(root: &Path) -> std::io::Result<BTreeMap<PathBuf, Node>> {
    let mut found = BTreeMap::new();
    let mut left = vec![PathBuf::new()];
    while let Some(inside) = left.pop() {
        for entry in std::fs::read_dir(root.join(&inside))? {
            let path = inside.join(entry?.file_name());
            let full = root.join(&path);
            let metadata = std::fs::symlink_metadata(&full)?;
            let kind = metadata.file_type();
            let mode = metadata.mode();
            let node = if kind.is_dir() {
                left.push(path.clone());
                Node::Directory { mode }
            } else if kind.is_symlink() {
                Node::Link { target: std::fs::read_link(&full)? }
            } else if kind.is_fifo() || kind.is_socket() {
                Node::Other { mode }
            } else {
                let owner = (metadata.uid(), metadata.gid());
                Node::File { mode, links: metadata.nlink(), owner, content: std::fs::read(&full)? }
            };
            found.insert(path, node);
        }
    }
    Ok(found)
}

/// The first few differences between two trees, for a message; empty when they are equal.
pub fn differences(left: &BTreeMap<PathBuf, Node>, right: &BTreeMap<PathBuf, Node>) -> Vec<String> {
    const SHOWN: usize = 10;
    let brief = |node: Option<&Node>| match node {
        Some(Node::File { mode, links, owner, content }) => {
            format!("file {mode:o}, {links} links, owner {owner:?}, {} bytes", content.len())
        }
        other => format!("{other:?}"),
    };
    let names: std::collections::BTreeSet<&PathBuf> = left.keys().chain(right.keys()).collect();
    let different = names.into_iter().filter(|name| left.get(*name) != right.get(*name));
    different
        .take(SHOWN)
        .map(|name| format!("{}: {} | {}", name.display(), brief(left.get(name)), brief(right.get(name))))
        .collect()
}

/// Fails when two trees differ.
pub fn assert_equal(left: &Path, right: &Path) {
    let read = |root: &Path| read(root).unwrap_or_else(|error| panic!("{} cannot be read: {error}", root.display()));
    let different = differences(&read(left), &read(right));
    assert!(different.is_empty(), "{} and {} differ:\n{}", left.display(), right.display(), different.join("\n"));
}

/// Writes `files` files of up to `size_max` bytes below a directory; the same seed makes the same tree.
pub fn write(root: &Path, files: usize, size_max: u64, seed: u64) {
    let mut random = Random::new(seed);
    for at in 0..files {
        let directory = root.join(format!("d{}", at % 7));
        std::fs::create_dir_all(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let size = random.below(size_max + 1) as usize;
        let path = directory.join(format!("f{at}"));
        std::fs::write(&path, random.bytes(size)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_tree_and_a_changed_byte_is_found() {
        let (left, right) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(left.path(), 20, 100, 3);
        write(right.path(), 20, 100, 3);
        assert_equal(left.path(), right.path());
        std::fs::write(right.path().join("d0/f0"), "other").unwrap();
        let found = differences(&read(left.path()).unwrap(), &read(right.path()).unwrap());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("d0/f0"));
    }
}
