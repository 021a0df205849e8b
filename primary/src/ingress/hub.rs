//! The leader's memory of its clients: who is connected, what they hold open, and what they must be told.
//!
//! Nothing here survives a change of leader; clients bring it along when they come back. A slow client never holds up
//! the others: what it must hear is collected in a bounded set, and past the bound it is told to drop everything.

use crate::host::SharedHost;
use crate::raft::Observer;
use farshore_meta::{Applied, Event, Touched};
use farshore_types::{Ino, LogIndex, SessionId, SessionInfo};
use farshore_wire::v1::{self, ServerFrame, hello::Kind, server_frame::Frame};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{Notify, mpsc};

/// Touched inodes and names kept for one client; past it the client drops all its caches (law 27).
const PENDING_TOUCHES: usize = 8192;
/// Unlinked inodes remembered between two looks of the purger; more are found in the state.
const PENDING_ORPHANS: usize = 65_536;

/// Invalidations that wait for a client.
#[derive(Default)]
struct PendingTouches {
    index: LogIndex,
    touched: BTreeSet<Touched>,
    reset: bool,
}

/// A connected client.
pub struct Client {
    pub kind: Kind,
    pub info: SessionInfo,
    pub region: String,
    out: mpsc::Sender<ServerFrame>,
    pub wake: Arc<Notify>,
    heard_us: u64,
    /// The client says so of each inode once, however many handles it has: what is said again after a reconnection changes nothing.
    opens: BTreeSet<Ino>,
    pending: PendingTouches,
    closed: bool,
    /// Tells two connections of one session apart.
    connection: u64,
    /// The highest version of the state machine whose answers it understands.
    machine: u32,
}

impl Client {
    /// What others changed goes first: who hears an answer has heard of all that was done before it. Nothing comes before a welcome.
    fn send(&mut self, frame: Frame) {
        if !matches!(frame, Frame::Welcome(_))
            && let Some(message) = self.take_touches()
        {
            self.push(Frame::Invalidations(message));
        }
        self.push(frame);
    }

    /// What it must be told about its caches, if anything.
    fn take_touches(&mut self) -> Option<v1::Invalidations> {
        if self.pending.touched.is_empty() && !self.pending.reset {
            return None;
        }
        let pending = std::mem::take(&mut self.pending);
        let mut message = v1::Invalidations { log_index: pending.index.0, reset: pending.reset, ..Default::default() };
        for touched in pending.touched {
            match touched {
                Touched::Inode(ino) => message.inodes.push(ino.0),
                Touched::Entry { parent, name } => {
                    message.entries.push(v1::TouchedEntry { parent: parent.0, name: name.into() });
                }
            }
        }
        Some(message)
    }

    fn push(&mut self, frame: Frame) {
        if self.out.try_send(ServerFrame { frame: Some(frame) }).is_err() {
            self.closed = true;
            self.wake.notify_one();
        }
    }
}

#[derive(Default)]
struct Inner {
    clients: BTreeMap<SessionId, Client>,
    orphans: VecDeque<Ino>,
    connections: u64,
    rewound: bool,
    stopped: Option<String>,
}

/// The hub of one node.
pub struct Hub {
    host: SharedHost,
    inner: Mutex<Inner>,
    /// Wakes whoever waits for the state to move.
    pub changed: Notify,
    /// Wakes the dispatcher: there may be other work than before.
    pub work: Notify,
}

impl Hub {
    pub fn new(host: SharedHost) -> Self {
        Hub { host, inner: Mutex::default(), changed: Notify::new(), work: Notify::new() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no one panics while holding the hub")
    }

    /// A client is here; an older connection of the same session is closed. Returns the connection's number.
    pub fn connect(
        &self,
        session: SessionId,
        kind: Kind,
        info: SessionInfo,
        region: String,
        (opens, machine): (&[u64], u32),
        out: mpsc::Sender<ServerFrame>,
    ) -> (u64, Arc<Notify>) {
        let wake = Arc::new(Notify::new());
        let mut inner = self.inner();
        inner.connections += 1;
        let connection = inner.connections;
        let held = opens.iter().map(|&ino| Ino(ino)).collect();
        let client = Client {
            kind,
            info,
            region,
            out,
            wake: wake.clone(),
            heard_us: self.host.boot_us(),
            opens: held,
            pending: PendingTouches::default(),
            closed: false,
            connection,
            machine,
        };
        if let Some(older) = inner.clients.insert(session, client) {
            older.wake.notify_one();
        }
        (connection, wake)
    }

    /// The connection is over; the session may come back.
    pub fn disconnect(&self, session: SessionId, connection: u64) {
        let mut inner = self.inner();
        if inner.clients.get(&session).is_some_and(|client| client.connection == connection) {
            inner.clients.remove(&session);
        }
    }

    /// Whether this connection is still the session's.
    pub fn is_current(&self, session: SessionId, connection: u64) -> bool {
        let inner = self.inner();
        inner.clients.get(&session).is_some_and(|client| client.connection == connection && !client.closed)
    }

    /// The client said something.
    pub fn heard(&self, session: SessionId) {
        let now = self.host.boot_us();
        if let Some(client) = self.inner().clients.get_mut(&session) {
            client.heard_us = now;
        }
    }

    /// When a session was last heard here (boot time), if it is connected.
    pub fn last_heard(&self, session: SessionId) -> Option<u64> {
        self.inner().clients.get(&session).map(|client| client.heard_us)
    }

    /// Sends a frame; a client that does not read is disconnected.
    pub fn send(&self, session: SessionId, frame: Frame) {
        if let Some(client) = self.inner().clients.get_mut(&session) {
            client.send(frame);
        }
    }

    /// Sends a frame that counts on this connection only; on a later one the client asks again.
    pub fn send_on(&self, session: SessionId, connection: u64, frame: Frame) {
        let mut inner = self.inner();
        if let Some(client) = inner.clients.get_mut(&session).filter(|client| client.connection == connection) {
            client.send(frame);
        }
    }

    /// Tells a client that it is refused, and ends its connection.
    pub fn refuse(&self, session: SessionId, refused: v1::Refused) {
        let mut inner = self.inner();
        if let Some(client) = inner.clients.get_mut(&session) {
            let _ = client.out.try_send(ServerFrame { frame: Some(Frame::Refused(refused)) });
            client.closed = true;
            client.wake.notify_one();
        }
    }

    /// Refuses everybody: this node no longer leads.
    pub fn refuse_all(&self, refused: &v1::Refused) {
        let sessions: Vec<SessionId> = self.inner().clients.keys().copied().collect();
        sessions.into_iter().for_each(|session| self.refuse(session, refused.clone()));
    }

    /// The session holds the inode open from now on; whether it did not before.
    pub fn open(&self, session: SessionId, ino: Ino) -> bool {
        self.inner().clients.get_mut(&session).is_some_and(|client| client.opens.insert(ino))
    }

    /// Whether the session's client understands answers of this version of the state machine.
    pub fn understands(&self, session: SessionId, machine: u32) -> bool {
        self.inner().clients.get(&session).is_some_and(|client| client.machine >= machine)
    }

    /// The session's present connection.
    pub fn connection(&self, session: SessionId) -> Option<u64> {
        self.inner().clients.get(&session).map(|client| client.connection)
    }

    /// The session has closed the inode.
    pub fn close(&self, session: SessionId, ino: Ino) {
        let mut inner = self.inner();
        let Some(client) = inner.clients.get_mut(&session) else { return };
        if client.opens.remove(&ino) {
            inner.orphans.push_back(ino);
        }
    }

    /// Which of these nobody holds open.
    pub fn not_open(&self, inos: Vec<Ino>) -> Vec<Ino> {
        let inner = self.inner();
        inos.into_iter().filter(|ino| !inner.clients.values().any(|client| client.opens.contains(ino))).collect()
    }

    /// Whether something was unlinked or closed since the last call.
    pub fn take_orphan_hint(&self) -> bool {
        let mut inner = self.inner();
        let any = !inner.orphans.is_empty();
        inner.orphans.clear();
        any
    }

    /// Whether the shared state was rewound or replaced since the last call.
    pub fn take_rewound(&self) -> bool {
        std::mem::take(&mut self.inner().rewound)
    }

    /// Tells a client what it must hear about its caches, if there is anything.
    pub fn send_touches(&self, session: SessionId) {
        if let Some(client) = self.inner().clients.get_mut(&session)
            && let Some(message) = client.take_touches()
        {
            client.push(Frame::Invalidations(message));
        }
    }

    /// All connected clients, for views.
    pub fn each(&self, mut visit: impl FnMut(SessionId, &Client)) {
        self.inner().clients.iter().for_each(|(&session, client)| visit(session, client));
    }

    /// Ends all connections; the node stops.
    pub fn stop(&self) {
        self.stopped("the node was asked to stop");
    }

    /// Why the node cannot go on, if it cannot.
    pub fn stop_reason(&self) -> Option<String> {
        self.inner().stopped.clone()
    }
}

impl Observer for Hub {
    fn applied(&self, applied: &Applied) {
        let mut inner = self.inner();
        let changes = &applied.changes;
        for event in &changes.events {
            if let Event::Orphaned(ino) = event
                && inner.orphans.len() < PENDING_ORPHANS
            {
                inner.orphans.push_back(*ino);
            }
        }
        inner.rewound |= changes.rewound.is_some();
        let reset = changes.rewound.is_some() || changes.events.iter().any(|event| matches!(event, Event::Lineage(_)));
        for (&session, client) in inner.clients.iter_mut() {
            let mut any = reset;
            client.pending.reset |= reset;
            // In another history a client begins with another handshake (law 9).
            client.closed |= reset;
            // A client never receives its own invalidation (law 29).
            for (by, touched) in &changes.touched {
                if *by == Some(session) || client.kind == Kind::Worker {
                    continue;
                }
                any = true;
                if client.pending.touched.len() < PENDING_TOUCHES {
                    client.pending.touched.insert(touched.clone());
                } else {
                    client.pending.reset = true;
                }
            }
            if any {
                client.pending.index = applied.index;
                client.wake.notify_one();
            }
        }
        drop(inner);
        self.changed.notify_waiters();
        // Names come and go far more often than blocks, and are no work for anybody.
        if reset || !changes.added.is_empty() || !changes.dropped.is_empty() {
            self.work.notify_one();
        }
    }

    fn local_changed(&self) {
        self.changed.notify_waiters();
        self.work.notify_one();
    }

    fn stopped(&self, why: &str) {
        let mut inner = self.inner();
        inner.stopped.get_or_insert_with(|| why.to_owned());
        for client in inner.clients.values_mut() {
            client.closed = true;
            client.wake.notify_one();
        }
        drop(inner);
        self.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::OsHost;
    use farshore_meta::Changes;

    const ALICE: SessionId = SessionId([1; 16]);
    const BOB: SessionId = SessionId([2; 16]);

    fn connect(hub: &Hub, session: SessionId, machine: u32) -> mpsc::Receiver<ServerFrame> {
        let (out, frames) = mpsc::channel(8);
        let info = SessionInfo { host: "h".into(), mount: "/m".into(), options: String::new(), bucket: None };
        hub.connect(session, Kind::Writer, info, "us-east".to_owned(), (&[], machine), out);
        frames
    }

    fn touched_by(by: SessionId, ino: u64) -> Applied {
        let touched = vec![(Some(by), Touched::Inode(Ino(ino)))];
        Applied { index: LogIndex(9), outcomes: vec![], changes: Changes { touched, ..Changes::default() } }
    }

    #[test]
    fn law_29_who_hears_an_answer_has_heard_what_others_did_before() {
        let hub = Hub::new(Arc::new(OsHost));
        let mut frames = connect(&hub, ALICE, 0);
        hub.applied(&touched_by(BOB, 5));
        hub.send(ALICE, Frame::Welcome(v1::Welcome::default()));
        hub.send(ALICE, Frame::Replies(v1::Replies::default()));
        hub.applied(&touched_by(ALICE, 6));
        hub.send(ALICE, Frame::Answers(v1::Answers::default()));
        hub.applied(&touched_by(BOB, 7));
        hub.send_touches(ALICE);
        hub.send_touches(ALICE);
        let mut told = vec![];
        while let Ok(ServerFrame { frame: Some(frame) }) = frames.try_recv() {
            told.push(match frame {
                Frame::Welcome(_) => "welcome".to_owned(),
                Frame::Replies(_) => "replies".to_owned(),
                Frame::Answers(_) => "answers".to_owned(),
                Frame::Invalidations(message) => format!("{:?} at {}", message.inodes, message.log_index),
                other => panic!("{other:?}"),
            });
        }
        assert_eq!(told, ["welcome", "[5] at 9", "replies", "answers", "[7] at 9"]);
    }

    #[test]
    fn law_4_what_an_older_client_does_not_understand_is_known() {
        let hub = Hub::new(Arc::new(OsHost));
        let _frames = [connect(&hub, ALICE, 7), connect(&hub, BOB, 0)];
        assert!(hub.understands(ALICE, 7) && !hub.understands(ALICE, 8) && !hub.understands(BOB, 7));
        assert!(!hub.understands(SessionId([3; 16]), 0), "nobody is there");
    }
}
