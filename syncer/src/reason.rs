//! Why a block is not copied: a closed list, because it labels metrics and steers people.

use serde::{Deserialize, Serialize};

/// The order of the variants is part of the persisted format: append, never reorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// No bucket of any region has it.
    NoSource,
    SourceUnreachable,
    TargetUnreachable,
    Throttled,
    /// Rights or credentials.
    Denied,
    /// The bucket's encryption key cannot be used.
    KeyUnusable,
    /// The bytes are not those that metadata names.
    Checksum,
    /// The object's length is not that in metadata.
    Length,
    /// The target holds another content under this name.
    Conflict,
    /// The bucket takes no more.
    NoSpace,
    /// The lease ran out without an answer: unknown, not failed.
    LeaseExpired,
    /// The worker's evidence did not fit (law 16).
    Evidence,
    Other,
}

impl Reason {
    pub const ALL: [Reason; 13] = [
        Reason::NoSource,
        Reason::SourceUnreachable,
        Reason::TargetUnreachable,
        Reason::Throttled,
        Reason::Denied,
        Reason::KeyUnusable,
        Reason::Checksum,
        Reason::Length,
        Reason::Conflict,
        Reason::NoSpace,
        Reason::LeaseExpired,
        Reason::Evidence,
        Reason::Other,
    ];

    /// The label in metrics and messages.
    pub fn label(self) -> &'static str {
        match self {
            Reason::NoSource => "no_source",
            Reason::SourceUnreachable => "source_unreachable",
            Reason::TargetUnreachable => "target_unreachable",
            Reason::Throttled => "throttled",
            Reason::Denied => "denied",
            Reason::KeyUnusable => "key_unusable",
            Reason::Checksum => "checksum",
            Reason::Length => "length",
            Reason::Conflict => "conflict",
            Reason::NoSpace => "no_space",
            Reason::LeaseExpired => "lease_expired",
            Reason::Evidence => "evidence",
            Reason::Other => "other",
        }
    }
}
