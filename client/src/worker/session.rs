//! A worker's stream with one cluster: capacity out, leases in, completions out in batches.
//!
//! Nothing survives the stream: a new leader knows none of the old leases, so when the stream ends its tasks are dropped.
//! Never more tasks run than there are slots; leases beyond them wait, and run out like any other.

use super::task::Tasks;
use crate::session::link::{self, Finder, Link, frame};
use farshore_types::SessionInfo;
use farshore_wire::encode;
use farshore_wire::v1::{self, client_frame::Frame as Send, server_frame::Frame as Recv};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_stream::StreamExt;

/// Completions in one frame, and how long the first waits for others.
const COMPLETIONS_MAX: usize = 256;
const COMPLETIONS_WAIT: Duration = Duration::from_millis(50);
/// Listings that wait to be sent; the listing task waits with them.
const LISTINGS_MAX: usize = 4;
/// Leases held at once, whatever the cluster sends; what is beyond is left to run out there.
const LEASES_MAX: usize = 4096;
/// The shortest lease of a session that is believed.
const SESSION_LEASE_MIN: Duration = Duration::from_secs(1);
/// The wait after a stream that ended at once.
const RETRY: Duration = Duration::from_millis(200);

/// One worker's session.
pub(super) struct WorkerSession {
    pub volume: String,
    pub nodes: Vec<String>,
    pub info: SessionInfo,
    pub slots: u32,
    pub tasks: Arc<Tasks>,
}

/// What runs, and where its results go.
struct Running {
    tasks: Arc<Tasks>,
    slots: Arc<Semaphore>,
    running: HashMap<Vec<u8>, AbortHandle>,
    completions: mpsc::Sender<v1::Completion>,
    listings: mpsc::Sender<v1::Listing>,
}

impl WorkerSession {
    /// Keeps a stream with the cluster's leader until `shutdown` turns true.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let mut finder = Finder::new(self.nodes.clone());
        let group = self.tasks.record.group.0;
        loop {
            let node = finder.node();
            let hello = link::hello(&self.volume, group, link::new_session_id(), v1::hello::Kind::Worker, encode(&self.info));
            let opened = tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                opened = link::open(&node, hello) => opened,
            };
            let wait = match opened {
                Ok(link) => {
                    finder.served();
                    finder.learn(&link.welcome.nodes);
                    match self.serve(link, &mut finder, shutdown.clone()).await {
                        None => return,
                        Some(leader) => finder.failed(leader.as_deref()).max(RETRY),
                    }
                }
                Err(error) => {
                    tracing::debug!(volume = self.volume, "no worker's session: {}", error.text(&node));
                    finder.failed(Finder::hint_of(&error))
                }
            };
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                _ = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Works until the stream ends; `None` when the worker shall stop, else the leader if the node named one.
    async fn serve(&self, mut link: Link, finder: &mut Finder, mut shutdown: watch::Receiver<bool>) -> Option<Option<String>> {
        let (completions, mut completed) = mpsc::channel(COMPLETIONS_MAX);
        let (listings, mut listed) = mpsc::channel(LISTINGS_MAX);
        let slots = Arc::new(Semaphore::new(self.slots as usize));
        let mut running = Running { tasks: self.tasks.clone(), slots, running: HashMap::new(), completions, listings };
        let lease = Duration::from_millis(u64::from(link.welcome.lease_ms)).max(SESSION_LEASE_MIN);
        let mut renew = tokio::time::interval(lease / 3);
        renew.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut outgoing: Option<v1::ClientFrame> = Some(frame(Send::Capacity(v1::Capacity { slots: self.slots })));
        let mut batch = Vec::new();
        let end = loop {
            let idle = outgoing.is_none();
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => break None,
                received = link.inbound.next() => match received {
                    Some(Ok(message)) => match message.frame {
                        Some(Recv::Leases(leases)) => running.take(leases.leases),
                        Some(Recv::Revoked(revoked)) => running.revoke(&revoked.tasks),
                        Some(Recv::Nodes(nodes)) => finder.learn(&nodes.addresses),
                        Some(Recv::Refused(refused)) => break Some(Some(refused.leader)),
                        _ => {}
                    },
                    _ => break Some(None),
                },
                permit = link.out.reserve(), if !idle => match permit {
                    Ok(permit) => permit.send(outgoing.take().expect("guarded by the branch's condition")),
                    Err(_) => break Some(None),
                },
                _ = gather(&mut completed, &mut batch), if idle => {
                    for completion in &batch {
                        running.running.remove(completion.task.as_ref());
                    }
                    let completions = std::mem::take(&mut batch);
                    outgoing = Some(frame(Send::Completions(v1::Completions { completions })));
                }
                listing = listed.recv(), if idle => {
                    let listing: v1::Listing = listing.expect("`running` holds a sender");
                    if listing.last {
                        running.running.remove(listing.task.as_ref());
                    }
                    outgoing = Some(frame(Send::Listing(listing)));
                }
                _ = renew.tick(), if idle => outgoing = Some(frame(Send::Renew(v1::Renew {}))),
            }
        };
        running.abort_all();
        if end.is_none() {
            let _ = link.out.try_send(frame(Send::Goodbye(v1::Goodbye {})));
        }
        end
    }
}

/// Fills `batch`: waits for one completion, then for more until there are enough or the first has waited long enough.
/// What is in `batch` stays there when this is given up halfway.
async fn gather(completed: &mut mpsc::Receiver<v1::Completion>, batch: &mut Vec<v1::Completion>) {
    if batch.is_empty() {
        completed.recv_many(batch, COMPLETIONS_MAX).await;
    }
    let deadline = Instant::now() + COMPLETIONS_WAIT;
    while batch.len() < COMPLETIONS_MAX {
        let room = COMPLETIONS_MAX - batch.len();
        match tokio::time::timeout_at(deadline, completed.recv_many(batch, room)).await {
            Ok(count) if count > 0 => {}
            _ => return,
        }
    }
}

impl Running {
    fn take(&mut self, leases: Vec<v1::Lease>) {
        let received = Instant::now();
        self.running.retain(|_, task| !task.is_finished());
        for lease in leases {
            if self.running.len() >= LEASES_MAX || self.running.contains_key(lease.task.as_ref()) {
                continue;
            }
            let task = lease.task.to_vec();
            let until = received + Duration::from_millis(u64::from(lease.valid_ms));
            let work = work(lease, self.tasks.clone(), self.slots.clone(), self.completions.clone(), self.listings.clone());
            // Law 6: the lease is over when its time is, counted here from its receipt.
            let bounded = tokio::spawn(async move { drop(tokio::time::timeout_at(until, work).await) });
            self.running.insert(task, bounded.abort_handle());
        }
    }

    fn revoke(&mut self, tasks: &[bytes::Bytes]) {
        for task in tasks {
            if let Some(running) = self.running.remove(task.as_ref()) {
                running.abort();
            }
        }
    }

    fn abort_all(&mut self) {
        self.running.drain().for_each(|(_, task)| task.abort());
    }
}

async fn work(
    lease: v1::Lease,
    tasks: Arc<Tasks>,
    slots: Arc<Semaphore>,
    completions: mpsc::Sender<v1::Completion>,
    listings: mpsc::Sender<v1::Listing>,
) {
    let Ok(_slot) = slots.acquire().await else { return };
    if lease.kind() == v1::lease::Kind::List {
        return tasks.list(&lease, &listings).await;
    }
    let result = tasks.execute(&lease).await;
    let _ = completions.send(v1::Completion { task: lease.task, result: Some(result) }).await;
}
