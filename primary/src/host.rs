//! The machine under a node: clocks, randomness, and a place for long synchronous work. Arguments everywhere, so that
//! the simulator runs the same code (law 6).

use std::sync::{Arc, mpsc};
use std::time::{SystemTime, UNIX_EPOCH};

/// What a node takes from its machine.
pub trait Host: Send + Sync + 'static {
    /// Microseconds since 1970 on the wall clock. Stamps files, decides nothing.
    fn wall_us(&self) -> u64;
    /// Microseconds on CLOCK_BOOTTIME: goes on during suspend, never back.
    fn boot_us(&self) -> u64;
    /// 128 random bits.
    fn random(&self) -> [u8; 16];
    /// Runs work that blocks for long (a checkpoint) where it holds up nothing else; in the simulator at once.
    fn run(&self, work: Work);
    /// A thread of its own for work that comes again and again; in the simulator it is done at once.
    fn worker(&self, name: &str) -> Box<dyn Worker>;
}

/// Does one piece of work after the other. Ends when it is dropped.
pub trait Worker: Send + Sync {
    /// Queues a piece of work. Whoever queues waits for it before the next, which bounds the queue (law 27).
    fn run(&self, work: Work);
}

/// A piece of work.
pub type Work = Box<dyn FnOnce() + Send>;

/// A shared [`Host`].
pub type SharedHost = Arc<dyn Host>;

/// The operating system.
#[derive(Debug, Default)]
pub struct OsHost;

impl Host for OsHost {
    fn wall_us(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
    }

    fn boot_us(&self) -> u64 {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is a valid timespec for the call to fill.
        let failed = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
        assert_eq!(failed, 0, "CLOCK_BOOTTIME exists since Linux 2.6.39");
        time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
    }

    fn random(&self) -> [u8; 16] {
        rand::random()
    }

    fn run(&self, work: Work) {
        std::thread::spawn(work);
    }

    fn worker(&self, name: &str) -> Box<dyn Worker> {
        let (sender, queue) = mpsc::channel::<Work>();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || queue.into_iter().for_each(|work| work()));
        thread.expect("the system has room for one more thread when a node starts");
        Box::new(Thread(sender))
    }
}

/// A thread that waits for work.
struct Thread(mpsc::Sender<Work>);

impl Worker for Thread {
    fn run(&self, work: Work) {
        // A thread that died dropped the work, and with it what its owner waits for: it learns so.
        let _ = self.0.send(work);
    }
}
