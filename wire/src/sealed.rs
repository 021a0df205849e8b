//! A checksum on every message, from the process that wrote it to the one that reads it: TCP's own misses flipped bits.
//!
//! It is the last field of the message, number 2047, a CRC-32C of all bytes before it. A build that does not know it
//! skips it as any unknown field, and a message without it is an older build's, so that both work side by side. A bit
//! that flips in the field's own two bytes of tag hides the checksum and nothing else.

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use std::marker::PhantomData;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Field 2047, four bytes.
const TAG: [u8; 2] = [0xFD, 0x7F];
const SEAL: usize = TAG.len() + 4;

/// Bytes that are not the message that was sent.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("a message of {0} bytes was damaged on its way: its checksum is wrong")]
    Checksum(usize),
    #[error("a message cannot be decoded: {0}")]
    Decode(#[from] prost::DecodeError),
}

/// A message's bytes with their checksum, written over `bytes`.
pub fn seal(message: &impl Message, bytes: &mut Vec<u8>) {
    bytes.clear();
    bytes.reserve(message.encoded_len() + SEAL);
    message.encode(bytes).expect("a vector grows");
    let crc = crc32c::crc32c(bytes);
    bytes.extend_from_slice(&TAG);
    bytes.extend_from_slice(&crc.to_le_bytes());
}

/// The message in sealed bytes, if they are what was sent.
pub fn open<M: Message + Default>(bytes: Bytes) -> Result<M, Broken> {
    if let Some((message, seal)) = bytes.split_last_chunk::<SEAL>()
        && seal[..TAG.len()] == TAG
        && seal[TAG.len()..] != crc32c::crc32c(message).to_le_bytes()
    {
        return Err(Broken::Checksum(bytes.len()));
    }
    Ok(M::decode(bytes)?)
}

/// The codec of all services, named by `build.rs`.
#[derive(Debug, Clone)]
pub struct SealedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SealedCodec<T, U> {
    fn default() -> Self {
        SealedCodec(PhantomData)
    }
}

impl<T: Message + Send + 'static, U: Message + Default + Send + 'static> Codec for SealedCodec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = Sealer<T>;
    type Decoder = Opener<U>;

    fn encoder(&mut self) -> Sealer<T> {
        Sealer { bytes: Vec::new(), item: PhantomData }
    }

    fn decoder(&mut self) -> Opener<U> {
        Opener(PhantomData)
    }
}

/// Encodes; its buffer is kept from message to message up to [`KEPT`].
#[derive(Debug)]
pub struct Sealer<T> {
    bytes: Vec<u8>,
    item: PhantomData<T>,
}

/// Bytes of buffer that an encoder keeps between two messages (law 27).
const KEPT: usize = 1 << 20;

impl<T: Message> Encoder for Sealer<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        seal(&item, &mut self.bytes);
        out.put_slice(&self.bytes);
        if self.bytes.capacity() > KEPT {
            self.bytes = Vec::new();
        }
        Ok(())
    }
}

/// Decodes; a damaged message ends its call or stream.
#[derive(Debug)]
pub struct Opener<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for Opener<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        open(bytes).map(Some).map_err(|broken| {
            tracing::error!(%broken, "a message is refused");
            Status::data_loss(broken.to_string())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{RaftReply, Request, Requests};

    fn message() -> Requests {
        let request = |sequence| Request { sequence, op: Bytes::from(vec![7; 40]), open: false };
        Requests { acknowledged: 300, requests: vec![request(1), request(2)] }
    }

    fn sealed() -> Vec<u8> {
        let mut bytes = vec![];
        seal(&message(), &mut bytes);
        bytes
    }

    #[test]
    fn no_flipped_bit_changes_a_message() {
        let bytes = sealed();
        let mut refused = 0;
        for at in 0..bytes.len() * 8 {
            let mut bent = bytes.clone();
            bent[at / 8] ^= 1 << (at % 8);
            match open::<Requests>(bent.into()) {
                Ok(read) => assert_eq!(read, message(), "bit {at}"),
                Err(_) => refused += 1,
            }
        }
        assert!(refused >= (bytes.len() - TAG.len()) * 8, "only a bit of the tag can be without effect: {refused}");
    }

    #[test]
    fn without_the_check_a_flipped_bit_would_have_changed_it() {
        let mut bent = sealed();
        bent[20] ^= 1;
        assert!(Requests::decode(bent.as_slice()).is_ok_and(|read| read != message()));
    }

    #[test]
    fn an_older_build_and_this_one_read_each_other() {
        assert_eq!(Requests::decode(sealed().as_slice()).unwrap(), message());
        assert_eq!(open::<Requests>(message().encode_to_vec().into()).unwrap(), message());
        assert_eq!(open::<RaftReply>(Bytes::new()).unwrap(), RaftReply::default());
    }

    #[test]
    fn law_26_the_bytes_of_a_seal_stay() {
        let mut bytes = vec![];
        seal(&RaftReply { body: Bytes::from_static(b"abc") }, &mut bytes);
        let crc = crc32c::crc32c(b"\x0a\x03abc").to_le_bytes();
        assert_eq!(bytes, [&b"\x0a\x03abc\xfd\x7f"[..], &crc].concat());
    }
}
