//! One connection to one node: dial, hello, welcome; and the search for the node that leads.

use crate::ConnectError;
use crate::backoff;
use bytes::Bytes;
use farshore_types::{SessionId, VolumeRecord};
use farshore_wire::v1::{self, client_frame::Frame as Send, server_frame::Frame as Recv};
use farshore_wire::{MAX_MESSAGE_BYTES, decode, header};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

/// Frames that wait for the transport; beyond it the driver keeps them itself.
const OUTGOING_MAX: usize = 16;
/// How long a node may take to accept a connection.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a node may take to answer a hello. A leader answers after one commit.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection without any sign of life for twice this long is given up.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// The wait after all nodes were tried in vain: first, at most while an election may be going on, and at most after that many rounds.
const RETRY_FIRST: Duration = Duration::from_millis(25);
const RETRY_SOON: Duration = Duration::from_millis(100);
const SOON_ROUNDS: u32 = 40;
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Nodes of a cluster that are remembered beside those of the configuration.
const LEARNED_MAX: usize = 16;
/// Hints to a leader that are followed without a wait; more in a row is a ring of nodes that do not know.
const HINTS_MAX: u32 = 4;

/// An established stream.
pub(crate) struct Link {
    pub out: mpsc::Sender<v1::ClientFrame>,
    pub inbound: Streaming<v1::ServerFrame>,
    pub welcome: v1::Welcome,
}

/// Why a node gave no stream.
#[derive(Debug)]
pub(crate) enum LinkError {
    Refused(v1::Refused),
    /// No connection, or an answer that is none.
    Unreachable(String),
}

impl LinkError {
    /// What a person should read.
    pub fn text(&self, node: &str) -> String {
        match self {
            LinkError::Refused(refused) => format!("{node}: {:?}: {}", refused.kind(), refused.text),
            LinkError::Unreachable(text) => format!("{node}: {text}"),
        }
    }
}

pub(crate) fn frame(frame: Send) -> v1::ClientFrame {
    v1::ClientFrame { frame: Some(frame) }
}

/// Dials `node`, says `hello` and waits for the welcome.
pub(crate) async fn open(node: &str, hello: v1::Hello) -> Result<Link, LinkError> {
    let unreachable = |error: &dyn std::fmt::Display| LinkError::Unreachable(error.to_string());
    let channel = dial(node).await?;
    let mut client = v1::session_client::SessionClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let (out, outgoing) = mpsc::channel(OUTGOING_MAX);
    out.try_send(frame(Send::Hello(hello))).expect("the queue is new and empty");
    let shake = async {
        let mut inbound = client.open(ReceiverStream::new(outgoing)).await.map_err(|status| unreachable(&status))?.into_inner();
        let first = inbound.message().await.map_err(|status| unreachable(&status))?;
        match first.and_then(|message| message.frame) {
            Some(Recv::Welcome(welcome)) => Ok((inbound, welcome)),
            Some(Recv::Refused(refused)) => Err(LinkError::Refused(refused)),
            Some(_) => Err(LinkError::Unreachable("the node did not begin with a welcome".to_owned())),
            None => Err(LinkError::Unreachable("the node closed the stream".to_owned())),
        }
    };
    let (inbound, welcome) = tokio::time::timeout(HELLO_TIMEOUT, shake)
        .await
        .map_err(|_| LinkError::Unreachable(format!("no welcome within {} s", HELLO_TIMEOUT.as_secs())))??;
    if welcome.protocol != farshore_wire::PROTOCOL {
        let text = format!("the node speaks protocol {}, this client {}", welcome.protocol, farshore_wire::PROTOCOL);
        return Err(LinkError::Unreachable(text));
    }
    Ok(Link { out, inbound, welcome })
}

async fn dial(node: &str) -> Result<Channel, LinkError> {
    let endpoint = Endpoint::from_shared(format!("http://{node}"))
        .map_err(|error| LinkError::Unreachable(format!("`{node}` is no host:port: {error}")))?;
    endpoint
        .connect_timeout(DIAL_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .connect()
        .await
        .map_err(|error| LinkError::Unreachable(format!("cannot connect: {error}")))
}

/// Which node to try next: hints first, then all in turn: those that the cluster told of last, and those that were known
/// from the beginning.
#[derive(Debug)]
pub(crate) struct Finder {
    nodes: Vec<String>,
    /// How many of them, at the end, were known from the beginning.
    configured: usize,
    at: usize,
    hint: Option<String>,
    hints: u32,
    failures: u32,
}

impl Finder {
    pub fn new(nodes: Vec<String>) -> Finder {
        assert!(!nodes.is_empty(), "a session is only started with nodes to try");
        let configured = nodes.len();
        Finder { nodes, configured, at: 0, hint: None, hints: 0, failures: 0 }
    }

    /// The cluster says where its nodes are: all that were known from the beginning may be gone by now.
    pub fn learn(&mut self, told: &[String]) {
        if told.is_empty() {
            return;
        }
        let now = self.node();
        let configured = self.nodes.split_off(self.nodes.len() - self.configured);
        self.nodes = told.iter().take(LEARNED_MAX).filter(|node| !configured.contains(node)).cloned().collect();
        self.nodes.extend(configured);
        match self.nodes.iter().position(|known| *known == now) {
            Some(at) => self.at = at,
            None => (self.at, self.hint) = (0, Some(now)),
        }
    }

    /// The node to try now.
    pub fn node(&self) -> String {
        self.hint.clone().unwrap_or_else(|| self.nodes[self.at].clone())
    }

    /// The node served: it is the first to be tried again.
    pub fn served(&mut self) {
        (self.hints, self.failures) = (0, 0);
        let node = self.node();
        if let Some(at) = self.nodes.iter().position(|known| *known == node) {
            self.at = at;
            self.hint = None;
        }
    }

    /// The node did not serve; how long to wait before the next attempt.
    pub fn failed(&mut self, leader: Option<&str>) -> Duration {
        let was_hint = self.hint.take();
        let new_hint = leader.filter(|leader| !leader.is_empty() && was_hint.as_deref() != Some(*leader));
        if let Some(leader) = new_hint
            && self.hints < HINTS_MAX
        {
            self.hints += 1;
            self.hint = Some(leader.to_owned());
            return Duration::ZERO;
        }
        // Also where a hint led nowhere: the node that gave it, a mirror's follower perhaps, would give it again for ever.
        self.at = (self.at + 1) % self.nodes.len();
        self.hints = 0;
        self.failures = self.failures.saturating_add(1);
        let (rounds, into) = (self.failures / self.nodes.len() as u32, self.failures % self.nodes.len() as u32);
        match rounds.checked_sub(1) {
            Some(waited) if into == 0 && waited < SOON_ROUNDS => backoff::delay(RETRY_FIRST, RETRY_SOON, waited),
            Some(waited) if into == 0 => backoff::delay(RETRY_SOON, RETRY_MAX, waited - SOON_ROUNDS),
            _ => Duration::ZERO,
        }
    }

    /// The hint in a refusal, if it has one.
    pub fn hint_of(error: &LinkError) -> Option<&str> {
        match error {
            LinkError::Refused(refused) => Some(refused.leader.as_str()),
            LinkError::Unreachable(_) => None,
        }
    }
}

/// A random id (law 7).
pub(crate) fn new_session_id() -> SessionId {
    SessionId(rand::random())
}

/// A hello of a session that begins.
pub(crate) fn hello(volume: &str, group: u64, session: SessionId, kind: v1::hello::Kind, info: Bytes) -> v1::Hello {
    v1::Hello {
        header: Some(header(volume, group)),
        session: session.0.to_vec().into(),
        kind: kind.into(),
        info,
        ..Default::default()
    }
}

/// Asks any serving node for the volume's record, with a reader's session that ends at once.
pub(super) async fn fetch_record(
    volume: &str,
    nodes: &[String],
    limit: Duration,
) -> Result<(VolumeRecord, v1::Welcome), ConnectError> {
    if nodes.is_empty() {
        return Err(ConnectError::NoNodes { what: format!("volume `{volume}`") });
    }
    let mut finder = Finder::new(nodes.to_vec());
    let mut last = "nothing yet".to_owned();
    let search = async {
        loop {
            let node = finder.node();
            let info =
                farshore_types::SessionInfo { host: String::new(), mount: String::new(), options: String::new(), bucket: None };
            let greeting = hello(volume, 0, new_session_id(), v1::hello::Kind::Reader, farshore_wire::encode(&info));
            match open(&node, greeting).await {
                Ok(link) => {
                    let _ = link.out.send(frame(Send::Goodbye(v1::Goodbye {}))).await;
                    let record = decode::<VolumeRecord>(&link.welcome.volume);
                    match record {
                        Ok(record) => return Ok((record, link.welcome)),
                        Err(error) => last = format!("{node}: {error}"),
                    }
                    tokio::time::sleep(finder.failed(None)).await;
                }
                Err(error) => {
                    last = error.text(&node);
                    if let LinkError::Refused(refused) = &error
                        && matches!(refused.kind(), v1::refused::Kind::Invalid | v1::refused::Kind::Unsupported)
                    {
                        return Err(ConnectError::Refused { volume: volume.to_owned(), text: last.clone() });
                    }
                    let wait = finder.failed(Finder::hint_of(&error));
                    tokio::time::sleep(wait).await;
                }
            }
        }
    };
    match tokio::time::timeout(limit, search).await {
        Ok(found) => found,
        Err(_) => Err(ConnectError::NoLeader { volume: volume.to_owned(), seconds: limit.as_secs(), last }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn law_27_hints_are_followed_at_once_but_not_in_a_ring() {
        let mut finder = Finder::new(vec!["a".into(), "b".into()]);
        assert_eq!(finder.node(), "a");
        assert_eq!(finder.failed(Some("c")), Duration::ZERO);
        assert_eq!(finder.node(), "c");
        finder.failed(None);
        assert_eq!(finder.node(), "b", "a hint that failed is dropped, and another node is asked");
        let ring = (0..20).map(|n| finder.failed(Some(if n % 2 == 0 { "x" } else { "y" }))).max();
        assert!(ring > Some(Duration::ZERO), "a ring of hints ends in a wait");
        while finder.node() != "b" {
            finder.failed(None);
        }
        finder.served();
        assert_eq!(finder.node(), "b", "who served is tried first again");
    }

    #[test]
    fn all_nodes_are_asked_before_each_wait_and_an_election_is_not_slept_through() {
        let mut finder = Finder::new(["a", "b", "c"].map(String::from).to_vec());
        let mut waits = vec![];
        for attempt in 1..=3 * (SOON_ROUNDS + 8) {
            let wait = finder.failed(None);
            assert_eq!(wait > Duration::ZERO, attempt % 3 == 0, "attempt {attempt}");
            waits.extend((attempt % 3 == 0).then_some(wait));
        }
        assert!(waits[..SOON_ROUNDS as usize].iter().all(|wait| *wait <= RETRY_SOON));
        assert!(waits.last() > Some(&(RETRY_MAX / 4)), "a cluster that is away for long is asked seldom");
    }

    #[test]
    fn a_cluster_whose_nodes_were_all_replaced_is_still_found() {
        let tried = |finder: &mut Finder| {
            (0..4).map(|_| (finder.node(), finder.failed(None)).0).collect::<std::collections::BTreeSet<_>>()
        };
        let mut finder = Finder::new(vec!["a".into(), "b".into()]);
        finder.failed(None);
        finder.learn(&["b".into(), "c".into()]);
        assert_eq!(finder.node(), "b", "whom it talks to stays the first");
        assert_eq!(tried(&mut finder), ["a", "b", "c"].map(String::from).into());
        finder.learn(&["c".into(), "d".into()]);
        assert_eq!(tried(&mut finder), ["a", "b", "c", "d"].map(String::from).into());
        finder.learn(&[]);
        assert_eq!(tried(&mut finder).len(), 4, "a node that does not say takes nothing away");
    }

    #[test]
    fn a_mirror_whose_follower_names_its_leader_does_not_keep_a_writer_from_the_primary() {
        let mut finder = Finder::new(["p-1", "p-2", "m-1", "m-2"].map(String::from).to_vec());
        finder.failed(None);
        finder.failed(None);
        assert_eq!(finder.node(), "m-1");
        for _ in 0..8 {
            match finder.node().as_str() {
                "m-1" => drop(finder.failed(Some("m-2"))),
                "m-2" => drop(finder.failed(None)),
                _ => return,
            }
        }
        panic!("it went round in the mirror, at {}", finder.node());
    }
}
