//! The workspace as `cargo metadata` tells it, and the crates behind it as Cargo.lock does.
//!
//! Only what a product build links counts: normal and build dependencies. Tests may reach further.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// A crate of the workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    pub name: String,
    /// Its manifest, from the repository's top folder.
    pub manifest: String,
    /// Names of the crates that a product build of it links directly.
    pub uses: BTreeSet<String>,
}

/// The rooms in the output of `cargo metadata --format-version 1 --no-deps`.
pub fn rooms(metadata: &str) -> Vec<Room> {
    let metadata: serde_json::Value = serde_json::from_str(metadata).expect("cargo metadata prints JSON");
    let top = metadata["workspace_root"].as_str().expect("cargo metadata names the workspace's root");
    let packages = metadata["packages"].as_array().expect("cargo metadata lists packages");
    let room = |package: &serde_json::Value| {
        let text = |key: &str| package[key].as_str().expect("a package has a name and a manifest").to_owned();
        let uses = package["dependencies"].as_array().expect("a package lists its dependencies");
        let uses = uses.iter().filter(|uses| uses["kind"] != "dev");
        let uses = uses.map(|uses| uses["name"].as_str().expect("a dependency has a name").to_owned()).collect();
        let manifest = text("manifest_path");
        let manifest = manifest.strip_prefix(top).unwrap_or(&manifest).trim_start_matches('/').to_owned();
        Room { name: text("name"), manifest, uses }
    };
    packages.iter().map(room).collect()
}

/// Where a product build would turn a feature on: by default, or by a dependency of another crate's.
pub fn turned_on(metadata: &str, feature: &str) -> Vec<String> {
    let metadata: serde_json::Value = serde_json::from_str(metadata).expect("cargo metadata prints JSON");
    let has = |list: &serde_json::Value| {
        let named = |item: &serde_json::Value| item.as_str().is_some_and(|item| item.rsplit('/').next() == Some(feature));
        list.as_array().is_some_and(|list| list.iter().any(named))
    };
    let mut found = vec![];
    for package in metadata["packages"].as_array().expect("cargo metadata lists packages") {
        if has(&package["features"]["default"]) {
            found.push(format!("{}: `{feature}` is on by default", package["name"]));
        }
        let uses = package["dependencies"].as_array().into_iter().flatten().filter(|uses| uses["kind"] != "dev");
        for uses in uses.filter(|uses| has(&uses["features"])) {
            found.push(format!("{}: the dependency on {} turns `{feature}` on", package["name"], uses["name"]));
        }
    }
    found
}

/// What cargo says of this repository.
pub fn metadata_here(root: &Path) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = Command::new(cargo);
    let output = command.args(["metadata", "--format-version", "1", "--no-deps"]).current_dir(root).output();
    let output = output.expect("cargo runs");
    assert!(output.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo metadata prints UTF-8")
}

/// Which crate depends on which, by name, in Cargo.lock. Of a crate from the registry the lock file lists no
/// development dependencies, but all optional ones that anyone turns on.
pub fn locked(lock: &str) -> BTreeMap<String, BTreeSet<String>> {
    let lock: toml::Table = lock.parse().expect("Cargo.lock is TOML");
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in lock["package"].as_array().expect("Cargo.lock lists packages") {
        let name = package["name"].as_str().expect("a locked package has a name").to_owned();
        let direct = package.get("dependencies").and_then(|list| list.as_array()).into_iter().flatten();
        // "name" or "name version", where several versions are locked.
        let direct = direct.filter_map(|line| line.as_str()?.split(' ').next()).map(str::to_owned);
        uses.entry(name).or_default().extend(direct);
    }
    uses
}

/// A path from a room to the first of `targets` that a product build of it links, or `None`.
pub fn path_to(room: &str, targets: &[&str], rooms: &[Room], locked: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    let mut seen = BTreeSet::from([room.to_owned()]);
    let mut paths = std::collections::VecDeque::from([vec![room.to_owned()]]);
    while let Some(path) = paths.pop_front() {
        let last = path.last().expect("a path has its beginning");
        if targets.contains(&last.as_str()) {
            return Some(path);
        }
        let own = rooms.iter().find(|room| room.name == *last).map(|room| &room.uses);
        for next in own.or_else(|| locked.get(last)).into_iter().flatten() {
            if seen.insert(next.clone()) {
                paths.push_back(path.iter().cloned().chain([next.clone()]).collect());
            }
        }
    }
    None
}
