//! Listing in byte order of the keys.
//!
//! Keys sort as the walk goes when, inside each directory, objects sort by their name and directories by their name
//! with a slash behind it. The walk enters only directories that can hold a key behind the last one of the page before,
//! so a page costs the directories that it crosses and not the bucket.

use super::format::ObjectInfo;
use super::path::{self, Part};
use super::write::is_absent;
use super::{Store, StoreError, read};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// What to list.
#[derive(Clone, Copy, Debug)]
pub struct ListRequest<'a> {
    /// Only keys that start with this.
    pub prefix: &'a str,
    /// Only keys behind this one, exclusive.
    pub after: Option<&'a str>,
    /// Fold keys that have a slash behind the prefix into one entry up to that slash.
    pub fold: bool,
    /// Most entries.
    pub limit: usize,
}

/// One entry of a page.
#[derive(Debug)]
pub enum Listed {
    /// An object. Without info when its file's tail is damaged: it is there all the same, with so many bytes.
    Object { key: String, info: Result<ObjectInfo, u64> },
    /// The keys that start so, when the request folds.
    Folded { prefix: String },
}

/// One page of a listing.
#[derive(Debug)]
pub struct Page {
    pub entries: Vec<Listed>,
    /// Whether more follow.
    pub more: bool,
}

/// Whether the walk goes on.
#[derive(PartialEq, Eq)]
enum Walk {
    On,
    Full,
}

impl Store {
    /// Lists keys in byte order.
    pub fn list(&self, request: &ListRequest<'_>) -> Result<Page, StoreError> {
        let mut page = Page { entries: Vec::new(), more: false };
        if request.limit > 0 {
            page.more = walk(&self.root, "", request, &mut page.entries)? == Walk::Full;
        }
        Ok(page)
    }
}

fn walk(directory: &Path, key: &str, request: &ListRequest<'_>, entries: &mut Vec<Listed>) -> Result<Walk, StoreError> {
    for found in sorted(directory, key, request)? {
        let step = match found {
            Found::Object { key, path } => visit_object(&path, key, request, entries)?,
            Found::Directory { key, path } => visit_directory(&path, key, request, entries)?,
        };
        if step == Walk::Full {
            return Ok(Walk::Full);
        }
    }
    Ok(Walk::On)
}

fn visit_directory(path: &Path, key: String, request: &ListRequest<'_>, entries: &mut Vec<Listed>) -> Result<Walk, StoreError> {
    let folds = request.fold && key.len() > request.prefix.len();
    if !folds {
        return walk(path, &key, request, entries);
    }
    if request.after == Some(key.as_str()) || !holds_object(path)? {
        return Ok(Walk::On);
    }
    if entries.len() == request.limit {
        return Ok(Walk::Full);
    }
    entries.push(Listed::Folded { prefix: key });
    Ok(Walk::On)
}

fn visit_object(path: &Path, key: String, request: &ListRequest<'_>, entries: &mut Vec<Listed>) -> Result<Walk, StoreError> {
    if entries.len() == request.limit {
        return Ok(Walk::Full);
    }
    let file = match File::open(path) {
        Ok(file) => file,
        // Deleted since the directory was read.
        Err(error) if is_absent(&error) => return Ok(Walk::On),
        Err(error) => return Err(StoreError::io("open", path)(error)),
    };
    let info = match read::read_info(&file, path)? {
        Ok(info) => Ok(info),
        Err(why) => {
            tracing::warn!(key, %why, "an object is damaged");
            Err(file.metadata().map_err(StoreError::io("look at", path))?.len())
        }
    };
    entries.push(Listed::Object { key, info });
    Ok(Walk::On)
}

/// What the walk finds in a directory. The key of a directory ends in a slash; so may an object's.
enum Found {
    Object { key: String, path: PathBuf },
    Directory { key: String, path: PathBuf },
}

impl Found {
    fn key(&self) -> &str {
        match self {
            Found::Object { key, .. } | Found::Directory { key, .. } => key,
        }
    }
}

/// What is in a directory and may matter, in the order of keys.
fn sorted(directory: &Path, key: &str, request: &ListRequest<'_>) -> Result<Vec<Found>, StoreError> {
    let listing = match fs::read_dir(directory) {
        Ok(listing) => listing,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::io("read", directory)(error)),
    };
    let mut found = Vec::new();
    for entry in listing {
        let entry = entry.map_err(StoreError::io("read", directory))?;
        match path::part_of(&entry.file_name()) {
            Some(Part::Object(part)) => {
                let key = format!("{key}{part}");
                if wants_object(&key, request) {
                    found.push(Found::Object { key, path: entry.path() });
                }
            }
            Some(Part::Directory(part)) => {
                let key = format!("{key}{part}/");
                if wants_directory(&key, request) {
                    found.push(Found::Directory { key, path: entry.path() });
                }
            }
            None => {}
        }
    }
    found.sort_unstable_by(|a, b| a.key().cmp(b.key()));
    Ok(found)
}

fn wants_object(key: &str, request: &ListRequest<'_>) -> bool {
    key.starts_with(request.prefix) && request.after.is_none_or(|after| key > after)
}

/// Whether a key that starts with `key` can be wanted.
fn wants_directory(key: &str, request: &ListRequest<'_>) -> bool {
    let prefix_fits = key.starts_with(request.prefix) || request.prefix.starts_with(key);
    // All keys below are behind `after` unless `after` is behind `key` and not below it.
    prefix_fits && request.after.is_none_or(|after| key > after || after.starts_with(key))
}

fn holds_object(directory: &Path) -> Result<bool, StoreError> {
    let everything = ListRequest { prefix: "", after: None, fold: false, limit: 1 };
    let mut entries = Vec::new();
    walk(directory, "", &everything, &mut entries)?;
    Ok(!entries.is_empty())
}
