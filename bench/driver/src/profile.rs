//! Where the processor time of a create goes: Linux's `perf` samples all processors while callers create, and every sample
//! is put down to a kind of process and to what it did there. Shares of samples, times the processor time that the kernel counted.

use crate::cpu::Watch;
use crate::error::BenchError;
use crate::load::{self, What};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Samples a second on each processor; no divisor of the clocks that programs wake by.
const FREQUENCY: &str = "499";
/// Bytes of the stack that come with each sample.
const STACK: &str = "dwarf,16384";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    load: load::Args,
    /// Where the samples are kept meanwhile; some 20 MB a second
    #[arg(long)]
    samples: PathBuf,
}

#[derive(Debug, Serialize)]
pub struct ProfileFigures {
    callers: u16,
    sessions: u16,
    ops_per_second: f64,
    samples: u64,
    /// Microseconds of a create, by kind of process and by what it did.
    us_per_create: BTreeMap<String, BTreeMap<&'static str, f64>>,
}

/// What a function's name says; the innermost frame that says something counts. In each line, what follows on what.
const WHAT: [(&str, &[&str]); 19] = [
    ("network, in the kernel", &["tcp_", "inet_", "sock_", "__sys_recvfrom", "net_rx_action", "__dev_queue_xmit"]),
    (
        "waiting and waking, in the kernel",
        &["futex", "epoll_wait", "do_epoll", "__schedule", "try_to_wake_up", "eventfd", "sched_yield"],
    ),
    ("the log's writes and flushes, in the kernel", &["vfs_fsync", "fdatasync", "sys_pwrite64"]),
    ("the state's pages written", &["mdb_txn_commit", "mdb_page_flush"]),
    ("before-images", &["encode_undo", "put_before_images"]),
    ("ledger", &["farshore_syncer"]),
    ("digest and chain", &["RowHasher", "xxh3", "blake3", "changelog::chain"]),
    ("rows read", &["kv::lmdb::get", "KvRead>::get", "KvRead>::scan"]),
    ("rows written", &["KvWrite>::put", "KvWrite>::delete"]),
    ("sessions' replies", &["Apply>::request", "Apply>::put_talks", "Apply>::say", "Observer>::applied"]),
    ("rest of apply", &["apply_shared", "SharedTxn", "farshore_meta::apply", "Applier<", "farshore_primary::apply"]),
    ("log", &["farshore_changelog", "raft::log_disk", "RaftLog"]),
    ("requests and batches", &["farshore_primary::ingress", "farshore_primary::proposal"]),
    ("changelog's feed and tail", &["farshore_primary::feed", "serve_tail", "farshore_mirror"]),
    ("consensus", &["openraft", "farshore_primary::raft", "farshore_primary::node"]),
    ("client", &["farshore_client", "farshore_bench"]),
    ("gRPC", &["h2::", "hyper", "tonic", "tower", "prost"]),
    ("tasks", &["tokio"]),
    (KERNEL, &["entry_SYSCALL", "do_syscall_64", "asm_"]),
];
/// Said only where no other frame says something.
const KERNEL: &str = "the kernel's rest";
const UNKNOWN: &str = "unknown";

/// `perf` while it records.
struct Recording {
    perf: std::process::Child,
    samples: PathBuf,
}

impl Recording {
    fn begin(args: &Args) -> Result<Recording, BenchError> {
        let mut perf = Command::new("perf");
        perf.args(["record", "-F", FREQUENCY, "--call-graph", STACK, "-a", "-o"]).arg(&args.samples);
        perf.args(["--", "sleep", &args.load.seconds.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let perf = perf.spawn().map_err(|error| BenchError::new("run perf", error))?;
        Ok(Recording { perf, samples: args.samples.clone() })
    }

    /// The samples as text.
    fn end(mut self) -> Result<String, BenchError> {
        let failed = |error: std::io::Error| BenchError::new("run perf", error);
        let status = self.perf.wait().map_err(failed)?;
        if !status.success() {
            return Err(BenchError::new("record with perf", status));
        }
        let mut script = Command::new("perf");
        script.arg("script").arg("-i").arg(&self.samples).args(["--no-inline", "-F", "comm,pid,ip,sym"]);
        let output = script.stdin(Stdio::null()).output().map_err(failed)?;
        std::fs::remove_file(&self.samples).map_err(failed)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

pub async fn run(args: Args) -> Result<ProfileFigures, BenchError> {
    let roles = Watch::of_world(&args.load.world.open()?).await.kinds();
    let recording = Recording::begin(&args)?;
    let (callers, sessions) = (args.load.callers, args.load.sessions);
    let figures = load::run(args.load, What::Creates).await?;
    let samples = counted(&recording.end()?, &roles);
    let cpu = figures.cpu_us_by_kind();
    let mut us_per_create = BTreeMap::new();
    for (role, whats) in &samples {
        let (sum, used) = (whats.values().sum::<u64>() as f64, cpu.get(role).copied().unwrap_or(0.0));
        let shares = whats.iter().map(|(what, count)| (*what, *count as f64 / sum * used));
        us_per_create.insert(role.clone(), shares.collect());
    }
    Ok(ProfileFigures {
        callers,
        sessions,
        ops_per_second: figures.ops_per_second(),
        samples: samples.values().flat_map(|whats| whats.values()).sum(),
        us_per_create,
    })
}

/// Samples of the processes with a role, by role and by what they did.
fn counted(text: &str, roles: &HashMap<u32, String>) -> BTreeMap<String, BTreeMap<&'static str, u64>> {
    let mut counts: BTreeMap<String, BTreeMap<&'static str, u64>> = BTreeMap::new();
    for sample in text.split("\n\n") {
        let mut lines = sample.trim_start_matches('\n').lines();
        let Some(role) = lines.next().and_then(pid_of).and_then(|pid| roles.get(&pid)) else { continue };
        // `ADDRESS FUNCTION`, the innermost first.
        let functions = lines.filter_map(|line| line.trim().split_once(' ')).map(|(_, function)| function);
        let what = functions
            .map(what)
            .min_by_key(|what| [KERNEL, UNKNOWN].iter().position(|vague| vague == what).map_or(0, |at| at + 1));
        let what = what.unwrap_or(UNKNOWN);
        *counts.entry(role.clone()).or_default().entry(what).or_default() += 1;
    }
    counts
}

/// Of `NAME PID`, where the name may hold anything.
fn pid_of(line: &str) -> Option<u32> {
    line.split_whitespace().next_back()?.parse().ok()
}

fn what(function: &str) -> &'static str {
    WHAT.iter().find(|(_, parts)| parts.iter().any(|part| function.contains(part))).map_or(UNKNOWN, |(what, _)| what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_put_down_to_the_innermost_function_that_says_something() {
        let text = "farshore-apply 7 \n\t 1 __memcmp\n\t 2 mdb_get\n\t 3 farshore_meta::kv::lmdb::get\n\t 4 farshore_meta::apply::apply_shared\n\n\
                    tokio-rt-worker 7 \n\t 1 tcp_sendmsg\n\t 2 h2::send\n\nswapper 0 \n\t 1 halt\n\nx 7 \n\t 1 mystery\n";
        let counts = counted(text, &HashMap::from([(7, "leader".to_owned())]));
        let expected = [("network, in the kernel", 1), ("rows read", 1), (UNKNOWN, 1)];
        assert_eq!(counts, BTreeMap::from([("leader".to_owned(), BTreeMap::from(expected))]));
    }
}
