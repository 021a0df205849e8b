//! Creates, lookups and stats per second: callers in a closed loop over a few sessions, without FUSE.

use crate::cpu::{Cpu, Watch};
use crate::error::BenchError;
use crate::times::{LoadFigures, Times};
use crate::world::{WorldArgs, directories, make};
use farshore_client::Volume;
use farshore_types::{Ino, NewNode, Query, QueryReply};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Directories and files that lookups and stats go to.
const READ_DIRECTORIES: usize = 16;
const READ_FILES: usize = 4096;
/// Creates at once while those are made.
const MAKING: usize = 256;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub world: WorldArgs,
    /// Callers at once, each with one operation at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub callers: u16,
    /// Sessions that the callers share, each with a connection of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub sessions: u16,
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
}

/// What the callers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Each in a directory of its own
    Creates,
    /// A name in a directory, at random
    Lookups,
    /// An inode's attributes, at random
    Stats,
}

#[derive(Debug, Serialize)]
pub struct Figures {
    #[serde(flatten)]
    load: LoadFigures,
    sessions: u16,
    /// The longest time in which no caller had an answer.
    longest_silence_ms: Option<f64>,
    /// By kind of process.
    cpu_per_op: BTreeMap<String, Cpu>,
    cpu_us_per_op: f64,
    /// Without the driver itself.
    servers_cpu_us_per_op: f64,
}

impl Figures {
    pub fn ops_per_second(&self) -> f64 {
        self.load.ops_per_second
    }

    /// Microseconds of an operation, user and system together.
    pub fn cpu_us_by_kind(&self) -> BTreeMap<String, f64> {
        self.cpu_per_op.iter().map(|(kind, cpu)| (kind.clone(), cpu.user_us + cpu.system_us)).collect()
    }
}

/// What one caller works on.
enum Work {
    Create(Ino),
    Ask(Vec<Query>),
}

pub async fn run(args: Args, what: What) -> Result<Figures, BenchError> {
    let world = args.world.open()?;
    let connections = (0..args.sessions).map(|_| world.connect());
    let volumes = futures::future::try_join_all(connections).await?;
    let work = prepare(&volumes[0], usize::from(args.callers), what).await?;
    let watch = Watch::of_world(&world).await;
    let begun = Instant::now();
    let until = begun + Duration::from_secs_f64(args.seconds);
    let callers = work.into_iter().enumerate().map(|(number, work)| {
        let volume = volumes[number % volumes.len()].clone();
        tokio::spawn(async move { call(&volume, &work, until).await })
    });
    let mut all = Times::default();
    let mut answers = vec![];
    for caller in futures::future::join_all(callers).await {
        let (times, answered) = caller.map_err(|error| BenchError::new("run a caller", error))??;
        all.extend(times);
        answers.extend(answered);
    }
    let ran = begun.elapsed();
    let cpu_per_op = watch.per_op(all.count());
    for volume in &volumes {
        volume.session().shutdown().await;
    }
    let sum = |of: &dyn Fn(&str) -> bool| -> f64 {
        cpu_per_op.iter().filter(|(kind, _)| of(kind)).map(|(_, cpu)| cpu.user_us + cpu.system_us).sum()
    };
    Ok(Figures {
        sessions: args.sessions,
        longest_silence_ms: longest_silence(answers),
        cpu_us_per_op: sum(&|_| true),
        servers_cpu_us_per_op: sum(&|kind| kind != "driver"),
        cpu_per_op,
        load: all.load(usize::from(args.callers), ran),
    })
}

async fn prepare(volume: &Arc<Volume>, callers: usize, what: What) -> Result<Vec<Work>, BenchError> {
    if what == What::Creates {
        return Ok(directories(volume, callers).await?.into_iter().map(Work::Create).collect());
    }
    let parents = directories(volume, READ_DIRECTORIES).await?;
    let mut questions = Vec::with_capacity(READ_FILES);
    for from in (0..READ_FILES).step_by(MAKING) {
        let made = (from..from + MAKING).map(|number| {
            let (parent, name) = (parents[number % parents.len()], format!("file-{number}"));
            async move {
                let (attr, _) = make(volume, parent, name.clone(), NewNode::File).await?;
                Ok::<Query, BenchError>(match what {
                    What::Stats => Query::GetAttr { ino: attr.ino },
                    _ => Query::Lookup { parent, name: name.into_bytes() },
                })
            }
        });
        questions.extend(futures::future::try_join_all(made).await?);
    }
    // Each caller begins elsewhere and goes on by a step that meets every question.
    let of = |caller: usize| (0..READ_FILES).map(move |step| (caller * 61 + step * 2731) % READ_FILES);
    Ok((0..callers).map(|caller| Work::Ask(of(caller).map(|at| questions[at].clone()).collect())).collect())
}

/// Times, and when each answer came.
async fn call(volume: &Volume, work: &Work, until: Instant) -> Result<(Times, Vec<Instant>), BenchError> {
    let (mut times, mut answers) = (Times::default(), vec![]);
    while Instant::now() < until {
        let asked = Instant::now();
        match work {
            Work::Create(parent) => {
                make(volume, *parent, format!("file-{}", times.count()), NewNode::File).await?;
            }
            Work::Ask(questions) => ask(volume, &questions[times.count() % questions.len()]).await?,
        }
        times.add(asked.elapsed());
        answers.push(Instant::now());
    }
    Ok((times, answers))
}

async fn ask(volume: &Volume, question: &Query) -> Result<(), BenchError> {
    match volume.session().query(question.clone()).await {
        Ok(QueryReply::Attr(_)) => Ok(()),
        other => Err(BenchError::new("ask", format!("{question:?}: {other:?}"))),
    }
}

fn longest_silence(mut answers: Vec<Instant>) -> Option<f64> {
    answers.sort_unstable();
    answers.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1e3).max_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_silence_is_between_neighbours_in_time() {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        assert_eq!(longest_silence(vec![at(9), at(0), at(4)]), Some(5.0));
        assert_eq!(longest_silence(vec![at(9)]), None);
    }
}
