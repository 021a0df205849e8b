//! What a node says of itself on its `/metrics`, by the names of the operators' page. A figure that is not known is an
//! absent series, never 0 (law 28).

use crate::node::Node;
use farshore_meta::kv::Store;
use farshore_types::ClusterId;
use metrics::{counter, gauge, histogram};
use openraft::AsyncRuntime;
use std::time::Duration;

/// The parts whose life is shown by a heartbeat.
#[derive(Clone, Copy, Debug)]
pub enum Component {
    Duties,
    Dispatcher,
    Tailer,
    FullSync,
}

impl Component {
    fn label(self) -> &'static str {
        match self {
            Component::Duties => "duties",
            Component::Dispatcher => "dispatcher",
            Component::Tailer => "tailer",
            Component::FullSync => "fullsync",
        }
    }
}

/// Appended entries became durable after so long.
pub fn flushed(after: Duration) {
    histogram!("farshore_log_fsync_duration_seconds").record(after.as_secs_f64());
}

/// A batch of requests was committed and applied after so long.
pub fn committed(after: Duration) {
    histogram!("farshore_raft_commit_duration_seconds").record(after.as_secs_f64());
}

/// This node began to lead.
pub fn began_to_lead() {
    counter!("farshore_raft_leader_changes_total").increment(1);
}

impl<R: AsyncRuntime, S: Store> Node<R, S> {
    /// The part is alive.
    pub fn alive(&self, component: Component) {
        let labels = [("component", component.label().to_owned()), ("node", self.config.name.clone())];
        gauge!("farshore_component_heartbeat_timestamp_seconds", &labels).set(self.host.wall_us() as f64 / 1e6);
    }

    /// Batches of entries with so many encoded bytes went to a mirror; what the transport adds is not in it.
    pub fn tell_changelog_sent(&self, to: ClusterId, bytes: u64) {
        let to = self.config.regions.get(&to).cloned().unwrap_or_else(|| to.to_string());
        counter!("farshore_changelog_sent_bytes_total", "node" => self.config.name.clone(), "to" => to).increment(bytes);
    }

    /// Figures of this node's disk and role.
    pub fn tell_metrics(&self) {
        let labels = [("node", self.config.name.clone()), ("region", self.config.region.clone())];
        gauge!("farshore_log_retained_bytes", &labels).set(self.log.retained_bytes() as f64);
        if let Ok(header) = self.header() {
            gauge!("farshore_log_applied_index", &labels).set(header.index.0 as f64);
            gauge!("farshore_volume_epoch", &labels).set(header.lineage.head_id().number as f64);
            gauge!("farshore_volume_fenced", &labels).set(f64::from(u8::from(header.frozen)));
        }
        gauge!("farshore_node_has_vote", &labels).set(f64::from(u8::from(self.trouble().is_none())));
        gauge!("farshore_node_leads", &labels).set(f64::from(u8::from(self.is_leader())));
        let mut sessions = 0u32;
        self.hub.each(|_, _| sessions += 1);
        gauge!("farshore_sessions", &labels).set(f64::from(sessions));
    }
}
