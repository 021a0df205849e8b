//! Processes by their number: signals, and programs that must end in time.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Between two looks at a child.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What a program printed and how it ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

/// Runs a program to its end; fails when it has not ended within `bound`.
pub fn run(command: &mut Command, bound: Duration) -> Ended {
    // Files and not pipes: what the program leaves running may keep them open, and a full pipe would stop it.
    let mut stdout = tempfile::tempfile().expect("a temporary file can be made");
    let mut stderr = tempfile::tempfile().expect("a temporary file can be made");
    let share = |file: &File| Stdio::from(file.try_clone().expect("a descriptor can be shared"));
    command.stdin(Stdio::null()).stdout(share(&stdout)).stderr(share(&stderr));
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
    let end = Instant::now() + bound;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be asked") {
            break status;
        }
        if Instant::now() >= end {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} has not ended within {} s\n{}", bound.as_secs(), String::from_utf8_lossy(&whole(&mut stderr)));
        }
        std::thread::sleep(LOOK_EVERY);
    };
    Ended { status, stdout: whole(&mut stdout), stderr: String::from_utf8_lossy(&whole(&mut stderr)).into_owned() }
}

fn whole(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().expect("a file can be read from its start");
    file.read_to_end(&mut bytes).expect("a temporary file can be read");
    bytes
}

/// Sends a signal; `false` when there is no such process.
pub fn signal(pid: u32, signal: libc::c_int) -> bool {
    let pid = libc::pid_t::try_from(pid).expect("a process's number fits");
    assert!(pid > 1, "a signal to {pid} would reach more than one process");
    // SAFETY: kill has no memory to care for.
    unsafe { libc::kill(pid, signal) == 0 }
}

/// Whether a process runs the program at `binary`; a number that was given to another program is not ours to kill.
pub fn runs(pid: u32, binary: &Path) -> bool {
    std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| is_program(&exe, binary))
}

/// Also when the program was built anew since: the kernel then says so behind the name.
fn is_program(exe: &Path, binary: &Path) -> bool {
    exe == binary || exe.to_str().and_then(|exe| exe.strip_suffix(" (deleted)")).is_some_and(|exe| Path::new(exe) == binary)
}

/// Whether a process is there and not merely waiting to be collected. One that was killed is there until the last of its
/// threads has ended: until then it holds its ports.
pub fn is_alive(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    let runs = state.is_ok_and(|text| text.rsplit(") ").next().is_some_and(|rest| !rest.starts_with(['Z', 'X'])));
    runs || std::fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| threads.count() > 1)
}

/// Looks until a process is gone; `false` when it is still there after `bound`. For where a panic would be one too many.
pub fn is_gone_within(pid: u32, bound: Duration) -> bool {
    let end = Instant::now() + bound;
    while is_alive(pid) {
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    true
}

/// Waits until a process is gone.
pub fn wait_gone(pid: u32, bound: Duration) {
    crate::wait_for(&format!("process {pid} to end"), bound, || (!is_alive(pid)).then_some(()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_runs_to_its_end_and_its_words_are_kept() {
        let ended = run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]), Duration::from_secs(10));
        assert_eq!((ended.status.code(), ended.stdout.as_slice(), ended.stderr.as_str()), (Some(3), &b"out\n"[..], "err\n"));
    }

    #[test]
    #[should_panic(expected = "has not ended within 0 s")]
    fn a_program_that_does_not_end_fails() {
        run(Command::new("sleep").arg("100"), Duration::ZERO);
    }

    #[test]
    fn a_process_is_known_by_its_program_also_after_that_was_replaced() {
        let is = |exe: &str| is_program(Path::new(exe), Path::new("/t/debug/farshore"));
        assert!(is("/t/debug/farshore") && is("/t/debug/farshore (deleted)"));
        assert!(!is("/t/debug/other") && !is("/t/debug/other (deleted)") && !is("/t/debug/farshore (copied)"));
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let sleep = std::fs::read_link(format!("/proc/{}/exe", child.id())).unwrap();
        assert!(runs(child.id(), &sleep) && !runs(child.id(), Path::new("/t/debug/farshore")));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!runs(child.id(), &sleep));
    }

    #[test]
    fn a_process_that_ended_is_not_alive() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        assert!(is_alive(child.id()));
        assert!(signal(child.id(), libc::SIGKILL));
        wait_gone(child.id(), Duration::from_secs(10));
        child.wait().unwrap();
    }
}
