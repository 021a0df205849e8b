//! Ids and units. Each is a newtype, so that a `RaftIndex` cannot be compared with a `LogIndex` by accident (law 1).

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! newtype {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

newtype!(
    /// Position of a shared entry in a volume's history: dense, from 1; 0 is the empty history (law 1).
    LogIndex(u64)
);
newtype!(
    /// Position in one cluster's Raft log; never leaves that cluster (law 1).
    RaftIndex(u64)
);
newtype!(
    /// Inode number: slot(15 bits) . counter(48 bits), [`Ino::ROOT`] excepted (law 7).
    Ino(u64)
);
newtype!(
    /// Slice number: slot(15 bits) . counter(48 bits); names the objects of its blocks (law 7).
    SliceId(u64)
);
newtype!(
    /// A slot of the id space, taken afresh at each start of an epoch; 0..=0x7FFE, the top slot is reserved (law 7).
    Slot(u16)
);
newtype!(
    /// A region's number inside a volume: assigned at `format`, stored, never reused.
    RegionId(u8)
);
newtype!(
    /// A metadata cluster's number inside a volume: assigned at `format`, stored, never reused; below 16, its stripe.
    ClusterId(u8)
);
newtype!(
    /// The Raft group (later: zone) of a volume; derived from the volume's uuid.
    GroupId(u64)
);
newtype!(
    /// A node's number inside its cluster, from 1, in topology order.
    NodeId(u64)
);
newtype!(
    /// Position of a request in its session: dense, from 1 (law 10).
    Sequence(u64)
);
newtype!(
    /// Which physical bucket stands behind a region's name; raised when a bucket is replaced (law 12).
    Incarnation(u32)
);
newtype!(
    /// Number of bytes.
    ByteCount(u64)
);
newtype!(
    /// Wall clock of the proposing leader in microseconds since 1970, made monotone per volume. Stamps files, decides nothing (law 6).
    LogTime(u64)
);
newtype!(
    /// Control time in microseconds: the sum of all `tick` entries (law 6).
    ControlTime(u64)
);
newtype!(
    /// Digest of the shared state: sum modulo 2^128 of a keyed hash of each row (law 2).
    Digest(u128)
);

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self)
            }
        }

        impl $name {
            /// Reads 32 hexadecimal digits; `None` for anything else.
            pub fn parse(text: &str) -> Option<Self> {
                let bytes = text.as_bytes();
                if bytes.len() != 32 || !text.is_ascii() {
                    return None;
                }
                let mut id = [0u8; 16];
                for (at, byte) in id.iter_mut().enumerate() {
                    *byte = u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).ok()?;
                }
                Some(Self(id))
            }
        }
    };
}

random_id!(
    /// A client's session: random, 128 bits, never reused (law 7).
    SessionId
);
random_id!(
    /// A leased task: random, 128 bits (law 7).
    TaskId
);
random_id!(
    /// A uuid: of a volume, a bucket's identity object, or a world.
    Uuid
);

/// Bits of an id below its slot.
pub const COUNTER_BITS: u32 = 48;
/// The reserved top slot: keeps clear of JuiceFS's internal inodes from 0x7FFFFFFF00000000 (law 7).
pub const RESERVED_SLOT: Slot = Slot(0x7FFF);
/// How many clusters share the slots: cluster k owns the slots that are k modulo this (law 7).
pub const SLOT_STRIPES: u16 = 16;

impl Slot {
    /// The `start`-th (from 0) slot of a cluster's stripe; `None` when the stripe is used up (2,047 starts).
    pub fn of(cluster: ClusterId, start: u16) -> Option<Slot> {
        let slot = start.checked_mul(SLOT_STRIPES)?.checked_add(u16::from(cluster.0))?;
        (u16::from(cluster.0) < SLOT_STRIPES && slot < RESERVED_SLOT.0).then_some(Slot(slot))
    }

    /// The id with this slot and `counter`; `counter` must be below 2^48.
    pub fn id(self, counter: u64) -> u64 {
        assert!(counter < 1 << COUNTER_BITS, "the id counter of slot {self} is used up");
        (u64::from(self.0) << COUNTER_BITS) | counter
    }
}

impl Ino {
    /// The root directory.
    pub const ROOT: Ino = Ino(1);
}

impl SliceId {
    /// Stands for "zeros" in a chunk's slice list; names no object.
    pub const HOLE: SliceId = SliceId(0);

    /// The slot in which this id was issued.
    pub fn slot(self) -> Slot {
        Slot((self.0 >> COUNTER_BITS) as u16)
    }
}

impl LogIndex {
    /// The next index.
    pub fn next(self) -> LogIndex {
        LogIndex(self.0 + 1)
    }
}

/// A bucket: the region it serves and which physical bucket of that region it is (law 12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BucketId {
    pub region: RegionId,
    pub incarnation: Incarnation,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn law_7_slots_of_clusters_never_meet_and_the_top_slot_is_reserved() {
        let mut seen = std::collections::BTreeSet::new();
        for cluster in 0..16 {
            for start in 0..2048 {
                if let Some(slot) = Slot::of(ClusterId(cluster), start) {
                    assert!(slot < RESERVED_SLOT);
                    assert!(seen.insert(slot), "slot {slot} belongs to two starts");
                }
            }
        }
        assert_eq!(Slot::of(ClusterId(15), 2047), None);
        assert_eq!(Slot::of(ClusterId(0), u16::MAX), None);
        assert_eq!(Slot::of(ClusterId(16), 0), None);
    }

    #[test]
    fn random_ids_print_and_parse() {
        let id = SessionId(*b"0123456789abcdef");
        assert_eq!(SessionId::parse(&id.to_string()), Some(id));
        assert_eq!(SessionId::parse("xyz"), None);
    }
}
