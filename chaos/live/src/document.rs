//! A page with executable blocks, read: `farshore-example` and `farshore-runbook`, and the `drill` at the top of a runbook.
//!
//! The formats are described in `docs/SEMANTICS.md` and `runbooks/README.md`. A page is read as a whole before anything
//! runs, and what is not understood is a failure: a line that a checker skips is a claim that nobody checks. Every
//! statement knows its line, since a failure has to name it.

use std::fmt;
use std::path::{Path, PathBuf};

pub const EXAMPLE: &str = "farshore-example";
pub const RUNBOOK: &str = "farshore-runbook";
const DRILL: &str = "<!-- drill:";

/// The errors that an example may name.
const ERRORS: [(&str, i32); 14] = [
    ("EACCES", libc::EACCES),
    ("EEXIST", libc::EEXIST),
    ("EINVAL", libc::EINVAL),
    ("EIO", libc::EIO),
    ("EISDIR", libc::EISDIR),
    ("ELOOP", libc::ELOOP),
    ("ENAMETOOLONG", libc::ENAMETOOLONG),
    ("ENOENT", libc::ENOENT),
    ("ENOTDIR", libc::ENOTDIR),
    ("ENOTEMPTY", libc::ENOTEMPTY),
    ("ENOTSUP", libc::ENOTSUP),
    ("EPERM", libc::EPERM),
    ("EROFS", libc::EROFS),
    ("EXDEV", libc::EXDEV),
];

/// A claim of a page that does not hold, or that cannot be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub file: PathBuf,
    /// From 1; 0 when the page as a whole is meant.
    pub line: usize,
    pub command: String,
    pub expected: String,
    pub found: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}:{}: {}", self.file.display(), self.line, self.command)?;
        write!(f, "  expected: {}\n  found:    {}", self.expected, self.found)
    }
}

/// Where something stands, and how it is written there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub number: usize,
    pub text: String,
}

/// What an example may ask of its world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorldEvent {
    CaughtUp,
    Copied,
    Pause,
    Resume,
    KillLeader(String),
    KillBucket(String),
}

/// How an example mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountLine {
    pub name: char,
    pub region: String,
    /// In the words of `farshore mount`.
    pub flags: Vec<String>,
}

/// What a command of an example must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Succeed, and print this if anything is written there.
    Succeed(Option<Vec<String>>),
    /// The same, at some time.
    SucceedInTime(Option<Vec<String>>),
    /// Fail with this error.
    FailWith(i32),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Mount(MountLine),
    World(WorldEvent),
    Command { mount: char, command: String, demand: Demand },
}

/// A step and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub line: Line,
    pub step: Step,
}

/// A line of a runbook and the codes it may exit with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShellLine {
    pub line: Line,
    pub exits: Vec<i32>,
}

/// A page of examples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examples {
    pub file: PathBuf,
    /// Never empty; each has a statement at least.
    pub examples: Vec<Vec<Statement>>,
}

/// A runbook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runbook {
    pub file: PathBuf,
    pub drill: Vec<Statement>,
    /// Never empty.
    pub lines: Vec<ShellLine>,
}

/// The text of a page, and the names for its failures.
struct Page<'a> {
    file: &'a Path,
    text: &'a str,
}

/// Reads a page of examples.
pub fn examples(file: &Path, text: &str) -> Result<Examples, Failure> {
    let page = Page { file, text };
    let examples = page.blocks(EXAMPLE)?.iter().map(|block| page.statements(block)).collect::<Result<Vec<_>, _>>()?;
    Ok(Examples { file: file.to_owned(), examples })
}

/// Reads a runbook.
pub fn runbook(file: &Path, text: &str) -> Result<Runbook, Failure> {
    let page = Page { file, text };
    let blocks = page.blocks(RUNBOOK)?;
    let lines = blocks.into_iter().flatten().map(|line| page.shell_line(line)).collect::<Result<Vec<_>, _>>()?;
    Ok(Runbook { file: file.to_owned(), drill: page.drill()?, lines })
}

impl Page<'_> {
    fn failure(&self, line: &Line, expected: &str, found: &str) -> Failure {
        Failure {
            file: self.file.to_owned(),
            line: line.number,
            command: line.text.clone(),
            expected: expected.to_owned(),
            found: found.to_owned(),
        }
    }

    fn whole(&self, expected: &str, found: &str) -> Failure {
        self.failure(&Line { number: 0, text: "(the whole page)".to_owned() }, expected, found)
    }

    /// The lines of each block with this tag, without empty ones; at least one block, and none without a line.
    fn blocks(&self, tag: &str) -> Result<Vec<Vec<Line>>, Failure> {
        let mut blocks = Vec::new();
        // The fence that is open now, and its lines if they are ours.
        let mut open: Option<(Line, Option<Vec<Line>>)> = None;
        for (at, text) in self.text.lines().enumerate() {
            let line = Line { number: at + 1, text: text.trim().to_owned() };
            match (line.text.strip_prefix("```"), &mut open) {
                (Some(""), Some((fence, lines))) => {
                    match lines.take() {
                        Some(lines) if lines.is_empty() => return Err(self.failure(fence, "a block with lines", "an empty one")),
                        Some(lines) => blocks.push(lines),
                        None => {}
                    }
                    open = None;
                }
                (Some(info), None) => {
                    if info.contains("farshore") && info != tag {
                        return Err(self.failure(&line, &format!("blocks tagged {tag} only"), info));
                    }
                    let lines = (info == tag).then(Vec::new);
                    open = Some((line, lines));
                }
                (_, Some((_, Some(lines)))) if !line.text.is_empty() => lines.push(line),
                _ => {}
            }
        }
        if let Some((fence, _)) = open {
            return Err(self.failure(&fence, "a block that ends", "the end of the page"));
        }
        if blocks.is_empty() {
            return Err(self.whole(&format!("blocks tagged {tag}"), "none: nothing would be checked"));
        }
        Ok(blocks)
    }

    fn drill(&self) -> Result<Vec<Statement>, Failure> {
        let found = self.text.lines().enumerate().find(|(_, text)| text.starts_with(DRILL));
        let Some((at, text)) = found else {
            return Err(self.whole(&format!("a comment `{DRILL} .. -->`"), "none: the symptom would not be there"));
        };
        let line = Line { number: at + 1, text: text.to_owned() };
        let Some(inner) = text.strip_prefix(DRILL).and_then(|rest| rest.trim().strip_suffix("-->")) else {
            return Err(self.failure(&line, "a comment that ends with `-->`", text));
        };
        let words = inner.split(';').map(|part| Line { number: line.number, text: part.trim().to_owned() });
        self.statements(&words.collect::<Vec<_>>())
    }

    fn statements(&self, lines: &[Line]) -> Result<Vec<Statement>, Failure> {
        let mut statements: Vec<Statement> = Vec::new();
        for line in lines {
            if let Some(printed) = printed(&line.text) {
                let last = statements.last_mut().map(|statement| &mut statement.step);
                let Some(Step::Command { demand: Demand::Succeed(output) | Demand::SucceedInTime(output), .. }) = last else {
                    return Err(self.failure(line, "a command that succeeds, before what it prints", "something else"));
                };
                output.get_or_insert_default().push(printed.to_owned());
                continue;
            }
            let step = self.step(line)?;
            statements.push(Statement { line: line.clone(), step });
        }
        Ok(statements)
    }

    fn step(&self, line: &Line) -> Result<Step, Failure> {
        let unknown = || self.failure(line, "a line of the format of the examples", "one that it does not know");
        if let Some(rest) = line.text.strip_prefix("mount ") {
            return mount_line(rest).map(Step::Mount).ok_or_else(unknown);
        }
        if let Some(rest) = line.text.strip_prefix("world: ") {
            return world_event(rest).map(Step::World).ok_or_else(unknown);
        }
        command(&line.text).ok_or_else(unknown)
    }

    fn shell_line(&self, line: Line) -> Result<ShellLine, Failure> {
        let Some((_, codes)) = line.text.rsplit_once("# exit") else {
            return Ok(ShellLine { line, exits: vec![0] });
        };
        let exits: Option<Vec<i32>> = codes.split_whitespace().map(|code| code.parse().ok()).collect();
        match exits.filter(|exits| !exits.is_empty()) {
            Some(exits) => Ok(ShellLine { line, exits }),
            None => Err(self.failure(&line, "`# exit N` or `# exit N M`", codes)),
        }
    }
}

/// What a line says that a command printed.
fn printed(text: &str) -> Option<&str> {
    if text == "=" { Some("") } else { text.strip_prefix("= ") }
}

fn mount_name(word: &str) -> Option<char> {
    let mut letters = word.chars();
    let name = letters.next().filter(char::is_ascii_uppercase)?;
    letters.next().is_none().then_some(name)
}

fn mount_line(words: &str) -> Option<MountLine> {
    let mut words = words.split_whitespace();
    let (name, region) = (mount_name(words.next()?)?, words.next()?.to_owned());
    let mut flags = Vec::new();
    for option in words {
        match (option, option.strip_prefix("bucket=")) {
            ("read-only", _) => flags.push("--read-only".to_owned()),
            ("flip", _) => flags.push("--flip".to_owned()),
            ("durable=close", _) => flags.extend(["--durable".to_owned(), "close".to_owned()]),
            (_, Some(region)) => flags.extend(["--bucket".to_owned(), format!("embedded://{region}")]),
            _ => return None,
        }
    }
    Some(MountLine { name, region, flags })
}

fn world_event(words: &str) -> Option<WorldEvent> {
    let words: Vec<&str> = words.split_whitespace().collect();
    match words[..] {
        ["caught-up"] => Some(WorldEvent::CaughtUp),
        ["copied"] => Some(WorldEvent::Copied),
        ["pause"] => Some(WorldEvent::Pause),
        ["resume"] => Some(WorldEvent::Resume),
        ["kill-leader", region] => Some(WorldEvent::KillLeader(region.to_owned())),
        ["kill-bucket", region] => Some(WorldEvent::KillBucket(region.to_owned())),
        _ => None,
    }
}

fn command(text: &str) -> Option<Step> {
    let (head, rest) = text.split_once(' ')?;
    let kind = head.chars().last()?;
    let mount = mount_name(head.strip_suffix(kind)?)?;
    let (demand, command) = match kind {
        '$' => (Demand::Succeed(None), rest),
        '?' => (Demand::SucceedInTime(None), rest),
        '!' => {
            let (name, command) = rest.split_once(' ')?;
            let error = ERRORS.iter().find(|(known, _)| *known == name)?.1;
            (Demand::FailWith(error), command)
        }
        _ => return None,
    };
    Some(Step::Command { mount, command: command.to_owned(), demand })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# A page\n```sh\nnot ours\n```\n\n```farshore-example\nmount A us-east flip bucket=eu-west\n\nA$ cat x\n= one\n=  two\nA! EIO cat y\nA? ls\nworld: kill-leader us-east\n```\n";

    fn read(text: &str) -> Result<Examples, Failure> {
        examples(Path::new("page.md"), text)
    }

    #[test]
    fn a_page_of_examples_is_read_with_its_lines() {
        let page = read(PAGE).unwrap();
        let steps: Vec<_> = page.examples[0].iter().map(|statement| statement.step.clone()).collect();
        let flags = ["--flip", "--bucket", "embedded://eu-west"].map(str::to_owned).to_vec();
        let run = |command: &str, demand| Step::Command { mount: 'A', command: command.to_owned(), demand };
        let expected = [
            Step::Mount(MountLine { name: 'A', region: "us-east".to_owned(), flags }),
            run("cat x", Demand::Succeed(Some(vec!["one".to_owned(), " two".to_owned()]))),
            run("cat y", Demand::FailWith(libc::EIO)),
            run("ls", Demand::SucceedInTime(None)),
            Step::World(WorldEvent::KillLeader("us-east".to_owned())),
        ];
        assert_eq!(steps, expected);
        assert_eq!(page.examples.len(), 1);
        assert_eq!(page.examples[0][1].line, Line { number: 9, text: "A$ cat x".to_owned() });
    }

    #[test]
    fn a_runbook_is_read_with_its_drill_and_its_codes() {
        let text = "# Page\n<!-- drill: mount A us-east; world: pause -->\n1. Do\n\n   ```farshore-runbook\n   farshore up\n   farshore lag   # exit 0 3\n   ```\n";
        let page = runbook(Path::new("page.md"), text).unwrap();
        assert_eq!(page.drill.len(), 2);
        assert_eq!(page.drill[1].step, Step::World(WorldEvent::Pause));
        let exits: Vec<_> = page.lines.iter().map(|line| (line.line.number, line.exits.clone())).collect();
        assert_eq!(exits, [(6, vec![0]), (7, vec![0, 3])]);
        let undrilled = runbook(Path::new("page.md"), &text.replace("drill", "dril")).unwrap_err();
        assert!(undrilled.found.contains("none"), "{undrilled}");
        let odd = runbook(Path::new("page.md"), &text.replace("# exit 0 3", "# exit zero")).unwrap_err();
        assert_eq!(odd.line, 7);
    }

    #[test]
    fn a_page_that_would_check_nothing_is_a_failure() {
        for text in ["", "# A page\n```sh\nls\n```\n", &PAGE.replace("```farshore-example", "```example")] {
            assert!(read(text).unwrap_err().found.contains("nothing would be checked"), "{text}");
        }
        assert!(read("```farshore-example\n```\n").is_err(), "an empty block");
        assert_eq!(read(&PAGE.replace("-example", "-exampel")).unwrap_err().line, 6);
        assert_eq!(read("```farshore-example\nmount A us-east\n").unwrap_err().line, 1, "a block that does not end");
    }

    #[test]
    fn a_line_that_is_not_understood_is_a_failure() {
        let odd = [
            "mount AB us-east",
            "mount A",
            "mount A us-east fast",
            "world: explode",
            "world: kill-leader",
            "A% ls",
            "A!EIO cat",
            "A! ENONSENSE cat",
            "ls",
        ];
        for line in odd {
            let failure = read(&format!("```farshore-example\n{line}\n```\n")).unwrap_err();
            assert_eq!((failure.line, failure.command.as_str()), (2, line));
        }
        let output = read("```farshore-example\nmount A us-east\n= one\n```\n").unwrap_err();
        assert_eq!(output.line, 3, "output of a mount");
    }
}
