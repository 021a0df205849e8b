//! Keys as paths below a store's root, and back.
//!
//! A key is cut at its slashes. Every part but the last is a directory of that name; the last is a file of that name
//! with `=` behind it, so that `a` (file `a=`) and `a/b` (file `a/b=`) live side by side. Escaped as `%XX` are: control
//! bytes, `%`, `=`, and a dot at the start, so no part is ever `.` or `..` and names that start with a dot are the
//! store's own. An empty part that names a directory (`a//b`) is written `%`. The mapping is one to one.

use super::StoreError;
use crate::percent;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Longest key in bytes, as in S3.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest part of a key in bytes once escaped: what file systems take, less the mark.
pub const PART_BYTES_MAX: usize = 254;
/// Ends the name of every object's file.
const MARK: u8 = b'=';
/// Stands for a directory whose name is empty.
const EMPTY: &[u8] = b"%";

/// What a name inside the store's directory stands for.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Object(String),
    Directory(String),
}

/// The file of `key` below `root`.
pub(super) fn of_key(root: &Path, key: &str) -> Result<PathBuf, StoreError> {
    let bad = |rule| StoreError::BadKey { key: key.to_owned(), rule };
    if key.is_empty() {
        return Err(bad("it is empty"));
    }
    if key.len() > KEY_BYTES_MAX {
        return Err(bad("it is longer than 1024 bytes"));
    }
    let mut path = root.to_owned();
    let mut parts = key.split('/').peekable();
    while let Some(part) = parts.next() {
        let mut name = Vec::with_capacity(part.len() + 1);
        escape(&mut name, part);
        if name.len() > PART_BYTES_MAX {
            return Err(bad("a part between slashes is longer than 254 bytes once escaped"));
        }
        if parts.peek().is_none() {
            name.push(MARK);
        } else if name.is_empty() {
            name.extend(EMPTY);
        }
        path.push(OsStr::from_bytes(&name));
    }
    debug_assert!(path.starts_with(root), "no part of a key climbs out of the root");
    Ok(path)
}

/// What `name`, found in a directory of the store, stands for; `None` for names that no key maps to.
pub(super) fn part_of(name: &OsStr) -> Option<Part> {
    let name = name.as_bytes();
    let text = |bytes: &[u8]| {
        let part = String::from_utf8(percent::decode(bytes)?).ok()?;
        let mut again = Vec::with_capacity(bytes.len());
        escape(&mut again, &part);
        // Only the one spelling that `of_key` writes: a foreign file must not shadow a key.
        (again == bytes).then_some(part)
    };
    match name.split_last()? {
        (&MARK, stem) => text(stem).map(Part::Object),
        _ if name == EMPTY => Some(Part::Directory(String::new())),
        _ => text(name).map(Part::Directory),
    }
}

fn escape(out: &mut Vec<u8>, part: &str) {
    for (position, &byte) in part.as_bytes().iter().enumerate() {
        let odd = byte < 0x20 || byte == 0x7f || byte == b'%' || byte == MARK || (byte == b'.' && position == 0);
        if odd {
            percent::push_escape(out, byte);
        } else {
            out.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_keys_stay_inside_the_root_and_apart() {
        let root = Path::new("/root");
        let keys = [
            "a",
            "a/b",
            "a=",
            "a=/b",
            "a%3D",
            "..",
            "../x",
            "a/../b",
            "a/./b",
            ".tmp/x",
            "/",
            "//",
            "/a",
            "a/",
            "a//",
            "a//b",
            "%",
            "%/a",
            "\u{1}",
            "sp ace",
            "caf\u{e9}",
            "a\\b",
            "=",
            ".",
        ];
        let mut seen = std::collections::HashSet::new();
        for key in keys {
            let path = of_key(root, key).unwrap();
            let below = path.strip_prefix("/root").unwrap();
            assert!(below.components().all(|c| matches!(c, std::path::Component::Normal(_))), "{key} -> {path:?}");
            assert!(!below.as_os_str().as_bytes().starts_with(b"."), "{key} -> {path:?} is the store's own");
            assert!(seen.insert(path.clone()), "{key} shares {path:?}");
            let parts: Vec<Part> = below.iter().map(|name| part_of(name).unwrap()).collect();
            let back: Vec<&str> = parts
                .iter()
                .map(|part| match part {
                    Part::Object(name) | Part::Directory(name) => name.as_str(),
                })
                .collect();
            assert_eq!(back.join("/"), key);
        }
        assert_eq!(of_key(root, "chunks/0/0/1_0_4").unwrap(), Path::new("/root/chunks/0/0/1_0_4="));
    }

    #[test]
    fn keys_that_no_file_can_hold_are_refused_with_the_rule() {
        let long = "x".repeat(PART_BYTES_MAX + 1);
        let longer = "x/".repeat(KEY_BYTES_MAX / 2) + "y";
        for key in ["", long.as_str(), longer.as_str()] {
            assert!(matches!(of_key(Path::new("/r"), key), Err(StoreError::BadKey { .. })), "{key} was taken");
        }
        assert!(of_key(Path::new("/r"), &"x".repeat(PART_BYTES_MAX)).is_ok());
    }

    #[test]
    fn foreign_names_stand_for_nothing() {
        for name in [".tmp", ".lock", "%41=", "%zz=", "a%2fb=", ""] {
            assert_eq!(part_of(OsStr::new(name)), None, "{name} was taken");
        }
    }
}
