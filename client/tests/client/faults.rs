//! What goes wrong around a client: lost answers, ended sessions, lost and damaged blocks.

use crate::server::{BLOCK, Cluster};
use crate::world::*;
use bytes::Bytes;
use farshore_client::{ConnectError, Invalidation, MetadataChoice, OpenFlags, Volume};
use farshore_types::{ErrorKind, Ino, NewNode, Query, QueryReply, RenameMode};
use std::sync::atomic::Ordering;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_10_a_lost_answer_is_asked_for_again_and_nothing_is_done_twice() {
    let world = World::start().await;
    let volume = world.client("us-east").await;
    let faults = &world.cluster.state.faults;
    for round in 0..5 {
        let (from, to) = (format!("a{round}"), format!("b{round}"));
        faults.drop_after_apply.store(1, Ordering::Relaxed);
        // Done twice, each of these would answer `Exists` or `NotFound`.
        volume.make(Ino::ROOT, from.as_bytes(), NewNode::File, 0o644, 0, 0).await.unwrap();
        faults.drop_after_apply.store(2, Ordering::Relaxed);
        volume.rename(Ino::ROOT, from.as_bytes(), Ino::ROOT, to.as_bytes(), RenameMode::Replace).await.unwrap();
        faults.busy.store(2, Ordering::Relaxed);
        volume.unlink(Ino::ROOT, to.as_bytes()).await.unwrap();
    }
    assert_eq!(volume.session().generation(), 1, "the session lived through it");
    assert!(volume.session().connections() >= 16);
    // Many at once, with streams cut in between.
    faults.drop_after_apply.store(3, Ordering::Relaxed);
    let make = |n: u32| {
        let volume = volume.clone();
        async move { volume.make(Ino::ROOT, format!("m{n}").as_bytes(), NewNode::File, 0o644, 0, 0).await.unwrap() }
    };
    futures::future::join_all((0..500).map(make)).await;
    let (entries, _) = volume.readdir(Ino::ROOT, None, 1000).await.unwrap();
    assert_eq!(entries.len(), 500);
    // What lies on the wire while the stream is cut, commits of slices too.
    faults.drop_after_apply.store(2, Ordering::Relaxed);
    write_all(&volume, "w", b"once").await;
    let ino = volume.lookup(Ino::ROOT, b"w").await.unwrap().ino;
    match world.cluster.state.query(Query::Slices { ino, chunk: 0 }) {
        Ok(QueryReply::Slices(slices)) => assert_eq!(slices.len(), 1),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn laws_9_and_10_an_ended_session_makes_handles_stale_and_keeps_written_data() {
    let world = World::start().await;
    let volume = world.client("us-east").await;
    let handle = create(&volume, "a").await;
    let events = volume.subscribe();
    let data = pattern(3, BLOCK as usize * 2 + 100);
    volume.write(&handle, 0, Bytes::from(data.clone())).await.unwrap();
    world.cluster.state.expire_all();
    until("a new session", || volume.session().generation() == 2).await;
    assert_eq!(tokio::time::timeout(PATIENCE, events.next()).await.unwrap(), Invalidation::Reset);
    assert!(volume.read(&handle, 0, 10).await.unwrap_err().is(ErrorKind::Stale));
    assert!(volume.write(&handle, 0, Bytes::from_static(b"x")).await.unwrap_err().is(ErrorKind::Stale));
    // Uploaded again, under ids of the new session: the old ones may not be named any more.
    volume.release(handle).await.unwrap();
    assert!(read_all(&volume, "a").await == data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_8_1_ids_of_an_older_epoch_are_replaced_and_the_bytes_sent_again() {
    let world = World::start().await;
    let volume = world.client("us-east").await;
    world.cluster.state.faults.older_epoch.store(1, Ordering::Relaxed);
    let data = pattern(4, BLOCK as usize + 1);
    write_all(&volume, "a", &data).await;
    assert!(read_all(&volume, "a").await == data);
    assert_eq!(world.blocks("us-east").await.len(), 4, "two blocks, each under two ids");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_follows_the_hint_to_the_leader() {
    let mut world = World::start().await;
    let leader = world.cluster.clone();
    // A second node over the same state cannot be: its faults are shared. A cluster of its own refers to the first.
    let follower = Cluster::start().await;
    *follower.state.faults.refer_to.lock().unwrap() = Some(leader.address.to_string());
    world.cluster = follower;
    let volume = world.client("us-east").await;
    volume.make(Ino::ROOT, b"a", NewNode::File, 0o644, 0, 0).await.unwrap();
    assert!(matches!(leader.state.query(Query::Lookup { parent: Ino::ROOT, name: b"a".to_vec() }), Ok(QueryReply::Attr(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_readers_of_a_block_that_is_elsewhere_cost_one_request_and_one_report() {
    let world = World::start().await;
    let data = pattern(6, 1000);
    write_all(&world.client("us-east").await, "a", &data).await;
    world.move_blocks("us-east", "eu-west").await;
    let reader = world.client("us-east").await;
    let handle = open(&reader, "a").await;
    let reads = (0..16).map(|_| {
        let (reader, handle) = (reader.clone(), handle.clone());
        tokio::spawn(async move { reader.read(&handle, 0, 1000).await.unwrap() })
    });
    for read in futures::future::join_all(reads).await {
        assert!(read.unwrap() == data);
    }
    assert_eq!(reader.counters().fallback_blocks(), 1);
    assert_eq!(reader.counters().bucket_gets(), 2, "one at each bucket");
    let state = &world.cluster.state;
    until("the report", || !state.fronts.lock().unwrap().is_empty()).await;
    assert_eq!(state.fronts.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hazard_2_4_a_block_that_is_nowhere_is_an_error_after_the_leader_was_asked_again() {
    let world = World::start().await;
    let volume = world.client("us-east").await;
    write_all(&volume, "a", b"first").await;
    let reader = world.client("us-east").await;
    let handle = open(&reader, "a").await;
    assert_eq!(&reader.read(&handle, 0, 10).await.unwrap()[..], b"first");
    // The reader hears nothing of a new content, whose old blocks are deleted.
    world.cluster.state.faults.silent_invalidations.store(true, Ordering::Relaxed);
    let old = world.blocks("us-east").await;
    let writer = open(&volume, "a").await;
    volume.truncate(writer.ino(), 0).await.unwrap();
    volume.write(&writer, 0, Bytes::from_static(b"again")).await.unwrap();
    volume.release(writer).await.unwrap();
    let bucket = world.bucket("us-east").await;
    for name in old {
        bucket.delete(&name).await.unwrap();
    }
    let fresh = world.client("us-east").await;
    let stale = open(&fresh, "a").await;
    assert_eq!(&fresh.read(&stale, 0, 10).await.unwrap()[..], b"again");
    for name in world.blocks("us-east").await {
        bucket.delete(&name).await.unwrap();
    }
    let another = world.client("us-east").await;
    let handle = open(&another, "a").await;
    let error = another.read(&handle, 0, 10).await.unwrap_err();
    assert_eq!(error.errno(), 5, "EIO: {error}");
    assert!(error.to_string().contains("/a") && error.to_string().contains("chunks/"), "{error}");
    assert_eq!(another.counters().absent_blocks(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_16_damage_in_the_disk_cache_is_dropped_and_fetched_again() {
    let world = World::start().await;
    let data = pattern(8, BLOCK as usize);
    write_all(&world.client("us-east").await, "a", &data).await;
    let cached = || async {
        let mut config = world.config("us-east");
        config.cache_dir = Some(world.cache_dir());
        Volume::connect(config).await.unwrap()
    };
    let first = cached().await;
    assert!(read_all(&first, "a").await == data);
    let files = || walk(&world.cache_dir());
    until("the block in the cache", || files().iter().any(|path| !path.to_string_lossy().contains(".new-"))).await;
    assert_eq!(first.counters().bucket_gets(), 1);
    let second = cached().await;
    assert!(read_all(&second, "a").await == data);
    assert_eq!((second.counters().bucket_gets(), second.counters().disk_cache_hits()), (0, 1));
    let path = files().remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 0x40;
    std::fs::write(&path, bytes).unwrap();
    let third = cached().await;
    assert!(read_all(&third, "a").await == data);
    assert_eq!((third.counters().bucket_gets(), third.counters().damaged_cache_blocks()), (1, 1));
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_volume_refuses_changes_at_once_without_asking_anyone() {
    let world = World::start().await;
    write_all(&world.client("us-east").await, "a", b"abc").await;
    let mut config = world.config("us-east");
    config.metadata = MetadataChoice::Mirror { region: "us-east".to_owned() };
    let mirror = Volume::connect(config).await.unwrap();
    assert_eq!(read_all(&mirror, "a").await, b"abc");
    let state = &world.cluster.state;
    let before = (state.index(), state.faults.queries.load(Ordering::Relaxed));
    let ino = Ino::ROOT;
    assert_eq!(mirror.make(ino, b"b", NewNode::File, 0o644, 0, 0).await.unwrap_err().errno(), 30, "EROFS");
    assert!(mirror.unlink(ino, b"a").await.unwrap_err().is(ErrorKind::ReadOnly));
    assert!(mirror.truncate(ino, 0).await.unwrap_err().is(ErrorKind::ReadOnly));
    assert!(mirror.open(ino, READ_WRITE).await.unwrap_err().is(ErrorKind::ReadOnly));
    assert_eq!((state.index(), state.faults.queries.load(Ordering::Relaxed)), before);
    assert_eq!(mirror.counters().readonly_rejections(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_12_a_bucket_without_the_volumes_identity_is_refused_with_a_sentence() {
    let world = World::start().await;
    let bucket = world.bucket("us-east").await;
    bucket.delete("demo/farshore_identity").await.unwrap();
    let error = Volume::connect(world.config("us-east")).await.err().unwrap();
    assert!(matches!(error, ConnectError::NoIdentity { .. }), "{error}");
    let strange = r#"{"volume":"01010101010101010101010101010101","region":"us-east","incarnation":0,"bucket":"x"}"#;
    bucket.put_replace("demo/farshore_identity", strange.into()).await.unwrap();
    assert!(Volume::connect(world.config("us-east")).await.is_err());
    // The other region's bucket is no matter to this client's start.
    assert!(Volume::connect(world.config("eu-west")).await.is_ok());
}

/// A bucket whose service is gone: a file where its directory was.
fn break_bucket(world: &World, region: &str) {
    let directory = world.path(region);
    std::fs::rename(&directory, directory.with_extension("away")).unwrap();
    std::fs::write(&directory, b"").unwrap();
}

fn mend_bucket(world: &World, region: &str) {
    let directory = world.path(region);
    std::fs::remove_file(&directory).unwrap();
    std::fs::rename(directory.with_extension("away"), &directory).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_fails_is_reported_and_its_data_kept_until_the_file_is_closed() {
    let world = World::start().await;
    let volume = world.client("us-east").await;
    let handle = create(&volume, "a").await;
    let data = pattern(1, BLOCK as usize + 5);
    break_bucket(&world, "us-east");
    volume.write(&handle, 0, Bytes::from(data.clone())).await.unwrap();
    assert_eq!(volume.fsync(&handle).await.unwrap_err().errno(), 5, "EIO");
    assert_eq!(volume.fsync(&handle).await.unwrap_err().errno(), 5, "and again, as long as it is so");
    assert!(volume.read(&handle, 0, BLOCK * 2).await.unwrap() == data, "what was written is still here");
    mend_bucket(&world, "us-east");
    volume.fsync(&handle).await.unwrap();
    volume.write(&handle, 0, Bytes::from_static(b"lost")).await.unwrap();
    break_bucket(&world, "us-east");
    assert_eq!(volume.release(handle).await.unwrap_err().errno(), 5, "never silently");
    assert_eq!(volume.buffered_bytes(), 0, "given up at the last close");
    mend_bucket(&world, "us-east");
    assert!(read_all(&world.client("us-east").await, "a").await == data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_first_bucket_gone_reads_go_to_the_other() {
    let world = World::start().await;
    let data = pattern(2, BLOCK as usize * 2);
    write_all(&world.client("us-east").await, "a", &data).await;
    let reader = world.client("us-east").await;
    let handle = open(&reader, "a").await;
    world.move_blocks("us-east", "eu-west").await;
    break_bucket(&world, "us-east");
    assert!(reader.read(&handle, 0, BLOCK * 2).await.unwrap() == data);
    assert_eq!(reader.counters().fallback_blocks(), 2);
    // Writing goes on with the other bucket put first.
    let mut config = world.config("eu-west");
    config.buckets.retain(|bucket| bucket.region == "eu-west");
    let writer = Volume::connect(config).await.unwrap();
    write_all(&writer, "b", b"service restored").await;
    assert_eq!(read_all(&writer, "b").await, b"service restored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_wants_the_primary_takes_no_mirror_for_it() {
    let world = World::start().await;
    write_all(&world.client("us-east").await, "a", b"primary").await;
    let mirror = Cluster::start().await;
    mirror.state.faults.mirror.store(true, Ordering::Relaxed);
    let mut config = world.config("us-east");
    config.read_only = true;
    config.clusters[0].nodes.insert(0, mirror.address.to_string());
    let reader = Volume::connect(config.clone()).await.unwrap();
    assert_eq!(read_all(&reader, "a").await, b"primary");
    config.clusters[0].nodes.truncate(1);
    config.metadata = MetadataChoice::Mirror { region: "us-east".to_owned() };
    let of_mirror = Volume::connect(config).await.unwrap();
    assert!(of_mirror.lookup(Ino::ROOT, b"a").await.unwrap_err().is(ErrorKind::NotFound), "a mirror is what was asked for");
}

/// The answer to a commit is older than a change of which this client has heard meanwhile: it says nothing of that one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_behind_a_late_answer_goes_to_the_end_that_the_file_has_now() {
    let world = World::start().await;
    let one = world.client("us-east").await;
    write_all(&one, "a", b"").await;
    let of_it = world.cluster.state.only_session();
    let two = world.client("us-east").await;
    let append = OpenFlags { read: true, write: true, append: true, ..OpenFlags::default() };
    let ino = one.lookup(Ino::ROOT, b"a").await.unwrap().ino;
    let ((of_one, _), (of_two, _)) = (one.open(ino, append).await.unwrap(), two.open(ino, append).await.unwrap());
    let (one_hears, two_hears) = (one.subscribe(), two.subscribe());
    one.write(&of_one, 0, Bytes::from_static(b"1")).await.unwrap();
    let state = &world.cluster.state;
    *state.faults.late_to.lock().unwrap() = Some(of_it);
    let flush = async {
        one.flush(&of_one).await.unwrap();
    };
    let meanwhile = async {
        let told = tokio::time::timeout(PATIENCE, two_hears.next()).await.unwrap();
        assert_eq!(told, Invalidation::Inode(ino), "the commit is done");
        two.write(&of_two, 0, Bytes::from_static(b"22")).await.unwrap();
        two.flush(&of_two).await.unwrap();
        assert_eq!(tokio::time::timeout(PATIENCE, one_hears.next()).await.unwrap(), Invalidation::Inode(ino));
        *state.faults.late_to.lock().unwrap() = None;
    };
    tokio::join!(flush, meanwhile);
    assert_eq!(one.getattr(ino).await.unwrap().size, 3);
    one.write(&of_one, 0, Bytes::from_static(b"3")).await.unwrap();
    one.release(of_one).await.unwrap();
    two.release(of_two).await.unwrap();
    assert_eq!(read_all(&two, "a").await, b"1223");
}
