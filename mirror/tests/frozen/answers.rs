//! A node of today among peers, clients, mirrors and tools of version 1: it understands what they say, and answers.

use crate::messages::{self, SESSION};
use crate::node::{self, TestNode, until};
use crate::{frozen, frozen_json};
use farshore_primary::ConfirmAsk;
use farshore_primary::raft::PeerCall;
use farshore_primary::raft::types::{LeaderId, Types};
use farshore_types::{ClusterId, LogIndex, Outcome, QueryReply};
use farshore_wire::admin::{AdminAnswer, AdminCall};
use farshore_wire::v1::{self, changelog_frame, server_frame};
use openraft::TokioRuntime;
use openraft::raft::{AppendEntriesResponse, VoteResponse};
use prost::Message;
use std::sync::Arc;
use tokio::sync::mpsc;

type Raft = Types<TokioRuntime>;

async fn peer(node: &TestNode, call: PeerCall, name: &str) -> Vec<u8> {
    node.handle_peer(call, &frozen("raft.txt", name)).await.unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_takes_the_entries_of_an_older_leader_and_votes_for_it() {
    let node = node::start().await;
    let answer: AppendEntriesResponse<Raft> = postcard::from_bytes(&peer(&node, PeerCall::Append, "append").await).unwrap();
    assert!(answer.is_success(), "{answer:?}");
    until("the entries to be applied", || node.header().unwrap().index == LogIndex(messages::history().len() as u64)).await;
    let members = node.members();
    assert_eq!(members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>(), ["us-a", "us-b"]);
    let knows_no_higher: bool = postcard::from_bytes(&peer(&node, PeerCall::Confirm, "confirm").await).unwrap();
    assert!(knows_no_higher);
    // The leader of an earlier term is none any more.
    let earlier = postcard::to_stdvec(&ConfirmAsk { leader: LeaderId { term: 0, node_id: 9 } }).unwrap();
    let answer = node.handle_peer(PeerCall::Confirm, &earlier).await.unwrap();
    assert_eq!(postcard::from_bytes(&answer), Ok(false));
    let said = v1::Standing::decode(&peer(&node, PeerCall::Standing, "standing_ask").await[..]).unwrap();
    assert_eq!(said.member(), v1::standing::Member::Member);
    let held = v1::Entries::decode(&peer(&node, PeerCall::Entries, "entries_ask").await[..]).unwrap();
    assert_eq!(held.entries.iter().map(|entry| entry.index).collect::<Vec<_>>(), [3, 4]);
    let _: VoteResponse<Raft> = postcard::from_bytes(&peer(&node, PeerCall::PreVote, "vote").await).unwrap();
    let _: VoteResponse<Raft> = postcard::from_bytes(&peer(&node, PeerCall::Vote, "vote").await).unwrap();
    peer(&node, PeerCall::TransferLeader, "transfer_leader").await;
    node.shutdown().await;
}

/// A cluster of one node that leads, by the calls of an older tool.
async fn leader() -> Arc<TestNode> {
    let node = node::start().await;
    assert_eq!(call(&node, "initialize").await, AdminAnswer::Done);
    until("the only node to lead", || node.is_leader()).await;
    assert_eq!(call(&node, "format").await, AdminAnswer::Done);
    node
}

async fn call(node: &Arc<TestNode>, name: &str) -> AdminAnswer {
    let call: AdminCall = serde_json::from_str(&frozen_json(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    node.admin(call).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_serves_a_client_of_version_1() {
    let node = leader().await;
    let (frames, input) = mpsc::channel(16);
    let (output, mut answers) = mpsc::channel(16);
    for name in ["hello", "requests", "queries", "renew", "capacity", "completions", "front"] {
        let frame = v1::ClientFrame::decode(&frozen("client.txt", name)[..]).unwrap();
        frames.send(frame).await.unwrap();
    }
    let serving = tokio::spawn({
        let node = node.clone();
        async move { node.serve_session(input, output).await }
    });
    let (mut welcomed, mut made, mut found) = (false, false, false);
    while !(welcomed && made && found) {
        match answers.recv().await.and_then(|frame: v1::ServerFrame| frame.frame) {
            Some(server_frame::Frame::Welcome(welcome)) => welcomed = welcome.protocol == 1,
            Some(server_frame::Frame::Replies(replies)) => {
                let outcome: Outcome = farshore_wire::decode(&replies.replies[0].outcome).unwrap();
                made = outcome.is_ok();
            }
            Some(server_frame::Frame::Answers(answers)) => {
                // It may have been asked before the file was made; being answered is what counts.
                let _: Result<QueryReply, farshore_types::ErrorKind> = farshore_wire::decode(&answers.answers[0].result).unwrap();
                found = true;
            }
            Some(server_frame::Frame::Refused(refused)) => panic!("{refused:?}"),
            Some(_) => {}
            None => panic!("the stream ended"),
        }
    }
    assert!(node.hub.last_heard(SESSION).is_some());
    frames.send(v1::ClientFrame::decode(&frozen("client.txt", "goodbye")[..]).unwrap()).await.unwrap();
    serving.await.unwrap();
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_feeds_a_mirror_of_version_1() {
    let node = leader().await;
    let (frames, input) = mpsc::channel(16);
    let (output, mut fed) = mpsc::channel(16);
    frames.send(v1::TailFrame::decode(&frozen("changelog.txt", "tail_start")[..]).unwrap()).await.unwrap();
    tokio::spawn({
        let node = node.clone();
        async move { node.serve_tail(input, output).await }
    });
    let mut entries = 0;
    while entries < 2 {
        match fed.recv().await.and_then(|frame: v1::ChangelogFrame| frame.frame) {
            Some(changelog_frame::Frame::Batch(batch)) => {
                assert_eq!(batch.chain.len(), 32, "it did not say that it takes others");
                entries += batch.entries.len();
            }
            Some(changelog_frame::Frame::Beat(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    frames.send(v1::TailFrame::decode(&frozen("changelog.txt", "acknowledge")[..]).unwrap()).await.unwrap();
    let heard =
        || node.observations.mirrors().get(&ClusterId(1)).is_some_and(|seen| seen.applied == LogIndex(2) && seen.machine == 2);
    until("the acknowledgement to be heard", heard).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_answers_the_tools_of_version_1() {
    let node = leader().await;
    let calls = messages::admin().into_iter().map(|(name, _)| name).filter(|name| !name.starts_with("answer_"));
    for name in calls {
        match (name, call(&node, name).await) {
            // There is nobody to add, remove or hand over to.
            ("member_add" | "member_change" | "step_down", AdminAnswer::Failed { .. }) => {}
            (_, AdminAnswer::Failed { message }) => panic!("{name}: {message}"),
            (_, AdminAnswer::NotLeader { .. } | AdminAnswer::NotYet { .. }) => panic!("{name} was not answered"),
            _ => {}
        }
    }
    for name in ["answer_done", "answer_not_leader", "answer_not_yet", "answer_failed"] {
        serde_json::from_str::<AdminAnswer>(&frozen_json(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    node.shutdown().await;
}

#[test]
fn what_servers_said_is_understood() {
    for (name, _) in messages::server() {
        assert!(v1::ServerFrame::decode(&frozen("server.txt", name)[..]).unwrap().frame.is_some(), "{name}");
    }
    for name in ["batch", "beat", "refused"] {
        assert!(v1::ChangelogFrame::decode(&frozen("changelog.txt", name)[..]).unwrap().frame.is_some(), "{name}");
    }
    let chunk = v1::SnapshotChunk::decode(&frozen("raft.txt", "snapshot_chunk")[..]).unwrap();
    assert_eq!(chunk.target, 1);
    v1::RaftRequest::decode(&frozen("raft.txt", "request")[..]).unwrap();
}
