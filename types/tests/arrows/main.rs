//! The house checks itself: which room may use which (`arrows`), and what no tracked file may hold (`tidy`).
//!
//! Each check is a function from what was read to a list of violations, so that a planted violation shows that it fires.
//! A violation is one sentence: where, which rule, and the mend.

mod arrows;
mod graph;
mod tidy;
mod tree;

use std::path::{Path, PathBuf};

/// The repository's top folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies in a folder of the repository").to_owned()
}

fn none_of(violations: Vec<String>) {
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
}
