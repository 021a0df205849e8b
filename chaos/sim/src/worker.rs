//! A worker of the world: offers capacity, executes leases against the buckets with failures thrown in, and says what it
//! did. It lists for full syncs.

use crate::bucket::Put;
use crate::common::Common;
use crate::plant::{self, Hazard};
use crate::trace::now_us;
use crate::upstream::{Connection, connect};
use farshore_types::{BlockKey, ClusterId, SessionInfo, SliceId};
use farshore_wire::v1::{
    Capacity, ClientFrame, Completion, Completions, Copied, Failure, Hello, Lease, ListedObject, Listing, Renew,
    client_frame::Frame as In, completion::Result as Done, hello::Kind, lease::Kind as Task, server_frame::Frame as Out,
};
use farshore_wire::{encode, header};
use openraft::AsyncRuntime;
use openraft_rt_sim::SimRuntime;
use std::sync::Arc;
use std::time::Duration;

/// Leases that a worker works on at once.
const SLOTS: u32 = 4;
/// Objects on one page of a listing.
const PAGE: usize = 16;
/// Pause between two attempts to find the leader.
const PAUSE: Duration = Duration::from_millis(200);
/// A worker says something at least this often.
const RENEW: Duration = Duration::from_millis(1000);
/// Microseconds of one copy or deletion; some workers are stopped in the middle of it.
const WORK_US: (u64, u64) = (1_000, 40_000);
const STALL_US: (u64, u64) = (2_000_000, 12_000_000);

/// Runs a worker in a region until the world ends.
pub async fn run(common: Arc<Common>, region: ClusterId, name: String) {
    let mut at = common.dice.below(8) as usize;
    while !common.is_over() {
        let places = common.net.places(region);
        let place = places[at % places.len()];
        if let Some(connection) = connect(&common.net, region, place).await {
            converse(&common, region, &name, connection).await;
        }
        at += 1;
        SimRuntime::sleep(PAUSE).await;
    }
}

fn frame(frame: In) -> ClientFrame {
    ClientFrame { frame: Some(frame) }
}

async fn converse(common: &Arc<Common>, region: ClusterId, name: &str, mut connection: Connection) {
    let info = SessionInfo { host: name.to_owned(), mount: String::new(), options: String::new(), bucket: None };
    let hello = Hello {
        header: Some(header(common.volume(), 0)),
        session: common.dice.id().to_vec().into(),
        kind: Kind::Worker.into(),
        info: encode(&info),
        ..Hello::default()
    };
    if connection.send.send(frame(In::Hello(hello))).await.is_err() {
        return;
    }
    let mut silent = 0;
    while !common.is_over() {
        match SimRuntime::timeout(RENEW, connection.receive.recv()).await {
            Ok(None) => return,
            Ok(Some(message)) => {
                silent = 0;
                match message.frame {
                    Some(Out::Welcome(_)) => {
                        let offer = frame(In::Capacity(Capacity { slots: SLOTS }));
                        if connection.send.send(offer).await.is_err() {
                            return;
                        }
                    }
                    Some(Out::Leases(leases)) => {
                        for lease in leases.leases {
                            let (common, send) = (common.clone(), connection.send.clone());
                            drop(SimRuntime::spawn(async move {
                                for answer in execute(&common, region, lease).await {
                                    // A connection that is gone loses the answer; the lease runs out.
                                    let _ = send.send(frame(answer)).await;
                                }
                            }));
                        }
                    }
                    Some(Out::Refused(_)) => return,
                    _ => {}
                }
            }
            Err(_) => {
                silent += 1;
                if silent > 30 || connection.send.send(frame(In::Renew(Renew {}))).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn execute(common: &Arc<Common>, region: ClusterId, lease: Lease) -> Vec<In> {
    let stalled = common.is_faulty() && common.dice.chance(10);
    let (low, high) = if stalled { STALL_US } else { WORK_US };
    if lease.kind() == Task::Copy {
        check_resurrection(common, region, &lease);
    }
    SimRuntime::sleep(Duration::from_micros(common.dice.between(low, high))).await;
    if lease.kind() == Task::List {
        return list(common, region, &lease);
    }
    let Some(block) = lease.block.map(|block| BlockKey { slice: SliceId(block.slice), index: block.index, size: block.size })
    else {
        return vec![];
    };
    let done = if common.buckets.is_down(region) {
        failed("target_unreachable")
    } else if lease.kind() == Task::Delete {
        common.judge.deletes(region, block);
        common.buckets.delete(region, block, now_us());
        Done::Deleted(true)
    } else {
        copy(common, region, block, &lease)
    };
    common.trace.say(format!("worker {region} {:?} {block}: {}", lease.kind(), told(&done)));
    if common.is_faulty() && common.dice.chance(30) {
        common.trace.say("  the answer is lost");
        return vec![];
    }
    vec![In::Completions(Completions { completions: vec![Completion { task: lease.task, result: Some(done) }] })]
}

fn failed(reason: &str) -> Done {
    Done::Failed(Failure { reason: reason.to_owned(), text: String::new() })
}

fn told(done: &Done) -> String {
    match done {
        Done::Copied(copied) => format!("copied, {:08x}", copied.crc32c),
        Done::Absent(_) => "absent".to_owned(),
        Done::Deleted(_) => "deleted".to_owned(),
        Done::Failed(failure) => format!("failed, {}", failure.reason),
    }
}

fn copied(block: BlockKey, crc32c: u32, from: ClusterId) -> Done {
    Done::Copied(Copied { length: block.size, crc32c, from_region: u32::from(from.0) })
}

fn copy(common: &Common, region: ClusterId, block: BlockKey, lease: &Lease) -> Done {
    let believed = if plant::is(Hazard::FalseEvidence) { common.judge.checksum(block) } else { None };
    if let Some(crc) = believed.filter(|_| common.dice.chance(100)) {
        return copied(block, crc, region);
    }
    if let Some(there) = common.buckets.get(region, block).filter(|_| lease.head_first) {
        return copied(block, there.crc32c, region);
    }
    let faulty = common.is_faulty();
    if faulty && common.dice.chance(60) {
        return failed(if common.dice.chance(500) { "target_unreachable" } else { "throttled" });
    }
    for source in lease.source_regions.iter().map(|region| ClusterId(*region as u8)) {
        if common.buckets.is_down(source) || (faulty && common.dice.chance(60)) {
            continue;
        }
        let Some(object) = common.buckets.get(source, block) else { continue };
        if faulty && common.dice.chance(30) {
            // Bytes that were corrupted on the way: a worker that does not notice offers false evidence (law 16).
            return copied(block, !object.crc32c, source);
        }
        return match common.buckets.put(region, block, object.crc32c) {
            Put::Done | Put::Same => copied(block, object.crc32c, source),
            Put::Conflict => failed("conflict"),
        };
    }
    // That it is not there is known now, and worth more to the ledger than why it cannot be copied.
    if lease.head_first { Done::Absent(true) } else { failed("no_source") }
}

/// A full sync never brings a deleted block back (law 17).
fn check_resurrection(common: &Common, region: ClusterId, lease: &Lease) {
    let Some(block) = &lease.block else { return };
    let block = BlockKey { slice: SliceId(block.slice), index: block.index, size: block.size };
    let deleted = common.buckets.lock().entry(region).or_default().deleted.get(&block).copied();
    if let Err(what) = crate::invariants::resurrection::check(deleted, now_us()) {
        common.trace.broken(format!("resurrection: {block} in region {region}: {what}"));
    }
}

/// A listing in pages; some break off in the middle.
fn list(common: &Common, region: ClusterId, lease: &Lease) -> Vec<In> {
    let all = common.buckets.list(region, &lease.list_after);
    let objects: Vec<ListedObject> = all.into_iter().map(|(name, size)| ListedObject { name, size }).collect();
    let mut pages: Vec<Listing> = objects
        .chunks(PAGE)
        .map(|page| Listing { task: lease.task.clone(), objects: page.to_vec(), ..Listing::default() })
        .collect();
    match pages.last_mut() {
        Some(last) => last.last = true,
        None => pages.push(Listing { task: lease.task.clone(), last: true, ..Listing::default() }),
    }
    if common.is_faulty() && common.dice.chance(200) {
        pages.truncate(1 + common.dice.below(pages.len() as u64) as usize);
        if let Some(page) = pages.last_mut() {
            page.failed = "the listing broke".to_owned();
        }
    }
    common.trace.say(format!("worker {region} listed {} pages", pages.len()));
    pages.into_iter().map(In::Listing).collect()
}
