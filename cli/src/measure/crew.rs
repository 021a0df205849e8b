//! The threads that work, phase after phase: started together, timed from the first to the last, stopped between two
//! operations when the user asks for it.

use super::ground::Ground;
use crate::error::CliError;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

/// Threads at most (law 27).
pub const THREADS_MAX: u64 = 4096;

/// Whether the load must end before its time. Clones are the same flag.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// An error once it was asked for.
    pub fn check(&self) -> Result<(), CliError> {
        if self.0.load(Ordering::Relaxed) {
            return Err(CliError::failed("interrupted", "what the load had made was removed again"));
        }
        Ok(())
    }
}

/// Threads with their file systems.
pub struct Crew<G> {
    grounds: Vec<G>,
    stop: Stop,
    quiet: bool,
}

/// What one thread has of a phase.
pub struct Hand<'a, G> {
    pub ground: &'a G,
    pub thread: usize,
    stop: &'a Stop,
    bar: &'a ProgressBar,
}

impl<G> Hand<'_, G> {
    /// One operation is done.
    pub fn step(&self) -> Result<(), CliError> {
        self.bar.inc(1);
        self.stop.check()
    }
}

impl<G: Ground> Crew<G> {
    /// One thread for each of `grounds`. Progress is shown on a terminal, unless it is to be `quiet`.
    pub fn new(grounds: Vec<G>, stop: Stop, quiet: bool) -> Crew<G> {
        assert!(!grounds.is_empty(), "a crew has a thread");
        Crew { grounds, stop, quiet }
    }

    pub fn threads(&self) -> usize {
        self.grounds.len()
    }

    /// The first thread's file system, for what is not measured.
    pub fn ground(&self) -> &G {
        &self.grounds[0]
    }

    /// Every thread does `work` once; the time from their common start until the last has ended. The first error counts.
    pub fn phase(
        &self,
        name: &str,
        steps: u64,
        work: impl Fn(&Hand<'_, G>) -> Result<(), CliError> + Sync,
    ) -> Result<Duration, CliError> {
        self.some(name, steps, self.grounds.len(), work)
    }

    /// As [`Crew::phase`], by the first thread alone.
    pub fn alone(
        &self,
        name: &str,
        steps: u64,
        work: impl Fn(&Hand<'_, G>) -> Result<(), CliError> + Sync,
    ) -> Result<Duration, CliError> {
        self.some(name, steps, 1, work)
    }

    fn some(
        &self,
        name: &str,
        steps: u64,
        threads: usize,
        work: impl Fn(&Hand<'_, G>) -> Result<(), CliError> + Sync,
    ) -> Result<Duration, CliError> {
        let bar = self.bar(name, steps);
        let start = Barrier::new(threads + 1);
        let (begun, results) = std::thread::scope(|scope| {
            let hired = self.grounds.iter().take(threads).enumerate().map(|(thread, ground)| {
                let hand = Hand { ground, thread, stop: &self.stop, bar: &bar };
                let (start, work) = (&start, &work);
                scope.spawn(move || {
                    start.wait();
                    self.stop.check().and_then(|()| work(&hand))
                })
            });
            let hired: Vec<_> = hired.collect();
            start.wait();
            let begun = Instant::now();
            let done = |hired: std::thread::ScopedJoinHandle<'_, Result<(), CliError>>| match hired.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            (begun, hired.into_iter().map(done).collect::<Vec<_>>())
        });
        let took = begun.elapsed();
        bar.finish_and_clear();
        results.into_iter().collect::<Result<(), CliError>>().map(|()| took)
    }

    fn bar(&self, name: &str, steps: u64) -> ProgressBar {
        if self.quiet {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{prefix:22} {bar:30} {pos}/{len} {per_sec} {eta}").expect("a fixed template");
        ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr()).with_style(style).with_prefix(name.to_owned())
    }
}
