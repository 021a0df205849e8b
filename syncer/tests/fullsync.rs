//! The full sync against listings of every shape (laws 15, 17, 18).

#[cfg(test)]
mod fixture;

use farshore_syncer::fullsync::*;
use farshore_syncer::*;
use farshore_types::*;
use fixture::*;

fn listing(blocks: &[BlockKey]) -> Vec<Listed> {
    let mut names: Vec<Listed> = blocks.iter().map(|block| (block.object_name(), u64::from(block.size))).collect();
    names.sort();
    names
}

/// Runs a whole comparison, a page of `page` names at a time.
fn compare(shore: &Shore, begin: LogIndex, names: &[Listed], page: usize) -> Vec<Finding> {
    let mut comparer = Comparer::new(begin, BLOCK);
    let mut findings = Vec::new();
    shore.read(|kv| {
        for page in names.chunks(page) {
            findings.extend(comparer.page(kv, page, false).expect("the listing is sound"));
        }
        findings.extend(comparer.page(kv, &[], true).expect("it ends once"));
        while let Some(more) = comparer.sweep(kv, 1).expect("memory does not fail") {
            findings.extend(more);
        }
    });
    assert_eq!((comparer.listed(), comparer.is_partial()), (names.len() as u64, false));
    findings
}

/// Burns slice ids, so that directories begin.
fn skip_ids(shore: &mut Shore, count: u32) {
    shore.alloc(count);
}

#[test]
fn a_bucket_that_agrees_has_no_findings_at_any_page_border() {
    let mut shore = Shore::new();
    let mut all = Vec::new();
    // Directories 0, 2, 9, 10, 12 and 1000 and more: `10` lists before `2`, and chunks/1/1000 before chunks/0's end does not.
    for skip in [0, 2_000, 7_000, 1_000, 2_000, 65_000, 65_000, 65_000, 65_000, 65_000] {
        if skip > 0 {
            skip_ids(&mut shore, skip);
        }
        all.extend(shore.add(HERE, 2 * BLOCK + 1));
        all.extend(shore.add(HERE, 1));
    }
    let names = listing(&all);
    assert_ne!(
        names,
        all.iter().map(|block| (block.object_name(), u64::from(block.size))).collect::<Vec<_>>(),
        "the orders differ"
    );
    for page in [1, 2, 3, 7, 1000] {
        assert_eq!(compare(&shore, shore.applied(), &names, page), [], "pages of {page}");
    }
}

#[test]
fn law_15_missing_blocks_are_found_also_where_a_whole_directory_is_gone() {
    let mut shore = Shore::new();
    let mut groups = Vec::new();
    for _ in 0..4 {
        groups.push([shore.add(HERE, BLOCK + 1), shore.add(HERE, 1)].concat());
        skip_ids(&mut shore, 3000);
    }
    // One block of the first directory, and all of the second and last.
    let kept: Vec<_> = groups[0][1..].iter().chain(&groups[2]).copied().collect();
    let mut gone: Vec<_> = groups[0][..1].iter().chain(&groups[1]).chain(&groups[3]).copied().collect();
    gone.sort();
    let mut found = compare(&shore, shore.applied(), &listing(&kept), 2);
    let missing = |finding: &Finding| match finding {
        Finding::Missing(block) => *block,
        other => panic!("{other:?} is not missing"),
    };
    found.sort_by_key(missing);
    assert_eq!(found.iter().map(missing).collect::<Vec<_>>(), gone);
    assert_eq!(compare(&shore, shore.applied(), &[], 1).len(), 12, "an empty bucket");
}

#[test]
fn what_is_owed_or_was_added_after_the_begin_is_not_missing() {
    let mut shore = Shore::new();
    let begin = shore.applied();
    shore.add(HERE, 1);
    assert_eq!(compare(&shore, begin, &[], 1), []);
    shore.add(THERE, 1);
    assert_eq!(compare(&shore, shore.applied(), &[], 1).len(), 1, "the owed one is debt, not damage");
}

#[test]
fn law_17_unknown_and_foreign_objects_are_reported_and_those_that_wait_for_deletion_are_not() {
    let mut shore = Shore::new();
    let (live, dropped) = (shore.add(HERE, 5), shore.add(HERE, 6));
    shore.drop_slice(&dropped);
    let stranger = BlockKey { slice: SliceId(777), index: 0, size: 9 };
    let other_size = BlockKey { size: 4, ..live[0] };
    let mut names = listing(&[live[0], dropped[0], stranger, other_size]);
    names.push(("chunks/x".into(), 3));
    names.sort();
    let findings = compare(&shore, shore.applied(), &names, 2);
    assert_eq!(findings.len(), 4, "{findings:?}");
    let run = shore.local(LocalOp::FullSyncStart { begin: shore.applied() }).run.unwrap();
    shore.local(LocalOp::FullSyncGroup { run, findings });
    shore.local(LocalOp::FullSyncFinish { run, listed: 5, partial: false });
    let report = shore.read(|kv| fullsync(kv).unwrap()).last.unwrap();
    let counts: Vec<_> = report.counts.into_iter().collect();
    assert_eq!(counts, [(FindingKind::PendingDeletion, 1), (FindingKind::Unknown, 2), (FindingKind::Foreign, 1)]);
    let kept = shore.read(|kv| findings_of(kv, run));
    assert_eq!((kept.len(), report.kept), (3, 3));
    assert_eq!(shore.marks().deletion_held.blocks, 1, "nothing is queued for deletion by a full sync");
}

fn findings_of(kv: &dyn farshore_meta::kv::KvRead, run: u64) -> Vec<Finding> {
    findings(kv, run).expect("memory does not fail")
}

#[test]
fn law_15_damage_is_judged_again_in_apply_and_a_dropped_block_is_not_brought_back() {
    let mut shore = Shore::new();
    let (lost, cut, dropped) = (shore.add(HERE, 5), shore.add(HERE, 6), shore.add(HERE, 7));
    let run = shore.local(LocalOp::FullSyncStart { begin: shore.applied() }).run.unwrap();
    let found = compare(&shore, shore.applied(), &[(cut[0].object_name(), 1)], 1);
    assert_eq!(found, [Finding::Missing(lost[0]), Finding::WrongSize { block: cut[0], found: 1 }, Finding::Missing(dropped[0])]);
    shore.drop_slice(&dropped);
    let outcome = shore.local(LocalOp::FullSyncGroup { run, findings: found.clone() });
    assert_eq!((outcome.damaged, shore.marks().damaged), (2, 2));
    assert_eq!(shore.local(LocalOp::FullSyncGroup { run: run + 1, findings: found }).damaged, 0, "another run's findings");
    assert_eq!(shore.marks().data_synced, Some(shore.applied()));
    let row = shore.read(|kv| damage(kv, cut[0]).unwrap().unwrap());
    assert_eq!(row.kind, DamageKind::WrongSize);
}

#[test]
fn a_listing_out_of_order_is_refused_and_changes_nothing() {
    let mut shore = Shore::new();
    let blocks = shore.add(HERE, 2 * BLOCK);
    let names = listing(&blocks);
    let mut comparer = Comparer::new(shore.applied(), BLOCK);
    shore.read(|kv| {
        let turned: Vec<Listed> = names.iter().rev().cloned().collect();
        assert!(matches!(comparer.page(kv, &turned, false), Err(CompareError::OutOfOrder { .. })));
        assert_eq!((comparer.listed(), comparer.resume_after()), (0, None));
        comparer.page(kv, &names[..1], false).unwrap();
        assert_eq!(comparer.resume_after(), Some(names[0].0.as_str()));
        assert!(matches!(comparer.page(kv, &names[..1], false), Err(CompareError::OutOfOrder { .. })), "a page twice");
        assert_eq!(comparer.page(kv, &names[1..], true).unwrap(), []);
        assert!(matches!(comparer.page(kv, &[], true), Err(CompareError::AfterEnd)));
    });
}

#[test]
fn the_report_keeps_its_bound_and_the_next_run_is_kept_in_state() {
    let mut shore = Shore::new();
    shore.local(LocalOp::FullSyncSchedule { interval: ControlTime(100) });
    let due = |shore: &Shore, at| shore.read(|kv| is_due(kv, ControlTime(at)).unwrap());
    assert!(!due(&shore, 99) && due(&shore, 100));
    let run = shore.local(LocalOp::FullSyncStart { begin: shore.applied() }).run.unwrap();
    assert!(!due(&shore, 100), "one runs");
    assert_eq!(shore.local(LocalOp::FullSyncStart { begin: shore.applied() }).run, None);
    let foreign = |n: usize| Finding::Foreign { name: format!("{n}{}", "ä".repeat(2000)), size: 1 };
    shore.local(LocalOp::FullSyncGroup { run, findings: (0..1500).map(foreign).collect() });
    shore.local(LocalOp::Tick { delta: ControlTime(7) });
    shore.local(LocalOp::FullSyncFinish { run, listed: 1500, partial: false });
    let state = shore.read(|kv| fullsync(kv).unwrap());
    assert_eq!(state.next, Some(ControlTime(107)));
    let kept = shore.read(|kv| findings_of(kv, run));
    assert_eq!((kept.len() as u32, state.last.unwrap().counts[&FindingKind::Foreign]), (FINDINGS_KEPT, 1500));
    assert!(kept.iter().all(|finding| matches!(finding, Finding::Foreign { name, .. } if name.len() <= FOREIGN_NAME_MAX)));
    // The next report replaces the findings of this one.
    let next = shore.local(LocalOp::FullSyncStart { begin: shore.applied() }).run.unwrap();
    shore.local(LocalOp::FullSyncFinish { run: next, listed: 0, partial: true });
    assert_eq!(shore.read(|kv| findings_of(kv, run)), []);
}

#[test]
fn a_rewind_gives_a_running_sync_up_and_it_is_due_again() {
    let mut shore = Shore::new();
    shore.local(LocalOp::FullSyncSchedule { interval: ControlTime(100) });
    let to = shore.applied();
    shore.add(HERE, 1);
    shore.local(LocalOp::FullSyncStart { begin: shore.applied() });
    shore.rewind(to);
    let state = shore.read(|kv| fullsync(kv).unwrap());
    assert!(state.running.is_none() && state.last.unwrap().partial);
    assert!(shore.read(|kv| is_due(kv, ControlTime(0)).unwrap()));
}

#[test]
fn law_27_a_million_names_pass_in_bounded_memory() {
    let shore = Shore::new();
    let mut comparer = Comparer::new(shore.applied(), BLOCK);
    let mut unknown = 0;
    // In the order of names: 4,000 directories of 250 objects, none of which metadata names.
    let mut directories: Vec<u64> = (0..4000).collect();
    directories.sort_by_key(|directory| format!("{}/{directory}/", directory / 1000));
    shore.read(|kv| {
        for directory in directories {
            let ids = (0..250).map(|n| directory * 1000 + n).filter(|id| *id > 0);
            let mut page: Vec<Listed> = ids.map(|id| (format!("chunks/{}/{directory}/{id}_0_1", directory / 1000), 1)).collect();
            page.sort();
            unknown += comparer.page(kv, &page, false).unwrap().len();
        }
        unknown += comparer.page(kv, &[], true).unwrap().len();
        while comparer.sweep(kv, 100).unwrap().is_some() {}
    });
    assert_eq!((unknown, comparer.listed()), (999_999, 999_999));
    assert_eq!(comparer.ranges(), 1, "finished directories join to one range");
}
