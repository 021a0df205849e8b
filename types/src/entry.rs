//! The shared entry: the unit of the changelog (law 1), and the only input of the shared state machine (law 4).
//!
//! The order of the variants is part of the persisted and wire formats: append, never reorder.

use crate::{BucketId, ClusterId, ControlTime, Epoch, EpochId, Ino, LogTime, Op, Sequence, SessionId, Slot, VolumeRecord};
use serde::{Deserialize, Serialize};

/// The version of the state machine that has leases on directories: from it on, clients may ask for them.
pub const LEASES_VERSION: u32 = 11;

/// One request of a session inside a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRequest {
    pub session: SessionId,
    pub sequence: Sequence,
    /// The session has the answers to all sequences up to this one (inclusive); their replies are dropped (law 10).
    pub acknowledged: Sequence,
    pub op: Op,
}

/// What a session says of itself when it opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    pub host: String,
    /// Where it is mounted; empty for a client without a mount.
    pub mount: String,
    /// Mount options, for people.
    pub options: String,
    /// The bucket that it writes first, as its identity object names it (law 12); `None`: it writes none.
    pub bucket: Option<BucketId>,
}

/// Time on a leader's own clock in microseconds (CLOCK_BOOTTIME); compared only on the machine that took it (law 6).
pub type LocalTime = u64;

/// Rare entries that steer the volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Control {
    /// The first entry of a volume.
    Format(VolumeRecord),
    /// Starts an epoch; the first entry that carries its id. `slot` is fresh (law 7).
    Start {
        epoch: Epoch,
        slot: Slot,
    },
    /// Raises the version of the state machine (law 4).
    Version(u32),
    /// Advances control time by so many microseconds (law 6).
    Tick(ControlTime),
    OpenSession {
        session: SessionId,
        info: SessionInfo,
    },
    /// Ends a session at its own wish.
    CloseSession {
        session: SessionId,
    },
    /// Ends a session that was silent for a full lease (law 11).
    Expire {
        session: SessionId,
    },
    /// Frees unlinked inodes that no session holds open.
    Purge {
        inos: Vec<Ino>,
    },
    /// Replaces a region's bucket: its incarnation and identity (law 12).
    ReplaceBucket {
        region: crate::RegionId,
        incarnation: crate::Incarnation,
        bucket: crate::Uuid,
    },
    /// Adds a cluster to the roster: it tails the changelog and holds deletions from now on (law 14).
    RosterAdd {
        cluster: ClusterId,
    },
    /// Takes a cluster off the roster.
    RosterRemove {
        cluster: ClusterId,
    },
    /// Marks a roster cluster `needs snapshot`: it no longer holds the log, it still holds deletions (law 25).
    RosterNeedsSnapshot {
        cluster: ClusterId,
        needs: bool,
    },
    /// Forbids every shared mutation until the next start (law 21).
    Freeze,
}

/// What a shared entry does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SharedBody {
    /// 1..=256 requests of sessions, in order. What one session asked in a row names the session and its numbers once.
    Batch(#[serde(with = "runs")] Vec<SessionRequest>),
    Control(Control),
}

/// Requests in runs: of one session, with sequences without a gap, and one acknowledgement.
mod runs {
    use super::{Op, Sequence, SessionId, SessionRequest};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Run<O> {
        session: SessionId,
        /// That of the first operation.
        sequence: Sequence,
        acknowledged: Sequence,
        ops: Vec<O>,
    }

    impl<O> Run<O> {
        fn goes_on_with(&self, request: &SessionRequest) -> bool {
            let next = self.sequence.0.checked_add(self.ops.len() as u64);
            (self.session, self.acknowledged, next) == (request.session, request.acknowledged, Some(request.sequence.0))
        }
    }

    pub fn serialize<S: Serializer>(requests: &[SessionRequest], serializer: S) -> Result<S::Ok, S::Error> {
        let mut runs: Vec<Run<&Op>> = Vec::new();
        for request in requests {
            match runs.last_mut().filter(|run| run.goes_on_with(request)) {
                Some(run) => run.ops.push(&request.op),
                None => runs.push(Run {
                    session: request.session,
                    sequence: request.sequence,
                    acknowledged: request.acknowledged,
                    ops: vec![&request.op],
                }),
            }
        }
        runs.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SessionRequest>, D::Error> {
        let runs: Vec<Run<Op>> = Vec::deserialize(deserializer)?;
        let mut requests = Vec::with_capacity(runs.iter().map(|run| run.ops.len()).sum());
        for Run { session, sequence, acknowledged, ops } in runs {
            for (at, op) in (0..).zip(ops) {
                // A sum that wraps is no sequence that anybody reached: apply refuses it as a gap.
                let sequence = Sequence(sequence.0.wrapping_add(at));
                requests.push(SessionRequest { session, sequence, acknowledged, op });
            }
        }
        Ok(requests)
    }
}

/// A shared entry. Its canonical bytes are [postcard](https://postcard.jamesmunns.com) of this struct; the chain and
/// the changelog carry exactly those bytes, in every cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedEntry {
    /// The epoch in which it was proposed.
    pub epoch: EpochId,
    pub time: LogTime,
    pub body: SharedBody,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(session: u8, sequence: u64, acknowledged: u64) -> SessionRequest {
        let op = Op::Truncate { ino: Ino(sequence), size: 0 };
        SessionRequest {
            session: SessionId([session; 16]),
            sequence: Sequence(sequence),
            acknowledged: Sequence(acknowledged),
            op,
        }
    }

    fn bytes(requests: &[SessionRequest]) -> usize {
        let body = SharedBody::Batch(requests.to_vec());
        let encoded = postcard::to_stdvec(&body).expect("it serialises");
        assert_eq!(postcard::from_bytes::<SharedBody>(&encoded).expect("it is whole"), body);
        encoded.len()
    }

    #[test]
    fn a_batch_comes_back_as_it_was_and_names_a_session_once_a_run() {
        let run = [request(1, 7, 3), request(1, 8, 3), request(1, 9, 3)];
        assert_eq!(bytes(&run), bytes(&run[..1]) + 2 * 3, "three bytes an operation");
        for broken in [
            vec![],
            vec![request(1, 7, 3), request(1, 9, 3)],
            vec![request(1, 7, 3), request(1, 8, 4)],
            vec![request(1, 7, 3), request(2, 8, 3), request(1, 8, 3)],
            vec![request(1, u64::MAX, 3), request(1, 0, 3)],
            vec![request(1, 8, 3), request(1, 7, 3), request(1, 7, 3)],
        ] {
            bytes(&broken);
        }
    }
}
