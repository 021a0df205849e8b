//! What S3 clients expect of the server, asked by Amazon's own SDK.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, Delete, MetadataDirective, ObjectIdentifier,
};
use common::{BUCKET, start};
use tempfile::TempDir;

async fn put(client: &Client, key: &str, data: &[u8]) {
    client.put_object().bucket(BUCKET).key(key).body(ByteStream::from(data.to_vec())).send().await.unwrap();
}

async fn get(client: &Client, key: &str) -> Vec<u8> {
    let answer = client.get_object().bucket(BUCKET).key(key).send().await.unwrap();
    answer.body.collect().await.unwrap().to_vec()
}

fn code<T: std::fmt::Debug, E: ProvideErrorMetadata, R>(end: Result<T, SdkError<E, R>>) -> String {
    end.map_err(|error| error.code().unwrap_or("no code").to_owned()).expect_err("it is refused")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_keeps_its_headers_metadata_and_md5() {
    let directory = TempDir::new().unwrap();
    let client = start(directory.path()).await;
    let put = client.put_object().bucket(BUCKET).key("k").content_type("text/plain").metadata("mtime", "1.5");
    let put = put.body(ByteStream::from_static(b"hello world")).send().await.unwrap();
    assert_eq!(put.e_tag(), Some("\"5eb63bbbe01eeed093cb22bb8f5acdc3\""));
    let head = client.head_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!((head.e_tag(), head.content_length()), (put.e_tag(), Some(11)));
    assert_eq!((head.content_type(), head.content_encoding()), (Some("text/plain"), None));
    assert_eq!(head.metadata().unwrap().get("mtime").map(String::as_str), Some("1.5"));
    for (range, expected, shown) in
        [("bytes=0-4", "hello", "bytes 0-4/11"), ("bytes=-5", "world", "bytes 6-10/11"), ("bytes=6-", "world", "bytes 6-10/11")]
    {
        let part = client.get_object().bucket(BUCKET).key("k").range(range).send().await.unwrap();
        assert_eq!(part.content_range(), Some(shown));
        assert_eq!(part.body.collect().await.unwrap().to_vec(), expected.as_bytes());
    }
    assert_eq!(code(client.get_object().bucket(BUCKET).key("k").range("bytes=11-").send().await), "InvalidRange");
    assert_eq!(code(client.get_object().bucket(BUCKET).key("none").send().await), "NoSuchKey");
    assert_eq!(code(client.get_object().bucket("other").key("k").send().await), "NoSuchBucket");
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_is_not_what_the_client_says_is_refused() {
    let directory = TempDir::new().unwrap();
    let client = start(directory.path()).await;
    let put = || client.put_object().bucket(BUCKET).key("bad").body(ByteStream::from_static(b"hello world"));
    let wrong_md5 = put().content_md5("AAAAAAAAAAAAAAAAAAAAAA==").send().await;
    assert_eq!(code(wrong_md5), "BadDigest");
    assert_eq!(code(put().checksum_crc32_c("AAAAAA==").send().await), "BadDigest");
    assert_eq!(code(put().checksum_sha256("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=").send().await), "BadDigest");
    assert_eq!(code(client.get_object().bucket(BUCKET).key("bad").send().await), "NoSuchKey");
    put().content_md5("XrY7u+Ae7tCTyyK7j1rNww==").send().await.unwrap();
    for algorithm in [
        ChecksumAlgorithm::Crc32,
        ChecksumAlgorithm::Crc32C,
        ChecksumAlgorithm::Sha1,
        ChecksumAlgorithm::Sha256,
        ChecksumAlgorithm::Crc64Nvme,
    ] {
        put().checksum_algorithm(algorithm).send().await.unwrap();
    }
    assert_eq!(get(&client, "bad").await, b"hello world");
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_are_kept_or_refused_never_overlooked() {
    let directory = TempDir::new().unwrap();
    let client = start(directory.path()).await;
    let put = || client.put_object().bucket(BUCKET).key("k").body(ByteStream::from_static(b"1"));
    put().if_none_match("*").send().await.unwrap();
    assert_eq!(code(put().if_none_match("*").send().await), "PreconditionFailed");
    assert_eq!(code(put().if_match("\"x\"").send().await), "NotImplemented");
    assert_eq!(code(client.get_object().bucket(BUCKET).key("k").if_match("\"x\"").send().await), "PreconditionFailed");
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_fold_and_page_in_both_versions() {
    let directory = TempDir::new().unwrap();
    let client = start(directory.path()).await;
    for key in ["a", "a/1", "a/2", "b/1/x", "b/2", "c d", "d"] {
        put(&client, key, b"x").await;
    }
    let folded = client.list_objects_v2().bucket(BUCKET).delimiter("/").send().await.unwrap();
    let keys: Vec<_> = folded.contents().iter().filter_map(|object| object.key()).collect();
    let prefixes: Vec<_> = folded.common_prefixes().iter().filter_map(|prefix| prefix.prefix()).collect();
    assert_eq!((keys, prefixes), (vec!["a", "c d", "d"], vec!["a/", "b/"]));
    let inner = client.list_objects_v2().bucket(BUCKET).delimiter("/").prefix("b/").send().await.unwrap();
    assert_eq!(inner.contents()[0].key(), Some("b/2"));
    assert_eq!(inner.common_prefixes()[0].prefix(), Some("b/1/"));

    let mut found = Vec::new();
    let mut token = None;
    loop {
        let page = client.list_objects_v2().bucket(BUCKET).delimiter("/").max_keys(1).set_continuation_token(token);
        let page = page.send().await.unwrap();
        assert_eq!(page.key_count(), Some(1));
        found.extend(page.contents().iter().filter_map(|object| object.key().map(str::to_owned)));
        found.extend(page.common_prefixes().iter().filter_map(|prefix| prefix.prefix().map(str::to_owned)));
        token = page.next_continuation_token().map(str::to_owned);
        if token.is_none() {
            break;
        }
    }
    assert_eq!(found, ["a", "a/", "b/", "c d", "d"]);

    let old = client.list_objects().bucket(BUCKET).marker("a/1").max_keys(2).send().await.unwrap();
    assert_eq!(old.contents().iter().filter_map(|object| object.key()).collect::<Vec<_>>(), ["a/2", "b/1/x"]);
    assert_eq!((old.is_truncated(), old.next_marker()), (Some(true), Some("b/1/x")));
    let odd = client.list_objects_v2().bucket(BUCKET).delimiter("-").send().await;
    assert_eq!(code(odd), "NotImplemented");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_object_comes_in_parts_and_back_whole() {
    let directory = TempDir::new().unwrap();
    let client = start(directory.path()).await;
    let part: Vec<u8> = (0..9 << 20).map(|at: u32| (at >> 7) as u8).collect();
    let upload = client.create_multipart_upload().bucket(BUCKET).key("big").metadata("m", "1").send().await.unwrap();
    let id = upload.upload_id().unwrap();
    let mut parts = Vec::new();
    for number in [1, 2] {
        let sent = client.upload_part().bucket(BUCKET).key("big").upload_id(id).part_number(number);
        let sent = sent.body(ByteStream::from(part.clone())).send().await.unwrap();
        parts.push(CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag).build());
    }
    assert_eq!(code(client.get_object().bucket(BUCKET).key("big").send().await), "NoSuchKey");
    let complete = |parts: Vec<CompletedPart>| {
        let upload = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        client.complete_multipart_upload().bucket(BUCKET).key("big").upload_id(id).multipart_upload(upload).send()
    };
    let swapped = parts.iter().rev().cloned().collect();
    assert_eq!(code(complete(swapped).await), "InvalidPartOrder");
    let done = complete(parts).await.unwrap();
    assert!(done.e_tag().unwrap().ends_with("-2\""), "{:?}", done.e_tag());
    let whole = get(&client, "big").await;
    assert!(whole == [part.clone(), part].concat(), "larger than what is verified at once");
    assert_eq!(code(complete(Vec::new()).await), "NoSuchUpload");
    let left = std::fs::read_dir(directory.path().join(".tmp")).unwrap().count();
    assert_eq!(left, 0, "parts are removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_upload_leaves_nothing() {
    let directory = TempDir::new().unwrap();
    let client = start(directory.path()).await;
    let upload = client.create_multipart_upload().bucket(BUCKET).key("k").send().await.unwrap();
    let id = upload.upload_id().unwrap();
    let part = client.upload_part().bucket(BUCKET).key("k").upload_id(id).part_number(1);
    part.body(ByteStream::from_static(b"x")).send().await.unwrap();
    let other = client.upload_part().bucket(BUCKET).key("other").upload_id(id).part_number(1);
    assert_eq!(code(other.body(ByteStream::from_static(b"x")).send().await), "NoSuchUpload");
    client.abort_multipart_upload().bucket(BUCKET).key("k").upload_id(id).send().await.unwrap();
    assert_eq!(std::fs::read_dir(directory.path().join(".tmp")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_copied_and_deleted_in_bulk() {
    let directory = TempDir::new().unwrap();
    let client = start(directory.path()).await;
    let first = client.put_object().bucket(BUCKET).key("a b").metadata("x", "1").body(ByteStream::from_static(b"data"));
    first.send().await.unwrap();
    let copy = || client.copy_object().bucket(BUCKET).copy_source(format!("{BUCKET}/a%20b"));
    copy().key("copy").send().await.unwrap();
    copy().key("a b").metadata_directive(MetadataDirective::Replace).metadata("x", "2").send().await.unwrap();
    assert_eq!(get(&client, "copy").await, b"data");
    for (key, value) in [("copy", "1"), ("a b", "2")] {
        let head = client.head_object().bucket(BUCKET).key(key).send().await.unwrap();
        assert_eq!(head.metadata().unwrap()["x"], value);
        assert_eq!(head.e_tag(), Some("\"8d777f385d3dfec8815d20f7496026dc\""));
    }
    let objects = ["copy", "a b", "none"].map(|key| ObjectIdentifier::builder().key(key).build().unwrap());
    let delete = Delete::builder().set_objects(Some(objects.to_vec())).build().unwrap();
    let deleted = client.delete_objects().bucket(BUCKET).delete(delete).send().await.unwrap();
    assert_eq!((deleted.deleted().len(), deleted.errors().len()), (3, 0));
    assert!(client.list_objects_v2().bucket(BUCKET).send().await.unwrap().contents().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_are_one() {
    let directory = TempDir::new().unwrap();
    let client = start(directory.path()).await;
    client.create_bucket().bucket(BUCKET).send().await.unwrap();
    client.head_bucket().bucket(BUCKET).send().await.unwrap();
    assert_eq!(code(client.create_bucket().bucket("second").send().await), "AccessDenied");
    let buckets = client.list_buckets().send().await.unwrap();
    assert_eq!(buckets.buckets().iter().filter_map(|bucket| bucket.name()).collect::<Vec<_>>(), [BUCKET]);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_on_the_disk_is_an_error_with_a_name() {
    let directory = TempDir::new().unwrap();
    let client = start(directory.path()).await;
    put(&client, "data", b"hello").await;
    put(&client, "tail", b"hello").await;
    let flip = |name: &str, from_end: bool| {
        let path = directory.path().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = if from_end { bytes.len() - 1 } else { 0 };
        bytes[at] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    flip("data=", false);
    flip("tail=", true);
    for key in ["data", "tail"] {
        assert_eq!(code(client.get_object().bucket(BUCKET).key(key).send().await), "ObjectCorrupt");
    }
    let listed = client.list_objects_v2().bucket(BUCKET).send().await.unwrap();
    assert_eq!(listed.contents().len(), 2, "damaged objects are there all the same");
}
