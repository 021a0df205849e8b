//! A page with executable blocks, executed: on a world of processes, or on any other ground that offers the same.
//!
//! A claim that fails is a [`Failure`] with its file and line, also when the harness itself gave up below it: what waited
//! in vain says only what it waited for.

use crate::document::{Demand, Failure, Line, MountLine, Runbook, ShellLine, Statement, Step, WorldEvent};
use crate::process;
use crate::shell::{Said, Shell};
use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Until a command must have ended, and until what is repeated must have come true.
const COMMAND_WITHIN: Duration = Duration::from_secs(60);
/// Until a line of a runbook must have ended: some wait for all that is to be copied.
const SHELL_LINE_WITHIN: Duration = Duration::from_secs(120);
/// Between two attempts of a command that is repeated.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Of what a failed line of a runbook printed, its end.
const PRINTED_BYTES: usize = 4 << 10;

/// What examples are played on. What it cannot do, it panics about.
pub trait Ground {
    /// Mounts the volume; the directory stays until the ground is dropped.
    fn mount(&mut self, line: &MountLine) -> PathBuf;
    fn event(&mut self, event: &WorldEvent);
    /// A command with the environment that runbooks are promised, in no directory in particular.
    fn prepare(&self, command: &mut Command);
}

/// Plays an example's statements, or a drill's. The shells are gone when it returns.
pub fn play(ground: &mut dyn Ground, file: &Path, statements: &[Statement]) -> Result<(), Failure> {
    let mut shells: BTreeMap<char, Shell> = BTreeMap::new();
    for statement in statements {
        let attempt = catch_unwind(AssertUnwindSafe(|| step(ground, &mut shells, &statement.step)));
        let outcome = attempt.unwrap_or_else(|panic| Err(("that it can be done".to_owned(), reason(panic.as_ref()))));
        outcome.map_err(|(expected, found)| failure(file, &statement.line, expected, found))?;
    }
    Ok(())
}

/// Plays a runbook: its drill, and then all its lines in order.
pub fn rehearse(ground: &mut dyn Ground, page: &Runbook) -> Result<(), Failure> {
    play(ground, &page.file, &page.drill)?;
    for line in &page.lines {
        let attempt = catch_unwind(AssertUnwindSafe(|| shell_line(ground, line)));
        let outcome = attempt.unwrap_or_else(|panic| Err(reason(panic.as_ref())));
        outcome.map_err(|found| failure(&page.file, &line.line, format!("exit {:?}", line.exits), found))?;
    }
    Ok(())
}

fn failure(file: &Path, line: &Line, expected: String, found: String) -> Failure {
    Failure { file: file.to_owned(), line: line.number, command: line.text.clone(), expected, found }
}

fn reason(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_owned()
}

/// Expected and found.
type Difference = (String, String);

fn step(ground: &mut dyn Ground, shells: &mut BTreeMap<char, Shell>, step: &Step) -> Result<(), Difference> {
    match step {
        Step::Mount(line) => {
            let directory = ground.mount(line);
            let before = shells.insert(line.name, Shell::start(&directory));
            assert!(before.is_none(), "{} is mounted twice", line.name);
            Ok(())
        }
        Step::World(event) => {
            ground.event(event);
            Ok(())
        }
        Step::Command { mount, command, demand } => {
            let shell = shells.get_mut(mount).unwrap_or_else(|| panic!("{mount} is not mounted"));
            run(shell, command, demand)
        }
    }
}

fn run(shell: &mut Shell, command: &str, demand: &Demand) -> Result<(), Difference> {
    let end = Instant::now() + COMMAND_WITHIN;
    loop {
        let difference = match shell.run(command, COMMAND_WITHIN) {
            Ok(said) => difference(demand, &said),
            // The shell is lost: there is nothing to repeat.
            Err(why) => return Err((wanted(demand), why)),
        };
        match difference {
            None => return Ok(()),
            Some(_) if matches!(demand, Demand::SucceedInTime(_)) && Instant::now() < end => std::thread::sleep(AGAIN_AFTER),
            Some(difference) => return Err(difference),
        }
    }
}

fn wanted(demand: &Demand) -> String {
    match demand {
        Demand::Succeed(None) => "exit 0".to_owned(),
        Demand::Succeed(Some(lines)) => format!("exit 0, printing {lines:?}"),
        Demand::SucceedInTime(None) => format!("exit 0 within {} s", COMMAND_WITHIN.as_secs()),
        Demand::SucceedInTime(Some(lines)) => format!("exit 0, printing {lines:?}, within {} s", COMMAND_WITHIN.as_secs()),
        Demand::FailWith(error) => format!("a failure whose last line ends in {:?}", error_text(*error)),
    }
}

fn difference(demand: &Demand, said: &Said) -> Option<Difference> {
    let holds = match demand {
        Demand::Succeed(lines) | Demand::SucceedInTime(lines) => {
            said.code == 0 && lines.as_ref().is_none_or(|lines| *lines == said.lines)
        }
        Demand::FailWith(error) => said.code != 0 && said.lines.last().is_some_and(|last| last.ends_with(&error_text(*error))),
    };
    (!holds).then(|| (wanted(demand), format!("exit {}, printing {:?}", said.code, said.lines)))
}

/// The words that programs print for an error.
fn error_text(error: i32) -> String {
    let text = std::io::Error::from_raw_os_error(error).to_string();
    text.split(" (os error").next().expect("a split has a first part").to_owned()
}

fn shell_line(ground: &dyn Ground, line: &ShellLine) -> Result<(), String> {
    let mut command = Command::new("sh");
    command.args(["-c", &line.line.text]).current_dir("/");
    ground.prepare(&mut command);
    let ended = process::run(&mut command, SHELL_LINE_WITHIN);
    if ended.status.code().is_some_and(|code| line.exits.contains(&code)) {
        return Ok(());
    }
    let end = |bytes: &[u8]| String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(PRINTED_BYTES)..]).into_owned();
    Err(format!("{}, printing\n{}{}", ended.status, end(&ended.stdout), end(ended.stderr.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{examples, runbook};

    /// A directory of this machine: whoever "mounts" it sees the same files at once, as between clients in one region.
    struct LocalGround(tempfile::TempDir);

    impl Ground for LocalGround {
        fn mount(&mut self, _: &MountLine) -> PathBuf {
            self.0.path().to_owned()
        }

        fn event(&mut self, event: &WorldEvent) {
            panic!("a directory cannot do {event:?}");
        }

        fn prepare(&self, command: &mut Command) {
            command.env("MOUNT", self.0.path());
        }
    }

    fn ground() -> LocalGround {
        LocalGround(tempfile::tempdir().unwrap())
    }

    fn play_first(text: &str) -> Result<(), Failure> {
        let page = examples(Path::new("SEMANTICS.md"), text)?;
        play(&mut ground(), &page.file, &page.examples[0])
    }

    const SEMANTICS: &str = include_str!("../../../docs/SEMANTICS.md");

    #[test]
    fn a_wrong_expectation_planted_in_a_copy_of_the_page_fails_with_its_place() {
        play_first(SEMANTICS).unwrap();
        let planted = SEMANTICS.replacen("\n= two\n", "\n= three\n", 1);
        let failure = play_first(&planted).unwrap_err();
        let line = planted.lines().position(|text| text == "= three").unwrap();
        assert_eq!(
            failure.to_string(),
            format!(
                "SEMANTICS.md:{line}: A$ cat file\n  expected: exit 0, printing [\"three\"]\n  found:    exit 0, printing [\"two\"]"
            )
        );
    }

    #[test]
    fn a_command_that_fails_otherwise_or_not_at_all_is_a_failure() {
        let play = |line: &str| play_first(&format!("```farshore-example\nmount A us-east\n{line}\n```\n"));
        play("A! ENOENT cat missing").unwrap();
        play("A! ENOTEMPTY mkdir -p a/b && rmdir a").unwrap();
        assert!(play("A! EIO cat missing").unwrap_err().found.contains("No such file"), "another error");
        assert!(play("A! ENOENT true").unwrap_err().found.contains("exit 0"), "a success");
        assert!(play("A$ cat missing").unwrap_err().found.contains("No such file"));
        assert!(play("A$ echo more\n= m").is_err(), "other output");
        assert!(play("A$ exit 0").unwrap_err().found.contains("the shell ended"));
        assert!(play("B$ true").unwrap_err().found.contains("B is not mounted"));
        assert!(play("world: pause").unwrap_err().found.contains("Pause"), "what the harness gives up about has a place too");
    }

    #[test]
    fn a_wrong_exit_code_planted_in_a_runbook_fails_with_its_place() {
        let rehearse_text = |text: &str| rehearse(&mut ground(), &runbook(Path::new("page.md"), text)?);
        let text = "<!-- drill: mount A us-east; A$ echo x > file -->\n```farshore-runbook\ntest -f \"$MOUNT\"/file\nsh -c 'exit 3'  # exit 0 3\n```\n";
        rehearse_text(text).unwrap();
        let failure = rehearse_text(&text.replace("0 3", "0 4")).unwrap_err();
        assert_eq!((failure.line, failure.expected.as_str()), (4, "exit [0, 4]"));
        assert!(failure.found.contains("exit status: 3"), "{failure}");
        assert_eq!(rehearse_text(&text.replace("echo x >", "cat")).unwrap_err().line, 1, "the drill is a claim as well");
    }
}
