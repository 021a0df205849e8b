//! Postcard bytes of the vocabulary inside protobuf frames, and the versioned handshake.

use crate::v1;
use serde::{Serialize, de::DeserializeOwned};

/// Protocol version of this build. A peer that speaks another is refused, with both numbers in the sentence.
pub const PROTOCOL: u32 = 1;

/// Largest message on any stream, in bytes (law 27). A batch of 256 KiB of requests fits with ample room.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// Bytes from the wire that cannot be understood, or a handshake that must be refused.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("a message could not be decoded: {0}")]
    Malformed(String),
    #[error("the peer speaks protocol {theirs}, this side speaks {PROTOCOL}: upgrade the older one")]
    Protocol { theirs: u32 },
    #[error("the peer means volume `{theirs}`, this is volume `{ours}`: check the topology")]
    Volume { theirs: String, ours: String },
    #[error(
        "the peer belongs to group {theirs:#x}, this is group {ours:#x} of the same volume name: it was formatted anew, or the directory is another world's"
    )]
    Group { theirs: u64, ours: u64 },
    #[error("the message lacks its header")]
    NoHeader,
}

/// Postcard bytes of a value.
pub fn encode<T: Serialize>(value: &T) -> prost::bytes::Bytes {
    postcard::to_stdvec(value).expect("the vocabulary's types always serialise into memory").into()
}

/// The value behind postcard bytes from a peer.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    postcard::from_bytes(bytes).map_err(|error| CodecError::Malformed(error.to_string()))
}

/// A header for this build. `group` is 0 where it is not known.
pub fn header(volume: &str, group: u64) -> v1::Header {
    v1::Header { protocol: PROTOCOL, group, volume: volume.to_owned(), token: Default::default() }
}

/// Refuses a peer of another protocol, volume or group. Group 0 on either side means "not known yet".
pub fn check_header(header: Option<&v1::Header>, volume: &str, group: u64) -> Result<(), CodecError> {
    let header = header.ok_or(CodecError::NoHeader)?;
    if header.protocol != PROTOCOL {
        return Err(CodecError::Protocol { theirs: header.protocol });
    }
    if header.volume != volume {
        return Err(CodecError::Volume { theirs: header.volume.clone(), ours: volume.to_owned() });
    }
    if header.group != 0 && group != 0 && header.group != group {
        return Err(CodecError::Group { theirs: header.group, ours: group });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_refuses_strangers_by_name() {
        assert!(check_header(Some(&header("demo", 7)), "demo", 7).is_ok());
        assert!(check_header(Some(&header("demo", 0)), "demo", 7).is_ok());
        assert!(matches!(check_header(Some(&header("demo", 8)), "demo", 7), Err(CodecError::Group { .. })));
        assert!(matches!(check_header(Some(&header("prod", 7)), "demo", 7), Err(CodecError::Volume { .. })));
        assert!(matches!(check_header(None, "demo", 7), Err(CodecError::NoHeader)));
        let old = v1::Header { protocol: PROTOCOL + 1, ..header("demo", 7) };
        assert!(matches!(check_header(Some(&old), "demo", 7), Err(CodecError::Protocol { .. })));
    }
}
