//! Healing: a node that lost what it had acknowledged takes it from the others, and has its vote again only then
//! (law 24, hazard 7.6). What it may do meanwhile is its [`Wholeness`].
//!
//! 1. *Lost*: it asks all other nodes for their votes and takes the highest one as its own, so that no leader of an older
//!    vote can count it.
//! 2. *Healing*: it asks the leader, who tells where its log ends, and from now on takes a shorter log from this node as
//!    true. The node follows; nobody hears a vote from it.
//! 3. When it has applied up to there, it is a member again.

use crate::node::Node;
use crate::raft::log::LogFailure;
use crate::raft::types::{LeaderId, LogId, Types};
use crate::raft::{Observer, PeerCall, PeerError};
use crate::wholeness::{Lead, Learned, Question, Told, Wholeness, goal, learn, vote_of};
use farshore_meta::kv::Store;
use farshore_wire::admin::NewMember;
use openraft::impls::Vote;
use openraft::raft::VoteRequest;
use openraft::{AsyncRuntime, ServerState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// Pause between two steps.
const PAUSE: Duration = Duration::from_millis(100);
/// A node that does not answer in so long is asked again in the next round.
const ANSWER: Duration = Duration::from_secs(1);

/// A node's wholeness in memory.
pub struct Healing {
    wholeness: Mutex<Wholeness>,
    /// A leader knows of the healing, so that it may find the log shorter than it was.
    announced: AtomicBool,
}

impl Healing {
    pub fn new(wholeness: Wholeness) -> Healing {
        Healing { wholeness: Mutex::new(wholeness), announced: AtomicBool::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, Wholeness> {
        self.wholeness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn wholeness(&self) -> Wholeness {
        self.lock().clone()
    }

    /// Lets a call of a peer in, or says why not.
    pub fn admit(&self, call: PeerCall) -> Result<(), PeerError> {
        let follows = self.announced.load(Ordering::SeqCst);
        match (&*self.lock(), call) {
            (Wholeness::Member, _) | (_, PeerCall::Heal | PeerCall::Found) => Ok(()),
            (Wholeness::Healing { .. }, PeerCall::Append | PeerCall::Snapshot | PeerCall::Confirm) if follows => Ok(()),
            _ => Err(PeerError("this node lost something and has no vote until it is refilled".to_owned())),
        }
    }
}

/// Starts healing, if there is anything to heal.
pub fn spawn<R: AsyncRuntime, S: Store>(node: &Arc<Node<R, S>>) {
    if let Some(trouble) = node.trouble() {
        tracing::warn!(%trouble, "this node is not whole");
        drop(R::spawn(run(Arc::downgrade(node))));
    }
}

async fn run<R: AsyncRuntime, S: Store>(node: Weak<Node<R, S>>) {
    loop {
        let Some(node) = node.upgrade() else { return };
        if node.hub.stop_reason().is_some() || node.healing.wholeness() == Wholeness::Member {
            return;
        }
        if let Err(failure) = step(&node).await {
            node.hub.stopped(&failure.to_string());
            return;
        }
        drop(node);
        R::sleep(PAUSE).await;
    }
}

async fn step<R: AsyncRuntime, S: Store>(node: &Arc<Node<R, S>>) -> Result<(), LogFailure> {
    match node.healing.wholeness() {
        Wholeness::Member => Ok(()),
        Wholeness::Lost { why } => regain_vote(node, why).await,
        Wholeness::Healing { why, until } if until.is_none() || !node.healing.announced.load(Ordering::SeqCst) => {
            let told = ask_others(node).await;
            let Some(found) = goal(vote_of(&*node.log)?, &told) else { return Ok(()) };
            node.enter(Wholeness::Healing { why, until: Some(until.unwrap_or(found)) })?;
            node.healing.announced.store(true, Ordering::SeqCst);
            Ok(())
        }
        Wholeness::Healing { until, .. } => {
            if node.raft_metrics().last_applied.map(|id| id.index) >= until {
                node.log.forget_failure()?;
                node.enter(Wholeness::Member)?;
                tracing::info!("this node is refilled from the others and has its vote again");
            }
            Ok(())
        }
    }
}

async fn regain_vote<R: AsyncRuntime, S: Store>(node: &Arc<Node<R, S>>, why: String) -> Result<(), LogFailure> {
    let told = ask_others(node).await;
    if !matches!(node.healing.wholeness(), Wholeness::Lost { .. }) {
        // Founded meanwhile.
        return Ok(());
    }
    match learn(&told) {
        Learned::Wait(what) => tracing::debug!(what, "the vote cannot be learned yet"),
        Learned::Nothing => {}
        Learned::NeverVoted => node.enter(Wholeness::Member)?,
        Learned::Vote(vote) => {
            if node.adopt(vote).await {
                node.enter(Wholeness::healing(why))?;
            }
        }
    }
    Ok(())
}

/// What the others tell, in their order; `None` for a node that does not answer.
async fn ask_others<R: AsyncRuntime, S: Store>(node: &Node<R, S>) -> Vec<Option<Told>> {
    ask(node, &node.others()).await
}

async fn ask<R: AsyncRuntime, S: Store>(node: &Node<R, S>, others: &[(u64, String)]) -> Vec<Option<Told>> {
    let question = encode(&Question { node: node.config.id.0 });
    let answers = others.iter().map(|(id, address)| {
        let call = node.transport.call(*id, address, PeerCall::Heal, question.clone(), ANSWER);
        async move { postcard::from_bytes(&call.await.ok()?).ok() }
    });
    futures::future::join_all(answers).await
}

fn encode<T: serde::Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("a message always serialises into memory")
}

impl<R: AsyncRuntime, S: Store> Node<R, S> {
    /// What is wrong with this node, though it runs (law 28).
    pub fn trouble(&self) -> Option<String> {
        self.healing.wholeness().trouble()
    }

    /// The other members, or, while this node knows of none, who the topology says may know; their numbers are unknown then.
    fn others(&self) -> Vec<(u64, String)> {
        let members = self.other_members();
        if members.is_empty() {
            return self.config.peers.iter().map(|address| (0, address.clone())).collect();
        }
        members.into_iter().map(|member| (member.id, member.address)).collect()
    }

    /// Durable first: a restart in the middle must not vote.
    fn enter(&self, wholeness: Wholeness) -> Result<(), LogFailure> {
        wholeness.store(&*self.log)?;
        let whole = wholeness == Wholeness::Member;
        *self.healing.lock() = wholeness;
        if whole {
            self.raft.runtime_config().elect(true);
        }
        Ok(())
    }

    /// Takes a vote as its own, as if that candidate had asked for it; nobody hears of it as a vote given.
    async fn adopt(&self, vote: Vote<LeaderId>) -> bool {
        let asked = Vote { committed: false, ..vote };
        // This node's own log is no argument: it is what was lost.
        let last = LogId { leader_id: vote.leader_id, index: u64::MAX };
        let answered = self.raft.vote(VoteRequest::<Types<R>>::new(asked, Some(last))).await;
        answered.is_ok_and(|answered| answered.vote >= asked)
    }

    fn is_blank(&self) -> Result<bool, LogFailure> {
        let unapplied = self.raft_metrics().last_applied.is_none();
        Ok(unapplied && self.log.last().0 == 0 && vote_of(&*self.log)?.is_none())
    }

    /// Answers a peer that lost its vote, or entries.
    pub(crate) async fn tell(&self, question: Question) -> Result<Told, PeerError> {
        let failed = |failure: LogFailure| PeerError(failure.to_string());
        // The kept vote, not the metrics': those may be late, and a vote that was given is kept before it is sent.
        let kept = vote_of(&*self.log).map_err(failed)?;
        let metrics = self.raft_metrics();
        let blank = self.is_blank().map_err(failed)?;
        let lost = matches!(self.healing.wholeness(), Wholeness::Lost { .. });
        let leads = metrics.state == ServerState::Leader
            && metrics.vote.committed
            && kept.is_some_and(|kept| kept.leader_id == metrics.vote.leader_id);
        let mut told = Told { blank, vote: if lost { None } else { kept.or(Some(metrics.vote)) }, leads: None };
        if leads && !lost {
            // Before the end of the log is read: what was sent is below it.
            if self.raft.trigger().allow_next_revert(&question.node, true).await.is_err() {
                return Ok(told);
            }
            let is_voter = metrics.membership_config.voter_ids().any(|id| id == question.node);
            let no_voter = !is_voter && self.confirm_lead().await.is_ok();
            told.leads = Some(Lead { last: self.last_log_id().map_err(failed)?, no_voter });
        }
        Ok(told)
    }

    fn last_log_id(&self) -> Result<Option<LogId>, LogFailure> {
        let last = self.log.last();
        if last.0 == 0 {
            return Ok(self.raft_metrics().last_applied);
        }
        let records = self.log.read(last, last, 1)?;
        let entry = records.first().map(|(_, bytes)| postcard::from_bytes::<crate::raft::types::Entry>(bytes));
        match entry.transpose() {
            Ok(entry) => Ok(entry.map(|entry| entry.log_id)),
            Err(error) => Err(LogFailure(format!("the last entry cannot be read: {error}"))),
        }
    }

    /// Another node is about to make the cluster, and no node of it has taken part in anything.
    pub(crate) fn be_founded(&self) -> Result<bool, PeerError> {
        let failed = |failure: LogFailure| PeerError(failure.to_string());
        let blank = self.is_blank().map_err(failed)?;
        if blank {
            self.enter(Wholeness::Member).map_err(failed)?;
        }
        Ok(blank)
    }

    /// Makes all nodes members of a cluster that did not exist. Only when none of them has taken part in anything: a
    /// node whose disk was replaced must not begin again what the others have.
    pub(crate) async fn found(&self, members: &[NewMember]) -> Result<(), String> {
        let others = members.iter().filter(|member| member.id != self.config.id.0);
        let others: Vec<(u64, String)> = others.map(|member| (member.id, member.address.clone())).collect();
        for (told, (_, address)) in ask(self, &others).await.iter().zip(&others) {
            match told {
                None => return Err(format!("the node at {address} does not answer: a cluster is made by all its nodes")),
                Some(told) if !told.blank => {
                    return Err(format!("the node at {address} is of a cluster already: this node joins it by itself"));
                }
                Some(_) => {}
            }
        }
        for (id, address) in &others {
            let answer = self.transport.call(*id, address, PeerCall::Found, vec![], ANSWER).await;
            let founded = answer.ok().and_then(|answer| postcard::from_bytes::<bool>(&answer).ok());
            if founded != Some(true) {
                return Err(format!("the node at {address} did not join the new cluster"));
            }
        }
        self.be_founded().map_err(|error| error.0)?;
        Ok(())
    }
}
