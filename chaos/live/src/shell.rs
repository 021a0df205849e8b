//! A shell that lives over many commands: what one opens is still open for the next.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// Lines that may wait to be looked at; a command that prints more waits.
const LINES_WAITING_MAX: usize = 256;
/// Printed by the shell after each command, before its exit code.
const MARK: &str = "--farshore-command-ended ";

/// What a command did: its exit code, and what it printed to stdout and stderr together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub code: i32,
    pub lines: Vec<String>,
}

/// One `sh` in a directory; killed when dropped.
pub struct Shell {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Shell {
    pub fn start(directory: &Path) -> Shell {
        let mut command = Command::new("sh");
        // One pipe for both, so that what is printed keeps its order.
        command.args(["-c", "exec 2>&1; exec sh"]).current_dir(directory).env("LC_ALL", "C");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("`sh` can be started");
        let stdin = child.stdin.take().expect("it was asked for above");
        let stdout = child.stdout.take().expect("it was asked for above");
        let (sender, lines) = sync_channel(LINES_WAITING_MAX);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
        Shell { child, stdin, lines }
    }

    /// Runs a command with empty standard input; `Err` says why its end was not seen within `bound`.
    pub fn run(&mut self, command: &str, bound: Duration) -> Result<Said, String> {
        let end = Instant::now() + bound;
        // The newline before the mark ends a last line that has none; it is taken off below.
        let script = format!("{{ {command}\n}} < /dev/null; printf '\\n{MARK}%s\\n' $?\n");
        let written = self.stdin.write_all(script.as_bytes()).and_then(|()| self.stdin.flush());
        written.map_err(|error| format!("the shell takes no commands: {error}"))?;
        let mut lines: Vec<String> = Vec::new();
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Some(code) = line.strip_prefix(MARK) {
                        let code = code.parse().map_err(|_| format!("no exit code: {line}"))?;
                        if lines.last().is_some_and(String::is_empty) {
                            lines.pop();
                        }
                        return Ok(Said { code, lines });
                    }
                    lines.push(line);
                }
                Err(RecvTimeoutError::Timeout) => return Err(format!("no end within {} s; printed {lines:?}", bound.as_secs())),
                Err(RecvTimeoutError::Disconnected) => return Err(format!("the shell ended; printed {lines:?}")),
            }
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(60);

    #[test]
    fn what_one_command_opens_is_open_for_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let mut shell = Shell::start(dir.path());
        let mut run = |command| shell.run(command, SOON).unwrap();
        let said = |code, lines: &[&str]| Said { code, lines: lines.iter().map(|line| (*line).to_owned()).collect() };
        assert_eq!(run("exec 3> file; printf one >&3"), said(0, &[]));
        assert_eq!(run("printf ' two' >&3; cat file"), said(0, &["one two"]));
        assert_eq!(run("echo; echo x"), said(0, &["", "x"]));
        assert_eq!(run("cat"), said(0, &[]), "standard input is empty");
        let missing = run("cat missing");
        assert!(missing.code != 0 && missing.lines[0].ends_with("No such file or directory"), "{missing:?}");
    }

    #[test]
    fn a_command_that_does_not_end_and_a_shell_that_does_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut shell = Shell::start(dir.path());
        assert!(shell.run("sleep 100", Duration::ZERO).unwrap_err().contains("no end"));
        let mut shell = Shell::start(dir.path());
        assert!(shell.run("exit 3", SOON).unwrap_err().contains("the shell ended"));
    }
}
