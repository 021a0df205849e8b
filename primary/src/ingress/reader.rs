//! Queries: all that wait share one proof of leadership (ReadIndex) and one read transaction. A mirror answers from
//! its own prefix without the proof, since it promises no more than a prefix.

use super::refuse::not_leader;
use crate::node::{Node, ProposeError};
use farshore_meta::kv::{KvRead, StorageError, Store};
use farshore_types::{ErrorKind, Ino, Query, QueryReply, SessionId};
use farshore_wire::v1::{self, server_frame::Frame};
use openraft::AsyncRuntime;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use tokio::sync::mpsc;

/// Queries that share one read transaction, inclusive: bounds its age.
const BATCH: usize = 1024;

/// A query that waits for its answer.
pub struct Asked {
    pub session: SessionId,
    pub id: u64,
    pub query: Query,
    /// An open of what the session did not hold open before.
    pub first: bool,
}

/// Empties the queue until the node is dropped.
pub async fn run<R: AsyncRuntime, S: Store>(node: Weak<Node<R, S>>, mut queue: mpsc::Receiver<Asked>) {
    let mut asked = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut asked, BATCH).await > 0 {
        let Some(node) = node.upgrade() else { return };
        let mut batch = std::mem::take(&mut asked);
        register_opens(&node, &mut batch);
        // A close reads nothing, so it waits for no proof.
        let (closes, batch): (Vec<Asked>, Vec<Asked>) =
            batch.into_iter().partition(|asked| matches!(asked.query, Query::Close { .. }));
        if !answered(&node, closes) {
            return;
        }
        if batch.is_empty() {
            continue;
        }
        if let Err(error) = confirm(&node).await {
            let leader = if let ProposeError::NotLeader { leader } = error { leader } else { None };
            let refusal = not_leader(leader);
            batch.iter().for_each(|asked| node.hub.refuse(asked.session, refusal.clone()));
            continue;
        }
        if !answered(&node, batch) {
            return;
        }
    }
}

/// Answers what there is; `false` when the state cannot be read, upon which the node has stopped.
fn answered<R: AsyncRuntime, S: Store>(node: &Arc<Node<R, S>>, batch: Vec<Asked>) -> bool {
    if batch.is_empty() {
        return true;
    }
    let done = answer_all(node, batch);
    if let Err(error) = &done {
        crate::raft::Observer::stopped(&*node.hub, &error.to_string());
    }
    done.is_ok()
}

async fn confirm<R: AsyncRuntime, S: Store>(node: &Node<R, S>) -> Result<(), ProposeError> {
    if crate::plant::reads_unproven() {
        return Ok(());
    }
    match node.follows() {
        Ok(true) => Ok(()),
        _ => node.prove_lead().await,
    }
}

/// Opens count before the state is read: from then on the purger leaves the inode alone.
fn register_opens<R: AsyncRuntime, S: Store>(node: &Node<R, S>, batch: &mut [Asked]) {
    for asked in batch {
        match asked.query {
            Query::Open { ino } => asked.first = node.hub.open(asked.session, ino),
            Query::Close { ino } => node.hub.close(asked.session, ino),
            _ => {}
        }
    }
}

/// The inode that a question is about.
fn subject(query: &Query) -> Option<Ino> {
    match query {
        Query::Lookup { parent: ino, .. }
        | Query::GetAttr { ino }
        | Query::Open { ino }
        | Query::ReadLink { ino }
        | Query::ReadDir { ino, .. }
        | Query::Slices { ino, .. }
        | Query::Parent { ino }
        | Query::PathOf { ino } => Some(*ino),
        Query::Close { .. } | Query::StatFs => None,
    }
}

/// The inodes whose attributes an answer brings.
fn brought(reply: &QueryReply) -> impl Iterator<Item = Ino> {
    let (attr, entries) = match reply {
        QueryReply::Attr(attr) => (Some(attr.ino), &[][..]),
        QueryReply::Entries { entries, .. } => (None, entries.as_slice()),
        _ => (None, &[][..]),
    };
    attr.into_iter().chain(entries.iter().map(|entry| entry.attr.ino))
}

/// Answers that one client waits for, and the inodes that they bring.
#[derive(Default)]
struct Answered {
    answers: Vec<v1::Answer>,
    inos: Vec<Ino>,
}

fn answer_all<R: AsyncRuntime, S: Store>(node: &Arc<Node<R, S>>, batch: Vec<Asked>) -> Result<(), StorageError> {
    // Before the state is read: what changes behind it is told.
    node.hub.asked(batch.iter().filter_map(|asked| Some((asked.session, subject(&asked.query)?))));
    let kv = node.read()?;
    let index = farshore_meta::header(&*kv)?.index;
    let mut by_session: BTreeMap<SessionId, Answered> = BTreeMap::new();
    for asked in batch {
        let result = answer(node, &*kv, &asked)?;
        let answer = v1::Answer { id: asked.id, log_index: index.0, result: farshore_wire::encode(&result) };
        let of_session = by_session.entry(asked.session).or_default();
        of_session.answers.push(answer);
        of_session.inos.extend(result.iter().flat_map(brought));
    }
    for (session, Answered { answers, inos }) in by_session {
        node.hub.told(session, inos, index);
        node.hub.send(session, Frame::Answers(v1::Answers { answers }));
    }
    Ok(())
}

fn answer<R: AsyncRuntime, S: Store>(
    node: &Node<R, S>,
    kv: &dyn KvRead,
    asked: &Asked,
) -> Result<Result<QueryReply, ErrorKind>, StorageError> {
    let result = farshore_meta::query(kv, &asked.query)?;
    if let Query::Open { ino } = asked.query {
        let refused = match &result {
            // An unlinked inode can be opened again only by who holds it open already: the purger may be at it.
            Ok(QueryReply::Attr(attr)) => attr.nlink == 0 && asked.first,
            _ => true,
        };
        if refused {
            if asked.first {
                node.hub.close(asked.session, ino);
            }
            return Ok(Err(result.err().unwrap_or(ErrorKind::Stale)));
        }
    }
    Ok(result)
}
