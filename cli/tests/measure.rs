//! `farshore mdtest` and `farshore bench` on a directory of this machine, from outside.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farshore"));
    command.args(args).env_remove("FARSHORE_DIR").env_remove("FARSHORE_TOPOLOGY").env_remove("RUST_LOG");
    command
}

fn farshore(args: &[&str]) -> Output {
    command(args).output().expect("the binary starts")
}

fn names(dir: &Path) -> Vec<String> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn mdtest_prints_the_summary_or_json_and_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().to_str().unwrap();
    let output = farshore(&["mdtest", dir, "--threads", "2", "--files", "3", "--iterations", "2"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("SUMMARY rate (in ops/sec): (of 2 iterations)"), "{text}");
    for line in ["Directory creation", "File stat", "File read", "Tree removal"] {
        assert!(text.lines().any(|printed| printed.trim_start().starts_with(line)), "no {line} in: {text}");
    }
    assert!(output.stderr.is_empty(), "no progress where no terminal is");
    let output = farshore(&["mdtest", dir, "--files", "3", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["operations"]["file_creation"]["rates"].as_array().unwrap().len(), 1);
    assert_eq!(names(temp.path()), Vec::<String>::new());
}

#[test]
fn bench_prints_the_box_or_json_and_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().to_str().unwrap();
    let small = ["bench", dir, "--big-file-size", "2", "--small-file-count", "4", "--keep-caches", "--threads", "2"];
    let output = farshore(&small);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("BigFileSize: 2.0 MiB, SmallFileSize: 128.0 KiB, SmallFileCount: 4, NumThreads: 2"), "{text}");
    for line in ["ITEM", "Write big file", "Read small file", "Stat file", "MiB/s", "ms/file", "Time used"] {
        assert!(text.contains(line), "no {line} in: {text}");
    }
    let output = farshore(&[small.as_slice(), &["--json"]].concat());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["items"]["write_small_file"]["files"], 8);
    assert_eq!(names(temp.path()), Vec::<String>::new());
}

#[test]
fn what_cannot_be_measured_is_refused_with_its_mend() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().to_str().unwrap();
    std::fs::create_dir(temp.path().join("farshore-mdtest")).unwrap();
    std::fs::write(temp.path().join("file"), "x").unwrap();
    let file = temp.path().join("file");
    let cases: [(&[&str], i32, &str); 8] = [
        (&["mdtest", dir], 2, "farshore-mdtest exists"),
        (&["mdtest", "/nonexistent/dir"], 1, "is the path right?"),
        (&["mdtest", file.to_str().unwrap()], 2, "is not a directory"),
        (&["mdtest", dir, "--sessions", "2"], 2, "--sessions is for VOLUME:/PATH"),
        (&["mdtest", dir, "--dirs", "1000", "--depth", "9"], 2, "is too much"),
        (&["mdtest", dir, "--threads", "0"], 2, "--threads"),
        (&["bench", dir, "--block-size", "0"], 2, "--block-size"),
        (&["bench", dir, "--big-file-size", "1GB"], 2, "is no size"),
    ];
    for (args, code, says) in cases {
        let output = farshore(args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        assert!(text.contains(says), "{args:?}: {text}");
    }
    assert!(temp.path().join("farshore-mdtest").exists(), "what was there stays");
}

#[test]
fn an_interrupted_load_removes_what_it_made() {
    let temp = tempfile::tempdir().unwrap();
    let args = ["mdtest", temp.path().to_str().unwrap(), "--threads", "2", "--files", "100000"];
    let mut child = command(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    // It is at work once the tree has a name of the load in it.
    let tree = temp.path().join("farshore-mdtest/mdtest_tree.0");
    while !std::fs::read_dir(&tree).is_ok_and(|mut names| names.any(|name| name.unwrap().file_name() == "dir.mdtest.0.0")) {
        assert!(began.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none(), "it does not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    // SAFETY: the child is ours and was not waited for, so its pid is its own.
    assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) }, 0);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted"));
    assert_eq!(names(temp.path()), Vec::<String>::new());
}
