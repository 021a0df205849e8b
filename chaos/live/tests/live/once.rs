//! Exactly once on real processes (issue points 1 and 4; law 10): the leader is killed with an answer under way, for each
//! verb; and one that is cut off from the others tells nothing that is not so any more.

use crate::disks::wait_equal;
use farshore_live::{Caller, Random, World, WorldOptions, wait_for};
use farshore_types::*;
use std::collections::BTreeSet;
use std::time::Duration;

const REGION: &str = "us-east";
/// The leader is killed so long after the request was sent, in microseconds, at most: before, while and after it commits.
const MOMENT_US: u64 = 4000;
const BLOCK: u32 = 70_000;

fn make(parent: Ino, name: &str, node: NewNode) -> Op {
    Op::Make { parent, name: name.into(), node, mode: 0o644, uid: 0, gid: 0 }
}

fn made(outcome: &Outcome) -> Ino {
    match outcome {
        Ok(Reply::Attr(attr)) => attr.ino,
        other => panic!("{other:?}"),
    }
}

fn make_leased(name: &str) -> Op {
    let (parent, node) = (Ino::ROOT, NewNode::Directory);
    Op::MakeAs { parent, name: name.into(), node, mode: 0o755, uid: 0, gid: 0, ino: None, lease: true }
}

/// Another client holds the directory `theirs`, as soon as the volume has the version that lets it.
fn hold_theirs(other: &mut Caller) {
    let mut sequence = 0;
    wait_for("leases", Duration::from_secs(60), || {
        sequence += 1;
        match other.ask(sequence - 1, sequence, &[make_leased("theirs")])[0] {
            Ok(_) => Some(()),
            Err(ErrorKind::Unsupported) => None,
            ref refused => panic!("{refused:?}"),
        }
    });
}

/// What the verbs work on: made by the requests 1 to 6; and one operation of every verb, each of which succeeds once and
/// no second time.
fn every_verb(caller: &mut Caller) -> Vec<Op> {
    let dir = made(&caller.ask(0, 1, &[make(Ino::ROOT, "dir", NewNode::Directory)])[0]);
    let of_dir = [
        make(dir, "gone", NewNode::File),
        make(Ino::ROOT, "empty", NewNode::Directory),
        make(Ino::ROOT, "file", NewNode::File),
        Op::AllocSlices { count: 8 },
        make_leased("mine"),
    ];
    let made_in = caller.ask(1, 2, &of_dir);
    let file = made(&made_in[2]);
    let Ok(Reply::Slices { first, .. }) = made_in[3] else { panic!("{:?}", made_in[3]) };
    let content = NewSlice { chunk: 0, position: 0, id: first, size: BLOCK, checksums: vec![7] };
    let (new_parent, new_name) = (dir, b"moved".to_vec());
    vec![
        make(Ino::ROOT, "new", NewNode::Symlink(b"t".to_vec())),
        Op::Unlink { parent: dir, name: b"gone".to_vec() },
        Op::Rmdir { parent: Ino::ROOT, name: b"empty".to_vec() },
        Op::Rename { parent: Ino::ROOT, name: b"file".to_vec(), new_parent, new_name, mode: RenameMode::NoReplace },
        Op::Link { ino: file, new_parent: Ino::ROOT, new_name: b"second".to_vec() },
        Op::SetAttr { ino: file, mode: Some(0o600), uid: None, gid: None, atime: Some(TimeChange::Now), mtime: None },
        Op::CommitSlices { ino: file, slices: vec![content], clear_set_id: false },
        Op::Truncate { ino: file, size: 10 },
        Op::AllocSlices { count: 3 },
        Op::CloseSlices { below: SliceId(first.0 + 4) },
        make_leased("held"),
        Op::AllocInos { count: 5 },
        Op::GiveBack { dirs: vec![made(&made_in[4])] },
        Op::Recall { dir: Ino::ROOT, name: b"theirs".to_vec(), take: false },
    ]
}

#[test]
fn law_10_a_reply_lost_with_the_leader_comes_from_the_next_one_for_every_verb() {
    const FIRST: u64 = 7;
    let world = World::start(WorldOptions::default());
    let mut holder = Caller::open(&world, REGION, [8; 16]);
    hold_theirs(&mut holder);
    let mut caller = Caller::open(&world, REGION, [7; 16]);
    let ops = every_verb(&mut caller);
    let verbs: BTreeSet<usize> = ops.iter().map(Op::verb).collect();
    assert_eq!((verbs.len(), ops.len()), (Op::VERBS, Op::VERBS), "each verb once");
    let mut random = Random::new(1);
    let mut answers = vec![];
    let dies = |caller: &mut Caller| {
        world.kill_node(&world.wait_leader(REGION));
        world.up();
        caller.resume(REGION);
    };
    for (sequence, op) in (FIRST..).zip(&ops) {
        let op = std::slice::from_ref(op);
        caller.say(FIRST - 1, sequence, op);
        // The moment itself is what is drawn: nothing is waited for.
        std::thread::sleep(Duration::from_micros(random.below(MOMENT_US)));
        dies(&mut caller);
        let answer = caller.ask(FIRST - 1, sequence, op);
        assert!(answer[0].is_ok(), "{op:?}: {answer:?}");
        assert_eq!(caller.ask(FIRST - 1, sequence, op), answer, "{op:?}");
        answers.extend(answer);
    }
    let after = caller.tree();
    assert_eq!(after.len(), 7, "dir, new, second, dir/moved, held, mine, theirs: {after:?}");
    // Late repetitions of all, at yet another leader, whose answers were all heard before.
    dies(&mut caller);
    assert_eq!(caller.ask(FIRST - 1, FIRST, &ops), answers);
    assert_eq!(caller.tree(), after, "a verb was done twice");
    drop((caller, holder));
    wait_equal(&world);
}

#[test]
fn law_10_a_failure_stays_the_answer_also_at_the_next_leader() {
    let world = World::start(WorldOptions::default());
    let mut caller = Caller::open(&world, REGION, [7; 16]);
    let unlink = [Op::Unlink { parent: Ino::ROOT, name: b"f".to_vec() }];
    assert_eq!(caller.ask(0, 1, &unlink), [Err(ErrorKind::NotFound)]);
    let mut other = Caller::open(&world, REGION, [8; 16]);
    assert!(other.ask(0, 1, &[make(Ino::ROOT, "f", NewNode::File)])[0].is_ok());
    world.kill_node(&world.wait_leader(REGION));
    world.up();
    caller.resume(REGION);
    assert_eq!(caller.ask(0, 1, &unlink), [Err(ErrorKind::NotFound)], "the name is there now, and the answer is the first one");
    assert_eq!(caller.tree().len(), 1);
}

#[test]
fn law_9_a_leader_that_is_cut_off_gives_no_stale_answer() {
    let world = World::start_with_faults(WorldOptions::default());
    let old = world.wait_leader(REGION);
    let mut caller = Caller::open(&world, REGION, [7; 16]);
    assert_eq!(caller.tree(), []);
    let others: Vec<&str> = ["use-a", "use-b", "use-c"].into_iter().filter(|name| *name != old).collect();
    world.cut(&[&old], &others);
    let next = wait_for("another leader", Duration::from_secs(60), || others.iter().copied().find(|name| world.leads(name)));
    let mut other = Caller::open_at(&world, next, [8; 16]);
    assert!(other.ask(0, 1, &[make(Ino::ROOT, "f", NewNode::File)])[0].is_ok(), "two of three go on");
    // The old one still has the stream of the first caller, and everybody but the other nodes reaches it.
    let list = Query::ReadDir { ino: Ino::ROOT, after: None, limit: 10 };
    let told = caller.query_if_answered(&list);
    assert!(told.is_none(), "{old} does not know what became of the tree: {told:?}");
    world.mend_cuts();
    drop((caller, other));
    wait_equal(&world);
}
