//! Both loads on a directory here, their tables, and what they leave behind.

use super::crew::{Crew, Stop};
use super::files::{Files, Item, Report, Sizes};
use super::ground::Ground;
use super::local::Local;
use super::place::Workload;
use super::table;
use super::tree::{Operation, Rates, Shape, Tree};
use crate::error::CliError;
use std::path::Path;
use std::time::Duration;

fn shape() -> Shape {
    Shape { dirs: 2, depth: 2, files: 3, write: 10, iterations: 2, drop_caches: false }
}

fn crew(dir: &Path, threads: usize, stop: Stop) -> Crew<Local> {
    Crew::new(vec![Local::open(dir).unwrap(); threads], stop, true)
}

#[test]
fn a_tree_is_gone_after_it_was_measured_and_every_operation_has_a_rate_for_each_iteration() {
    let temp = tempfile::tempdir().unwrap();
    let crew = crew(temp.path(), 3, Stop::default());
    let rates = Tree(shape()).run(&crew, &crew.ground().top()).unwrap();
    for operation in Operation::ALL {
        let of = rates.of(operation);
        assert_eq!(of.len(), 2, "{operation:?}");
        assert!(of.iter().all(|rate| rate.is_finite() && *rate > 0.0), "{operation:?}: {of:?}");
    }
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
}

#[test]
fn what_was_not_removed_by_the_load_is_found() {
    let temp = tempfile::tempdir().unwrap();
    let crew = crew(temp.path(), 1, Stop::default());
    std::fs::create_dir(temp.path().join("mdtest_tree.0")).unwrap();
    let error = Tree(shape()).run(&crew, &crew.ground().top()).unwrap_err();
    assert!(error.what.contains("mdtest_tree.0"), "{error}");
}

#[test]
fn a_load_that_is_stopped_says_so() {
    let temp = tempfile::tempdir().unwrap();
    let stop = Stop::default();
    stop.ask();
    let crew = crew(temp.path(), 2, stop);
    let error = Tree(shape()).run(&crew, &crew.ground().top()).unwrap_err();
    assert_eq!(error.what, "interrupted");
}

#[test]
fn the_first_error_of_any_thread_counts() {
    let temp = tempfile::tempdir().unwrap();
    let crew = crew(temp.path(), 4, Stop::default());
    let failed = crew.phase("x", 4, |hand| match hand.thread {
        2 => Err(CliError::failed("the third", "")),
        _ => hand.step(),
    });
    assert_eq!(failed.unwrap_err().what, "the third");
}

#[test]
fn big_and_small_files_are_written_read_and_removed() {
    let temp = tempfile::tempdir().unwrap();
    let sizes = Sizes { block: 1000, big_file: 2500, small_file: 100, small_files: 5, drop_caches: false };
    let crew = crew(temp.path(), 2, Stop::default());
    let report = Files(sizes).run(&crew, &crew.ground().top()).unwrap();
    // Whole blocks, as `juicefs bench` writes them.
    assert_eq!(report.write_big.map(|item| (item.files, item.bytes)), Some((2, 6000)));
    assert_eq!(report.read_small.map(|item| (item.files, item.bytes)), Some((10, 1000)));
    assert_eq!(report.stat.map(|item| item.files), Some(10));
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
}

#[test]
fn too_large_a_tree_is_refused_before_it_is_made() {
    assert_eq!(Shape { dirs: 3, depth: 2, ..shape() }.tree(), Some(13));
    assert_eq!(Shape { dirs: 0, depth: 5, ..shape() }.tree(), Some(1));
    assert_eq!(Shape { dirs: 10, depth: 60, ..shape() }.tree(), None);
    assert_eq!(Shape { dirs: 10, depth: 60, ..shape() }.check(1).unwrap_err().exit, 2);
    assert_eq!(Shape { files: u64::MAX, ..shape() }.check(1).unwrap_err().exit, 2);
    assert!(shape().check(1024).is_ok());
}

#[test]
fn the_summary_reads_like_mdtest_s() {
    let mut rates = Rates::default();
    rates.add(Operation::FileCreation, 100, Duration::from_secs(1));
    rates.add(Operation::FileCreation, 300, Duration::from_secs(1));
    let text = table::mdtest(&rates, 2);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "SUMMARY rate (in ops/sec): (of 2 iterations)");
    assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["Operation", "Max", "Min", "Mean", "Std", "Dev"]);
    let words: Vec<&str> = lines[3].split_whitespace().collect();
    assert_eq!(words, ["File", "creation", "300.000", "100.000", "200.000", "100.000"]);
    assert_eq!(lines.len(), 4, "an operation that was not done has no line");
    let json = table::mdtest_json(&rates);
    assert_eq!(json["file_creation"]["std_dev"], 100.0);
    assert!(json["tree_removal"].is_null());
}

#[test]
fn the_box_reads_like_juicefs_bench_s() {
    let item = |files, bytes, seconds| Some(Item { files, bytes, took: Duration::from_secs(seconds), threads: 2 });
    let report = Report { write_big: item(2, 2 << 30, 4), write_small: item(100, 100 << 17, 5), ..Report::default() };
    let text = table::bench(&report);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[1], "|       ITEM       |    VALUE     |      COST      |");
    assert_eq!(lines[3], "|   Write big file | 512.00 MiB/s |    4.00 s/file |");
    assert_eq!(lines[4], "|    Read big file |            - |              - |");
    assert_eq!(lines[5], "| Write small file | 20.0 files/s | 100.00 ms/file |");
    let json = table::bench_json(&report);
    assert_eq!(json["write_big_file"]["mib_per_second"], 512.0);
    assert!(json["read_big_file"].is_null());
}
