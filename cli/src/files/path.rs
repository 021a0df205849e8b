//! `VOLUME:/PATH`, and finding what it names.

use super::failed;
use crate::error::CliError;
use farshore_client::Volume;
use farshore_client::paths::{self, PathError};
use farshore_types::{Attr, ErrorKind, Ino, NodeKind};

/// A path in a volume; absolute, without `.`, `..` and empty parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    pub volume: String,
    pub parts: Vec<String>,
    /// Whether it was written with a slash at the end: it must be a directory.
    pub slash: bool,
}

impl Remote {
    pub fn shown(&self) -> String {
        format!("{}:/{}", self.volume, self.parts.join("/"))
    }

    /// The path inside the volume.
    pub fn inside(&self) -> String {
        format!("/{}", self.parts.join("/"))
    }

    /// The path one name further.
    pub fn join(&self, name: &str) -> Remote {
        let mut parts = self.parts.clone();
        parts.push(name.to_owned());
        Remote { parts, slash: false, ..self.clone() }
    }
}

/// Whether a word names a path in a volume and not one of this machine: `NAME:/...`, where NAME has no slash.
pub fn is_remote(word: &str) -> bool {
    word.split_once(':').is_some_and(|(volume, path)| !volume.is_empty() && !volume.contains('/') && path.starts_with('/'))
}

pub fn parse(word: &str) -> Result<Remote, CliError> {
    if !is_remote(word) {
        return Err(CliError::usage(format!("{word:?} is no path in a volume"), "write VOLUME:/PATH, for example demo:/home"));
    }
    let (volume, path) = word.split_once(':').expect("a remote path has a colon");
    let mut parts = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match part {
            ".." => drop(parts.pop()),
            part => parts.push(part.to_owned()),
        }
    }
    Ok(Remote { volume: volume.to_owned(), parts, slash: path.len() > 1 && path.ends_with('/') })
}

/// The inode at a path; links on the way are followed, one at the end is not (unless a slash follows it).
pub async fn resolve(volume: &Volume, path: &Remote) -> Result<Attr, CliError> {
    walk(volume, path, path.slash).await
}

/// As [`resolve`], following a link at the end as well.
pub async fn resolve_followed(volume: &Volume, path: &Remote) -> Result<Attr, CliError> {
    walk(volume, path, true).await
}

async fn walk(volume: &Volume, path: &Remote, follow_last: bool) -> Result<Attr, CliError> {
    let attr = paths::resolve(volume, &path.inside(), follow_last).await.map_err(refused)?;
    if path.slash && attr.kind != NodeKind::Directory {
        return Err(CliError::failed(format!("{} is not a directory", path.shown()), "leave the slash at its end out"));
    }
    Ok(attr)
}

/// Removes a name, and with `recursive` what is below it.
pub async fn remove(volume: &Volume, path: &Remote, recursive: bool) -> Result<u64, CliError> {
    match paths::remove(volume, &path.inside(), recursive).await {
        Err(PathError::Volume { source, .. }) if source.is(ErrorKind::IsDirectory) && !recursive => {
            Err(CliError::usage(format!("{} is a directory", path.shown()), "remove it with -r"))
        }
        other => other.map_err(refused),
    }
}

fn refused(error: PathError) -> CliError {
    match error {
        PathError::Volume { path, source } => failed(&path, &source),
        other => CliError::failed(other.to_string(), ""),
    }
}

/// The directory that a path is in, and its name there.
pub async fn parent_of(volume: &Volume, path: &Remote) -> Result<(Ino, String), CliError> {
    let Some((name, parts)) = path.parts.split_last() else {
        return Err(CliError::usage(format!("{} is the root itself", path.shown()), "name something below it"));
    };
    let parent = Remote { parts: parts.to_vec(), slash: true, ..path.clone() };
    Ok((resolve_followed(volume, &parent).await?.ino, name.clone()))
}

/// Where `name` goes when copied to `to`: into a directory that is there, else under `to`'s own name.
pub async fn uploaded_as(volume: &Volume, to: &Remote, name: &str) -> Result<(Ino, String), CliError> {
    match resolve_followed(volume, to).await {
        Ok(attr) if attr.kind == NodeKind::Directory => Ok((attr.ino, name.to_owned())),
        Err(error) if to.slash => Err(error),
        _ => parent_of(volume, to).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_paths_are_told_from_local_ones() {
        for remote in ["demo:/", "demo:/a/b", "d:/x:y"] {
            assert!(is_remote(remote), "{remote}");
        }
        for local in ["a", "/a:/b", "./demo:/x", ":/x", "demo:x", "-"] {
            assert!(!is_remote(local), "{local}");
            assert_eq!(parse(local).unwrap_err().exit, 2);
        }
    }

    #[test]
    fn paths_are_made_plain() {
        let path = parse("demo:/a//b/./../c/").unwrap();
        assert_eq!((path.shown().as_str(), path.slash), ("demo:/a/c", true));
        assert_eq!(parse("demo:/../..").unwrap().parts, Vec::<String>::new());
        assert!(!parse("demo:/").unwrap().slash);
        assert_eq!(path.join("x").shown(), "demo:/a/c/x");
    }
}
