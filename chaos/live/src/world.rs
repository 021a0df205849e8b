//! A world of two regions as real processes, in a directory and on ports of its own.

use crate::faults::Faults;
use crate::mount::{Mount, MountSpec};
use crate::trace::Trace;
use crate::{binary, blocks, fuse, process, topology, wait_for};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Worlds run one at a time: two would make each other slow on a small machine.
static TURN: Mutex<()> = Mutex::new(());
/// Until `up` or `down` must have ended.
/// What `up` says of a port that it cannot have.
const PORT_TAKEN: &str = "is held by something else";
/// How often ports are drawn for a world.
const DRAWS: usize = 5;

const UP_WITHIN: Duration = Duration::from_secs(120);
/// Until any other command must have ended.
const COMMAND_WITHIN: Duration = Duration::from_secs(180);
/// Until something that changes by itself must have changed.
pub const SOON: Duration = Duration::from_secs(60);
/// Of each log, shown when a test fails.
const TAIL_BYTES: usize = 6 << 10;

pub const PRIMARY: &str = "us-east";
pub const MIRROR: &str = "eu-west";

/// What a test wants of its world.
#[derive(Clone, Copy, Debug)]
pub struct WorldOptions {
    /// Metadata nodes of each region: 1 or 3.
    pub nodes: usize,
    /// Bytes in a full block; small ones make many blocks out of little data.
    pub block_size: &'static str,
}

impl Default for WorldOptions {
    fn default() -> Self {
        WorldOptions { nodes: 3, block_size: "4MiB" }
    }
}

/// What stands in front of libc in the processes of a world.
enum Preloaded {
    Nothing,
    Faults(Faults),
    Trace(Trace),
}

/// A world; ended and removed when dropped.
pub struct World {
    root: tempfile::TempDir,
    topology: PathBuf,
    preloaded: Preloaded,
    workers: Mutex<Vec<Child>>,
    _turn: MutexGuard<'static, ()>,
}

/// What a command printed.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Output {
    /// The same, if the command succeeded.
    pub fn done(self) -> Output {
        assert!(self.status.success(), "the command failed ({}): {}{}", self.status, self.text(), self.stderr);
        self
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {}{}", self.text(), self.stderr))
    }
}

/// The turn of whoever runs processes that are no [`World`]: while it is held, no world runs.
pub fn take_turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// Writes a topology and brings its world up.
    pub fn start(options: WorldOptions) -> World {
        World::begin(|| topology::made(options), |_| Preloaded::Nothing)
    }

    /// The same, with further sections at the end of the topology.
    pub fn start_with(options: WorldOptions, sections: &str) -> World {
        World::begin(|| topology::made(options) + sections, |_| Preloaded::Nothing)
    }

    /// A world whose flushes can be made to fail, and whose nodes can be cut off from each other.
    pub fn start_with_faults(options: WorldOptions) -> World {
        World::begin(|| topology::made(options), |root| Preloaded::Faults(Faults::build(root)))
    }

    /// A world with further sections, in which everything that happens to a node's files is traced.
    pub fn start_traced(options: WorldOptions, sections: &str, node: &str) -> World {
        let trace = |root: &Path| Preloaded::Trace(Trace::build(root, root.join("world/nodes").join(node)));
        World::begin(|| topology::made(options) + sections, trace)
    }

    /// Brings the shipped `topology.toml` up, with 1 or 3 metadata nodes a region: the world that the documents speak of.
    pub fn start_shipped(nodes: usize) -> World {
        World::begin(|| topology::shipped(nodes), |_| Preloaded::Nothing)
    }

    fn begin(topology: impl Fn() -> String, preloaded: impl FnOnce(&Path) -> Preloaded) -> World {
        let turn = take_turn();
        binary::farshore();
        let root = tempfile::Builder::new().prefix("farshore-live-").tempdir().expect("a temporary directory can be made");
        let file = root.path().join("topology.toml");
        let preloaded = preloaded(root.path());
        let world = World { root, topology: file, preloaded, workers: Mutex::default(), _turn: turn };
        // A port that was free when it was drawn may be taken before its process listens: other ports are drawn then.
        for _ in 0..DRAWS {
            // Not before the turn: the ports that are free now are those of a world that ends meanwhile.
            std::fs::write(&world.topology, topology()).expect("the temporary directory can be written");
            let up = world.try_up();
            if up.status.success() || !up.stderr.contains(PORT_TAKEN) {
                up.done();
                return world;
            }
        }
        panic!("{DRAWS} times in a row, a port was taken between its choice and its use");
    }

    /// Changes what the topology declares; the world that runs is not told.
    pub fn edit_topology(&self, edit: impl FnOnce(&str) -> String) {
        let text = std::fs::read_to_string(&self.topology).expect("the topology was written at the start");
        std::fs::write(&self.topology, edit(&text)).expect("the temporary directory can be written");
    }

    /// A port that nobody listens on and that the topology does not name, for a node that comes later.
    pub fn free_port(&self) -> u16 {
        topology::spare_port()
    }

    /// Starts what is missing; fails when that fails.
    pub fn up(&self) -> Value {
        self.try_up().done().json()
    }

    fn try_up(&self) -> Output {
        self.run(&["up", "--json"], UP_WITHIN)
    }

    pub fn down(&self) {
        self.run(&["down"], UP_WITHIN).done();
    }

    /// The world's directory.
    pub fn dir(&self) -> PathBuf {
        self.root.path().join("world")
    }

    /// A directory beside the world's, for a test's own files.
    pub fn scratch(&self, name: &str) -> PathBuf {
        let path = self.root.path().join(name);
        std::fs::create_dir_all(&path).expect("the temporary directory can be written");
        path
    }

    /// A command on this world, not started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary::farshore());
        command.args(arguments);
        command.env("FARSHORE_TOPOLOGY", &self.topology).env("FARSHORE_DIR", self.dir());
        command.current_dir(self.root.path());
        match &self.preloaded {
            Preloaded::Nothing => {}
            Preloaded::Faults(faults) => faults.preload(&mut command),
            Preloaded::Trace(trace) => trace.preload(&mut command),
        }
        command
    }

    /// Runs a command to its end.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        self.run(arguments, COMMAND_WITHIN)
    }

    fn run(&self, arguments: &[&str], within: Duration) -> Output {
        let ended = process::run(&mut self.command(arguments), within);
        Output { status: ended.status, stdout: ended.stdout, stderr: ended.stderr }
    }

    /// `farshore status --json`; also when a node is down.
    pub fn status(&self) -> Value {
        self.cli(&["status", "--json"]).json()
    }

    /// `farshore lag demo --json`.
    pub fn lag(&self) -> Value {
        self.cli(&["lag", "demo", "--json"]).json()
    }

    /// One region's line of [`World::lag`].
    pub fn lag_of(&self, region: &str) -> Value {
        of_region(&self.lag()["regions"], region).unwrap_or_else(|| panic!("`lag` does not know {region}"))
    }

    /// `farshore replication status demo --json`, one region.
    pub fn replication_of(&self, region: &str) -> Value {
        let all = self.cli(&["replication", "status", "demo", "--limit", "1000", "--json"]).json();
        of_region(&all["regions"], region).unwrap_or_else(|| panic!("`replication status` does not know {region}"))
    }

    /// What the status says of a node, whether it runs or not.
    pub fn node(&self, name: &str) -> Option<Value> {
        self.status()["nodes"].as_array()?.iter().find(|node| node["name"] == name).cloned()
    }

    /// `host:port` of a node.
    pub fn address(&self, node: &str) -> Option<String> {
        Some(self.node(node)?["address"].as_str()?.to_owned())
    }

    /// Whether a node of the primary leads, or believes to.
    pub fn leads(&self, node: &str) -> bool {
        self.node(node).is_some_and(|node| node["role"] == "leader")
    }

    /// The node that leads a region's cluster now, if one does.
    pub fn leader(&self, region: &str) -> Option<String> {
        let role = if region == PRIMARY { "leader" } else { "mirror-leader" };
        let status = self.status();
        let found = status["nodes"].as_array()?.iter().find(|node| node["region"] == region && node["role"] == role)?;
        Some(found["name"].as_str()?.to_owned())
    }

    /// The node that leads a region's cluster; waits for one.
    pub fn wait_leader(&self, region: &str) -> String {
        wait_for(&format!("a leader in {region}"), SOON, || self.leader(region))
    }

    /// The processes of the world by name, as its directory lists them and the kernel has them.
    pub fn pids(&self) -> BTreeMap<String, u32> {
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(self.dir().join("pids")).into_iter().flatten().flatten() {
            let path = entry.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json")) else { continue };
            let pid = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok()?["pid"].as_u64());
            if let Some(pid) = pid.and_then(|pid| u32::try_from(pid).ok())
                && process::runs(pid, binary::farshore())
            {
                found.insert(name.to_owned(), pid);
            }
        }
        found
    }

    fn pid(&self, name: &str) -> u32 {
        *self.pids().get(name).unwrap_or_else(|| panic!("{name} does not run"))
    }

    /// `kill -9`, and waits until the process is gone.
    fn kill(&self, name: &str) {
        let pid = self.pid(name);
        assert!(process::signal(pid, libc::SIGKILL), "{name} does not run");
        process::wait_gone(pid, SOON);
    }

    pub fn kill_node(&self, name: &str) {
        self.kill(name);
    }

    pub fn kill_bucket(&self, region: &str) {
        self.kill(&format!("bucket-{region}"));
    }

    /// `kill -9` of every process of the world at once.
    pub fn kill_all(&self) {
        let pids = self.pids();
        for pid in pids.values() {
            process::signal(*pid, libc::SIGKILL);
        }
        pids.values().for_each(|pid| process::wait_gone(*pid, SOON));
    }

    /// Stops a process without ending it: a partition, or a very slow machine.
    pub fn pause(&self, name: &str) {
        assert!(process::signal(self.pid(name), libc::SIGSTOP), "{name} does not run");
    }

    pub fn resume(&self, name: &str) {
        assert!(process::signal(self.pid(name), libc::SIGCONT), "{name} does not run");
    }

    fn faults(&self) -> &Faults {
        let Preloaded::Faults(faults) = &self.preloaded else { panic!("the test asked for no world with faults") };
        faults
    }

    /// The trace of the process that a node runs as.
    pub fn trace(&self, node: &str) -> PathBuf {
        let Preloaded::Trace(trace) = &self.preloaded else { panic!("the test asked for no world with a trace") };
        trace.of(self.pid(node))
    }

    /// The next flush of the node's log fails, once.
    pub fn fail_flush(&self, node: &str) {
        self.faults().fail_flush(self.pid(node));
    }

    /// Whether the flush that was to fail has failed; `pid` is the node's of then.
    pub fn flush_has_failed(&self, pid: u32) -> bool {
        self.faults().flush_has_failed(pid)
    }

    /// Nothing passes between these nodes and those, in both directions; everybody else reaches both.
    pub fn cut(&self, these: &[&str], those: &[&str]) {
        let port = |name: &str| -> u16 {
            let address = self.address(name).expect("a node has an address");
            let (_, port) = address.rsplit_once(':').expect("an address has a port");
            port.parse().expect("a port is a number")
        };
        for (one, other) in these.iter().flat_map(|this| those.iter().map(move |that| (*this, *that))) {
            self.faults().cut(self.pid(one), port(other));
            self.faults().cut(self.pid(other), port(one));
        }
    }

    pub fn mend_cuts(&self) {
        self.faults().mend_cuts();
    }

    /// Starts a client that only copies blocks; it ends with the world, or by [`World::stop_workers`].
    pub fn worker(&self, region: &str) {
        let log = self.log(&format!("worker-{region}"));
        let mut command = self.command(&["worker", "demo", "--region", region]);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor can be shared")).stderr(log);
        let child = command.spawn().expect("the program can be started");
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).push(child);
    }

    /// Ends all workers that were started here.
    pub fn stop_workers(&self) {
        for mut child in self.workers.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Mounts the volume and waits until it is there.
    pub fn mount(&self, spec: MountSpec<'_>) -> Mount {
        Mount::start(self, spec)
    }

    /// A log of a process that the world itself does not start.
    pub(crate) fn log(&self, name: &str) -> std::fs::File {
        let path = self.scratch("logs").join(format!("{name}.log"));
        std::fs::File::options().create(true).append(true).open(path).expect("the temporary directory can be written")
    }

    /// What mounts and workers logged so far.
    pub fn client_logs(&self) -> String {
        let entries = std::fs::read_dir(self.scratch("logs")).into_iter().flatten().flatten();
        entries.map(|entry| String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap_or_default()).into_owned()).collect()
    }

    /// The blocks that lie in a region's bucket, counted by ourselves.
    pub fn blocks(&self, region: &str) -> BTreeMap<String, PathBuf> {
        blocks::blocks(&self.bucket_dir(region))
    }

    pub fn bucket_dir(&self, region: &str) -> PathBuf {
        self.dir().join("buckets").join(region)
    }

    /// Waits until a region's bucket has every block that the other one has, and the mirror every entry.
    pub fn wait_recoverable(&self) {
        wait_for("the mirror to have all entries and all blocks", 2 * SOON, || {
            let lag = self.lag_of(MIRROR);
            let caught_up = lag["entries_behind"] == 0 && lag["blocks_behind"] == 0;
            (caught_up && lag["recoverable"].is_u64() && lag["recoverable"] == lag["committed"]).then_some(())
        });
    }

    fn print_logs(&self) {
        for directory in [self.dir().join("logs"), self.root.path().join("logs")] {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                let bytes = std::fs::read(entry.path()).unwrap_or_default();
                let tail = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
                eprintln!("--- {} ---\n{}", entry.path().display(), String::from_utf8_lossy(tail));
            }
        }
    }
}

/// The index and the digest at which so many nodes of a region stand, by one status; `None` unless all stand there.
pub fn stand(status: &Value, region: &str, nodes: usize) -> Option<(u64, String)> {
    let of_region = status["nodes"].as_array()?.iter().filter(|node| node["region"] == region);
    let stand = |node: &Value| Some((node["applied"].as_u64()?, node["digest"].as_str()?.to_owned()));
    let stands: Vec<_> = of_region.map(stand).collect::<Option<_>>()?;
    (stands.len() == nodes && stands.windows(2).all(|pair| pair[0] == pair[1])).then(|| stands.into_iter().next())?
}

fn of_region(list: &Value, region: &str) -> Option<Value> {
    list.as_array()?.iter().find(|entry| entry["region"] == region).cloned()
}

/// Whether a path lies below a directory of this world.
fn below(path: &Path, root: &Path) -> bool {
    path.starts_with(root)
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
        }
        self.stop_workers();
        for mounted in fuse::mounts() {
            if below(&mounted.point, self.root.path()) {
                fuse::abort(mounted.connection);
                fuse::detach(&mounted.point);
            }
        }
        // Not by `down`: a test that fails must not wait for what may be broken.
        let pids = self.pids();
        for (name, pid) in &pids {
            process::signal(*pid, libc::SIGCONT);
            if !process::signal(*pid, libc::SIGKILL) {
                eprintln!("{name} (process {pid}) ended before it was killed");
            }
        }
        // The next world may get the same ports, and the directory goes now.
        for (name, pid) in &pids {
            if !process::is_gone_within(*pid, SOON) {
                eprintln!("{name} (process {pid}) was killed and is still there");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_found_in_a_list() {
        let list = serde_json::json!([{ "region": "a", "x": 1 }, { "region": "b", "x": 2 }]);
        assert_eq!(of_region(&list, "b").unwrap()["x"], 2);
        assert!(of_region(&list, "c").is_none());
    }

    #[test]
    fn other_ports_are_drawn_when_one_is_taken_meanwhile() {
        let options = WorldOptions { nodes: 1, block_size: "64KiB" };
        let held = Mutex::new(Vec::new());
        let taken_once = || {
            let text = topology::made(options);
            let mut held = held.lock().unwrap();
            if held.is_empty() {
                let of_console = text.split_once("listen = \"").and_then(|(_, rest)| rest.split('"').next()).unwrap();
                held.push(std::net::TcpListener::bind(of_console).unwrap());
            }
            text
        };
        let world = World::begin(taken_once, |_| Preloaded::Nothing);
        assert_eq!(world.status()["nodes"].as_array().unwrap().len(), 2);
    }
}
