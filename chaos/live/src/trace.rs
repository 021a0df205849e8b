//! What a process did to its files, and what of it a loss of power may leave. The records come from a library in front of
//! libc (`shim/trace.c`), so that they are those of the real program on the real disk; the disk that forgets is simulated.
//!
//! A write is durable once its file was flushed, sector by sector; a name once its directory was. Of the rest any part may be
//! there after the loss: a write of many sectors may be torn between any two of them.

use crate::Random;
use crate::faults::build;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a disk writes as a whole.
const SECTOR: usize = 512;
const HEAD: usize = 24;

/// The library, and the directory in which the traces of processes lie.
#[derive(Debug)]
pub(crate) struct Trace {
    library: PathBuf,
    directory: PathBuf,
    below: PathBuf,
}

impl Trace {
    /// Makes the library in a directory of its own in `root`; what happens in `below` is traced.
    pub fn build(root: &Path, below: PathBuf) -> Trace {
        let (library, directory) = build(root, "trace");
        Trace { library, directory, below }
    }

    pub fn preload(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("TRACE", &self.directory);
        command.env("TRACE_BELOW", &self.below);
    }

    /// The trace of a process.
    pub fn of(&self, pid: u32) -> PathBuf {
        self.directory.join(pid.to_string())
    }
}

/// What a file was asked to do.
#[derive(Debug, PartialEq, Eq)]
pub enum What {
    Write { offset: u64, length: u64, bytes: Vec<u8> },
    Length(u64),
    Create,
    Rename(PathBuf),
    Unlink,
    Sync,
    MakeDirectory,
}

/// A record, and how long the trace was with it, in bytes.
#[derive(Debug)]
pub struct Step {
    pub path: PathBuf,
    pub what: What,
    pub end: u64,
}

/// Reads the trace of a process; a record at its end that is not whole yet is left out.
pub fn read(path: &Path) -> Vec<Step> {
    let bytes = std::fs::read(path).expect("the process has written a trace");
    let (mut at, mut steps) = (0, vec![]);
    while at + HEAD <= bytes.len() {
        let number = |from: usize, width: usize| {
            bytes[at + from..at + from + width].iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let (kind, zeros, offset, length) = (bytes[at], bytes[at + 1] == 1, number(8, 8), number(16, 8));
        let (path, other) = (number(2, 2) as usize, number(4, 2) as usize);
        let carried = if zeros { 0 } else { length as usize };
        let next = at + HEAD + path + other + carried;
        if next > bytes.len() {
            break;
        }
        let part = |from: usize, width: usize| &bytes[at + HEAD + from..at + HEAD + from + width];
        let name = |bytes: &[u8]| PathBuf::from(std::ffi::OsStr::from_bytes(bytes));
        let what = match kind {
            1 => What::Write { offset, length, bytes: part(path + other, carried).to_vec() },
            2 => What::Length(length),
            3 => What::Create,
            4 => What::Rename(name(part(path, other))),
            5 => What::Unlink,
            6 => What::Sync,
            7 => What::MakeDirectory,
            kind => panic!("a record of kind {kind}"),
        };
        let path_bytes = name(part(0, path));
        at = next;
        steps.push(Step { path: path_bytes, what, end: at as u64 });
    }
    steps
}

type Sector = [u8; SECTOR];

/// A file's contents; what is not in `now` is zeros.
#[derive(Clone, Default)]
struct File {
    now: BTreeMap<u64, Sector>,
    length: u64,
    /// Sectors that were changed since the last flush, as the disk has them.
    durable: BTreeMap<u64, Sector>,
    durable_length: u64,
    is_directory: bool,
}

impl File {
    fn set(&mut self, sector: u64, content: Sector) {
        let before = if content == [0; SECTOR] { self.now.remove(&sector) } else { self.now.insert(sector, content) };
        let before = before.unwrap_or([0; SECTOR]);
        if before != content {
            self.durable.entry(sector).or_insert(before);
        }
    }

    fn write(&mut self, offset: u64, length: u64, bytes: &[u8]) {
        let (mut at, end) = (offset, offset + length);
        // Zeros behind the file's end are what is there.
        if bytes.is_empty() && offset >= self.length {
            at = end;
        }
        while at < end {
            let (sector, from) = (at / SECTOR as u64, (at % SECTOR as u64) as usize);
            let count = (SECTOR - from).min((end - at) as usize);
            let mut content = self.now.get(&sector).copied().unwrap_or([0; SECTOR]);
            let source = (at - offset) as usize;
            match bytes.get(source..source + count) {
                Some(part) => content[from..from + count].copy_from_slice(part),
                None => content[from..from + count].fill(0),
            }
            self.set(sector, content);
            at += count as u64;
        }
        self.length = self.length.max(end);
    }

    fn cut(&mut self, length: u64) {
        let whole = length / SECTOR as u64;
        for (sector, mut content) in self.now.range(whole..).map(|(at, content)| (*at, *content)).collect::<Vec<_>>() {
            let kept = if sector == whole { (length % SECTOR as u64) as usize } else { 0 };
            content[kept..].fill(0);
            self.set(sector, content);
        }
        self.length = length;
    }

    fn flush(&mut self) {
        self.durable.clear();
        self.durable_length = self.length;
    }

    /// After the loss: each sector that was not flushed is as it is or as it was.
    fn after(&self, random: &mut Random) -> File {
        let mut after = self.clone();
        for (sector, before) in &self.durable {
            if random.below(2) == 0 {
                after.set(*sector, *before);
            }
        }
        if self.length != self.durable_length && random.below(2) == 0 {
            after.cut(self.durable_length);
        }
        after
    }
}

type Names = BTreeMap<PathBuf, usize>;

/// A disk on which a process worked, at one moment of its trace.
#[derive(Clone, Default)]
pub struct ForgetfulDisk {
    files: Vec<File>,
    names: Names,
    durable_names: Names,
    /// The planted fault: flushes do nothing.
    ignores_flushes: bool,
}

impl ForgetfulDisk {
    pub fn new() -> ForgetfulDisk {
        ForgetfulDisk::default()
    }

    /// A disk that says it had flushed, and has not.
    pub fn that_lies() -> ForgetfulDisk {
        ForgetfulDisk { ignores_flushes: true, ..ForgetfulDisk::default() }
    }

    pub fn take(&mut self, step: &Step) {
        let path = &step.path;
        match &step.what {
            What::Create | What::MakeDirectory => {
                let is_directory = step.what == What::MakeDirectory;
                self.files.push(File { is_directory, ..File::default() });
                self.names.insert(path.clone(), self.files.len() - 1);
            }
            What::Write { offset, length, bytes } => self.file(path).write(*offset, *length, bytes),
            What::Length(length) => self.file(path).cut(*length),
            What::Rename(other) => {
                let file = self.names.remove(path).unwrap_or_else(|| panic!("{} has no name", path.display()));
                self.names.insert(other.clone(), file);
            }
            What::Unlink => drop(self.names.remove(path)),
            What::Sync if self.ignores_flushes => {}
            What::Sync if self.names.get(path).is_some_and(|at| !self.files[*at].is_directory) => self.file(path).flush(),
            What::Sync => {
                let inside = |name: &PathBuf| name.parent() == Some(path);
                self.durable_names.retain(|name, _| !inside(name));
                let now = self.names.iter().filter(|(name, _)| inside(name));
                self.durable_names.extend(now.map(|(name, file)| (name.clone(), *file)));
            }
        }
    }

    fn file(&mut self, path: &Path) -> &mut File {
        let at = *self.names.get(path).unwrap_or_else(|| panic!("{} was never made", path.display()));
        &mut self.files[at]
    }

    /// Puts into `to` what a loss of power now leaves of the files below `below`; a name in a lost directory is lost.
    pub fn lose_power(&self, random: &mut Random, below: &Path, to: &Path) {
        let paths: BTreeSet<&PathBuf> = self.names.keys().chain(self.durable_names.keys()).collect();
        for path in paths.into_iter().filter(|path| *path != below) {
            let (now, before) = (self.names.get(path), self.durable_names.get(path));
            let Some(file) = (if now == before || random.below(2) == 0 { now } else { before }) else { continue };
            let target = to.join(path.strip_prefix(below).expect("only what is below is traced"));
            if !target.parent().is_some_and(Path::exists) {
                continue;
            }
            let file = &self.files[*file];
            if file.is_directory {
                std::fs::create_dir(&target).expect("the directory is new");
                continue;
            }
            let after = file.after(random);
            let written = std::fs::File::create(&target).expect("a file can be made");
            written.set_len(after.length).expect("it can be so long");
            for (sector, content) in &after.now {
                let room = (after.length - sector * SECTOR as u64).min(SECTOR as u64) as usize;
                written.write_all_at(&content[..room], sector * SECTOR as u64).expect("it can be written");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(path: &str, what: What) -> Step {
        Step { path: path.into(), what, end: 0 }
    }

    fn write(offset: u64, bytes: &[u8]) -> What {
        What::Write { offset, length: bytes.len() as u64, bytes: bytes.to_vec() }
    }

    /// What the file holds in many losses; `None`: it is not there.
    fn outcomes(disk: &ForgetfulDisk) -> BTreeSet<Option<Vec<u8>>> {
        let mut random = Random::new(5);
        let outcome = |_| {
            let to = tempfile::tempdir().unwrap();
            disk.lose_power(&mut random, Path::new("/d"), to.path());
            std::fs::read(to.path().join("file")).ok()
        };
        (0..200).map(outcome).collect()
    }

    #[test]
    fn what_was_flushed_stays_and_of_the_rest_any_part() {
        let mut disk = ForgetfulDisk::new();
        let steps = [What::Create, write(0, &[1; 1024]), What::Sync].map(|what| step("/d/file", what));
        steps.iter().for_each(|step| disk.take(step));
        assert_eq!(outcomes(&disk), BTreeSet::from([None, Some(vec![1; 1024])]), "its name is not durable");
        disk.take(&step("/d", What::Sync));
        assert_eq!(outcomes(&disk), BTreeSet::from([Some(vec![1; 1024])]));
        disk.take(&step("/d/file", write(0, &[2; 1024])));
        let torn = |first: u8, second: u8| Some([[first; 512], [second; 512]].concat());
        assert_eq!(outcomes(&disk), BTreeSet::from([torn(1, 1), torn(1, 2), torn(2, 1), torn(2, 2)]));
        disk.take(&step("/d/file", What::Length(512)));
        disk.take(&step("/d/file", What::Sync));
        assert_eq!(outcomes(&disk), BTreeSet::from([Some(vec![2; 512])]));
        disk.take(&step("/d/file", What::Unlink));
        assert_eq!(outcomes(&disk), BTreeSet::from([None, Some(vec![2; 512])]));
    }

    #[test]
    fn a_disk_that_lies_keeps_nothing_for_sure() {
        let mut disk = ForgetfulDisk::that_lies();
        for what in [What::Create, write(0, &[1; 512]), What::Sync] {
            disk.take(&step("/d/file", what));
        }
        disk.take(&step("/d", What::Sync));
        assert!(outcomes(&disk).contains(&None));
    }
}
