//! The proof of leadership that reads wait for (law 9), beside openraft's own, which is a heartbeat to every follower and work of
//! its core for each round.
//!
//! A leader asks the other voters whether they have given a vote above its own, or heard of one. When a majority, itself included,
//! has not, nobody with a higher vote was elected before it asked: whatever was acknowledged until then was acknowledged by this
//! leader, and applied here before, or by one of an earlier term. Of those terms everything committed lies below the first
//! entry of its own term, which must be applied here. That is the ReadIndex of Raft (Ongaro's dissertation, section 6.4) with
//! one difference: what is committed and was not applied, and so acknowledged to nobody, is not waited for.
//!
//! As many are asked as make a majority, those whose answers came first when all were asked; the others where that is not
//! enough. Whoever is asked, a majority has to answer.
//!
//! A vote is kept before anybody hears of it, so the kept one is what a peer answers from. Where the lane has no answer, of a peer
//! of an older build for example, openraft's own proof decides.

use crate::node::{Node, ProposeError};
use crate::raft::log::RaftLog;
use crate::raft::types::{LeaderId, StoredMembership};
use crate::raft::{PeerCall, PeerError};
use crate::wholeness::vote_of;
use farshore_meta::kv::Store;
use futures::StreamExt;
use futures::future::OptionFuture;
use futures::stream::FuturesUnordered;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{AsyncRuntime, ServerState};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long the other voters may take to answer, before openraft's own proof is asked for.
const ASK: Duration = Duration::from_millis(100);
/// After a question without a majority's answer openraft's own proof is asked for so long, without another question.
const REST_US: u64 = 1_000_000;
/// How long those who are asked first may take, before all others are asked too.
const FIRST: Duration = Duration::from_millis(10);
/// How long those who answered first are asked alone, before all are asked again.
const NEAREST_US: u64 = 1_000_000;

/// What a leader asks: whether the peer knows no vote above this one. Answered with a bool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmAsk {
    pub leader: LeaderId,
}

/// What a leader remembers of its questions.
#[derive(Default)]
pub(crate) struct Asking {
    /// On the boot clock, in microseconds: nobody is asked before.
    rests_until: AtomicU64,
    nearest: Mutex<Nearest>,
}

/// Who made a majority when all were asked, this node included.
#[derive(Default)]
struct Nearest {
    voters: BTreeSet<u64>,
    /// On the boot clock, in microseconds: the others among them are asked alone before.
    until: u64,
}

impl Asking {
    /// The voters who are asked first, of `others`: all of them where those who answered first are no majority any more.
    fn first(&self, now: u64, membership: &StoredMembership, others: &BTreeSet<u64>) -> BTreeSet<u64> {
        let nearest = self.nearest.lock().unwrap_or_else(PoisonError::into_inner);
        let enough = now < nearest.until && is_quorum(membership, &nearest.voters);
        if enough { nearest.voters.intersection(others).copied().collect() } else { others.clone() }
    }

    /// All were asked, and these are the majority that answered first, this node included.
    fn answered(&self, now: u64, voters: BTreeSet<u64>) {
        *self.nearest.lock().unwrap_or_else(PoisonError::into_inner) = Nearest { voters, until: now + NEAREST_US };
    }
}

impl<R: AsyncRuntime, S: Store> Node<R, S> {
    /// Returns once this node has proven, after the call began, that it leads, and its state holds everything that was
    /// acknowledged to anybody before: what is read afterwards is linearizable.
    pub(crate) async fn prove_lead(&self) -> Result<(), ProposeError> {
        let now = self.host.boot_us();
        if now >= self.asking.rests_until.load(Ordering::Relaxed)
            && let Some((leader, membership)) = self.own_lead()
        {
            if self.knows_no_higher_vote(now, leader, &membership).await {
                return Ok(());
            }
            // Whoever does not answer would hold up every batch of reads.
            self.asking.rests_until.store(now + REST_US, Ordering::Relaxed);
        }
        self.confirm_lead().await
    }

    async fn knows_no_higher_vote(&self, now: u64, leader: LeaderId, membership: &StoredMembership) -> bool {
        if !permits(&*self.log, leader) {
            return false;
        }
        let own = self.config.id.0;
        let body = postcard::to_stdvec(&ConfirmAsk { leader }).expect("a question always serialises into memory");
        let ask = |id: u64| {
            let address = membership.membership().get_node(&id).map(|member| member.address.as_str());
            let answer = address.map(|address| self.ask_peer((id, address), PeerCall::Confirm, body.clone(), ASK));
            async move {
                let body = OptionFuture::from(answer).await.and_then(Result::ok);
                (id, body.and_then(|body| postcard::from_bytes(&body).ok()))
            }
        };
        let others: BTreeSet<u64> = membership.voter_ids().filter(|voter| *voter != own).collect();
        let first = self.asking.first(now, membership, &others);
        let mut later: Vec<u64> = others.difference(&first).copied().collect();
        let mut answers: FuturesUnordered<_> = first.into_iter().map(ask).collect();
        let mut confirmed = BTreeSet::from([own]);
        while !is_quorum(membership, &confirmed) {
            let answer =
                if later.is_empty() { answers.next().await } else { R::timeout(FIRST, answers.next()).await.ok().flatten() };
            match answer {
                Some((id, Some(true))) => drop(confirmed.insert(id)),
                Some((_, Some(false))) => return false,
                _ if !later.is_empty() => answers.extend(later.drain(..).map(ask)),
                Some((_, None)) => {}
                None => return false,
            }
        }
        if later.is_empty() {
            self.asking.answered(now, confirmed);
        }
        true
    }

    /// The vote by which this node leads, if an entry of its own term is applied, and who votes. What it believes may be late:
    /// the question, and its own kept vote, are the proof.
    fn own_lead(&self) -> Option<(LeaderId, Arc<StoredMembership>)> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let leader = metrics.vote.leader_id;
        let leads = metrics.state == ServerState::Leader && metrics.vote.committed && leader.node_id == self.config.id.0;
        let applied = metrics.last_applied.is_some_and(|last| last.leader_id == leader);
        (leads && applied).then(|| (leader, metrics.membership_config.clone()))
    }

    /// Answers a leader's [`ConfirmAsk`].
    pub(crate) fn answer_confirm(&self, ask: ConfirmAsk) -> Result<bool, PeerError> {
        Ok(permits(&*self.log, ask.leader))
    }
}

/// Whether the log keeps no vote above the leader's. One that cannot be read permits nothing.
fn permits(log: &dyn RaftLog, leader: LeaderId) -> bool {
    vote_of(log).is_ok_and(|kept| kept.is_none_or(|kept| kept.leader_id <= leader))
}

/// Whether these are a majority of every set of voters that is in force.
fn is_quorum(membership: &StoredMembership, confirmed: &BTreeSet<u64>) -> bool {
    membership.membership().get_joint_config().iter().all(|voters| voters.intersection(confirmed).count() > voters.len() / 2)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "these are tests")]

    use super::*;
    use crate::raft::MemoryLog;
    use crate::raft::types::Membership;
    use crate::wholeness::VOTE;
    use openraft::impls::Vote;
    use std::collections::BTreeMap;

    fn leader(term: u64, node_id: u64) -> LeaderId {
        LeaderId { term, node_id }
    }

    #[test]
    fn law_9_a_peer_that_gave_a_higher_vote_permits_no_reads() {
        let log = MemoryLog::default();
        assert!(permits(&log, leader(1, 1)), "it has no vote yet");
        for committed in [false, true] {
            log.store_small(VOTE, &postcard::to_stdvec(&Vote { leader_id: leader(3, 2), committed }).unwrap()).unwrap();
            for (asks, permitted) in [((2, 9), false), ((3, 1), false), ((3, 2), true), ((3, 3), true), ((4, 1), true)] {
                assert_eq!(permits(&log, leader(asks.0, asks.1)), permitted, "{asks:?}");
            }
        }
        log.store_small(VOTE, &[0xFF; 3]).unwrap();
        assert!(!permits(&log, leader(9, 1)), "a vote that cannot be read may be any");
    }

    fn voters<const N: usize>(sets: [&[u64]; N]) -> StoredMembership {
        let sets = sets.map(|set| set.iter().copied().collect());
        let nodes: BTreeMap<u64, _> = (1..=6).map(|id| (id, crate::raft::Member::new("n", "127.0.0.1:1"))).collect();
        StoredMembership::new(None, Membership::new(sets.to_vec(), nodes).unwrap())
    }

    #[test]
    fn those_who_answered_first_are_asked_alone_while_they_are_enough() {
        let (three, five) = (voters([&[1, 2, 3]]), voters([&[1, 2, 3, 4, 5]]));
        let asking = Asking::default();
        let first = |now, membership: &StoredMembership| {
            let others = membership.voter_ids().filter(|id| *id != 1).collect();
            asking.first(now, membership, &others).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(first(0, &three), [2, 3], "nobody has answered yet");
        asking.answered(5, BTreeSet::from([1, 3]));
        assert_eq!((first(5, &three), first(4 + NEAREST_US, &three)), (vec![3], vec![3]));
        assert_eq!(first(5 + NEAREST_US, &three), [2, 3], "another one may be nearer by now");
        assert_eq!(first(5, &five), [2, 3, 4, 5], "there are more voters since");
        assert_eq!(first(5, &voters([&[1, 2, 4]])), [2, 4], "who answered votes no longer");
        assert_eq!(first(5, &voters([&[1, 2, 3], &[1, 4, 5]])), [2, 3, 4, 5], "of one set, not of the other");
        asking.answered(5, BTreeSet::from([1, 3, 5]));
        assert_eq!((first(5, &five), first(5, &three)), (vec![3, 5], vec![3]));
    }

    #[test]
    fn law_9_a_majority_of_each_set_of_voters_is_needed() {
        let membership = voters([&[1, 2, 3], &[3, 4, 5, 6]]);
        for (confirmed, enough) in [
            (&[1, 2, 3, 4][..], false),
            (&[1, 2, 3, 4, 5], true),
            (&[2, 3, 4, 5], true),
            (&[3, 4, 5, 6], false),
            (&[1, 2, 4, 5], false),
            (&[1, 2, 4, 5, 6], true),
        ] {
            assert_eq!(is_quorum(&membership, &confirmed.iter().copied().collect()), enough, "{confirmed:?}");
        }
    }
}
