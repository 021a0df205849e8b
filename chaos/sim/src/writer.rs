//! A writer of the world: one session after the other, each in a directory of its own, speaking the real frames. It sends
//! unanswered requests again with the same sequences after every reconnection, and knows what each answer must be, since
//! nobody else writes where it writes.

use crate::board::{Answered, Directory};
use crate::common::Common;
use crate::plant::{self, Hazard};
use crate::talk::{Identity, frame};
use crate::upstream::{Connection, connect};
use crate::work::{Deed, Work};
use farshore_types::{ClusterId, ErrorKind, Outcome, Sequence};
use farshore_wire::v1::{
    Goodbye, Renew, Request, Requests, ServerFrame, client_frame::Frame as In, hello::Kind, refused::Kind as Why,
    server_frame::Frame as Out,
};
use farshore_wire::{decode, encode};
use openraft::AsyncRuntime;
use openraft_rt_sim::SimRuntime;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Requests under way at once.
const WINDOW: usize = 8;
/// How long a writer waits for a frame before it renews its session.
const LOOK: Duration = Duration::from_millis(400);
/// After so many looks without an answer it connects anew.
const PATIENCE: u32 = 5;
/// Pause between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(150);
/// Deeds of one session, then it says goodbye.
const DEEDS: u64 = 400;

/// Who a writer is.
pub struct Writer {
    pub common: Arc<Common>,
    pub name: String,
    /// Where it runs, and the region whose bucket it writes first: another one with `--flip`.
    pub region: ClusterId,
    pub bucket: ClusterId,
    pub primary: ClusterId,
    /// Longest pause between two deeds, in microseconds.
    pub pace_us: u64,
}

/// One session.
struct Session {
    identity: Identity,
    next: u64,
    acknowledged: u64,
    unanswered: VecDeque<(u64, Deed)>,
    work: Work,
}

/// Why a connection ended.
enum End {
    /// Try again, there if it is known.
    Again(Option<String>),
    /// The session is over: what was not answered is in doubt.
    Lost,
    /// The session said goodbye.
    Goodbye,
}

impl Writer {
    /// Writes until the world stops writing.
    pub async fn run(self) {
        let (mut number, mut carried) = (0, vec![]);
        self.common.writer_began();
        while self.common.is_writing() {
            number += 1;
            carried = self.session(number, carried).await;
        }
        self.common.writer_ended();
        self.common.trace.say(format!("{} has ended", self.name));
    }

    /// Lives one session; says which deeds were left in doubt (for the planted hazard 3.3 alone).
    async fn session(&self, number: u64, carried: Vec<Deed>) -> Vec<Deed> {
        let directory = Directory { name: format!("{}-{number}", self.name), ..Directory::default() };
        let work = Work::new(directory, self.bucket, self.common.clone());
        let mut session = Session {
            identity: Identity::new(self.common.dice.id(), Kind::Writer),
            next: 1,
            acknowledged: 0,
            unanswered: VecDeque::new(),
            work,
        };
        carried.into_iter().for_each(|deed| session.queue(deed));
        self.common.trace.say(format!("{} begins session {}", self.name, session.identity.id));
        let mut at = self.common.dice.below(8) as usize;
        loop {
            let places = self.common.net.places(self.primary);
            let place = places[at % places.len()];
            let end = match connect(&self.common.net, self.region, place).await {
                Some(connection) => self.converse(&mut session, connection).await,
                None => End::Again(None),
            };
            match end {
                End::Again(hint) => match hint.and_then(|hint| places.iter().position(|at| self.common.net.name(*at) == hint)) {
                    Some(leader) => at = leader,
                    None => at += 1,
                },
                End::Goodbye => return vec![],
                End::Lost => {
                    self.common.trace.say(format!("{} lost session {}", self.name, session.identity.id));
                    let doubts: Vec<Deed> = session.unanswered.into_iter().map(|(_, deed)| deed).collect();
                    session.work.lost(&doubts);
                    return if plant::is(Hazard::RetryUnderNewSession) { doubts } else { vec![] };
                }
            }
            SimRuntime::sleep(PAUSE).await;
        }
    }

    async fn converse(&self, session: &mut Session, mut connection: Connection) -> End {
        let hello = session.identity.hello(self.common.volume(), &self.name, self.bucket);
        if connection.send.send(hello).await.is_err() {
            return End::Again(None);
        }
        let mut silent = 0;
        let mut welcome = false;
        loop {
            let message = match SimRuntime::timeout(LOOK, connection.receive.recv()).await {
                Ok(None) => return End::Again(None),
                Ok(Some(ServerFrame { frame: Some(message) })) => message,
                Ok(Some(_)) => continue,
                Err(_) => {
                    silent += 1;
                    if silent > PATIENCE || connection.send.send(frame(In::Renew(Renew {}))).await.is_err() {
                        return End::Again(None);
                    }
                    if !welcome {
                        continue;
                    }
                    Out::Invalidations(Default::default())
                }
            };
            match message {
                Out::Welcome(said) => {
                    session.identity.welcomed(&said);
                    session.work.welcomed(said.machine);
                    (welcome, silent) = (true, 0);
                    if send(session.resend(), &connection).await.is_err() {
                        return End::Again(None);
                    }
                }
                Out::Replies(replies) => {
                    silent = 0;
                    for reply in replies.replies {
                        session.identity.saw(reply.log_index);
                        let Ok(outcome) = decode::<Outcome>(&reply.outcome) else {
                            self.common.trace.broken("a reply cannot be decoded");
                            return End::Lost;
                        };
                        match session.answer(reply.sequence, outcome, &self.common) {
                            Next::On => {}
                            Next::Again => return End::Again(None),
                            Next::Lost => return End::Lost,
                        }
                    }
                }
                Out::Refused(refused) => match refused.kind() {
                    Why::SessionLost | Why::Stale => return End::Lost,
                    _ => return End::Again(Some(refused.leader).filter(|leader| !leader.is_empty())),
                },
                _ => {}
            }
            if welcome {
                let enough = !self.common.is_writing() || session.next > DEEDS;
                if enough && session.unanswered.is_empty() {
                    let _ = connection.send.send(frame(In::Goodbye(Goodbye {}))).await;
                    session.work.publish();
                    return End::Goodbye;
                }
                if !enough && self.more(session, &connection).await.is_err() {
                    return End::Again(None);
                }
            }
        }
    }

    /// Begins new deeds, as many as the window takes.
    async fn more(&self, session: &mut Session, connection: &Connection) -> Result<(), ()> {
        let mut fresh = vec![];
        while session.unanswered.len() < WINDOW {
            let Some(deed) = session.work.next_deed(&self.common.dice) else { break };
            session.work.upload(&deed);
            fresh.push(Request { sequence: session.next, op: encode(&deed.op), open: false });
            session.queue(deed);
        }
        if fresh.is_empty() {
            return Ok(());
        }
        SimRuntime::sleep(Duration::from_micros(self.common.dice.between(100, self.pace_us))).await;
        send(Requests { acknowledged: session.acknowledged, requests: fresh }, connection).await
    }
}

async fn send(requests: Requests, connection: &Connection) -> Result<(), ()> {
    if requests.requests.is_empty() {
        return Ok(());
    }
    connection.send.send(frame(In::Requests(requests))).await.map_err(|_| ())
}

/// How a session goes on after an answer.
enum Next {
    On,
    Again,
    Lost,
}

impl Session {
    fn queue(&mut self, deed: Deed) {
        self.unanswered.push_back((self.next, deed));
        self.next += 1;
    }

    /// All unanswered requests, with the sequences that they had (law 10).
    fn resend(&self) -> Requests {
        let requests = self
            .unanswered
            .iter()
            .map(|(sequence, deed)| Request { sequence: *sequence, op: encode(&deed.op), open: false })
            .collect();
        Requests { acknowledged: self.acknowledged, requests }
    }

    fn answer(&mut self, sequence: u64, outcome: Outcome, common: &Common) -> Next {
        let Some((first, _)) = self.unanswered.front() else { return Next::On };
        if sequence < *first {
            // Answered before: the same request was sent twice.
            return Next::On;
        }
        match &outcome {
            Err(ErrorKind::SessionLost) => return Next::Lost,
            Err(kind) if kind.is_retryable() => return Next::Again,
            _ => {}
        }
        if sequence > *first {
            // Answers come in the order of requests; one that is missing comes with the next resending.
            return Next::Again;
        }
        let Some((_, deed)) = self.unanswered.pop_front() else { return Next::On };
        self.acknowledged = sequence;
        common.board.answered(Answered { session: self.identity.id, sequence: Sequence(sequence), outcome: outcome.clone() });
        self.work.done(deed, outcome);
        Next::On
    }
}
