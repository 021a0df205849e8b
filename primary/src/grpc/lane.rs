//! Small questions to one peer on a stream that stays open: a call of its own for each would cost both sides several times as
//! much. The answers come in the order of the questions.

use crate::raft::{Answers, PeerError};
use futures::StreamExt;
use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

/// Questions that wait for one peer's answer; past it they are refused (law 27).
const WAITING: usize = 64;
/// A lane that broke is opened again after so long: the peer may be of a build that does not know it.
const REST: Duration = Duration::from_secs(1);

type Answer = Result<Vec<u8>, PeerError>;

/// A question, and who waits for the answer.
type Asked = (Vec<u8>, oneshot::Sender<Answer>);

#[derive(Default)]
enum State {
    #[default]
    Closed,
    Open(mpsc::Sender<Asked>),
    Broken(Instant),
}

/// The lane to one peer.
#[derive(Default)]
pub(super) struct Lane(Mutex<State>);

impl Lane {
    /// Asks, and opens the lane with `open` if it is not.
    pub async fn ask<F>(&self, body: Vec<u8>, open: impl FnOnce(ReceiverStream<Vec<u8>>) -> F) -> Answer
    where
        F: Future<Output = Result<Answers, PeerError>> + Send + 'static,
    {
        let (done, answer) = oneshot::channel();
        let queue = self.queue(open).ok_or_else(|| PeerError("the lane broke just now".to_owned()))?;
        queue.try_send((body, done)).map_err(|_| PeerError("too much waits for this peer's answer".to_owned()))?;
        answer.await.map_err(|_| PeerError("the lane broke".to_owned()))?
    }

    fn queue<F>(&self, open: impl FnOnce(ReceiverStream<Vec<u8>>) -> F) -> Option<mpsc::Sender<Asked>>
    where
        F: Future<Output = Result<Answers, PeerError>> + Send + 'static,
    {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            State::Open(queue) if !queue.is_closed() => return Some(queue.clone()),
            State::Open(_) => {
                *state = State::Broken(Instant::now());
                return None;
            }
            State::Broken(since) if since.elapsed() < REST => return None,
            State::Broken(_) | State::Closed => {}
        }
        let (queue, asked) = mpsc::channel(WAITING);
        let (bodies, stream) = mpsc::channel(WAITING);
        tokio::spawn(run(open(ReceiverStream::new(stream)), bodies, asked));
        *state = State::Open(queue.clone());
        Some(queue)
    }
}

/// Until the peer is gone, or who asks.
async fn run(
    opening: impl Future<Output = Result<Answers, PeerError>>,
    bodies: mpsc::Sender<Vec<u8>>,
    mut asked: mpsc::Receiver<Asked>,
) {
    let Ok(mut answers) = opening.await else { return };
    let mut waiting: VecDeque<oneshot::Sender<Answer>> = VecDeque::new();
    loop {
        tokio::select! {
            question = asked.recv(), if waiting.len() < WAITING => {
                let Some((body, done)) = question else { return };
                waiting.push_back(done);
                if bodies.send(body).await.is_err() {
                    return;
                }
            }
            answer = answers.next() => {
                let (Some(Ok(answer)), Some(done)) = (answer, waiting.pop_front()) else { return };
                // Who asked may have had enough answers from others.
                let _ = done.send(Ok(answer));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "these are tests")]

    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A peer that answers each question with itself.
    async fn echo(questions: ReceiverStream<Vec<u8>>) -> Result<Answers, PeerError> {
        Ok(Box::pin(questions.map(Ok)))
    }

    async fn old(_: ReceiverStream<Vec<u8>>) -> Result<Answers, PeerError> {
        Err(PeerError("no such call".to_owned()))
    }

    #[tokio::test]
    async fn each_question_has_its_own_answer_on_one_stream() {
        let (lane, opened) = (Lane::default(), AtomicUsize::new(0));
        let open = |questions| {
            opened.fetch_add(1, Ordering::Relaxed);
            echo(questions)
        };
        let answers = futures::future::join_all((0..WAITING as u8).map(|number| lane.ask(vec![number], open))).await;
        for (number, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer.unwrap(), [number as u8]);
        }
        // Whoever waits no longer takes no answer of another one.
        drop(lane.ask(vec![1], open));
        assert_eq!(lane.ask(vec![2], open).await.unwrap(), [2]);
        assert_eq!(opened.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_peer_that_does_not_know_the_lane_is_left_alone_for_a_while() {
        let lane = Lane::default();
        assert!(lane.ask(vec![1], old).await.unwrap_err().0.contains("broke"));
        for _ in 0..3 {
            assert!(lane.ask(vec![1], echo).await.is_err(), "it rests");
        }
        tokio::time::sleep(REST).await;
        assert_eq!(lane.ask(vec![1], echo).await.unwrap(), [1]);
    }

    #[tokio::test]
    async fn a_peer_that_stands_still_makes_no_queue() {
        let lane = Arc::new(Lane::default());
        let silent = |questions: ReceiverStream<Vec<u8>>| async move {
            Ok::<Answers, _>(Box::pin(questions.filter_map(|_| std::future::pending())))
        };
        let mut refused = 0;
        for number in 0..4 * WAITING {
            let answer = tokio::time::timeout(Duration::from_millis(1), lane.ask(vec![number as u8], silent)).await;
            refused += usize::from(answer.is_ok_and(|answer| answer.is_err()));
        }
        assert!(refused >= WAITING, "{refused}");
    }
}
