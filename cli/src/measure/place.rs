//! Where a load runs: a directory here, or VOLUME:/PATH with so many sessions. Makes the load's own directory, and removes
//! it whatever happens.

use super::crew::{Crew, Stop, THREADS_MAX};
use super::ground::Ground;
use super::local::Local;
use super::remote::Session;
use crate::commands::paths::Where;
use crate::connect::{self, Wish};
use crate::error::CliError;
use crate::files::{self, Remote};
use crate::shutdown;
use farshore_client::Volume;
use farshore_types::NodeKind;
use std::path::Path;
use std::sync::Arc;

#[derive(Debug, clap::Args)]
pub struct Place {
    /// A directory, whoever has mounted it, or VOLUME:/PATH to work by sessions without FUSE
    pub place: String,
    /// Threads that work at the same time
    #[arg(long, short = 'p', default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=THREADS_MAX))]
    pub threads: u64,
    /// Sessions that the threads share, for VOLUME:/PATH [default: 1]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=THREADS_MAX))]
    pub sessions: Option<u64>,
    /// JSON instead of a table
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub at: Where,
}

/// What is measured.
pub trait Workload: Send + Sync + 'static {
    type Report: Send + 'static;

    /// The name of the directory in which it works.
    const DIRECTORY: &'static str;

    /// Works in `work`, which is empty.
    fn run<G: Ground>(&self, crew: &Crew<G>, work: &G::Dir) -> Result<Self::Report, CliError>;
}

/// Runs a load at a place.
pub async fn run<W: Workload>(place: &Place, workload: W) -> Result<W::Report, CliError> {
    let threads = place.threads as usize;
    if !files::is_remote(&place.place) {
        if place.sessions.is_some() {
            return Err(CliError::usage("--sessions is for VOLUME:/PATH", "a mount has one session of its own"));
        }
        let local = Local::open(Path::new(&place.place))?;
        return work(place, vec![local; threads], workload).await;
    }
    let path = Arc::new(files::parse(&place.place)?);
    let sessions = place.sessions.unwrap_or(1).min(place.threads);
    let mut volumes = Vec::new();
    for _ in 0..sessions {
        volumes.push(open(place, &path).await?);
    }
    let result = on_volume(place, &path, &volumes, threads, workload).await;
    let mut ended = Ok(());
    for volume in &volumes {
        let end = volume.shutdown().await;
        ended = ended.and(end.map_err(|error| CliError::failed(format!("not everything was written: {error}"), "")));
    }
    result.and_then(|report| ended.map(|()| report))
}

async fn on_volume<W: Workload>(
    place: &Place,
    path: &Arc<Remote>,
    volumes: &[Arc<Volume>],
    threads: usize,
    workload: W,
) -> Result<W::Report, CliError> {
    let attr = files::resolve_followed(&volumes[0], path).await?;
    if attr.kind != NodeKind::Directory {
        return Err(CliError::usage(format!("{} is not a directory", path.shown()), "name a directory of the volume"));
    }
    let session = |thread: usize| Session::new(volumes[thread % volumes.len()].clone(), attr.ino, path.clone());
    work(place, (0..threads).map(session).collect(), workload).await
}

/// A client that copies nothing meanwhile.
async fn open(place: &Place, path: &Remote) -> Result<Arc<Volume>, CliError> {
    let world = place.at.world.running()?;
    let wish = Wish { region: place.at.region.clone(), ..Wish::default() };
    let mut config = connect::config(&world, world.volume(Some(&path.volume))?, &wish)?;
    config.background_jobs = false;
    connect::connect(config).await
}

/// Makes the load's directory, works in it on threads of their own, and removes it.
async fn work<G: Ground, W: Workload>(place: &Place, grounds: Vec<G>, workload: W) -> Result<W::Report, CliError> {
    let stop = Stop::default();
    let shown = format!("{}/{}", place.place.trim_end_matches('/'), W::DIRECTORY);
    let crew = Crew::new(grounds, stop.clone(), place.json);
    let working = tokio::task::spawn_blocking(move || {
        let ground = crew.ground().clone();
        let top = ground.top();
        if ground.exists(&top, W::DIRECTORY)? {
            let mend = "another load is at work there, or one was killed: then remove it and start again";
            return Err(CliError::usage(format!("{shown} exists"), mend));
        }
        let work = ground.make_dir(&top, W::DIRECTORY)?;
        let done = workload.run(&crew, &work);
        let removed = ground.remove_tree(&top, W::DIRECTORY);
        match (done, removed) {
            (Err(error), Err(left)) => Err(CliError::failed(format!("{}; and {}", error.what, left.what), left.mend)),
            (done, removed) => done.and_then(|report| removed.map(|()| report)),
        }
    });
    tokio::pin!(working);
    let joined = tokio::select! {
        joined = &mut working => joined,
        () = shutdown::requested() => {
            stop.ask();
            working.await
        }
    };
    joined.map_err(|error| CliError::failed(format!("the load died: {error}"), ""))?
}
