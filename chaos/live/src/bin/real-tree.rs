//! The whole promise on real input: copies a tree of this machine through the us-east mount with many copiers in
//! parallel, kills the leader twice on the way, waits until `recoverable` passes the last write, kills the us-east bucket
//! server, and compares byte by byte and by `diff -r` through the eu-west read-only mount. Exits with 0 only if all is equal.
//!
//! `cargo run --release -p farshore-live --bin real-tree -- [SOURCE] [COPIERS]`; without SOURCE, the Rust toolchain.

use farshore_live::world::{MIRROR, PRIMARY};
use farshore_live::{MountSpec, World, WorldOptions, fuse, wait_for};
use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const COPIERS: usize = 16;
/// The mount's watchdog, and how long the mirror may take.
const WITHIN: Duration = Duration::from_secs(1800);

/// What lies below a directory: directories first, parents before children.
#[derive(Default)]
struct Listing {
    directories: Vec<PathBuf>,
    files: Vec<PathBuf>,
    links: Vec<PathBuf>,
    bytes: u64,
}

fn list(root: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    let mut waiting = VecDeque::from([PathBuf::new()]);
    while let Some(below) = waiting.pop_front() {
        for entry in fs::read_dir(root.join(&below))? {
            let entry = entry?;
            let (path, kind) = (below.join(entry.file_name()), entry.file_type()?);
            if kind.is_dir() {
                listing.directories.push(path.clone());
                waiting.push_back(path);
            } else if kind.is_symlink() {
                listing.links.push(path);
            } else if kind.is_file() {
                listing.bytes += entry.metadata()?.len();
                listing.files.push(path);
            }
        }
    }
    Ok(listing)
}

fn copy(source: &Path, target: &Path, listing: &Listing, copiers: usize, done: &AtomicU64) -> io::Result<()> {
    fs::create_dir_all(target)?;
    for directory in &listing.directories {
        fs::create_dir(target.join(directory))?;
    }
    for link in &listing.links {
        symlink(fs::read_link(source.join(link))?, target.join(link))?;
    }
    let waiting = Mutex::new(listing.files.iter());
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..copiers {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().expect("no copier panics").next();
                    let Some(file) = next else { return };
                    if let Err(error) = fs::copy(source.join(file), target.join(file)) {
                        let text = format!("{}: {error}", file.display());
                        failed.lock().expect("no copier panics").get_or_insert(io::Error::other(text));
                        return;
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    failed.into_inner().expect("no copier panics").map_or(Ok(()), Err)
}

/// Kills whoever leads the primary when so many files are copied, and brings the node back.
fn kill_at(world: &World, share: u64, done: &AtomicU64) {
    while done.load(Ordering::Relaxed) < share {
        std::thread::sleep(Duration::from_millis(10));
    }
    let leader = world.wait_leader(PRIMARY);
    world.kill_node(&leader);
    println!("killed the leader {leader} after {} files", done.load(Ordering::Relaxed));
    wait_for("another leader", WITHIN, || world.leader(PRIMARY).filter(|next| *next != leader));
    world.up();
}

/// Compares all files byte by byte; returns how many differ or are absent.
fn compare(source: &Path, target: &Path, listing: &Listing) -> usize {
    let differs = |path: &PathBuf| match (fs::read(source.join(path)), fs::read(target.join(path))) {
        (Ok(left), Ok(right)) => left != right,
        _ => true,
    };
    let wrong: Vec<&PathBuf> = listing.files.iter().filter(|path| differs(path)).collect();
    wrong.iter().take(10).for_each(|path| println!("differs: {}", path.display()));
    wrong.len()
}

fn default_source() -> Option<PathBuf> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().ok()?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}

fn run(source: &Path, copiers: usize) -> Result<bool, String> {
    let text = |error: io::Error| error.to_string();
    let listing = list(source).map_err(text)?;
    println!("{} files, {} MiB in {}", listing.files.len(), listing.bytes >> 20, source.display());
    let world = World::start(WorldOptions { nodes: 3, block_size: "4MiB" });
    world.worker(MIRROR);
    let home = world.mount(MountSpec { name: "home", within: Some(WITHIN), ..MountSpec::default() });
    let (done, began) = (AtomicU64::new(0), Instant::now());
    let copied = std::thread::scope(|scope| {
        let copying = scope.spawn(|| copy(source, &home.join("tree"), &listing, copiers, &done));
        for third in 1..=2 {
            if !copying.is_finished() {
                kill_at(&world, listing.files.len() as u64 * third / 3, &done);
            }
        }
        copying.join().unwrap_or_else(|_| Err(io::Error::other("a copier panicked")))
    });
    copied.map_err(|error| format!("the copy failed: {error}"))?;
    println!("copied in {:.0} s", began.elapsed().as_secs_f64());
    let goal = world.lag_of(PRIMARY)["committed"].as_u64().ok_or("the lag has no committed index")?;
    wait_for("recoverable to pass the last write", WITHIN, || {
        world.lag_of(MIRROR)["recoverable"].as_u64().filter(|index| *index >= goal)
    });
    println!("recoverable passed {goal} after {:.0} s", began.elapsed().as_secs_f64());
    world.kill_bucket(PRIMARY);
    let away = MountSpec { name: "away", region: Some(MIRROR), flags: &["--read-only"], within: Some(WITHIN) };
    let away = world.mount(away);
    let wrong = compare(source, &away.join("tree"), &listing);
    let diff = Command::new("diff").args(["-r", "--no-dereference"]).arg(source).arg(away.join("tree")).status().map_err(text)?;
    println!("{wrong} of {} files differ byte by byte; diff -r says {diff}", listing.files.len());
    Ok(wrong == 0 && diff.success())
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let Some(source) = words.next().map(PathBuf::from).or_else(default_source) else {
        eprintln!("error: no SOURCE given, and `rustc --print sysroot` names none");
        return ExitCode::from(2);
    };
    let copiers = words.next().map_or(Ok(COPIERS), |word| word.parse());
    let Ok(copiers) = copiers else {
        eprintln!("error: COPIERS is a number");
        return ExitCode::from(2);
    };
    if !fuse::require_fuse() {
        eprintln!("error: this needs FUSE and root");
        return ExitCode::from(1);
    }
    match run(&source, copiers) {
        Ok(true) => {
            println!("EQUAL");
            ExitCode::SUCCESS
        }
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(1)
        }
    }
}
