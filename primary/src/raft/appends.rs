//! Appends to one follower as a stream: the next batch is on its way while the last one syncs there. Answers come in the
//! order of the requests, so that each needs no number.

use super::network::{AppendStreams, Bodies, PeerError, unreachable};
use super::types::{LogId, Types};
use futures::{Stream, StreamExt};
use openraft::AsyncRuntime;
use openraft::OptionalSend;
use openraft::base::BoxStream;
use openraft::errors::RPCError;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, StreamAppendResult};
use std::time::Duration;
use tokio::sync::mpsc;

/// Appends under way to one follower; past it the next waits for an answer (law 27).
pub const UNDER_WAY: usize = 64;
/// A follower that owes an answer for so many times the time of one call is given up, and the stream opened anew.
const STALLED: u32 = 5;

/// What the follower has, append by append.
pub type Appended<'s, R> = BoxStream<'s, Result<StreamAppendResult<Types<R>>, RPCError<Types<R>>>>;

/// From where (exclusive) to where (inclusive) the entries of a request reach.
type Reach = (Option<LogId>, Option<LogId>);

fn reach_of<R: AsyncRuntime>(request: &AppendEntriesRequest<Types<R>>) -> Reach {
    (request.prev_log_id, request.entries.last().map(|last| last.log_id).or(request.prev_log_id))
}

/// Sends what comes out of `input`, and yields the answers. Ends with the first that is no success, or with `input`.
///
/// What only tells the follower that its last entries are committed is not sent and has no answer: the next entries say so
/// too, or the next heartbeat. It would be a second message to each follower, and a second answer, for every entry of a lone
/// caller. openraft takes the answer to a later request for one to all before it.
pub async fn stream<'s, R: AsyncRuntime, S>(
    streams: &'s dyn AppendStreams,
    (target, address): (u64, &'s str),
    input: S,
    ttl: Duration,
) -> Result<Appended<'s, R>, RPCError<Types<R>>>
where
    S: Stream<Item = AppendEntriesRequest<Types<R>>> + OptionalSend + Unpin + 'static,
{
    let (sent, waiting) = mpsc::channel::<Reach>(UNDER_WAY);
    let mut end = None;
    let input = input.filter(move |request| {
        let needed = !request.entries.is_empty() || end != Some(request.prev_log_id);
        end = Some(reach_of(request).1);
        std::future::ready(needed)
    });
    let bodies = input.then(move |request| {
        let sent = sent.clone();
        async move {
            // Nobody waits when the answers were dropped: the stream ends, and what is sent on it matters no more.
            let _ = sent.send(reach_of(&request)).await;
            postcard::to_stdvec(&request).expect("Raft's messages always serialise into memory")
        }
    });
    let silent = || unreachable::<R>(PeerError("no answer in time".to_owned()));
    let bodies: Bodies = Box::pin(bodies);
    let opened = R::timeout(ttl * STALLED, streams.open(target, address, bodies)).await;
    let answers = opened.map_err(|_| silent())?.map_err(unreachable::<R>)?;
    let appended = futures::stream::unfold(Some((waiting, answers)), move |state| async move {
        let (mut waiting, mut answers) = state?;
        let reach = waiting.recv().await?;
        let answer = match R::timeout(ttl * STALLED, answers.next()).await {
            Err(_) => Err(silent()),
            Ok(None) => Err(unreachable::<R>(PeerError("the follower ended the stream".to_owned()))),
            Ok(Some(Err(error))) => Err(unreachable::<R>(error)),
            Ok(Some(Ok(body))) => result_of::<R>(&body, reach),
        };
        let goes_on = matches!(answer, Ok(Ok(_)));
        Some((answer, goes_on.then_some((waiting, answers))))
    });
    Ok(Box::pin(appended))
}

fn result_of<R: AsyncRuntime>(body: &[u8], (before, last): Reach) -> Result<StreamAppendResult<Types<R>>, RPCError<Types<R>>> {
    let undecodable = |error| unreachable::<R>(PeerError(format!("the answer cannot be decoded: {error}")));
    let response: AppendEntriesResponse<Types<R>> = postcard::from_bytes(body).map_err(undecodable)?;
    Ok(response.into_stream_result(before, last))
}
