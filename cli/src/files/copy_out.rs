//! From the volume to this machine.

use super::copy_in::add;
use super::{Copied, ENTRIES_AT_ONCE, FILES_AT_ONCE, PIECE, Remote, WAITING_MAX, failed};
use crate::error::{CliError, io_error};
use farshore_client::{OpenFlags, Volume};
use farshore_types::{Attr, DirEntry, Ino, NodeKind};
use futures::stream::{self, StreamExt, TryStreamExt};
use indicatif::ProgressBar;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Writes a file's content to `out`.
pub async fn cat(volume: &Volume, ino: Ino, shown: &str, out: &mut (impl AsyncWrite + Unpin)) -> Result<u64, CliError> {
    let flags = OpenFlags { read: true, ..OpenFlags::default() };
    let (handle, _) = volume.open(ino, flags).await.map_err(|error| failed(shown, &error))?;
    let poured = pour(volume, &handle, shown, out).await;
    let closed = volume.release(handle).await.map_err(|error| failed(shown, &error));
    let bytes = poured?;
    closed.map(|()| bytes)
}

async fn pour(
    volume: &Volume,
    handle: &farshore_client::FileHandle,
    shown: &str,
    out: &mut (impl AsyncWrite + Unpin),
) -> Result<u64, CliError> {
    let wrote = |error: std::io::Error| io_error("write", Path::new("the copy"), &error);
    let mut offset = 0u64;
    loop {
        let piece = volume.read(handle, offset, PIECE as u32).await.map_err(|error| failed(shown, &error))?;
        if piece.is_empty() {
            out.flush().await.map_err(wrote)?;
            return Ok(offset);
        }
        out.write_all(&piece).await.map_err(wrote)?;
        offset += piece.len() as u64;
    }
}

/// Copies what `from` names to `to`, or into it where it is a directory; directories only if `recursive`.
pub async fn copy_out(
    volume: &Volume,
    from: &Remote,
    attr: Attr,
    to: &Path,
    recursive: bool,
    bar: &ProgressBar,
) -> Result<Copied, CliError> {
    let name = from.parts.last().cloned();
    let to = match name {
        Some(name) if to.is_dir() => to.join(name),
        _ => to.to_owned(),
    };
    if attr.kind != NodeKind::Directory {
        return one(volume, &attr, &from.shown(), &to, bar).await;
    }
    if !recursive {
        return Err(CliError::usage(format!("{} is a directory", from.shown()), "copy it with -r"));
    }
    let mut waiting = vec![(attr, from.shown(), to)];
    let mut total = Copied::default();
    while let Some((attr, shown, to)) = waiting.pop() {
        make_directory(&to, attr.mode)?;
        let mut after = None;
        loop {
            let page = volume.readdir(attr.ino, after.take(), ENTRIES_AT_ONCE).await;
            let (entries, more) = page.map_err(|error| failed(&shown, &error))?;
            after = entries.last().map(|entry| entry.name.clone());
            let (directories, files): (Vec<_>, Vec<_>) = entries
                .into_iter()
                .map(|entry| below(&shown, &to, entry))
                .partition(|(attr, ..)| attr.kind == NodeKind::Directory);
            let copies = files.iter().map(|(attr, shown, to)| one(volume, attr, shown, to, bar));
            let copied: Vec<Copied> = stream::iter(copies).buffer_unordered(FILES_AT_ONCE).try_collect().await?;
            copied.iter().for_each(|copied| add(&mut total, *copied));
            waiting.extend(directories);
            if waiting.len() > WAITING_MAX {
                return Err(CliError::failed(
                    format!("{shown}: more than {WAITING_MAX} directories at once"),
                    "copy it in parts",
                ));
            }
            if !more {
                break;
            }
        }
    }
    Ok(total)
}

fn below(shown: &str, to: &Path, entry: DirEntry) -> (Attr, String, PathBuf) {
    let name = OsStr::from_bytes(&entry.name);
    (entry.attr, format!("{}/{}", shown.trim_end_matches('/'), name.to_string_lossy()), to.join(name))
}

fn make_directory(to: &Path, mode: u16) -> Result<(), CliError> {
    match std::fs::create_dir(to) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && to.is_dir() => Ok(()),
        // Writable for the owner while its content comes.
        other => other
            .and_then(|()| std::fs::set_permissions(to, PermissionsExt::from_mode(u32::from(mode) | 0o700)))
            .map_err(|error| io_error("make", to, &error)),
    }
}

async fn one(volume: &Volume, attr: &Attr, shown: &str, to: &Path, bar: &ProgressBar) -> Result<Copied, CliError> {
    let wrote = |error: std::io::Error| io_error("write", to, &error);
    match attr.kind {
        NodeKind::Symlink => {
            let target = volume.readlink(attr.ino).await.map_err(|error| failed(shown, &error))?;
            std::os::unix::fs::symlink(OsStr::from_bytes(&target), to).map_err(wrote)?;
            Ok(Copied { files: 1, bytes: 0 })
        }
        NodeKind::File => {
            let mut file = tokio::fs::File::create(to).await.map_err(wrote)?;
            let bytes = cat(volume, attr.ino, shown, &mut file).await?;
            file.set_permissions(PermissionsExt::from_mode(u32::from(attr.mode))).await.map_err(wrote)?;
            bar.inc(1);
            bar.set_message(shown.to_owned());
            Ok(Copied { files: 1, bytes })
        }
        _ => Err(CliError::failed(format!("{shown} is neither file, directory nor link"), "leave it out")),
    }
}
