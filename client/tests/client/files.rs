//! Content: what is written is read, by this client and by others.

use crate::server::BLOCK;
use crate::world::*;
use bytes::Bytes;
use farshore_client::{Invalidation, OpenFlags, SetAttr, paths};
use farshore_types::{ErrorKind, Ino, NewNode, RenameMode, TimeChange, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_content_are_what_other_clients_see() {
    let world = World::start().await;
    let (one, two) = (world.client("us-east").await, world.client("us-east").await);
    let data = pattern(1, BLOCK as usize * 3 + 17);
    write_all(&one, "a", &data).await;
    assert_eq!(read_all(&two, "a").await, data);
    assert_eq!(world.blocks("us-east").await.len(), 4);
    let dir = one.make(Ino::ROOT, b"d", NewNode::Directory, 0o755, 1, 2).await.unwrap();
    one.rename(Ino::ROOT, b"a", dir.ino, b"b", RenameMode::Replace).await.unwrap();
    assert!(two.lookup(Ino::ROOT, b"a").await.unwrap_err().is(ErrorKind::NotFound));
    let found = two.lookup(dir.ino, b"b").await.unwrap();
    assert_eq!((found.size, two.parent(dir.ino).await.unwrap()), (data.len() as u64, Ino::ROOT));
    assert_eq!(two.link(found.ino, Ino::ROOT, b"c").await.unwrap().nlink, 2);
    one.make(Ino::ROOT, b"s", NewNode::Symlink(b"d/b".to_vec()), 0o777, 0, 0).await.unwrap();
    let (entries, more) = one.readdir(Ino::ROOT, None, 10).await.unwrap();
    let names: Vec<_> = entries.iter().map(|entry| String::from_utf8_lossy(&entry.name).into_owned()).collect();
    assert_eq!((names, more), (vec!["c".to_owned(), "d".to_owned(), "s".to_owned()], false));
    assert_eq!(paths::resolve(&two, "/s", true).await.unwrap().ino, found.ino);
    assert!(two.rmdir(Ino::ROOT, b"d").await.unwrap_err().is(ErrorKind::NotEmpty));
    assert_eq!(paths::remove(&two, "/d", true).await.unwrap(), 2);
    one.shutdown().await.unwrap();
    two.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_read_back_before_it_is_committed_and_times_set_later_stay() {
    let world = World::start().await;
    let volume = world.client("us-east").await;
    let handle = create(&volume, "a").await;
    volume.write(&handle, 10, Bytes::from_static(b"hello")).await.unwrap();
    assert_eq!(volume.getattr(handle.ino()).await.unwrap().size, 15);
    assert_eq!(&volume.read(&handle, 8, 100).await.unwrap()[..], b"\0\0hello");
    assert!(world.blocks("us-east").await.is_empty(), "nothing was sent yet");
    let then = Timestamp { secs: 1_000_000, nanos: 5 };
    let change = SetAttr { mtime: Some(TimeChange::At(then)), ..SetAttr::default() };
    assert_eq!(volume.setattr(handle.ino(), change).await.unwrap().mtime, then);
    volume.flush(&handle).await.unwrap();
    assert_eq!(volume.getattr(handle.ino()).await.unwrap().mtime, then, "the commit came before");
    let append = OpenFlags { write: true, append: true, ..OpenFlags::default() };
    let (appender, _) = volume.open(handle.ino(), append).await.unwrap();
    volume.write(&appender, 0, Bytes::from_static(b" world")).await.unwrap();
    volume.write(&appender, 0, Bytes::from_static(b"!")).await.unwrap();
    assert!(volume.read(&appender, 0, 1).await.is_err(), "not opened for reading");
    assert_eq!(&volume.read(&handle, 10, 100).await.unwrap()[..], b"hello world!");
    volume.release(appender).await.unwrap();
    let truncate = OpenFlags { write: true, truncate: true, ..OpenFlags::default() };
    let (emptied, attr) = volume.open(handle.ino(), truncate).await.unwrap();
    assert_eq!(attr.size, 0);
    volume.release(emptied).await.unwrap();
    volume.release(handle).await.unwrap();
    assert!(read_all(&volume, "a").await.is_empty());
}

/// Random writes, truncations, flushes and reads are those of one array of bytes, also for a client that comes later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_an_array_of_bytes() {
    for seed in 0..4 {
        let world = World::start().await;
        let mut config = world.config("us-east");
        config.cache_dir = (seed % 2 == 0).then(|| world.cache_dir());
        let volume = farshore_client::Volume::connect(config).await.unwrap();
        let mut random = StdRng::seed_from_u64(seed);
        let mut model: Vec<u8> = Vec::new();
        let limit = BLOCK as usize * 5;
        let handles = [create(&volume, "f").await, open(&volume, "f").await];
        for step in 0..150u64 {
            let handle = &handles[random.random_range(0..2)];
            let at = random.random_range(0..limit);
            let len = random.random_range(1..BLOCK as usize * 2);
            match random.random_range(0..10) {
                0..5 => {
                    let data = pattern(seed * 1000 + step, len);
                    model.resize(model.len().max(at + len), 0);
                    model[at..at + len].copy_from_slice(&data);
                    assert_eq!(volume.write(handle, at as u64, data.into()).await.unwrap(), len);
                }
                5 => {
                    model.resize(at, 0);
                    volume.truncate(handle.ino(), at as u64).await.unwrap();
                }
                6 => volume.flush(handle).await.unwrap(),
                _ => {
                    let got = volume.read(handle, at as u64, len as u32).await.unwrap();
                    let end = model.len().min(at + len);
                    assert!(got == model[at.min(end)..end], "seed {seed}, step {step}: {at}+{len}");
                }
            }
            assert_eq!(volume.getattr(handle.ino()).await.unwrap().size, model.len() as u64, "seed {seed}, step {step}");
        }
        for handle in handles {
            volume.release(handle).await.unwrap();
        }
        assert!(read_all(&world.client("eu-west").await, "f").await == model, "seed {seed}: another client");
        volume.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_27_the_write_buffer_stays_below_its_bound() {
    let world = World::start().await;
    let mut config = world.config("us-east");
    config.buffer_size = 1 << 20;
    let volume = farshore_client::Volume::connect(config).await.unwrap();
    let data = pattern(5, 9 << 20);
    let handle = create(&volume, "big").await;
    for (n, piece) in data.chunks(300_000).enumerate() {
        volume.write(&handle, n as u64 * 300_000, Bytes::copy_from_slice(piece)).await.unwrap();
        assert!(volume.buffered_bytes() <= 1 << 20);
    }
    volume.release(handle).await.unwrap();
    assert_eq!(volume.buffered_bytes(), 0);
    assert!(read_all(&volume, "big").await == data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_29_others_changes_reach_open_files_and_subscribers_and_own_ones_do_not() {
    let world = World::start().await;
    let (one, two) = (world.client("us-east").await, world.client("us-east").await);
    write_all(&one, "a", b"old").await;
    let handle = open(&two, "a").await;
    assert_eq!(&two.read(&handle, 0, 10).await.unwrap()[..], b"old");
    let (of_one, of_two) = (one.subscribe(), two.subscribe());
    let writer = open(&one, "a").await;
    one.write(&writer, 0, Bytes::from_static(b"newer")).await.unwrap();
    one.release(writer).await.unwrap();
    let told = tokio::time::timeout(PATIENCE, of_two.next()).await.unwrap();
    assert_eq!(told, Invalidation::Inode(handle.ino()));
    assert_eq!(&two.read(&handle, 0, 10).await.unwrap()[..], b"newer");
    assert_eq!(of_one.try_next(), None);
    // Opening asks the leader, whatever was pushed (hazard 9.1).
    world.cluster.state.faults.silent_invalidations.store(true, std::sync::atomic::Ordering::Relaxed);
    let writer = open(&one, "a").await;
    one.write(&writer, 0, Bytes::from_static(b"NEWER")).await.unwrap();
    one.release(writer).await.unwrap();
    assert_eq!(read_all(&two, "a").await, b"NEWER");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_move_whole_files_as_streams() {
    let world = World::start().await;
    let volume = world.client("us-east").await;
    let data = pattern(9, (3 << 20) + 5);
    assert_eq!(paths::write_file(&volume, "/f", 0o600, &mut &data[..]).await.unwrap(), data.len() as u64);
    assert_eq!(paths::write_file(&volume, "f", 0o600, &mut &data[1..]).await.unwrap(), data.len() as u64 - 1);
    let mut back = Vec::new();
    paths::read_file(&volume, "/f", &mut back).await.unwrap();
    assert!(back == data[1..]);
    for n in 0..3 {
        let target = format!("/l{}", (n + 1) % 3).into_bytes();
        volume.make(Ino::ROOT, format!("l{n}").as_bytes(), NewNode::Symlink(target), 0o777, 0, 0).await.unwrap();
    }
    let ring = paths::resolve(&volume, "/l0", true).await.unwrap_err();
    assert!(matches!(ring, paths::PathError::TooManyLinks { .. }), "{ring}");
    assert!(matches!(paths::remove(&volume, "/", true).await, Err(paths::PathError::Root)));
}

/// More slices than one commit takes, lying over each other: the order of writing is what counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scattered_writes_are_committed_in_their_order_and_old_ones_by_themselves() {
    let world = World::start().await;
    let volume = world.client("us-east").await;
    let handle = create(&volume, "scattered").await;
    let mut random = StdRng::seed_from_u64(11);
    let mut model = vec![0u8; 200_000];
    for step in 0..600 {
        let at = random.random_range(0..model.len() - 2000);
        let data = pattern(step, random.random_range(1..2000));
        model[at..at + data.len()].copy_from_slice(&data);
        volume.write(&handle, at as u64, data.into()).await.unwrap();
    }
    let model = &model[..volume.getattr(handle.ino()).await.unwrap().size as usize];
    // Nobody flushes: what waits too long is committed in the background.
    until("the commit of old data", || volume.buffered_bytes() == 0).await;
    assert!(read_all(&world.client("us-east").await, "scattered").await == model);
    volume.release(handle).await.unwrap();
}
