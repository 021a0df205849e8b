//! A caller of the world: one session after the other, each with several operations under way, on names that all callers
//! share. What it asks comes from the arena, and what becomes of it goes into the record; it knows no answer beforehand.
//!
//! It sends unanswered requests again with the same sequences after every reconnection (law 10), and breaks off connections and
//! whole sessions itself: what was under way in a session that ends stays unknown.

use crate::common::Common;
use crate::model::BLOCK_SIZE;
use crate::talk::{Identity, frame};
use crate::upstream::{Connection, connect};
use farshore_history::{Answer, Call, RecordId, Request as Asked, answer_of_op, answer_of_query};
use farshore_types::{ClusterId, ErrorKind, Ino, NewSlice, Op, Outcome, Query, QueryReply, Reply, SliceId, blocks_of};
use farshore_wire::v1::{
    self, Goodbye, Queries, QueryRequest, Renew, Request, Requests, ServerFrame, client_frame::Frame as In, hello::Kind,
    refused::Kind as Why, server_frame::Frame as Out,
};
use farshore_wire::{decode, encode};
use openraft::AsyncRuntime;
use openraft_rt_sim::SimRuntime;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Operations and questions under way at once.
const WINDOW: usize = 3;
/// How long a caller waits for a frame before it renews its session.
const LOOK: Duration = Duration::from_millis(400);
/// After so many looks without an answer it connects anew.
const PATIENCE: u32 = 5;
/// Pause between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(100);
/// Slice ids asked for at once, and how many are left when more are asked for.
const SLICES: u32 = 64;
const SLICES_LOW: usize = 8;
/// Chances, in 1000 after each frame, that a caller drops its connection, and that it dies and another one takes its place.
const DROPS: u64 = 5;
const DIES: u64 = 3;

/// Who a caller is.
pub struct Caller {
    pub common: Arc<Common>,
    pub number: u32,
    pub asks_only: bool,
    pub region: ClusterId,
    /// Longest pause before something new is asked, in microseconds.
    pub pace_us: u64,
}

/// What an answer is the answer of.
struct Flight {
    id: RecordId,
    group: u64,
}

/// One session.
struct Session {
    identity: Identity,
    next: u64,
    acknowledged: u64,
    /// Without a flight: slice ids were asked for, which is no part of the history.
    operations: VecDeque<(u64, Op, Option<Flight>)>,
    next_question: u64,
    questions: BTreeMap<u64, (Query, Flight)>,
    slices: Vec<SliceId>,
    asked_slices: bool,
}

/// Why a connection ended.
enum End {
    /// Try again, there if it is known.
    Again(Option<String>),
    /// The session is over.
    Over(&'static str),
}

impl Caller {
    /// Asks until the world stops writing, and has all answers that can come.
    pub async fn run(self) {
        self.common.writer_began();
        while self.common.is_writing() {
            let why = self.session().await;
            self.common.trace.say(format!("caller {} {why}", self.number));
        }
        self.common.writer_ended();
    }

    async fn session(&self) -> &'static str {
        let kind = if self.asks_only { Kind::Reader } else { Kind::Writer };
        let mut session = Session::new(Identity::new(self.common.dice.id(), kind));
        let mut at = self.common.dice.below(8) as usize;
        loop {
            let places = self.common.net.places(self.region);
            let end = match connect(&self.common.net, self.region, places[at % places.len()]).await {
                Some(connection) => self.converse(&mut session, connection).await,
                None => End::Again(None),
            };
            match end {
                End::Again(hint) => match hint.and_then(|hint| places.iter().position(|at| self.common.net.name(*at) == hint)) {
                    Some(leader) => at = leader,
                    None => at += 1,
                },
                End::Over(why) => return why,
            }
            SimRuntime::sleep(PAUSE).await;
        }
    }

    async fn converse(&self, session: &mut Session, mut connection: Connection) -> End {
        let hello = session.identity.hello(self.common.volume(), &format!("caller-{}", self.number), self.region);
        if connection.send.send(hello).await.is_err() {
            return End::Again(None);
        }
        let (mut silent, mut welcome) = (0, false);
        loop {
            let message = match SimRuntime::timeout(LOOK, connection.receive.recv()).await {
                Ok(None) => return End::Again(None),
                Ok(Some(ServerFrame { frame })) => {
                    silent = 0;
                    frame
                }
                Err(_) => {
                    silent += 1;
                    if silent > PATIENCE || connection.send.send(frame(In::Renew(Renew {}))).await.is_err() {
                        return End::Again(None);
                    }
                    None
                }
            };
            let next = match message {
                Some(Out::Welcome(said)) => {
                    session.identity.welcomed(&said);
                    welcome = true;
                    session.resend(&connection).await
                }
                Some(Out::Replies(replies)) => replies.replies.iter().try_for_each(|reply| self.replied(session, reply)),
                Some(Out::Answers(answers)) => answers.answers.iter().try_for_each(|answer| self.answered(session, answer)),
                Some(Out::Refused(refused)) => match refused.kind() {
                    Why::SessionLost | Why::Stale => Err(End::Over("lost its session")),
                    _ => Err(End::Again(Some(refused.leader).filter(|leader| !leader.is_empty()))),
                },
                _ => Ok(()),
            };
            let next = match next {
                Ok(()) if welcome => self.go_on(session, &connection).await,
                other => other,
            };
            if let Err(end) = next {
                return end;
            }
        }
    }

    /// After each frame: breaks off, ends, or asks more.
    async fn go_on(&self, session: &mut Session, connection: &Connection) -> Result<(), End> {
        let dice = &self.common.dice;
        if !self.common.is_writing() {
            if session.under_way() > 0 {
                return Ok(());
            }
            let _ = connection.send.send(frame(In::Goodbye(Goodbye {}))).await;
            return Err(End::Over("has ended"));
        }
        if dice.chance(DROPS) {
            return Err(End::Again(None));
        }
        if dice.chance(DIES) {
            return Err(End::Over("has died"));
        }
        if session.under_way() >= WINDOW {
            return Ok(());
        }
        SimRuntime::sleep(Duration::from_micros(dice.between(100, self.pace_us))).await;
        let (mut requests, mut queries) = (vec![], vec![]);
        if !self.asks_only && session.slices.len() < SLICES_LOW && !std::mem::replace(&mut session.asked_slices, true) {
            requests.push(session.queue(Op::AllocSlices { count: SLICES }, None));
        }
        while session.under_way() < WINDOW {
            let (group, call) = self.common.arena().next(self.asks_only, &mut |bound| dice.below(bound));
            match call.request(group) {
                Asked::Query(query) => queries.push(session.ask(query, self.begin(group, call))),
                Asked::Op(op) => requests.push(session.queue(op, Some(self.begin(group, call)))),
                Asked::Commit(ino, size) => {
                    // Without a slice of its own it does something else.
                    let Some(slice) = session.slices.pop() else { continue };
                    let op = self.upload(ino, slice, size);
                    requests.push(session.queue(op, Some(self.begin(group, call))));
                }
            }
        }
        session.send(requests, queries, connection).await
    }

    fn begin(&self, group: u64, call: Call) -> Flight {
        let id = self.common.record().begin(self.common.record_time(), self.number, group, call);
        Flight { id, group }
    }

    fn end(&self, flight: &Flight, answer: Answer, index: u64) {
        self.common.arena().learn(flight.group, &answer);
        self.common.record().end(self.common.record_time(), flight.id, answer, Some(index));
    }

    /// Blocks first, metadata after.
    fn upload(&self, ino: Ino, id: SliceId, size: u32) -> Op {
        let put = |block| {
            let crc = self.common.dice.next() as u32;
            self.common.buckets.put(self.region, block, crc);
            crc
        };
        let checksums = blocks_of(id, size, BLOCK_SIZE).map(put).collect();
        Call::commit(ino, NewSlice { chunk: 0, position: 0, id, size, checksums })
    }

    fn replied(&self, session: &mut Session, reply: &v1::Reply) -> Result<(), End> {
        session.identity.saw(reply.log_index);
        let Ok(outcome) = decode::<Outcome>(&reply.outcome) else {
            self.common.trace.broken("a reply cannot be decoded");
            return Err(End::Over("cannot read"));
        };
        match session.operations.front() {
            // Answered before: the same request was sent twice.
            Some((first, ..)) if reply.sequence < *first => return Ok(()),
            None => return Ok(()),
            Some(_) => {}
        }
        match &outcome {
            Err(ErrorKind::SessionLost) => return Err(End::Over("lost its session")),
            Err(kind) if kind.is_retryable() => return Err(End::Again(None)),
            _ => {}
        }
        // Answers come in the order of requests; one that is missing comes with the next resending.
        let in_turn = session.operations.pop_front_if(|(first, ..)| *first == reply.sequence);
        let Some((sequence, _, flight)) = in_turn else { return Err(End::Again(None)) };
        session.acknowledged = sequence;
        match (flight, &outcome) {
            (Some(flight), outcome) => self.end(&flight, answer_of_op(outcome), reply.log_index),
            (None, Ok(Reply::Slices { first, count })) => {
                session.asked_slices = false;
                session.slices.extend((0..u64::from(*count)).map(|at| SliceId(first.0 + at)));
            }
            (None, other) => self.common.trace.broken(format!("law 10: slice ids were asked for, and the answer is {other:?}")),
        }
        Ok(())
    }

    fn answered(&self, session: &mut Session, answer: &v1::Answer) -> Result<(), End> {
        session.identity.saw(answer.log_index);
        let Ok(result) = decode::<Result<QueryReply, ErrorKind>>(&answer.result) else {
            self.common.trace.broken("an answer cannot be decoded");
            return Err(End::Over("cannot read"));
        };
        if result.as_ref().is_err_and(|kind| kind.is_retryable()) {
            return Err(End::Again(None));
        }
        if let Some((_, flight)) = session.questions.remove(&answer.id) {
            self.end(&flight, answer_of_query(flight.group, &result), answer.log_index);
        }
        Ok(())
    }
}

impl Session {
    fn new(identity: Identity) -> Self {
        Session {
            identity,
            next: 1,
            acknowledged: 0,
            operations: VecDeque::new(),
            next_question: 1,
            questions: BTreeMap::new(),
            slices: vec![],
            asked_slices: false,
        }
    }

    fn under_way(&self) -> usize {
        self.operations.len() + self.questions.len()
    }

    fn queue(&mut self, op: Op, flight: Option<Flight>) -> Request {
        let request = Request { sequence: self.next, op: encode(&op), open: false };
        self.operations.push_back((self.next, op, flight));
        self.next += 1;
        request
    }

    fn ask(&mut self, query: Query, flight: Flight) -> QueryRequest {
        let request = QueryRequest { id: self.next_question, query: encode(&query) };
        self.questions.insert(self.next_question, (query, flight));
        self.next_question += 1;
        request
    }

    /// All that is unanswered, with the sequences that it had (law 10).
    async fn resend(&self, connection: &Connection) -> Result<(), End> {
        let requests =
            self.operations.iter().map(|(sequence, op, _)| Request { sequence: *sequence, op: encode(op), open: false });
        let queries = self.questions.iter().map(|(id, (query, _))| QueryRequest { id: *id, query: encode(query) });
        self.send(requests.collect(), queries.collect(), connection).await
    }

    async fn send(&self, requests: Vec<Request>, queries: Vec<QueryRequest>, connection: &Connection) -> Result<(), End> {
        let mut frames = vec![];
        if !requests.is_empty() {
            frames.push(In::Requests(Requests { acknowledged: self.acknowledged, requests }));
        }
        if !queries.is_empty() {
            frames.push(In::Queries(Queries { queries }));
        }
        for message in frames {
            connection.send.send(frame(message)).await.map_err(|_| End::Again(None))?;
        }
        Ok(())
    }
}
