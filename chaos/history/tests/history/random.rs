//! Random histories: what a sound cluster does passes, what a broken one does is found, and on small histories the search
//! says what trying every order says.

use crate::play::{Fault, Play, Random, play};
use farshore_history::model::State;
use farshore_history::{Answer, Answered, Call, Failure, Name, Operation, Seen, check};
use farshore_types::{ErrorKind, RenameMode};
use proptest::prelude::*;

fn sized(seed: u64, fault: Fault) -> Play {
    let mut random = Random(seed ^ 1);
    let (clients, lost) = (2 + random.below(8) as usize, random.below(60));
    Play { seed, clients, operations: 3000, lost, fault }
}

fn must_be_found(seed: u64, fault: Fault) {
    let sound = play(sized(seed, Fault::None));
    if let Err(failure) = check(&sound) {
        panic!("without the fault: {failure}");
    }
    match check(&play(sized(seed, fault))) {
        Err(Failure::Violation { witness, .. }) => assert!(witness.operations.len() < 60, "{witness}"),
        other => panic!("{fault:?} was not found: {other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_a_sound_cluster_does_passes(seed in any::<u64>()) {
        let history = play(sized(seed, Fault::None));
        let checked = check(&history).map_err(|failure| TestCaseError::fail(failure.to_string()))?;
        prop_assert_eq!(checked.operations, 3000);
    }

    #[test]
    fn a_planted_stale_read_is_found(seed in any::<u64>()) {
        must_be_found(seed, Fault::StaleRead);
    }

    #[test]
    fn a_planted_double_apply_is_found(seed in any::<u64>()) {
        must_be_found(seed, Fault::DoubleApply);
    }
}

/// Whether some order explains the answers, by trying all.
fn has_order(history: &[Operation], state: &State, taken: u32) -> bool {
    let open = |at: &usize| taken & (1 << at) == 0;
    let places: Vec<usize> = (0..history.len()).filter(open).collect();
    let returned = |at: usize| history[at].answered.as_ref().map_or(u64::MAX, |answered| answered.at);
    if places.iter().all(|at| history[*at].answered.is_none()) {
        return true;
    }
    let first_return = places.iter().map(|at| returned(*at)).min().unwrap_or(u64::MAX);
    places.iter().filter(|at| history[**at].called < first_return).any(|at| {
        let operation = &history[*at];
        let after = state.after(*at as u32, &operation.call, operation.answer());
        after.iter().any(|after| has_order(history, after, taken | 1 << at))
    })
}

/// Calls to the names, or to the one file's attributes, and what may be answered.
fn small() -> impl Strategy<Value = Vec<Operation>> {
    let name = || (0u8..2).prop_map(Name);
    let names = prop_oneof![
        3 => (name(), 1u32..3).prop_map(|(name, uid)| Call::Make { name, uid }),
        2 => name().prop_map(|name| Call::Unlink { name }),
        1 => name().prop_map(|from| Call::Rename { from, to: Name(1 - from.0), mode: RenameMode::Replace }),
        2 => name().prop_map(|name| Call::Lookup { name }),
        1 => Just(Call::GetAttr { ino: 10 }),
    ];
    let attributes = prop_oneof![
        1 => (1u32..3).prop_map(|uid| Call::SetAttr { ino: 10, mode: 0o644, uid }),
        3 => (1u64..3).prop_map(|size| Call::Truncate { ino: 10, size }),
        3 => (1u32..3).prop_map(|size| Call::Commit { ino: 10, size }),
        3 => Just(Call::GetAttr { ino: 10 }),
    ];
    let nlink = prop_oneof![1 => Just(0u32), 9 => Just(1)];
    let of_names = (nlink, 1u32..3).prop_map(|(nlink, uid)| Seen { ino: 10, nlink, mode: 0o644, uid, size: 0 });
    let uid = prop_oneof![5 => Just(1u32), 1 => Just(2)];
    let of_attributes = (uid, 0u64..3).prop_map(|(uid, size)| Seen { ino: 10, nlink: 1, mode: 0o644, uid, size });
    prop_oneof![timed(names, of_names, 3), timed(attributes, of_attributes, 0)]
}

/// Histories in which anything may be answered, right or wrong; of ten answers `refused` are refusals.
fn timed(
    call: impl Strategy<Value = Call>,
    seen: impl Strategy<Value = Seen>,
    refused: usize,
) -> impl Strategy<Value = Vec<Operation>> {
    let answer = (seen, 0..10usize);
    let one = (call, answer, 1u64..12, 1u64..12, any::<u8>());
    proptest::collection::vec(one, 1..6).prop_map(move |drawn| {
        let file = Answer::Inode(Seen { ino: 10, nlink: 1, mode: 0o644, uid: 1, size: 0 });
        let answered = Some(Answered { at: 180, answer: file, index: None });
        let first = Call::Make { name: Name(0), uid: 1 };
        let mut history = vec![Operation { client: 9, group: 0, called: 99, call: first, answered }];
        for (at, (call, (seen, bad), called, takes, lost)) in drawn.into_iter().enumerate() {
            let kind = [ErrorKind::NotFound, ErrorKind::Exists, ErrorKind::Stale][bad % 3];
            let answer = match call {
                _ if bad < refused => Answer::Refused(kind),
                Call::Unlink { .. } | Call::Rename { .. } => Answer::Done,
                _ => Answer::Inode(seen),
            };
            // All stamps differ, and calls lie close enough to overlap.
            let (called, returned) = (called * 100 + at as u64, (called + takes) * 100 + 50 + at as u64);
            let answered = (lost > 80).then_some(Answered { at: returned, answer, index: None });
            history.push(Operation { client: at as u32, group: 0, called, call, answered });
        }
        history
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn the_search_agrees_with_trying_every_order(history in small()) {
        let expected = has_order(&history, &State::default(), 0);
        prop_assert_eq!(check(&history).is_ok(), expected);
    }
}

/// A property that is never false shows nothing: both verdicts are drawn.
#[test]
fn small_histories_are_of_both_kinds() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let verdict = |runner: &mut TestRunner| check(&small().new_tree(runner).expect("a history can be drawn").current()).is_ok();
    let sound = (0..400).filter(|_| verdict(&mut runner)).count();
    assert!((40..360).contains(&sound), "{sound} of 400 are linearizable");
}
