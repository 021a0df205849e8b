//! What every part of a world holds: network, buckets, dice, trace, the board of the clients, their arena and its history, and
//! the judge.

use crate::board::Board;
use crate::bucket::Buckets;
use crate::dice::Dice;
use crate::judge::Judge;
use crate::net::Net;
use crate::trace::{Trace, now_us};
use farshore_history::{Arena, Record};
use farshore_meta::MACHINE_VERSION;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The name of the simulated volume.
pub const VOLUME: &str = "sim";

/// The parts that all share.
pub struct Common {
    pub dice: Arc<Dice>,
    pub trace: Arc<Trace>,
    pub net: Arc<Net>,
    pub buckets: Arc<Buckets>,
    pub board: Arc<Board>,
    pub judge: Arc<Judge>,
    arena: Mutex<Arena>,
    record: Mutex<Record>,
    faulty: AtomicBool,
    writing: AtomicBool,
    over: AtomicBool,
    writers: AtomicU64,
    /// The place whose node is one version of the state machine behind; beyond all places: none is.
    older: AtomicUsize,
}

impl Common {
    pub fn new(net: Arc<Net>, buckets: Arc<Buckets>, judge: Arc<Judge>) -> Arc<Self> {
        Arc::new(Common {
            dice: net.dice.clone(),
            trace: net.trace.clone(),
            net,
            buckets,
            board: Arc::default(),
            judge,
            arena: Mutex::new(Arena::new(0, true)),
            record: Mutex::default(),
            faulty: AtomicBool::new(false),
            writing: AtomicBool::new(true),
            over: AtomicBool::new(false),
            writers: AtomicU64::new(0),
            older: AtomicUsize::new(usize::MAX),
        })
    }

    /// What callers do next.
    pub fn arena(&self) -> MutexGuard<'_, Arena> {
        self.arena.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What became of it.
    pub fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time of the record, in nanoseconds.
    pub fn record_time(&self) -> u64 {
        now_us() * 1000
    }

    pub fn volume(&self) -> &'static str {
        VOLUME
    }

    /// The node that starts at this place next knows one version less; `None`: all know the newest.
    pub fn set_older(&self, at: Option<usize>) {
        self.older.store(at.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// The version of the state machine that a node knows which starts at this place now.
    pub fn machine(&self, at: usize) -> u32 {
        if self.older.load(Ordering::Relaxed) == at { MACHINE_VERSION - 1 } else { MACHINE_VERSION }
    }

    /// Whether workers may fail.
    pub fn is_faulty(&self) -> bool {
        self.faulty.load(Ordering::Relaxed)
    }

    pub fn set_faulty(&self, faulty: bool) {
        self.faulty.store(faulty, Ordering::Relaxed);
    }

    /// Whether writers begin new operations.
    pub fn is_writing(&self) -> bool {
        self.writing.load(Ordering::Relaxed)
    }

    pub fn stop_writing(&self) {
        self.writing.store(false, Ordering::Relaxed);
    }

    /// A writer or a caller begins.
    pub fn writer_began(&self) {
        self.writers.fetch_add(1, Ordering::Relaxed);
    }

    /// It has all its answers, or its session is lost.
    pub fn writer_ended(&self) {
        self.writers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether all writers and callers have ended.
    pub fn is_quiet(&self) -> bool {
        self.writers.load(Ordering::Relaxed) == 0
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
