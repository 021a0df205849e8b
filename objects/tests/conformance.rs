//! All buckets against one suite, and what S3 buckets say when their service misbehaves.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use aws_sdk_s3::config::{BehaviorVersion, Builder, Region};
use bytes::Bytes;
use farshore_bucket::{BucketConfig, Server};
use farshore_objects::{Bucket, BucketError, BucketUrl, Credentials, MemoryBucket, conformance, open};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Nothing below may hang; no test comes near it otherwise.
const BOUND: Duration = Duration::from_secs(60);

fn keys() -> Credentials {
    Credentials::new("access", "canary-secret")
}

async fn served(directory: &Path) -> SocketAddr {
    let config = BucketConfig {
        directory: directory.to_owned(),
        listen: "127.0.0.1:0".parse().unwrap(),
        bucket_name: "shore".to_owned(),
        credentials: keys(),
    };
    let server = Server::bind(config).await.unwrap();
    let address = server.address();
    tokio::spawn(server.run(std::future::pending()));
    address
}

async fn s3(address: SocketAddr, path: &str) -> Arc<dyn Bucket> {
    open(&BucketUrl::parse(&format!("s3+http://{address}/{path}")).unwrap(), Some(keys())).await.unwrap()
}

/// Flips the first byte of a file.
fn rot_file(path: PathBuf) {
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[0] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_conforms() {
    let bucket = Arc::new(MemoryBucket::new("m"));
    let same = bucket.clone();
    conformance::all(bucket, &move |name| same.rot(name, Bytes::from_static(b"other"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_conforms() {
    let directory = TempDir::new().unwrap();
    let root = directory.path().join("new/bucket");
    let url = BucketUrl::parse(&format!("file://{}", root.display())).unwrap();
    let bucket = open(&url, None).await.unwrap();
    conformance::all(bucket, &|name| rot_file(root.join(format!("{name}=")))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_server_conforms() {
    let directory = TempDir::new().unwrap();
    let address = served(directory.path()).await;
    let bucket = s3(address, "shore").await;
    conformance::all(bucket, &|name| rot_file(directory.path().join(format!("{name}=")))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_relative_to_the_prefix_of_the_url() {
    let directory = TempDir::new().unwrap();
    let address = served(directory.path()).await;
    let outer = s3(address, "shore").await;
    let inner = s3(address, "shore/vol/a").await;
    inner.put_replace("x", Bytes::from_static(b"1")).await.unwrap();
    outer.put_replace("vol/ab", Bytes::from_static(b"2")).await.unwrap();
    let listed = inner.list("", None, 10).await.unwrap();
    assert_eq!(listed.objects.iter().map(|object| object.name.as_str()).collect::<Vec<_>>(), ["x"]);
    assert_eq!(outer.get("vol/a/x").await.unwrap().0, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_itself_verifies_what_a_service_hands_out() {
    let directory = TempDir::new().unwrap();
    let address = served(directory.path()).await;
    let raw = raw_client(address);
    // A service that stores other bytes under our checksum cannot be told from one that lost bits.
    let put = raw.put_object().bucket("shore").key("liar").metadata("farshore-crc32c", "00000012");
    put.body(Bytes::from_static(b"other").into()).send().await.unwrap();
    let bucket = s3(address, "shore").await;
    let error = bucket.get("liar").await.unwrap_err();
    assert!(matches!(error, BucketError::Corrupt { expected: 0x12, .. }), "{error:?}");
    // Without a stored checksum the content itself decides about "exists".
    raw.put_object().bucket("shore").key("plain").body(Bytes::from_static(b"abc").into()).send().await.unwrap();
    assert_eq!(bucket.head("plain").await.unwrap().crc32c, None);
    let put = |data: &'static [u8]| bucket.put_new("plain", Bytes::from_static(data), crc32c::crc32c(data));
    assert!(put(b"abc").await.is_ok());
    assert!(matches!(put(b"abd").await, Err(BucketError::Conflict { .. })));
}

fn raw_client(address: SocketAddr) -> aws_sdk_s3::Client {
    let credentials = aws_sdk_s3::config::Credentials::new("access", "canary-secret", None, None, "test");
    let config = Builder::new()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(credentials)
        .region(Region::new("us-east-1"))
        .endpoint_url(format!("http://{address}"))
        .force_path_style(true);
    aws_sdk_s3::Client::from_conf(config.build())
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_are_denied_and_no_message_shows_them() {
    let directory = TempDir::new().unwrap();
    let address = served(directory.path()).await;
    let url = BucketUrl::parse(&format!("s3+http://{address}/shore")).unwrap();
    for wrong in [Credentials::new("access", "wrong-secret"), Credentials::new("nobody", "wrong-secret")] {
        let bucket = open(&url, Some(wrong)).await.unwrap();
        let error = bucket.put_replace("x", Bytes::from_static(b"1")).await.unwrap_err();
        assert!(matches!(error, BucketError::Denied { .. }), "{error:?}");
        assert!(!format!("{error} {error:?} {bucket:?}").contains("secret"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_not_there_is_no_absent_object() {
    let directory = TempDir::new().unwrap();
    let address = served(directory.path()).await;
    let bucket = s3(address, "elsewhere").await;
    for error in [bucket.get("x").await.unwrap_err(), bucket.list("", None, 1).await.unwrap_err()] {
        assert!(matches!(&error, BucketError::Other { detail, .. } if detail.contains("does not exist")), "{error:?}");
    }
}

async fn every_operation_fails(bucket: Arc<dyn Bucket>, expected: fn(&BucketError) -> bool) {
    let data = Bytes::from(vec![7; 1 << 20]);
    let crc32c = crc32c::crc32c(&data);
    let ends = tokio::time::timeout(BOUND, async {
        tokio::join!(
            async { bucket.get("x").await.map(|_| ()) },
            async { bucket.get_range("x", 0..5).await.map(|_| ()) },
            async { bucket.head("x").await.map(|_| ()) },
            async { bucket.put_new("x", data.clone(), crc32c).await.map(|_| ()) },
            bucket.put_replace("x", data.clone()),
            bucket.delete("x"),
            async { bucket.list("x", None, 5).await.map(|_| ()) },
        )
    });
    let ends = ends.await.expect("no operation hangs");
    for end in [ends.0, ends.1, ends.2, ends.3, ends.4, ends.5, ends.6] {
        let error = end.expect_err("the service is not there");
        assert!(expected(&error), "{error:?}");
        assert!(error.is_transient(), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_server_is_unreachable() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let bucket = s3(address, "shore").await;
    let message = bucket.head("x").await.unwrap_err().to_string();
    assert!(message.contains("refused") && message.contains(&address.to_string()), "{message}");
    assert!(message.len() < 300, "a message for people: {message}");
    every_operation_fails(bucket, |error| matches!(error, BucketError::Unreachable { .. })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_answers_is_unreachable() {
    // The kernel takes connections, nobody reads them: what a stopped process looks like.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bucket = s3(listener.local_addr().unwrap(), "shore").await;
    every_operation_fails(bucket, |error| matches!(error, BucketError::Unreachable { .. })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_too_busy_is_asked_a_few_times_only() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = requests.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(b"HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        }
    });
    let bucket = s3(address, "shore").await;
    let error = bucket.get("x").await.unwrap_err();
    assert!(matches!(error, BucketError::Throttled { .. }), "{error:?}");
    assert_eq!(requests.load(std::sync::atomic::Ordering::SeqCst), 4, "one try and three more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_back_is_used_again_at_once() {
    let directory = TempDir::new().unwrap();
    let mut listen = "127.0.0.1:0".parse().unwrap();
    let mut bucket: Option<Arc<dyn Bucket>> = None;
    for life in 0..3 {
        let config =
            BucketConfig { directory: directory.path().to_owned(), listen, bucket_name: "shore".to_owned(), credentials: keys() };
        let server = Server::bind(config).await.unwrap();
        listen = server.address();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let running = tokio::spawn(server.run(async move {
            let _ = stopped.await;
        }));
        let bucket = match &bucket {
            Some(bucket) => bucket.clone(),
            None => bucket.insert(s3(listen, "shore").await).clone(),
        };
        // Connections of the life before are still in the client's pool.
        bucket.put_replace(&format!("life{life}"), Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(bucket.list("", None, 10).await.unwrap().objects.len(), life + 1);
        stop.send(()).unwrap();
        tokio::time::timeout(BOUND, running).await.expect("the server ends").unwrap();
        let error = bucket.head("life0").await.unwrap_err();
        assert!(matches!(error, BucketError::Unreachable { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn clouds_that_are_not_served_yet_say_so() {
    for scheme in ["gs", "az"] {
        let url = BucketUrl::parse(&format!("{scheme}://bucket")).unwrap();
        let error = open(&url, None).await.unwrap_err();
        assert_eq!(error, BucketError::NotAvailableYet { scheme: scheme.to_owned() });
    }
}
