//! What every part of a world holds: network, buckets, dice, trace, the board of the clients and the judge.

use crate::board::Board;
use crate::bucket::Buckets;
use crate::dice::Dice;
use crate::judge::Judge;
use crate::net::Net;
use crate::trace::Trace;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
    faulty: AtomicBool,
    writing: AtomicBool,
    over: AtomicBool,
    writers: AtomicU64,
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
            faulty: AtomicBool::new(false),
            writing: AtomicBool::new(true),
            over: AtomicBool::new(false),
            writers: AtomicU64::new(0),
        })
    }

    pub fn volume(&self) -> &'static str {
        VOLUME
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

    /// A writer begins.
    pub fn writer_began(&self) {
        self.writers.fetch_add(1, Ordering::Relaxed);
    }

    /// A writer has all its answers, or its session is lost.
    pub fn writer_ended(&self) {
        self.writers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether all writers have ended.
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
