//! What a leader knows of the other clusters, who observed it, and when (law 28); and the figures of its own region.

use crate::dispatch;
use crate::local;
use crate::node::Node;
use farshore_meta::kv::{KvRead, StorageError, Store};
use farshore_types::{ClusterId, ControlTime, Lineage, LocalTime, LogIndex};
use farshore_wire::view::{LagView, RegionFigures, RegionLag};
use openraft::AsyncRuntime;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

/// After this long without a word (microseconds) figures are a lower bound, and marked so.
pub const SILENT_US: u64 = 2_000_000;

/// A mirror, as the primary heard of it.
#[derive(Clone, Debug)]
pub struct MirrorSeen {
    pub applied: LogIndex,
    pub floor: LogIndex,
    pub lineage: Lineage,
    pub figures: RegionFigures,
    /// The version of the state machine that all its nodes know, 0 when it cannot say so (law 4).
    pub machine: u32,
    /// On this node's boot clock.
    pub heard_us: LocalTime,
    pub connected: bool,
}

/// The primary, as a mirror heard of it.
#[derive(Clone, Debug)]
pub struct UpstreamSeen {
    pub committed: LogIndex,
    /// Age of the oldest entry not applied here, on the primary's clock, when it was said.
    pub behind_us: u64,
    pub figures: RegionFigures,
    pub heard_us: LocalTime,
    /// The primary's wall clock when it was said.
    pub now_us: u64,
    pub address: String,
}

/// What this node knows of the others. Lost with the process: null afterwards, never 0.
#[derive(Default)]
pub struct Observations {
    mirrors: Mutex<BTreeMap<ClusterId, MirrorSeen>>,
    upstream: Mutex<Option<UpstreamSeen>>,
}

impl Observations {
    pub fn mirrors(&self) -> MutexGuard<'_, BTreeMap<ClusterId, MirrorSeen>> {
        self.mirrors.lock().expect("no one panics while holding what was observed")
    }

    pub fn upstream(&self) -> MutexGuard<'_, Option<UpstreamSeen>> {
        self.upstream.lock().expect("no one panics while holding what was observed")
    }
}

/// Microseconds since 1970 as RFC 3339, UTC, to the second.
pub fn rfc3339(us: u64) -> String {
    let seconds = us / 1_000_000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days, for days since 1970.
    let z = days as i64 + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) = (day_of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest % 3600 / 60, rest % 60)
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// Everything about one region that is exact in one read transaction of its own cluster.
struct OwnFigures {
    figures: RegionFigures,
    index: LogIndex,
    epoch: u64,
    primary: Option<ClusterId>,
}

impl<R: AsyncRuntime, S: Store> Node<R, S> {
    /// The figures of this cluster's own region.
    pub fn figures(&self) -> Result<RegionFigures, StorageError> {
        Ok(self.own_figures(&*self.read()?)?.figures)
    }

    fn own_figures(&self, kv: &dyn KvRead) -> Result<OwnFigures, StorageError> {
        let header = farshore_meta::header(kv)?;
        let diverged = local::diverged(kv)?.is_some();
        let mut figures =
            RegionFigures { region: self.config.region.clone(), applied: header.index.0, diverged, ..Default::default() };
        let own = OwnFigures {
            index: header.index,
            epoch: header.lineage.head_id().number,
            primary: header.lineage.head().map(|epoch| epoch.id.cluster),
            figures: RegionFigures::default(),
        };
        if farshore_syncer::home(kv)?.is_none() {
            figures.history_pending = true;
            return Ok(OwnFigures { figures, ..own });
        }
        let marks = farshore_syncer::watermarks(kv, header.index, &header.lineage)?;
        figures.data_synced = marks.data_synced.map(|index| index.0).filter(|_| !diverged);
        figures.recoverable = marks.recoverable.map(|index| index.0).filter(|_| !diverged);
        figures.floor = marks.floor.0;
        figures.blocks_behind = marks.blocks_behind;
        figures.bytes_behind = marks.bytes_behind.0;
        figures.oldest_owed_us = marks.oldest_owed_time.map(|time| time.0);
        figures.blocks_failing = marks.failing.values().sum();
        figures.blocks_damaged = marks.damaged;
        figures.blocks_unverified = marks.unverified;
        figures.blocks_written_off = marks.written_off;
        figures.history_pending = marks.history_pending;
        figures.deletions_held = marks.deletion_held.blocks;
        figures.paused = farshore_syncer::pause(kv)?.is_some();
        (figures.copied_blocks_total, figures.copied_bytes_total, figures.fallback_blocks_total) = self.dispatch.totals();
        figures.workers = self.dispatch.workers().iter().filter(|(_, tally, _)| tally.slots > 0).count() as u64;
        let sync = farshore_syncer::fullsync::fullsync(kv)?;
        let now = farshore_syncer::control_time(kv)?;
        figures.full_sync_next_in_seconds = sync.next.map(|next: ControlTime| next.0.saturating_sub(now.0) / 1_000_000);
        Ok(OwnFigures { figures, ..own })
    }

    /// The lag of every region as this cluster sees it.
    pub async fn lag(&self) -> Result<LagView, StorageError> {
        let leader = match self.leader().await {
            Some(leader) => self.members().into_iter().find(|member| member.id == leader.0).map(|member| member.name),
            None => None,
        };
        let kv = self.read()?;
        let own = self.own_figures(&*kv)?;
        let name = |cluster: ClusterId| self.config.regions.get(&cluster).cloned().unwrap_or_default();
        let mut view = LagView {
            volume: self.config.volume.clone(),
            observer: self.config.region.clone(),
            observed_at: rfc3339(self.host.wall_us()),
            stale: false,
            epoch: own.epoch,
            primary: own.primary.map(name).unwrap_or_default(),
            leader,
            regions: vec![],
        };
        if own.primary == Some(self.config.cluster) {
            view.regions.push(self.primary_region(&own));
            for member in dispatch::roster(&*kv)?.into_iter().filter(|cluster| *cluster != self.config.cluster) {
                view.regions.push(self.mirror_region(&*kv, member, &name(member), own.index)?);
            }
        } else {
            self.mirror_view(&own, &mut view);
        }
        Ok(view)
    }

    fn data_seconds(&self, figures: &RegionFigures, now_us: u64) -> f64 {
        figures.oldest_owed_us.map_or(0.0, |oldest| seconds(now_us.saturating_sub(oldest)))
    }

    fn primary_region(&self, own: &OwnFigures) -> RegionLag {
        RegionLag {
            committed: Some(own.index.0),
            mirror_applied: None,
            entries_behind: Some(0),
            metadata_seconds_behind: Some(0.0),
            data_seconds_behind: Some(self.data_seconds(&own.figures, self.host.wall_us())),
            age_seconds: Some(0.0),
            role: "primary".to_owned(),
            ..region_of(&own.figures)
        }
    }

    /// A mirror's line, as its primary sees it.
    fn mirror_region(
        &self,
        kv: &dyn KvRead,
        cluster: ClusterId,
        name: &str,
        committed: LogIndex,
    ) -> Result<RegionLag, StorageError> {
        let seen = self.observations.mirrors().get(&cluster).cloned();
        let Some(seen) = seen else {
            let region = name.to_owned();
            return Ok(RegionLag { region, committed: Some(committed.0), role: "mirror".to_owned(), ..RegionLag::default() });
        };
        let age = self.host.boot_us().saturating_sub(seen.heard_us);
        let silent = age > SILENT_US;
        let now = self.host.wall_us();
        let oldest = if seen.applied < committed { local::position(kv, seen.applied.next())? } else { None };
        let behind = oldest.map_or(0, |position| now.saturating_sub(position.time.0));
        let behind = if silent { behind.max(age) } else { behind };
        let data = self.data_seconds(&seen.figures, now).max(seconds(behind));
        Ok(RegionLag {
            committed: Some(committed.0),
            mirror_applied: Some(seen.applied.0),
            entries_behind: Some(committed.0.saturating_sub(seen.applied.0)),
            metadata_seconds_behind: Some(seconds(behind)),
            data_seconds_behind: Some(data),
            at_least: silent,
            age_seconds: Some(seconds(age)),
            role: "mirror".to_owned(),
            ..region_of(&seen.figures)
        })
    }

    /// All lines, as a mirror sees them.
    fn mirror_view(&self, own: &OwnFigures, view: &mut LagView) {
        let upstream = self.observations.upstream().clone();
        let now = self.host.boot_us();
        let age = upstream.as_ref().map(|seen| now.saturating_sub(seen.heard_us));
        let silent = age.is_none_or(|age| age > SILENT_US);
        view.stale = silent;
        if let Some(seen) = &upstream {
            view.regions.push(RegionLag {
                committed: Some(seen.committed.0),
                entries_behind: Some(0),
                metadata_seconds_behind: Some(0.0),
                data_seconds_behind: Some(self.data_seconds(&seen.figures, seen.now_us)),
                at_least: silent,
                age_seconds: age.map(seconds),
                role: "primary".to_owned(),
                ..region_of(&seen.figures)
            });
        }
        let committed = upstream.as_ref().map(|seen| seen.committed.max(own.index));
        let behind = upstream.as_ref().map(|seen| {
            let base = if own.index >= seen.committed { 0 } else { seen.behind_us };
            if silent { base + age.unwrap_or(0) } else { base }
        });
        let primary_now = upstream.as_ref().map(|seen| seen.now_us + age.unwrap_or(0));
        let data = primary_now.map(|now| self.data_seconds(&own.figures, now).max(behind.map_or(0.0, seconds)));
        view.regions.push(RegionLag {
            committed: committed.map(|index| index.0),
            mirror_applied: Some(own.index.0),
            entries_behind: committed.map(|index| index.0.saturating_sub(own.index.0)),
            metadata_seconds_behind: behind.map(seconds),
            data_seconds_behind: data,
            at_least: silent,
            age_seconds: Some(0.0),
            role: "mirror".to_owned(),
            ..region_of(&own.figures)
        });
    }
}

fn region_of(figures: &RegionFigures) -> RegionLag {
    RegionLag {
        region: figures.region.clone(),
        data_synced: figures.data_synced,
        recoverable: figures.recoverable,
        blocks_behind: Some(figures.blocks_behind),
        bytes_behind: Some(figures.bytes_behind),
        failing_blocks: Some(figures.blocks_failing),
        diverged: figures.diverged,
        ..RegionLag::default()
    }
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn times_are_printed_in_utc() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_399_000_000), "2000-02-28T23:59:59Z");
        assert_eq!(rfc3339(951_782_400_999_999), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_795_183_351_000_000), "2026-11-20T14:02:31Z");
    }
}
