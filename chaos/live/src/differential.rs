//! The same random operations on two file systems, answer by answer: what Linux does on a local directory is the
//! definition of right.
//!
//! Compared are the result or error number of every operation, the content of every read, and at intervals the whole
//! tree: kinds, modes, owners, links, lengths, contents, targets, and times that were set. Not compared is what file
//! systems may choose: sizes of directories, inode numbers, times that nobody set.

use crate::{Random, tree};
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// Operations between two comparisons of the whole trees.
const COMPARE_EVERY: usize = 250;
/// Files kept open on both sides at a time.
const OPEN_MAX: usize = 8;
/// Longest single write in bytes, and furthest place that is written.
const WRITE_MAX: u64 = 70_000;
const OFFSET_MAX: u64 = 300_000;
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// An operation, with everything that it needs.
#[derive(Clone, Debug)]
enum Operation {
    Create { path: PathBuf, exclusive: bool, truncate: bool, mode: u32 },
    Open { path: PathBuf, append: bool },
    Close { at: usize },
    Read { at: usize, offset: u64, length: usize },
    Write { at: usize, offset: u64, data: Vec<u8> },
    SetLength { at: usize, length: u64 },
    Sync { at: usize },
    Truncate { path: PathBuf, length: u64 },
    Make { path: PathBuf, mode: u32 },
    Fifo { path: PathBuf },
    Remove { path: PathBuf },
    RemoveDirectory { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf, flags: libc::c_uint },
    Link { from: PathBuf, to: PathBuf },
    Symlink { target: PathBuf, path: PathBuf },
    Readlink { path: PathBuf },
    Mode { path: PathBuf, mode: u32 },
    Owner { path: PathBuf, uid: u32, gid: u32 },
    Times { path: PathBuf, seconds: u64, nanos: u32 },
    Stat { path: PathBuf },
    List { path: PathBuf },
}

/// What an operation answered, as far as it must be equal.
type Answer = Result<Vec<u8>, i32>;

fn random_path(random: &mut Random) -> PathBuf {
    let depth = 1 + random.below(3);
    (0..depth).map(|_| *random.pick(&NAMES)).collect()
}

fn random_operation(random: &mut Random, open: usize) -> Operation {
    let path = random_path(random);
    let at = if open == 0 { 0 } else { random.below(open as u64) as usize };
    let kind = random.below(100);
    let needs_file = (20..52).contains(&kind);
    if needs_file && open == 0 {
        return Operation::Open { path, append: false };
    }
    match kind {
        0..8 => Operation::Create {
            path,
            exclusive: random.below(3) == 0,
            truncate: random.below(3) == 0,
            mode: *random.pick(&[0o644, 0o600, 0o4755, 0o666]),
        },
        8..20 => Operation::Open { path, append: random.below(3) == 0 },
        20..24 => Operation::Close { at },
        24..34 => Operation::Read { at, offset: random.below(OFFSET_MAX), length: random.below(WRITE_MAX) as usize },
        34..46 => {
            let length = random.below(WRITE_MAX) as usize;
            Operation::Write { at, offset: random.below(OFFSET_MAX), data: random.bytes(length) }
        }
        46..50 => Operation::SetLength { at, length: random.below(OFFSET_MAX) },
        50..52 => Operation::Sync { at },
        52..55 => Operation::Truncate { path, length: random.below(OFFSET_MAX) },
        55..63 => Operation::Make { path, mode: *random.pick(&[0o755, 0o700, 0o2755, 0o1777]) },
        63..64 => Operation::Fifo { path },
        64..69 => Operation::Remove { path },
        69..73 => Operation::RemoveDirectory { path },
        73..81 => Operation::Rename {
            from: path,
            to: random_path(random),
            flags: *random.pick(&[0, 0, 0, libc::RENAME_NOREPLACE, libc::RENAME_EXCHANGE]),
        },
        81..85 => Operation::Link { from: path, to: random_path(random) },
        85..88 => Operation::Symlink { target: random_path(random), path },
        88..90 => Operation::Readlink { path },
        90..92 => Operation::Mode { path, mode: *random.pick(&[0o644, 0o000, 0o4755, 0o7777]) },
        92..94 => Operation::Owner { path, uid: random.below(3) as u32, gid: random.below(3) as u32 },
        94..96 => Operation::Times { path, seconds: random.below(1 << 32), nanos: random.below(1_000_000_000) as u32 },
        96..98 => Operation::Stat { path },
        _ => Operation::List { path },
    }
}

/// One side: a root and the files that are open below it.
struct Side<'a> {
    root: &'a Path,
    open: Vec<File>,
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("names here have no zero byte")
}

fn done(outcome: libc::c_int) -> io::Result<()> {
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl Side<'_> {
    fn apply(&mut self, operation: &Operation) -> Answer {
        self.attempt(operation).map_err(|error| error.raw_os_error().unwrap_or(-1))
    }

    fn keep(&mut self, file: File) -> Vec<u8> {
        if self.open.len() >= OPEN_MAX {
            self.open.remove(0);
        }
        self.open.push(file);
        Vec::new()
    }

    fn attempt(&mut self, operation: &Operation) -> io::Result<Vec<u8>> {
        let at = |path: &PathBuf| self.root.join(path);
        let nothing = |()| Vec::new();
        match operation {
            Operation::Create { path, exclusive, truncate, mode } => {
                let mut options = OpenOptions::new();
                // Not blocking, since the name may be a pipe's.
                options.read(true).write(true).create(true).truncate(*truncate).mode(*mode).custom_flags(libc::O_NONBLOCK);
                let file = if *exclusive { options.truncate(false).create_new(true) } else { &mut options }.open(at(path))?;
                Ok(self.keep(file))
            }
            Operation::Open { path, append } => {
                let mut options = OpenOptions::new();
                options.read(true).write(!append).append(*append).custom_flags(libc::O_NONBLOCK);
                let file = options.open(at(path))?;
                Ok(self.keep(file))
            }
            Operation::Close { at } => {
                drop(self.open.remove(*at));
                Ok(Vec::new())
            }
            Operation::Read { at, offset, length } => {
                let mut data = vec![0; *length];
                let mut got = 0;
                while got < data.len() {
                    match self.open[*at].read_at(&mut data[got..], offset + got as u64)? {
                        0 => break,
                        count => got += count,
                    }
                }
                data.truncate(got);
                Ok(data)
            }
            Operation::Write { at, offset, data } => self.open[*at].write_all_at(data, *offset).map(nothing),
            Operation::SetLength { at, length } => self.open[*at].set_len(*length).map(nothing),
            Operation::Sync { at } => self.open[*at].sync_all().map(nothing),
            Operation::Truncate { path, length } => {
                let path = c_path(&at(path));
                // SAFETY: the string lives until the call returns.
                done(unsafe { libc::truncate(path.as_ptr(), *length as libc::off_t) }).map(nothing)
            }
            Operation::Make { path, mode } => fs::DirBuilder::new().mode(*mode).create(at(path)).map(nothing),
            Operation::Fifo { path } => {
                let path = c_path(&at(path));
                // SAFETY: the string lives until the call returns.
                done(unsafe { libc::mkfifo(path.as_ptr(), 0o640) }).map(nothing)
            }
            Operation::Remove { path } => fs::remove_file(at(path)).map(nothing),
            Operation::RemoveDirectory { path } => fs::remove_dir(at(path)).map(nothing),
            Operation::Rename { from, to, flags } => {
                let (from, to) = (c_path(&at(from)), c_path(&at(to)));
                // SAFETY: both strings live until the call returns.
                done(unsafe { libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), *flags) }).map(nothing)
            }
            Operation::Link { from, to } => fs::hard_link(at(from), at(to)).map(nothing),
            Operation::Symlink { target, path } => symlink(target, at(path)).map(nothing),
            Operation::Readlink { path } => fs::read_link(at(path)).map(|target| target.as_os_str().as_bytes().to_vec()),
            Operation::Mode { path, mode } => fs::set_permissions(at(path), fs::Permissions::from_mode(*mode)).map(nothing),
            Operation::Owner { path, uid, gid } if uid == gid => lchown(at(path), Some(*uid), Some(*gid)).map(nothing),
            Operation::Owner { path, uid, .. } => chown(at(path), Some(*uid), None).map(nothing),
            Operation::Times { path, seconds, nanos } => {
                let time = UNIX_EPOCH + Duration::new(*seconds, *nanos);
                // Not blocking, since the name may be a pipe's.
                let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(at(path))?;
                file.set_times(fs::FileTimes::new().set_modified(time).set_accessed(time))?;
                let now = file.metadata()?;
                Ok(format!("{} {}", now.mtime(), now.mtime_nsec()).into_bytes())
            }
            Operation::Stat { path } => fs::symlink_metadata(at(path)).map(|found| told(&found).into_bytes()),
            Operation::List { path } => {
                let mut names =
                    fs::read_dir(at(path))?.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>()?;
                names.sort();
                Ok(format!("{names:?}").into_bytes())
            }
        }
    }
}

/// What stat must tell on both sides.
fn told(found: &fs::Metadata) -> String {
    let mut text = format!("{:o} {} {}", found.mode(), found.uid(), found.gid());
    if !found.is_dir() {
        text.push_str(&format!(" {} links {} bytes", found.nlink(), found.len()));
    }
    text
}

/// Runs `count` random operations on two empty directories; the first difference is an error that tells how to see it again.
pub fn run(tested: &Path, local: &Path, seed: u64, count: usize) -> Result<(), String> {
    let mut random = Random::new(seed);
    let mut sides = [Side { root: tested, open: Vec::new() }, Side { root: local, open: Vec::new() }];
    for step in 0..count {
        let operation = random_operation(&mut random, sides[0].open.len());
        let answers = sides.each_mut().map(|side| side.apply(&operation));
        if answers[0] != answers[1] {
            let [tested, local] = answers.map(|answer| brief(&answer));
            return Err(format!("seed {seed}, step {step}: {}: {tested}, locally {local}", brief_operation(&operation)));
        }
        if (step + 1) % COMPARE_EVERY == 0 || step + 1 == count {
            compare(tested, local).map_err(|what| format!("seed {seed}, after step {step}: {what}"))?;
        }
    }
    Ok(())
}

fn compare(tested: &Path, local: &Path) -> Result<(), String> {
    let read = |root: &Path| tree::read(root).map_err(|error| format!("{} cannot be read: {error}", root.display()));
    let different = tree::differences(&read(tested)?, &read(local)?);
    if different.is_empty() { Ok(()) } else { Err(format!("the trees differ:\n{}", different.join("\n"))) }
}

fn brief(answer: &Answer) -> String {
    match answer {
        Ok(bytes) if bytes.len() > 200 => {
            format!("{} bytes, sum {}", bytes.len(), bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>())
        }
        Ok(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
        Err(number) => format!("error {}", io::Error::from_raw_os_error(*number)),
    }
}

fn brief_operation(operation: &Operation) -> String {
    match operation {
        Operation::Write { at, offset, data } => format!("Write {{ at: {at}, offset: {offset}, {} bytes }}", data.len()),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_directory_equals_itself() {
        let (left, right) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for seed in 0..3 {
            let (left, right) = (left.path().join(seed.to_string()), right.path().join(seed.to_string()));
            fs::create_dir(&left).unwrap();
            fs::create_dir(&right).unwrap();
            run(&left, &right, seed, 1500).unwrap();
        }
    }

    #[test]
    fn a_planted_difference_is_found() {
        let (left, right) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(left.path().join("a"), "planted").unwrap();
        let error = run(left.path(), right.path(), 1, 500).unwrap_err();
        assert!(error.contains("seed 1"), "{error}");
    }
}
