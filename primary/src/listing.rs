//! The full sync of this region's bucket, as its leader drives it: a leased listing goes through the pure comparer of
//! `farshore-syncer`, findings become local entries, and what is missing is leased as repair (laws 15, 17, 18).

use crate::node::{Node, ProposeError};
use crate::proposal::Proposal;
use crate::raft::types::Response;
use farshore_meta::kv::{KvRead, StorageError, Store};
use farshore_syncer::fullsync::{self, CompareError, Comparer, Finding, FindingKind, GROUP_FINDINGS_MAX, Report};
use farshore_syncer::{LocalOp, Reason};
use farshore_types::{ControlTime, LogIndex, SessionId, TaskId};
use farshore_wire::admin::AdminAnswer;
use farshore_wire::v1;
use farshore_wire::view::FullSyncView;
use openraft::AsyncRuntime;
use std::sync::Arc;

/// Directories without any object that one round looks through.
const SWEEP: usize = 256;
/// Findings shown to people.
const SHOWN: usize = 1000;

/// A run that this leader drives.
struct Active {
    run: u64,
    comparer: Comparer,
    /// The lease whose pages are taken.
    task: Option<TaskId>,
    /// From where a listing was asked for: run and name.
    wanted: Option<(u64, Option<String>)>,
    ended: bool,
    /// Findings of a run that only reports.
    dry: Option<Report>,
    found: Vec<String>,
}

/// The full sync in a leader's memory; a new leader begins the run again.
#[derive(Default)]
pub(crate) struct Listings {
    active: Option<Active>,
    last_dry: Option<(Report, Vec<String>)>,
}

fn begin(run: u64, at: LogIndex, block_size: u32, dry: bool) -> Active {
    let dry = dry.then(|| Report { run, begin: at, ..Report::default() });
    Active { run, comparer: Comparer::new(at, block_size), task: None, wanted: None, ended: false, dry, found: vec![] }
}

fn describe(finding: &Finding) -> (FindingKind, String) {
    match finding {
        Finding::Missing(block) => (FindingKind::Missing, format!("missing {block}")),
        Finding::WrongSize { block, found } => (FindingKind::WrongSize, format!("wrong-size {block} ({found} bytes)")),
        Finding::Unknown { block, .. } => (FindingKind::Unknown, format!("unknown {block}")),
        Finding::Foreign { name, .. } => (FindingKind::Foreign, format!("foreign {name}")),
    }
}

impl<R: AsyncRuntime, S: Store> Node<R, S> {
    /// One round: starts what is due, keeps the listing leased, sweeps, and ends.
    pub(crate) async fn drive_full_sync(self: &Arc<Self>) -> Result<(), ProposeError> {
        let unknown = |error: StorageError| ProposeError::Unknown(error.to_string());
        let (state, due, applied) = {
            let kv = self.read().map_err(unknown)?;
            let control = farshore_syncer::control_time(&*kv).map_err(unknown)?;
            let state = fullsync::fullsync(&*kv).map_err(unknown)?;
            let due = fullsync::is_due(&*kv, control).map_err(unknown)?;
            (state, due, farshore_meta::header(&*kv).map_err(unknown)?.index)
        };
        let interval = ControlTime(self.config.full_sync_every_us);
        if state.interval != interval || state.next.is_none() {
            self.propose(&Proposal::Local(LocalOp::FullSyncSchedule { interval })).await?;
            return Ok(());
        }
        if let Some(report) = &state.running {
            if !self.is_driving(report.run) {
                // A leader that died on the way took the comparison with it: the run proves nothing, and is due again.
                let op = LocalOp::FullSyncFinish { run: report.run, listed: 0, partial: true };
                self.propose(&Proposal::Local(op)).await?;
                self.begin_run(applied).await?;
                return Ok(());
            }
        } else if due && !self.is_driving_any() && applied > LogIndex(0) {
            self.begin_run(applied).await?;
        }
        self.keep_listing();
        self.sweep().await
    }

    fn is_driving(&self, run: u64) -> bool {
        self.dispatch.inner().listings.active.as_ref().is_some_and(|active| active.run == run)
    }

    fn is_driving_any(&self) -> bool {
        self.dispatch.inner().listings.active.is_some()
    }

    fn block_size(&self) -> Result<u32, ProposeError> {
        let unknown = |error: StorageError| ProposeError::Unknown(error.to_string());
        let home = farshore_syncer::home(&*self.read().map_err(unknown)?).map_err(unknown)?;
        home.map(|home| home.block_size).ok_or_else(|| ProposeError::Unknown("the cluster has no volume yet".to_owned()))
    }

    async fn begin_run(self: &Arc<Self>, at: LogIndex) -> Result<(), ProposeError> {
        let block_size = self.block_size()?;
        let response = self.propose(&Proposal::Local(LocalOp::FullSyncStart { begin: at })).await?;
        if let Response::Local(answer) = response
            && let Some(run) = answer.run
        {
            self.dispatch.inner().listings.active = Some(begin(run, at, block_size, false));
        }
        Ok(())
    }

    /// Keeps the listing leased from where it stands.
    fn keep_listing(&self) {
        let mut inner = self.dispatch.inner();
        let crate::dispatch::Inner { plan, listings, .. } = &mut *inner;
        let Some(active) = &mut listings.active else { return };
        let held = active.task.is_some_and(|task| plan.holder(task).is_some());
        if active.ended || held {
            return;
        }
        active.task = None;
        // Asked for once: the plan leases it again by itself, and a lease whose first page is on its way must not be
        // taken back, or a listing that takes longer than a round never begins.
        let want = Some((active.run, active.comparer.resume_after().map(str::to_owned)));
        if active.wanted != want {
            active.wanted.clone_from(&want);
            plan.want_listing(want);
        }
    }

    /// A page of a listing.
    pub(crate) async fn listing(self: &Arc<Self>, _worker: SessionId, page: v1::Listing) -> Result<(), StorageError> {
        let Ok(task) = <[u8; 16]>::try_from(&page.task[..]).map(TaskId) else { return Ok(()) };
        let objects: Vec<(String, u64)> = page.objects.into_iter().map(|object| (object.name, object.size)).collect();
        let op = {
            let kv = self.read()?;
            let mut inner = self.dispatch.inner();
            let inner = &mut *inner;
            let Some(active) = inner.listings.active.as_mut() else { return Ok(()) };
            if inner.plan.holder(task).is_none() || active.task.is_some_and(|held| held != task) {
                return Ok(());
            }
            active.task = Some(task);
            if !page.failed.is_empty() {
                tracing::warn!(reason = %page.failed, "a listing of the bucket failed; it goes on with another worker");
                inner.plan.failed(task, Reason::TargetUnreachable, self.host.boot_us());
                active.task = None;
                return Ok(());
            }
            let findings = match active.comparer.page(&*kv, &objects, page.last) {
                Ok(findings) => findings,
                Err(CompareError::Storage(error)) => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "a page of a listing was not taken");
                    inner.plan.failed(task, Reason::Other, self.host.boot_us());
                    active.task = None;
                    return Ok(());
                }
            };
            if page.last {
                active.ended = true;
                inner.plan.done(task);
                inner.plan.want_listing(None);
            }
            active.note(findings)
        };
        if !op.is_empty() {
            // Kept in order with what follows: the session's stream waits for it.
            for op in op {
                if let Err(error) = self.propose(&Proposal::Local(op)).await {
                    tracing::debug!(%error, "findings of a full sync were not kept; the run is lost with its leader");
                }
            }
        }
        Ok(())
    }

    /// After the listing's end: directories without any object, then the report.
    async fn sweep(self: &Arc<Self>) -> Result<(), ProposeError> {
        let unknown = |error: StorageError| ProposeError::Unknown(error.to_string());
        let ops = {
            let kv = self.read().map_err(unknown)?;
            let mut inner = self.dispatch.inner();
            let inner = &mut *inner;
            let Some(active) = inner.listings.active.as_mut().filter(|active| active.ended) else { return Ok(()) };
            match active.comparer.sweep(&*kv, SWEEP).map_err(unknown)? {
                Some(findings) => active.note(findings),
                None => {
                    let (run, listed, partial) = (active.run, active.comparer.listed(), active.comparer.is_partial());
                    let active = inner.listings.active.take().expect("it was there above");
                    inner.plan.damage_listed();
                    match active.dry {
                        Some(mut report) => {
                            report.listed = listed;
                            report.partial = partial;
                            report.finished = Some(farshore_syncer::control_time(&*kv).map_err(unknown)?);
                            inner.listings.last_dry = Some((report, active.found));
                            vec![]
                        }
                        None => vec![LocalOp::FullSyncFinish { run, listed, partial }],
                    }
                }
            }
        };
        for op in ops {
            self.propose(&Proposal::Local(op)).await?;
        }
        Ok(())
    }

    /// Starts a full sync now, unless one runs.
    pub(crate) async fn start_full_sync(self: &Arc<Self>, dry_run: bool) -> Result<AdminAnswer, String> {
        if !self.is_driving_any() {
            let index = self.header().map_err(|error| error.to_string())?.index;
            if dry_run {
                let block_size = self.block_size().map_err(|error| error.to_string())?;
                self.dispatch.inner().listings.active = Some(begin(0, index, block_size, true));
            } else {
                self.begin_run(index).await.map_err(|error| error.to_string())?;
            }
        }
        self.full_sync_view().map(AdminAnswer::FullSync).map_err(|error| error.to_string())
    }

    /// State and last report, for people.
    pub(crate) fn full_sync_view(&self) -> Result<FullSyncView, StorageError> {
        let kv = self.read()?;
        let state = fullsync::fullsync(&*kv)?;
        let now = farshore_syncer::control_time(&*kv)?;
        let mut view = FullSyncView {
            region: self.config.region.clone(),
            runs: state.runs,
            next_in_seconds: state.next.map(|next| next.0.saturating_sub(now.0) / 1_000_000),
            ..FullSyncView::default()
        };
        let inner = self.dispatch.inner();
        if let Some(active) = &inner.listings.active {
            view.running = true;
            view.listed = active.comparer.listed();
        }
        view.running |= state.running.is_some();
        let dry = inner.listings.last_dry.clone();
        drop(inner);
        // Control time becomes wall time for people: by its age.
        let clock = (self.host.wall_us(), now);
        match (&state.running, &state.last, dry) {
            (Some(report), _, _) => self.report(&*kv, report, clock, &mut view)?,
            (None, last, Some((report, found))) if last.as_ref().is_none_or(|last| last.finished <= report.finished) => {
                fill(&report, clock, &mut view);
                view.findings = found;
            }
            (None, Some(report), _) => self.report(&*kv, report, clock, &mut view)?,
            (None, None, _) => {}
        }
        Ok(view)
    }

    fn report(
        &self,
        kv: &dyn KvRead,
        report: &Report,
        clock: (u64, ControlTime),
        view: &mut FullSyncView,
    ) -> Result<(), StorageError> {
        fill(report, clock, view);
        view.findings = fullsync::findings(kv, report.run)?.iter().map(|finding| describe(finding).1).take(SHOWN).collect();
        let damaged = farshore_syncer::damage_after(kv, None, SHOWN)?;
        view.unrepairable = damaged.iter().filter(|(_, row)| row.reason == Some(Reason::NoSource)).count() as u64;
        view.repaired = (view.missing + view.damaged).saturating_sub(damaged.len() as u64);
        Ok(())
    }
}

fn fill(report: &Report, (wall_us, now): (u64, ControlTime), view: &mut FullSyncView) {
    let count = |kind| report.counts.get(&kind).copied().unwrap_or(0);
    view.listed = view.listed.max(report.listed);
    view.missing = count(FindingKind::Missing);
    view.damaged = count(FindingKind::WrongSize);
    view.unknown = count(FindingKind::Unknown) + count(FindingKind::Foreign);
    view.last_finished_us = report.finished.map(|at| wall_us.saturating_sub(now.0.saturating_sub(at.0)));
}

impl Active {
    /// Findings become entries, or lines of a report.
    fn note(&mut self, findings: Vec<Finding>) -> Vec<LocalOp> {
        if let Some(report) = &mut self.dry {
            for finding in &findings {
                let (kind, line) = describe(finding);
                *report.counts.entry(kind).or_default() += 1;
                if self.found.len() < SHOWN {
                    self.found.push(line);
                }
            }
            return vec![];
        }
        let run = self.run;
        findings.chunks(GROUP_FINDINGS_MAX).map(|part| LocalOp::FullSyncGroup { run, findings: part.to_vec() }).collect()
    }
}
