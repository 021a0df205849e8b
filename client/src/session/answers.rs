//! What arrives on a session's stream, and what each answer means for the request, the session and the connection.

use super::driver::{Driver, End};
use super::{Done, OpError};
use crate::invalidation::Invalidation;
use farshore_types::{ErrorKind, Ino, LogIndex, Outcome, QueryReply, Reply};
use farshore_wire::decode;
use farshore_wire::v1::{self, server_frame::Frame as Recv};

impl Driver {
    pub(super) fn received(&mut self, message: v1::ServerFrame) -> Option<End> {
        match message.frame? {
            Recv::Replies(replies) => replies.replies.into_iter().find_map(|reply| self.replied(reply)),
            Recv::Answers(answers) => answers.answers.into_iter().find_map(|answer| self.answered(answer)),
            Recv::Invalidations(invalidations) => {
                self.invalidate(invalidations);
                None
            }
            Recv::Refused(refused) => Some(match refused.kind() {
                v1::refused::Kind::SessionLost | v1::refused::Kind::Stale => End::SessionLost(refused.text),
                _ => End::Moved(Some(refused.leader).filter(|leader| !leader.is_empty())),
            }),
            Recv::Nodes(nodes) => {
                self.finder.learn(&nodes.addresses);
                self.shared.learn_machine(nodes.machine);
                None
            }
            // Leases are a worker's, which has a stream of its own; a second welcome says nothing new.
            Recv::Welcome(_) | Recv::Leases(_) | Recv::Revoked(_) => None,
        }
    }

    fn replied(&mut self, reply: v1::Reply) -> Option<End> {
        let outcome: Outcome = match decode(&reply.outcome) {
            Ok(outcome) => outcome,
            Err(error) => return Some(End::Broken(error.to_string())),
        };
        if let Err(kind) = outcome
            && let Some(end) = self.not_now(kind)
        {
            return end;
        }
        self.saw(reply.log_index);
        self.resends = 0;
        let waiter = self.window.answer(reply.sequence)?;
        let opened = match &outcome {
            Ok(Reply::Attr(attr)) if reply.opened && waiter.open => self.opened(reply.sequence, attr.ino),
            _ => None,
        };
        let index = LogIndex(reply.log_index);
        let unheard = waiter.answer.send(outcome.map(|reply| Done { reply, index, opened }).map_err(OpError::Refused));
        if let Err(Ok(Done { reply: Reply::Attr(attr), opened: Some(generation), .. })) = unheard {
            self.shared.end_open(attr.ino, generation);
        }
        None
    }

    fn answered(&mut self, answer: v1::Answer) -> Option<End> {
        let result: Result<QueryReply, ErrorKind> = match decode(&answer.result) {
            Ok(result) => result,
            Err(error) => return Some(End::Broken(error.to_string())),
        };
        if let Err(kind) = result
            && let Some(end) = self.not_now(kind)
        {
            return end;
        }
        self.saw(answer.log_index);
        if let Some(waiter) = self.asked.remove(&answer.id) {
            let _ = waiter.answer.send(result.map(|reply| (reply, LogIndex(answer.log_index))).map_err(OpError::Refused));
        }
        None
    }

    /// Answers that say nothing about the request but when or where to send it again. `Some(None)`: stay connected.
    fn not_now(&mut self, kind: ErrorKind) -> Option<Option<End>> {
        match kind {
            ErrorKind::NotLeader | ErrorKind::Fenced => Some(Some(End::Moved(None))),
            ErrorKind::SessionLost => Some(Some(End::SessionLost("the cluster does not know the session".to_owned()))),
            kind if kind.is_retryable() => {
                self.resend_later();
                Some(None)
            }
            _ => None,
        }
    }

    fn invalidate(&mut self, message: v1::Invalidations) {
        self.saw(message.log_index);
        if message.reset {
            return self.observer.reset();
        }
        let inodes = message.inodes.into_iter().map(|ino| Invalidation::Inode(Ino(ino)));
        let entries =
            message.entries.into_iter().map(|entry| Invalidation::Entry { parent: Ino(entry.parent), name: entry.name.to_vec() });
        self.observer.invalidated(inodes.chain(entries).collect());
    }
}
