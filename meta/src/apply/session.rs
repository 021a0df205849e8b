//! Exactly once (law 10). A session's requests are numbered without gaps; each is done once, and its reply is kept in
//! shared state until the session acknowledges it, in a window with a bound. A retried request gets the kept reply.
//!
//! The replies of one entry to one session share a row, keyed by the last of them: it goes when that one is acknowledged.
//! So a create costs a share of two rows, its replies' and its window's, and not two rows of its own.

use super::{Apply, outcome};
use crate::key;
use crate::kv::{Space, StorageError};
use crate::replies::Replies;
use crate::row::{Window, decode, encode, key_number};
use crate::txn::SharedRead;
use farshore_types::{ErrorKind, Outcome, Sequence, SessionId, SessionRequest};

/// Replies kept for one session; at the bound a new request is answered `Busy` and not done.
pub const MAX_UNACKNOWLEDGED: u64 = 1024;
/// Separate ranges of slice ids that one session may hold; at the bound it gets no more before it closes some.
pub const MAX_ISSUED_RANGES: u32 = 4096;

/// One session's part in an entry.
pub(crate) struct Talk {
    window: Window,
    /// Whether an acknowledgement has moved on, so that rows may go.
    acknowledged: bool,
    /// The replies of this entry; the last one is that of `window.high`.
    replies: Replies,
}

impl Apply<'_> {
    /// One request of a batch.
    pub(super) fn request(&mut self, request: &SessionRequest) -> Result<Outcome, StorageError> {
        let mut talk = match self.talks.remove(&request.session) {
            Some(talk) => talk,
            None => match self.txn.row::<Window>(&key::window(request.session))? {
                Some(window) => Talk { window, acknowledged: false, replies: Replies::default() },
                None => return Ok(Err(ErrorKind::SessionLost)),
            },
        };
        let reply = self.say(request, &mut talk);
        self.talks.insert(request.session, talk);
        reply
    }

    fn say(&mut self, request: &SessionRequest, talk: &mut Talk) -> Result<Outcome, StorageError> {
        let window = &mut talk.window;
        if request.sequence <= window.high {
            return self.kept(request, talk);
        }
        if request.sequence.0 != window.high.0 + 1 {
            return Ok(Err(ErrorKind::SequenceGap));
        }
        if request.acknowledged > window.high {
            // It cannot have the answer of what was not done; nothing of such a request is believed.
            return Ok(Err(ErrorKind::InvalidArgument));
        }
        let acknowledged = request.acknowledged.max(window.acknowledged);
        if request.sequence.0 - acknowledged.0 > MAX_UNACKNOWLEDGED {
            return Ok(Err(ErrorKind::Busy));
        }
        self.session = Some(request.session);
        let reply = outcome(self.op(request.session, &request.op, window))?;
        self.session = None;
        let is_final = !reply.as_ref().is_err_and(|kind| kind.is_retryable());
        assert!(is_final, "a kept reply is the answer for ever, so an operation has no failure that passes");
        talk.acknowledged |= acknowledged > window.acknowledged;
        window.acknowledged = acknowledged;
        window.high = request.sequence;
        talk.replies.0.push(reply.clone());
        Ok(reply)
    }

    /// The reply of a request that was done before: by this entry, or by the one whose row holds it.
    fn kept(&self, request: &SessionRequest, talk: &Talk) -> Result<Outcome, StorageError> {
        if request.sequence <= talk.window.acknowledged {
            return Ok(Err(ErrorKind::InvalidArgument));
        }
        let back = (talk.window.high.0 - request.sequence.0) as usize;
        if let Some(reply) = talk.replies.0.iter().rev().nth(back) {
            return Ok(reply.clone());
        }
        let from = key::reply(request.session, request.sequence);
        let row = self.txn.rows(&from, &key::replies(request.session).end())?.next().transpose()?;
        let (key, value) = row.ok_or_else(|| StorageError::damaged(Space::Shared, &from, "law 10: a reply is not kept"))?;
        let Replies(mut replies) = decode(key, value)?;
        let back = (key_number(key, from.len() - 8)? - request.sequence.0) as usize;
        if back >= replies.len() {
            return Err(StorageError::damaged(Space::Shared, key, "law 10: a reply is not kept"));
        }
        Ok(replies.swap_remove(replies.len() - 1 - back))
    }

    /// Writes what the entry's sessions said: their windows and replies, and drops the replies that all were acknowledged.
    pub(super) fn put_talks(&mut self) -> Result<(), StorageError> {
        for (session, talk) in std::mem::take(&mut self.talks) {
            if talk.replies.0.is_empty() {
                continue;
            }
            if talk.acknowledged {
                self.drop_replies(session, talk.window.acknowledged)?;
            }
            self.txn.put(&key::window(session), encode(&talk.window))?;
            self.txn.put_new(&key::reply(session, talk.window.high), encode(&talk.replies))?;
        }
        Ok(())
    }

    fn drop_replies(&mut self, session: SessionId, acknowledged: Sequence) -> Result<(), StorageError> {
        let after = key::reply(session, Sequence(acknowledged.0 + 1));
        for key in self.txn.keys(&key::replies(session), &after)? {
            self.txn.delete(&key)?;
        }
        Ok(())
    }
}
