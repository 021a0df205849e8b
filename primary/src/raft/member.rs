//! A node of the cluster as Raft's membership names it. Every node, also one that joined a moment ago, learns from the
//! membership alone how the others are called and where they are: no file says it.
//!
//! It is persisted in membership entries and checkpoints as one string, `NAME@HOST:PORT`. A bare `HOST:PORT` is a member
//! from before names were kept; a name never holds an `@`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Between name and address.
const BETWEEN: char = '@';

/// Name and address of a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Empty where it is not known.
    pub name: String,
    /// `host:port` that others dial.
    pub address: String,
}

impl Member {
    pub fn new(name: &str, address: &str) -> Member {
        Member { name: name.to_owned(), address: address.to_owned() }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            return f.write_str(&self.address);
        }
        write!(f, "{}{BETWEEN}{}", self.name, self.address)
    }
}

impl Serialize for Member {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (name, address) = text.split_once(BETWEEN).unwrap_or(("", &text));
        Ok(Member::new(name, address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn law_26_the_encoding_is_fixed_and_a_bare_address_is_an_old_member() {
        let member = Member::new("use-a", "h:1");
        let bytes = postcard::to_stdvec(&member).unwrap();
        assert_eq!(bytes, b"\x09use-a@h:1");
        assert_eq!(postcard::from_bytes::<Member>(&bytes).unwrap(), member);
        let old = postcard::to_stdvec(&openraft::BasicNode::new("h:1")).unwrap();
        assert_eq!(old, b"\x03h:1");
        assert_eq!(postcard::from_bytes::<Member>(&old).unwrap(), Member::new("", "h:1"));
        assert_eq!(postcard::to_stdvec(&Member::new("", "h:1")).unwrap(), old);
    }
}
