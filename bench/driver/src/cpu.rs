//! CPU time by kind of process, since on a small machine it is the limit: user and system microseconds for each operation.

use crate::world::World;
use farshore_wire::admin_client::AdminClient;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Of /proc's figures; the kernel's ABI fixes it at 100 a second.
const TICK_US: f64 = 10_000.0;
const DEADLINE: Duration = Duration::from_secs(2);
const DRIVER: &str = "driver";

/// Microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    pub user_us: f64,
    pub system_us: f64,
}

/// The processes to watch, and what they had used when it began.
pub struct Watch {
    processes: Vec<(String, u32, Cpu)>,
}

impl Watch {
    /// Of a world: each node by its role, buckets, console, and this process.
    pub async fn of_world(world: &World) -> Watch {
        let mut processes = world.processes();
        let client = AdminClient::new(world.volume_name(), DEADLINE);
        for health in client.health_of_all(&world.all_nodes()).await.into_iter().flatten() {
            let role = if health.is_leader { "leader" } else { "follower" };
            let role = if health.mirror { format!("mirror_{role}") } else { role.to_owned() };
            processes.iter_mut().filter(|(_, pid)| *pid == health.pid).for_each(|(kind, _)| kind.clone_from(&role));
        }
        Watch::of(processes)
    }

    /// Of processes that are named, and this one.
    pub fn of(mut processes: Vec<(String, u32)>) -> Watch {
        processes.push((DRIVER.to_owned(), std::process::id()));
        let processes = processes.into_iter().filter_map(|(kind, pid)| Some((kind, pid, used(pid)?)));
        Watch { processes: processes.collect() }
    }

    /// The kind of each process.
    pub fn kinds(&self) -> HashMap<u32, String> {
        self.processes.iter().map(|(kind, pid, _)| (*pid, kind.clone())).collect()
    }

    /// What each kind used since, for each of `ops`; a process that has ended is left out.
    pub fn per_op(&self, ops: usize) -> BTreeMap<String, Cpu> {
        let mut kinds: BTreeMap<String, Cpu> = BTreeMap::new();
        for (kind, pid, before) in &self.processes {
            if let Some(after) = used(*pid) {
                let sum = kinds.entry(kind.clone()).or_default();
                sum.user_us += (after.user_us - before.user_us) / ops as f64;
                sum.system_us += (after.system_us - before.system_us) / ops as f64;
            }
        }
        kinds
    }
}

fn used(pid: u32) -> Option<Cpu> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The command's name may hold anything, a bracket too: the fields count from the last one.
fn parse(stat: &str) -> Option<Cpu> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok().map(|ticks| ticks * TICK_US);
    Some(Cpu { user_us: ticks()?, system_us: ticks()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_with_brackets() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 7 9 0 0 20 0 1 0 100 0 0";
        assert_eq!(parse(stat), Some(Cpu { user_us: 70_000.0, system_us: 90_000.0 }));
        assert_eq!(parse("nonsense"), None);
    }

    #[test]
    fn this_process_is_watched_and_one_that_is_not_there_is_left_out() {
        let watch = Watch::of(vec![("gone".to_owned(), u32::MAX)]);
        assert_eq!(watch.per_op(1).keys().collect::<Vec<_>>(), [DRIVER]);
    }
}
