//! The ceiling of a commit path: three processes that append and fdatasync the same batches on one disk, and do nothing else.
//!
//! A leader groups waiting callers into batches, sends each batch to two followers over loopback TCP, and acknowledges it
//! when it is synced on two of three disks. No consensus, no state, no checksums: what a metadata cluster on this disk
//! could reach at best, in the same run. The figures are JSON on stdout.

mod disk;
mod leader;

use clap::Parser;
use disk::{LogFile, SyncTimes};
use serde::Serialize;
use std::io::{BufRead, BufReader, Error, Read, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Bytes of one request in a batch.
const REQUEST_BYTES: usize = 200;
/// Requests in one batch, at most.
const BATCH_MAX: usize = 256;
/// Bytes that a follower reads at once, at most: all batches that came in meanwhile share one sync.
const READ_MAX: usize = 1 << 20;

#[derive(Debug, Parser)]
#[command(about = "Appends and syncs batches on three processes, as a ceiling for a commit path")]
struct Args {
    /// Where the three files lie; the disk that is measured
    #[arg(long)]
    dir: PathBuf,
    /// Callers at once
    #[arg(long, default_value_t = 64)]
    callers: usize,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Batches on their way at once
    #[arg(long, default_value_t = 2)]
    in_flight: u64,
    /// Only one writer that syncs after each request: the disk alone
    #[arg(long)]
    disk_only: bool,
    /// Internal: be the follower that writes this file
    #[arg(long, hide = true)]
    follow: Option<PathBuf>,
}

/// What a run found.
#[derive(Debug, Default, Serialize)]
struct Figures {
    callers: usize,
    seconds: f64,
    ops_per_second: f64,
    batches_per_second: f64,
    latency_p50_ms: f64,
    latency_p99_ms: f64,
    fdatasyncs_per_second: f64,
    fdatasync_p50_ms: f64,
    fdatasync_p99_ms: f64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(file) = &args.follow {
        return follow(file);
    }
    std::fs::create_dir_all(&args.dir)?;
    let figures = if args.disk_only { disk_alone(&args)? } else { measure(&args)? };
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

/// One writer, one request, one sync, again and again.
fn disk_alone(args: &Args) -> Result<Figures> {
    let mut log = LogFile::create(&args.dir.join("alone.log"))?;
    let (mut times, begun) = (SyncTimes::default(), Instant::now());
    while begun.elapsed().as_secs_f64() < args.seconds {
        times.add(log.append(&[7; REQUEST_BYTES])?);
    }
    let mut figures = times.figures(begun.elapsed());
    figures.callers = 1;
    (figures.ops_per_second, figures.batches_per_second) = (figures.fdatasyncs_per_second, figures.fdatasyncs_per_second);
    (figures.latency_p50_ms, figures.latency_p99_ms) = (figures.fdatasync_p50_ms, figures.fdatasync_p99_ms);
    Ok(figures)
}

fn measure(args: &Args) -> Result<Figures> {
    let own = LogFile::create(&args.dir.join("leader.log"))?;
    let mut followers = Vec::new();
    for name in ["one", "two"] {
        followers.push(Follower::start(&args.dir.join(format!("{name}.log")))?);
    }
    let streams = followers.iter().map(|follower| follower.stream.try_clone()).collect::<Result<Vec<_>>>()?;
    let figures = leader::run(args.callers, Duration::from_secs_f64(args.seconds), args.in_flight, own, streams);
    for follower in followers {
        follower.stop()?;
    }
    figures
}

/// A copy of this program that follows.
struct Follower {
    process: Child,
    stream: TcpStream,
}

impl Follower {
    fn start(file: &Path) -> Result<Follower> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["--dir", ".", "--follow"])
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut port = String::new();
        let told = process.stdout.take().ok_or_else(|| Error::other("the follower has no stdout"))?;
        BufReader::new(told).read_line(&mut port)?;
        let port: u16 = port.trim().parse().map_err(|_| Error::other("the follower did not say its port"))?;
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        Ok(Follower { process, stream })
    }

    /// A follower ends when its stream does.
    fn stop(mut self) -> Result<()> {
        self.stream.shutdown(std::net::Shutdown::Both)?;
        if self.process.wait()?.success() { Ok(()) } else { Err(Error::other("a follower failed")) }
    }
}

/// Reads what came, appends all of it, syncs once, and answers how many bytes are safe; until the stream ends.
fn follow(file: &Path) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut log = LogFile::create(file)?;
    println!("{}", listener.local_addr()?.port());
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let (mut buffer, mut safe) = (vec![0; READ_MAX], 0_u64);
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        log.append(&buffer[..length])?;
        safe += length as u64;
        if stream.write_all(&safe.to_le_bytes()).is_err() {
            return Ok(());
        }
    }
}
