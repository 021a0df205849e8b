//! A client that says every frame itself: one that can say a request again of which it has, or has not, heard the answer.

use crate::{World, wait_for};
use farshore_types::{DirEntry, Ino, NodeKind, Op, Outcome, Query, QueryReply, SessionInfo};
use farshore_wire::v1::{self, client_frame::Frame as Send, server_frame::Frame as Recv};
use farshore_wire::{decode, encode, header};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;

const VOLUME: &str = "demo";
const SOON: Duration = Duration::from_secs(60);
/// How long a node may take for an answer; one that is dead does not.
const PATIENCE: Duration = Duration::from_secs(10);
const FRAMES: usize = 16;
const DIAL_EVERY: Duration = Duration::from_millis(10);
/// Entries of a directory that one query may list.
const LISTED: u32 = 1000;

/// A writer's session in the volume of a [`World`].
pub struct Caller<'w> {
    world: &'w World,
    runtime: Runtime,
    session: [u8; 16],
    stream: Option<Stream>,
    /// Queries that were asked.
    queries: u64,
}

struct Stream {
    out: mpsc::Sender<v1::ClientFrame>,
    inbound: Streaming<v1::ServerFrame>,
}

impl<'w> Caller<'w> {
    /// Opens the session at the node that leads the region's cluster.
    pub fn open(world: &'w World, region: &str, session: [u8; 16]) -> Caller<'w> {
        let mut caller = Caller::new(world, session);
        caller.connect(|| world.leader(region), false);
        caller
    }

    /// Opens it at this node, which must lead.
    pub fn open_at(world: &'w World, node: &str, session: [u8; 16]) -> Caller<'w> {
        let mut caller = Caller::new(world, session);
        caller.connect(|| Some(node.to_owned()), false);
        caller
    }

    /// Opens it at the node that listens on `address` once that leads; `None` when it does not within `bound`.
    pub fn open_within(world: &'w World, address: &str, session: [u8; 16], bound: Duration) -> Option<Caller<'w>> {
        let mut caller = Caller::new(world, session);
        let end = Instant::now() + bound;
        while caller.stream.is_none() && Instant::now() < end {
            caller.stream = caller.runtime.block_on(dial(address, session, false));
            std::thread::sleep(DIAL_EVERY);
        }
        caller.stream.is_some().then_some(caller)
    }

    /// All names and attributes, versions included.
    pub fn tree(&mut self) -> Vec<DirEntry> {
        let mut found = vec![];
        let mut directories = vec![Ino::ROOT];
        while let Some(ino) = directories.pop() {
            let QueryReply::Entries { entries, more: false } = self.query(&Query::ReadDir { ino, after: None, limit: LISTED })
            else {
                panic!("a short listing")
            };
            directories.extend(entries.iter().filter(|entry| entry.attr.kind == NodeKind::Directory).map(|entry| entry.attr.ino));
            found.extend(entries);
        }
        found
    }

    fn new(world: &'w World, session: [u8; 16]) -> Caller<'w> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
        Caller { world, runtime, session, stream: None, queries: 0 }
    }

    /// Goes on at the node that leads now.
    pub fn resume(&mut self, region: &str) {
        self.stream = None;
        let world = self.world;
        self.connect(|| world.leader(region), true);
    }

    fn connect(&mut self, leader: impl Fn() -> Option<String>, resumes: bool) {
        let stream = wait_for("a session at the leader", SOON, || {
            let address = self.world.address(&leader()?)?;
            self.runtime.block_on(dial(&address, self.session, resumes))
        });
        self.stream = Some(stream);
    }

    fn send(&mut self, frame: Send) {
        let stream = self.stream.as_ref().expect("it is connected");
        let frame = v1::ClientFrame { frame: Some(frame) };
        self.runtime.block_on(stream.out.send(frame)).expect("the stream takes frames");
    }

    /// Sends requests, numbered from `first`, and does not wait; all before them are acknowledged up to `acknowledged`.
    pub fn say(&mut self, acknowledged: u64, first: u64, ops: &[Op]) {
        let requests = (first..).zip(ops).map(|(sequence, op)| v1::Request { sequence, op: encode(op), open: false }).collect();
        self.send(Send::Requests(v1::Requests { acknowledged, requests }));
    }

    /// Sends requests, numbered from `first`, and waits for all answers.
    pub fn ask(&mut self, acknowledged: u64, first: u64, ops: &[Op]) -> Vec<Outcome> {
        self.say(acknowledged, first, ops);
        let mut answers = BTreeMap::new();
        while answers.len() < ops.len() {
            let Recv::Replies(replies) = self.receive() else { continue };
            for reply in replies.replies.into_iter().filter(|reply| reply.sequence >= first) {
                answers.insert(reply.sequence, decode::<Outcome>(&reply.outcome).expect("an outcome"));
            }
        }
        answers.into_values().collect()
    }

    pub fn query(&mut self, query: &Query) -> QueryReply {
        self.query_if_answered(query).expect("the node answers in time")
    }

    /// The answer; `None` when the node gives none in time, or gives the session up.
    pub fn query_if_answered(&mut self, query: &Query) -> Option<QueryReply> {
        self.queries += 1;
        let id = self.queries;
        self.send(Send::Queries(v1::Queries { queries: vec![v1::QueryRequest { id, query: encode(query) }] }));
        loop {
            match self.hear()? {
                Recv::Answers(answers) => {
                    let Some(answer) = answers.answers.into_iter().find(|answer| answer.id == id) else { continue };
                    let result: Result<QueryReply, farshore_types::ErrorKind> = decode(&answer.result).expect("an answer");
                    return Some(result.unwrap_or_else(|kind| panic!("{query:?}: {kind:?}")));
                }
                Recv::Refused(_) => return None,
                _ => {}
            }
        }
    }

    fn receive(&mut self) -> Recv {
        self.hear().expect("the node answers in time")
    }

    fn hear(&mut self) -> Option<Recv> {
        let stream = self.stream.as_mut().expect("it is connected");
        let message = async { tokio::time::timeout(PATIENCE, stream.inbound.message()).await };
        self.runtime.block_on(message).ok()?.ok()??.frame
    }
}

/// A stream whose hello was welcomed; `None`: not now.
async fn dial(address: &str, session: [u8; 16], resumes: bool) -> Option<Stream> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a node has an address");
    let channel = endpoint.connect_timeout(PATIENCE).connect().await.ok()?;
    let mut client = v1::session_client::SessionClient::new(channel);
    let (out, outgoing) = mpsc::channel(FRAMES);
    let info = SessionInfo { host: "live".to_owned(), mount: String::new(), options: String::new(), bucket: None };
    let hello = v1::Hello {
        header: Some(header(VOLUME, 0)),
        session: session.to_vec().into(),
        kind: v1::hello::Kind::Writer.into(),
        info: encode(&info),
        resumes,
        ..Default::default()
    };
    out.try_send(v1::ClientFrame { frame: Some(Send::Hello(hello)) }).expect("the queue is new and empty");
    let first = async {
        let mut inbound = client.open(ReceiverStream::new(outgoing)).await.ok()?.into_inner();
        let first = inbound.message().await.ok()??;
        Some((inbound, first.frame?))
    };
    match tokio::time::timeout(PATIENCE, first).await.ok()?? {
        (inbound, Recv::Welcome(_)) => Some(Stream { out, inbound }),
        (_, Recv::Refused(refused)) => {
            assert!(
                !matches!(refused.kind(), v1::refused::Kind::SessionLost | v1::refused::Kind::Stale),
                "the session is gone: {}",
                refused.text
            );
            None
        }
        _ => None,
    }
}
