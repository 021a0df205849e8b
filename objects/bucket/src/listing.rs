//! Listings, of both versions of the protocol, out of one walk.

use crate::answer::{etag, modified};
use crate::error::blocking;
use farshore_objects::percent;
use farshore_objects::store::{ListRequest, Listed, Store};
use s3s::dto::{CommonPrefix, EncodingType, ListObjectsV2Input, ListObjectsV2Output, Object};
use s3s::dto::{ListObjectsInput, ListObjectsOutput, ObjectStorageClass};
use s3s::{S3Result, s3_error};
use std::sync::Arc;

/// Most keys in one answer, as in S3.
const KEYS_MAX: i32 = 1000;

/// One page as both versions answer it.
struct Page {
    contents: Vec<Object>,
    common_prefixes: Vec<CommonPrefix>,
    /// The last entry, when more follow: where the next page starts.
    next: Option<String>,
    key_count: i32,
}

/// How keys are written into an answer.
#[derive(Clone, Copy, PartialEq)]
enum Writing {
    Plain,
    Url,
}

impl Writing {
    fn of(encoding: Option<&EncodingType>) -> Writing {
        if encoding.is_some_and(|encoding| encoding.as_str() == EncodingType::URL) { Writing::Url } else { Writing::Plain }
    }

    fn key(self, key: String) -> String {
        if self == Writing::Url { percent::encode_listed(&key) } else { key }
    }
}

pub(crate) async fn version_2(store: &Arc<Store>, input: ListObjectsV2Input) -> S3Result<ListObjectsV2Output> {
    let writing = Writing::of(input.encoding_type.as_ref());
    let from_token = input.continuation_token.as_deref().map(token_key).transpose()?;
    let after = from_token.or_else(|| input.start_after.clone());
    let limit = keys_wanted(input.max_keys)?;
    let page = page(store, input.prefix.clone(), after, input.delimiter.as_deref(), limit, writing).await?;
    Ok(ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: input.prefix.map(|prefix| writing.key(prefix)),
        max_keys: Some(limit),
        key_count: Some(page.key_count),
        continuation_token: input.continuation_token,
        is_truncated: Some(page.next.is_some()),
        next_continuation_token: page.next.map(|key| token_of(&key)),
        contents: Some(page.contents),
        common_prefixes: Some(page.common_prefixes),
        delimiter: input.delimiter.map(|delimiter| writing.key(delimiter)),
        encoding_type: input.encoding_type,
        start_after: input.start_after.map(|after| writing.key(after)),
        ..Default::default()
    })
}

pub(crate) async fn version_1(store: &Arc<Store>, input: ListObjectsInput) -> S3Result<ListObjectsOutput> {
    let writing = Writing::of(input.encoding_type.as_ref());
    let limit = keys_wanted(input.max_keys)?;
    let after = input.marker.clone().filter(|marker| !marker.is_empty());
    let page = page(store, input.prefix.clone(), after, input.delimiter.as_deref(), limit, writing).await?;
    Ok(ListObjectsOutput {
        name: Some(input.bucket),
        prefix: input.prefix.map(|prefix| writing.key(prefix)),
        marker: input.marker.map(|marker| writing.key(marker)),
        max_keys: Some(limit),
        is_truncated: Some(page.next.is_some()),
        next_marker: page.next.map(|key| writing.key(key)),
        contents: Some(page.contents),
        common_prefixes: Some(page.common_prefixes),
        delimiter: input.delimiter.map(|delimiter| writing.key(delimiter)),
        encoding_type: input.encoding_type,
        ..Default::default()
    })
}

async fn page(
    store: &Arc<Store>,
    prefix: Option<String>,
    after: Option<String>,
    delimiter: Option<&str>,
    limit: i32,
    writing: Writing,
) -> S3Result<Page> {
    let fold = match delimiter {
        None | Some("") => false,
        Some("/") => true,
        Some(other) => return Err(s3_error!(NotImplemented, "the delimiter `{other}` is not available; use `/`")),
    };
    let store = store.clone();
    let listed = blocking(move || {
        let prefix = prefix.unwrap_or_default();
        store.list(&ListRequest { prefix: &prefix, after: after.as_deref(), fold, limit: limit as usize })
    });
    let listed = listed.await?;
    let key_count = listed.entries.len() as i32;
    let mut page = Page { contents: Vec::new(), common_prefixes: Vec::new(), next: None, key_count };
    for entry in listed.entries {
        let (Listed::Object { key, .. } | Listed::Folded { prefix: key }) = &entry;
        page.next = Some(key.clone());
        match entry {
            Listed::Folded { prefix } => {
                page.common_prefixes.push(CommonPrefix { prefix: Some(writing.key(prefix)) });
            }
            Listed::Object { key, info } => page.contents.push(Object {
                key: Some(writing.key(key)),
                size: Some(info.as_ref().map_or_else(|bytes| *bytes, |info| info.size) as i64),
                e_tag: info.as_ref().ok().map(etag),
                last_modified: info.as_ref().ok().map(modified),
                storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
                ..Default::default()
            }),
        }
    }
    page.next = page.next.filter(|_| listed.more);
    Ok(page)
}

fn keys_wanted(asked: Option<i32>) -> S3Result<i32> {
    match asked {
        Some(count) if count < 0 => Err(s3_error!(InvalidArgument, "max-keys is {count}; give 0 to 1000")),
        count => Ok(count.unwrap_or(KEYS_MAX).min(KEYS_MAX)),
    }
}

/// A token is the last key, in hexadecimal since a key may hold what XML cannot.
fn token_of(key: &str) -> String {
    crate::answer::hex(key.as_bytes())
}

fn token_key(token: &str) -> S3Result<String> {
    let bytes = token.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    let key = bytes.collect::<Option<Vec<u8>>>().and_then(|bytes| String::from_utf8(bytes).ok());
    key.ok_or_else(|| s3_error!(InvalidArgument, "the continuation token is not one of this server's"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_carry_any_key() {
        for key in ["a", "\u{1}\u{7f} caf\u{e9}"] {
            assert_eq!(token_key(&token_of(key)).unwrap(), key);
        }
        for wrong in ["x", "abc", "zz", "ff"] {
            assert!(token_key(wrong).is_err(), "{wrong} was taken");
        }
    }
}
