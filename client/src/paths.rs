//! Paths on a volume, for the commands that do without a mount: `ls cat cp rm stat` on `VOLUME:/PATH`.
//!
//! Paths are absolute on the volume; symbolic links are followed, at most [`LINKS_MAX`]. Files move as streams of
//! [`PIECE_BYTES`], so that memory does not grow with them.

use crate::error::FsError;
use crate::volume::{FileHandle, OpenFlags, Volume};
use bytes::{Bytes, BytesMut};
use farshore_types::{Attr, DirEntry, ErrorKind, Ino, NodeKind};
use std::collections::VecDeque;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Symbolic links followed on one path, as in the kernel.
pub const LINKS_MAX: u32 = 40;
/// Bytes of a file in memory at once.
pub const PIECE_BYTES: u32 = 1 << 20;
/// Entries of a directory asked for at once.
const PAGE: u32 = 1000;
/// Nested directories that a recursive removal enters; deeper is refused, not half done by surprise.
const DEPTH_MAX: usize = 1000;

/// A path that could not be resolved, a transfer that failed.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    #[error("`{path}`: {source}")]
    Volume { path: String, source: FsError },
    #[error("`{path}`: more than {LINKS_MAX} symbolic links on the way")]
    TooManyLinks { path: String },
    #[error("`{path}`: deeper than {DEPTH_MAX} directories")]
    TooDeep { path: String },
    #[error("the root directory cannot be removed or replaced")]
    Root,
    #[error("`{path}`: local side: {source}")]
    Local { path: String, source: std::io::Error },
}

fn at(path: &str) -> impl Fn(FsError) -> PathError + '_ {
    move |source| PathError::Volume { path: path.to_owned(), source }
}

fn refused(path: &str, kind: ErrorKind) -> PathError {
    at(path)(FsError::refused(kind, "resolve"))
}

fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> + '_ {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec)
}

/// The inode that `path` leads to; the last link is followed too if `follow`.
pub async fn resolve(volume: &Volume, path: &str, follow: bool) -> Result<Attr, PathError> {
    let mut waiting: VecDeque<Vec<u8>> = parts(path.as_bytes()).collect();
    let mut here = volume.getattr(Ino::ROOT).await.map_err(at(path))?;
    let mut links = 0;
    while let Some(name) = waiting.pop_front() {
        if here.kind != NodeKind::Directory {
            return Err(refused(path, ErrorKind::NotDirectory));
        }
        if name == b".." {
            let parent = volume.parent(here.ino).await.map_err(at(path))?;
            here = volume.getattr(parent).await.map_err(at(path))?;
            continue;
        }
        let found = volume.lookup(here.ino, &name).await.map_err(at(path))?;
        if found.kind != NodeKind::Symlink || (waiting.is_empty() && !follow) {
            here = found;
            continue;
        }
        links += 1;
        if links > LINKS_MAX {
            return Err(PathError::TooManyLinks { path: path.to_owned() });
        }
        let target = volume.readlink(found.ino).await.map_err(at(path))?;
        if target.first() == Some(&b'/') {
            here = volume.getattr(Ino::ROOT).await.map_err(at(path))?;
        }
        for part in parts(&target).rev() {
            waiting.push_front(part);
        }
    }
    Ok(here)
}

/// The directory that holds the last part of `path`, and that part.
pub async fn resolve_parent(volume: &Volume, path: &str) -> Result<(Attr, Vec<u8>), PathError> {
    let trimmed = path.trim_end_matches('/');
    let (parent, name) = trimmed.rsplit_once('/').unwrap_or(("", trimmed));
    if name.is_empty() || name == "." || name == ".." {
        return Err(PathError::Root);
    }
    let parent = resolve(volume, parent, true).await?;
    if parent.kind != NodeKind::Directory {
        return Err(refused(path, ErrorKind::NotDirectory));
    }
    Ok((parent, name.as_bytes().to_vec()))
}

/// Calls `each` with every entry of a directory, in byte order of names; of anything else, with itself.
pub async fn list(volume: &Volume, path: &str, mut each: impl FnMut(DirEntry)) -> Result<(), PathError> {
    let attr = resolve(volume, path, true).await?;
    if attr.kind != NodeKind::Directory {
        let name = parts(path.as_bytes()).next_back().unwrap_or_default();
        each(DirEntry { name, attr });
        return Ok(());
    }
    let mut after = None;
    loop {
        let (entries, more) = volume.readdir(attr.ino, after.take(), PAGE).await.map_err(at(path))?;
        after = entries.last().map(|entry| entry.name.clone());
        entries.into_iter().for_each(&mut each);
        if !more || after.is_none() {
            return Ok(());
        }
    }
}

/// Writes the whole file to `out`; returns its length.
pub async fn read_file(volume: &Volume, path: &str, out: &mut (impl AsyncWrite + Unpin)) -> Result<u64, PathError> {
    let attr = resolve(volume, path, true).await?;
    let flags = OpenFlags { read: true, ..OpenFlags::default() };
    let (handle, _) = volume.open(attr.ino, flags).await.map_err(at(path))?;
    let copied = copy_out(volume, &handle, path, out).await;
    let released = volume.release(handle).await.map_err(at(path));
    copied.and_then(|count| released.map(|()| count))
}

async fn copy_out(
    volume: &Volume,
    handle: &FileHandle,
    path: &str,
    out: &mut (impl AsyncWrite + Unpin),
) -> Result<u64, PathError> {
    let local = |source| PathError::Local { path: path.to_owned(), source };
    let mut offset = 0;
    loop {
        let data = volume.read(handle, offset, PIECE_BYTES).await.map_err(at(path))?;
        if data.is_empty() {
            out.flush().await.map_err(local)?;
            return Ok(offset);
        }
        out.write_all(&data).await.map_err(local)?;
        offset += data.len() as u64;
    }
}

/// Replaces the content of the file at `path` with all of `from`, creating it if it is not there; returns its length.
/// What is answered with success is committed.
pub async fn write_file(volume: &Volume, path: &str, mode: u16, from: &mut (impl AsyncRead + Unpin)) -> Result<u64, PathError> {
    let (parent, name) = resolve_parent(volume, path).await?;
    // SAFETY: getuid and getgid have no preconditions and cannot fail.
    let (uid, gid) = unsafe { (libc::getuid(), libc::getgid()) };
    let handle = match volume.create(parent.ino, &name, mode, (uid, gid), OpenFlags::READ_WRITE).await {
        Ok((handle, _)) => handle,
        Err(error) if error.is(ErrorKind::Exists) => {
            let attr = resolve(volume, path, true).await?;
            let flags = OpenFlags { write: true, truncate: true, ..OpenFlags::default() };
            volume.open(attr.ino, flags).await.map_err(at(path))?.0
        }
        Err(error) => return Err(at(path)(error)),
    };
    let copied = copy_in(volume, &handle, path, from).await;
    let released = volume.release(handle).await.map_err(at(path));
    copied.and_then(|count| released.map(|()| count))
}

async fn copy_in(
    volume: &Volume,
    handle: &FileHandle,
    path: &str,
    from: &mut (impl AsyncRead + Unpin),
) -> Result<u64, PathError> {
    let local = |source| PathError::Local { path: path.to_owned(), source };
    let mut offset = 0;
    loop {
        let mut piece = BytesMut::with_capacity(PIECE_BYTES as usize);
        while piece.len() < PIECE_BYTES as usize && from.read_buf(&mut piece).await.map_err(local)? > 0 {}
        if piece.is_empty() {
            return Ok(offset);
        }
        let data: Bytes = piece.freeze();
        offset += volume.write(handle, offset, data).await.map_err(at(path))? as u64;
    }
}

/// Removes a name; of a directory, everything below it first if `recursive`. Returns how many names went.
pub async fn remove(volume: &Volume, path: &str, recursive: bool) -> Result<u64, PathError> {
    let (parent, name) = resolve_parent(volume, path).await?;
    let attr = volume.lookup(parent.ino, &name).await.map_err(at(path))?;
    if attr.kind != NodeKind::Directory {
        volume.unlink(parent.ino, &name).await.map_err(at(path))?;
        return Ok(1);
    }
    if !recursive {
        return Err(refused(path, ErrorKind::IsDirectory));
    }
    // Directories on the way down: each with its parent and name, to be removed when it is empty.
    let mut stack = vec![(parent.ino, name, attr.ino)];
    let mut removed = 0;
    while let Some((parent, name, ino)) = stack.last().cloned() {
        let (entries, more) = volume.readdir(ino, None, PAGE).await.map_err(at(path))?;
        let mut below = None;
        for entry in entries {
            if entry.attr.kind == NodeKind::Directory {
                below = Some((ino, entry.name, entry.attr.ino));
                break;
            }
            volume.unlink(ino, &entry.name).await.map_err(at(path))?;
            removed += 1;
        }
        match below {
            Some(_) if stack.len() >= DEPTH_MAX => return Err(PathError::TooDeep { path: path.to_owned() }),
            Some(directory) => stack.push(directory),
            None if more => {}
            None => {
                volume.rmdir(parent, &name).await.map_err(at(path))?;
                removed += 1;
                stack.pop();
            }
        }
    }
    Ok(removed)
}
