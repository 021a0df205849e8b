//! The files that the repository holds, as text.

use std::path::Path;
use std::process::Command;

/// A file of the repository: its path from the top folder, and its text.
pub struct File {
    pub path: String,
    pub text: String,
}

/// Folders that hold no sources, for a tree without git.
const SKIPPED: [&str; 4] = ["target", ".git", ".farshore", "farshore-data"];
/// A larger file is no text that a person wrote.
const TEXT_MAX: u64 = 1 << 20;

/// All text files, those included that are not committed yet. What git ignores is left out.
pub fn files(root: &Path) -> Vec<File> {
    let mut paths = listed_by_git(root).unwrap_or_else(|| walked(root));
    paths.sort();
    let text = |path: String| {
        let there = root.join(&path);
        let small = std::fs::symlink_metadata(&there).is_ok_and(|meta| meta.is_file() && meta.len() <= TEXT_MAX);
        let text = small.then(|| std::fs::read_to_string(&there).ok()).flatten()?;
        Some(File { path, text })
    };
    paths.into_iter().filter_map(text).collect()
}

fn listed_by_git(root: &Path) -> Option<Vec<String>> {
    let mut git = Command::new("git");
    let output = git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root).output().ok()?;
    let names = output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())?;
    let names: Vec<String> = names.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    (!names.is_empty()).then_some(names)
}

fn walked(root: &Path) -> Vec<String> {
    let mut found = vec![];
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the repository can be read").flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if !SKIPPED.iter().any(|skipped| entry.file_name() == *skipped) {
                    folders.push(path);
                }
            } else if let Some(name) = path.strip_prefix(root).ok().and_then(|path| path.to_str()) {
                found.push(name.to_owned());
            }
        }
    }
    found
}
