//! From this machine into the volume.

use super::{Copied, FILES_AT_ONCE, PIECE, Remote, WAITING_MAX, failed, standard};
use crate::error::{CliError, io_error};
use bytes::Bytes;
use farshore_client::{OpenFlags, Volume};
use farshore_types::{ErrorKind, Ino, NewNode, NodeKind};
use futures::stream::{self, StreamExt, TryStreamExt};
use indicatif::ProgressBar;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Mode of what comes from stdin.
const STDIN_MODE: u16 = 0o644;

/// Copies `from` to `name` in `parent`; a directory only if `recursive`. `-` is stdin.
pub async fn copy_in(
    volume: &Volume,
    from: &Path,
    (parent, name): (Ino, String),
    to: &Remote,
    recursive: bool,
    bar: &ProgressBar,
) -> Result<Copied, CliError> {
    let place = Place { parent, name: name.into_bytes(), shown: to.shown() };
    if from == Path::new("-") {
        return content(volume, &mut standard(std::io::stdin())?, "stdin", &place, STDIN_MODE, bar).await;
    }
    let meta = std::fs::symlink_metadata(from).map_err(|error| io_error("read", from, &error))?;
    if !meta.is_dir() {
        return one(volume, from, &place, bar).await;
    }
    if !recursive {
        return Err(CliError::usage(format!("{} is a directory", from.display()), "copy it with -r"));
    }
    tree(volume, from, place, bar).await
}

struct Place {
    parent: Ino,
    name: Vec<u8>,
    /// For people.
    shown: String,
}

/// Directory by directory; the files of one directory at once.
async fn tree(volume: &Volume, from: &Path, place: Place, bar: &ProgressBar) -> Result<Copied, CliError> {
    let mut waiting = vec![(from.to_owned(), place)];
    let mut total = Copied::default();
    while let Some((from, place)) = waiting.pop() {
        let made = make_directory(volume, &from, &place).await?;
        let (mut files, mut directories) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(&from).map_err(|error| io_error("read", &from, &error))? {
            let entry = entry.map_err(|error| io_error("read", &from, &error))?;
            let name = entry.file_name();
            let place = Place {
                parent: made,
                name: name.as_bytes().to_vec(),
                shown: format!("{}/{}", place.shown, name.to_string_lossy()),
            };
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_dir { directories.push((entry.path(), place)) } else { files.push((entry.path(), place)) }
        }
        let copies = files.iter().map(|(from, place)| one(volume, from, place, bar));
        let copied: Vec<Copied> = stream::iter(copies).buffer_unordered(FILES_AT_ONCE).try_collect().await?;
        copied.iter().for_each(|copied| add(&mut total, *copied));
        waiting.extend(directories);
        if waiting.len() > WAITING_MAX {
            return Err(CliError::failed(
                format!("{}: more than {WAITING_MAX} directories at once", from.display()),
                "copy it in parts",
            ));
        }
    }
    Ok(total)
}

async fn make_directory(volume: &Volume, from: &Path, place: &Place) -> Result<Ino, CliError> {
    let mode = mode_of(from)?;
    let fail = |error| failed(&place.shown, &error);
    let (uid, gid) = owner();
    match volume.make(place.parent, &place.name, NewNode::Directory, mode, uid, gid).await {
        Ok(attr) => Ok(attr.ino),
        Err(error) if error.is(ErrorKind::Exists) => {
            let there = volume.lookup(place.parent, &place.name).await.map_err(fail)?;
            if there.kind == NodeKind::Directory { Ok(there.ino) } else { Err(fail(error)) }
        }
        Err(error) => Err(fail(error)),
    }
}

/// A file or a symbolic link; devices, pipes and sockets are refused.
async fn one(volume: &Volume, from: &Path, place: &Place, bar: &ProgressBar) -> Result<Copied, CliError> {
    let meta = std::fs::symlink_metadata(from).map_err(|error| io_error("read", from, &error))?;
    if meta.is_symlink() {
        let target = std::fs::read_link(from).map_err(|error| io_error("read", from, &error))?;
        return link(volume, &target, place).await;
    }
    if !meta.is_file() {
        return Err(CliError::failed(format!("{} is neither file, directory nor link", from.display()), "leave it out"));
    }
    let mut file = tokio::fs::File::open(from).await.map_err(|error| io_error("read", from, &error))?;
    content(volume, &mut file, &from.display().to_string(), place, mode_of(from)?, bar).await
}

async fn link(volume: &Volume, target: &Path, place: &Place) -> Result<Copied, CliError> {
    let (uid, gid) = owner();
    let node = || NewNode::Symlink(target.as_os_str().as_bytes().to_vec());
    let made = volume.make(place.parent, &place.name, node(), 0o777, uid, gid).await;
    let made = match made {
        Err(error) if error.is(ErrorKind::Exists) => {
            volume.unlink(place.parent, &place.name).await.map_err(|error| failed(&place.shown, &error))?;
            volume.make(place.parent, &place.name, node(), 0o777, uid, gid).await
        }
        other => other,
    };
    made.map(|_| Copied { files: 1, bytes: 0 }).map_err(|error| failed(&place.shown, &error))
}

/// Replaces the content of the file; what was written is committed when this returns.
async fn content(
    volume: &Volume,
    from: &mut (impl AsyncRead + Unpin),
    from_name: &str,
    place: &Place,
    mode: u16,
    bar: &ProgressBar,
) -> Result<Copied, CliError> {
    let fail = |error| failed(&place.shown, &error);
    let handle = match volume.create(place.parent, &place.name, mode, owner(), OpenFlags::READ_WRITE).await {
        Ok((handle, _)) => handle,
        Err(error) if error.is(ErrorKind::Exists) => {
            let there = volume.lookup(place.parent, &place.name).await.map_err(fail)?;
            let flags = OpenFlags { write: true, truncate: true, ..OpenFlags::default() };
            volume.open(there.ino, flags).await.map_err(fail)?.0
        }
        Err(error) => return Err(fail(error)),
    };
    let written = pour(volume, from, from_name, &handle, &place.shown, bar).await;
    let closed = volume.release(handle).await.map_err(fail);
    let bytes = written?;
    closed?;
    bar.inc(1);
    Ok(Copied { files: 1, bytes })
}

async fn pour(
    volume: &Volume,
    from: &mut (impl AsyncRead + Unpin),
    from_name: &str,
    handle: &farshore_client::FileHandle,
    shown: &str,
    bar: &ProgressBar,
) -> Result<u64, CliError> {
    let mut offset = 0u64;
    loop {
        let mut piece = Vec::new();
        let mut limited = (&mut *from).take(PIECE as u64);
        limited.read_to_end(&mut piece).await.map_err(|error| io_error("read", Path::new(from_name), &error))?;
        if piece.is_empty() {
            return Ok(offset);
        }
        let length = piece.len() as u64;
        volume.write(handle, offset, Bytes::from(piece)).await.map_err(|error| failed(shown, &error))?;
        offset += length;
        bar.set_message(shown.to_owned());
    }
}

fn mode_of(path: &Path) -> Result<u16, CliError> {
    let meta = std::fs::metadata(path).map_err(|error| io_error("read", path, &error))?;
    Ok(u16::try_from(meta.permissions().mode() & 0o7777).expect("twelve bits fit"))
}

/// Who runs this command.
fn owner() -> (u32, u32) {
    // SAFETY: both calls have no preconditions and cannot fail.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

pub(super) fn add(total: &mut Copied, more: Copied) {
    total.files += more.files;
    total.bytes += more.bytes;
}
