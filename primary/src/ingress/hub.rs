//! The leader's memory of its clients: who is connected, what they hold open, and what they must be told.
//!
//! Nothing here survives a change of leader; clients bring it along when they come back. A slow client never holds up
//! the others: what it must hear is collected in a bounded set, and past the bound it is told to drop everything.

use super::client::{Client, PendingTouches};
use super::watch::Watch;
use crate::host::SharedHost;
use crate::raft::Observer;
use farshore_meta::{Applied, Event, Touched};
use farshore_types::{Ino, LogIndex, SessionId, SessionInfo};
use farshore_wire::v1::{self, ServerFrame, hello::Kind, server_frame::Frame};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{Notify, mpsc};

/// Unlinked inodes remembered between two looks of the purger; more are found in the state.
const PENDING_ORPHANS: usize = 65_536;

#[derive(Default)]
struct Inner {
    clients: BTreeMap<SessionId, Client>,
    watch: Watch,
    orphans: VecDeque<Ino>,
    connections: u64,
    rewound: bool,
    stopped: Option<String>,
}

impl Inner {
    /// Of what the client keeps open, or has made, it hears as long as that lasts.
    fn keep(&mut self, session: SessionId, ino: Ino, kept: impl FnOnce(&mut Client) -> &mut BTreeSet<Ino>) -> bool {
        let Some(client) = self.clients.get_mut(&session) else { return false };
        let added = kept(client).insert(ino);
        self.watch.keeps(session, ino);
        added
    }

    /// It holds the inode open no longer; whether it did.
    fn let_go(&mut self, session: SessionId, ino: Ino) -> bool {
        let Some(client) = self.clients.get_mut(&session) else { return false };
        let held = client.opens.remove(&ino);
        if held && !client.made.contains(&ino) {
            self.watch.drops(session, ino);
        }
        held
    }

    /// Who may know what an entry has changed is told of it.
    fn tell(&mut self, applied: &Applied, now_us: u64) {
        let Inner { clients, watch, .. } = self;
        // A follower has none. Who comes later is told of a state that has all this.
        if clients.is_empty() {
            watch.skips_to(applied.index);
            return;
        }
        let (mut last, mut watchers) = (None, Vec::new());
        for (by, touched) in &applied.changes.touched {
            // What follows each other is mostly of one directory.
            let of = Some((*by, touched.ino()));
            if std::mem::replace(&mut last, of) != of {
                let here = by.filter(|by| clients.contains_key(by));
                watch.changed(applied.index, here, touched.ino(), now_us);
                watch.watchers(touched.ino(), &mut watchers);
            }
            // A client never receives its own invalidation (law 29).
            for session in watchers.iter().filter(|session| Some(**session) != *by) {
                if let Some(client) = clients.get_mut(session) {
                    client.touched(touched.clone(), applied.index);
                }
            }
        }
        for event in &applied.changes.events {
            match event {
                Event::Recalled { holder, directory } => {
                    if let Some(client) = self.clients.get_mut(holder) {
                        client.touched(Touched::Inode(*directory), applied.index);
                    }
                }
                Event::Orphaned(ino) => self.nameless(*ino),
                _ => {}
            }
        }
    }

    /// The inode has no name any more. A directory without one gets none inside it either: who made it knows all that it will ever hold.
    fn nameless(&mut self, ino: Ino) {
        for session in self.watch.keepers(ino) {
            if let Some(client) = self.clients.get_mut(&session)
                && client.made.remove(&ino)
                && !client.opens.contains(&ino)
            {
                self.watch.drops(session, ino);
            }
        }
    }

    /// The client is gone, or here anew.
    fn left(&mut self, session: SessionId, client: &Client) {
        self.watch.left(session, client.opens.union(&client.made));
    }
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
        let client = Client {
            kind,
            info,
            region,
            out,
            wake: wake.clone(),
            heard_us: self.host.boot_us(),
            opens: BTreeSet::new(),
            made: BTreeSet::new(),
            pending: PendingTouches::default(),
            closed: false,
            connection,
            machine,
        };
        if let Some(older) = inner.clients.insert(session, client) {
            older.wake.notify_one();
            inner.left(session, &older);
        }
        for &ino in opens {
            inner.keep(session, Ino(ino), |client| &mut client.opens);
        }
        (connection, wake)
    }

    /// The connection is over; the session may come back.
    pub fn disconnect(&self, session: SessionId, connection: u64) {
        let mut inner = self.inner();
        if inner.clients.get(&session).is_some_and(|client| client.connection == connection)
            && let Some(client) = inner.clients.remove(&session)
        {
            inner.left(session, &client);
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
        self.inner().keep(session, ino, |client| &mut client.opens)
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
        if inner.let_go(session, ino) {
            inner.orphans.push_back(ino);
        }
    }

    /// The session is about to be told of these inodes what is read from now on: from now on it hears of their changes.
    pub fn asked(&self, asked: impl IntoIterator<Item = (SessionId, Ino)>) {
        let now = self.host.boot_us();
        let mut inner = self.inner();
        for (session, ino) in asked {
            inner.watch.told(session, [ino], LogIndex(u64::MAX), now);
        }
    }

    /// The session is about to be told of these inodes what the state of `index` says: it hears of all that changed since.
    pub fn told(&self, session: SessionId, inos: impl IntoIterator<Item = Ino>, index: LogIndex) {
        let now = self.host.boot_us();
        let mut guard = self.inner();
        let inner = &mut *guard;
        let missed = inner.watch.told(session, inos, index, now);
        if let Some(client) = inner.clients.get_mut(&session) {
            missed.into_iter().for_each(|ino| client.touched(Touched::Inode(ino), index));
        }
    }

    /// The session has made a directory in another: it knows all names in there, and where it lies.
    pub fn made(&self, session: SessionId, directory: Ino, parent: Ino) {
        let mut inner = self.inner();
        if inner.watch.keeps_all(session) {
            return;
        }
        for ino in [directory, parent] {
            inner.keep(session, ino, |client| &mut client.made);
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
        if reset {
            inner.watch.skips_to(applied.index);
            for client in inner.clients.values_mut() {
                client.pending.index = applied.index;
                client.pending.reset = true;
                // In another history a client begins with another handshake (law 9).
                client.closed = true;
                client.wake.notify_one();
            }
        }
        inner.tell(applied, self.host.boot_us());
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
        hub.asked((5..=7).map(|ino| (ALICE, Ino(ino))));
        hub.applied(&touched_by(BOB, 5));
        hub.applied(&touched_by(BOB, 8));
        hub.send(ALICE, Frame::Welcome(v1::Welcome::default()));
        hub.send(ALICE, Frame::Replies(v1::Replies::default()));
        hub.applied(&touched_by(ALICE, 6));
        hub.send(ALICE, Frame::Answers(v1::Answers::default()));
        hub.applied(&touched_by(BOB, 7));
        hub.send_touches(ALICE);
        hub.send_touches(ALICE);
        assert_eq!(told(&mut frames), ["welcome", "[5] at 9", "replies", "answers", "[7] at 9"]);
    }

    /// What a client was sent.
    fn told(frames: &mut mpsc::Receiver<ServerFrame>) -> Vec<String> {
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
        told
    }

    #[test]
    fn law_29_what_a_client_holds_open_or_made_or_is_asked_for_it_hears_of() {
        let hub = Hub::new(Arc::new(OsHost));
        let (out, mut frames) = mpsc::channel(8);
        let info = SessionInfo { host: "h".into(), mount: "/m".into(), options: String::new(), bucket: None };
        hub.connect(ALICE, Kind::Writer, info, "us-east".to_owned(), (&[3], 0), out);
        hub.made(ALICE, Ino(6), Ino(5));
        hub.open(ALICE, Ino(6));
        hub.close(ALICE, Ino(6));
        hub.open(ALICE, Ino(7));
        hub.close(ALICE, Ino(7));
        (2..=7).for_each(|ino| hub.applied(&touched_by(BOB, ino)));
        hub.send_touches(ALICE);
        assert_eq!(told(&mut frames), ["[3, 5, 6, 7] at 9"], "7 was open just now");
        let recalled = Event::Recalled { holder: ALICE, directory: Ino(4) };
        let changes = Changes { events: vec![recalled], ..Changes::default() };
        hub.applied(&Applied { index: LogIndex(10), outcomes: vec![], changes });
        hub.send_touches(ALICE);
        assert_eq!(told(&mut frames), ["[4] at 10"], "its lease may be older than its connection");
        hub.disconnect(ALICE, hub.connection(ALICE).unwrap());
        let mut frames = connect(&hub, ALICE, 0);
        (2..=7).for_each(|ino| hub.applied(&touched_by(BOB, ino)));
        hub.send_touches(ALICE);
        assert_eq!(told(&mut frames), ["[7] at 9"], "a new connection begins with what it says it has open");
    }

    #[test]
    fn law_27_what_a_client_made_is_kept_until_it_has_no_name() {
        let hub = Hub::new(Arc::new(OsHost));
        let mut frames = connect(&hub, ALICE, 0);
        hub.made(ALICE, Ino(6), Ino(5));
        hub.made(ALICE, Ino(7), Ino(5));
        hub.open(ALICE, Ino(7));
        for ino in [6, 7, 8] {
            let removed = touched_by(BOB, ino).changes;
            let changes = Changes { events: vec![Event::Orphaned(Ino(ino))], ..removed };
            hub.applied(&Applied { index: LogIndex(9), outcomes: vec![], changes });
        }
        hub.send_touches(ALICE);
        assert_eq!(told(&mut frames), ["[6, 7] at 9"], "she hears of their end");
        let kept =
            |of: fn(&Client) -> &BTreeSet<Ino>| of(&hub.inner().clients[&ALICE]).iter().map(|ino| ino.0).collect::<Vec<_>>();
        assert_eq!((kept(|client| &client.made), kept(|client| &client.opens)), (vec![5], vec![7]));
        assert_eq!([5, 6, 7].map(|ino| hub.inner().watch.keepers(Ino(ino)).len()), [1, 0, 1]);
    }

    #[test]
    fn law_29_what_changed_between_a_read_and_its_answer_is_told_before_it() {
        let hub = Hub::new(Arc::new(OsHost));
        let mut frames = connect(&hub, ALICE, 0);
        hub.applied(&touched_by(ALICE, 4));
        hub.applied(&touched_by(BOB, 5));
        hub.told(ALICE, [Ino(4), Ino(5), Ino(6)], LogIndex(8));
        hub.send(ALICE, Frame::Answers(v1::Answers::default()));
        assert_eq!(told(&mut frames), ["[5] at 8", "answers"]);
        hub.told(ALICE, [Ino(5)], LogIndex(8));
        hub.send(ALICE, Frame::Answers(v1::Answers::default()));
        assert_eq!(told(&mut frames), ["answers"], "it has heard of that");
    }

    #[test]
    fn law_4_what_an_older_client_does_not_understand_is_known() {
        let hub = Hub::new(Arc::new(OsHost));
        let _frames = [connect(&hub, ALICE, 7), connect(&hub, BOB, 0)];
        assert!(hub.understands(ALICE, 7) && !hub.understands(ALICE, 8) && !hub.understands(BOB, 7));
        assert!(!hub.understands(SessionId([3; 16]), 0), "nobody is there");
    }
}
