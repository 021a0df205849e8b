//! The writer thread: owns the files, takes all that waits, writes it with one write, flushes it with one fdatasync.
//!
//! While a flush is under way, appends collect in the queue; the next round takes them all (up to a batch's bound).
//! Callbacks run on this thread, in the order of the operations, without any lock held.
//!
//! Once a write or flush has failed, everything queued and everything later is refused (law 24).

use crate::Entry;
use crate::error::LogError;
use crate::files::{LogFiles, lock};
use crate::format::MAX_BATCH_BYTES;
use crate::log::Done;
use crate::segment;
use crate::view::View;
use farshore_types::RaftIndex;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// How many operations may wait; one more waits in `append` until there is room.
pub const QUEUE_OPERATIONS: usize = 4096;
/// How many bytes of entries may wait; a first operation is always taken, however large.
pub const QUEUE_BYTES: usize = 32 << 20;

/// What the writer is asked to do.
pub(crate) enum Action {
    Append(Vec<Entry>),
    /// All entries from this index on are void.
    Truncate(RaftIndex),
    /// All entries up to this index (inclusive) are purged.
    Purge(RaftIndex),
    DiscardUntrusted,
    ClearFailure,
}

struct Work {
    ticket: u64,
    bytes: usize,
    action: Action,
    done: Done,
}

/// What the writer and its users share.
pub(crate) struct State {
    queue: VecDeque<Work>,
    queued_bytes: usize,
    tickets: u64,
    pub view: View,
    pub failure: Option<LogError>,
    closing: bool,
    /// The active segment is half full: the next one should be made.
    spare_wanted: bool,
}

pub(crate) struct Shared {
    pub state: Mutex<State>,
    work: Condvar,
    room: Condvar,
    spare: Condvar,
}

fn wait<'a>(condition: &Condvar, guard: std::sync::MutexGuard<'a, State>) -> std::sync::MutexGuard<'a, State> {
    condition.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub fn new(view: View, failure: Option<LogError>) -> Shared {
        let state =
            State { queue: VecDeque::new(), queued_bytes: 0, tickets: 0, view, failure, closing: false, spare_wanted: false };
        Shared { state: Mutex::new(state), work: Condvar::new(), room: Condvar::new(), spare: Condvar::new() }
    }

    /// Queues an action that `admit` lets in and notes in the view. A refusal goes to `done` at once.
    pub fn submit(&self, action: Action, done: Done, admit: impl FnOnce(&mut State, u64, &Action) -> Result<(), LogError>) {
        let bytes = match &action {
            Action::Append(entries) => entries.iter().map(|(_, payload)| payload.len()).sum(),
            _ => 0,
        };
        let mut state = lock(&self.state);
        while state.is_full(bytes) && !state.closing && state.failure.is_none() {
            state = wait(&self.room, state);
        }
        let ticket = state.tickets + 1;
        let admitted = if state.closing { Err(LogError::Closed) } else { admit(&mut state, ticket, &action) };
        match admitted {
            Ok(()) => {
                state.tickets = ticket;
                state.queued_bytes += bytes;
                state.queue.push_back(Work { ticket, bytes, action, done });
                self.work.notify_one();
            }
            Err(error) => {
                drop(state);
                done(Err(error));
            }
        }
    }

    /// Asks both threads to end; the writer does what is queued first.
    pub fn close(&self) {
        lock(&self.state).closing = true;
        self.work.notify_all();
        self.room.notify_all();
        self.spare.notify_all();
    }

    /// Waits for work and takes one group of it; `None` when there is none and none will come.
    fn take(&self) -> Option<Vec<Work>> {
        let mut state = lock(&self.state);
        while state.queue.is_empty() {
            if state.closing {
                return None;
            }
            state = wait(&self.work, state);
        }
        let group = state.take_group();
        self.room.notify_all();
        Some(group)
    }
}

impl State {
    fn is_full(&self, bytes: usize) -> bool {
        let too_much = self.queued_bytes + bytes > QUEUE_BYTES && !self.queue.is_empty();
        too_much || self.queue.len() >= QUEUE_OPERATIONS
    }

    /// The first operation, and with a truncation or an append the appends right behind it.
    fn take_group(&mut self) -> Vec<Work> {
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Some(work) = self.queue.front() {
            let joins = match (&work.action, group.last().map(|last: &Work| &last.action)) {
                (_, None) => true,
                (Action::Append(_), Some(Action::Append(_) | Action::Truncate(_))) => bytes + work.bytes <= MAX_BATCH_BYTES / 2,
                _ => false,
            };
            if !joins {
                break;
            }
            bytes += work.bytes;
            self.queued_bytes -= work.bytes;
            group.extend(self.queue.pop_front());
        }
        group
    }
}

/// Marks the log closed when the writer ends, however it ends: nobody waits for a thread that is gone.
struct Farewell(Arc<Shared>);

impl Drop for Farewell {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.closing = true;
        let abandoned = std::mem::take(&mut state.queue);
        state.failure.get_or_insert(LogError::Closed);
        drop(state);
        self.0.room.notify_all();
        self.0.spare.notify_all();
        drop(abandoned);
    }
}

/// The writer's loop.
pub(crate) fn run(shared: Arc<Shared>, mut files: LogFiles) {
    let farewell = Farewell(shared);
    let shared = &farewell.0;
    while let Some(group) = shared.take() {
        let ticket = group.last().map_or(0, |work| work.ticket);
        let (actions, dones): (Vec<_>, Vec<_>) = group.into_iter().map(|work| (work.action, work.done)).unzip();
        let outcome = perform(&mut files, actions);
        let mut state = lock(&shared.state);
        match &outcome {
            Ok(()) => {
                state.view.complete(ticket);
                if files.is_spare_due() {
                    state.spare_wanted = true;
                    shared.spare.notify_one();
                }
            }
            // What the files did not take as a failure of the log (a segment that could not be removed) is not one.
            Err(_) if files.failure().is_none() => state.view.complete(ticket),
            Err(_) => state.view.fail(),
        }
        state.failure = files.failure();
        let refused = if state.failure.is_some() { std::mem::take(&mut state.queue) } else { VecDeque::new() };
        if let Some(failure) = state.failure.clone() {
            state.queued_bytes = 0;
            drop(state);
            shared.room.notify_all();
            dones.into_iter().for_each(|done| done(outcome.clone()));
            refused.into_iter().for_each(|work| (work.done)(Err(failure.clone())));
        } else {
            drop(state);
            dones.into_iter().for_each(|done| done(outcome.clone()));
        }
    }
}

fn perform(files: &mut LogFiles, actions: Vec<Action>) -> Result<(), LogError> {
    let mut cut = None;
    let mut entries = Vec::new();
    for action in actions {
        match action {
            Action::Append(more) if entries.is_empty() => entries = more,
            Action::Append(more) => entries.extend(more),
            Action::Truncate(from) => cut = Some(from),
            Action::Purge(upto) => return files.purge(upto),
            Action::DiscardUntrusted => return files.discard_untrusted(),
            Action::ClearFailure => return files.clear_failure(),
        }
    }
    files.write(cut, &entries)?;
    files.sync()
}

/// The loop of the thread that makes the next segment while the active one fills, so that no append waits for it.
pub(crate) fn run_spares(shared: Arc<Shared>, kit: crate::files::SpareKit) {
    let mut state = lock(&shared.state);
    loop {
        while !state.spare_wanted && !state.closing {
            state = wait(&shared.spare, state);
        }
        if state.closing {
            return;
        }
        drop(state);
        {
            let mut slot = lock(&kit.slot);
            if slot.is_none() {
                // On failure the writer tries again when it needs the segment, and then reports why it cannot.
                *slot = segment::make_spare(kit.disk.as_ref(), &kit.dir, kit.segment_bytes).ok();
            }
        }
        state = lock(&shared.state);
        state.spare_wanted = false;
    }
}
