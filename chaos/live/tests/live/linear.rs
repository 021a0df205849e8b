//! Clients' histories while the primary's leaders are killed, stand still or are cut off from the other nodes, and while a leader
//! has lost its majority: they are linearizable (issue 3, point 4; law 10).
//!
//! `FARSHORE_HISTORY_SECONDS=600` asks for longer; `FARSHORE_SEED=7` for other operations and faults.

use farshore_history::{Answer, Answered, Call, Failure, Operation, check, lines};
use farshore_live::{Random, World, WorldOptions, process, wait_for, world};
use std::time::Duration;

/// Seconds of an ordinary run.
const SECONDS: u64 = 30;
/// Until the clients must have ended, beyond that.
const GRACE: Duration = Duration::from_secs(120);
/// Entries that a new leader commits while the old one stands still.
const ENTRIES: u64 = 20;
/// How long a leader stays without its followers: as long as it takes to be given up by callers.
const ALONE: Duration = Duration::from_millis(2500);

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not `{text}`")))
}

/// A fault from its beginning to its end, which comes soon once the clients are over.
type Fault = fn(&World, &dyn Fn() -> bool);

/// What the primary's leader has committed, if one says so.
fn committed(world: &World) -> u64 {
    world.lag_of(world::PRIMARY)["committed"].as_u64().unwrap_or(0)
}

/// The leader stands still until another one has led for a while; then it wakes up and believes to lead.
fn leader_stands_still(world: &World, is_over: &dyn Fn() -> bool) {
    let leader = world.wait_leader(world::PRIMARY);
    world.pause(&leader);
    wait_for("another leader", world::SOON, || world.leader(world::PRIMARY).filter(|other| *other != leader));
    let before = committed(world);
    let has_led = || is_over() || committed(world) >= before + ENTRIES;
    wait_for("the new leader to commit", world::SOON, || has_led().then_some(()));
    world.resume(&leader);
}

/// The leader is left alone: it can commit nothing, and prove nothing to those who ask.
fn followers_stand_still(world: &World, _: &dyn Fn() -> bool) {
    let leader = world.wait_leader(world::PRIMARY);
    let followers: Vec<String> = nodes(world).into_iter().filter(|name| *name != leader).collect();
    followers.iter().for_each(|name| world.pause(name));
    // The length of the fault; nothing is waited for.
    std::thread::sleep(ALONE);
    followers.iter().for_each(|name| world.resume(name));
}

/// The leader and the others are cut off from each other, the clients reach all: the old one believes to lead, is asked, and
/// must not answer with what it has, while the others have another leader.
fn leader_is_cut_off(world: &World, is_over: &dyn Fn() -> bool) {
    let leader = world.wait_leader(world::PRIMARY);
    let all = nodes(world);
    let others: Vec<&str> = all.iter().map(String::as_str).filter(|name| *name != leader).collect();
    world.cut(&[&leader], &others);
    wait_for("another leader", world::SOON, || (is_over() || others.iter().any(|name| world.leads(name))).then_some(()));
    // The length of the fault; nothing is waited for.
    std::thread::sleep(ALONE);
    world.mend_cuts();
}

fn leader_is_killed(world: &World, _: &dyn Fn() -> bool) {
    let leader = world.wait_leader(world::PRIMARY);
    world.kill_node(&leader);
    wait_for("another leader", world::SOON, || world.leader(world::PRIMARY).filter(|other| *other != leader));
    world.up();
}

fn all_are_killed(world: &World, _: &dyn Fn() -> bool) {
    nodes(world).iter().for_each(|name| world.kill_node(name));
    world.up();
}

fn nodes(world: &World) -> Vec<String> {
    world.pids().into_keys().filter(|name| name.starts_with("use-")).collect()
}

fn record(world: &World, seed: u64, seconds: u64) -> Vec<Operation> {
    let out = world.scratch("history").join("history.jsonl");
    let (text, number) = (out.to_str().expect("a temporary path is text"), |of: u64| of.to_string());
    let (of_seconds, of_seed) = (number(seconds), number(seed));
    let arguments = ["history", "demo", "--clients", "6", "--seconds", &of_seconds, "--seed", &of_seed, "--out", text];
    let mut random = Random::new(seed);
    let faults: [Fault; 5] = [leader_is_cut_off, leader_stands_still, followers_stand_still, leader_is_killed, all_are_killed];
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| process::run(&mut world.command(&arguments), Duration::from_secs(seconds) + GRACE));
        let mut round = random.below(faults.len() as u64);
        while !clients.is_finished() {
            faults[round as usize % faults.len()](world, &|| clients.is_finished());
            round += 1;
        }
        let ended = clients.join().expect("the clients have ended");
        assert!(ended.status.success(), "{}", ended.stderr);
    });
    lines::read(std::io::BufReader::new(std::fs::File::open(&out).unwrap())).unwrap()
}

fn uid(operation: &Operation) -> Option<u32> {
    match operation.answer()? {
        Answer::Inode(seen) => Some(seen.uid),
        _ => None,
    }
}

/// Histories that are bent, one after the other; of some an operation without an answer is another explanation.
type Bent<'a> = Box<dyn Iterator<Item = Vec<Operation>> + 'a>;
/// How many of them are tried.
const BENT: usize = 24;

/// The history, in which one question is answered as it was right before a change that was over when it was asked.
fn with_a_stale_read(history: &[Operation]) -> Bent<'_> {
    let at = |operation: &Operation| operation.answered.as_ref().map_or(u64::MAX, |answered| answered.at);
    let sets = |group, of| {
        let of_inode = move |other: &&Operation| matches!(other.call, Call::SetAttr { ino, .. } if ino == of);
        history.iter().filter(move |other| other.group == group).filter(of_inode)
    };
    Box::new(history.iter().enumerate().filter_map(move |(place, read)| {
        let Call::GetAttr { ino } = read.call else { return None };
        let newer =
            sets(read.group, ino).find(|newer| uid(read).is_some() && uid(newer) == uid(read) && at(newer) < read.called)?;
        let older = sets(read.group, ino).find(|older| at(older) < newer.called)?;
        let mut bent = history.to_vec();
        let answer = older.answer()?.clone();
        bent[place].answered = Some(Answered { answer, ..read.answered.clone()? });
        Some(bent)
    }))
}

/// The history, in which a file that others saw is refused to its maker, as if a retry had met it.
fn with_a_double_apply(history: &[Operation]) -> Bent<'_> {
    let made = |make: &Operation| match (&make.call, make.answer()?) {
        (Call::Make { .. }, Answer::Inode(seen)) => Some(seen.ino),
        _ => None,
    };
    Box::new(history.iter().enumerate().filter_map(move |(place, make)| {
        let ino = made(make)?;
        let others = history.iter().filter(|other| other.group == make.group && made(other).is_none());
        others.filter_map(Operation::answer).flat_map(Answer::inodes).find(|seen| seen.ino == ino)?;
        let mut bent = history.to_vec();
        let refused = Answer::Refused(farshore_history::ErrorKind::Exists);
        bent[place].answered = Some(Answered { answer: refused, ..make.answered.clone()? });
        Some(bent)
    }))
}

#[test]
fn law_10_histories_are_linearizable_while_leaders_are_killed_cut_off_and_stand_still() {
    let (seed, seconds) = (from_env("FARSHORE_SEED").unwrap_or(1), from_env("FARSHORE_HISTORY_SECONDS").unwrap_or(SECONDS));
    let world = World::start_with_faults(WorldOptions::default());
    world.wait_leader(world::PRIMARY);
    let history = record(&world, seed, seconds);
    let checked = check(&history).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{checked:?}");
    assert!(checked.operations > 300 && checked.unanswered > 0, "{checked:?}: too little was tried");
    for (what, bent) in [("stale read", with_a_stale_read(&history)), ("double apply", with_a_double_apply(&history))] {
        let found = bent.take(BENT).any(|bent| matches!(check(&bent), Err(Failure::Violation { .. })));
        assert!(found, "none of {BENT} planted was found: {what}");
    }
}
