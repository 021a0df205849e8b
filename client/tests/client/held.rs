//! Files that a client makes in directories that it holds: nobody can tell that the cluster hears of them later, but for a
//! close that says so, and for less to do.

use crate::world::{PATIENCE, READ_WRITE, World, until};
use bytes::Bytes;
use farshore_client::{Durable, FileHandle, OpenFlags, SetAttr, Volume};
use farshore_types::*;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// A world whose volume knows leases.
async fn world() -> World {
    let world = World::start().await;
    world.cluster.state.apply(SharedBody::Control(Control::Version(LEASES_VERSION)));
    world
}

async fn holder(world: &World) -> Arc<Volume> {
    let mut config = world.config("us-east");
    config.durable = Durable::AtClose;
    Volume::connect(config).await.unwrap()
}

async fn directory(volume: &Volume, parent: Ino, name: &str) -> Ino {
    volume.make(parent, name.as_bytes(), NewNode::Directory, 0o755, 0, 0).await.unwrap().ino
}

/// A client that holds a directory.
async fn holding() -> (World, Arc<Volume>, Ino) {
    let world = world().await;
    let one = holder(&world).await;
    let dir = directory(&one, Ino::ROOT, "dir").await;
    (world, one, dir)
}

/// A new file that the cluster does not know of.
async fn held(world: &World, volume: &Volume, dir: Ino, name: &str) -> FileHandle {
    // It was heard just now.
    volume.statfs().await.unwrap();
    let (file, attr) = volume.create(dir, name.as_bytes(), 0o640, (5, 6), READ_WRITE).await.unwrap();
    assert_eq!((attr.ino, attr.mode, attr.uid, attr.gid, attr.size), (file.ino(), 0o640, 5, 6, 0));
    assert_eq!(at_cluster(world, dir, name), None, "{name} is not held");
    file
}

fn at_cluster(world: &World, dir: Ino, name: &str) -> Option<Attr> {
    match world.cluster.state.query(Query::Lookup { parent: dir, name: name.as_bytes().to_vec() }) {
        Ok(QueryReply::Attr(attr)) => Some(attr),
        Err(ErrorKind::NotFound) => None,
        other => panic!("{other:?}"),
    }
}

fn batches(world: &World) -> u64 {
    world.cluster.state.faults.batches.load(Relaxed)
}

async fn read(volume: &Arc<Volume>, ino: Ino) -> Vec<u8> {
    let (file, _) = volume.open(ino, READ_WRITE).await.unwrap();
    let data = volume.read(&file, 0, 100).await.unwrap();
    volume.release(file).await.unwrap();
    data.to_vec()
}

// One thread: what is handed to the session without a wait between goes in one frame.
#[tokio::test]
async fn a_file_in_a_held_directory_is_made_written_and_closed_in_one_step() {
    let world = world().await;
    let (one, two) = (holder(&world).await, world.client("us-east").await);
    let dir = directory(&one, Ino::ROOT, "dir").await;
    let first = held(&world, &one, dir, "first").await;
    one.write(&first, 0, Bytes::from_static(b"data")).await.unwrap();
    one.release(first).await.unwrap();
    let before = batches(&world);
    for name in ["a", "b", "c"] {
        let file = held(&world, &one, dir, name).await;
        one.write(&file, 0, Bytes::from(name.to_owned())).await.unwrap();
        let mtime = Some(TimeChange::At(Timestamp { secs: 77, nanos: 0 }));
        one.setattr(file.ino(), SetAttr { mode: Some(0o604), mtime, ..SetAttr::default() }).await.unwrap();
        one.release(file.clone()).await.unwrap();
        let seen = two.lookup(dir, name.as_bytes()).await.unwrap();
        assert_eq!((seen.ino, seen.mode, seen.uid, seen.gid), (file.ino(), 0o604, 5, 6));
        assert_eq!((seen.size, seen.mtime.secs, seen.nlink), (1, 77, 1));
        assert_eq!(read(&two, seen.ino).await, name.as_bytes());
    }
    assert_eq!(batches(&world), before + 3, "one for each");
    let empty = held(&world, &one, dir, "empty").await;
    one.release(empty).await.unwrap();
    assert_eq!(at_cluster(&world, dir, "empty").map(|attr| attr.size), Some(0));
    assert_eq!(one.getattr(dir).await.unwrap(), two.getattr(dir).await.unwrap());
}

// One worker, as on two processors: the task that is woken last runs first, so that answers of one entry are heard out of order.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_was_committed_with_a_creation_is_not_undone_by_its_answer() {
    let (world, one, dir) = holding().await;
    let one = one.clone();
    let work = async move {
        for n in 0..20 {
            let file = held(&world, &one, dir, &n.to_string()).await;
            one.write(&file, 0, Bytes::from_static(b"data")).await.unwrap();
            one.setattr(file.ino(), SetAttr { mode: Some(0o604), ..SetAttr::default() }).await.unwrap();
            one.fsync(&file).await.unwrap();
            let attr = one.getattr(file.ino()).await.unwrap();
            assert_eq!((attr.size, attr.mode), (4, 0o604));
            assert_eq!(one.read(&file, 0, 100).await.unwrap(), Bytes::from_static(b"data"));
            let append = OpenFlags { append: true, ..READ_WRITE };
            let (again, _) = one.open(file.ino(), append).await.unwrap();
            one.write(&again, 0, Bytes::from_static(b"more")).await.unwrap();
            one.release(again).await.unwrap();
            one.release(file.clone()).await.unwrap();
            assert_eq!(read(&one, file.ino()).await, b"datamore");
            let cut = held(&world, &one, dir, &format!("cut-{n}")).await;
            assert_eq!(one.truncate(cut.ino(), 7).await.unwrap().size, 7);
            one.fsync(&cut).await.unwrap();
            assert_eq!(one.getattr(cut.ino()).await.unwrap().size, 7);
        }
    };
    tokio::spawn(work).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_file_comes_to_the_cluster_by_itself() {
    let (world, one, dir) = holding().await;
    let files = [held(&world, &one, dir, "a").await, held(&world, &one, dir, "b").await];
    until("both files", || at_cluster(&world, dir, "a").is_some() && at_cluster(&world, dir, "b").is_some()).await;
    for file in files {
        one.write(&file, 0, Bytes::from_static(b"late")).await.unwrap();
        one.fsync(&file).await.unwrap();
        assert_eq!(read(&one, file.ino()).await, b"late");
        one.release(file).await.unwrap();
    }
    // A directory's fsync waits for what was made in it, and for nothing else.
    let other = directory(&one, Ino::ROOT, "other").await;
    held(&world, &one, other, "elsewhere").await;
    let here = held(&world, &one, dir, "here").await;
    one.fsync_names(dir).await.unwrap();
    assert!(at_cluster(&world, dir, "here").is_some());
    one.release(here).await.unwrap();
    // A client that ends leaves nothing behind.
    let file = held(&world, &one, dir, "last").await;
    one.write(&file, 0, Bytes::from_static(b"end")).await.unwrap();
    let empty = held(&world, &one, dir, "empty").await;
    one.shutdown().await.unwrap();
    assert_eq!(at_cluster(&world, dir, "last").map(|attr| attr.size), Some(3));
    assert!(at_cluster(&world, dir, "empty").is_some());
    drop((file, empty));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_client_sees_a_held_file_as_any_other() {
    let (world, one, dir) = holding().await;
    let ino = held(&world, &one, dir, "a").await.ino();
    assert_eq!(one.lookup(dir, b"a").await.unwrap().ino, ino);
    held(&world, &one, dir, "b").await;
    let (entries, more) = one.readdir(dir, None, 10).await.unwrap();
    assert_eq!((entries.iter().map(|entry| entry.name.as_slice()).collect::<Vec<_>>(), more), (vec![&b"a"[..], b"b"], false));
    let file = held(&world, &one, dir, "c").await;
    let attr = one.getattr(file.ino()).await.unwrap();
    assert_eq!((attr.ino, attr.mode, attr.size), (file.ino(), 0o640, 0));
    one.write(&file, 0, Bytes::from_static(b"abc")).await.unwrap();
    assert_eq!(one.getattr(file.ino()).await.unwrap().size, 3);
    assert_eq!(one.read(&file, 1, 10).await.unwrap(), Bytes::from_static(b"bc"));
    assert_eq!(at_cluster(&world, dir, "c"), None, "known here");
    // Another handle of it, a shorter one, another name, another place, none at all.
    let (again, _) = one.open(file.ino(), READ_WRITE).await.unwrap();
    one.release(again).await.unwrap();
    let file = held(&world, &one, dir, "d").await;
    one.write(&file, 0, Bytes::from_static(b"abc")).await.unwrap();
    assert_eq!(one.truncate(file.ino(), 2).await.unwrap().size, 2);
    let file = held(&world, &one, dir, "e").await;
    assert_eq!(one.link(file.ino(), Ino::ROOT, b"second").await.unwrap().nlink, 2);
    let file = held(&world, &one, dir, "f").await;
    one.rename(dir, b"f", Ino::ROOT, b"moved", RenameMode::Replace).await.unwrap();
    assert_eq!(one.lookup(Ino::ROOT, b"moved").await.unwrap().ino, file.ino());
    let file = held(&world, &one, dir, "g").await;
    one.unlink(dir, b"g").await.unwrap();
    one.write(&file, 0, Bytes::from_static(b"unlinked")).await.unwrap();
    one.fsync(&file).await.unwrap();
    assert_eq!(one.read(&file, 0, 100).await.unwrap(), Bytes::from_static(b"unlinked"));
    let replaced = held(&world, &one, dir, "replaced").await;
    one.rename(Ino::ROOT, b"moved", dir, b"replaced", RenameMode::Replace).await.unwrap();
    one.write(&replaced, 0, Bytes::from_static(b"kept")).await.unwrap();
    one.fsync(&replaced).await.unwrap();
    // A node lets nobody open what has no name: whoever has it open is known to it since before.
    let asked = world.cluster.state.asked.lock().unwrap().clone();
    for ino in [file.ino(), replaced.ino()] {
        assert!(!asked.contains(&Query::Open { ino }), "{ino} was opened too late");
    }
    held(&world, &one, dir, "h").await;
    assert!(one.rmdir(Ino::ROOT, b"dir").await.unwrap_err().is(ErrorKind::NotEmpty));
    let taken = one.create(dir, b"h", 0o600, (0, 0), READ_WRITE).await;
    assert!(taken.unwrap_err().is(ErrorKind::Exists));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_want_in_a_held_directory_comes_after_what_was_made_there() {
    let world = world().await;
    let (one, two) = (holder(&world).await, world.client("us-east").await);
    two.make(Ino::ROOT, b"file", NewNode::File, 0o600, 0, 0).await.unwrap();
    for (n, verb) in ["make", "create", "unlink", "rmdir", "rename", "link", "replace"].into_iter().enumerate() {
        let name = format!("dir-{n}");
        let dir = directory(&one, Ino::ROOT, &name).await;
        let file = held(&world, &one, dir, "taken").await;
        let refused = match verb {
            "make" => two.make(dir, b"taken", NewNode::Directory, 0o755, 0, 0).await.map(drop),
            "create" => two.create(dir, b"taken", 0o600, (0, 0), READ_WRITE).await.map(drop),
            "unlink" => two.unlink(dir, b"taken").await.and(two.unlink(dir, b"taken").await),
            "rmdir" => two.rmdir(Ino::ROOT, name.as_bytes()).await,
            "rename" => two.rename(dir, b"none", dir, b"taken", RenameMode::Replace).await,
            "link" => two.link(at_cluster(&world, Ino::ROOT, "file").unwrap().ino, dir, b"taken").await.map(drop),
            _ => {
                directory(&two, Ino::ROOT, "empty").await;
                two.rename(Ino::ROOT, b"empty", Ino::ROOT, name.as_bytes(), RenameMode::Replace).await
            }
        };
        let expected = match verb {
            "make" | "create" | "link" => ErrorKind::Exists,
            "unlink" | "rename" => ErrorKind::NotFound,
            _ => ErrorKind::NotEmpty,
        };
        assert!(refused.as_ref().is_err_and(|error| error.is(expected)), "{verb}: {refused:?}");
        assert_eq!(at_cluster(&world, dir, "taken").is_some(), verb != "unlink", "{verb}");
        one.write(&file, 0, Bytes::from_static(b"x")).await.unwrap();
        one.release(file).await.unwrap();
        // Nobody holds it any more.
        let before = batches(&world);
        let theirs = two.create(dir, b"theirs", 0o600, (0, 0), READ_WRITE).await.unwrap().1;
        assert_eq!(batches(&world), before + 1, "{verb}");
        assert_eq!(one.lookup(dir, b"theirs").await.unwrap().ino, theirs.ino);
        let (mine, _) = one.create(dir, b"mine", 0o600, (0, 0), READ_WRITE).await.unwrap();
        assert!(at_cluster(&world, dir, "mine").is_some(), "it is not held any more");
        one.release(mine).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_is_cut_off_loses_the_directory_after_a_second_and_says_so_at_the_close() {
    let (world, one, dir) = holding().await;
    let (first, other) = (held(&world, &one, dir, "first").await, held(&world, &one, dir, "other").await);
    let session = world.cluster.state.only_session();
    *world.cluster.state.faults.deaf_to.lock().unwrap() = Some(session);
    one.write(&first, 0, Bytes::from_static(b"lost")).await.unwrap();
    one.write(&other, 0, Bytes::from_static(b"kept")).await.unwrap();
    let two = world.client("us-east").await;
    // An entry takes a millisecond of its time; a second passes as fast as here.
    let state = world.cluster.state.clone();
    let passes = tokio::spawn(async move {
        loop {
            state.faults.later_us.fetch_add(10_000, Relaxed);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let (began, theirs) = (Instant::now(), two.create(dir, b"first", 0o600, (0, 0), READ_WRITE).await);
    passes.abort();
    assert!(began.elapsed() >= Duration::from_secs(1), "the holder has a second");
    *world.cluster.state.faults.deaf_to.lock().unwrap() = None;
    let theirs = theirs.unwrap().1.ino;
    // It is theirs, also where this client goes on as if it were not.
    assert!(one.unlink(dir, b"first").await.unwrap_err().is(ErrorKind::Exists));
    let told = one.release(first).await.unwrap_err();
    assert!(told.is(ErrorKind::Exists), "{told}");
    assert!(told.to_string().contains("make `first` in"), "{told}");
    one.release(other).await.unwrap();
    assert_eq!(read(&two, theirs).await, b"");
    let kept = two.lookup(dir, b"other").await.unwrap();
    assert_eq!(read(&two, kept.ino).await, b"kept");
    assert_eq!(one.lookup(dir, b"first").await.unwrap().ino, theirs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_10_a_held_file_is_made_once_whatever_becomes_of_the_connection() {
    let (world, one, dir) = holding().await;
    let file = held(&world, &one, dir, "a").await;
    one.write(&file, 0, Bytes::from_static(b"data")).await.unwrap();
    world.cluster.state.faults.drop_after_apply.store(2, Relaxed);
    one.release(file.clone()).await.unwrap();
    assert_eq!(at_cluster(&world, dir, "a").map(|attr| (attr.ino, attr.size)), Some((file.ino(), 4)));
    // The connection is another one: what was recalled before it may not have been heard.
    one.statfs().await.unwrap();
    let (file, _) = one.create(dir, b"b", 0o600, (0, 0), READ_WRITE).await.unwrap();
    assert!(at_cluster(&world, dir, "b").is_some(), "no lease of an earlier connection is relied on");
    one.release(file).await.unwrap();
    // One that is held while the connection is lost, and numbers of before.
    let dir = directory(&one, Ino::ROOT, "other").await;
    let file = held(&world, &one, dir, "c").await;
    world.cluster.state.cut_all();
    one.write(&file, 0, Bytes::from_static(b"data")).await.unwrap();
    one.release(file).await.unwrap();
    assert_eq!(at_cluster(&world, dir, "c").map(|attr| attr.size), Some(4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_9_a_held_file_ends_with_its_session() {
    let (world, one, dir) = holding().await;
    let file = held(&world, &one, dir, "a").await;
    one.write(&file, 0, Bytes::from_static(b"data")).await.unwrap();
    world.cluster.state.expire_all();
    let told = one.release(file).await.unwrap_err();
    assert!(told.to_string().contains("make `a` in"), "{told}");
    assert_eq!(at_cluster(&world, dir, "a"), None);
    // In the next session all goes on.
    let (file, _) = one.create(dir, b"a", 0o600, (0, 0), READ_WRITE).await.unwrap();
    one.release(file).await.unwrap();
    let dir = directory(&one, Ino::ROOT, "next").await;
    let file = held(&world, &one, dir, "b").await;
    one.release(file).await.unwrap();
    assert!(at_cluster(&world, dir, "b").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_of_an_older_epoch_are_refused_at_the_close() {
    let (world, one, dir) = holding().await;
    let file = held(&world, &one, dir, "a").await;
    crate::server::start_epoch(&world.cluster.state, 1);
    assert!(one.release(file).await.unwrap_err().is(ErrorKind::Stale));
    assert_eq!(at_cluster(&world, dir, "a"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_file_has_the_group_that_the_cluster_gives_it() {
    let (world, one, dir) = holding().await;
    one.setattr(dir, SetAttr { mode: Some(0o2775), gid: Some(42), ..SetAttr::default() }).await.unwrap();
    one.statfs().await.unwrap();
    let (file, attr) = one.create(dir, b"a", 0o640, (5, 6), READ_WRITE).await.unwrap();
    assert_eq!(at_cluster(&world, dir, "a"), None);
    one.release(file).await.unwrap();
    assert_eq!((attr.gid, at_cluster(&world, dir, "a").map(|attr| attr.gid)), (42, Some(42)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_holds_nothing_open_is_asked_to() {
    let world = world().await;
    world.cluster.state.faults.opens_nothing.store(true, Relaxed);
    let one = holder(&world).await;
    let dir = directory(&one, Ino::ROOT, "dir").await;
    let file = held(&world, &one, dir, "a").await;
    one.fsync(&file).await.unwrap();
    let asked = world.cluster.state.faults.queries.load(Relaxed);
    one.release(file).await.unwrap();
    until("the close to be told", || world.cluster.state.faults.queries.load(Relaxed) > asked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_held_where_the_mount_does_not_say_so_or_the_cluster_does_not_know_how() {
    let world = World::start().await;
    let early = holder(&world).await;
    let dir = directory(&early, Ino::ROOT, "early").await;
    early.statfs().await.unwrap();
    early.create(dir, b"a", 0o600, (0, 0), READ_WRITE).await.unwrap();
    assert!(at_cluster(&world, dir, "a").is_some());
    // A history that knows leases no more, after a rewind: the cluster refuses what it knew before.
    world.cluster.state.faults.machine_said.store(LEASES_VERSION, Relaxed);
    let late = holder(&world).await;
    let dir = directory(&late, Ino::ROOT, "late").await;
    late.statfs().await.unwrap();
    late.create(dir, b"a", 0o600, (0, 0), READ_WRITE).await.unwrap();
    assert!(at_cluster(&world, dir, "a").is_some());
    world.cluster.state.apply(SharedBody::Control(Control::Version(LEASES_VERSION)));
    let (one, two) = (world.client("us-east").await, world.client("us-east").await);
    let dir = directory(&one, Ino::ROOT, "dir").await;
    one.statfs().await.unwrap();
    one.create(dir, b"a", 0o600, (0, 0), READ_WRITE).await.unwrap();
    assert!(at_cluster(&world, dir, "a").is_some());
    let before = batches(&world);
    two.create(dir, b"b", 0o600, (0, 0), READ_WRITE).await.unwrap();
    assert_eq!(batches(&world), before + 1, "no lease stands in the way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_in_one_held_directory_use_up_several_ranges_of_numbers() {
    const WRITERS: usize = 8;
    const FILES: usize = 80;
    let (_world, one, dir) = holding().await;
    let writer = |n: usize| {
        let one = one.clone();
        async move {
            for file in 0..FILES {
                let name = format!("{n}-{file}");
                let (file, _) = one.create(dir, name.as_bytes(), 0o600, (0, 0), READ_WRITE).await.unwrap();
                one.write(&file, 0, Bytes::from(name.clone())).await.unwrap();
                one.release(file).await.unwrap();
            }
        }
    };
    let all = futures::future::join_all((0..WRITERS).map(|n| tokio::spawn(writer(n))));
    for done in tokio::time::timeout(PATIENCE, all).await.unwrap() {
        done.unwrap();
    }
    let (entries, _) = one.readdir(dir, None, 10_000).await.unwrap();
    assert_eq!(entries.len(), WRITERS * FILES);
    for entry in entries {
        assert_eq!(read(&one, entry.attr.ino).await, entry.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_wants_one_directory_gets_all_that_their_holder_does_not_use() {
    let world = world().await;
    let (one, two) = (holder(&world).await, world.client("us-east").await);
    let mut dirs = vec![];
    for n in 0..5 {
        dirs.push(directory(&one, Ino::ROOT, &n.to_string()).await);
    }
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let used = dirs.pop().unwrap();
    let file = held(&world, &one, used, "a").await;
    let mut asked = vec![];
    for dir in dirs {
        let before = batches(&world);
        two.create(dir, b"theirs", 0o600, (0, 0), READ_WRITE).await.unwrap();
        asked.push(batches(&world) - before);
    }
    assert!(asked[0] > 1 && asked[1..] == [1, 1, 1], "{asked:?}");
    let other = held(&world, &one, used, "b").await;
    one.release(file).await.unwrap();
    one.release(other).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_leases_that_are_recalled_at_once_hold_nobody_up() {
    const DIRS: usize = 300;
    let world = world().await;
    let (one, two) = (holder(&world).await, world.client("us-east").await);
    let mut dirs = vec![];
    for n in 0..DIRS {
        dirs.push(directory(&one, Ino::ROOT, &n.to_string()).await);
    }
    let last = *dirs.last().unwrap();
    let file = held(&world, &one, last, "mine").await;
    let touch = |dir: Ino| {
        let two = two.clone();
        async move { two.setattr(dir, SetAttr { mode: Some(0o700), ..SetAttr::default() }).await.map(drop) }
    };
    let touched = tokio::spawn(futures::future::join_all(dirs.iter().map(|dir| touch(*dir)).collect::<Vec<_>>()));
    let refused = two.create(last, b"mine", 0o600, (0, 0), READ_WRITE).await;
    assert!(refused.unwrap_err().is(ErrorKind::Exists), "the holder was heard in time");
    assert!(touched.await.unwrap().into_iter().all(|done| done.is_ok()));
    one.release(file).await.unwrap();
}
