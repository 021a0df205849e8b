//! How many times a client asks the cluster for what programs do all the time, and that fewer questions change no answer.

use crate::world::{PATIENCE, READ_WRITE, World, create, until};
use bytes::Bytes;
use farshore_client::{Durable, FsErrorKind, SetAttr, Volume};
use farshore_types::{Attr, Control, ErrorKind, Ino, NewNode, Query, QueryReply, SharedBody, TimeChange, Timestamp};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

fn queries(world: &World) -> u64 {
    world.cluster.state.faults.queries.load(Relaxed)
}

fn batches(world: &World) -> u64 {
    world.cluster.state.faults.batches.load(Relaxed)
}

/// What the cluster itself says of a name in the root.
fn at_cluster(world: &World, name: &str) -> Attr {
    match world.cluster.state.query(Query::Lookup { parent: Ino::ROOT, name: name.as_bytes().to_vec() }) {
        Ok(QueryReply::Attr(attr)) => attr,
        other => panic!("{other:?}"),
    }
}

async fn directory(volume: &Volume, name: &str) -> Ino {
    volume.make(Ino::ROOT, name.as_bytes(), NewNode::Directory, 0o755, 0, 0).await.unwrap().ino
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_made_and_opened_in_one_step_and_closed_together_with_others() {
    let world = World::start().await;
    let volume = world.client("us-east").await;
    let before = queries(&world);
    let mut files = vec![];
    for n in 0..20 {
        files.push(create(&volume, &format!("file-{n}")).await);
    }
    assert_eq!(queries(&world), before, "nothing but the creations was asked");
    for file in files {
        volume.release(file).await.unwrap();
    }
    until("every close to be told", || queries(&world) == before + 20).await;
    // A node that does not know of it yet is asked as ever.
    world.cluster.state.faults.opens_nothing.store(true, Relaxed);
    let file = create(&volume, "last").await;
    assert_eq!(queries(&world), before + 21);
    volume.write(&file, 0, Bytes::from_static(b"x")).await.unwrap();
    volume.release(file).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_opened_again_at_once_is_not_closed() {
    let world = World::start().await;
    let volume = world.client("us-east").await;
    let first = create(&volume, "a").await;
    let ino = first.ino();
    volume.release(first).await.unwrap();
    let (again, _) = volume.open(ino, READ_WRITE).await.unwrap();
    let before = queries(&world);
    // Closes go together: with this one's, the first one's would be told.
    volume.release(create(&volume, "b").await).await.unwrap();
    until("the other's close", || queries(&world) > before).await;
    assert_eq!(queries(&world), before + 1, "the close that waited is of no use any more");
    volume.release(again).await.unwrap();
    until("the close", || queries(&world) == before + 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_own_directories_are_known_until_others_touch_them() {
    let world = World::start().await;
    let (one, two) = (world.client("us-east").await, world.client("us-east").await);
    let dir = directory(&one, "dir").await;
    let before = queries(&world);
    assert!(one.lookup(dir, b"mine").await.unwrap_err().is(ErrorKind::NotFound));
    let (mine, attr) = one.create(dir, b"mine", 0o644, (0, 0), READ_WRITE).await.unwrap();
    let parent = one.getattr(dir).await.unwrap();
    assert_eq!((parent.mtime, parent.version), (attr.ctime, attr.version), "the file gave its times to the directory");
    assert_eq!(queries(&world), before, "nothing was asked");
    assert_eq!(two.getattr(dir).await.unwrap(), parent, "and that is what the cluster says");
    assert_eq!(one.lookup(dir, b"mine").await.unwrap().ino, mine.ino());
    let told = one.subscribe();
    let theirs = two.create(dir, b"theirs", 0o644, (0, 0), READ_WRITE).await.unwrap().1;
    tokio::time::timeout(PATIENCE, told.next()).await.unwrap();
    assert_eq!(one.lookup(dir, b"theirs").await.unwrap().ino, theirs.ino);
    assert_eq!(one.getattr(dir).await.unwrap(), two.getattr(dir).await.unwrap());
    // Also where nothing was told: the name is refused by the cluster, and nothing is known of the directory any more.
    let other = directory(&one, "other").await;
    world.cluster.state.faults.silent_invalidations.store(true, Relaxed);
    let taken = two.create(other, b"taken", 0o644, (0, 0), READ_WRITE).await.unwrap().1;
    let refused = one.create(other, b"taken", 0o644, (0, 0), READ_WRITE).await;
    assert!(refused.unwrap_err().is(ErrorKind::Exists));
    assert_eq!(one.lookup(other, b"taken").await.unwrap().ino, taken.ino);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_cluster_is_asked_for_every_name() {
    let world = World::start().await;
    let volume = world.client("us-east").await;
    let dir = directory(&volume, "dir").await;
    let before = queries(&world);
    let end = Instant::now() + PATIENCE;
    // What is answered from memory tells the client nothing new: the cluster stays silent until it is asked.
    while queries(&world) == before {
        assert!(volume.lookup(dir, b"name").await.unwrap_err().is(ErrorKind::NotFound));
        assert!(Instant::now() < end, "what others did since it was heard is not known, and it was not asked");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn at_close(world: &World) -> Arc<Volume> {
    let mut config = world.config("us-east");
    config.durable = Durable::AtClose;
    Volume::connect(config).await.unwrap()
}

const THEN: Timestamp = Timestamp { secs: 1_000_000, nanos: 7 };

fn times() -> SetAttr {
    SetAttr { mtime: Some(TimeChange::At(THEN)), ..SetAttr::default() }
}

fn mode(mode: u16) -> SetAttr {
    SetAttr { mode: Some(mode), ..SetAttr::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attributes_of_a_file_that_is_written_go_with_its_data_where_the_mount_says_so() {
    let world = World::start().await;
    let (one, two) = (at_close(&world).await, world.client("us-east").await);
    let file = create(&one, "a").await;
    one.write(&file, 0, Bytes::from_static(b"data")).await.unwrap();
    let before = batches(&world);
    assert_eq!(one.setattr(file.ino(), times()).await.unwrap().mtime, THEN);
    let attr = one.setattr(file.ino(), mode(0o600)).await.unwrap();
    assert_eq!((attr.mode, attr.mtime, attr.size), (0o600, THEN, 4));
    assert_eq!(one.lookup(Ino::ROOT, b"a").await.unwrap().mode, 0o600, "this client sees what it did");
    assert_eq!(batches(&world), before, "and nothing was sent yet");
    assert_eq!(two.lookup(Ino::ROOT, b"a").await.unwrap().mode, 0o644);
    // The answers are lost on the way: both are sent again, and done once.
    world.cluster.state.faults.drop_after_apply.store(1, Relaxed);
    one.flush(&file).await.unwrap();
    let seen = two.lookup(Ino::ROOT, b"a").await.unwrap();
    assert_eq!((seen.mode, seen.mtime, seen.size), (0o600, THEN, 4), "durable when close returns");
    let sent = batches(&world);
    one.flush(&file).await.unwrap();
    assert_eq!(batches(&world), sent, "nothing is left to send");
    // What says "now", and what cuts the file, does not wait.
    let now = SetAttr { atime: Some(TimeChange::Now), ..mode(0o640) };
    one.setattr(file.ino(), now).await.unwrap();
    assert_eq!(two.lookup(Ino::ROOT, b"a").await.unwrap().mode, 0o640);
    one.release(file).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_and_a_mode_that_a_file_has_go_with_what_comes_next() {
    let world = World::start().await;
    let (one, two) = (world.client("us-east").await, world.client("us-east").await);
    let file = create(&one, "a").await;
    let owner = SetAttr { uid: Some(0), gid: Some(0), ..SetAttr::default() };
    let before = (batches(&world), at_cluster(&world, "a"));
    assert_eq!(one.setattr(file.ino(), owner).await.unwrap().uid, 0);
    one.setattr(file.ino(), mode(0o644)).await.unwrap();
    assert_eq!((batches(&world), at_cluster(&world, "a")), before, "it has both");
    let changed = one.setattr(file.ino(), mode(0o600)).await.unwrap();
    assert_eq!(batches(&world), before.0 + 1, "what changes something does not wait");
    assert_eq!(two.lookup(Ino::ROOT, b"a").await.unwrap(), changed);
    // At the latest at the close.
    one.setattr(file.ino(), mode(0o600)).await.unwrap();
    let theirs = two.setattr(file.ino(), mode(0o640)).await.unwrap();
    let sent = batches(&world);
    one.flush(&file).await.unwrap();
    let closed = at_cluster(&world, "a");
    assert!(closed.ctime > theirs.ctime, "{closed:?}");
    assert_eq!((closed.mode, batches(&world)), (0o640, sent + 1), "what others did meanwhile stays");
    // This client has not heard of it, and asks.
    world.cluster.state.faults.silent_invalidations.store(true, Relaxed);
    two.setattr(file.ino(), mode(0o600)).await.unwrap();
    one.setattr(file.ino(), mode(0o640)).await.unwrap();
    assert_eq!(at_cluster(&world, "a").mode, 0o640);
    // What is written may take these bits off behind it.
    one.setattr(file.ino(), mode(0o4640)).await.unwrap();
    let sent = batches(&world);
    one.setattr(file.ino(), mode(0o4640)).await.unwrap();
    assert_eq!(batches(&world), sent + 1);
    // Of a file that is not open for writing it is a change like any other.
    one.release(file).await.unwrap();
    let sent = batches(&world);
    one.setattr(closed.ino, owner).await.unwrap();
    assert_eq!(batches(&world), sent + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attributes_do_not_wait_for_a_close_that_does_not_come() {
    let world = World::start().await;
    let one = at_close(&world).await;
    let file = create(&one, "a").await;
    one.write(&file, 0, Bytes::from_static(b"data")).await.unwrap();
    one.setattr(file.ino(), times()).await.unwrap();
    until("the attributes and the data before them", || {
        let seen = at_cluster(&world, "a");
        seen.mtime == THEN && seen.size == 4
    })
    .await;
    // A session that ends takes nothing of what is held with it.
    one.setattr(file.ino(), mode(0o600)).await.unwrap();
    one.shutdown().await.unwrap();
    assert_eq!(at_cluster(&world, "a").mode, 0o600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attributes_that_are_refused_are_heard_of_at_the_close() {
    let world = World::start().await;
    let one = at_close(&world).await;
    let file = create(&one, "a").await;
    one.setattr(file.ino(), mode(0o600)).await.unwrap();
    // The test's cluster does not keep what is open: the inode is gone with its name.
    one.unlink(Ino::ROOT, b"a").await.unwrap();
    world.cluster.state.apply(SharedBody::Control(Control::Purge { inos: vec![file.ino()] }));
    let refused = one.flush(&file).await.unwrap_err();
    assert!(matches!(refused.kind, FsErrorKind::Refused(_)), "{refused}");
    assert!(one.flush(&file).await.is_ok(), "heard once");
}
