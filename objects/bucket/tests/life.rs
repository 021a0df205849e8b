//! Starting, ending and being killed.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use aws_sdk_s3::primitives::ByteStream;
use common::{BUCKET, any_port, client, config, start};
use farshore_bucket::{ServeError, Server, serve};
use farshore_objects::store::StoreError;
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Nothing below may hang.
const BOUND: Duration = Duration::from_secs(60);
/// Names the directory for [`child_server`]; unset, that test has nothing to do.
const CHILD: &str = "FARSHORE_TEST_BUCKET_DIRECTORY";
const READY: &str = "listening on ";

#[tokio::test]
async fn a_port_in_use_is_named_before_anything_is_created() {
    let taken = TcpListener::bind(any_port()).await.unwrap();
    let parent = TempDir::new().unwrap();
    let directory = parent.path().join("bucket");
    let error = Server::bind(config(&directory, taken.local_addr().unwrap())).await.err().unwrap();
    assert!(matches!(error, ServeError::Bind { .. }), "{error:?}");
    assert!(error.to_string().contains(&taken.local_addr().unwrap().to_string()), "{error}");
    assert!(!directory.exists(), "nothing was created");
}

#[tokio::test]
async fn a_directory_has_one_server_and_no_other_files() {
    let directory = TempDir::new().unwrap();
    let server = Server::bind(config(directory.path(), any_port())).await.unwrap();
    let second = Server::bind(config(directory.path(), any_port())).await.err().unwrap();
    assert!(matches!(second, ServeError::Directory(StoreError::InUse { .. })), "{second:?}");
    drop(server);
    Server::bind(config(directory.path(), any_port())).await.unwrap();

    let foreign = TempDir::new().unwrap();
    std::fs::write(foreign.path().join("thesis.txt"), "x").unwrap();
    let error = Server::bind(config(foreign.path(), any_port())).await.err().unwrap();
    assert!(matches!(error, ServeError::Directory(StoreError::Foreign { .. })), "{error:?}");
    assert_eq!(std::fs::read_dir(foreign.path()).unwrap().count(), 1, "nothing was added");
}

#[tokio::test]
async fn names_that_are_no_buckets_are_refused() {
    let directory = TempDir::new().unwrap();
    let mut wrong = config(directory.path(), any_port());
    wrong.bucket_name = "No Bucket".to_owned();
    assert!(matches!(Server::bind(wrong).await.err(), Some(ServeError::BucketName(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_ends_when_it_is_told_to_and_objects_stay() {
    let directory = TempDir::new().unwrap();
    let first = start_and_stop(directory.path()).await;
    first.expect("the first life ends well");
    let client = start(directory.path()).await;
    let found = client.get_object().bucket(BUCKET).key("kept").send().await.unwrap();
    assert_eq!(found.body.collect().await.unwrap().to_vec(), b"data");
}

async fn start_and_stop(directory: &Path) -> Result<(), ServeError> {
    let server = Server::bind(config(directory, any_port())).await?;
    let client = client(server.address());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async move {
        let _ = stopped.await;
    }));
    let put = client.put_object().bucket(BUCKET).key("kept").body(ByteStream::from_static(b"data"));
    put.send().await.unwrap();
    stop.send(()).unwrap();
    tokio::time::timeout(BOUND, running).await.expect("the server ends").unwrap();
    let ended = serve(config(directory, any_port()), std::future::ready(()));
    tokio::time::timeout(BOUND, ended).await.expect("a server that is to end at once does")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let directory = TempDir::new().unwrap();
    let server = Server::bind(config(directory.path(), any_port())).await.unwrap();
    let address = server.address();
    tokio::spawn(server.run(std::future::pending()));
    let client = client(address);
    // Signed by the SDK for the whole body, sent by hand and cut off.
    let signing = aws_sdk_s3::presigning::PresigningConfig::expires_in(BOUND).unwrap();
    let signed = client.put_object().bucket(BUCKET).key("broken").presigned(signing).await.unwrap();
    let path = signed.uri().split_once(&address.to_string()).unwrap().1;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut head = format!("PUT {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 5000000\r\n");
    for (name, value) in signed.headers().filter(|(name, _)| !name.eq_ignore_ascii_case("host")) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    stream.write_all(&vec![1; 3_000_000]).await.unwrap();
    wait_for("the upload to be written aside", || aside(directory.path()) == 1).await;
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    wait_for("the file to be removed", || aside(directory.path()) == 0).await;
    let listed = client.list_objects_v2().bucket(BUCKET).send().await.unwrap();
    assert!(listed.contents().is_empty(), "half an object is no object");
}

fn aside(directory: &Path) -> usize {
    std::fs::read_dir(directory.join(".tmp")).unwrap().count()
}

async fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(BOUND, waiting).await.unwrap_or_else(|_| panic!("waited too long for {what}"));
}

/// The server as a process of its own, for [`killed_in_the_middle`]; by itself it does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn child_server() {
    let Some(directory) = std::env::var_os(CHILD) else { return };
    let server = Server::bind(config(Path::new(&directory), any_port())).await.unwrap();
    println!("\n{READY}{}", server.address());
    server.run(std::future::pending()).await;
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(directory: &Path) -> (Process, SocketAddr) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child_server", "--nocapture"]).env(CHILD, directory).stdout(Stdio::piped());
    let mut process = Process(command.spawn().unwrap());
    let lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
    let address = lines.map_while(Result::ok).find_map(|line| line.strip_prefix(READY)?.parse().ok());
    (process, address.expect("the child says where it listens"))
}

fn content(writer: usize, number: usize) -> Vec<u8> {
    vec![(writer * 31 + number) as u8; 100_000 + number * 1_000]
}

/// SIGKILL at any moment loses nothing that was acknowledged and shows nothing that is half written.
#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle() {
    let directory = TempDir::new().unwrap();
    let acknowledged = Arc::new(Mutex::new(HashMap::new()));
    for life in 0..3 {
        let (process, address) = spawn(directory.path());
        let client = client(address);
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..8 {
            let (client, acknowledged) = (client.clone(), acknowledged.clone());
            writers.spawn(async move {
                for number in 0..10_000 {
                    let (key, data) = (format!("life{life}/{writer}/{number}"), content(writer, number));
                    let put = client.put_object().bucket(BUCKET).key(&key).body(ByteStream::from(data.clone()));
                    if put.send().await.is_err() {
                        return;
                    }
                    acknowledged.lock().unwrap().insert(key, data);
                }
            });
        }
        let enough = (life + 1) * 40;
        wait_for("some writes", || acknowledged.lock().unwrap().len() >= enough).await;
        drop(process);
        tokio::time::timeout(BOUND, writers.join_all()).await.expect("writers notice the end");
    }
    let client = start(directory.path()).await;
    assert_eq!(aside(directory.path()), 0, "what was written aside is removed at the start");
    let acknowledged = acknowledged.lock().unwrap().clone();
    for (key, data) in &acknowledged {
        let found = client.get_object().bucket(BUCKET).key(key).send().await.unwrap_or_else(|error| panic!("{key}: {error:?}"));
        assert!(found.body.collect().await.unwrap().to_vec() == *data, "{key} is whole");
    }
    let listed = client.list_objects_v2().bucket(BUCKET).send().await.unwrap();
    for object in listed.contents() {
        let key = object.key().unwrap();
        let mut parts = key.split('/').skip(1).map(|part| part.parse::<usize>().unwrap());
        let expected = content(parts.next().unwrap(), parts.next().unwrap());
        let found = client.get_object().bucket(BUCKET).key(key).send().await.unwrap();
        assert!(found.body.collect().await.unwrap().to_vec() == expected, "{key} is shown, so it is whole");
    }
}
