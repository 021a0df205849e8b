//! `farshore heal`: a full sync of every region's bucket against the metadata, now, with progress.

use crate::connect::{self, Wish};
use crate::error::{CliError, Done, EXIT_DONE, EXIT_FAILED};
use crate::output::{print, print_json};
use crate::render;
use crate::topology_file::{World, WorldArgs};
use farshore_client::{ClientConfig, Worker, WorkerOptions};
use farshore_console::observe::{Observer, addresses};
use farshore_types::topology::RegionSpec;
use farshore_wire::admin::{AdminAnswer, AdminCall};
use farshore_wire::admin_client::{AdminClient, AdminError, unexpected};
use farshore_wire::view::FullSyncView;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a region's cluster may be silent during a sync; an election fits well.
const SILENT_MAX: Duration = Duration::from_secs(60);
/// Until the worker of this command has given its leases back.
const HELPER_MAX: Duration = Duration::from_secs(10);
/// Steps of a progress bar.
const STEPS: u64 = 1000;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The volume [default: the topology's only one]
    pub volume: Option<String>,
    /// Report what is missing and unknown, and mend nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub world: WorldArgs,
    #[arg(long)]
    pub json: bool,
}

pub async fn run(args: Args) -> Done {
    let world = args.world.running()?;
    let volume = world.volume(args.volume.as_deref())?.name.clone();
    let observer = Observer::new(world.topology.clone(), volume);
    let target = if args.json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bars = MultiProgress::with_draw_target(target);
    // Buckets are listed and mended by clients; with this one there is always a client.
    let (stop, stopped) = watch::channel(false);
    let helper = tokio::spawn(Worker::run(helper(&world, args.volume.as_deref())?, WorkerOptions::default(), stopped));
    let synced = world.topology.regions().iter().map(|region| sync(observer.client(), region, args.dry_run, bar(&bars, region)));
    let all = futures::future::join_all(synced).await;
    let _ = stop.send(true);
    if let Ok(Err(error)) = tokio::time::timeout(HELPER_MAX, helper).await.unwrap_or(Ok(Ok(()))) {
        tracing::warn!("the worker of this command: {error}");
    }
    let reports = all.into_iter().collect::<Result<Vec<_>, _>>()?;
    if args.json {
        print_json(&serde_json::json!({ "volume": observer.volume(), "dry_run": args.dry_run, "regions": reports }));
    } else {
        reports.iter().for_each(|report| print(&render::full_sync(&report.region, report)));
    }
    let clean = reports.iter().all(|report| report.unrepairable == 0);
    Ok(if clean { EXIT_DONE } else { EXIT_FAILED })
}

/// A worker for as long as the command runs.
fn helper(world: &World, volume: Option<&str>) -> Result<ClientConfig, CliError> {
    let mut config = connect::config(world, world.volume(volume)?, &Wish::default())?;
    config.options = "heal".to_owned();
    Ok(config)
}

fn bar(bars: &MultiProgress, region: &RegionSpec) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:12} [{bar:40}] {percent:>3} %  {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    bars.add(ProgressBar::new(STEPS)).with_style(style).with_prefix(region.name.clone())
}

/// Starts a full sync and waits until it has finished. One that runs already is waited for first.
async fn sync(client: &AdminClient, region: &RegionSpec, dry_run: bool, bar: ProgressBar) -> Result<FullSyncView, CliError> {
    let addresses = addresses(region);
    let before = patiently(region, || view(client, &addresses)).await?;
    let before = if before.running { finished(client, region, &addresses, None, &bar).await? } else { before };
    patiently(region, || async {
        // After a lost answer the sync may run already: starting it twice is the cluster's to refuse, not ours to fear.
        let now = view(client, &addresses).await?;
        if now.running || now.runs > before.runs {
            return Ok(());
        }
        client.call_leader(&addresses, &AdminCall::FullSyncStart { dry_run }).await.map(|_| ())
    })
    .await?;
    // A dry run leaves no trace in state: it is over when nothing runs any more.
    let after = (!dry_run).then_some(before.runs);
    let report = finished(client, region, &addresses, after, &bar).await?;
    if report.last_finished_us.is_none() {
        let what = format!("the full sync of {} was cut short, perhaps by a new leader", region.name);
        return Err(CliError::failed(what, "repeat the command"));
    }
    bar.finish_with_message(format!("{} listed", report.listed));
    Ok(report)
}

/// Waits until none runs, and more than `after` have finished.
async fn finished(
    client: &AdminClient,
    region: &RegionSpec,
    addresses: &[String],
    after: Option<u64>,
    bar: &ProgressBar,
) -> Result<FullSyncView, CliError> {
    loop {
        let now = patiently(region, || view(client, addresses)).await?;
        if !now.running && after.is_none_or(|runs| now.runs > runs) {
            return Ok(FullSyncView { region: region.name.clone(), ..now });
        }
        bar.set_position((now.progress.unwrap_or(0.0).clamp(0.0, 1.0) * STEPS as f64) as u64);
        bar.set_message(format!("{} listed, {} missing, {} repaired", now.listed, now.missing, now.repaired));
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn view(client: &AdminClient, addresses: &[String]) -> Result<FullSyncView, AdminError> {
    match client.call_leader(addresses, &AdminCall::FullSyncStatus).await? {
        (_, AdminAnswer::FullSync(view)) => Ok(view),
        (address, other) => Err(unexpected(&address, &other)),
    }
}

/// Asks again while nobody answers, at most [`SILENT_MAX`].
async fn patiently<T, F: Future<Output = Result<T, AdminError>>>(
    region: &RegionSpec,
    ask: impl Fn() -> F,
) -> Result<T, CliError> {
    let end = Instant::now() + SILENT_MAX;
    loop {
        match ask().await {
            Err(error) if error.is_transient() && Instant::now() < end => tokio::time::sleep(LOOK_EVERY).await,
            Err(error) => {
                let what = format!("the full sync of {} cannot be followed: {error}", region.name);
                return Err(CliError::failed(what, "it may go on by itself; `farshore replication status` shows it"));
            }
            Ok(answer) => return Ok(answer),
        }
    }
}
