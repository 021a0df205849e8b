//! The leader: callers, batches, and the majority.
//!
//! Four threads and a runtime for the callers. The intake takes all who wait, at most a batch; while as many batches as
//! allowed are on their way it waits, and so batches grow by themselves. The log thread syncs what it got in one go, two
//! listeners hear from the followers, and whoever moves the second-highest of the three positions acknowledges.

use crate::disk::{LogFile, SyncTimes};
use crate::{BATCH_MAX, Figures, REQUEST_BYTES};
use std::collections::VecDeque;
use std::io::{Error, Read, Result, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

type Waiting = oneshot::Sender<()>;

/// How far each of the three files is safe, and who waits for what.
#[derive(Default)]
struct Positions {
    safe: [u64; 3],
    /// Batches on their way: the position at their end, and their callers.
    waiting: VecDeque<(u64, Vec<Waiting>)>,
    failed: bool,
}

#[derive(Default)]
struct Majority {
    positions: Mutex<Positions>,
    moved: Condvar,
}

impl Majority {
    fn positions(&self) -> MutexGuard<'_, Positions> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// File `which` is safe up to `position`.
    fn advance(&self, which: usize, position: u64) {
        let mut done = Vec::new();
        let mut positions = self.positions();
        positions.safe[which] = position;
        let safe = of_two(positions.safe);
        while positions.waiting.front().is_some_and(|(end, _)| *end <= safe) {
            done.extend(positions.waiting.pop_front());
        }
        drop(positions);
        if !done.is_empty() {
            self.moved.notify_one();
        }
        for caller in done.into_iter().flat_map(|(_, callers)| callers) {
            let _ = caller.send(());
        }
    }

    fn fail(&self) {
        let mut positions = self.positions();
        positions.failed = true;
        positions.waiting.clear();
        self.moved.notify_one();
    }

    /// Notes a batch that ends at `end`, once fewer than `in_flight` are on their way; false when a disk failed.
    fn enter(&self, end: u64, callers: Vec<Waiting>) -> bool {
        let mut positions = self.positions();
        if !positions.failed {
            positions.waiting.push_back((end, callers));
        }
        !positions.failed
    }

    fn wait_for_room(&self, in_flight: u64) {
        let positions = self.positions();
        let full = |positions: &mut Positions| !positions.failed && positions.waiting.len() as u64 >= in_flight;
        drop(self.moved.wait_while(positions, full).unwrap_or_else(PoisonError::into_inner));
    }
}

/// The position that two of three have reached.
fn of_two(mut safe: [u64; 3]) -> u64 {
    safe.sort_unstable();
    safe[1]
}

/// Runs `callers` for `length`, and says what was reached.
pub fn run(callers: usize, length: Duration, in_flight: u64, own: LogFile, followers: Vec<TcpStream>) -> Result<Figures> {
    assert_eq!(followers.len(), 2, "two followers make three");
    let majority = Arc::new(Majority::default());
    let (to_log, log_queue) = channel::sync_channel::<Vec<u8>>(BATCH_MAX);
    let log = {
        let majority = majority.clone();
        thread::spawn(move || write_log(own, &log_queue, &majority))
    };
    for (which, stream) in followers.iter().enumerate() {
        let (mut stream, majority) = (stream.try_clone()?, majority.clone());
        thread::spawn(move || {
            let mut position = [0; 8];
            while stream.read_exact(&mut position).is_ok() {
                majority.advance(which + 1, u64::from_le_bytes(position));
            }
        });
    }
    let (asking, asked) = mpsc::channel::<Waiting>(callers.max(1));
    let intake = {
        let majority = majority.clone();
        thread::spawn(move || take_in(asked, in_flight, &to_log, followers, &majority))
    };
    let begun = Instant::now();
    let mut latencies = call(callers, length, asking)?;
    let ran = begun.elapsed();
    let batches = intake.join().map_err(|_| Error::other("the intake panicked"))??;
    let mut syncs = log.join().map_err(|_| Error::other("the log panicked"))??;
    let mut figures = syncs.figures(ran);
    figures.callers = callers;
    figures.ops_per_second = latencies.count() as f64 / ran.as_secs_f64();
    figures.batches_per_second = batches as f64 / ran.as_secs_f64();
    figures.latency_p50_ms = latencies.quantile_ms(0.5);
    figures.latency_p99_ms = latencies.quantile_ms(0.99);
    Ok(figures)
}

/// Callers, each with one request at a time.
fn call(callers: usize, length: Duration, asking: mpsc::Sender<Waiting>) -> Result<SyncTimes> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    let ended = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (asking, ended) = (asking.clone(), ended.clone());
            runtime.spawn(async move {
                let mut times = SyncTimes::default();
                while !ended.load(Ordering::Relaxed) {
                    let (answer, waiting) = oneshot::channel();
                    let begun = Instant::now();
                    if asking.send(answer).await.is_err() || waiting.await.is_err() {
                        return Err(Error::other("a disk failed under the callers"));
                    }
                    times.add(begun.elapsed());
                }
                Ok(times)
            })
        })
        .collect();
    drop(asking);
    thread::sleep(length);
    ended.store(true, Ordering::Relaxed);
    let mut all = SyncTimes::default();
    for task in tasks {
        all.extend(runtime.block_on(task).map_err(|_| Error::other("a caller panicked"))??);
    }
    Ok(all)
}

/// Makes batches until there are no callers any more; answers how many.
fn take_in(
    mut asked: mpsc::Receiver<Waiting>,
    in_flight: u64,
    to_log: &channel::SyncSender<Vec<u8>>,
    mut followers: Vec<TcpStream>,
    majority: &Majority,
) -> Result<u64> {
    let (mut end, mut batches) = (0, 0);
    loop {
        majority.wait_for_room(in_flight);
        let mut callers = Vec::with_capacity(BATCH_MAX);
        let Some(first) = asked.blocking_recv() else { return Ok(batches) };
        callers.push(first);
        while callers.len() < BATCH_MAX
            && let Ok(next) = asked.try_recv()
        {
            callers.push(next);
        }
        let batch = vec![7; callers.len() * REQUEST_BYTES];
        (end, batches) = (end + batch.len() as u64, batches + 1);
        if !majority.enter(end, callers) {
            return Err(Error::other("the leader's disk failed"));
        }
        for follower in &mut followers {
            follower.write_all(&batch)?;
        }
        to_log.send(batch).map_err(|_| Error::other("the log has ended"))?;
    }
}

/// Appends all batches that wait, syncs once, again and again, until the intake has ended.
fn write_log(mut log: LogFile, queue: &channel::Receiver<Vec<u8>>, majority: &Majority) -> Result<SyncTimes> {
    let (mut times, mut end) = (SyncTimes::default(), 0);
    while let Ok(mut bytes) = queue.recv() {
        queue.try_iter().take(BATCH_MAX).for_each(|more| bytes.extend(more));
        match log.append(&bytes) {
            Ok(time) => times.add(time),
            Err(error) => {
                majority.fail();
                return Err(error);
            }
        }
        end += bytes.len() as u64;
        majority.advance(0, end);
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_acknowledged_by_two_of_three() {
        assert_eq!(of_two([5, 0, 0]), 0);
        assert_eq!(of_two([5, 3, 0]), 3);
        assert_eq!(of_two([0, 3, 9]), 3);
        let majority = Majority::default();
        let (answer, mut waiting) = oneshot::channel();
        assert!(majority.enter(200, vec![answer]));
        majority.advance(0, 200);
        assert!(waiting.try_recv().is_err(), "one disk is no majority");
        majority.advance(2, 199);
        assert!(waiting.try_recv().is_err(), "a part of the batch is not the batch");
        majority.advance(2, 200);
        assert!(waiting.try_recv().is_ok());
    }

    #[test]
    fn a_failed_disk_ends_the_callers_and_never_acknowledges() {
        let majority = Majority::default();
        let (answer, mut waiting) = oneshot::channel();
        assert!(majority.enter(200, vec![answer]));
        majority.fail();
        assert_eq!(waiting.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert!(!majority.enter(400, vec![]));
        majority.wait_for_room(0);
    }
}
