//! The load of `juicefs bench`: each thread writes and reads one big file, then writes, reads and stats many small ones.

use super::crew::Crew;
use super::ground::Ground;
use super::place::Workload;
use super::tree::content;
use crate::error::CliError;
use serde::Serialize;
use std::time::Duration;

/// Sizes in bytes.
#[derive(Clone, Debug, Serialize)]
pub struct Sizes {
    pub block: u64,
    pub big_file: u64,
    pub small_file: u64,
    /// For each thread.
    pub small_files: u64,
    /// Whether caches are dropped before reading, where that can be done.
    pub drop_caches: bool,
}

/// One line of the table: `None` where there was nothing to do.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Item {
    pub files: u64,
    pub bytes: u64,
    pub took: Duration,
    pub threads: u64,
}

impl Item {
    pub fn mib_per_second(&self) -> f64 {
        self.bytes as f64 / f64::from(1 << 20) / self.took.as_secs_f64()
    }

    pub fn files_per_second(&self) -> f64 {
        self.files as f64 / self.took.as_secs_f64()
    }

    /// What one thread waits for one file.
    pub fn seconds_per_file(&self) -> f64 {
        self.took.as_secs_f64() * self.threads as f64 / self.files as f64
    }
}

#[derive(Debug, Default)]
pub struct Report {
    pub write_big: Option<Item>,
    pub read_big: Option<Item>,
    pub write_small: Option<Item>,
    pub read_small: Option<Item>,
    pub stat: Option<Item>,
    /// Whether reads found no cache of the kernel's.
    pub caches_dropped: bool,
}

pub struct Files(pub Sizes);

impl Workload for Files {
    type Report = Report;

    const DIRECTORY: &'static str = "farshore-bench";

    fn run<G: Ground>(&self, crew: &Crew<G>, work: &G::Dir) -> Result<Report, CliError> {
        let mut report = Report::default();
        if self.0.big_file > 0 {
            let pieces = self.0.big_file.div_ceil(self.0.block);
            let piece = content(self.0.big_file.min(self.0.block) as usize);
            let item = self.item(crew, "Write big file", (1, pieces, &piece), |hand| {
                hand.ground.create(work, &format!("bigfile.{}.0", hand.thread), &piece, pieces, &|| hand.step())
            })?;
            report.write_big = Some(item);
            report.caches_dropped = self.forget(crew);
            let item = self.item(crew, "Read big file", (1, pieces, &piece), |hand| {
                let name = format!("bigfile.{}.0", hand.thread);
                let read = hand.ground.read(work, &name, piece.len(), &|| hand.step())?;
                whole(&name, read, pieces * piece.len() as u64)
            })?;
            report.read_big = Some(item);
            self.remove(crew, work, "bigfile", 1)?;
        }
        if self.0.small_files > 0 && self.0.small_file > 0 {
            self.small(crew, work, &mut report)?;
        }
        Ok(report)
    }
}

impl Files {
    fn small<G: Ground>(&self, crew: &Crew<G>, work: &G::Dir, report: &mut Report) -> Result<(), CliError> {
        let count = self.0.small_files;
        let data = content(self.0.small_file as usize);
        let names = |thread: usize| (0..count).map(move |file| format!("smallfile.{thread}.{file}"));
        let item = self.item(crew, "Write small file", (count, 1, &data), |hand| {
            names(hand.thread).try_for_each(|name| {
                hand.ground.create(work, &name, &data, 1, &|| Ok(()))?;
                hand.step()
            })
        })?;
        report.write_small = Some(item);
        report.caches_dropped = self.forget(crew);
        let item = self.item(crew, "Read small file", (count, 1, &data), |hand| {
            names(hand.thread).try_for_each(|name| {
                let read = hand.ground.read(work, &name, data.len(), &|| Ok(()))?;
                whole(&name, read, data.len() as u64)?;
                hand.step()
            })
        })?;
        report.read_small = Some(item);
        let item = self.item(crew, "Stat file", (count, 1, &[]), |hand| {
            names(hand.thread).try_for_each(|name| {
                hand.ground.stat(work, &name)?;
                hand.step()
            })
        })?;
        report.stat = Some(item);
        self.remove(crew, work, "smallfile", count)
    }

    /// A phase over `(files of each thread, pieces of each file, piece)`.
    fn item<G: Ground>(
        &self,
        crew: &Crew<G>,
        name: &str,
        (files, pieces, piece): (u64, u64, &[u8]),
        work: impl Fn(&super::crew::Hand<'_, G>) -> Result<(), CliError> + Sync,
    ) -> Result<Item, CliError> {
        let threads = crew.threads() as u64;
        let took = crew.phase(name, files * pieces * threads, work)?;
        Ok(Item { files: files * threads, bytes: files * pieces * threads * piece.len() as u64, took, threads })
    }

    fn remove<G: Ground>(&self, crew: &Crew<G>, work: &G::Dir, kind: &str, count: u64) -> Result<(), CliError> {
        let removed = crew.phase("Remove", count * crew.threads() as u64, |hand| {
            (0..count).try_for_each(|file| {
                hand.ground.remove_file(work, &format!("{kind}.{}.{file}", hand.thread))?;
                hand.step()
            })
        });
        removed.map(drop)
    }

    fn forget<G: Ground>(&self, crew: &Crew<G>) -> bool {
        self.0.drop_caches && crew.ground().drop_caches()
    }
}

fn whole(name: &str, read: u64, written: u64) -> Result<(), CliError> {
    if read == written {
        return Ok(());
    }
    Err(CliError::failed(format!("{name} has {read} bytes, {written} were written"), ""))
}
