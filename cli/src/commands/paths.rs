//! `farshore ls | cat | cp | rm | stat`: the file system without a mount.

use crate::connect::{self, Wish};
use crate::error::{CliError, Done, EXIT_DONE};
use crate::files::{self, Copied, ENTRIES_AT_ONCE, Remote};
use crate::output::{Table, bytes, print, print_json};
use crate::topology_file::{World, WorldArgs};
use farshore_client::Volume;
use farshore_console::clock::rfc3339;
use farshore_types::{Attr, NodeKind};
use indicatif::ProgressBar;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the files are read.
#[derive(Debug, clap::Args)]
pub struct Where {
    /// The region to work from [default: the primary's]; a mirror's is read-only
    #[arg(long)]
    pub region: Option<String>,
    #[command(flatten)]
    pub world: WorldArgs,
}

#[derive(Debug, clap::Args)]
pub struct LsArgs {
    /// VOLUME:/PATH
    pub path: String,
    /// Mode, owner, size and time
    #[arg(short = 'l')]
    pub long: bool,
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub at: Where,
}

#[derive(Debug, clap::Args)]
pub struct CatArgs {
    /// VOLUME:/PATH, one after the other
    #[arg(required = true)]
    pub paths: Vec<String>,
    #[command(flatten)]
    pub at: Where,
}

#[derive(Debug, clap::Args)]
pub struct CpArgs {
    /// From and to; one side is VOLUME:/PATH, the other a path here, or - for stdin or stdout
    #[arg(required = true, num_args = 2..)]
    pub paths: Vec<String>,
    /// Directories too
    #[arg(short = 'r', short_alias = 'R')]
    pub recursive: bool,
    #[command(flatten)]
    pub at: Where,
}

#[derive(Debug, clap::Args)]
pub struct RmArgs {
    /// VOLUME:/PATH
    #[arg(required = true)]
    pub paths: Vec<String>,
    /// Directories too, with everything below
    #[arg(short = 'r', short_alias = 'R')]
    pub recursive: bool,
    #[command(flatten)]
    pub at: Where,
}

#[derive(Debug, clap::Args)]
pub struct StatArgs {
    /// VOLUME:/PATH
    pub path: String,
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub at: Where,
}

/// Connects as a client without a mount and without background work.
async fn connect(at: &Where, volume: &str, reads_only: bool) -> Result<Arc<Volume>, CliError> {
    let world: World = at.world.running()?;
    let volume = world.volume(Some(volume))?;
    let wish = Wish { region: at.region.clone(), read_only: reads_only, ..Wish::default() };
    let mut config = connect::config(&world, volume, &wish)?;
    config.background_jobs = false;
    connect::connect(config).await
}

/// Gives the session back, also after a failure; the first error counts.
async fn end<T>(volume: &Volume, done: Result<T, CliError>) -> Result<T, CliError> {
    let ended = volume.shutdown().await.map_err(|error| CliError::failed(format!("not everything was written: {error}"), ""));
    let done = done?;
    ended.map(|()| done)
}

pub async fn ls(args: LsArgs) -> Done {
    let path = files::parse(&args.path)?;
    let volume = connect(&args.at, &path.volume, true).await?;
    let listed = list(&volume, &path, &args).await;
    end(&volume, listed).await?;
    Ok(EXIT_DONE)
}

/// Page by page, so that a directory of any size is listed in bounded memory (JSON excepted, which is one line an entry).
async fn list(volume: &Volume, path: &Remote, args: &LsArgs) -> Result<(), CliError> {
    let attr = files::resolve_followed(volume, path).await?;
    if attr.kind != NodeKind::Directory {
        show_entries(&[(path.parts.last().cloned().unwrap_or_default(), attr)], args);
        return Ok(());
    }
    let mut after = None;
    loop {
        let page = volume.readdir(attr.ino, after.take(), ENTRIES_AT_ONCE).await;
        let (entries, more) = page.map_err(|error| files::failed(&path.shown(), &error))?;
        after = entries.last().map(|entry| entry.name.clone());
        let named = entries.into_iter().map(|entry| (String::from_utf8_lossy(&entry.name).into_owned(), entry.attr));
        show_entries(&named.collect::<Vec<_>>(), args);
        if !more {
            return Ok(());
        }
    }
}

fn show_entries(entries: &[(String, Attr)], args: &LsArgs) {
    if args.json {
        entries.iter().for_each(|(name, attr)| print(&format!("{}\n", as_json(name, attr))));
    } else if args.long {
        print(&long(entries));
    } else {
        entries
            .iter()
            .for_each(|(name, attr)| print(&format!("{name}{}\n", if attr.kind == NodeKind::Directory { "/" } else { "" })));
    }
}

fn long(entries: &[(String, Attr)]) -> String {
    let mut table = Table::new(&["MODE", "LINKS", "UID", "GID", "SIZE", "MODIFIED", "NAME"]);
    for (name, attr) in entries {
        let figures =
            [u64::from(attr.nlink), u64::from(attr.uid), u64::from(attr.gid), attr.size].map(|figure| figure.to_string());
        let mut row = vec![mode_text(attr)];
        row.extend(figures);
        row.extend([time_text(attr), name.clone()]);
        table.row(row);
    }
    // The head says nothing that `ls -l` users do not know.
    table.render().split_once('\n').map(|(_, rows)| rows.to_owned()).unwrap_or_default()
}

fn mode_text(attr: &Attr) -> String {
    let kind = match attr.kind {
        NodeKind::File => '-',
        NodeKind::Directory => 'd',
        NodeKind::Symlink => 'l',
        NodeKind::Fifo => 'p',
        NodeKind::Socket => 's',
        NodeKind::CharDevice => 'c',
        NodeKind::BlockDevice => 'b',
    };
    let bits = (0..9).rev().map(|bit| if attr.mode >> bit & 1 == 1 { ['x', 'w', 'r'][bit % 3] } else { '-' });
    std::iter::once(kind).chain(bits).collect()
}

fn time_text(attr: &Attr) -> String {
    rfc3339(u64::try_from(attr.mtime.secs).unwrap_or(0).saturating_mul(1_000_000))
}

fn as_json(name: &str, attr: &Attr) -> serde_json::Value {
    serde_json::json!({
        "name": name,
        "ino": attr.ino.0,
        "kind": format!("{:?}", attr.kind).to_ascii_lowercase(),
        "mode": format!("{:04o}", attr.mode),
        "uid": attr.uid,
        "gid": attr.gid,
        "nlink": attr.nlink,
        "size": attr.size,
        "mtime": time_text(attr),
        "mtime_nanos": attr.mtime.nanos,
        "version": attr.version.0,
    })
}

pub async fn stat(args: StatArgs) -> Done {
    let path = files::parse(&args.path)?;
    let volume = connect(&args.at, &path.volume, true).await?;
    let attr = files::resolve(&volume, &path).await;
    let attr = end(&volume, attr).await?;
    let json = as_json(&path.shown(), &attr);
    if args.json {
        print_json(&json);
    } else {
        let object = json.as_object().expect("it was made as an object");
        let lines = object
            .iter()
            .map(|(key, value)| format!("{key:12} {}\n", value.as_str().map_or_else(|| value.to_string(), str::to_owned)));
        print(&lines.collect::<String>());
    }
    Ok(EXIT_DONE)
}

pub async fn cat(args: CatArgs) -> Done {
    let paths = args.paths.iter().map(|path| files::parse(path)).collect::<Result<Vec<_>, _>>()?;
    let volume = connect(&args.at, &one_volume(&paths)?, true).await?;
    let mut out = files::standard(std::io::stdout())?;
    let mut done = Ok(());
    for path in &paths {
        done = match files::resolve_followed(&volume, path).await {
            Ok(attr) => files::cat(&volume, attr.ino, &path.shown(), &mut out).await.map(drop),
            Err(error) => Err(error),
        };
        if done.is_err() {
            break;
        }
    }
    end(&volume, done).await?;
    Ok(EXIT_DONE)
}

pub async fn rm(args: RmArgs) -> Done {
    let paths = args.paths.iter().map(|path| files::parse(path)).collect::<Result<Vec<_>, _>>()?;
    let volume = connect(&args.at, &one_volume(&paths)?, false).await?;
    let mut done = Ok(());
    for path in &paths {
        done = files::remove(&volume, path, args.recursive).await.map(drop);
        if done.is_err() {
            break;
        }
    }
    end(&volume, done).await?;
    Ok(EXIT_DONE)
}

pub async fn cp(args: CpArgs) -> Done {
    let (to, from) = args.paths.split_last().expect("clap asks for two paths at least");
    let bar = ProgressBar::new_spinner();
    let copied = match (
        files::is_remote(to),
        from.iter().all(|from| files::is_remote(from)),
        from.iter().any(|from| files::is_remote(from)),
    ) {
        (true, _, false) => upload(&args, from, to, &bar).await?,
        (false, true, _) => download(&args, from, to, &bar).await?,
        (true, ..) => return Err(CliError::not_yet("cp from one path in a volume to another")),
        (false, ..) => return Err(CliError::usage("cp: neither side is VOLUME:/PATH", "use cp(1) for files of this machine")),
    };
    bar.finish_and_clear();
    eprintln!("{} files, {}", copied.files, bytes(copied.bytes));
    Ok(EXIT_DONE)
}

async fn upload(args: &CpArgs, from: &[String], to: &str, bar: &ProgressBar) -> Result<Copied, CliError> {
    let to = files::parse(to)?;
    let volume = connect(&args.at, &to.volume, false).await?;
    let mut total = Copied::default();
    let mut done = Ok(());
    for from in from {
        let name = Path::new(from).file_name().map_or_else(|| "stdin".to_owned(), |name| name.to_string_lossy().into_owned());
        let copied = async {
            let place =
                if from == "-" { files::parent_of(&volume, &to).await? } else { files::uploaded_as(&volume, &to, &name).await? };
            let shown = if to.parts.last() == Some(&place.1) { to.clone() } else { to.join(&place.1) };
            files::copy_in(&volume, Path::new(from), place, &shown, args.recursive, bar).await
        };
        match copied.await {
            Ok(copied) => total = Copied { files: total.files + copied.files, bytes: total.bytes + copied.bytes },
            Err(error) => {
                done = Err(error);
                break;
            }
        }
    }
    end(&volume, done).await?;
    Ok(total)
}

async fn download(args: &CpArgs, from: &[String], to: &str, bar: &ProgressBar) -> Result<Copied, CliError> {
    let paths = from.iter().map(|path| files::parse(path)).collect::<Result<Vec<_>, _>>()?;
    if paths.len() > 1 && to != "-" && !Path::new(to).is_dir() {
        return Err(CliError::usage(format!("{to} is not a directory"), "several files go into a directory that is there"));
    }
    let volume = connect(&args.at, &one_volume(&paths)?, true).await?;
    let mut total = Copied::default();
    let mut done = Ok(());
    for path in &paths {
        let copied = async {
            let attr = files::resolve_followed(&volume, path).await?;
            if to == "-" {
                let bytes = files::cat(&volume, attr.ino, &path.shown(), &mut files::standard(std::io::stdout())?).await?;
                return Ok(Copied { files: 1, bytes });
            }
            files::copy_out(&volume, path, attr, &PathBuf::from(to), args.recursive, bar).await
        };
        match copied.await {
            Ok(copied) => total = Copied { files: total.files + copied.files, bytes: total.bytes + copied.bytes },
            Err(error) => {
                done = Err(error);
                break;
            }
        }
    }
    end(&volume, done).await?;
    Ok(total)
}

fn one_volume(paths: &[Remote]) -> Result<String, CliError> {
    let first = paths.first().map(|path| path.volume.clone()).unwrap_or_default();
    if paths.iter().any(|path| path.volume != first) {
        return Err(CliError::usage("the paths are in different volumes", "one volume at a time"));
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_types::{Ino, LogIndex, Timestamp};

    #[test]
    fn a_long_listing_reads_like_ls() {
        let time = Timestamp { secs: 951_782_400, nanos: 0 };
        let attr = Attr {
            ino: Ino(7),
            kind: NodeKind::Directory,
            mode: 0o751,
            uid: 1,
            gid: 2,
            nlink: 3,
            size: 4096,
            rdev: 0,
            atime: time,
            mtime: time,
            ctime: time,
            version: LogIndex(1),
        };
        assert_eq!(long(&[("a b".into(), attr.clone())]), "drwxr-x--x  3      1    2    4096  2000-02-29T00:00:00Z  a b\n");
        assert_eq!(as_json("x", &attr)["mode"], "0751");
    }
}
