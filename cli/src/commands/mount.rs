//! `farshore mount VOLUME DIR`.

use crate::connect::{self, Wish};
use crate::error::{CliError, Done, EXIT_DONE, io_error};
use crate::output::print;
use crate::shutdown;
use crate::topology_file::{World, WorldArgs};
use crate::world::process::{spawn_apart, tail};
use farshore_client::Durable;
use farshore_client::fuse::{self, MountOptions};
use farshore_objects::Credentials;
use farshore_types::topology::units;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::time::Instant;

/// Until a mount in the background must be there.
const MOUNTED_MAX: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How keys reach a mount in the background: arguments can be read by everyone on the machine.
const ENV_ACCESS: &str = "FARSHORE_ACCESS_KEY";
const ENV_SECRET: &str = "FARSHORE_SECRET_KEY";

#[derive(Debug, clap::Args)]
pub struct Args {
    pub volume: String,
    /// An empty directory
    pub dir_to_mount_on: PathBuf,
    /// The region whose bucket comes first [default: the primary's]
    #[arg(long)]
    pub region: Option<String>,
    /// Read only; in a mirror's region the metadata is read there as well
    #[arg(long)]
    pub read_only: bool,
    /// Write at the primary, with the other region's bucket first
    #[arg(long)]
    pub flip: bool,
    /// A bucket that takes the place of the region's own, for this mount
    #[arg(long, value_name = "URL")]
    pub bucket: Option<String>,
    /// Keys of --bucket; better given in the environment
    #[arg(long, env = ENV_ACCESS, hide_env_values = true)]
    pub access_key: Option<String>,
    #[arg(long, env = ENV_SECRET, hide_env_values = true)]
    pub secret_key: Option<String>,
    /// Cache blocks on disk, here
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// At most so much, such as 10GiB
    #[arg(long, value_name = "SIZE")]
    pub cache_size: Option<String>,
    /// Return when it is mounted
    #[arg(long, visible_alias = "background-mount", short = 'd')]
    pub background: bool,
    /// Copy no blocks for the ledgers
    #[arg(long)]
    pub no_bgjob: bool,
    /// Let other users in
    #[arg(long)]
    pub allow_other: bool,
    /// When new files, and attributes of those that are being written, are durable: at each call, or with the data at close and fsync
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    pub durable: When,
    #[command(flatten)]
    pub world: WorldArgs,
    #[arg(long, hide = true)]
    pub bucket2: Option<String>,
    #[arg(long, hide = true)]
    pub access_key2: Option<String>,
    #[arg(long, hide = true)]
    pub secret_key2: Option<String>,
}

/// `--durable`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum When {
    #[default]
    Call,
    Close,
}

pub async fn run(args: Args) -> Done {
    if args.bucket2.is_some() || args.access_key2.is_some() || args.secret_key2.is_some() {
        return Err(CliError::not_yet("mount --bucket2, --access-key2 and --secret-key2"));
    }
    let world = args.world.running()?;
    let config = config(&world, &args)?;
    if args.background {
        return background(&world, &args).await;
    }
    let read_only = config.is_read_only();
    let mut ended = std::pin::pin!(shutdown::requested());
    let volume = connect::connect(config).await?;
    let options =
        MountOptions { read_only, allow_other: args.allow_other, threads: 0, fsname: format!("farshore:{}", args.volume) };
    let mounted = match fuse::mount(volume.clone(), &args.dir_to_mount_on, options) {
        Ok(mounted) => mounted,
        Err(error) => {
            let _ = volume.shutdown().await;
            return Err(CliError::failed(error.to_string(), ""));
        }
    };
    print(&format!("{} is mounted on {}\n", args.volume, mounted.point().display()));
    tokio::select! {
        () = mounted.wait() => {}
        () = &mut ended => {}
    }
    mounted.unmount().await;
    volume.shutdown().await.map_err(|error| CliError::failed(format!("not everything was written: {error}"), "see the log"))?;
    Ok(EXIT_DONE)
}

fn config(world: &World, args: &Args) -> Result<farshore_client::ClientConfig, CliError> {
    let volume = world.volume(Some(&args.volume))?;
    let keys = match (&args.access_key, &args.secret_key) {
        (Some(access), Some(secret)) => Some(Credentials::new(access, secret)),
        (None, None) => None,
        _ => {
            return Err(CliError::usage(
                "an access key and a secret key go together",
                format!("set {ENV_ACCESS} and {ENV_SECRET}"),
            ));
        }
    };
    let wish =
        Wish { region: args.region.clone(), read_only: args.read_only, flip: args.flip, bucket: args.bucket.clone(), keys };
    let mut config = connect::config(world, volume, &wish)?;
    config.cache_dir = args.cache_dir.clone();
    if let Some(text) = &args.cache_size {
        let size = units::parse_size(text);
        config.cache_size =
            size.ok_or_else(|| CliError::usage(format!("--cache-size: {text:?} is not a size"), "write for example 10GiB"))?.0;
    }
    config.background_jobs = !args.no_bgjob;
    config.durable = match args.durable {
        When::Call => Durable::AtCall,
        When::Close => Durable::AtClose,
    };
    let point = std::path::absolute(&args.dir_to_mount_on).unwrap_or_else(|_| args.dir_to_mount_on.clone());
    config.mount = point.display().to_string();
    config.options = options(args);
    Ok(config)
}

/// For operators: what this mount was asked for.
fn options(args: &Args) -> String {
    let mut words: Vec<String> = Vec::new();
    words.extend(args.region.as_ref().map(|region| format!("region={region}")));
    words.extend(args.read_only.then(|| "read-only".to_owned()));
    words.extend(args.flip.then(|| "flip".to_owned()));
    words.extend(args.bucket.as_ref().map(|_| "bucket".to_owned()));
    words.extend(args.no_bgjob.then(|| "no-bgjob".to_owned()));
    words.extend((args.durable == When::Close).then(|| "durable=close".to_owned()));
    words.join(",")
}

/// Starts the same command apart from the terminal, and returns when the directory is a mount.
async fn background(world: &World, args: &Args) -> Done {
    let exe = std::env::current_exe().map_err(|error| io_error("find", Path::new("this program"), &error))?;
    let point = args.dir_to_mount_on.canonicalize().map_err(|error| io_error("mount on", &args.dir_to_mount_on, &error))?;
    let (log_path, log) = log_file(world, &point)?;
    let errors = log.try_clone().map_err(|error| io_error("write", &log_path, &error))?;
    let mut command = Command::new(exe);
    let same = |word: &std::ffi::OsString| *word != "--background" && *word != "-d" && *word != "--background-mount";
    let mut words = std::env::args_os().skip(1).filter(same).peekable();
    while let Some(word) = words.next() {
        // Keys go by the environment.
        if word == "--access-key" || word == "--secret-key" {
            words.next();
        } else if !word.to_string_lossy().starts_with("--access-key=") && !word.to_string_lossy().starts_with("--secret-key=") {
            command.arg(word);
        }
    }
    for (name, value) in [(ENV_ACCESS, &args.access_key), (ENV_SECRET, &args.secret_key)] {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command.stdin(Stdio::null()).stdout(log).stderr(errors);
    let mut child = spawn_apart(&mut command).map_err(|error| io_error("start", Path::new("the mount"), &error))?;
    let end = Instant::now() + MOUNTED_MAX;
    while !is_mounted(&point) {
        let status = child.try_wait().ok().flatten();
        if status.is_some() || Instant::now() >= end {
            let how = status.map_or("is not there yet".to_owned(), |status| format!("ended ({status})"));
            return Err(CliError::failed(format!("the mount on {} {how}", point.display()), tail(&log_path)));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    print(&format!("{} is mounted on {}; it logs to {}\n", args.volume, point.display(), log_path.display()));
    Ok(EXIT_DONE)
}

/// In the world's directory if there is one here, else in the system's place for temporary files.
fn log_file(world: &World, point: &Path) -> Result<(PathBuf, std::fs::File), CliError> {
    let name = format!("mount{}", point.display().to_string().replace('/', "-"));
    let path = if world.dir.exists() { world.dir.log(&name) } else { std::env::temp_dir().join(format!("farshore-{name}.log")) };
    let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    opened.map(|file| (path.clone(), file)).map_err(|error| io_error("write", &path, &error))
}

/// By the kernel's table, without asking the file system itself.
fn is_mounted(point: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let shown = point.display().to_string().replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011");
    table.lines().any(|line| line.contains(" - fuse.farshore ") && line.split(' ').nth(4) == Some(&shown))
}
