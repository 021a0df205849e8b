//! A thread that works for a store when it is asked to, says what failed, and ends when it is dropped.

use super::StorageError;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Instant;

/// What the thread and its owner tell each other.
#[derive(Default)]
pub(super) struct Signals {
    asked: AtomicBool,
    ending: AtomicBool,
    failed: OnceLock<String>,
}

impl Signals {
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// Whether work was asked for since the last call.
    pub fn take_asked(&self) -> bool {
        self.asked.swap(false, Ordering::AcqRel)
    }

    /// Something that was committed is lost, and why.
    pub fn fail(&self, why: String) {
        self.failed.get_or_init(|| why);
    }

    /// Waits until `end`, or for less when `enough` says so at a waking, or the thread ends.
    pub fn pause_until(&self, end: Instant, enough: impl Fn() -> bool) {
        while !self.is_ending() && !enough() {
            let rest = end.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return;
            }
            std::thread::park_timeout(rest);
        }
    }
}

/// The owner's side.
pub(super) struct Background {
    signals: Arc<Signals>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    pub fn start(name: &str, run: impl FnOnce(&Signals) + Send + 'static) -> io::Result<Background> {
        let signals: Arc<Signals> = Arc::default();
        let theirs = signals.clone();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&theirs))?;
        Ok(Background { signals, thread: Some(thread) })
    }

    /// There is work.
    pub fn ask(&self) {
        if !self.signals.asked.swap(true, Ordering::AcqRel) {
            self.wake();
        }
    }

    pub fn wake(&self) {
        self.thread.iter().for_each(|thread| thread.thread().unpark());
    }

    /// Refuses once something is lost.
    pub fn check(&self) -> Result<(), StorageError> {
        match self.signals.failed.get() {
            None => Ok(()),
            Some(why) => Err(StorageError::Backend(why.clone())),
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.signals.ending.store(true, Ordering::Release);
        self.wake();
        if let Some(thread) = self.thread.take() {
            // It has said what it has to say.
            let _ = thread.join();
        }
    }
}
