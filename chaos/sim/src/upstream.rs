//! How a mirror's leader reaches the primary's nodes, and how clients reach a node: streams over the simulated network.

use crate::net::{End, Life, Net};
use crate::plant::{self, Hazard};
use farshore_mirror::{Upstream, UpstreamError, UpstreamFuture};
use farshore_types::ClusterId;
use farshore_wire::v1::{ChangelogFrame, ClientFrame, ServerFrame, SnapshotChunk, TailFrame, tail_frame::Frame};
use openraft::AsyncRuntime;
use openraft_rt_sim::SimRuntime;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::mpsc;

/// Frames between a stream's end and the node (law 27).
const FRAMES: usize = 1024;

/// One life of a node reaches other clusters through this.
pub struct SimUpstream {
    pub net: Arc<Net>,
    pub from: usize,
    pub dead: Arc<AtomicBool>,
    /// The own life, known once the node runs.
    pub own: Arc<OnceLock<Arc<Life>>>,
}

impl SimUpstream {
    fn open(&self, address: &str) -> Result<(usize, Vec<Arc<Life>>), UpstreamError> {
        let failed = |text: &str| UpstreamError { address: address.to_owned(), text: text.to_owned() };
        let to = self.net.place_of(address).ok_or_else(|| failed("no such node"))?;
        if self.dead.load(Ordering::Relaxed) || !self.net.is_open(End::Node(self.from), End::Node(to)) {
            return Err(failed("no answer in time"));
        }
        let life = self.net.life(to).ok_or_else(|| failed("connection refused"))?;
        Ok((to, std::iter::once(life).chain(self.own.get().cloned()).collect()))
    }
}

/// Hazard 2.1: the acknowledged index is reported where the floor should be.
fn reported(mut frame: TailFrame) -> TailFrame {
    if let (true, Some(Frame::Acknowledge(acknowledge))) = (plant::is(Hazard::DeleteAtAck), &mut frame.frame) {
        acknowledge.floor = acknowledge.applied;
    }
    frame
}

impl Upstream for SimUpstream {
    fn tail<'a>(&'a self, address: &'a str, mut frames: mpsc::Receiver<TailFrame>) -> UpstreamFuture<'a, ChangelogFrame> {
        Box::pin(async move {
            let (to, lives) = self.open(address)?;
            let node = lives[0].node.clone();
            let (here, there) = (End::Node(self.from), End::Node(to));
            let (said, saying) = mpsc::channel(FRAMES);
            drop(SimRuntime::spawn(async move {
                while let Some(frame) = frames.recv().await {
                    if said.send(reported(frame)).await.is_err() {
                        return;
                    }
                }
            }));
            let input = self.net.stream((here, there), lives.clone(), saying);
            let (output, out) = mpsc::channel(FRAMES);
            drop(SimRuntime::spawn(async move { node.serve_tail(input, output).await }));
            Ok(self.net.stream((there, here), lives, out))
        })
    }

    fn snapshot<'a>(&'a self, address: &'a str, _cluster: u32) -> UpstreamFuture<'a, SnapshotChunk> {
        Box::pin(async move {
            let (to, lives) = self.open(address)?;
            let node = lives[0].node.clone();
            let (output, out) = mpsc::channel(FRAMES);
            drop(SimRuntime::spawn(async move { node.serve_shared_snapshot(output).await }));
            Ok(self.net.stream((End::Node(to), End::Node(self.from)), lives, out))
        })
    }
}

/// A client's connection to one node.
pub struct Connection {
    pub send: mpsc::Sender<ClientFrame>,
    pub receive: mpsc::Receiver<ServerFrame>,
}

/// Connects a client in the region of `from` with the node at a place; `None`: it cannot be reached.
pub async fn connect(net: &Arc<Net>, from: ClusterId, to: usize) -> Option<Connection> {
    let (here, there) = (End::Client(from), End::Node(to));
    SimRuntime::sleep(std::time::Duration::from_micros(net.dice.between(500, 3_000))).await;
    if !net.is_open(here, there) {
        return None;
    }
    let life = net.life(to)?;
    let (send, sent) = mpsc::channel(FRAMES);
    let input = net.stream((here, there), vec![life.clone()], sent);
    let (output, out) = mpsc::channel(FRAMES);
    let node = life.node.clone();
    drop(SimRuntime::spawn(async move { node.serve_session(input, output).await }));
    Some(Connection { send, receive: net.stream((there, here), vec![life], out) })
}
