//! The program under test: `$FARSHORE_BIN`, or built once from this workspace with the profile of the running test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

static BINARY: OnceLock<PathBuf> = OnceLock::new();

/// The program's path; the first caller builds it.
pub fn farshore() -> &'static Path {
    BINARY.get_or_init(|| match std::env::var_os("FARSHORE_BIN") {
        Some(path) => PathBuf::from(path),
        None => build(),
    })
}

/// Where the running test lies tells the target directory and the profile: `TARGET/PROFILE/deps/live-HASH`.
fn place(test: &Path) -> Option<(PathBuf, String)> {
    let profile = test.parent()?.parent()?;
    Some((profile.parent()?.to_owned(), profile.file_name()?.to_str()?.to_owned()))
}

fn build() -> PathBuf {
    let test = std::env::current_exe().expect("a running program knows its own path");
    let (target, profile) = place(&test).expect("cargo puts tests below TARGET/PROFILE/deps");
    // The directory of the profile `dev` is called `debug`.
    let name = if profile == "debug" { "dev" } else { &profile };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", "farshore", "--profile", name, "--target-dir"]).arg(&target);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let status = command.status().expect("cargo can be started");
    assert!(status.success(), "building the program under test failed; `cargo build -p farshore` says why");
    target.join(profile).join("farshore")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_test_tells_target_and_profile() {
        let place = |path: &str| place(Path::new(path));
        assert_eq!(place("/t/debug/deps/live-1"), Some(("/t".into(), "debug".into())));
        assert_eq!(place("/a/b/release/deps/live-1"), Some(("/a/b".into(), "release".into())));
        assert_eq!(place("live"), None);
    }
}
