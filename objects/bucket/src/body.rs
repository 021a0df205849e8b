//! Receiving the content of an object: written aside as it comes, and compared with what the client says it is.

use crate::error::{blocking, told};
use farshore_objects::store::{Md5Tag, Store, StoreError, Writer};
use futures::StreamExt;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};
use s3s::dto::{Checksum, StreamingBlob};
use s3s::{S3Result, TrailingHeaders, s3_error};
use std::sync::Arc;
use std::time::Duration;

/// Bytes gathered before they go to the disk together.
const GATHERED_BYTES: usize = 1 << 20;
/// A client that sends nothing for so long has gone.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// What a client says of the content that it sends.
#[derive(Default)]
pub(crate) struct Claims {
    /// Header `content-md5`, in base64.
    pub(crate) md5: Option<String>,
    pub(crate) length: Option<i64>,
    /// Headers `x-amz-checksum-*`, in base64.
    pub(crate) checksum: Checksum,
    /// Names the checksum that follows the content.
    pub(crate) trailer: Option<String>,
    pub(crate) trailing: Option<TrailingHeaders>,
}

/// Content received whole and agreed with.
pub(crate) struct Received {
    pub(crate) writer: Writer,
    pub(crate) tag: Md5Tag,
}

/// The file and the sums that run along; goes to and from threads that may block.
struct Sink {
    writer: Writer,
    md5: Md5,
    sums: ChecksumHasher,
}

pub(crate) async fn receive(store: &Arc<Store>, body: Option<StreamingBlob>, claims: Claims) -> S3Result<Received> {
    let store = store.clone();
    let sums = claims.hasher();
    let mut sink = blocking(move || Ok(Sink { writer: store.write()?, md5: Md5::new(), sums })).await?;
    if let Some(mut body) = body {
        let mut gathered = Vec::new();
        let mut gathered_bytes = 0;
        loop {
            let next = tokio::time::timeout(STALL_TIMEOUT, body.next()).await;
            let next = next.map_err(|_| s3_error!(RequestTimeout, "no data came for {} s", STALL_TIMEOUT.as_secs()))?;
            let last = next.is_none();
            if let Some(data) = next {
                let data = data.map_err(|error| s3_error!(IncompleteBody, "the content was cut off: {error}"))?;
                gathered_bytes += data.len();
                gathered.push(data);
            }
            if gathered_bytes >= GATHERED_BYTES || (last && gathered_bytes > 0) {
                let pieces = std::mem::take(&mut gathered);
                gathered_bytes = 0;
                sink = blocking(move || sink.append(&pieces)).await?;
            }
            if last {
                break;
            }
        }
    }
    claims.agree(sink)
}

impl Sink {
    fn append(mut self, pieces: &[bytes::Bytes]) -> Result<Sink, StoreError> {
        for piece in pieces {
            self.writer.append(piece)?;
            self.md5.update(piece);
            self.sums.update(piece);
        }
        Ok(self)
    }
}

impl Claims {
    /// Computes only the sums that will be compared.
    fn hasher(&self) -> ChecksumHasher {
        let trailer = self.trailer.as_deref().unwrap_or_default().to_ascii_lowercase();
        let wanted = |claimed: &Option<String>, name: &str| claimed.is_some() || trailer.contains(name);
        let claimed = &self.checksum;
        ChecksumHasher {
            crc32: wanted(&claimed.checksum_crc32, "x-amz-checksum-crc32").then(Crc32::new),
            crc32c: wanted(&claimed.checksum_crc32c, "x-amz-checksum-crc32c").then(Crc32c::new),
            sha1: wanted(&claimed.checksum_sha1, "x-amz-checksum-sha1").then(Sha1::new),
            sha256: wanted(&claimed.checksum_sha256, "x-amz-checksum-sha256").then(Sha256::new),
            crc64nvme: wanted(&claimed.checksum_crc64nvme, "x-amz-checksum-crc64nvme").then(Crc64Nvme::new),
        }
    }

    fn agree(self, sink: Sink) -> S3Result<Received> {
        let md5: [u8; 16] = sink.md5.finalize();
        let size = sink.writer.size();
        if self.length.is_some_and(|length| u64::try_from(length) != Ok(size)) {
            return Err(s3_error!(IncompleteBody, "{size} bytes came, {:?} were announced", self.length));
        }
        if let Some(claimed) = &self.md5
            && base64(&md5) != *claimed
        {
            return Err(s3_error!(BadDigest, "the content's MD5 is {}, content-md5 says {claimed}", base64(&md5)));
        }
        let found = sink.sums.finalize();
        let trailing = |name: &str| {
            let headers = self.trailing.as_ref()?;
            headers.read(|map| map.get(name)?.to_str().ok().map(str::to_owned))?
        };
        let claimed = &self.checksum;
        let pairs = [
            (&claimed.checksum_crc32, &found.checksum_crc32, "x-amz-checksum-crc32"),
            (&claimed.checksum_crc32c, &found.checksum_crc32c, "x-amz-checksum-crc32c"),
            (&claimed.checksum_sha1, &found.checksum_sha1, "x-amz-checksum-sha1"),
            (&claimed.checksum_sha256, &found.checksum_sha256, "x-amz-checksum-sha256"),
            (&claimed.checksum_crc64nvme, &found.checksum_crc64nvme, "x-amz-checksum-crc64nvme"),
        ];
        for (claimed, found, name) in pairs {
            let (Some(claimed), Some(found)) = (claimed.clone().or_else(|| trailing(name)), found) else { continue };
            if claimed != *found {
                return Err(s3_error!(BadDigest, "{name} says {claimed}, the content's is {found}"));
            }
        }
        Ok(Received { writer: sink.writer, tag: Md5Tag { md5, parts: 0 } })
    }
}

/// Standard base64, for the few bytes of a digest.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().chain([0; 2].iter()).take(3).fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        for position in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * position) & 63) as usize];
            text.push(if position <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// Copies an object's content, verified, into a new one.
pub(crate) async fn copied(store: &Arc<Store>, key: String) -> S3Result<(Writer, farshore_objects::store::ObjectInfo)> {
    let store = store.clone();
    let copied = tokio::task::spawn_blocking(move || {
        let reader = store.read(&key)?;
        let mut writer = store.write()?;
        let size = reader.info().size;
        let mut at = 0;
        while at < size {
            let end = size.min(at + GATHERED_BYTES as u64);
            writer.append(&reader.range(at..end)?)?;
            at = end;
        }
        reader.verify(writer.crc32c())?;
        Ok((writer, reader.info().clone()))
    });
    match copied.await {
        Ok(result) => result.map_err(told),
        Err(_) => Err(s3_error!(InternalError, "the work was stopped")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_rfc_4648_has_it() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
