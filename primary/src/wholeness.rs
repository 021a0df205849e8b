//! What a node may do in its cluster: a durable word, and what peers tell each other about it. Values only.
//!
//! A node whose disk lost something that it had acknowledged, or a vote that it had given, must not vote as if it had
//! not: an acknowledged entry could be lost (hazard 7.6, law 24). Its wholeness says so until it is whole again, also
//! through restarts. `docs/decisions/0020-healing.md` has the argument.

use crate::raft::log::{LogFailure, RaftLog};
use crate::raft::types::{LeaderId, LogId};
use openraft::impls::Vote;
use serde::{Deserialize, Serialize};

/// The small file that keeps it, beside the log.
pub const WHOLENESS: &str = "wholeness";
/// The small files of consensus itself.
pub const VOTE: &str = "vote";
pub const PURGED: &str = "purged";
/// Longest reason that is kept, in bytes: the whole must fit into a small file (law 27).
const WHY_MAX: usize = 1024;

/// What a node may do. The variants are persisted: append, never reorder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wholeness {
    /// Everything.
    Member,
    /// It does not know what an earlier life in this directory had voted: it answers no leader and no candidate.
    Lost { why: String },
    /// It knows its vote and lacks entries that it may have acknowledged: it follows, and neither votes nor leads, until
    /// it has applied openraft's index `until`, the end of a leader's log of that moment. Until that is known it follows nobody.
    Healing { why: String, until: Option<u64> },
}

impl Wholeness {
    pub fn lost(why: impl Into<String>) -> Wholeness {
        Wholeness::Lost { why: cut(why.into()) }
    }

    pub fn healing(why: impl Into<String>) -> Wholeness {
        Wholeness::Healing { why: cut(why.into()), until: None }
    }

    /// The kept word. A log without one is an older node's, which was never asked to forget anything, or a new one.
    pub fn load(log: &dyn RaftLog) -> Result<Wholeness, LogFailure> {
        let kept = log.load_small(WHOLENESS)?.map(|bytes| Wholeness::decode(&bytes)).transpose()?;
        let is_new =
            || Ok::<_, LogFailure>(log.last().0 == 0 && log.load_small(VOTE)?.is_none() && log.load_small(PURGED)?.is_none());
        match kept {
            Some(kept) => Ok(kept),
            None if is_new()? => Ok(Wholeness::lost("its directory was empty")),
            None => Ok(Wholeness::Member),
        }
    }

    /// Keeps it; durable when this returns.
    pub fn store(&self, log: &dyn RaftLog) -> Result<(), LogFailure> {
        log.store_small(WHOLENESS, &self.encode())
    }

    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("a wholeness always serialises into memory")
    }

    pub fn decode(bytes: &[u8]) -> Result<Wholeness, LogFailure> {
        postcard::from_bytes(bytes).map_err(|error| LogFailure(format!("the node's wholeness cannot be read: {error}")))
    }

    /// What `status` says of it; `None`: all is well.
    pub fn trouble(&self) -> Option<String> {
        match self {
            Wholeness::Member => None,
            Wholeness::Lost { why } => Some(format!(
                "{why}: this node has no vote, and takes nothing until every other node of its cluster has told its own"
            )),
            Wholeness::Healing { why, until: None } => {
                Some(format!("{why}: this node has no vote until a leader has told how far it must be refilled"))
            }
            Wholeness::Healing { why, .. } => Some(format!("{why}: this node has no vote until it is refilled from the others")),
        }
    }
}

fn cut(mut why: String) -> String {
    let mut end = why.len().min(WHY_MAX);
    while !why.is_char_boundary(end) {
        end -= 1;
    }
    why.truncate(end);
    why
}

/// The vote that a log keeps.
pub fn vote_of(log: &dyn RaftLog) -> Result<Option<Vote<LeaderId>>, LogFailure> {
    let bytes = log.load_small(VOTE)?;
    bytes
        .map(|bytes| postcard::from_bytes(&bytes).map_err(|error| LogFailure(format!("the vote cannot be read: {error}"))))
        .transpose()
}

/// A node without a vote asks the others with its own id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    pub node: u64,
}

/// What a peer answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// It has taken part in nothing so far.
    pub blank: bool,
    /// The highest vote that it has given or heard of; `None` when it lost its own.
    pub vote: Option<Vote<LeaderId>>,
    /// It leads by that vote.
    pub leads: Option<Lead>,
}

/// What a leader adds. By answering it also allows the asking node's log to be shorter than it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lead {
    pub last: Option<LogId>,
    /// Proven by a majority: the asking node is no voter, so that it cannot have lost a vote.
    pub no_voter: bool,
}

/// What a node that lost its vote learns from one round of questions; `None` for a node that did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Learned {
    /// Not enough, and why.
    Wait(&'static str),
    /// There is no cluster yet.
    Nothing,
    /// It never had a vote.
    NeverVoted,
    /// It cannot have given a higher vote than this one.
    Vote(Vote<LeaderId>),
}

/// All others must answer: whoever this node may have voted for has kept that vote itself, before it asked for it.
pub fn learn(told: &[Option<Told>]) -> Learned {
    if told.iter().flatten().any(|told| told.leads.is_some_and(|lead| lead.no_voter)) {
        return Learned::NeverVoted;
    }
    if told.iter().any(Option::is_none) {
        return Learned::Wait("another node of this cluster does not answer");
    }
    if told.iter().flatten().all(|told| told.blank) {
        return Learned::Nothing;
    }
    if told.iter().flatten().any(|told| told.vote.is_none()) {
        return Learned::Wait("another node of this cluster has lost its vote as well");
    }
    let votes = told.iter().flatten().filter_map(|told| told.vote);
    match votes.reduce(|one, other| if other > one { other } else { one }) {
        Some(vote) => Learned::Vote(vote),
        None => Learned::Wait("no other node of this cluster knows a vote"),
    }
}

/// How far a node with the vote `own` must be refilled: the end of the log of a leader that it may follow.
pub fn goal(own: Option<Vote<LeaderId>>, told: &[Option<Told>]) -> Option<u64> {
    let leading = told.iter().flatten().filter(|told| told.leads.is_some() && told.vote >= own);
    let newest = leading.reduce(|one, other| if other.vote > one.vote { other } else { one })?;
    newest.leads.map(|lead| lead.last.map_or(0, |last| last.index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::MemoryLog;

    fn vote(term: u64, node: u64) -> Vote<LeaderId> {
        Vote { leader_id: LeaderId { term, node_id: node }, committed: true }
    }

    fn follower(term: u64, node: u64) -> Option<Told> {
        Some(Told { blank: false, vote: Some(vote(term, node)), leads: None })
    }

    fn leader(term: u64, node: u64, index: u64) -> Option<Told> {
        let last = Some(LogId { leader_id: LeaderId { term, node_id: node }, index });
        Some(Told { leads: Some(Lead { last, no_voter: false }), ..follower(term, node).unwrap() })
    }

    fn blank() -> Option<Told> {
        Some(Told { blank: true, vote: None, leads: None })
    }

    #[test]
    fn law_24_a_lost_vote_is_learned_from_all_others_or_not_at_all() {
        assert_eq!(learn(&[follower(3, 1), follower(5, 2)]), Learned::Vote(vote(5, 2)));
        assert!(matches!(learn(&[follower(3, 1), None]), Learned::Wait(_)), "the silent one may have been given a vote");
        assert!(matches!(learn(&[follower(3, 1), blank()]), Learned::Wait(_)), "it lost its vote as well");
        assert_eq!(learn(&[blank(), blank()]), Learned::Nothing);
        assert_eq!(learn(&[]), Learned::Nothing, "a cluster of one");
        let mut told = leader(5, 2, 9);
        told.as_mut().unwrap().leads.as_mut().unwrap().no_voter = true;
        assert_eq!(learn(&[None, told]), Learned::NeverVoted);
    }

    #[test]
    fn law_24_a_leader_of_an_older_vote_sets_no_goal() {
        assert_eq!(goal(Some(vote(5, 2)), &[leader(3, 1, 40), follower(5, 2)]), None);
        assert_eq!(goal(Some(vote(5, 2)), &[leader(3, 1, 40), leader(6, 2, 30)]), Some(30));
        assert_eq!(goal(None, &[leader(3, 1, 40), None]), Some(40));
    }

    #[test]
    fn law_26_the_bytes_of_a_wholeness_stay() {
        assert_eq!(Wholeness::Member.encode(), [0]);
        assert_eq!(Wholeness::lost("ab").encode(), [1, 2, b'a', b'b']);
        assert_eq!(Wholeness::healing("ab").encode(), [2, 2, b'a', b'b', 0]);
        let until = Wholeness::Healing { why: "ab".to_owned(), until: Some(300) };
        assert_eq!(until.encode(), [2, 2, b'a', b'b', 1, 0xAC, 2]);
        assert_eq!(Wholeness::decode(&until.encode()).unwrap(), until);
        assert!(Wholeness::decode(&[9]).is_err());
    }

    #[test]
    fn a_log_without_a_word_is_new_or_an_older_nodes() {
        let log = MemoryLog::default();
        assert!(matches!(Wholeness::load(&log).unwrap(), Wholeness::Lost { .. }));
        log.store_small(VOTE, &[]).unwrap();
        assert_eq!(Wholeness::load(&log).unwrap(), Wholeness::Member);
        let long = Wholeness::healing("é".repeat(4000));
        long.store(&log).unwrap();
        assert_eq!(Wholeness::load(&log).unwrap(), long);
        assert!(long.encode().len() <= farshore_changelog::MAX_SMALL_BYTES);
    }
}
