//! The demonstration's processes: the world that `up` starts, mounts, workers; all are this program, and all are stopped
//! at the end, whatever happened.

use super::story::Failed;
use crate::error::{CliError, io_error};
use crate::topology_file::DEFAULT_TOPOLOGY;
use crate::world::ports;
use farshore_types::topology::Topology;
use farshore_wire::view::{LagView, RegionLag, StatusView};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Until a mount must be there.
const MOUNTED_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Until a process that was asked to end must be gone.
const GONE_MAX: Duration = Duration::from_secs(20);

/// A process of the demonstration, and where it is mounted.
struct Actor {
    name: String,
    child: Child,
    mount: Option<PathBuf>,
}

/// Everything that runs.
pub struct Stage {
    dir: PathBuf,
    topology: PathBuf,
    exe: PathBuf,
    json: bool,
    keep: bool,
    /// Whether the machine can mount.
    pub fuse: bool,
    actors: Vec<Actor>,
    /// What the story carries from step to step.
    pub tree: Option<super::tree::Tree>,
    pub last_index: u64,
}

fn own_dir() -> io::Result<PathBuf> {
    let base = std::env::temp_dir();
    for attempt in 0..100 {
        let dir = base.join(format!("farshore-demo-{}-{attempt}", std::process::id()));
        match std::fs::create_dir(&dir) {
            Ok(()) => return Ok(dir),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("no free name for a directory"))
}

fn has_fuse() -> bool {
    let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").is_ok();
    // SAFETY: geteuid has no preconditions.
    let root = unsafe { libc::geteuid() } == 0;
    let helper =
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join("fusermount3").exists()));
    device && (root || helper)
}

impl Stage {
    /// A directory and ports of its own; nothing runs yet.
    pub fn set(json: bool, keep: bool) -> Result<Stage, CliError> {
        let dir = own_dir().map_err(|error| io_error("make a directory in", &std::env::temp_dir(), &error))?;
        let declared = Topology::parse(DEFAULT_TOPOLOGY, "built-in topology")?;
        let topology = ports::on_free_ports(&declared)?;
        let path = dir.join("topology.toml");
        std::fs::write(&path, &topology.text).map_err(|error| io_error("write", &path, &error))?;
        let exe = std::env::current_exe().map_err(|error| io_error("find", Path::new("this program"), &error))?;
        Ok(Stage { topology: path, exe, json, keep, fuse: has_fuse(), actors: vec![], tree: None, last_index: 0, dir })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.exe);
        command.args(words).arg("--topology").arg(&self.topology).arg("--dir").arg(self.dir.join("world"));
        command.env_remove("FARSHORE_TOPOLOGY").env_remove("FARSHORE_DIR").stdin(Stdio::null());
        command
    }

    /// Runs a verb to its end.
    pub fn run(&self, words: &[&str]) -> Result<Output, Failed> {
        let output = self.command(words).output()?;
        if output.status.success() {
            return Ok(output);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Failed::new(format!("`farshore {}` failed: {}", words.join(" "), said.trim())))
    }

    fn view<T: DeserializeOwned>(&self, words: &[&str]) -> Result<T, Failed> {
        // A view is printed also when a node does not answer, which the exit code then says.
        let output = self.command(words).output()?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        serde_json::from_slice(&output.stdout)
            .map_err(|error| Failed::new(format!("`farshore {}`: {error} {said}", words.join(" "))))
    }

    pub fn status(&self) -> Result<StatusView, Failed> {
        self.view(&["status", "--json"])
    }

    /// One region's line of `farshore lag`.
    pub fn lag(&self, region: &str) -> Result<RegionLag, Failed> {
        let view: LagView = self.view(&["lag", "--json"])?;
        let line = view.regions.into_iter().find(|line| line.region == region);
        line.ok_or_else(|| Failed::new(format!("`farshore lag` does not know {region}")))
    }

    fn start(&mut self, name: &str, words: &[&str], mount: Option<PathBuf>) -> Result<(), Failed> {
        let log = File::create(self.dir.join(format!("{name}.log")))?;
        let child = self.command(words).stdout(log.try_clone()?).stderr(log).spawn()?;
        self.actors.push(Actor { name: name.to_owned(), child, mount });
        Ok(())
    }

    pub fn start_worker(&mut self, name: &str) -> Result<(), Failed> {
        self.start(name, &["worker", "demo"], None)
    }

    /// Mounts the volume and waits until it is there.
    pub fn mount(&mut self, name: &str, options: &[&str]) -> Result<PathBuf, Failed> {
        let point = self.dir.join(name);
        std::fs::create_dir_all(&point)?;
        let path = point.to_string_lossy().into_owned();
        let words: Vec<&str> = ["mount", "demo", &path].into_iter().chain(options.iter().copied()).collect();
        self.start(name, &words, Some(point.clone()))?;
        let deadline = Instant::now() + MOUNTED_MAX;
        while !is_mounted(&point) {
            let actor = self.actors.last_mut().expect("it was started above");
            if actor.child.try_wait()?.is_some() || Instant::now() > deadline {
                let said = std::fs::read_to_string(self.dir.join(format!("{name}.log"))).unwrap_or_default();
                return Err(Failed::new(format!("the mount {name} did not come: {}", said.trim())));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(point)
    }

    /// SIGKILL, as a power cut would.
    pub fn kill(&self, pid: u32) -> Result<(), Failed> {
        // SAFETY: kill has no memory preconditions; the pid is one that `status` showed a moment ago.
        let failed = unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
        if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error().into()) }
    }

    /// A bar on the terminal; hidden where there is none, and with --json.
    pub fn bar(&self, length: u64, unit: &str) -> ProgressBar {
        let target = if self.json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let template = match unit {
            "bytes" => "            {bar:32} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}",
            _ => "            {bar:32} {pos} of {len} blocks {msg}",
        };
        let style = ProgressStyle::with_template(template).expect("the template is well-formed");
        ProgressBar::with_draw_target(Some(length), target).with_style(style)
    }

    /// After a failure: the ends of all logs, on stderr.
    pub fn show_logs(&self) {
        let logs = [self.dir.clone(), self.dir.join("world/logs")];
        for entry in logs.iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                eprintln!("--- {}\n{}", path.display(), crate::world::process::tail(&path));
            }
        }
    }

    /// Stops everything and removes the directory.
    pub fn strike(&mut self) -> io::Result<()> {
        let mut first_error = None;
        for mut actor in self.actors.drain(..).rev() {
            if let Err(error) = end(&mut actor) {
                eprintln!("{} did not end: {error}", actor.name);
                first_error.get_or_insert(error);
            }
        }
        if self.dir.join("world/world.json").exists() {
            let down = self.command(&["down"]).stdout(Stdio::null()).status();
            if !down.as_ref().is_ok_and(|status| status.success()) {
                first_error.get_or_insert(io::Error::other("`farshore down` failed"));
            }
        }
        if !self.keep && first_error.is_none() {
            std::fs::remove_dir_all(&self.dir)?;
        }
        first_error.map_or(Ok(()), Err)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.actors.is_empty() {
            // Nothing may be left running, also when the story ended early; what fails is said inside.
            let _ = self.strike();
        }
    }
}

/// Whether a directory is a mount: its device is not its parent's.
fn is_mounted(point: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| path.metadata().map(|meta| meta.dev()).ok();
    matches!((device(point), point.parent().and_then(device)), (Some(own), Some(parent)) if own != parent)
}

/// Asks a process to end, then makes it end, and takes a mount away that it left behind.
fn end(actor: &mut Actor) -> io::Result<()> {
    // SAFETY: the child was not waited for yet, so the pid is still its own.
    unsafe { libc::kill(actor.child.id() as libc::pid_t, libc::SIGTERM) };
    let deadline = Instant::now() + GONE_MAX;
    while actor.child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            actor.child.kill()?;
            actor.child.wait()?;
            break;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    if let Some(point) = actor.mount.as_deref().filter(|point| is_mounted(point)) {
        let path = std::ffi::CString::new(point.as_os_str().as_encoded_bytes())?;
        // SAFETY: the path is a C string that lives over the call.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    }
    Ok(())
}
