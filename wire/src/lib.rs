//! Messages between the parts: generated gRPC, the codec of operations and queries, the handshake, and the JSON views
//! that operators, console and scripts see.

pub mod admin;
pub mod admin_client;
mod codec;
mod packed;
pub mod sealed;
pub mod view;

pub use codec::{CodecError, MAX_MESSAGE_BYTES, PROTOCOL, check_header, decode, encode, header};
pub use packed::{PackedError, Packing};

/// Generated from `proto/farshore.proto`.
#[allow(clippy::all, clippy::unwrap_used, missing_docs)]
pub mod v1 {
    tonic::include_proto!("farshore.v1");
}
