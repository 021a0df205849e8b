//! What a cluster's Raft log carries. The first byte is the format's version; postcard of [`Proposal`] follows.
//!
//! The order of the variants is part of the persisted format: append, never reorder.

use farshore_syncer::LocalOp;
use farshore_types::{Chain, ClusterId, Digest, EpochId, Lineage, LogIndex, VolumeRecord};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Version of the proposal's encoding.
const VERSION: u8 = 1;
/// Position of [`Proposal::Mirrored`], the second.
const MIRRORED: u8 = 1;
/// Position of [`Proposal::ResetCommit`] among the variants; a test holds it there.
const RESET_COMMIT: u8 = 8;

/// One entry of a cluster's own Raft log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proposal {
    /// A shared entry of this cluster as primary: canonical bytes. Its index and chain are assigned in apply (law 1).
    Shared(#[serde(with = "bytes")] Vec<u8>),
    /// A shared entry of the followed primary, which the judge sees in apply (law 3).
    Mirrored {
        index: LogIndex,
        previous: Chain,
        epoch: EpochId,
        #[serde(with = "bytes")]
        canonical: Vec<u8>,
    },
    /// The lineage that this cluster follows from now on (laws 8, 19).
    Follow { lineage: Lineage },
    /// Which volume this cluster is about; the first entry of a mirror.
    Home { volume: VolumeRecord },
    /// A change of this cluster's ledger and other local state.
    Local(LocalOp),
    /// Goes back to `to` through before-images and follows `lineage` (law 20).
    Rewind { to: LogIndex, lineage: Lineage },
    /// Begins to replace the shared state by a snapshot of the primary. The rows travel through this Raft log, so that
    /// every node of the cluster has them, in order, before any of them takes effect (hazard 5.6).
    ResetBegin { snapshot: [u8; 16], index: LogIndex, chain: Chain, digest: Digest, lineage: Lineage },
    /// Rows of the snapshot, in key order.
    ResetRows { snapshot: [u8; 16], rows: Vec<(Vec<u8>, Vec<u8>)> },
    /// All rows are there: takes effect if their digest is the one announced, else it changes nothing.
    ResetCommit { snapshot: [u8; 16] },
    /// The digest at this index differs from the primary's: this cluster is no mirror any more.
    Diverged { index: LogIndex },
    /// Forgets before-images and log positions below this index; it is at or below every floor of the roster (law 20).
    Trim { below: LogIndex },
    /// Where the nodes of another cluster are, so that this one finds it after its nodes were replaced.
    Nodes { cluster: ClusterId, addresses: Vec<String> },
}

/// Bytes of the log that are not a proposal of a version that this node knows. The node stops; it never guesses (law 4).
#[derive(Debug, thiserror::Error)]
pub enum ProposalError {
    #[error("an entry has format version {0}, this node knows {VERSION}: upgrade it")]
    Version(u8),
    #[error("an entry is empty")]
    Empty,
    #[error("an entry cannot be decoded: {0}")]
    Malformed(postcard::Error),
}

impl Proposal {
    pub fn encode(&self) -> Arc<[u8]> {
        postcard::to_extend(self, vec![VERSION]).expect("proposals always serialise into memory").into()
    }

    /// Which variant these are the bytes of, by its position; `None`: none of this version.
    fn variant(bytes: &[u8]) -> Option<u8> {
        if let [VERSION, variant, ..] = bytes { Some(*variant) } else { None }
    }

    /// Whether these are the bytes of a [`Proposal::ResetCommit`], which has a transaction of its own.
    pub fn is_reset_commit(bytes: &[u8]) -> bool {
        Proposal::variant(bytes) == Some(RESET_COMMIT)
    }

    /// Whether these are the bytes of a shared entry, [`Proposal::Shared`] or [`Proposal::Mirrored`], which changes as much as requests
    /// may and no more. What moves or removes a whole state does not fit into memory.
    pub fn is_entry(bytes: &[u8]) -> bool {
        Proposal::variant(bytes).is_some_and(|variant| variant <= MIRRORED)
    }

    pub fn decode(bytes: &[u8]) -> Result<Proposal, ProposalError> {
        match bytes.split_first() {
            None => Err(ProposalError::Empty),
            Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(ProposalError::Malformed),
            Some((&version, _)) => Err(ProposalError::Version(version)),
        }
    }
}

/// Byte strings as length and bytes.
mod bytes {
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn law_26_the_encoding_is_fixed() {
        assert_eq!(&*Proposal::Trim { below: LogIndex(300) }.encode(), [1, 10, 0xac, 0x02]);
        assert_eq!(&*Proposal::Shared(vec![7, 8]).encode(), [1, 0, 2, 7, 8]);
        let nodes = Proposal::Nodes { cluster: ClusterId(1), addresses: vec!["h:1".to_owned()] };
        assert_eq!(&*nodes.encode(), [1, 11, 1, 1, 3, b'h', b':', b'1']);
        let mirrored = Proposal::Mirrored {
            index: LogIndex(5),
            previous: Chain([9; 32]),
            epoch: EpochId { number: 2, cluster: ClusterId(1) },
            canonical: vec![1],
        };
        let expected = [&[1, 1, 5][..], &[9; 32], &[2, 1, 1, 1]].concat();
        assert_eq!(&*mirrored.encode(), expected);
        assert_eq!(Proposal::decode(&expected).ok(), Some(mirrored));
    }

    #[test]
    fn a_reset_commit_is_told_from_all_others() {
        let commit = Proposal::ResetCommit { snapshot: [3; 16] }.encode();
        assert!(Proposal::is_reset_commit(&commit));
        assert!(!Proposal::is_reset_commit(&Proposal::Diverged { index: LogIndex(8) }.encode()));
        assert!(!Proposal::is_reset_commit(&[]));
    }

    #[test]
    fn entries_are_told_from_what_may_change_a_whole_state() {
        let (lineage, snapshot) = (Lineage::default(), [3; 16]);
        let shared = Proposal::Shared(vec![7]);
        let mirrored = Proposal::Mirrored {
            index: LogIndex(5),
            previous: Chain([9; 32]),
            epoch: EpochId { number: 2, cluster: ClusterId(1) },
            canonical: vec![1],
        };
        let rewind = Proposal::Rewind { to: LogIndex(4), lineage: lineage.clone() };
        let rows = Proposal::ResetRows { snapshot, rows: vec![] };
        let others = [Proposal::Follow { lineage }, rewind, rows, Proposal::ResetCommit { snapshot }];
        assert!([shared, mirrored].iter().all(|proposal| Proposal::is_entry(&proposal.encode())));
        assert!(!others.iter().any(|proposal| Proposal::is_entry(&proposal.encode())));
        assert!(!Proposal::is_entry(&[]) && !Proposal::is_entry(&[VERSION + 1, 0]));
    }

    #[test]
    fn law_4_an_unknown_version_is_not_guessed_at() {
        assert!(matches!(Proposal::decode(&[2, 0, 0]), Err(ProposalError::Version(2))));
        assert!(matches!(Proposal::decode(&[]), Err(ProposalError::Empty)));
        assert!(matches!(Proposal::decode(&[1, 200]), Err(ProposalError::Malformed(_))));
    }
}
