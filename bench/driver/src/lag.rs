//! How far the mirror's metadata is behind, at a fixed rate of creates.
//!
//! Two figures for the same thing. Seen from outside: from a create's answer until the mirror's leader says that it has applied the
//! create's entry; its precision is the polling interval. And what `lag` itself reports, sampled. Both end on this machine's clock.

use crate::error::BenchError;
use crate::times::Times;
use crate::world::{WorldArgs, directories, make};
use farshore_client::Volume;
use farshore_types::{Ino, NewNode};
use farshore_wire::admin::{AdminAnswer, AdminCall};
use farshore_wire::admin_client::AdminClient;
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Between two questions to the mirror's leader.
const POLL_EVERY: Duration = Duration::from_millis(2);
/// Between two looks at what `lag` reports.
const LAG_EVERY: Duration = Duration::from_millis(50);
/// Creates start in groups this far apart.
const TICK: Duration = Duration::from_millis(5);
/// Creates without an answer, at most; those above it are late and counted so.
const OUTSTANDING_MAX: usize = 512;
const DIRECTORIES: usize = 64;
const DEADLINE: Duration = Duration::from_secs(2);
/// How long the mirror has to catch up at the end.
const CATCH_UP: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    world: WorldArgs,
    /// Creates a second
    #[arg(long)]
    rate: f64,
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

#[derive(Debug, Serialize)]
pub struct LagFigures {
    rate_wished: f64,
    rate_reached: f64,
    seconds: f64,
    creates: usize,
    /// Ticks that began fewer creates than wished, since too many had no answer.
    ticks_held_back: usize,
    observed_p50_ms: Option<f64>,
    observed_p99_ms: Option<f64>,
    observed_max_ms: Option<f64>,
    polls: usize,
    poll_p50_ms: Option<f64>,
    reported_p50_ms: Option<f64>,
    reported_p99_ms: Option<f64>,
    reported_samples: usize,
    reported_unknown: usize,
}

/// When which index was seen applied at the mirror, in order of both.
type Seen = Vec<(Instant, u64)>;

pub async fn run(args: Args) -> Result<LagFigures, BenchError> {
    let world = args.world.open()?;
    let volume = world.connect().await?;
    let parents = directories(&volume, DIRECTORIES).await?;
    let (upto, wanted) = watch::channel(None);
    let poller = tokio::spawn(poll_mirror(world.volume_name().to_owned(), world.mirror()?.1, wanted.clone()));
    let reporter = tokio::spawn(sample_reports(world.volume_name().to_owned(), world.primary_nodes(), world.mirror()?.0, wanted));
    let begun = Instant::now();
    let created = create_at(&args, &volume, &parents).await;
    let ran = begun.elapsed();
    let last = created.as_ref().map_or(0, |(answers, _)| answers.iter().map(|(_, index)| *index).max().unwrap_or(0));
    let _ = upto.send(Some(last));
    let (answers, ticks_held_back) = created?;
    let (seen, mut polls) = poller.await.map_err(|error| BenchError::new("poll the mirror", error))??;
    let (mut reported, reported_unknown) = reporter.await.map_err(|error| BenchError::new("ask for the lag", error))??;
    volume.session().shutdown().await;
    let mut observed = behind(&answers, &seen);
    Ok(LagFigures {
        rate_wished: args.rate,
        rate_reached: answers.len() as f64 / ran.as_secs_f64(),
        seconds: ran.as_secs_f64(),
        creates: answers.len(),
        ticks_held_back,
        observed_p50_ms: observed.quantile_ms(0.5),
        observed_p99_ms: observed.quantile_ms(0.99),
        observed_max_ms: observed.quantile_ms(1.0),
        polls: polls.count(),
        poll_p50_ms: polls.quantile_ms(0.5),
        reported_p50_ms: reported.quantile_ms(0.5),
        reported_p99_ms: reported.quantile_ms(0.99),
        reported_samples: reported.count(),
        reported_unknown,
    })
}

/// Creates at the rate; answers when each was acknowledged and at which index, and how many ticks were held back.
async fn create_at(args: &Args, volume: &Arc<Volume>, parents: &[Ino]) -> Result<(Seen, usize), BenchError> {
    let begun = Instant::now();
    let length = Duration::from_secs_f64(args.seconds);
    let (mut answers, mut held_back, mut started) = (Vec::new(), 0, 0_usize);
    let mut running: JoinSet<Result<(Instant, u64), BenchError>> = JoinSet::new();
    while begun.elapsed() < length {
        let due = (begun.elapsed().as_secs_f64() * args.rate) as usize;
        let room = OUTSTANDING_MAX - running.len();
        if due - started > room {
            held_back += 1;
        }
        for _ in 0..(due - started).min(room) {
            let (volume, parent, name) = (volume.clone(), parents[started % parents.len()], format!("file-{started}"));
            running.spawn(async move {
                let (_, index) = make(&volume, parent, name, NewNode::File).await?;
                Ok((Instant::now(), index.0))
            });
            started += 1;
        }
        tokio::time::sleep(TICK).await;
        while let Some(done) = running.try_join_next() {
            answers.push(done.map_err(|error| BenchError::new("create", error))??);
        }
    }
    while let Some(done) = running.join_next().await {
        answers.push(done.map_err(|error| BenchError::new("create", error))??);
    }
    Ok((answers, held_back))
}

/// Asks the mirror's leader what it has applied, until that is what is wanted.
async fn poll_mirror(
    volume: String,
    nodes: Vec<String>,
    wanted: watch::Receiver<Option<u64>>,
) -> Result<(Seen, Times), BenchError> {
    let client = AdminClient::new(volume, DEADLINE);
    let failed = |why: String| BenchError::new("ask the mirror's leader", why);
    let (leader, _) = client.call_leader(&nodes, &AdminCall::Lag).await.map_err(|error| failed(error.to_string()))?;
    let (mut seen, mut polls, mut ended): (Seen, Times, Option<Instant>) = (Vec::new(), Times::default(), None);
    loop {
        let asked = Instant::now();
        let health = client.health(&leader).await.map_err(|error| failed(error.to_string()))?;
        polls.add(asked.elapsed());
        if !health.is_leader {
            return Err(failed("it leads no more; measure again".to_owned()));
        }
        seen.push((Instant::now(), health.applied));
        let wanted = *wanted.borrow();
        if wanted.is_some_and(|wanted| health.applied >= wanted) {
            return Ok((seen, polls));
        }
        if wanted.is_some() && ended.get_or_insert_with(Instant::now).elapsed() > CATCH_UP {
            return Err(failed(format!("it did not catch up within {CATCH_UP:?}")));
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// What the primary's leader reports of the mirror's region, sampled while creates run; and how often it did not know.
async fn sample_reports(
    volume: String,
    nodes: Vec<String>,
    region: String,
    ended: watch::Receiver<Option<u64>>,
) -> Result<(Times, usize), BenchError> {
    let client = AdminClient::new(volume, DEADLINE);
    let failed = |why: String| BenchError::new("ask for the lag", why);
    let (leader, _) = client.call_leader(&nodes, &AdminCall::Lag).await.map_err(|error| failed(error.to_string()))?;
    let (mut times, mut unknown) = (Times::default(), 0);
    while ended.borrow().is_none() {
        let answer = client.call(&leader, &AdminCall::Lag).await.map_err(|error| failed(error.to_string()))?;
        let AdminAnswer::Lag(view) = answer else { return Err(failed("another answer than a lag".to_owned())) };
        let line = view.regions.iter().find(|line| line.region == region);
        match line.and_then(|line| line.metadata_seconds_behind) {
            Some(seconds) => times.add_seconds(seconds),
            None => unknown += 1,
        }
        tokio::time::sleep(LAG_EVERY).await;
    }
    Ok((times, unknown))
}

/// For each answer, how long after it its index was first seen applied; 0 when it was seen before.
fn behind(answers: &[(Instant, u64)], seen: &[(Instant, u64)]) -> Times {
    let mut times = Times::default();
    for (answered, index) in answers {
        let first = seen.partition_point(|(_, applied)| applied < index);
        if let Some((when, _)) = seen.get(first) {
            times.add(when.saturating_duration_since(*answered));
        }
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_is_from_the_answer_to_the_first_sight_of_its_index() {
        let zero = Instant::now();
        let at = |ms: u64| zero + Duration::from_millis(ms);
        let seen = [(at(10), 5), (at(20), 8), (at(30), 8), (at(40), 9)];
        let mut times = behind(&[(at(15), 5), (at(15), 6), (at(15), 8), (at(16), 9)], &seen);
        assert_eq!(times.count(), 4);
        assert_eq!(times.quantile_ms(0.0), Some(0.0));
        assert_eq!(times.quantile_ms(1.0), Some(24.0));
        assert_eq!(times.quantile_ms(0.5), Some(5.0));
        assert_eq!(behind(&[(at(1), 10)], &seen).count(), 0, "what was never seen is no figure");
    }
}
