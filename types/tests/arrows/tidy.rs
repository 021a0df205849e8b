//! What no file of the repository may hold, with file, line and mend in every message.
//!
//! clippy refuses `unwrap` outside tests, `todo!` and `unimplemented!`; what it cannot see is checked here.

use crate::tree::{self, File};
use crate::{none_of, root};
use std::path::Path;

/// Longest file of Rust.
const LINES_MAX: usize = 500;
/// Files that may be longer, each with the reason.
const LONGER: [(&str, &str); 0] = [];
/// Files that others wrote, or that a tool writes.
const NOT_OURS: [&str; 2] = ["LICENSE", "Cargo.lock"];
const DECISIONS: &str = "docs/decisions/";

/// What no file may hold, the mend, and which paths it is about.
type Forbidden = (String, &'static str, fn(&str) -> bool);

/// The words are written in two parts, so that this file does not hold them.
fn forbidden() -> Vec<Forbidden> {
    let rust = |path: &str| path.ends_with(".rs");
    let any = |_: &str| true;
    vec![
        (["todo", "!("].concat(), "write it, or answer \"not available yet\"", rust),
        (["#[igno", "re"].concat(), "mend the test or remove it; one that cannot run here says so loudly and fails in CI", rust),
        ("\t".to_owned(), "indent with spaces", any),
        (["/wor", "k/"].concat(), "name no path of one machine; use a path from the repository's top folder", any),
        (["/tm", "p/t-"].concat(), "name no path of one machine; use a temporary directory", any),
        (["/home", "/"].concat(), "name no path of one machine; use a path from the repository's top folder", any),
    ]
}

/// Whether a needle that is a path begins one in `line`, rather than lying inside a longer one.
fn holds(line: &str, needle: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || "._-/:".contains(c);
    let begins = |at: usize| !needle.starts_with('/') || !line[..at].ends_with(inside);
    line.match_indices(needle).any(|(at, _)| begins(at))
}

fn words(files: &[File]) -> Vec<String> {
    let forbidden = forbidden();
    let mut found = vec![];
    for file in files.iter().filter(|file| !NOT_OURS.contains(&file.path.as_str())) {
        for (number, line) in file.text.lines().enumerate() {
            for (needle, mend, applies) in &forbidden {
                if applies(&file.path) && holds(line, needle) {
                    found.push(format!("{}:{}: holds {needle:?}: {mend}", file.path, number + 1));
                }
            }
        }
    }
    found
}

fn lengths(files: &[File]) -> Vec<String> {
    let too_long = |file: &&File| {
        file.path.ends_with(".rs")
            && file.text.lines().count() > LINES_MAX
            && !LONGER.iter().any(|(listed, _)| *listed == file.path)
    };
    let sentence = |file: &File| {
        let lines = file.text.lines().count();
        format!(
            "{}:{LINES_MAX}: has {lines} lines: split it by concept, or list it with its reason in types/tests/arrows/tidy.rs",
            file.path
        )
    };
    files.iter().filter(too_long).map(sentence).collect()
}

/// A record is named `NNNN-title.md` with a number of its own, and its third line is `Date: YYYY-MM-DD`.
fn decisions(files: &[File]) -> Vec<String> {
    let mut found = vec![];
    let mut numbers = std::collections::BTreeMap::new();
    for file in files {
        let Some(name) = file.path.strip_prefix(DECISIONS) else { continue };
        let number = name.get(..5).filter(|head| head.ends_with('-') && head[..4].bytes().all(|b| b.is_ascii_digit()));
        match number {
            None => found.push(format!("{}:1: a decision is named NNNN-title.md: rename it", file.path)),
            Some(number) => {
                if let Some(other) = numbers.insert(number, &file.path) {
                    found.push(format!("{}:1: has the number of {other}: take the next free one", file.path));
                }
            }
        }
        let dated = file.text.lines().nth(2).and_then(|line| line.strip_prefix("Date: ")).is_some_and(is_date);
        if !dated {
            found.push(format!("{}:3: a decision has its date here: write \"Date: YYYY-MM-DD\"", file.path));
        }
        for part in ["## Context", "## Evidence", "## Decision", "## Consequences"] {
            if !file.text.lines().any(|line| line == part) {
                found.push(format!("{}:1: a decision has four parts: add \"{part}\"", file.path));
            }
        }
    }
    found
}

fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let digits = |part: &str, length: usize| part.len() == length && part.bytes().all(|b| b.is_ascii_digit());
    matches!(parts.as_slice(), [year, month, day] if digits(year, 4) && digits(month, 2) && digits(day, 2))
}

/// Links from a page to a file of the repository lead somewhere.
fn links(files: &[File], is_there: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut found = vec![];
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
        for (number, line) in file.text.lines().enumerate() {
            for rest in line.split("](").skip(1) {
                let target = rest.split(')').next().unwrap_or_default();
                let target = target.split('#').next().unwrap_or_default();
                if !target.is_empty() && !target.contains("://") && !is_there(&folder.join(target)) {
                    found.push(format!("{}:{}: links to {target:?}, which is not there: mend the link", file.path, number + 1));
                }
            }
        }
    }
    found
}

/// Paths of sources that a page names in backticks are there. Decisions are of their day and may name what is gone.
fn sources(files: &[File], is_there: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut found = vec![];
    let ours = |file: &&File| file.path.ends_with(".md") && !file.path.starts_with(DECISIONS);
    for file in files.iter().filter(ours) {
        for (number, line) in file.text.lines().enumerate() {
            let quoted = line.split('`').skip(1).step_by(2);
            for path in quoted.filter(|text| text.contains('/') && text.ends_with(".rs") && !text.contains(' ')) {
                if !is_there(Path::new(path)) {
                    found.push(format!("{}:{}: names {path}, which is not there: name what is", file.path, number + 1));
                }
            }
        }
    }
    found
}

#[test]
fn no_file_holds_what_it_must_not() {
    none_of(words(&tree::files(&root())));
}

#[test]
fn no_file_of_rust_is_too_long() {
    none_of(lengths(&tree::files(&root())));
}

#[test]
fn every_decision_has_its_number_its_date_and_its_parts() {
    let files = tree::files(&root());
    assert!(files.iter().any(|file| file.path.starts_with(DECISIONS)), "no decisions were found: was the tree read?");
    none_of(decisions(&files));
}

#[test]
fn links_between_pages_lead_somewhere() {
    none_of(links(&tree::files(&root()), |path| root().join(path).exists()));
}

#[test]
fn sources_that_pages_name_are_there() {
    none_of(sources(&tree::files(&root()), |path| root().join(path).exists()));
}

fn file(path: &str, text: impl Into<String>) -> File {
    File { path: path.into(), text: text.into() }
}

#[test]
fn a_planted_word_is_found_with_file_line_and_mend() {
    for (needle, mend, _) in forbidden() {
        let found = words(&[file("a/src/b.rs", format!("fine\nlet x = {needle}\n"))]);
        assert_eq!(found, [format!("a/src/b.rs:2: holds {needle:?}: {mend}")]);
    }
    let inside = format!("see https://example.net{} and network{}", forbidden()[3].0, forbidden()[3].0);
    assert_eq!(words(&[file("a.md", inside), file("Cargo.lock", "\t")]), Vec::<String>::new());
}

#[test]
fn a_planted_length_is_found() {
    assert!(lengths(&[file("a.rs", "x\n".repeat(LINES_MAX)), file("a.md", "x\n".repeat(LINES_MAX + 1))]).is_empty());
    let found = lengths(&[file("a.rs", "x\n".repeat(LINES_MAX + 1))]);
    assert!(found.len() == 1 && found[0].starts_with("a.rs:500: has 501 lines: split it"), "{found:?}");
}

#[test]
fn a_planted_decision_is_found() {
    let parts = "## Context\n## Evidence\n## Decision\n## Consequences\n";
    let good = |name: &str| file(&format!("{DECISIONS}{name}"), format!("# T\n\nDate: 2026-11-20\n{parts}"));
    assert_eq!(decisions(&[good("0001-a.md"), good("0002-b.md")]), Vec::<String>::new());
    assert!(decisions(&[good("0001-a.md"), good("0001-b.md")])[0].contains("has the number of docs/decisions/0001-a.md"));
    assert!(decisions(&[good("first.md")])[0].contains("rename it"));
    for date in ["", "Date: soon", "Date: 2026-11-2x", "Date: 2026-11"] {
        let found = decisions(&[file("docs/decisions/0001-a.md", format!("# T\n\n{date}\n{parts}"))]);
        assert!(found.len() == 1 && found[0].starts_with("docs/decisions/0001-a.md:3:"), "{date}: {found:?}");
    }
    assert_eq!(decisions(&[file("docs/decisions/0001-a.md", "# T\n\nDate: 2026-11-20\n")]).len(), 4);
}

#[test]
fn a_planted_link_is_found() {
    let page = file("docs/a.md", "[x](b.md) [y](https://example.net/) [z](#part)\n[gone](../gone.md#here)\n");
    let found = links(&[page], |path| path == Path::new("docs/b.md"));
    assert_eq!(found, ["docs/a.md:2: links to \"../gone.md\", which is not there: mend the link"]);
}

#[test]
fn a_planted_source_is_found() {
    let page = file("docs/a.md", "see `b/c.rs`, `c.rs` and\n`b/gone.rs`, not b/d.rs\n");
    let found = sources(&[page, file("docs/decisions/0001-a.md", "`b/gone.rs`")], |path| path == Path::new("b/c.rs"));
    assert_eq!(found, ["docs/a.md:2: names b/gone.rs, which is not there: name what is"]);
}
