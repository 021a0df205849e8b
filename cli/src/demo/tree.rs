//! The files of the demonstration: a tree of many small and some large ones, made from a seed, with the checksum of each.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Directories, and files in each.
const DIRECTORIES: u64 = 20;
const FILES: u64 = 20;
/// Small files have up to so many bytes (exclusive).
const SMALL: u64 = 48 << 10;
/// Every so manyth file is a large one, of up to so many bytes more than 1 MiB.
const LARGE_EVERY: u64 = 37;
const LARGE: u64 = 9 << 20;

/// A tree on this machine's disk.
pub struct Tree {
    pub root: PathBuf,
    /// Checksum (BLAKE3) and length of each file, by its path below the root.
    pub files: BTreeMap<PathBuf, ([u8; 32], u64)>,
}

/// xorshift64*, Vigna 2016: the files need to differ, not to be secret.
struct Stream(u64);

impl Stream {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn bytes(&mut self, length: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length as usize + 8);
        while (bytes.len() as u64) < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length as usize);
        bytes
    }
}

impl Tree {
    /// Makes the tree below `root`, which is created; another seed makes other contents.
    pub fn make(root: &Path, seed: u64) -> io::Result<Tree> {
        let mut stream = Stream(seed | 1);
        let mut tree = Tree { root: root.to_owned(), files: BTreeMap::new() };
        for directory in 0..DIRECTORIES {
            let below = PathBuf::from(format!("dir-{directory:02}"));
            fs::create_dir_all(root.join(&below))?;
            for file in 0..FILES {
                let large = (directory * FILES + file).is_multiple_of(LARGE_EVERY);
                let length = if large { (1 << 20) + stream.next() % LARGE } else { stream.next() % SMALL };
                let bytes = stream.bytes(length);
                let path = below.join(format!("file-{file:02}"));
                fs::write(root.join(&path), &bytes)?;
                tree.files.insert(path, (*blake3::hash(&bytes).as_bytes(), length));
            }
        }
        Ok(tree)
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|(_, length)| length).sum()
    }

    /// How many blocks of `block` bytes the files fill.
    pub fn blocks(&self, block: u64) -> u64 {
        self.files.values().map(|(_, length)| length.div_ceil(block)).sum()
    }

    /// Compares every file below `other` with its checksum; the paths that differ or are absent.
    pub fn differences(&self, other: &Path, mut each: impl FnMut(u64)) -> Vec<String> {
        let mut wrong = vec![];
        for (path, (checksum, length)) in &self.files {
            match fs::read(other.join(path)) {
                Ok(bytes) if blake3::hash(&bytes).as_bytes() == checksum => {}
                Ok(_) => wrong.push(format!("{} differs", path.display())),
                Err(error) => wrong.push(format!("{}: {error}", path.display())),
            }
            each(*length);
        }
        wrong
    }
}

/// Copies a tree into a mount, one file after the other.
pub fn copy(from: &Tree, to: &Path, mut each: impl FnMut(u64)) -> io::Result<()> {
    for (path, (_, length)) in &from.files {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(to.join(parent))?;
        }
        fs::copy(from.root.join(path), to.join(path))?;
        each(*length);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_and_a_missing_file_are_found() {
        let temp = tempfile::tempdir().unwrap();
        let tree = Tree::make(&temp.path().join("a"), 7).unwrap();
        let copied = temp.path().join("b");
        copy(&tree, &copied, |_| {}).unwrap();
        assert_eq!(tree.differences(&copied, |_| {}), Vec::<String>::new());
        fs::write(copied.join("dir-03/file-04"), b"other").unwrap();
        fs::remove_file(copied.join("dir-05/file-06")).unwrap();
        assert_eq!(tree.differences(&copied, |_| {}).len(), 2);
    }
}
