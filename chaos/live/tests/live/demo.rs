//! `farshore demo`: the whole story passes, with FUSE and without, and leaves nothing behind.

use farshore_live::{binary, fuse, process, take_turn, wait_for};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Until the demonstration must have ended, in a debug build on a small machine that does other work.
const DEMO_WITHIN: Duration = Duration::from_secs(600);
const SOON: Duration = Duration::from_secs(60);
const FUSE_DEVICE: &str = "/dev/fuse";
/// Puts the device on a mount where devices cannot be opened, in a table of mounts of its own, and becomes the program.
const WITHOUT_FUSE: &str = "mount --bind /dev/fuse /dev/fuse && mount -o remount,bind,nodev /dev/fuse && exec \"$@\"";

/// Processes whose command line names something below a directory.
fn processes_of(directory: &Path) -> Vec<String> {
    let wanted = directory.to_str().unwrap();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // Those that end while this looks cannot be read, and are gone.
    let lines = numbers.filter_map(|pid| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some(format!("{pid}: {}", String::from_utf8_lossy(&words).replace('\0', " ")))
    });
    lines.filter(|line| line.contains(wanted)).collect()
}

/// Runs the demonstration and checks its verdict against what is left behind; gives the verdict.
fn demonstrate(mut command: Command) -> Value {
    let _turn = take_turn();
    // It makes its own directory below this one, which then is the mark of all that belongs to it.
    let base = tempfile::Builder::new().prefix("farshore-live-demo-").tempdir().unwrap();
    command.env("TMPDIR", base.path()).env_remove("FARSHORE_DIR").env_remove("FARSHORE_TOPOLOGY");
    let ended = process::run(&mut command, DEMO_WITHIN);
    let told = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert_eq!(ended.status.code(), Some(0), "{told}{}", ended.stderr);
    let verdict: Value = serde_json::from_slice(&ended.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {told}"));
    assert_eq!(verdict["passed"], true, "{told}");
    let steps = verdict["steps"].as_array().unwrap();
    assert!(steps.len() > 1, "a story has steps: {told}");
    for step in steps {
        assert_eq!(step["passed"], true, "{step}");
        assert!(step["told"].as_str().is_some_and(|told| !told.is_empty()), "{step}");
    }
    assert_eq!(processes_of(base.path()), Vec::<String>::new(), "left running");
    let below = fuse::mounts().into_iter().filter(|mount| mount.point.starts_with(base.path()));
    assert_eq!(below.collect::<Vec<_>>(), [], "left mounted");
    let left: Vec<_> = std::fs::read_dir(base.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, Vec::<std::path::PathBuf>::new(), "left on the disk");
    verdict
}

#[test]
fn the_demonstration_passes_and_leaves_nothing_behind() {
    if !fuse::require_fuse() {
        return;
    }
    let mut command = Command::new(binary::farshore());
    command.args(["demo", "--json"]);
    assert_eq!(demonstrate(command)["fuse"], true, "it is told with mounts where there is FUSE");
}

#[test]
fn the_demonstration_passes_where_fuse_is_unusable() {
    let mut command;
    if Path::new(FUSE_DEVICE).exists() {
        if !fuse::require_fuse() {
            return;
        }
        command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", WITHOUT_FUSE, "sh"]).arg(binary::farshore());
    } else {
        command = Command::new(binary::farshore());
    }
    command.args(["demo", "--json"]);
    assert_eq!(demonstrate(command)["fuse"], false, "there is none");
}

#[test]
fn a_process_that_is_left_running_is_found() {
    let base = tempfile::tempdir().unwrap();
    let mut child = Command::new("sh")
        .args(["-c", "read line; :", "sh"])
        .arg(base.path().join("world"))
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // A child is listed under its words only when its program has been loaded, which `spawn` does not wait for.
    let found = wait_for("the child to be listed", SOON, || Some(processes_of(base.path())).filter(|found| !found.is_empty()));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(processes_of(base.path()).is_empty());
}
