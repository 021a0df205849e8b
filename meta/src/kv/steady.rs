//! Has the state's changed pages written to the disk a little at a time.
//!
//! Nobody waits for them, since the state runs unsynced. But the kernel writes what has been changed for half a minute
//! (`vm.dirty_expire_centisecs`) all at once, and each flush of the log, which a commit waits for, waits behind it: 0.2 s each
//! 30 s in the run of decision 0044. Asked in turn for each part of the file within less than that, it writes the same pages
//! about as often, and never many at a time.
//!
//! Whoever asks also hears whether earlier writes failed. A page that the kernel could not write may be dropped from its cache,
//! and the next read gets an old one: the store takes no further change then (law 24).

use super::StorageError;
use super::background::{Background, Signals};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two parts.
const TICK: Duration = Duration::from_millis(50);
/// Parts of the file: it is gone through in 20 seconds, and a little more when it grows meanwhile.
const PARTS: u32 = 400;
/// How often it is gone through after a change: the second time hears whether the first one's writes have failed.
const ROUNDS: u32 = 2;
/// Parts begin and end with pages.
const PAGE: u64 = 4096;

/// A file that is written so.
trait Pages: Send + 'static {
    /// Its bytes.
    fn length(&self) -> io::Result<u64>;
    /// Begins to write what has changed in `bytes` from `from` on, and says whether an earlier write of the file failed.
    fn write(&self, from: u64, bytes: u64) -> io::Result<()>;
}

/// The thread that asks. Ends when it is dropped.
pub(super) struct Steady(Background);

impl Steady {
    /// For the file at `path`.
    pub fn over(path: &Path) -> io::Result<Steady> {
        Steady::start(File::open(path)?, TICK)
    }

    fn start(pages: impl Pages, tick: Duration) -> io::Result<Steady> {
        Background::start("farshore-state", move |signals| rounds(signals, &pages, tick)).map(Steady)
    }

    /// There are changed pages.
    pub fn changed(&self) {
        self.0.ask();
    }

    /// Refuses once pages were lost.
    pub fn check(&self) -> Result<(), StorageError> {
        self.0.check()
    }
}

/// Goes through the file again and again while it changes.
fn rounds(signals: &Signals, pages: &impl Pages, tick: Duration) {
    let pause_until = |end| signals.pause_until(end, || false);
    let mut left = 0;
    while !signals.is_ending() {
        if signals.take_asked() {
            left = ROUNDS;
        }
        if left == 0 {
            std::thread::park();
            continue;
        }
        left -= 1;
        let (begun, mut from) = (Instant::now(), 0);
        while !signals.is_ending() {
            match write_part(pages, from) {
                Ok(to) if to == from => break,
                Ok(to) => from = to,
                Err(error) if is_loss(&error) => {
                    signals.fail(format!(
                        "changed pages of it could not be written to the disk ({error}), and older ones may be read instead"
                    ));
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "the state's pages are written when the kernel likes: commits may pause meanwhile");
                    return;
                }
            }
            pause_until(Instant::now() + tick);
        }
        // A small file is gone through sooner, and is not written more often for that.
        pause_until(begun + tick * PARTS);
    }
}

/// Where the part that begins at `from` ends; there itself, when the file does.
fn write_part(pages: &impl Pages, from: u64) -> io::Result<u64> {
    let length = pages.length()?;
    if from >= length {
        return Ok(from);
    }
    let bytes = length.div_ceil(u64::from(PARTS)).next_multiple_of(PAGE);
    pages.write(from, bytes)?;
    Ok(from + bytes)
}

/// What the kernel says of pages that it could not write, and not of the call.
fn is_loss(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::ENOSPC))
}

impl Pages for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn write(&self, from: u64, bytes: u64) -> io::Result<()> {
        let offset = |bytes| libc::off64_t::try_from(bytes).map_err(io::Error::other);
        let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE;
        // SAFETY: the descriptor is open as long as the file is borrowed, and the call touches no memory of this process.
        match unsafe { libc::sync_file_range(self.as_raw_fd(), offset(from)?, offset(bytes)?, flags) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lmdb::MAP_SIZE;
    use super::super::{Lmdb, Store};
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Arc, Mutex};

    const FAST: Duration = Duration::from_micros(10);
    const PATIENCE: Duration = Duration::from_secs(60);

    /// Says what it is asked for, and fails when told to.
    struct Told {
        length: u64,
        asked: Sender<(u64, u64)>,
        failure: Failure,
    }

    impl Pages for Told {
        fn length(&self) -> io::Result<u64> {
            Ok(self.length)
        }

        fn write(&self, from: u64, bytes: u64) -> io::Result<()> {
            let _ = self.asked.send((from, bytes));
            let (spared, code) = &mut *self.failure.lock().unwrap();
            if *spared > 0 {
                *spared -= 1;
                return Ok(());
            }
            code.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
        }
    }

    /// How many calls more succeed, and what those behind them fail with.
    type Failure = Arc<Mutex<(u32, Option<i32>)>>;

    fn told(length: u64) -> (Steady, Receiver<(u64, u64)>, Failure) {
        let ((asked, asking), failure) = (channel(), Arc::default());
        (Steady::start(Told { length, asked, failure: Arc::clone(&failure) }, FAST).unwrap(), asking, failure)
    }

    #[test]
    fn a_changed_file_is_gone_through_twice_and_an_idle_one_is_left_alone() {
        let length = 1000 * PAGE + 1;
        let (steady, asking, _) = told(length);
        assert!(asking.recv_timeout(Duration::from_millis(50)).is_err(), "nothing has changed");
        steady.changed();
        for _ in 0..ROUNDS {
            let mut end = 0;
            while end < length {
                let (from, bytes) = asking.recv_timeout(PATIENCE).unwrap();
                assert_eq!((from, bytes), (end, 3 * PAGE), "part by part, without a gap");
                end += bytes;
            }
        }
        assert!(asking.recv_timeout(Duration::from_millis(50)).is_err(), "no more than that for a change");
        steady.changed();
        assert_eq!(asking.recv_timeout(PATIENCE).unwrap().0, 0);
    }

    #[test]
    fn after_a_lost_page_the_store_takes_no_change() {
        let directory = tempfile::tempdir().unwrap();
        let (steady, asking, failure) = told(PAGE);
        let store = Lmdb::open_with(directory.path(), MAP_SIZE, |_| Ok(steady)).unwrap();
        // The first round hears nothing yet, and nothing changes any more.
        *failure.lock().unwrap() = (1, Some(libc::EIO));
        store.write().unwrap().commit().unwrap();
        asking.recv_timeout(PATIENCE).unwrap();
        let begun = std::time::Instant::now();
        let refused = loop {
            assert!(begun.elapsed() < PATIENCE, "it goes on without the page");
            match store.check() {
                Ok(()) => std::thread::yield_now(),
                Err(refused) => break refused.to_string(),
            }
        };
        assert!(refused.contains("could not be written to the disk (Input/output error"), "{refused}");
        assert!(store.replace().is_err() && store.write().is_err() && store.write_light().is_err(), "for good");
    }

    #[test]
    fn a_file_system_that_cannot_do_it_loses_nothing() {
        let (steady, asking, failure) = told(PAGE);
        *failure.lock().unwrap() = (0, Some(libc::ENOSYS));
        steady.changed();
        asking.recv_timeout(PATIENCE).unwrap();
        assert!(asking.recv_timeout(PATIENCE).is_err(), "the thread has ended");
        steady.check().unwrap();
    }
}
