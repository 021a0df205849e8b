//! The built binary from outside: exit codes, and the errors of `up` before anything is started.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

const TOPOLOGY: &str = include_str!("../../topology.toml");

fn farshore(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farshore"));
    command.args(args).env_remove("FARSHORE_DIR").env_remove("FARSHORE_TOPOLOGY").env_remove("RUST_LOG");
    command.output().expect("the binary starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn refused(args: &[&str], code: i32, says: &[&str]) -> String {
    let output = farshore(args);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
    for word in says {
        assert!(text.contains(word), "{args:?} does not say {word:?}: {text}");
    }
    text
}

/// The default topology on ports that were free a moment ago, all distinct.
fn topology_on_free_ports(dir: &Path) -> (String, Vec<u16>) {
    let ports: Vec<&str> = TOPOLOGY.split("127.0.0.1:").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    let held: Vec<TcpListener> = ports.iter().map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let free: Vec<u16> = held.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
    let mut pieces = TOPOLOGY.split("127.0.0.1:");
    let mut text = pieces.next().unwrap().to_owned();
    for (piece, port) in pieces.zip(&free) {
        text.push_str(&format!("127.0.0.1:{port}\"{}", piece.split_once('"').unwrap().1));
    }
    let path = dir.join("topology.toml");
    std::fs::write(&path, text).unwrap();
    (path.display().to_string(), free)
}

#[test]
fn verbs_of_a_later_version_say_so_with_exit_code_2() {
    let verbs = [
        "plan",
        "apply",
        "destroy",
        "config",
        "mirror",
        "switchover",
        "failover",
        "failback",
        "fsck",
        "gc",
        "doctor",
        "events",
        "wait",
        "drill",
        "restore",
        "fence",
    ];
    for verb in verbs {
        refused(&[verb, "demo", "--to", "eu-west", "--dry-run"], 2, &["error:", verb, "not available yet"]);
    }
    for action in ["enable", "disable", "limit", "retry", "write-off"] {
        refused(&["replication", action, "demo"], 2, &["not available yet"]);
    }
    refused(&["node", "recover", "--from-survivor"], 2, &["not available yet"]);
    refused(&["worker", "drain", "w-1"], 2, &["not available yet"]);
    refused(&["mount", "demo", "/nowhere", "--bucket2", "x"], 2, &["not available yet"]);
}

#[test]
fn help_lists_every_verb_and_marks_the_later_ones() {
    let output = farshore(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for verb in
        ["up", "down", "status", "lag", "replication", "heal", "mount", "umount", "ls", "cat", "cp", "rm", "stat", "worker"]
    {
        assert!(text.lines().any(|line| line.trim_start().starts_with(&format!("{verb} "))), "no {verb} in: {text}");
    }
    assert!(text.lines().any(|line| line.contains("failover") && line.contains("not available yet")), "{text}");
}

#[test]
fn bad_usage_is_exit_code_2() {
    refused(&["node"], 2, &["name of a node"]);
    refused(&["node", "use-a", "use-b"], 2, &["one name"]);
    refused(&["node", "run", "use-x"], 2, &["no node", "use-x"]);
    refused(&["node", "use-x"], 2, &["no node", "use-x"]);
    refused(&["node", "replace", "use-b"], 2, &["--with"]);
    refused(&["node", "add", "use-d"], 2, &["declares no node", "use-d", "listen"]);
    refused(&["upp"], 2, &["upp"]);
    refused(&["lag", "--topology", "/nonexistent/topology.toml"], 2, &["/nonexistent/topology.toml", "--topology"]);
    refused(&["replication", "stat"], 2, &["status"]);
    refused(&["ls", "somewhere"], 2, &["VOLUME:/PATH"]);
    refused(&["cp", "/a", "/b"], 2, &["VOLUME:/PATH"]);
}

#[test]
fn a_broken_topology_names_key_and_mend() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("t.toml");
    std::fs::write(&path, TOPOLOGY.replace("listen = \"127.0.0.1:7432\"", "lisen = \"127.0.0.1:7432\"")).unwrap();
    let dir = temp.path().join("world");
    let args = ["up", "--topology", path.to_str().unwrap(), "--dir", dir.to_str().unwrap()];
    refused(&args, 2, &["region.eu-west.nodes[1].lisen", "`listen`"]);
    assert!(!dir.exists(), "nothing is made before the topology is understood");
}

#[test]
fn up_with_a_held_port_names_key_and_port_and_starts_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let (topology, ports) = topology_on_free_ports(temp.path());
    let dir = temp.path().join("world");
    // The eighth address of the file is the metrics of the first region's third node... found by its text.
    let text = std::fs::read_to_string(&topology).unwrap();
    let line = text.lines().find(|line| line.contains("\"use-b\"")).unwrap();
    let port: u16 = line.split("127.0.0.1:").nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
    assert!(ports.contains(&port));
    let _held = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let args = ["up", "--topology", &topology, "--dir", dir.to_str().unwrap()];
    refused(&args, 1, &["region.us-east.nodes[1].listen", &port.to_string(), "change the key"]);
    assert!(!dir.join("pids").exists(), "nothing was started");
}

#[test]
fn up_in_a_directory_that_cannot_be_written() {
    let temp = tempfile::tempdir().unwrap();
    let (topology, _) = topology_on_free_ports(temp.path());
    // Root may write everywhere, so the obstacle is a file where a directory must be.
    let file = temp.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let dir = file.join("world");
    refused(&["up", "--topology", &topology, "--dir", dir.to_str().unwrap()], 1, &["cannot be written", "--dir"]);
}

#[test]
fn up_in_a_directory_with_other_files_or_another_world() {
    let temp = tempfile::tempdir().unwrap();
    let (topology, _) = topology_on_free_ports(temp.path());
    let dir = temp.path().join("thesis");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("thesis.txt"), "x").unwrap();
    let args = ["up", "--topology", &topology, "--dir", dir.to_str().unwrap()];
    refused(&args, 2, &["holds files, and no world"]);
    refused(&["down", "--purge", "--dir", dir.to_str().unwrap()], 2, &["no world lives in"]);
    assert!(dir.join("thesis.txt").exists());
}

#[test]
fn with_no_world_up_lag_and_status_say_what_is_not_known() {
    let temp = tempfile::tempdir().unwrap();
    let (topology, _) = topology_on_free_ports(temp.path());
    let dir = temp.path().join("world");
    let at = ["--topology", topology.as_str(), "--dir", dir.to_str().unwrap()];
    let run = |verb: &[&str]| farshore(&[verb, at.as_slice()].concat());
    let check = run(&["lag", "demo", "--check", "--json"]);
    assert_eq!(check.status.code(), Some(4), "{}", stderr(&check));
    let view: serde_json::Value = serde_json::from_slice(&check.stdout).unwrap();
    assert_eq!((&view["stale"], &view["regions"][1]["region"]), (&true.into(), &"eu-west".into()));
    assert!(view["regions"][1]["committed"].is_null() && view["regions"][1]["blocks_behind"].is_null());
    assert_eq!(run(&["lag"]).status.code(), Some(1));
    let status = run(&["status", "--json"]);
    assert_eq!(status.status.code(), Some(1));
    let view: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(view["nodes"].as_array().unwrap().len(), 6);
    assert!(view["nodes"].as_array().unwrap().iter().all(|node| node["role"] == "down" && node["pid"].is_null()));
    let replication = run(&["replication", "status", "--json"]);
    assert_eq!(replication.status.code(), Some(1));
    let ls = run(&["ls", "nothere:/"]);
    assert_eq!(ls.status.code(), Some(2), "{}", stderr(&ls));
}
