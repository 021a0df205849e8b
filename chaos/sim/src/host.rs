//! The machine under a node: the virtual clock with a skew of its own, and the world's dice.

use crate::dice::Dice;
use crate::trace::now_us;
use farshore_primary::host::{Host, Work, Worker};
use std::sync::Arc;

/// 2026-01-01 in microseconds: where the wall clocks begin.
const WALL_START_US: u64 = 1_767_225_600_000_000;

/// One node's machine.
pub struct SimHost {
    dice: Arc<Dice>,
    /// How far this machine's wall clock is off, in microseconds. It decides nothing (law 6).
    skew_us: i64,
    /// This machine's boot time, unlike any other's.
    booted_us: u64,
}

impl SimHost {
    pub fn new(dice: Arc<Dice>) -> Self {
        let skew_us = dice.below(120_000_000) as i64 - 60_000_000;
        let booted_us = dice.below(1_000_000_000);
        SimHost { dice, skew_us, booted_us }
    }
}

impl Host for SimHost {
    fn wall_us(&self) -> u64 {
        (WALL_START_US + now_us()).saturating_add_signed(self.skew_us)
    }

    fn boot_us(&self) -> u64 {
        self.booted_us + now_us()
    }

    fn random(&self) -> [u8; 16] {
        self.dice.id()
    }

    fn run(&self, work: Work) {
        work();
    }

    fn worker(&self, _: &str) -> Box<dyn Worker> {
        Box::new(AtOnce)
    }
}

/// Work is done by whoever hands it over.
struct AtOnce;

impl Worker for AtOnce {
    fn run(&self, work: Work) {
        work();
    }
}
