//! A tree of small files, the same in each run: what `tar x` is measured with.

use crate::error::BenchError;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Files in one directory.
const PER_DIRECTORY: u32 = 100;
/// Sizes in bytes, inclusive.
const SMALLEST: u64 = 100;
const LARGEST: u64 = 8 << 10;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A directory that is not there yet
    #[arg(long)]
    out: PathBuf,
    #[arg(long, default_value_t = 10_000)]
    files: u32,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct TreeFigures {
    files: u32,
    bytes: u64,
}

pub fn run(args: &Args) -> Result<TreeFigures, BenchError> {
    let failed = |path: &Path, error: std::io::Error| BenchError::new(format!("write {}", path.display()), error);
    let mut dice = 0x5EED_u64;
    let mut throw = || {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        dice
    };
    std::fs::create_dir(&args.out).map_err(|error| failed(&args.out, error))?;
    let mut bytes = 0;
    for file in 0..args.files {
        let directory = args.out.join(format!("dir-{:03}", file / PER_DIRECTORY));
        if file % PER_DIRECTORY == 0 {
            std::fs::create_dir(&directory).map_err(|error| failed(&directory, error))?;
        }
        let size = SMALLEST + throw() % (LARGEST - SMALLEST + 1);
        let content: Vec<u8> = (0..size).map(|_| (throw() >> 32) as u8).collect();
        let path = directory.join(format!("file-{file:05}"));
        std::fs::write(&path, &content).map_err(|error| failed(&path, error))?;
        bytes += size;
    }
    Ok(TreeFigures { files: args.files, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_trees_are_the_same_and_sizes_keep_their_bounds() {
        let temp = tempfile::tempdir().unwrap();
        let make = |name: &str| run(&Args { out: temp.path().join(name), files: 150 }).unwrap();
        assert_eq!(make("a"), make("b"));
        for file in 0..150_u32 {
            let at = |tree: &str| temp.path().join(tree).join(format!("dir-{:03}/file-{file:05}", file / PER_DIRECTORY));
            let content = std::fs::read(at("a")).unwrap();
            assert_eq!(content, std::fs::read(at("b")).unwrap());
            assert!((SMALLEST..=LARGEST).contains(&(content.len() as u64)), "{}", content.len());
        }
        assert!(run(&Args { out: temp.path().join("a"), files: 1 }).is_err(), "what is there is left alone");
    }
}
