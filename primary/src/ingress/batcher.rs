//! Requests of all sessions become shared entries: what waits when an entry is made goes into it, up to a bound, and
//! the next entry is on its way while the last one syncs, if it is worth a flush of its own (decisions 0042, 0043 and 0045).

use super::refuse::{not_leader, refused};
use crate::node::{Node, Pending, ProposeError};
use crate::proposal::Proposal;
use crate::raft::types::{Refusal, Response};
use crate::telemetry;
use farshore_meta::kv::{KvRead, Store};
use farshore_types::{
    ErrorKind, Ino, LEASES_VERSION, LogIndex, NewNode, Op, Outcome, Query, QueryReply, Reply, Sequence, SessionId,
    SessionRequest, SharedBody,
};
use farshore_wire::encode;
use farshore_wire::v1::{self, refused::Kind, server_frame::Frame};
use openraft::AsyncRuntime;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// Requests in one entry, inclusive.
const BATCH: usize = farshore_meta::MAX_ENTRY_REQUESTS;
/// Encoded bytes after which an entry takes no further request.
const BATCH_BYTES: usize = 256 << 10;
/// Entries under way at once while none of them need be full: one syncs while the other is applied and the next fills. With
/// more of them each carries less, and every entry has a price of its own in six logs and six states.
const IN_FLIGHT: usize = 2;
/// Entries under way at once when those that follow are full; past it, requests wait in the queue. A flush takes all that came
/// during the one before it.
const FULL_IN_FLIGHT: usize = 4;
/// After a flush of at least so long, in microseconds, the next entry does not wait for the last of the callers: the disk has
/// nothing to do until it comes. What a shorter one costs is less than what one more entry does.
const SLOW_FLUSH_US: u64 = 1_500;

/// Requests that were taken out of the queue and have no entry yet, at most [`BATCH`].
#[derive(Default)]
struct Waiting {
    requests: Vec<Queued>,
    /// Of how many the bytes are counted.
    counted: usize,
    bytes: usize,
}

impl Waiting {
    fn room(&self) -> usize {
        BATCH - self.requests.len()
    }

    /// Counts the bytes of those that came.
    fn count(&mut self) {
        self.bytes += bytes_of(&self.requests[self.counted..]);
        self.counted = self.requests.len();
    }

    fn fill_an_entry(&self) -> bool {
        self.requests.len() >= BATCH || self.bytes >= BATCH_BYTES
    }

    /// As many as one entry takes, at least one if there is one, in their order.
    fn take(&mut self) -> Vec<Queued> {
        let mut bytes = 0;
        let fitting = self.requests.iter().take_while(|queued| {
            bytes += queued.bytes;
            bytes <= BATCH_BYTES
        });
        let taken = fitting.count().max(1).min(self.requests.len());
        let batch: Vec<Queued> = self.requests.drain(..taken).collect();
        self.counted -= taken;
        self.bytes -= bytes_of(&batch);
        batch
    }
}

fn bytes_of(queued: &[Queued]) -> usize {
    queued.iter().map(|queued| queued.bytes).sum()
}

/// What is under way.
#[derive(Default)]
struct UnderWay {
    entries: usize,
    requests: usize,
    /// Most requests that waited or were under way at one time; a sixteenth is forgotten with each entry.
    callers: usize,
    /// When the last of them set out, on the boot clock, in microseconds.
    set_out: u64,
    /// A slow flush has ended since, and the log has nothing to flush.
    disk_rests: bool,
}

impl UnderWay {
    fn sees(&mut self, waiting: &Waiting) {
        self.callers = self.callers.max(self.requests + waiting.requests.len());
    }

    /// Whether an entry with those that wait sets out now. Callers who were answered just now ask again soon: an entry that left
    /// with a few before them would have a flush to itself, and they would wait for the next but one.
    fn admits(&self, waiting: &Waiting) -> bool {
        let enough = if self.disk_rests { (self.callers * 3).div_ceil(8) } else { self.callers.div_ceil(2) };
        match self.entries {
            0 => !waiting.requests.is_empty(),
            entries if entries < IN_FLIGHT => waiting.requests.len() >= enough || waiting.fill_an_entry(),
            entries => entries < FULL_IN_FLIGHT && waiting.fill_an_entry(),
        }
    }

    fn sets_out(&mut self, now: u64, requests: usize) {
        self.entries += 1;
        self.requests += requests;
        self.callers -= self.callers.div_ceil(16);
        self.set_out = now;
        self.disk_rests = false;
    }

    /// The log has flushed all that it has.
    fn flushed(&mut self, now: u64) {
        self.disk_rests = now.saturating_sub(self.set_out) >= SLOW_FLUSH_US;
    }

    fn ends(&mut self, requests: usize) {
        self.entries -= 1;
        self.requests -= requests;
    }
}

/// One entry's place among those under way; says how many requests it carried when it is given back, however that comes.
struct Place {
    requests: usize,
    back: mpsc::Sender<usize>,
}

impl Drop for Place {
    fn drop(&mut self) {
        // There is room for all entries; nobody hears it when the node is gone.
        let _ = self.back.try_send(self.requests);
    }
}

/// A request that waits for its entry.
pub struct Queued {
    pub request: SessionRequest,
    /// Length of the encoded operation, in bytes.
    pub bytes: usize,
    /// What it makes is to be held open.
    pub open: bool,
}

/// Who waits for an answer.
struct Wanted {
    session: SessionId,
    sequence: Sequence,
    open: bool,
    /// The number of what it makes, where the session gave it: held open before it is made, since a program has it open.
    number: Option<Ino>,
    /// Where it makes a directory.
    parent: Option<Ino>,
}

/// What time it is, if the log has flushed all that it has.
fn all_flushed<R: AsyncRuntime, S: Store>(node: &Weak<Node<R, S>>) -> Option<u64> {
    let node = node.upgrade()?;
    (node.log.flushed() == node.log.last()).then(|| node.host.boot_us())
}

/// Empties the queue until the node is dropped; `flushes` is notified at the end of each of the log's.
pub async fn run<R: AsyncRuntime, S: Store>(node: Weak<Node<R, S>>, mut queue: mpsc::Receiver<Queued>, flushes: Arc<Notify>) {
    let (back, mut ended) = mpsc::channel(FULL_IN_FLIGHT);
    let mut under_way = UnderWay::default();
    let mut waiting = Waiting::default();
    let mut flush = std::pin::pin!(flushes.notified());
    loop {
        while waiting.room() > 0 {
            let Ok(next) = queue.try_recv() else { break };
            waiting.requests.push(next);
        }
        waiting.count();
        under_way.sees(&waiting);
        if !under_way.admits(&waiting) {
            let room = waiting.room();
            tokio::select! {
                biased;
                Some(requests) = ended.recv() => under_way.ends(requests),
                () = &mut flush => {
                    flush.set(flushes.notified());
                    if let Some(now) = all_flushed(&node) {
                        under_way.flushed(now);
                    }
                }
                taken = queue.recv_many(&mut waiting.requests, room), if room > 0 => if taken == 0 { return },
            }
            continue;
        }
        let Some(node) = node.upgrade() else { return };
        let (wanted, batch) = batch_of(waiting.take());
        under_way.sets_out(node.host.boot_us(), wanted.len());
        let place = Place { requests: wanted.len(), back: back.clone() };
        for (session, ino) in wanted.iter().filter_map(|wanted| Some((wanted.session, wanted.number?))) {
            node.hub.open(session, ino);
        }
        match submit(&node, batch).await {
            Ok(pending) => drop(R::spawn(async move {
                let began = node.host.boot_us();
                let result = node.finish(pending).await;
                telemetry::committed(Duration::from_micros(node.host.boot_us() - began));
                answer(&node, &wanted, result);
                drop(place);
            })),
            Err(error) => answer(&node, &wanted, Err(error)),
        }
    }
}

/// An entry's requests and who waits for them, each session's in its order and together: the entry is shorter so.
fn batch_of(mut batch: Vec<Queued>) -> (Vec<Wanted>, Vec<SessionRequest>) {
    batch.sort_by_key(|queued| queued.request.session);
    let of = |Queued { request, open, .. }: Queued| {
        let number = if let Op::MakeAs { ino, .. } = request.op { ino.filter(|_| open) } else { None };
        let parent = match &request.op {
            Op::Make { parent, node, .. } | Op::MakeAs { parent, node, .. } if *node == NewNode::Directory => Some(*parent),
            _ => None,
        };
        (Wanted { session: request.session, sequence: request.sequence, open, number, parent }, request)
    };
    batch.into_iter().map(of).unzip()
}

async fn submit<R: AsyncRuntime, S: Store>(
    node: &Arc<Node<R, S>>,
    batch: Vec<SessionRequest>,
) -> Result<Pending<R>, ProposeError> {
    let header = node.header().map_err(|error| ProposeError::Unknown(error.to_string()))?;
    let entry = node.entry(&header, SharedBody::Batch(batch));
    node.submit(&Proposal::Shared(farshore_meta::encode_entry(&entry))).await
}

fn answer<R: AsyncRuntime, S: Store>(node: &Arc<Node<R, S>>, wanted: &[Wanted], result: Result<Response, ProposeError>) {
    let refusal = match result {
        Ok(Response::Shared { index, outcomes }) => return reply(node, wanted, index, &outcomes),
        Ok(Response::Refused { why: Refusal::Frozen | Refusal::WrongEpoch, .. }) => {
            refused(Kind::Fenced, "this cluster may not write in the present epoch; ask the primary")
        }
        Ok(other) => refused(Kind::NotReady, format!("the entry was not taken: {other:?}")),
        Err(ProposeError::NotLeader { leader }) => not_leader(leader),
        Err(ProposeError::Unknown(why)) => refused(Kind::NotReady, why),
    };
    let mut sessions: Vec<SessionId> = wanted.iter().map(|wanted| wanted.session).collect();
    sessions.dedup();
    sessions.into_iter().for_each(|session| node.hub.refuse(session, refusal.clone()));
}

fn reply<R: AsyncRuntime, S: Store>(node: &Arc<Node<R, S>>, wanted: &[Wanted], index: LogIndex, outcomes: &[Outcome]) {
    assert_eq!(wanted.len(), outcomes.len(), "apply answers every request of a batch");
    // The batch is sorted by session.
    let mut rest = outcomes;
    for wanted in wanted.chunk_by(|one, next| one.session == next.session) {
        let (outcomes, later) = rest.split_at(wanted.len());
        rest = later;
        let session = wanted[0].session;
        let attr = |outcome: &Outcome| if let Ok(Reply::Attr(attr)) = outcome { Some(attr.ino) } else { None };
        // Others may have changed in the same entry what it made.
        node.hub.told(session, outcomes.iter().filter_map(attr), LogIndex(index.0 - 1));
        for (wanted, outcome) in wanted.iter().zip(outcomes) {
            if let (Some(parent), Some(directory)) = (wanted.parent, attr(outcome)) {
                node.hub.made(session, directory, parent);
            }
        }
        let replies = wanted.iter().zip(outcomes).map(|(wanted, outcome)| v1::Reply {
            sequence: wanted.sequence.0,
            log_index: index.0,
            outcome: match outcome {
                // An older client cannot read this one, and does not know how to ask for the lease.
                Err(ErrorKind::Leased) if !node.hub.understands(session, LEASES_VERSION) => encode(&Outcome::Err(ErrorKind::Io)),
                outcome => encode(outcome),
            },
            opened: false,
        });
        let mut replies: Vec<v1::Reply> = replies.collect();
        let made = |(at, (wanted, outcome)): (usize, (&Wanted, &Outcome))| match outcome {
            Ok(Reply::Attr(attr)) if wanted.open => Some((at, attr.ino)),
            _ => None,
        };
        let made: Vec<(usize, Ino)> = wanted.iter().zip(outcomes).enumerate().filter_map(made).collect();
        for (wanted, outcome) in wanted.iter().zip(outcomes) {
            if let (Some(ino), Err(_)) = (wanted.number, outcome) {
                node.hub.close(session, ino);
            }
        }
        if made.is_empty() {
            node.hub.send(session, Frame::Replies(v1::Replies { replies }));
            continue;
        }
        let Some(connection) = node.hub.connection(session) else { continue };
        let first: Vec<bool> = made.iter().map(|(_, ino)| node.hub.open(session, *ino)).collect();
        // Read after all were registered: from then on the purger leaves them alone, and what somebody removed before is for the
        // client to find out.
        let kv = node.read().ok();
        for ((at, ino), first) in made.into_iter().zip(first) {
            replies[at].opened = kv.as_deref().is_some_and(|kv| is_there(kv, ino));
            if !replies[at].opened && first {
                node.hub.close(session, ino);
            }
        }
        // A later connection begins with what the client knows to be open, which this is not part of.
        node.hub.send_on(session, connection, Frame::Replies(v1::Replies { replies }));
    }
}

/// Whether an inode that was just made still has a name.
fn is_there(kv: &dyn KvRead, ino: Ino) -> bool {
    let attr = farshore_meta::query(kv, &Query::GetAttr { ino });
    matches!(attr, Ok(Ok(QueryReply::Attr(attr))) if attr.nlink > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(count: usize, bytes: usize) -> Waiting {
        let request = |sequence| SessionRequest {
            session: SessionId([1; 16]),
            sequence: Sequence(sequence),
            acknowledged: Sequence(0),
            op: Op::Unlink { parent: Ino(1), name: vec![b'a'] },
        };
        let requests = (0..count as u64).map(|sequence| Queued { request: request(sequence), bytes, open: false }).collect();
        let mut waiting = Waiting { requests, ..Waiting::default() };
        waiting.count();
        waiting
    }

    const SET_OUT: u64 = 7;

    fn under_way(entries: usize, callers: usize) -> UnderWay {
        UnderWay { entries, requests: 1, callers, set_out: SET_OUT, disk_rests: false }
    }

    #[test]
    fn an_entry_takes_what_fits_and_leaves_the_rest_counted() {
        let mut waiting = asking(5, BATCH_BYTES / 2);
        let taken = |waiting: &mut Waiting| waiting.take().iter().map(|queued| queued.request.sequence.0).collect::<Vec<_>>();
        assert_eq!(taken(&mut waiting), [0, 1]);
        assert!(waiting.fill_an_entry() && waiting.bytes == 3 * (BATCH_BYTES / 2));
        assert_eq!(taken(&mut waiting), [2, 3]);
        assert!(!waiting.fill_an_entry(), "one is left, of half an entry");
        assert_eq!((taken(&mut waiting), waiting.bytes, waiting.counted), (vec![4], 0, 0));
        assert_eq!(taken(&mut asking(2, BATCH_BYTES + 1)), [0], "one that is too long has an entry to itself");
    }

    #[test]
    fn a_second_entry_waits_for_half_of_the_callers() {
        let admits = |entries, callers, waiting| under_way(entries, callers).admits(&asking(waiting, 1));
        assert!(admits(0, 99, 1) && !admits(0, 0, 0), "nobody waits while nothing is under way");
        assert!(admits(1, 2, 1), "two lone callers do not wait for each other");
        assert!(!admits(1, 64, 31) && admits(1, 64, 32));
        assert!(admits(1, 9999, BATCH), "a full one need not be fuller");
        assert!(!admits(IN_FLIGHT, 64, 64) && admits(IN_FLIGHT, 64, BATCH));
        assert!(!admits(FULL_IN_FLIGHT, 64, BATCH));
        let long = asking(2, BATCH_BYTES / 2);
        assert!(under_way(1, 64).admits(&long), "long requests fill an entry too");
    }

    #[test]
    fn after_a_slow_flush_the_last_of_the_callers_are_not_waited_for() {
        let admits = |entries, waiting, took| {
            let mut under_way = under_way(entries, 64);
            under_way.flushed(SET_OUT + took);
            under_way.admits(&asking(waiting, 1))
        };
        assert!(!admits(1, 23, SLOW_FLUSH_US) && admits(1, 24, SLOW_FLUSH_US));
        assert!(!admits(1, 31, SLOW_FLUSH_US - 1), "the disk is soon done with one more");
        assert!(!admits(IN_FLIGHT, 64, SLOW_FLUSH_US), "one is being applied, another one syncs");
        assert!(!admits(1, 0, SLOW_FLUSH_US), "nobody waits");
        let mut next = under_way(1, 64);
        next.flushed(SET_OUT + SLOW_FLUSH_US);
        next.sets_out(SET_OUT, 1);
        next.ends(1);
        assert!(!next.admits(&asking(29, 1)) && next.admits(&asking(30, 1)), "the next one has a flush before it again");
    }

    #[test]
    fn callers_who_left_are_forgotten() {
        let mut under_way = UnderWay::default();
        under_way.sees(&asking(256, 1));
        assert_eq!(under_way.callers, 256);
        for _ in 0..64 {
            under_way.sees(&asking(2, 1));
            under_way.sets_out(0, 2);
            under_way.ends(2);
        }
        under_way.sees(&asking(2, 1));
        assert_eq!(under_way.callers, 2);
    }

    #[test]
    fn a_place_comes_back_from_a_task_that_was_dropped() {
        let (back, mut ended) = mpsc::channel(FULL_IN_FLIGHT);
        let place = Place { requests: 7, back };
        drop(async move { drop(place) });
        assert_eq!(ended.try_recv(), Ok(7));
    }
}
