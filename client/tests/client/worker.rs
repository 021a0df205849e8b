//! Leases are executed with evidence, and failures have reasons from the closed list.

use crate::server::BLOCK;
use crate::world::*;
use farshore_client::{Worker, WorkerOptions};
use farshore_types::BlockKey;
use farshore_wire::v1::{self, completion::Result as Done, lease::Kind};
use std::sync::atomic::Ordering;
use tokio::sync::watch;

fn lease(task: u8, kind: Kind, key: Option<BlockKey>, target: u32, sources: &[u32]) -> v1::Lease {
    v1::Lease {
        task: vec![task; 16].into(),
        kind: kind.into(),
        block: key.map(|key| v1::Block { slice: key.slice.0, index: key.index, size: key.size }),
        target_region: target,
        source_regions: sources.to_vec(),
        valid_ms: 60_000,
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_deletions_and_listings_carry_evidence() {
    let world = World::start().await;
    let data = pattern(1, BLOCK as usize + 10);
    write_all(&world.client("us-east").await, "a", &data).await;
    let names = world.blocks("us-east").await;
    let keys: Vec<BlockKey> = names.iter().map(|n| BlockKey::parse(n.strip_prefix("demo/").unwrap()).unwrap()).collect();
    let (stop, stopped) = watch::channel(false);
    let worker = tokio::spawn(Worker::run(world.config("us-east"), WorkerOptions::default(), stopped));
    let state = world.cluster.state.clone();
    until("the worker's offer", || state.capacity.load(Ordering::Relaxed) == 16).await;
    let head = v1::Lease { head_first: true, ..lease(4, Kind::Copy, Some(keys[0]), 1, &[0]) };
    let missing = BlockKey { size: 77, ..keys[0] };
    let leases = vec![
        // The first source lacks it: no failure.
        lease(1, Kind::Copy, Some(keys[0]), 1, &[1, 0]),
        lease(2, Kind::Copy, Some(missing), 1, &[0]),
        lease(3, Kind::Copy, Some(keys[1]), 9, &[0]),
    ];
    let results = |count: usize| {
        let state = state.clone();
        async move {
            until("the completions", || state.completions.lock().unwrap().len() == count).await;
            let mut all = std::mem::take(&mut *state.completions.lock().unwrap());
            all.sort_by_key(|completion| completion.task.clone());
            all.into_iter().map(|completion| completion.result.unwrap()).collect::<Vec<_>>()
        }
    };
    assert_eq!(state.lease(leases), 1);
    let done = results(3).await;
    let crc32c = crc32c::crc32c(&world.bucket("eu-west").await.get(&names[0]).await.unwrap().0);
    assert_eq!(done[0], Done::Copied(v1::Copied { length: keys[0].size, crc32c, from_region: 0 }));
    assert!(matches!(&done[1], Done::Failed(failed) if failed.reason == "no_source"), "{:?}", done[1]);
    assert!(matches!(&done[2], Done::Failed(failed) if failed.reason == "other"), "{:?}", done[2]);
    state.lease(vec![head.clone(), lease(5, Kind::Copy, Some(keys[0]), 1, &[0])]);
    let again = Done::Copied(v1::Copied { length: keys[0].size, crc32c, from_region: 0 });
    let by_head = Done::Copied(v1::Copied { length: keys[0].size, crc32c, from_region: 1 });
    assert_eq!(results(2).await, [by_head, again], "what is there already, and equal, is a copy");
    state.lease(vec![lease(6, Kind::Delete, Some(keys[0]), 1, &[])]);
    assert_eq!(results(1).await, [Done::Deleted(true)]);
    state.lease(vec![head]);
    let copied = Done::Copied(v1::Copied { length: keys[0].size, crc32c, from_region: 0 });
    assert_eq!(results(1).await, [copied], "what HEAD does not find is copied in the same task");
    state.lease(vec![v1::Lease { head_first: true, ..lease(8, Kind::Copy, Some(missing), 1, &[0]) }]);
    assert_eq!(results(1).await, [Done::Absent(true)], "absence is the answer where no source has it either");
    state.lease(vec![lease(7, Kind::List, None, 0, &[])]);
    until("the listing", || state.listings.lock().unwrap().iter().any(|page| page.last)).await;
    let pages = std::mem::take(&mut *state.listings.lock().unwrap());
    let listed: Vec<_> = pages.iter().flat_map(|page| page.objects.iter().map(|object| object.name.clone())).collect();
    let relative: Vec<_> = names.iter().map(|name| name.strip_prefix("demo/").unwrap().to_owned()).collect();
    assert_eq!(listed, relative);
    assert!(pages.iter().all(|page| page.failed.is_empty()));
    stop.send_replace(true);
    worker.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn law_16_bytes_that_rotted_are_no_evidence() {
    let world = World::start().await;
    write_all(&world.client("us-east").await, "a", &pattern(2, 500)).await;
    let name = world.blocks("us-east").await.remove(0);
    let key = BlockKey::parse(name.strip_prefix("demo/").unwrap()).unwrap();
    // The target holds other bytes under the same name and length.
    let other = pattern(3, 500);
    let crc32c = crc32c::crc32c(&other);
    world.bucket("eu-west").await.put_new(&name, other.into(), crc32c).await.unwrap();
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(Worker::run(world.config("us-east"), WorkerOptions::default(), stopped));
    let state = world.cluster.state.clone();
    until("the worker's offer", || state.capacity.load(Ordering::Relaxed) > 0).await;
    state.lease(vec![lease(1, Kind::Copy, Some(key), 1, &[0])]);
    until("the completion", || !state.completions.lock().unwrap().is_empty()).await;
    let done = state.completions.lock().unwrap().remove(0).result.unwrap();
    assert!(matches!(&done, Done::Failed(failed) if failed.reason == "checksum"), "{done:?}");
}
