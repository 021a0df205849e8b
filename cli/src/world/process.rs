//! The world's processes: started apart from the terminal, recognised for certain, stopped within bounds.
//!
//! A pid file says pid, start time and boot. A process is ours only if the kernel's start time of that pid is the same,
//! the machine has not been booted since, and its command line is what we started; so a recycled pid is never killed.

use super::dir::{WorldDir, write_durably};
use crate::error::{CliError, io_error};
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Time that a process has to end by itself.
const TERM_MAX: Duration = Duration::from_secs(15);
/// Time that the kernel has to end a killed one.
const KILL_MAX: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Of a log, that an error shows.
const TAIL_LINES_MAX: usize = 12;
const TAIL_BYTES_MAX: u64 = 8 << 10;

/// One process of the world: its name, and the hidden verb that it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSpec {
    pub name: String,
    /// For example `["node", "use-a"]`.
    pub verb: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidFile {
    pub pid: u32,
    /// Clock ticks after boot, as /proc/PID/stat has it.
    pub start: u64,
    pub boot: String,
    pub verb: Vec<String>,
}

/// Starts a process in a session of its own, its output appended to its log.
pub fn start(dir: &WorldDir, spec: &ProcessSpec) -> Result<Child, CliError> {
    let exe = std::env::current_exe().map_err(|error| io_error("find", Path::new("this program"), &error))?;
    let log_path = dir.log(&spec.name);
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&log_path);
    let log = log.map_err(|error| io_error("write", &log_path, &error))?;
    let errors = log.try_clone().map_err(|error| io_error("write", &log_path, &error))?;
    // How the last one ended says nothing about this one.
    let _ = fs::remove_file(dir.end_file(&spec.name));
    let mut command = Command::new(exe);
    command.args(&spec.verb).arg("--topology").arg(dir.topology()).arg("--dir").arg(dir.root());
    command.current_dir("/").stdin(Stdio::null()).stdout(log).stderr(errors);
    let child = spawn_apart(&mut command).map_err(|error| io_error("start", Path::new(&spec.name), &error))?;
    let file = PidFile::of(child.id(), &spec.verb)
        .ok_or_else(|| CliError::failed(format!("{} ended at once\n{}", spec.name, tail(&log_path)), "see its log"))?;
    let path = dir.pid_file(&spec.name);
    let json = serde_json::to_vec(&file).expect("plain data always serialises");
    write_durably(&path, &json, 0o600).map_err(|error| io_error("write", &path, &error))?;
    Ok(child)
}

/// Spawns into a session of its own, so that no terminal's signals reach it.
pub fn spawn_apart(command: &mut Command) -> std::io::Result<Child> {
    // SAFETY: setsid is async-signal-safe and touches no memory of this process.
    unsafe {
        command.pre_exec(|| if libc::setsid() < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) });
    }
    command.spawn()
}

impl PidFile {
    /// What the kernel says of a living process.
    fn of(pid: u32, verb: &[String]) -> Option<PidFile> {
        Some(PidFile { pid, start: start_time(pid)?, boot: boot_id(), verb: verb.to_vec() })
    }

    /// Whether exactly this process lives.
    pub fn is_alive(&self) -> bool {
        self.boot == boot_id() && start_time(self.pid) == Some(self.start) && runs_verb(self.pid, &self.verb)
    }
}

/// Notes why this process has to end. In the world's directory and not in the node's own, whose disk may be what failed.
pub fn note_end(dir: &WorldDir, name: &str, why: &str) {
    if let Err(error) = fs::write(dir.end_file(name), why) {
        tracing::warn!(%error, "why this process ends could not be noted");
    }
}

/// Why the last process of this name ended, if it could say so.
pub fn end_of(dir: &WorldDir, name: &str) -> Option<String> {
    fs::read_to_string(dir.end_file(name)).ok().filter(|why| !why.is_empty())
}

/// The living process of this name.
pub fn alive(dir: &WorldDir, name: &str) -> Option<PidFile> {
    let bytes = fs::read(dir.pid_file(name)).ok()?;
    serde_json::from_slice::<PidFile>(&bytes).ok().filter(PidFile::is_alive)
}

/// All processes with a pid file: name, and the process if it lives.
pub fn all(dir: &WorldDir) -> Vec<(String, Option<PidFile>)> {
    let entries = fs::read_dir(dir.pids()).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".json").map(str::to_owned));
    let mut all: Vec<_> = names.map(|name| (name.clone(), alive(dir, &name))).collect();
    all.sort_by(|left, right| left.0.cmp(&right.0));
    all
}

/// What stopping did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stopped {
    pub stopped: Vec<String>,
    /// Those that did not end by themselves in time.
    pub killed: Vec<String>,
}

/// Asks all processes to end, waits, kills the rest; forgets those that were dead.
pub fn stop_all(dir: &WorldDir) -> Result<Stopped, CliError> {
    stop(dir, all(dir))
}

/// The same for one process.
pub fn stop_one(dir: &WorldDir, name: &str) -> Result<Stopped, CliError> {
    stop(dir, vec![(name.to_owned(), alive(dir, name))])
}

fn stop(dir: &WorldDir, processes: Vec<(String, Option<PidFile>)>) -> Result<Stopped, CliError> {
    let mut done = Stopped::default();
    let mut living = Vec::new();
    for (name, process) in processes {
        match process {
            Some(process) => living.push((name, process)),
            None => forget(dir, &name),
        }
    }
    living.iter().for_each(|(_, process)| signal(process, libc::SIGTERM));
    wait_gone(&living, TERM_MAX);
    for (name, process) in &living {
        if process.is_alive() {
            signal(process, libc::SIGKILL);
            done.killed.push(name.clone());
        } else {
            done.stopped.push(name.clone());
        }
    }
    wait_gone(&living, KILL_MAX);
    if let Some((name, process)) = living.iter().find(|(_, process)| process.is_alive()) {
        let what = format!("{name} (pid {}) does not end, not even when killed", process.pid);
        return Err(CliError::failed(what, "is its disk hanging? Try `farshore down` again later"));
    }
    living.iter().for_each(|(name, _)| forget(dir, name));
    Ok(done)
}

/// Waits until the process of this name has ended by itself, and forgets it; whether it has.
pub fn has_ended(dir: &WorldDir, name: &str, at_most: Duration) -> bool {
    let Some(process) = alive(dir, name) else {
        forget(dir, name);
        return true;
    };
    let process = [(name.to_owned(), process)];
    wait_gone(&process, at_most);
    let ended = !process[0].1.is_alive();
    if ended {
        forget(dir, name);
    }
    ended
}

fn wait_gone(processes: &[(String, PidFile)], at_most: Duration) {
    let end = Instant::now() + at_most;
    while Instant::now() < end && processes.iter().any(|(_, process)| process.is_alive()) {
        std::thread::sleep(LOOK_EVERY);
    }
}

fn signal(process: &PidFile, signal: i32) {
    if let (true, Ok(pid)) = (process.is_alive(), i32::try_from(process.pid)) {
        // SAFETY: kill takes two integers; the process was just recognised as ours.
        unsafe { libc::kill(pid, signal) };
    }
}

fn forget(dir: &WorldDir, name: &str) {
    // A pid file of a dead process is harmless; the next start overwrites it.
    let _ = fs::remove_file(dir.pid_file(name));
}

/// Start time in ticks after boot; `None` for a pid that is free or a process that has ended (a zombie too).
fn start_time(pid: u32) -> Option<u64> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name in parentheses may hold anything, so fields are counted from its end: state is the first, start the 20th.
fn parse_stat(stat: &str) -> Option<u64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    fields.get(19)?.parse().ok()
}

fn runs_verb(pid: u32, verb: &[String]) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
        let mut words = line.split(|byte| *byte == 0).skip(1);
        verb.iter().all(|word| words.next() == Some(word.as_bytes()))
    })
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The last lines of a log.
pub fn tail(path: &Path) -> String {
    let mut text = Vec::new();
    if let Ok(mut file) = fs::File::open(path) {
        let length = file.metadata().map_or(0, |meta| meta.len());
        let _ = file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES_MAX)));
        let _ = file.take(TAIL_BYTES_MAX).read_to_end(&mut text);
    }
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(TAIL_LINES_MAX)..].join("\n");
    format!("the end of {}:\n{last}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> (Child, PidFile) {
        let child = spawn_apart(Command::new("sleep").arg("600")).unwrap();
        let file = PidFile::of(child.id(), &["600".to_owned()]).unwrap();
        (child, file)
    }

    #[test]
    fn a_stat_line_is_read_from_behind_the_name() {
        let rest = "S 1 2 3 0 -1 4194560 9 0 0 0 1 2 0 0 20 0 1 0 8675309 1 2";
        assert_eq!(parse_stat(&format!("12 (a) b (c) {rest}")), Some(8_675_309));
        assert_eq!(parse_stat(&format!("12 (x) Z{}", &rest[1..])), None);
        assert_eq!(parse_stat("12 (x) S 1"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn a_recycled_pid_is_not_ours() {
        let (mut child, file) = sleeper();
        assert!(file.is_alive());
        assert!(!PidFile { start: file.start + 1, ..file.clone() }.is_alive());
        assert!(!PidFile { boot: "another".into(), ..file.clone() }.is_alive());
        assert!(!PidFile { verb: vec!["601".into()], ..file.clone() }.is_alive());
        child.kill().unwrap();
        wait_gone(&[("x".into(), file.clone())], KILL_MAX);
        assert!(!file.is_alive(), "a zombie counts as ended");
        child.wait().unwrap();
    }

    #[test]
    fn stopping_ends_ours_and_spares_a_stranger_behind_a_recycled_pid() {
        let dir = tempfile::tempdir().unwrap();
        let world = WorldDir::new(dir.path());
        world.create().unwrap();
        let (mut ours, file) = sleeper();
        let (mut stranger, other) = sleeper();
        let recycled = PidFile { start: other.start + 1, ..other.clone() };
        for (name, file) in [("ours", &file), ("stranger", &recycled)] {
            fs::write(world.pid_file(name), serde_json::to_vec(file).unwrap()).unwrap();
        }
        fs::write(world.pid_file("garbage"), "{").unwrap();
        assert_eq!(alive(&world, "ours"), Some(file.clone()));
        assert_eq!(stop_all(&world).unwrap(), Stopped { stopped: vec!["ours".into()], killed: vec![] });
        assert!(!file.is_alive() && other.is_alive());
        assert!(all(&world).is_empty());
        ours.wait().unwrap();
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }

    #[test]
    fn the_tail_is_short_and_a_missing_log_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert!(tail(&path).contains("the end of"));
        let text: String = (0..5000).map(|line| format!("line {line}\n")).collect();
        fs::write(&path, text).unwrap();
        let tail = tail(&path);
        assert!(tail.ends_with("line 4999") && tail.lines().count() == TAIL_LINES_MAX + 1, "{tail}");
    }
}
