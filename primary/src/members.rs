//! Who belongs to the cluster, and how that changes: the leader takes a node in as a learner, gives it a vote once it has
//! caught up, and takes others out. Every step may be repeated, and what was interrupted is finished by the next leader.
//!
//! A node's id is drawn with its directory and never used again: a node that lost its directory is another node, since it
//! has forgotten whom it voted for. Who was taken out is remembered in the state of every node ([`local::removed`]).

use crate::ingress::not_leader;
use crate::local;
use crate::node::{Node, ProposeError};
use crate::raft::types::Types;
use crate::raft::{Member, PeerCall};
use farshore_meta::kv::{StorageError, Store};
use farshore_types::NodeId;
use farshore_wire::admin::{CAUGHT_UP, MemberView, MembersView, NewMember};
use openraft::errors::{ClientWriteError, RaftError};
use openraft::{AsyncRuntime, ChangeMembers, Instant};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A member is there if it answered the leader within so many of the longest election timeouts.
const HEARD: u32 = 2;
/// Longest wait for the leadership to be taken over.
const HAND_OVER: Duration = Duration::from_secs(3);
const HAND_OVER_POLL: Duration = Duration::from_millis(10);

/// A change of the members was not made.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    #[error("this node does not lead")]
    NotLeader { leader: Option<String> },
    #[error("no member has the id {0}")]
    Unknown(u64),
    #[error("{0} was taken out of this cluster: its directory cannot come back, give the node an empty one")]
    Removed(String),
    #[error(
        "{name} is a member already, with another directory: put this one in its place with `farshore node replace {name} --with {name}`"
    )]
    NameTaken { name: String },
    #[error("{address} is the address of the member {name}")]
    AddressTaken { address: String, name: String },
    #[error("{address} does not answer as node {id}: {why}")]
    Silent { address: String, id: u64, why: String },
    #[error("{name} knows version {known} of the state machine, the volume is at version {needed}: upgrade it first")]
    TooOld { name: String, known: u32, needed: u32 },
    #[error("{name} still lacks {behind} entries")]
    Behind { name: String, behind: u64 },
    #[error("{name} has not answered yet with what it holds")]
    NotSeen { name: String },
    #[error("{0} is the only node that votes: a cluster needs one")]
    Last(String),
    #[error("{voters} nodes would vote afterwards, of which only {there} answer: start the others first")]
    NoQuorum { voters: usize, there: usize },
    #[error("the change is under way or its outcome is unknown: {0}")]
    Unsettled(String),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<ProposeError> for MemberError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NotLeader { leader } => MemberError::NotLeader { leader },
            ProposeError::Unknown(why) => MemberError::Unsettled(why),
        }
    }
}

impl<R: AsyncRuntime, S: Store> Node<R, S> {
    /// The members as this node knows them; what only a leader knows is `None` on others.
    pub fn members(&self) -> Vec<MemberView> {
        let metrics = self.raft_metrics();
        let membership = metrics.membership_config;
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let last = metrics.last_log_index.unwrap_or(0);
        let view = |(id, member): (&u64, &Member)| {
            let matched = metrics.replication.as_ref().map(|all| all.get(id).and_then(|at| at.as_ref()).map(|at| at.index));
            let own = *id == self.config.id.0;
            MemberView {
                id: *id,
                name: member.name.clone(),
                address: member.address.clone(),
                voter: voters.contains(id),
                behind: if own { Some(0) } else { matched.flatten().map(|at| last.saturating_sub(at)) },
                answers: metrics.heartbeat.as_ref().map(|all| own || self.is_heard(all.get(id).and_then(|at| at.as_deref()))),
            }
        };
        membership.nodes().map(view).collect()
    }

    fn is_heard(&self, at: Option<&openraft::alias::InstantOf<Types<R>>>) -> bool {
        at.is_some_and(|at| at.elapsed() < self.config.election.1 * HEARD)
    }

    /// Addresses of the members.
    pub fn member_addresses(&self) -> Vec<String> {
        self.members().into_iter().map(|member| member.address).collect()
    }

    /// The address of a member.
    pub(crate) fn address_of(&self, id: NodeId) -> Option<String> {
        self.members().into_iter().find(|member| member.id == id.0).map(|member| member.address)
    }

    /// The members by the leader's word.
    pub fn members_view(&self) -> Result<MembersView, StorageError> {
        let removed = local::all_removed(&*self.read()?)?.into_iter().map(|id| id.0).collect();
        let changing = self.raft_metrics().membership_config.get_joint_config().len() > 1;
        Ok(MembersView { leader: self.config.id.0, changing, members: self.members(), removed })
    }

    /// Takes a node in as a learner.
    pub async fn add_member(&self, new: &NewMember, instead_of: Option<u64>) -> Result<(), MemberError> {
        let needed = {
            let kv = self.read()?;
            if local::removed(&*kv, NodeId(new.id))?.is_some() {
                return Err(MemberError::Removed(new.name.clone()));
            }
            farshore_meta::header(&*kv)?.version
        };
        let members = self.members();
        if let Some(known) = members.iter().find(|known| known.id == new.id) {
            if known.address == new.address {
                return Ok(());
            }
            return Err(MemberError::AddressTaken { address: known.address.clone(), name: known.name.clone() });
        }
        for known in members.iter().filter(|known| Some(known.id) != instead_of) {
            if known.name == new.name {
                return Err(MemberError::NameTaken { name: new.name.clone() });
            }
            if known.address == new.address {
                return Err(MemberError::AddressTaken { address: new.address.clone(), name: known.name.clone() });
            }
        }
        let standing = self.standing_at(new.id, &new.address).await;
        let silent = |why: String| MemberError::Silent { address: new.address.clone(), id: new.id, why };
        let known = standing.map_err(|error| silent(error.0))?.machine;
        if known < needed {
            return Err(MemberError::TooOld { name: new.name.clone(), known, needed });
        }
        tracing::info!(name = %new.name, address = %new.address, "a node is taken in as a learner");
        let added = self.raft.add_learner(new.id, Member::new(&new.name, &new.address), false).await;
        self.changed_members(added)
    }

    /// Gives a learner its vote and takes a member out, in one joint step.
    pub async fn change_members(&self, add: Option<u64>, remove: Option<u64>) -> Result<(), MemberError> {
        self.settle_membership().await?;
        let members = self.members();
        let by_id: BTreeMap<u64, &MemberView> = members.iter().map(|member| (member.id, member)).collect();
        let mut changes = vec![];
        let mut voters: BTreeSet<u64> = members.iter().filter(|member| member.voter).map(|member| member.id).collect();
        if let Some(id) = add.filter(|id| !voters.contains(id)) {
            check_caught_up(by_id.get(&id).ok_or(MemberError::Unknown(id))?)?;
            voters.insert(id);
            changes.push(ChangeMembers::AddVoterIds(BTreeSet::from([id])));
        }
        if let Some(id) = remove {
            match by_id.get(&id) {
                None if local::removed(&*self.read()?, NodeId(id))?.is_some() => {}
                None => return Err(MemberError::Unknown(id)),
                Some(member) if !voters.remove(&id) => changes.push(ChangeMembers::RemoveNodes(BTreeSet::from([member.id]))),
                Some(member) if voters.is_empty() => return Err(MemberError::Last(member.name.clone())),
                Some(_) => changes.push(ChangeMembers::RemoveVoters(BTreeSet::from([id]))),
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        let stay: Vec<&MemberView> = voters.iter().filter_map(|id| by_id.get(id).copied()).collect();
        let there = self.count_there(&stay).await;
        if there <= stay.len() / 2 {
            return Err(MemberError::NoQuorum { voters: stay.len(), there });
        }
        if remove == Some(self.config.id.0) {
            // It hands over first, so that nobody waits for an election; the next leader takes it out.
            self.hand_over().await.map_err(MemberError::Unsettled)?;
            return Err(MemberError::NotLeader { leader: self.leader_address().await });
        }
        tracing::info!(?add, ?remove, "the members change");
        let changed = self.raft.change_membership(ChangeMembers::Batch(changes), false).await;
        self.changed_members(changed)
    }

    /// How many of these answer now. What was heard a moment ago does not count: who died since would be missed for ever
    /// in a quorum that needs it.
    async fn count_there(&self, members: &[&MemberView]) -> usize {
        let asked = members
            .iter()
            .map(|member| async { member.id == self.config.id.0 || self.standing_at(member.id, &member.address).await.is_ok() });
        futures::future::join_all(asked).await.into_iter().filter(|there| *there).count()
    }

    /// Whether a change of the voters has come half-way, and that half is committed: both sets must agree until it is done.
    pub(crate) fn is_half_changed(&self) -> bool {
        let metrics = self.raft_metrics();
        let membership = metrics.membership_config;
        membership.get_joint_config().len() > 1 && *membership.log_id() <= metrics.last_applied
    }

    /// Finishes such a change.
    pub(crate) async fn settle_membership(&self) -> Result<(), MemberError> {
        if !self.is_half_changed() {
            return Ok(());
        }
        let settled = self.raft.change_membership(ChangeMembers::AddVoterIds(BTreeSet::new()), false).await;
        self.changed_members(settled)
    }

    fn changed_members<T>(&self, result: Result<T, RaftError<Types<R>, ClientWriteError<Types<R>>>>) -> Result<(), MemberError> {
        match result {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
                Err(MemberError::NotLeader { leader: to.leader_node.map(|member| member.address) })
            }
            Err(error) => Err(MemberError::Unsettled(error.to_string())),
        }
    }

    /// Hands the leadership to the voter that lacks least, so that a planned stop stalls nobody; returns once this node
    /// leads no more.
    pub async fn hand_over(&self) -> Result<(), String> {
        if !self.is_leader() {
            return Ok(());
        }
        let mut others = self.members();
        others.retain(|member| member.voter && member.id != self.config.id.0 && member.answers == Some(true));
        others.sort_by_key(|member| member.behind.unwrap_or(u64::MAX));
        let mut chosen = None;
        for other in others {
            let standing = self.standing_at(other.id, &other.address).await;
            if standing.is_ok_and(|standing| !standing.stopping) {
                chosen = Some(other);
                break;
            }
        }
        let Some(to) = chosen else { return Err("no other node that votes answers".to_owned()) };
        tracing::info!(to = %to.name, "the leadership is handed over");
        self.raft.trigger().transfer_leader(to.id).await.map_err(|error| error.to_string())?;
        for _ in 0..HAND_OVER.as_millis() / HAND_OVER_POLL.as_millis() {
            let leader = self.leader().await.filter(|leader| *leader != self.config.id);
            if !self.is_leader()
                && let Some(leader) = leader
            {
                // Clients go where they are told to, instead of asking around.
                self.hub.refuse_all(&not_leader(self.address_of(leader)));
                return Ok(());
            }
            R::sleep(HAND_OVER_POLL).await;
        }
        Err(format!("{} did not take over within {HAND_OVER:?}", to.name))
    }

    /// Whom to ask: every member but this node.
    pub(crate) fn other_members(&self) -> Vec<MemberView> {
        self.members().into_iter().filter(|member| member.id != self.config.id.0).collect()
    }

    /// One call to a peer, bounded by its `ttl`.
    pub(crate) async fn ask_peer(
        &self,
        (id, address): (u64, &str),
        call: PeerCall,
        body: Vec<u8>,
        ttl: Duration,
    ) -> Result<Vec<u8>, crate::raft::PeerError> {
        self.transport.call(id, address, call, body, ttl).await
    }
}

fn check_caught_up(learner: &MemberView) -> Result<(), MemberError> {
    let name = learner.name.clone();
    match learner.behind {
        None => Err(MemberError::NotSeen { name }),
        Some(behind) if behind > CAUGHT_UP => Err(MemberError::Behind { name, behind }),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_learner_votes_once_it_lacks_no_more_than_is_on_its_way() {
        let learner = |behind| MemberView { name: "d".to_owned(), behind, ..MemberView::default() };
        assert!(check_caught_up(&learner(Some(CAUGHT_UP))).is_ok());
        let behind = CAUGHT_UP + 1;
        assert!(matches!(check_caught_up(&learner(Some(behind))), Err(MemberError::Behind { behind: b, .. }) if b == behind));
        assert!(matches!(check_caught_up(&learner(None)), Err(MemberError::NotSeen { .. })));
    }
}
