//! The dispatcher's plan, over real ledger rows.

#[cfg(test)]
mod fixture;

use farshore_syncer::*;
use farshore_types::*;
use fixture::*;
use std::collections::BTreeMap;

const LEASE: LocalTime = 1000;

fn worker(n: u8) -> SessionId {
    SessionId([n; 16])
}

struct Desk {
    shore: Shore,
    plan: Dispatcher,
    drawn: u128,
}

impl Desk {
    fn new() -> Desk {
        Desk { shore: Shore::new(), plan: Dispatcher::new(LEASE), drawn: 0 }
    }

    fn leases(&mut self, now: LocalTime) -> Vec<(SessionId, Lease)> {
        let (plan, drawn) = (&mut self.plan, &mut self.drawn);
        self.shore.read(|kv| {
            plan.next_leases(kv, now, &mut || {
                *drawn += 1;
                TaskId(drawn.to_be_bytes())
            })
            .expect("memory does not fail")
        })
    }

    fn blocks(&mut self, now: LocalTime) -> Vec<BlockKey> {
        self.leases(now).into_iter().map(|(_, lease)| block_of(&lease)).collect()
    }
}

fn block_of(lease: &Lease) -> BlockKey {
    match lease.kind {
        TaskKind::Copy { block, .. } | TaskKind::Delete { block } => block,
        TaskKind::List { .. } => panic!("a listing has no block"),
    }
}

#[test]
fn oldest_first_and_never_one_block_to_two_workers() {
    let mut desk = Desk::new();
    let all: Vec<_> = (0..5).map(|_| desk.shore.add(THERE, 1)[0]).collect();
    desk.plan.offer(worker(1), 2);
    desk.plan.offer(worker(2), 2);
    assert_eq!(desk.blocks(0), all[..4]);
    assert_eq!(desk.blocks(0), [], "all slots are taken");
    desk.plan.offer(worker(3), 9);
    assert_eq!(desk.blocks(0), all[4..]);
    assert_eq!((desk.plan.held_by(worker(1)), desk.plan.held_by(worker(3)), desk.plan.leases()), (2, 1, 5));
}

#[test]
fn slots_are_served_in_turn_so_that_a_large_offer_starves_nobody() {
    let mut desk = Desk::new();
    desk.plan.offer(worker(1), 100);
    desk.plan.offer(worker(2), 2);
    desk.shore.add(THERE, 4 * BLOCK);
    let mut held = BTreeMap::new();
    for (who, _) in desk.leases(0) {
        *held.entry(who).or_insert(0) += 1;
    }
    assert_eq!(held, BTreeMap::from([(worker(1), 2), (worker(2), 2)]));
}

#[test]
fn a_done_block_is_held_until_its_answer_is_applied() {
    let mut desk = Desk::new();
    let blocks = desk.shore.add(THERE, 1);
    desk.plan.offer(worker(1), 1);
    let task = desk.leases(0)[0].1.task;
    assert_eq!(desk.plan.holder(task), Some((worker(1), LEASE)));
    assert!(desk.plan.done(task) && !desk.plan.done(task));
    assert_eq!((desk.plan.held_by(worker(1)), desk.blocks(1)), (0, vec![]), "the slot is free, the block is not");
    desk.shore.copy(&blocks);
    desk.plan.settled(blocks[0]);
    assert_eq!((desk.plan.leases(), desk.blocks(2)), (0, vec![]));
}

#[test]
fn an_expired_lease_and_a_lost_worker_are_leased_again() {
    let mut desk = Desk::new();
    let blocks = desk.shore.add(THERE, 2 * BLOCK);
    desk.plan.offer(worker(1), 1);
    desk.plan.offer(worker(2), 1);
    assert_eq!(desk.blocks(0), blocks);
    assert_eq!(desk.blocks(LEASE - 1), []);
    assert_eq!(desk.blocks(LEASE), blocks, "both ran out");
    desk.plan.withdraw(worker(1));
    desk.plan.withdraw(worker(2));
    desk.plan.offer(worker(3), 9);
    assert_eq!(desk.blocks(LEASE), blocks);
}

#[test]
fn readers_go_to_the_front_once() {
    let mut desk = Desk::new();
    let all: Vec<_> = (0..3).map(|_| desk.shore.add(THERE, 1)[0]).collect();
    desk.plan.move_to_front(all[2]);
    desk.plan.move_to_front(all[2]);
    desk.plan.move_to_front(BlockKey { slice: SliceId(99), index: 0, size: 1 });
    desk.plan.offer(worker(1), 9);
    let leases = desk.leases(0);
    let classes: Vec<_> = leases.iter().map(|(_, lease)| lease.kind.clone()).collect();
    assert_eq!(classes[0], TaskKind::Copy { block: all[2], head_first: false, class: Class::Reader });
    assert_eq!(classes[1], TaskKind::Copy { block: all[0], head_first: false, class: Class::Live });
    assert_eq!(leases.len(), 3);
}

#[test]
fn a_poisoned_block_rests_longer_every_time_and_blocks_nobody() {
    let mut desk = Desk::new();
    let (bad, good) = (desk.shore.add(THERE, 1)[0], desk.shore.add(THERE, 1)[0]);
    desk.plan.offer(worker(1), 1);
    let mut now = 0;
    let mut rests = Vec::new();
    for round in 0..12 {
        let (_, lease) = desk.leases(now).remove(0);
        assert_eq!(block_of(&lease), bad, "round {round}");
        let entry = desk.plan.failed(lease.task, Reason::NoSource, now);
        let tries = round + 1_u32;
        let expected = tries.is_power_of_two().then_some(LocalOp::Failing { block: bad, reason: Reason::NoSource, tries });
        assert_eq!(entry, expected);
        let next = desk.leases(now).remove(0).1;
        assert_eq!(block_of(&next), good, "the next block goes on");
        let rest = REST_MIN_US.checked_shl(round).unwrap().min(REST_MAX_US);
        // The good one's lease runs out while the bad one rests.
        desk.plan.failed(next.task, Reason::Throttled, now);
        desk.plan.settled(good);
        desk.plan.owed_again(LogIndex(0));
        desk.plan.offer(worker(1), 0);
        assert_eq!(desk.blocks(now + rest - 1), []);
        desk.plan.offer(worker(1), 1);
        rests.push(rest);
        now += rest;
    }
    assert_eq!(rests.last(), Some(&REST_MAX_US));
}

#[test]
fn what_becomes_owed_behind_the_cursor_is_found_again() {
    let mut desk = Desk::new();
    let old = desk.shore.add(HERE, 1);
    let to = desk.shore.applied();
    desk.shore.drop_slice(&old);
    let new = desk.shore.add(THERE, 1);
    desk.plan.offer(worker(1), 1);
    assert_eq!(desk.blocks(0), new);
    let effects = desk.shore.rewind(to);
    desk.plan.owed_again(effects.lowest_owed.unwrap());
    desk.plan.settled(new[0]);
    let leases = desk.leases(1);
    assert_eq!(leases[0].1.kind, TaskKind::Copy { block: old[0], head_first: true, class: Class::Live }, "HEAD first (law 20)");
}

#[test]
fn copies_come_before_repairs_deletions_and_the_listing() {
    let mut desk = Desk::new();
    let (dropped, rotten, owed) = (desk.shore.add(HERE, 1), desk.shore.add(HERE, 1), desk.shore.add(THERE, 1));
    let at = desk.shore.drop_slice(&dropped);
    desk.shore.local(LocalOp::Damage { blocks: vec![(rotten[0], DamageKind::Rotten)] });
    desk.plan.want_listing(Some((1, None)));
    desk.plan.offer(worker(1), 9);
    let kinds: Vec<_> = desk.leases(0).into_iter().map(|(_, lease)| lease.kind).collect();
    let copy = TaskKind::Copy { block: owed[0], head_first: false, class: Class::Live };
    let repair = TaskKind::Copy { block: rotten[0], head_first: true, class: Class::Repair };
    assert_eq!(kinds, [copy, repair, TaskKind::List { run: 1, after: None }], "nothing may be deleted yet");
    desk.plan.allow_deletions(DeletionWindow { gate: at, control: ControlTime(1_000_000), longest_lease: ControlTime(1) });
    let kinds: Vec<_> = desk.leases(1).into_iter().map(|(_, lease)| lease.kind).collect();
    assert_eq!(kinds, [TaskKind::Delete { block: dropped[0] }]);
    assert_eq!(desk.leases(2), []);
}

#[test]
fn after_a_failed_deletion_all_deletions_rest() {
    let mut desk = Desk::new();
    let blocks = desk.shore.add(HERE, 1);
    let at = desk.shore.drop_slice(&blocks);
    desk.plan.allow_deletions(DeletionWindow { gate: at, control: ControlTime(1_000_000), longest_lease: ControlTime(1) });
    desk.plan.offer(worker(1), 1);
    let first = desk.leases(0);
    desk.plan.failed(first[0].1.task, Reason::TargetUnreachable, 0);
    // Floors and clocks move all the time; that is no reason to ask a bucket that is down.
    desk.plan.allow_deletions(DeletionWindow { gate: at, control: ControlTime(2_000_000), longest_lease: ControlTime(1) });
    assert_eq!(desk.leases(REST_MIN_US - 1), []);
    assert_eq!(desk.leases(REST_MIN_US).len(), 1);
}

#[test]
fn while_a_pause_is_in_force_nobody_gets_anything() {
    let mut desk = Desk::new();
    let blocks = desk.shore.add(THERE, 1);
    desk.shore.local(LocalOp::Pause { until: ControlTime(5), reason: "r".into(), by: "b".into() });
    desk.plan.offer(worker(1), 1);
    assert_eq!(desk.blocks(0), []);
    desk.shore.local(LocalOp::Tick { delta: ControlTime(5) });
    assert_eq!(desk.blocks(0), blocks);
}

#[test]
fn law_27_every_block_of_a_long_backlog_is_leased_exactly_once() {
    let mut desk = Desk::new();
    let mut all = Vec::new();
    for _ in 0..60 {
        all.extend(desk.shore.add(THERE, 20 * BLOCK));
    }
    desk.plan.offer(worker(1), 7);
    let mut given = Vec::new();
    loop {
        let leases = desk.leases(0);
        if leases.is_empty() {
            break;
        }
        for (_, lease) in leases {
            given.push(block_of(&lease));
            desk.plan.done(lease.task);
        }
    }
    assert_eq!(given, all);
}
