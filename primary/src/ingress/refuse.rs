//! Refusals: each says what, and what to do.

use farshore_wire::v1::{Refused, refused::Kind};

/// A refusal with a sentence.
pub fn refused(kind: Kind, text: impl Into<String>) -> Refused {
    Refused { kind: kind.into(), text: text.into(), leader: String::new() }
}

/// This node does not lead; it names the leader where it knows it.
pub fn not_leader(leader: Option<String>) -> Refused {
    let text = match &leader {
        Some(address) => format!("this node does not lead; ask {address}"),
        None => "this node does not lead, and there is no leader known: try again".to_owned(),
    };
    Refused { kind: Kind::NotLeader.into(), text, leader: leader.unwrap_or_default() }
}
