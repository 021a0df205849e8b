//! Calls to the nodes of a cluster, as the command line and the console make them.
//!
//! Every call has a deadline, and an address that does not answer is an answer too: who waits, measures (law 6), and a
//! timeout is unknown, never failed. Nothing is retried here but the way to the leader, at most [`HOPS_MAX`] times.

use crate::admin::{AdminAnswer, AdminCall, Health};
use crate::{MAX_MESSAGE_BYTES, header, v1};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// How often a call follows `NotLeader` before it gives up.
pub const HOPS_MAX: usize = 3;
/// Channels kept at most; above it all are dropped and made anew. A world has at most 16 clusters of 7 nodes.
const CHANNELS_MAX: usize = 128;

/// A call without the wished answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// Nobody listens there, or not in time. Whether the call took effect is unknown.
    #[error("{address} does not answer: {detail}")]
    Unreachable { address: String, detail: String },
    #[error("{address} is not the leader")]
    NotLeader { address: String, leader: Option<String> },
    /// No node of the cluster says that it leads.
    #[error("none of {asked} leads the cluster: {detail}")]
    NoLeader { asked: String, detail: String },
    /// The leader is at it, or waits for something.
    #[error("{message}")]
    NotYet { address: String, message: String },
    /// The node did not do it; its sentence.
    #[error("{message}")]
    Failed { address: String, message: String },
    #[error("{address} answers in a way that this version does not understand: {detail}; are both of one version?")]
    Malformed { address: String, detail: String },
}

impl AdminError {
    /// Whether the same call may succeed later, unchanged.
    pub fn is_transient(&self) -> bool {
        use AdminError::{NoLeader, NotLeader, NotYet, Unreachable};
        matches!(self, Unreachable { .. } | NotLeader { .. } | NoLeader { .. } | NotYet { .. })
    }
}

/// Calls nodes on behalf of one volume.
#[derive(Debug)]
pub struct AdminClient {
    volume: String,
    deadline: Duration,
    channels: Mutex<BTreeMap<String, Channel>>,
}

impl AdminClient {
    /// `deadline` bounds each call to one node.
    pub fn new(volume: impl Into<String>, deadline: Duration) -> AdminClient {
        AdminClient { volume: volume.into(), deadline, channels: Mutex::new(BTreeMap::new()) }
    }

    /// One call to one node.
    pub async fn call(&self, address: &str, call: &AdminCall) -> Result<AdminAnswer, AdminError> {
        let unreachable = |detail: String| AdminError::Unreachable { address: address.to_owned(), detail };
        let malformed = |detail: String| AdminError::Malformed { address: address.to_owned(), detail };
        let channel = self.channel(address)?;
        let body = serde_json::to_vec(call).map_err(|error| malformed(error.to_string()))?;
        let request = v1::AdminRequest { header: Some(header(&self.volume, 0)), call: body.into() };
        let mut client = v1::admin_client::AdminClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let reply = match tokio::time::timeout(self.deadline, client.call(request)).await {
            Err(_) => return Err(unreachable(format!("no answer within {:?}", self.deadline))),
            Ok(Ok(reply)) => reply.into_inner(),
            Ok(Err(status)) if is_refusal(&status) => {
                return Err(AdminError::Failed { address: address.to_owned(), message: status.message().to_owned() });
            }
            Ok(Err(status)) => return Err(unreachable(text_of(&status))),
        };
        match serde_json::from_slice(&reply.answer).map_err(|error| malformed(error.to_string()))? {
            AdminAnswer::Failed { message } => Err(AdminError::Failed { address: address.to_owned(), message }),
            AdminAnswer::NotYet { message } => Err(AdminError::NotYet { address: address.to_owned(), message }),
            AdminAnswer::NotLeader { leader } => Err(AdminError::NotLeader { address: address.to_owned(), leader }),
            answer => Ok(answer),
        }
    }

    /// How a node is.
    pub async fn health(&self, address: &str) -> Result<Health, AdminError> {
        match self.call(address, &AdminCall::Health).await? {
            AdminAnswer::Health(health) => Ok(health),
            other => Err(unexpected(address, &other)),
        }
    }

    /// How all nodes are, asked at once; one answer for each address, in order.
    pub async fn health_of_all(&self, addresses: &[String]) -> Vec<Result<Health, AdminError>> {
        futures::future::join_all(addresses.iter().map(|address| self.health(address))).await
    }

    /// One call to the leader of the cluster that consists of `addresses`; answers who that was.
    pub async fn call_leader(&self, addresses: &[String], call: &AdminCall) -> Result<(String, AdminAnswer), AdminError> {
        let health = self.health_of_all(addresses).await;
        let mut address = leader_among(addresses, &health).ok_or_else(|| no_leader(addresses, &health))?;
        for _ in 0..HOPS_MAX {
            match self.call(&address, call).await {
                Ok(answer) => return Ok((address, answer)),
                Err(AdminError::NotLeader { leader: Some(leader), .. }) if leader != address => address = leader,
                Err(error) => return Err(error),
            }
        }
        Err(AdminError::NoLeader { asked: addresses.join(", "), detail: "each names another one".to_owned() })
    }

    fn channel(&self, address: &str) -> Result<Channel, AdminError> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        if channels.len() >= CHANNELS_MAX {
            channels.clear();
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| AdminError::Unreachable {
            address: address.to_owned(),
            detail: format!("it is no address: {error}"),
        })?;
        let channel = endpoint.connect_timeout(self.deadline).connect_lazy();
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}

/// Answers of the node itself, as opposed to what the transport says in its place.
fn is_refusal(status: &tonic::Status) -> bool {
    use tonic::Code;
    matches!(status.code(), Code::FailedPrecondition | Code::InvalidArgument | Code::PermissionDenied | Code::Unimplemented)
}

/// The transport's innermost reason: "connection refused" says more than "transport error".
fn text_of(status: &tonic::Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(inner) = source {
        text = inner.to_string();
        source = inner.source();
    }
    text
}

/// The sentence for an answer of another kind than the call asks for.
pub fn unexpected(address: &str, answer: &AdminAnswer) -> AdminError {
    let kind = format!("{answer:?}");
    let kind = kind.split(['(', ' ', '{']).next().unwrap_or_default();
    AdminError::Malformed { address: address.to_owned(), detail: format!("unexpected answer {kind}") }
}

/// The leader by its own word, or else by the word of most others.
fn leader_among(addresses: &[String], health: &[Result<Health, AdminError>]) -> Option<String> {
    assert_eq!(addresses.len(), health.len(), "one answer for each address");
    let alive = || addresses.iter().zip(health).filter_map(|(address, health)| health.as_ref().ok().map(|h| (address, h)));
    // After an election a deposed leader may believe for a moment; the one that has applied more is the newer.
    if let Some((address, _)) = alive().filter(|(_, h)| h.is_leader).max_by_key(|(_, h)| (h.ready, h.applied)) {
        return Some(address.clone());
    }
    let named: Vec<&String> = alive().filter_map(|(_, h)| h.leader_address.as_ref()).collect();
    named.iter().max_by_key(|name| named.iter().filter(|other| other == name).count()).map(|name| (*name).clone())
}

fn no_leader(addresses: &[String], health: &[Result<Health, AdminError>]) -> AdminError {
    let alive = health.iter().filter(|health| health.is_ok()).count();
    let detail = match health.iter().find_map(|health| health.as_ref().err()) {
        Some(error) if alive == 0 => error.to_string(),
        _ => format!("{alive} of {} nodes answer and know no leader", addresses.len()),
    };
    AdminError::NoLeader { asked: addresses.join(", "), detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(is_leader: bool, applied: u64, names: Option<&str>) -> Result<Health, AdminError> {
        Ok(Health { is_leader, applied, leader_address: names.map(str::to_owned), ..Health::default() })
    }

    fn down() -> Result<Health, AdminError> {
        Err(AdminError::Unreachable { address: "c".into(), detail: "refused".into() })
    }

    #[test]
    fn the_leader_is_who_says_so_and_else_whom_most_name() {
        let addresses = ["a", "b", "c"].map(str::to_owned);
        let own_word = [health(false, 5, Some("c")), health(true, 5, None), down()];
        assert_eq!(leader_among(&addresses, &own_word).as_deref(), Some("b"));
        let two = [health(true, 5, None), health(true, 9, None), down()];
        assert_eq!(leader_among(&addresses, &two).as_deref(), Some("b"));
        let named = [health(false, 5, Some("c")), health(false, 5, Some("c")), health(false, 5, Some("a"))];
        assert_eq!(leader_among(&addresses, &named).as_deref(), Some("c"));
        assert_eq!(leader_among(&addresses, &[down(), down(), down()]), None);
        assert!(no_leader(&addresses, &[down(), down(), down()]).to_string().contains("refused"));
        assert!(no_leader(&addresses, &[health(false, 0, None), down(), down()]).to_string().contains("1 of 3"));
    }

    #[tokio::test]
    async fn a_port_without_listener_is_unreachable_in_time() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let client = AdminClient::new("demo", Duration::from_secs(5));
        let error = client.health(&free).await.unwrap_err();
        assert!(matches!(error, AdminError::Unreachable { .. }), "{error}");
        assert!(error.is_transient() && error.to_string().contains(&free));
        let error = client.call_leader(&[free], &AdminCall::Lag).await.unwrap_err();
        assert!(matches!(error, AdminError::NoLeader { .. }), "{error}");
    }
}
