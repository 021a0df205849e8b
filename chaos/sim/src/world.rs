//! A world: two clusters of three real nodes, writers, workers and buckets, from one seed. It runs under faults, then
//! heals, then must settle within a bound.

use crate::bucket::Buckets;
use crate::caller::Caller;
use crate::common::{Common, VOLUME};
use crate::dice::Dice;
use crate::faults::Faults;
use crate::judge::Judge;
use crate::model::BLOCK_SIZE;
use crate::net::Net;
use crate::nodes::{self, EU, US};
use crate::scenario::Scenario;
use crate::trace::Trace;
use crate::writer::Writer;
use crate::{invariants, panics, worker};
use farshore_history::Checked;
use farshore_meta::MACHINE_VERSION;
use farshore_meta::kv::Store;
use farshore_types::{ClusterId, Compression, GroupId, Incarnation, RegionId, RegionRecord, Uuid, VolumeRecord};
use farshore_wire::admin::AdminCall;
use openraft::AsyncRuntime;
use openraft_rt_sim::SimRuntime;
use std::sync::Arc;
use std::time::Duration;

/// Virtual microseconds of one step.
const STEP_US: (u64, u64) = (50_000, 350_000);
/// A healed world must settle within so many looks, and the pause between two of them: 6 virtual minutes.
const SETTLE_LOOKS: u64 = 720;
const SETTLE_PAUSE: Duration = Duration::from_millis(500);
/// Looks in which a volume whose nodes all know a version has been raised to it for sure.
const RAISED_LOOKS: u64 = 60;
/// Workers in a region.
const WORKERS: u64 = 2;
/// Lines of the trace in a failure's message.
const LAST_LINES: usize = 40;

/// What a world that held has to tell.
#[derive(Debug)]
pub struct Told {
    pub trace: Vec<String>,
    /// The runtime's own trace of polls, wakes and timers, when asked for.
    pub schedule: Vec<String>,
    /// The last index of the history.
    pub entries: u64,
    /// What was checked of the callers' history.
    pub checked: Checked,
}

/// A world that broke.
#[derive(Debug)]
pub struct Broken {
    pub seed: u64,
    pub scenario: &'static str,
    pub what: String,
    pub trace: Vec<String>,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let from = self.trace.len().saturating_sub(LAST_LINES);
        self.trace[from..].iter().try_for_each(|line| writeln!(f, "{line}"))?;
        writeln!(f, "seed {} of `{}`: {}", self.seed, self.scenario, self.what)?;
        write!(f, "replay: FARSHORE_SEED={} cargo test -p farshore-sim --test {} -- --nocapture replay", self.seed, self.scenario)
    }
}

/// Runs the world of a seed.
pub fn run(seed: u64, scenario: &Scenario) -> Result<Told, Box<Broken>> {
    run_recorded(seed, scenario, false)
}

/// The same, with the runtime's own trace if `record`.
pub fn run_recorded(seed: u64, scenario: &Scenario, record: bool) -> Result<Told, Box<Broken>> {
    panics::watch();
    let trace = Arc::new(Trace::default());
    let mut runtime = SimRuntime::with_seed(seed);
    runtime.record_trace(record);
    let world = std::panic::AssertUnwindSafe(|| runtime.block_on(live(seed, scenario, trace.clone())));
    // A panic here is the runtime's own: a deadlock, or a task that never lets time go on.
    let lived = std::panic::catch_unwind(world).unwrap_or_else(|_| Err(panics::take().join("; ")));
    let schedule = runtime.take_trace();
    drop(runtime);
    panics::unwatch();
    let what = trace.verdict().map_or(lived, Err);
    match what {
        Ok((entries, checked)) => Ok(Told { trace: trace.lines(), schedule, entries, checked }),
        Err(what) => Err(Box::new(Broken { seed, scenario: scenario.name, what, trace: trace.lines() })),
    }
}

fn volume() -> VolumeRecord {
    let region = |cluster: ClusterId, name: &str| RegionRecord {
        id: RegionId(cluster.0),
        name: name.to_owned(),
        cluster: Some(cluster),
        incarnation: Incarnation(1),
        bucket: Uuid([cluster.0; 16]),
    };
    VolumeRecord {
        name: VOLUME.to_owned(),
        uuid: Uuid([7; 16]),
        group: GroupId(7),
        block_size: BLOCK_SIZE,
        compression: Compression::None,
        encrypted: false,
        trash_days: 0,
        regions: vec![region(US, "us"), region(EU, "eu")],
    }
}

async fn live(seed: u64, scenario: &Scenario, trace: Arc<Trace>) -> Result<(u64, Checked), String> {
    let dice = Arc::new(Dice::new(seed));
    let net = Net::new(dice.clone(), trace.clone(), nodes::names());
    let buckets = Arc::new(Buckets::default());
    let judge = Judge::new(US, buckets.clone(), trace, nodes::stages(&net), !scenario.judged);
    let common = Common::new(net, buckets, judge);
    let older = scenario.older.then(|| dice.below(nodes::names().len() as u64) as usize);
    common.set_older(older);
    begin(&common, scenario).await?;
    let mut faults = Faults::new(common.clone(), scenario.clone());
    common.set_faulty(scenario.failing_copies);
    common.net.set_loss(scenario.loss);
    common.net.set_flips(scenario.flips);
    for _ in 0..scenario.steps {
        faults.step().await?;
        SimRuntime::sleep(Duration::from_micros(dice.between(STEP_US.0, STEP_US.1))).await;
        look(&common)?;
    }
    faults.heal().await?;
    common.set_faulty(false);
    if let Some(at) = older {
        upgrade(&common, at, scenario).await?;
    }
    settle(&common, scenario.judged).await?;
    common.end();
    let entries = common.judge.model().last().0;
    common.trace.say(format!("settled at {entries}"));
    let checked = farshore_history::check(common.record().operations()).map_err(|failure| format!("history: {failure}"))?;
    common.trace.say(format!("{checked:?}"));
    Ok((entries, checked))
}

/// One look at everything; a finding ends the world.
fn look(common: &Common) -> Result<(), String> {
    common.judge.look(common.board.take_answers());
    if let Some(panicked) = panics::take().into_iter().next() {
        return Err(format!("a task panicked: {panicked}"));
    }
    common.trace.verdict().map_or(Ok(()), Err)
}

async fn begin(common: &Arc<Common>, scenario: &Scenario) -> Result<(), String> {
    for at in 0..nodes::names().len() {
        nodes::start(common, at, scenario.full_sync_every_us).await?;
    }
    for cluster in [US, EU] {
        nodes::ask(common, cluster, AdminCall::Initialize { members: nodes::founders(cluster) }).await?;
    }
    nodes::ask(common, US, AdminCall::Format { volume: volume() }).await?;
    nodes::ask(common, EU, AdminCall::Follow { volume: volume() }).await?;
    nodes::ask(common, US, AdminCall::RosterAdd { cluster: EU.0 }).await?;
    for region in [US, EU] {
        for number in 1..=WORKERS {
            drop(SimRuntime::spawn(worker::run(common.clone(), region, format!("worker-{region}-{number}"))));
        }
    }
    for number in 1..=scenario.writers {
        // The last one writes as `--flip` does: from the other region, to that region's bucket first.
        let flip = number > 1 && number == scenario.writers;
        let region = if flip { EU } else { US };
        let (common, name) = (common.clone(), format!("writer-{number}"));
        let writer = Writer { common, name, region, bucket: region, primary: US, pace_us: scenario.pace_us };
        drop(SimRuntime::spawn(writer.run()));
    }
    for number in 1..=scenario.callers {
        // One of three only asks; it is not held up by changes that nobody can commit.
        let asks_only = number % 3 == 0;
        let (common, number) = (common.clone(), number as u32);
        let caller = Caller { common, number, asks_only, region: US, pace_us: scenario.caller_pace_us };
        drop(SimRuntime::spawn(caller.run()));
    }
    Ok(())
}

/// A node that has not got its vote back, though nothing fails any more (law 24).
fn voteless(common: &Common) -> Option<String> {
    let stages = common.judge.stages();
    stages.iter().find(|stage| !stage.disk.is_whole()).map(|stage| format!("{} has no vote", stage.name))
}

fn version(common: &Common) -> Result<u32, String> {
    let model = common.judge.model();
    let kv = model.store.read().map_err(|error| error.to_string())?;
    Ok(farshore_meta::header(&*kv).map_err(|error| error.to_string())?.version)
}

/// Law 4: with one older node among them the volume stays at the version that all know; once that one is upgraded it is raised.
async fn upgrade(common: &Arc<Common>, at: usize, scenario: &Scenario) -> Result<(), String> {
    // Everything is healed: whoever wanted to raise it has heard everybody by now.
    for _ in 0..RAISED_LOOKS {
        SimRuntime::sleep(SETTLE_PAUSE).await;
        look(common)?;
    }
    if version(common)? >= MACHINE_VERSION {
        return Err(format!("law 4: the version was raised, and {} does not know it", common.net.name(at)));
    }
    nodes::kill(common, at, nodes::Loss::Unflushed)?;
    common.set_older(None);
    nodes::start(common, at, scenario.full_sync_every_us).await?;
    common.trace.say(format!("{} is upgraded", common.net.name(at)));
    for _ in 0..SETTLE_LOOKS {
        SimRuntime::sleep(SETTLE_PAUSE).await;
        look(common)?;
        if version(common)? == MACHINE_VERSION {
            common.trace.say("the version is raised");
            return Ok(());
        }
    }
    Err("law 4: every node knows the newer version, and it is not raised".to_owned())
}

/// Heals nothing, waits: all digests equal, nothing owed, recoverable is committed; then the directories are compared.
async fn settle(common: &Arc<Common>, judged: bool) -> Result<(), String> {
    common.stop_writing();
    let mut why = None;
    for _ in 0..SETTLE_LOOKS {
        SimRuntime::sleep(SETTLE_PAUSE).await;
        look(common)?;
        why = common.judge.unsettled().or_else(|| voteless(common));
        if why.is_none() && common.is_quiet() {
            // A blind judge has no history to compare with.
            if !judged {
                return Ok(());
            }
            let model = common.judge.model();
            let kv = model.store.read().map_err(|error| error.to_string())?;
            let directories = common.board.directories();
            return directories.iter().try_for_each(|directory| {
                invariants::directories::check(&*kv, directory).map_err(|what| format!("directories: {what}"))
            });
        }
    }
    Err(format!("liveness: the world does not settle: {}", why.unwrap_or_else(|| "writers or callers have not ended".to_owned())))
}
