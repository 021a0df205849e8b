//! The network of the world: calls and streams are function calls into the target node with seeded delays, losses and
//! partitions. A killed node hears nothing and is not heard; a cut link holds what is on its way for a while, then breaks
//! the stream, as TCP does.

use crate::dice::Dice;
use crate::plant::{self, Hazard};
use crate::store::SimStore;
use crate::trace::Trace;
use farshore_primary::Node;
use farshore_primary::raft::snapshot::SnapshotBody;
use farshore_primary::raft::{PeerCall, PeerError, PeerTransport};
use farshore_types::ClusterId;
use farshore_wire::sealed;
use farshore_wire::v1::{RaftReply, RaftRequest};
use openraft::AsyncRuntime;
use openraft_rt_sim::SimRuntime;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// A node as the simulator runs it.
pub type SimNode = Node<SimRuntime, SimStore>;

/// Microseconds on the way inside a region, on a bad day, and what an ocean adds.
const NEAR_US: (u64, u64) = (100, 2_000);
const SLOW_US: (u64, u64) = (5_000, 80_000);
const OCEAN_US: (u64, u64) = (15_000, 25_000);
const SLOW_PERMILLE: u64 = 20;
/// How often a stream looks whether it was cut.
const LOOK: Duration = Duration::from_millis(50);
/// A cut stream breaks after so many looks.
const PATIENCE: u64 = 60;
/// Frames on the way in one stream (law 27).
const FRAMES: usize = 1024;
/// Longest wait for a snapshot to be installed.
const SNAPSHOT: Duration = Duration::from_secs(10);

/// One life of a node: from its start to its kill.
pub struct Life {
    pub node: Arc<SimNode>,
    dead: Arc<AtomicBool>,
}

impl Life {
    pub fn new(node: Arc<SimNode>, dead: Arc<AtomicBool>) -> Arc<Self> {
        Arc::new(Life { node, dead })
    }

    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    pub fn kill(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }
}

/// Who talks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A node, by its place in the world.
    Node(usize),
    /// A client or worker in the region of this cluster.
    Client(ClusterId),
}

struct Place {
    name: String,
    cluster: ClusterId,
    life: Option<Arc<Life>>,
    isolated: bool,
    /// It reaches no other node, and its clients reach it.
    alone: bool,
    /// Nothing reaches it and nothing leaves it until it goes on; nothing is lost.
    paused: bool,
}

/// The network.
pub struct Net {
    pub dice: Arc<Dice>,
    pub trace: Arc<Trace>,
    places: Mutex<Vec<Place>>,
    /// Pairs of clusters that cannot talk.
    cut: Mutex<BTreeSet<(ClusterId, ClusterId)>>,
    loss_permille: AtomicU64,
    flip_permille: AtomicU64,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pair(a: ClusterId, b: ClusterId) -> (ClusterId, ClusterId) {
    (a.min(b), a.max(b))
}

impl Net {
    pub fn new(dice: Arc<Dice>, trace: Arc<Trace>, names: Vec<(String, ClusterId)>) -> Arc<Self> {
        let places = names.into_iter().map(|(name, cluster)| Place {
            name,
            cluster,
            life: None,
            isolated: false,
            alone: false,
            paused: false,
        });
        Arc::new(Net {
            dice,
            trace,
            places: Mutex::new(places.collect()),
            cut: Mutex::default(),
            loss_permille: AtomicU64::new(0),
            flip_permille: AtomicU64::new(0),
        })
    }

    pub fn place_of(&self, address: &str) -> Option<usize> {
        lock(&self.places).iter().position(|place| place.name == address)
    }

    pub fn name(&self, at: usize) -> String {
        lock(&self.places)[at].name.clone()
    }

    pub fn cluster(&self, at: usize) -> ClusterId {
        lock(&self.places)[at].cluster
    }

    /// The places of one cluster, in order.
    pub fn places(&self, cluster: ClusterId) -> Vec<usize> {
        let places = lock(&self.places);
        (0..places.len()).filter(|at| places[*at].cluster == cluster).collect()
    }

    /// The running node at a place.
    pub fn life(&self, at: usize) -> Option<Arc<Life>> {
        lock(&self.places)[at].life.clone()
    }

    pub fn set_life(&self, at: usize, life: Option<Arc<Life>>) {
        lock(&self.places)[at].life = life;
    }

    pub fn isolate(&self, at: usize, isolated: bool) {
        lock(&self.places)[at].isolated = isolated;
    }

    /// Cuts a node off from all other nodes, and not from its clients: a leader may not notice for long that it is none.
    pub fn leave_alone(&self, at: usize, alone: bool) {
        lock(&self.places)[at].alone = alone;
    }

    /// Stops a node's messages in both directions, or lets them go on: for everybody else the machine stands still.
    pub fn pause(&self, at: usize, paused: bool) {
        lock(&self.places)[at].paused = paused;
    }

    fn is_paused(&self, end: End) -> bool {
        matches!(end, End::Node(at) if lock(&self.places)[at].paused)
    }

    /// Waits until neither end stands still.
    async fn until_awake(&self, a: End, b: End) {
        while self.is_paused(a) || self.is_paused(b) {
            SimRuntime::sleep(LOOK).await;
        }
    }

    pub fn set_cut(&self, a: ClusterId, b: ClusterId, cut: bool) {
        if cut {
            lock(&self.cut).insert(pair(a, b))
        } else {
            lock(&self.cut).remove(&pair(a, b))
        };
    }

    pub fn set_loss(&self, permille: u64) {
        self.loss_permille.store(permille, Ordering::Relaxed);
    }

    /// Of so many messages in 1000, one bit flips on the way.
    pub fn set_flips(&self, permille: u64) {
        self.flip_permille.store(permille, Ordering::Relaxed);
    }

    /// A message as it arrives: through the bytes that the real network carries, when their bits may flip.
    fn carry<M: prost::Message + Default>(&self, message: M) -> Result<M, PeerError> {
        let permille = self.flip_permille.load(Ordering::Relaxed);
        if permille == 0 || !self.dice.chance(permille) {
            return Ok(message);
        }
        let mut bytes = vec![];
        sealed::seal(&message, &mut bytes);
        let bit = self.dice.below(bytes.len() as u64 * 8) as usize;
        bytes[bit / 8] ^= 1 << (bit % 8);
        self.trace.say("a bit flips on the way");
        if plant::is(Hazard::FlippedBitsBelieved) {
            return M::decode(bytes.as_slice()).map_err(|error| PeerError(error.to_string()));
        }
        sealed::open(bytes.into()).map_err(|broken| PeerError(broken.to_string()))
    }

    /// Everything can talk again.
    pub fn heal(&self) {
        lock(&self.cut).clear();
        lock(&self.places).iter_mut().for_each(|place| (place.isolated, place.alone, place.paused) = (false, false, false));
        self.set_loss(0);
        self.set_flips(0);
    }

    fn side(&self, end: End) -> (ClusterId, bool) {
        match end {
            End::Node(at) => {
                let places = lock(&self.places);
                (places[at].cluster, places[at].isolated)
            }
            End::Client(cluster) => (cluster, false),
        }
    }

    /// Whether the two can talk now.
    pub fn is_open(&self, a: End, b: End) -> bool {
        if let (End::Node(a), End::Node(b)) = (a, b) {
            let places = lock(&self.places);
            if places[a].alone || places[b].alone {
                return false;
            }
        }
        let ((a, a_isolated), (b, b_isolated)) = (self.side(a), self.side(b));
        !a_isolated && !b_isolated && !lock(&self.cut).contains(&pair(a, b))
    }

    fn is_lost(&self) -> bool {
        let permille = self.loss_permille.load(Ordering::Relaxed);
        permille > 0 && self.dice.chance(permille)
    }

    async fn travel(&self, a: End, b: End) {
        let (low, high) = if self.dice.chance(SLOW_PERMILLE) { SLOW_US } else { NEAR_US };
        let mut us = self.dice.between(low, high);
        if self.side(a).0 != self.side(b).0 {
            us += self.dice.between(OCEAN_US.0, OCEAN_US.1);
        }
        SimRuntime::sleep(Duration::from_micros(us)).await;
    }

    /// One call there and back; it is pending for ever when it is lost: the caller's timeout ends it.
    async fn exchange(&self, from: usize, me: &AtomicBool, to: usize, call: Exchange) -> Result<Vec<u8>, PeerError> {
        let (a, b) = (End::Node(from), End::Node(to));
        self.travel(a, b).await;
        self.until_awake(a, b).await;
        if me.load(Ordering::Relaxed) || self.is_lost() || !self.is_open(a, b) {
            return std::future::pending().await;
        }
        let Some(life) = self.life(to) else { return Err(PeerError("connection refused".to_owned())) };
        let answer = match call {
            Exchange::Raft(call, body) => match self.carry(RaftRequest { body: body.into(), ..Default::default() }) {
                Ok(request) => life.node.handle_peer(call, &request.body).await,
                Err(broken) => Err(broken),
            },
            Exchange::Snapshot(meta, body) => match body.open() {
                Ok(reader) => life.node.handle_snapshot(&meta, reader).await,
                Err(error) => Err(PeerError(error.to_string())),
            },
        };
        self.travel(b, a).await;
        self.until_awake(a, b).await;
        if life.is_dead() || self.is_lost() || !self.is_open(a, b) {
            return std::future::pending().await;
        }
        Ok(self.carry(RaftReply { body: answer?.into() })?.body.to_vec())
    }

    /// A stream from one end to the other: frames in order, delayed. It ends when either side ends it, when a node of it
    /// is killed, or when the link was cut for long.
    pub fn stream<T: prost::Message + Default + 'static>(
        self: &Arc<Self>,
        (from, to): (End, End),
        lives: Vec<Arc<Life>>,
        input: mpsc::Receiver<T>,
    ) -> mpsc::Receiver<T> {
        let (output, receiver) = mpsc::channel(FRAMES);
        let net = self.clone();
        drop(SimRuntime::spawn(async move { net.pump(from, to, &lives, input, output).await }));
        receiver
    }

    async fn pump<T: prost::Message + Default>(
        &self,
        from: End,
        to: End,
        lives: &[Arc<Life>],
        mut input: mpsc::Receiver<T>,
        output: mpsc::Sender<T>,
    ) {
        let dead = || lives.iter().any(|life| life.is_dead()) || output.is_closed();
        loop {
            let next = SimRuntime::timeout(LOOK, input.recv()).await;
            if dead() {
                return;
            }
            let frame = match next {
                Err(_) => continue,
                Ok(None) => return,
                Ok(Some(frame)) => frame,
            };
            self.travel(from, to).await;
            self.until_awake(from, to).await;
            let mut patience = PATIENCE / 2 + self.dice.below(PATIENCE);
            while !self.is_open(from, to) && patience > 0 && !dead() {
                SimRuntime::sleep(LOOK).await;
                patience -= 1;
            }
            let Ok(frame) = self.carry(frame) else { return };
            if patience == 0 || dead() || output.send(frame).await.is_err() {
                return;
            }
        }
    }
}

enum Exchange {
    Raft(PeerCall, Vec<u8>),
    Snapshot(Vec<u8>, SnapshotBody),
}

/// How one life of a node reaches its peers.
pub struct SimTransport {
    pub net: Arc<Net>,
    pub from: usize,
    pub dead: Arc<AtomicBool>,
}

impl SimTransport {
    async fn bounded(&self, address: &str, ttl: Duration, exchange: Exchange) -> Result<Vec<u8>, PeerError> {
        let to = self.net.place_of(address).ok_or_else(|| PeerError(format!("no node is called {address}")))?;
        let answered = SimRuntime::timeout(ttl, self.net.exchange(self.from, &self.dead, to, exchange)).await;
        answered.unwrap_or_else(|_| Err(PeerError("no answer in time".to_owned())))
    }
}

impl PeerTransport for SimTransport {
    fn call<'a>(
        &'a self,
        _target: u64,
        address: &'a str,
        call: PeerCall,
        body: Vec<u8>,
        ttl: Duration,
    ) -> farshore_primary::raft::PeerFuture<'a> {
        Box::pin(self.bounded(address, ttl, Exchange::Raft(call, body)))
    }

    fn snapshot<'a>(
        &'a self,
        _target: u64,
        address: &'a str,
        meta: Vec<u8>,
        body: SnapshotBody,
    ) -> farshore_primary::raft::PeerFuture<'a> {
        Box::pin(self.bounded(address, SNAPSHOT, Exchange::Snapshot(meta, body)))
    }
}
