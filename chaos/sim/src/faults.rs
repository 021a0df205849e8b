//! The faults of a world: each step draws which of them happen, and what began earlier ends after a drawn time.

use crate::common::Common;
use crate::nodes::{self, EU, Loss, US};
use crate::scenario::Scenario;
use farshore_primary::Proposal;
use farshore_types::ClusterId;
use openraft::AsyncRuntime;
use openraft_rt_sim::SimRuntime;
use std::sync::Arc;
use std::time::Duration;

/// A fault lasts so many steps, at least and at most.
const LASTS: (u64, u64) = (3, 40);

/// A node whose flushes fail is looked at so often, with a pause between, before it is killed.
const FAILED_LOOKS: u64 = 20;
const FAILED_LOOK: Duration = Duration::from_millis(50);

/// How a fault ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mend {
    Restart(usize),
    Join,
    Reconnect(usize),
    Accompany(usize),
    Resume(usize),
    BucketUp(ClusterId),
}

/// The faults under way.
pub struct Faults {
    common: Arc<Common>,
    scenario: Scenario,
    step: u64,
    due: Vec<(u64, Mend)>,
}

impl Faults {
    pub fn new(common: Arc<Common>, scenario: Scenario) -> Self {
        Faults { common, scenario, step: 0, due: vec![] }
    }

    /// One step: what is due ends, and something may begin.
    pub async fn step(&mut self) -> Result<(), String> {
        self.step += 1;
        let now = self.step;
        let due: Vec<Mend> = self.due.iter().filter(|(at, _)| *at <= now).map(|(_, mend)| *mend).collect();
        self.due.retain(|(at, _)| *at > now);
        for mend in due {
            self.mend(mend).await?;
        }
        let Scenario { kills, power_losses, partitions, isolations, bucket_outages, damages, trims, purges, rewinds, .. } =
            self.scenario;
        let Scenario { lost_logs, lost_disks, failed_flushes, .. } = self.scenario;
        let dice = self.common.dice.clone();
        if dice.chance(kills) {
            self.kill(Loss::Unflushed)?;
        }
        if dice.chance(power_losses) {
            self.kill(Loss::State)?;
        }
        if dice.chance(lost_logs) {
            self.kill(Loss::Log)?;
        }
        if dice.chance(lost_disks) {
            self.kill(Loss::Disk)?;
        }
        if dice.chance(failed_flushes) {
            self.fail_flush().await?;
        }
        if dice.chance(partitions) && !self.is_under_way(Mend::Join) {
            self.common.trace.say("the regions are cut apart");
            self.common.net.set_cut(US, EU, true);
            self.later(Mend::Join);
        }
        if dice.chance(isolations) {
            let at = dice.below(nodes::names().len() as u64) as usize;
            if !self.is_under_way(Mend::Reconnect(at)) {
                self.common.trace.say(format!("{} is isolated", self.common.net.name(at)));
                self.common.net.isolate(at, true);
                self.later(Mend::Reconnect(at));
            }
        }
        self.mislead();
        if dice.chance(bucket_outages) {
            let region = if dice.chance(500) { US } else { EU };
            self.common.trace.say(format!("the bucket of {region} is down"));
            self.common.buckets.set_down(region, true);
            self.later(Mend::BucketUp(region));
        }
        if dice.chance(damages) {
            self.damage();
        }
        if dice.chance(trims) {
            self.trim()?;
        }
        if dice.chance(purges) {
            self.purge();
        }
        if dice.chance(rewinds) {
            crate::rewind::rewind_mirror(&self.common).await?;
        }
        Ok(())
    }

    /// Everything ends now.
    pub async fn heal(&mut self) -> Result<(), String> {
        self.common.trace.say("everything heals");
        for (_, mend) in std::mem::take(&mut self.due) {
            self.mend(mend).await?;
        }
        self.common.net.heal();
        Ok(())
    }

    fn is_under_way(&self, mend: Mend) -> bool {
        self.due.iter().any(|(_, other)| *other == mend)
    }

    fn later(&mut self, mend: Mend) {
        self.due.push((self.step + self.common.dice.between(LASTS.0, LASTS.1), mend));
    }

    async fn mend(&mut self, mend: Mend) -> Result<(), String> {
        self.common.trace.say(format!("{mend:?}"));
        match mend {
            Mend::Restart(at) => nodes::start(&self.common, at, self.scenario.full_sync_every_us).await,
            Mend::Join => {
                self.common.net.set_cut(US, EU, false);
                Ok(())
            }
            Mend::Reconnect(at) => {
                self.common.net.isolate(at, false);
                Ok(())
            }
            Mend::Accompany(at) => {
                self.common.net.leave_alone(at, false);
                Ok(())
            }
            Mend::Resume(at) => {
                self.common.net.pause(at, false);
                Ok(())
            }
            Mend::BucketUp(region) => {
                self.common.buckets.set_down(region, false);
                Ok(())
            }
        }
    }

    /// What makes a node of the primary's cluster answer for what it no longer is, its leader more often than others.
    fn mislead(&mut self) {
        let Scenario { desertions, pauses, .. } = self.scenario;
        if desertions + pauses == 0 {
            // Worlds without them keep their draws, and so their seeds.
            return;
        }
        let net = self.common.net.clone();
        if self.common.dice.chance(desertions) {
            let at = self.somewhere(US);
            if !self.is_under_way(Mend::Accompany(at)) {
                self.common.trace.say(format!("{} is left alone with its clients", net.name(at)));
                net.leave_alone(at, true);
                self.later(Mend::Accompany(at));
            }
        }
        if self.common.dice.chance(pauses) {
            let at = self.somewhere(US);
            if !self.is_under_way(Mend::Resume(at)) {
                self.common.trace.say(format!("{} stands still", net.name(at)));
                net.pause(at, true);
                self.later(Mend::Resume(at));
            }
        }
    }

    /// A place of the cluster: its leader's, or any.
    fn somewhere(&self, cluster: ClusterId) -> usize {
        let places = self.common.net.places(cluster);
        let leader = nodes::leader(&self.common.net, cluster).filter(|_| self.common.dice.chance(600));
        leader.unwrap_or(places[self.common.dice.below(places.len() as u64) as usize])
    }

    /// Leaders die more often than others.
    fn pick(&self) -> usize {
        let dice = &self.common.dice;
        let cluster = if dice.chance(600) { US } else { EU };
        self.somewhere(cluster)
    }

    fn kill(&mut self, loss: Loss) -> Result<(), String> {
        let at = self.pick();
        if self.common.net.life(at).is_none() {
            return Ok(());
        }
        // What two nodes have lost, the third may never have had: no protocol survives that.
        if matches!(loss, Loss::Log | Loss::Disk) && !nodes::others_are_whole(&self.common, at) {
            return Ok(());
        }
        nodes::kill(&self.common, at, loss)?;
        self.later(Mend::Restart(at));
        Ok(())
    }

    /// A flush fails: the node must stop by itself, as soon as it writes something.
    async fn fail_flush(&mut self) -> Result<(), String> {
        let at = self.pick();
        let Some(life) = self.common.net.life(at).filter(|_| nodes::others_are_whole(&self.common, at)) else { return Ok(()) };
        self.common.trace.say(format!("no flush of {} succeeds", self.common.net.name(at)));
        // A log that is purged to its end has no last entry.
        let before = life.node.log.last().max(life.node.log.flushed());
        self.common.judge.stages()[at].disk.break_flushes();
        for _ in 0..FAILED_LOOKS {
            SimRuntime::sleep(FAILED_LOOK).await;
            if life.node.fatal().await.is_some() {
                self.common.trace.say(format!("{} has stopped by itself", self.common.net.name(at)));
                break;
            }
        }
        if life.node.log.flushed() > before {
            return Err(format!("law 24: {} counts as flushed what no flush has written", self.common.net.name(at)));
        }
        nodes::kill(&self.common, at, Loss::State)?;
        self.common.judge.stages()[at].disk.distrust().map_err(|error| error.to_string())?;
        self.later(Mend::Restart(at));
        Ok(())
    }

    /// An object vanishes behind everybody's back; where another region has it, a full sync brings it back.
    fn damage(&self) {
        let common = &self.common;
        let region = if common.dice.chance(500) { US } else { EU };
        let other = if region == US { EU } else { US };
        let both: Vec<_> = {
            let buckets = common.buckets.lock();
            let has =
                |region: ClusterId, block: &_| buckets.get(&region).is_some_and(|bucket| bucket.objects.contains_key(block));
            let here = buckets.get(&region).into_iter().flat_map(|bucket| bucket.objects.keys());
            here.filter(|block| has(other, block)).copied().collect()
        };
        // Only what is known to be here can vanish as damage: the others are debt, or on their way.
        let known: Vec<_> = both.into_iter().filter(|block| !common.judge.is_owed(region, *block)).collect();
        if let Some(block) = common.dice.pick(&known) {
            common.trace.say(format!("{block} vanishes from the bucket of {region}"));
            common.buckets.damage(region, block);
        }
    }

    /// Checkpoints, and a shorter log, on some node: as beyond the retention limit, also of what a mirror still needs,
    /// which must take a snapshot then.
    fn purge(&self) {
        let common = &self.common;
        let at = common.dice.below(nodes::names().len() as u64) as usize;
        let Some(life) = common.net.life(at) else { return };
        common.trace.say(format!("{} takes checkpoints and purges its log", common.net.name(at)));
        let pause = Duration::from_micros(common.dice.between(50_000, 2_000_000));
        // What is purged must have become known before.
        let judge = common.judge.clone();
        drop(SimRuntime::spawn(async move {
            for _ in 0..2 {
                // The node may be stopping: then there is no checkpoint.
                let _ = life.node.checkpoint().await;
                SimRuntime::sleep(pause).await;
            }
            judge.look(vec![]);
            if let Some(upto) = life.node.checkpoints.purgeable() {
                let _ = life.node.purge_log(upto).await;
            }
        }));
    }

    /// Before-images and log positions go below the lowest floor (law 20).
    fn trim(&self) -> Result<(), String> {
        let common = &self.common;
        let cluster = if common.dice.chance(500) { US } else { EU };
        let Some(life) = nodes::leader(&common.net, cluster).and_then(|at| common.net.life(at)) else { return Ok(()) };
        common.judge.look(vec![]);
        let told = |error: farshore_meta::kv::StorageError| error.to_string();
        let below = {
            let kv = life.node.read().map_err(told)?;
            if farshore_syncer::home(&*kv).map_err(told)?.is_none() {
                return Ok(());
            }
            let lineage = farshore_meta::header(&*kv).map_err(told)?.lineage;
            farshore_syncer::lowest_floor(&*kv, &lineage, &[US, EU]).map_err(told)?
        };
        common.trace.say(format!("cluster {cluster} trims below {below}"));
        drop(SimRuntime::spawn(async move { drop(life.node.propose(&Proposal::Trim { below }).await) }));
        Ok(())
    }
}
