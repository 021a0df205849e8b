//! One client's stream: the handshake (laws 9, 10, 12), then its frames until either side ends it.

use super::batcher::Queued;
use super::reader::Asked;
use super::refuse::{not_leader, refused};
use crate::node::{Node, ProposeError};
use crate::raft::types::Response;
use farshore_meta::kv::Store;
use farshore_types::{Control, LogIndex, Query, Sequence, SessionId, SessionInfo, SessionRequest, SharedBody, VolumeRecord};
use farshore_wire::v1::{
    self, ClientFrame, Hello, Refused, ServerFrame, client_frame::Frame as In, hello::Kind, refused::Kind as Why,
    server_frame::Frame as Out,
};
use farshore_wire::{CodecError, check_header, decode, encode};
use openraft::AsyncRuntime;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// A client that does not say hello in this time is let go.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a mirror waits to reach the index that a client has seen elsewhere.
const CATCH_UP: Duration = Duration::from_secs(5);
const CATCH_UP_POLL: Duration = Duration::from_millis(20);

/// A client that was let in.
struct Admitted {
    session: SessionId,
    kind: Kind,
    connection: u64,
    wake: Arc<Notify>,
}

/// Serves the stream.
pub async fn serve<R: AsyncRuntime, S: Store>(
    node: &Arc<Node<R, S>>,
    mut input: mpsc::Receiver<ClientFrame>,
    output: mpsc::Sender<ServerFrame>,
) {
    let hello = match R::timeout(HELLO_TIMEOUT, input.recv()).await {
        Ok(Some(ClientFrame { frame: Some(In::Hello(hello)) })) => hello,
        _ => return refuse(&output, refused(Why::Invalid, "a stream begins with Hello")).await,
    };
    match admit(node, hello, &output).await {
        Ok(client) => converse(node, &client, &mut input).await,
        Err(refusal) => refuse(&output, refusal).await,
    }
}

async fn refuse(output: &mpsc::Sender<ServerFrame>, refusal: Refused) {
    // A client that is gone need not hear it.
    let _ = output.send(ServerFrame { frame: Some(Out::Refused(refusal)) }).await;
}

fn invalid(error: CodecError) -> Refused {
    refused(Why::Invalid, error.to_string())
}

fn unsupported(error: CodecError) -> Refused {
    let kind = if matches!(error, CodecError::Protocol { .. }) { Why::Unsupported } else { Why::Invalid };
    refused(kind, error.to_string())
}

fn storage(error: farshore_meta::kv::StorageError) -> Refused {
    refused(Why::NotReady, error.to_string())
}

async fn admit<R: AsyncRuntime, S: Store>(
    node: &Arc<Node<R, S>>,
    hello: Hello,
    output: &mpsc::Sender<ServerFrame>,
) -> Result<Admitted, Refused> {
    check_header(hello.header.as_ref(), &node.config.volume, 0).map_err(unsupported)?;
    let session = session_id(&hello.session)?;
    let info: SessionInfo = decode(&hello.info).map_err(invalid)?;
    let kind = hello.kind();
    if let Err(error) = node.confirm_lead().await {
        let leader = if let ProposeError::NotLeader { leader } = error { leader } else { None };
        return Err(not_leader(leader));
    }
    let volume = volume_of(node)?;
    check_header(hello.header.as_ref(), &node.config.volume, volume.group.0).map_err(unsupported)?;
    let primary = node.is_primary(&node.header().map_err(storage)?);
    // Before anything is waited for: while the primary elects a leader, a writer that asks everybody must not stay here until this
    // mirror has what it has seen, which needs that leader.
    if kind == Kind::Writer && !primary {
        return Err(refused(Why::ReadOnly, "this cluster is a mirror: it takes no writes; ask the primary"));
    }
    check_history(node, &hello).await?;
    let highest_sequence = match kind {
        Kind::Writer => open_writer(node, session, &hello, &info).await?,
        _ => Sequence(0),
    };
    let region = region_name(&volume, &info, node);
    let (connection, wake) = node.hub.connect(session, kind, info, region, (&hello.open, hello.machine), output.clone());
    let header = node.header().map_err(storage)?;
    let epoch = header.lineage.head_id();
    let welcome = v1::Welcome {
        protocol: farshore_wire::PROTOCOL,
        epoch_number: epoch.number,
        epoch_cluster: u32::from(epoch.cluster.0),
        log_index: header.index.0,
        lease_ms: node.config.session_lease.as_millis() as u32,
        volume: encode(&volume),
        cluster: u32::from(node.config.cluster.0),
        highest_sequence: highest_sequence.0,
        mirror: !primary,
        nodes: node.member_addresses(),
        machine: header.version,
    };
    node.hub.send(session, Out::Welcome(welcome));
    Ok(Admitted { session, kind, connection, wake })
}

fn session_id(bytes: &[u8]) -> Result<SessionId, Refused> {
    let id: [u8; 16] = bytes.try_into().map_err(|_| refused(Why::Invalid, "a session id has 16 bytes"))?;
    Ok(SessionId(id))
}

fn volume_of<R: AsyncRuntime, S: Store>(node: &Node<R, S>) -> Result<VolumeRecord, Refused> {
    let kv = node.read().map_err(storage)?;
    let volume = match farshore_meta::volume(&*kv).map_err(storage)? {
        Some(volume) => Some(volume),
        None => crate::local::home_volume(&*kv).map_err(storage)?,
    };
    volume
        .ok_or_else(|| refused(Why::NotReady, format!("volume `{}` is not formatted yet: run `farshore up`", node.config.volume)))
}

fn region_name<R: AsyncRuntime, S: Store>(volume: &VolumeRecord, info: &SessionInfo, node: &Node<R, S>) -> String {
    let bucket = info.bucket.and_then(|bucket| volume.region_by_id(bucket.region));
    bucket.map_or_else(|| node.config.region.clone(), |region| region.name.clone())
}

/// Law 9: what the client has seen must be part of this history, and this node must have it.
async fn check_history<R: AsyncRuntime, S: Store>(node: &Arc<Node<R, S>>, hello: &Hello) -> Result<(), Refused> {
    if hello.epoch_number == 0 {
        return Ok(());
    }
    let seen = LogIndex(hello.highest_index);
    let stale = || refused(Why::Stale, "the client has seen changes of a history that was left: its session and handles end");
    let header = node.header().map_err(storage)?;
    let at = header
        .lineage
        .0
        .iter()
        .position(|epoch| epoch.id.number == hello.epoch_number && u32::from(epoch.id.cluster.0) == hello.epoch_cluster);
    let Some(at) = at else { return Err(stale()) };
    if header.lineage.0.get(at + 1).is_some_and(|next| seen > next.start) {
        return Err(stale());
    }
    let deadline = node.host.boot_us() + CATCH_UP.as_micros() as u64;
    while node.header().map_err(storage)?.index < seen {
        if node.host.boot_us() > deadline {
            let text = format!("this cluster has not yet reached index {seen}, which the client has seen: try again");
            return Err(refused(Why::NotReady, text));
        }
        R::sleep(CATCH_UP_POLL).await;
    }
    Ok(())
}

/// A writer's session is an entry (law 10); one that comes back must still be there.
async fn open_writer<R: AsyncRuntime, S: Store>(
    node: &Arc<Node<R, S>>,
    session: SessionId,
    hello: &Hello,
    info: &SessionInfo,
) -> Result<Sequence, Refused> {
    let existing = {
        let kv = node.read().map_err(storage)?;
        farshore_meta::sessions(&*kv).map_err(storage)?.into_iter().find(|known| known.id == session)
    };
    if let Some(existing) = existing {
        return Ok(existing.high);
    }
    if hello.resumes {
        return Err(refused(Why::SessionLost, "the session has ended: what was not answered is unknown"));
    }
    let body = SharedBody::Control(Control::OpenSession { session, info: info.clone() });
    match node.propose_shared(body).await {
        Ok(Response::Shared { outcomes, .. }) => match outcomes.first() {
            Some(Ok(_)) => Ok(Sequence(0)),
            Some(Err(error)) => Err(refused(Why::Busy, format!("the session was not opened: {error}"))),
            None => Err(refused(Why::NotReady, "the session's entry was not answered")),
        },
        Ok(other) => Err(refused(Why::NotReady, format!("the session was not opened: {other:?}"))),
        Err(ProposeError::NotLeader { leader }) => Err(not_leader(leader)),
        Err(ProposeError::Unknown(why)) => Err(refused(Why::NotReady, why)),
    }
}

/// What wakes the conversation.
enum Turn {
    Frame(Option<ClientFrame>),
    Touched,
}

async fn converse<R: AsyncRuntime, S: Store>(node: &Arc<Node<R, S>>, client: &Admitted, input: &mut mpsc::Receiver<ClientFrame>) {
    loop {
        let turn = tokio::select! {
            biased;
            frame = input.recv() => Turn::Frame(frame),
            _ = client.wake.notified() => Turn::Touched,
        };
        if !node.hub.is_current(client.session, client.connection) {
            break;
        }
        match turn {
            Turn::Frame(Some(ClientFrame { frame: Some(frame) })) => {
                node.hub.heard(client.session);
                if let Err(refusal) = handle(node, client, frame).await {
                    node.hub.refuse(client.session, refusal);
                    break;
                }
            }
            Turn::Frame(_) => break,
            Turn::Touched => {
                node.hub.send_touches(client.session);
            }
        }
    }
    node.dispatch.forget(client.session);
    node.hub.disconnect(client.session, client.connection);
}

async fn handle<R: AsyncRuntime, S: Store>(node: &Arc<Node<R, S>>, client: &Admitted, frame: In) -> Result<(), Refused> {
    match frame {
        In::Hello(_) => Err(refused(Why::Invalid, "Hello comes once")),
        In::Requests(requests) => queue_requests(node, client, requests).await,
        In::Queries(queries) => queue_queries(node, client, queries).await,
        In::Renew(_) => Ok(()),
        In::Capacity(capacity) => {
            node.dispatch.offer(client.session, capacity.slots);
            node.hub.work.notify_one();
            Ok(())
        }
        In::Completions(completions) => node.complete(client.session, completions.completions).await.map_err(storage),
        In::Front(front) => {
            node.dispatch.front(&front.blocks);
            node.hub.work.notify_one();
            Ok(())
        }
        In::Listing(page) => node.listing(client.session, page).await.map_err(storage),
        In::Goodbye(_) => goodbye(node, client).await,
    }
}

async fn queue_requests<R: AsyncRuntime, S: Store>(
    node: &Arc<Node<R, S>>,
    client: &Admitted,
    requests: v1::Requests,
) -> Result<(), Refused> {
    if client.kind != Kind::Writer {
        return Err(refused(Why::ReadOnly, "this session may not write"));
    }
    for request in requests.requests {
        let queued = Queued {
            bytes: request.op.len(),
            open: request.open,
            request: SessionRequest {
                session: client.session,
                sequence: Sequence(request.sequence),
                acknowledged: Sequence(requests.acknowledged),
                op: decode(&request.op).map_err(invalid)?,
            },
        };
        let sent = node.ingress.requests.send(queued).await;
        sent.map_err(|_| refused(Why::NotReady, "the node is stopping"))?;
    }
    Ok(())
}

async fn queue_queries<R: AsyncRuntime, S: Store>(
    node: &Arc<Node<R, S>>,
    client: &Admitted,
    queries: v1::Queries,
) -> Result<(), Refused> {
    for asked in queries.queries {
        let query: Query = decode(&asked.query).map_err(invalid)?;
        let sent = node.ingress.queries.send(Asked { session: client.session, id: asked.id, query, first: false }).await;
        sent.map_err(|_| refused(Why::NotReady, "the node is stopping"))?;
    }
    Ok(())
}

/// A client that leaves in peace ends its session at once (law 11 is for those that vanish).
async fn goodbye<R: AsyncRuntime, S: Store>(node: &Arc<Node<R, S>>, client: &Admitted) -> Result<(), Refused> {
    if client.kind == Kind::Writer {
        let body = SharedBody::Control(Control::CloseSession { session: client.session });
        if let Err(error) = node.propose_shared(body).await {
            tracing::debug!(%error, "a session that said goodbye will expire instead");
        }
    }
    Err(refused(Why::SessionLost, "goodbye"))
}
