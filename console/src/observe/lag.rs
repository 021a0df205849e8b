//! One lag view out of what the regions say, and the verdict on it. Pure.

use crate::clock::rfc3339;
use farshore_types::topology::Topology;
use farshore_wire::view::{LagView, RegionLag};
use std::time::Duration;

/// Figures that are older count as not heard: a bound well under the 30 s of law 28, above any poll's jitter.
pub const HEARD_SECONDS_MAX: f64 = 5.0;

/// What one region's leader said, and how long ago.
#[derive(Clone, Debug)]
pub struct LagAnswer {
    pub region: String,
    pub view: LagView,
    pub age: Duration,
}

impl LagAnswer {
    fn fresh(&self) -> bool {
        self.age.as_secs_f64() <= HEARD_SECONDS_MAX
    }

    fn by_primary(&self) -> bool {
        self.view.primary == self.region
    }
}

/// The primary's word where it is heard; else a mirror's, marked stale. Each region's own line wins where it is newer.
pub fn merge_lag(topology: &Topology, volume: &str, answers: &[LagAnswer], now_us: u64) -> LagView {
    let base = answers.iter().max_by(|left, right| {
        let rank = |answer: &LagAnswer| (answer.fresh(), answer.view.epoch, answer.by_primary(), !answer.view.stale);
        rank(left).cmp(&rank(right)).then(right.age.cmp(&left.age))
    });
    let Some(base) = base else {
        let regions = topology.regions().iter().map(|region| empty_line(&region.name)).collect();
        let observed_at = rfc3339(now_us);
        return LagView {
            volume: volume.to_owned(),
            observer: "none".into(),
            observed_at,
            stale: true,
            regions,
            ..LagView::default()
        };
    };
    let stale = base.view.stale || !base.by_primary() || !base.fresh();
    let committed = answers.iter().flat_map(|answer| &answer.view.regions).filter_map(|line| line.committed).max();
    let merged = topology.regions().iter().map(|region| merge_line(&region.name, base, answers, committed));
    // Without the primary's word there may be more that nobody here has heard of.
    let silence = base.view.regions.iter().find(|line| line.region == base.view.primary).and_then(|line| line.age_seconds);
    let regions = merged.map(|line| if stale { unheard(line, silence.unwrap_or(0.0)) } else { line }).collect();
    LagView { stale, regions, ..base.view.clone() }
}

/// The same line when the primary was last heard `silence` seconds ago: its seconds are that at least.
fn unheard(line: RegionLag, silence: f64) -> RegionLag {
    let at_least = |seconds: f64| seconds.max(silence);
    RegionLag {
        at_least: true,
        metadata_seconds_behind: line.metadata_seconds_behind.map(at_least),
        data_seconds_behind: line.data_seconds_behind.map(at_least),
        ..line
    }
}

/// The newest line about a region: by the base, or by the region itself.
fn merge_line(region: &str, base: &LagAnswer, answers: &[LagAnswer], committed: Option<u64>) -> RegionLag {
    let line_of = |answer: &LagAnswer| {
        let line = answer.view.regions.iter().find(|line| line.region == region)?;
        Some(aged(line, answer.age))
    };
    let by_base = line_of(base);
    let by_itself = answers.iter().find(|answer| answer.region == region).and_then(line_of);
    let age = |line: &RegionLag| line.age_seconds.unwrap_or(f64::INFINITY);
    let mut line = match (by_base, by_itself) {
        (Some(base), Some(itself)) if age(&itself) < age(&base) => itself,
        (Some(base), _) => base,
        (None, Some(itself)) => itself,
        (None, None) => return empty_line(region),
    };
    line.committed = line.committed.and(committed);
    if let (Some(committed), Some(applied)) = (line.committed, line.mirror_applied) {
        line.entries_behind = Some(committed.saturating_sub(applied));
    }
    line
}

/// The same line a while later: ages grow, and once it is no longer heard its seconds are a lower bound that grows too.
fn aged(line: &RegionLag, by: Duration) -> RegionLag {
    let by = by.as_secs_f64();
    let mut line = line.clone();
    line.age_seconds = line.age_seconds.map(|age| age + by);
    if by > HEARD_SECONDS_MAX {
        line.at_least = true;
        line.metadata_seconds_behind = line.metadata_seconds_behind.map(|seconds| seconds + by);
        line.data_seconds_behind = line.data_seconds_behind.map(|seconds| seconds + by);
    }
    line
}

fn empty_line(region: &str) -> RegionLag {
    RegionLag { region: region.to_owned(), role: "unknown".into(), ..RegionLag::default() }
}

/// How a region stands against its objectives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Well,
    Late(Late),
    /// Not heard for a while, or never.
    Unknown,
}

/// Why a region is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Late {
    Metadata,
    Data,
    /// Its history is still being copied: nothing is recoverable there yet.
    History,
    /// It says itself that it is no prefix of its primary.
    Diverged,
}

impl Verdict {
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Well => "ok",
            Verdict::Late(Late::History) => "INIT",
            Verdict::Late(Late::Diverged) => "DIVERGED",
            Verdict::Late(_) => "LATE",
            Verdict::Unknown => "UNKNOWN",
        }
    }
}

/// Judges one line against the volume's objectives. A region without objectives is well while it is heard.
pub fn judge(topology: &Topology, view: &LagView, line: &RegionLag) -> Verdict {
    if line.diverged {
        return Verdict::Late(Late::Diverged);
    }
    if !line.age_seconds.is_some_and(|age| age <= HEARD_SECONDS_MAX) {
        return Verdict::Unknown;
    }
    let primary = line.region == view.primary;
    let mirror =
        topology.volume(&view.volume).and_then(|volume| volume.mirrors.iter().find(|mirror| mirror.region == line.region));
    let Some(mirror) = mirror.filter(|_| !primary) else { return Verdict::Well };
    let over = |target: Option<Duration>, seconds: Option<f64>| match (target, seconds) {
        (Some(target), Some(seconds)) => Some(seconds > target.as_secs_f64()),
        (Some(_), None) => None,
        (None, _) => Some(false),
    };
    if over(mirror.rpo_metadata, line.metadata_seconds_behind) == Some(true) {
        return Verdict::Late(Late::Metadata);
    }
    if over(mirror.rpo_data, line.data_seconds_behind) == Some(true) {
        return Verdict::Late(Late::Data);
    }
    if line.recoverable.is_none() {
        return Verdict::Late(Late::History);
    }
    let known = over(mirror.rpo_metadata, line.metadata_seconds_behind).and(over(mirror.rpo_data, line.data_seconds_behind));
    if known.is_some() { Verdict::Well } else { Verdict::Unknown }
}
