//! A preallocated file that is appended to and synced, and how long the syncs took.

use crate::Figures;
use std::fs::{File, OpenOptions};
use std::io::{Result, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Zero-filled in advance, so that a sync writes data and no metadata; writing starts again at 0 at its end.
const FILE_BYTES: usize = 64 << 20;
/// Times kept at most: 10,000 syncs a second for 100 seconds.
const TIMES_MAX: usize = 1_000_000;

/// A file that only grows, up to where it starts again.
pub struct LogFile {
    file: File,
    end: u64,
}

impl LogFile {
    pub fn create(path: &Path) -> Result<LogFile> {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).read(true).open(path)?;
        let zeros = vec![0; 1 << 20];
        for _ in 0..FILE_BYTES / zeros.len() {
            file.write_all(&zeros)?;
        }
        file.sync_all()?;
        Ok(LogFile { file, end: 0 })
    }

    /// Appends and syncs; answers how long the sync took.
    pub fn append(&mut self, bytes: &[u8]) -> Result<Duration> {
        assert!(bytes.len() <= FILE_BYTES, "one append fits into the file");
        if self.end as usize + bytes.len() > FILE_BYTES {
            self.end = 0;
        }
        self.file.write_all_at(bytes, self.end)?;
        self.end += bytes.len() as u64;
        let begun = Instant::now();
        self.file.sync_data()?;
        Ok(begun.elapsed())
    }
}

/// How long each of many things took.
#[derive(Default)]
pub struct SyncTimes(Vec<Duration>);

impl SyncTimes {
    pub fn add(&mut self, time: Duration) {
        if self.0.len() < TIMES_MAX {
            self.0.push(time);
        }
    }

    pub fn extend(&mut self, other: SyncTimes) {
        self.0.extend(other.0);
    }

    /// How many there were; exact below the bound.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that `share` (0 to 1) of all did not exceed, in milliseconds; 0 when there was none.
    pub fn quantile_ms(&mut self, share: f64) -> f64 {
        self.0.sort_unstable();
        let at = ((self.0.len() as f64 * share) as usize).min(self.0.len().saturating_sub(1));
        self.0.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    }

    /// The part of the figures that is about syncs.
    pub fn figures(&mut self, ran: Duration) -> Figures {
        let per_second = self.count() as f64 / ran.as_secs_f64();
        Figures {
            seconds: ran.as_secs_f64(),
            fdatasyncs_per_second: per_second,
            fdatasync_p50_ms: self.quantile_ms(0.5),
            fdatasync_p99_ms: self.quantile_ms(0.99),
            ..Figures::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_sorted_times() {
        let mut times = SyncTimes::default();
        (1..=100).rev().for_each(|ms| times.add(Duration::from_millis(ms)));
        assert_eq!((times.quantile_ms(0.5), times.quantile_ms(0.99), times.quantile_ms(1.0)), (51.0, 100.0, 100.0));
        assert_eq!(SyncTimes::default().quantile_ms(0.5), 0.0);
    }

    #[test]
    fn the_file_keeps_its_size_and_starts_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = LogFile::create(&path).unwrap();
        log.end = FILE_BYTES as u64 - 2;
        log.append(b"abc").unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!((bytes.len(), &bytes[..4]), (FILE_BYTES, &b"abc\0"[..]));
    }
}
