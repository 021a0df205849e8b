//! The hash chain over shared entries (law 1).
//!
//! It runs over the canonical bytes of shared entries, not over Raft's framing, so that every node of every cluster has
//! the same value at the same [`LogIndex`]. A difference means two histories.

use farshore_types::{Chain, LogIndex};

/// Keeps these hashes apart from every other use of the same hash function; changing it changes all chains.
const DOMAIN: &[u8] = b"farshore/chain/1\0";

/// The chain after the entry at `index`, given the chain before it and the entry's canonical bytes.
pub fn extend(chain: &Chain, index: LogIndex, canonical: &[u8]) -> Chain {
    let mut hasher = blake3::Hasher::new();
    hasher.update(DOMAIN);
    hasher.update(&chain.0);
    hasher.update(&index.0.to_be_bytes());
    hasher.update(canonical);
    Chain(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(chain: &Chain) -> String {
        chain.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn law_26_golden_chain() {
        let first = extend(&Chain::default(), LogIndex(1), b"first");
        let second = extend(&first, LogIndex(2), b"second");
        assert_eq!(hex(&first), "943354f909b2ce1dd58682573a8ddcd87b6c3807bfeacfc0535f1684f576577c");
        assert_eq!(hex(&second), "d250a604fb9fa6125539cca6268e81e6972c0d17e07d9fbd426f9394390676a9");
    }

    #[test]
    fn every_input_changes_the_chain() {
        let base = extend(&Chain::default(), LogIndex(1), b"entry");
        assert_ne!(base, extend(&Chain([1; 32]), LogIndex(1), b"entry"));
        assert_ne!(base, extend(&Chain::default(), LogIndex(2), b"entry"));
        assert_ne!(base, extend(&Chain::default(), LogIndex(1), b"entrY"));
        assert_ne!(base, extend(&Chain::default(), LogIndex(1), b""));
    }
}
