//! What is answered about an object: its headers, and its content as a stream.

use crate::error::{blocking, told};
use farshore_objects::store::{ObjectInfo, Reader};
use s3s::dto::{ETag, ETagCondition, Metadata, StreamingBlob, Timestamp};
use s3s::{S3Error, S3Result, s3_error};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Objects up to this size are read whole and verified before the first byte is answered. Of larger ones the stream
/// breaks off at the end when the checksum does not agree.
pub(crate) const VERIFIED_BYTES_MAX: u64 = 16 << 20;
/// Bytes read at a time from larger objects.
const PIECE_BYTES: u64 = 1 << 20;
/// What the names of users' own metadata start with among the stored headers.
const META: &str = "x-amz-meta-";

pub(crate) fn etag(info: &ObjectInfo) -> ETag {
    ETag::Strong(match info.md5 {
        Some(tag) if tag.parts == 0 => hex(&tag.md5),
        Some(tag) => format!("{}-{}", hex(&tag.md5), tag.parts),
        // Not written through this server. The dash tells clients not to take it for an MD5.
        None => format!("crc32c-{:08x}", info.crc32c),
    })
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn modified(info: &ObjectInfo) -> Timestamp {
    (UNIX_EPOCH + Duration::from_millis(info.modified_unix_ms)).into()
}

/// The wall clock, which stamps objects and decides nothing (law 6).
pub(crate) fn now_unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The headers to keep with an object: those named in `plain`, and the user's metadata.
pub(crate) fn kept(plain: [(&str, Option<String>); 5], metadata: Option<Metadata>) -> BTreeMap<String, String> {
    let plain = plain.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let own = metadata.into_iter().flatten().map(|(name, value)| (format!("{META}{}", name.to_ascii_lowercase()), value));
    plain.chain(own).collect()
}

/// The user's metadata among the stored headers.
pub(crate) fn metadata(info: &ObjectInfo) -> Option<Metadata> {
    let own = info.headers.iter().filter_map(|(name, value)| Some((name.strip_prefix(META)?.to_owned(), value.clone())));
    Some(own.collect()).filter(|map: &Metadata| !map.is_empty())
}

pub(crate) fn header(info: &ObjectInfo, name: &str) -> Option<String> {
    info.headers.get(name).cloned()
}

/// Judges the conditions of a read.
pub(crate) fn check_conditions(
    info: &ObjectInfo,
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
) -> S3Result<()> {
    let tag = etag(info);
    let matches = |condition: &ETagCondition| match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(other) => other.weak_cmp(&tag),
    };
    if if_match.is_some_and(|condition| !matches(condition)) {
        return Err(s3_error!(PreconditionFailed, "the object has another ETag"));
    }
    if if_none_match.is_some_and(matches) {
        return Err(s3_error!(NotModified));
    }
    Ok(())
}

/// The content in `range`; of all of it the checksum is verified (law 16).
pub(crate) async fn content(reader: Reader, range: Range<u64>) -> S3Result<StreamingBlob> {
    let reader = Arc::new(reader);
    let whole = range == (0..reader.info().size);
    if range.end - range.start <= VERIFIED_BYTES_MAX {
        let data = blocking(move || if whole { reader.all() } else { reader.range(range) }).await?;
        let once = futures::stream::once(std::future::ready(Ok::<_, S3Error>(bytes::Bytes::from(data))));
        return Ok(StreamingBlob::wrap(once));
    }
    let stream = futures::stream::try_unfold((reader, range, 0_u32), move |(reader, range, crc32c)| async move {
        if range.is_empty() {
            return Ok(None);
        }
        let end = range.end.min(range.start + PIECE_BYTES);
        let piece = range.start..end;
        let from = reader.clone();
        let data = blocking(move || from.range(piece)).await?;
        let crc32c = crc32c::crc32c_append(crc32c, &data);
        if whole && end == range.end {
            reader.verify(crc32c).map_err(told)?;
        }
        Ok(Some((bytes::Bytes::from(data), (reader, end..range.end, crc32c))))
    });
    Ok(StreamingBlob::wrap::<_, S3Error>(stream))
}
