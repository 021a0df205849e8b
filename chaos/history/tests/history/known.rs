//! Histories whose verdict is known.

use farshore_history::{Answer, Answered, Call, Checked, Failure, MAX_OPERATIONS, Name, Operation, Seen, check};
use farshore_types::{ErrorKind, RenameMode};

const A: Name = Name(0);
const B: Name = Name(1);
const ABSENT: Answer = Answer::Refused(ErrorKind::NotFound);
const EXISTS: Answer = Answer::Refused(ErrorKind::Exists);

/// An operation from `called` to an answer at a time.
fn op(called: u64, call: Call, answered: Option<(u64, Answer)>) -> Operation {
    let answered = answered.map(|(at, answer)| Answered { at, answer, index: None });
    Operation { client: called as u32, group: 0, called, call, answered }
}

fn file(uid: u32) -> Answer {
    Answer::Inode(Seen { ino: 10, nlink: 1, mode: 0o644, uid, size: 0 })
}

fn make(uid: u32) -> Call {
    Call::Make { name: A, uid }
}

fn set(uid: u32) -> Call {
    Call::SetAttr { ino: 10, mode: 0o644, uid }
}

const STAT: Call = Call::GetAttr { ino: 10 };
const LOOKUP: Call = Call::Lookup { name: A };

fn passes(history: &[Operation]) -> Checked {
    check(history).unwrap_or_else(|failure| panic!("{failure}"))
}

/// The text of the violation.
fn fails(history: &[Operation]) -> String {
    match check(history) {
        Err(failure @ Failure::Violation { .. }) => failure.to_string(),
        other => panic!("no violation: {other:?}"),
    }
}

#[test]
fn an_empty_history_passes() {
    assert_eq!(passes(&[]), Checked::default());
}

#[test]
fn concurrent_operations_may_take_effect_in_either_order() {
    let during = |answer| [op(1, make(1), Some((4, file(1)))), op(2, LOOKUP, Some((3, answer)))];
    passes(&during(ABSENT));
    passes(&during(file(1)));
    let after = |answer| [op(1, make(1), Some((2, file(1)))), op(3, LOOKUP, Some((4, answer)))];
    passes(&after(file(1)));
    fails(&after(ABSENT));
}

#[test]
fn a_stale_read_is_found_and_told_as_short_as_it_can_be() {
    let history = [
        op(1, make(1), Some((2, file(1)))),
        op(3, LOOKUP, Some((4, file(1)))),
        op(5, set(2), Some((6, file(2)))),
        op(7, Call::Unlink { name: B }, Some((8, ABSENT))),
        op(9, STAT, Some((10, file(1)))),
        op(11, set(3), Some((12, file(3)))),
    ];
    let told = fails(&history);
    assert!(told.contains("3 of its 6 operations") && told.contains("client 9 to `stat #10`"), "{told}");
    assert!(!told.contains("lookup") && !told.contains("unlink") && !told.contains("uid 3"), "{told}");
}

#[test]
fn readers_may_not_see_two_changes_in_two_orders() {
    let reads = |first, second| {
        [
            op(1, make(1), Some((2, file(1)))),
            op(3, set(2), Some((20, file(2)))),
            op(4, set(3), Some((21, file(3)))),
            op(5, STAT, Some((6, file(first)))),
            op(7, STAT, Some((8, file(second)))),
        ]
    };
    passes(&reads(2, 3));
    passes(&reads(3, 2));
    passes(&reads(1, 3));
    fails(&reads(2, 1));
}

#[test]
fn what_is_applied_twice_is_found() {
    // The retry of a make meets its own file.
    fails(&[op(1, make(1), Some((2, EXISTS)))]);
    // The retry of an unlink finds nothing.
    fails(&[op(1, make(1), Some((2, file(1)))), op(3, Call::Unlink { name: A }, Some((4, ABSENT)))]);
    // The retry of a change undoes the change after it.
    let twice = |uid| {
        [
            op(1, make(1), Some((2, file(1)))),
            op(3, set(2), Some((30, file(2)))),
            op(4, STAT, Some((5, file(2)))),
            op(6, set(3), Some((7, file(3)))),
            op(8, STAT, Some((9, file(uid)))),
        ]
    };
    passes(&twice(3));
    fails(&twice(2));
}

#[test]
fn an_unanswered_operation_takes_effect_once_at_any_later_time_or_never() {
    let reads = |first, second, third| {
        [
            op(1, make(1), Some((2, file(1)))),
            op(3, set(2), None),
            op(4, STAT, Some((5, file(first)))),
            op(6, set(3), Some((7, file(3)))),
            op(8, STAT, Some((9, file(second)))),
            op(10, STAT, Some((11, file(third)))),
        ]
    };
    passes(&reads(1, 3, 3));
    passes(&reads(2, 3, 3));
    passes(&reads(1, 3, 2));
    passes(&reads(1, 2, 2));
    fails(&reads(2, 3, 2));
    fails(&reads(1, 2, 3));
    assert_eq!(passes(&reads(1, 3, 3)).unanswered, 1);
    // Not before its call.
    fails(&[op(1, LOOKUP, Some((2, file(1)))), op(3, make(1), None)]);
}

#[test]
fn a_rename_moves_both_names_at_once() {
    let listed = |names: &[Name]| {
        let seen = Seen { ino: 10, nlink: 1, mode: 0o644, uid: 1, size: 0 };
        Answer::Names(names.iter().map(|name| (*name, seen)).collect())
    };
    let rename = Call::Rename { from: A, to: B, mode: RenameMode::NoReplace };
    let during = |names: &[Name]| {
        [
            op(1, make(1), Some((2, file(1)))),
            op(3, rename.clone(), Some((8, Answer::Done))),
            op(4, Call::List, Some((5, listed(names)))),
        ]
    };
    passes(&during(&[A]));
    passes(&during(&[B]));
    fails(&during(&[A, B]));
    fails(&during(&[]));
}

#[test]
fn groups_are_judged_one_by_one_and_must_be_independent() {
    let in_group = |group, mut operation: Operation| {
        operation.group = group;
        operation
    };
    let sound = op(1, make(1), Some((2, file(1))));
    let other = in_group(7, op(3, LOOKUP, Some((4, ABSENT))));
    assert_eq!(passes(&[sound.clone(), other.clone()]).groups, 2);
    let bad = in_group(8, op(5, Call::Unlink { name: A }, Some((6, Answer::Done))));
    let told = fails(&[sound.clone(), other, bad]);
    assert!(told.contains("1 of 3 groups") && told.contains("group 8"), "{told}");
    let same = in_group(7, op(3, make(1), Some((4, file(1)))));
    assert_eq!(check(&[sound, same]), Err(Failure::Shared { ino: 10, first: 0, second: 7 }));
}

#[test]
fn law_27_what_is_beyond_a_bound_is_undecided_and_no_pass() {
    let long: Vec<Operation> = (0..=MAX_OPERATIONS as u64).map(|at| op(2 * at + 1, LOOKUP, Some((2 * at + 2, ABSENT)))).collect();
    assert!(matches!(check(&long), Err(Failure::Undecided { group: 0, bound: MAX_OPERATIONS, .. })));
    passes(&long[..MAX_OPERATIONS]);
    // Nobody got an answer, and a reader saw what none of them wrote: each set of them must be looked at.
    let mut wide: Vec<Operation> = (1..30).map(|uid| op(u64::from(uid) + 2, set(uid), None)).collect();
    wide.push(op(1, make(1), Some((2, file(1)))));
    wide.push(op(100, STAT, Some((101, file(77)))));
    assert!(matches!(check(&wide), Err(Failure::Undecided { group: 0, .. })));
}

#[test]
fn stamps_that_run_backwards_are_damage() {
    let history = [op(2, LOOKUP, Some((2, ABSENT)))];
    assert_eq!(check(&history), Err(Failure::Damaged { group: 0, client: 2, called: 2 }));
}
