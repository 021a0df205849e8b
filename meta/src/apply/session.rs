//! Exactly once (law 10). A session's requests are numbered without gaps; each is done once, and its reply is kept in
//! shared state until the session acknowledges it, in a window with a bound. A retried request gets the kept reply.

use super::{Apply, outcome};
use crate::key;
use crate::kv::StorageError;
use crate::row::{Window, encode};
use crate::txn::SharedRead;
use farshore_types::{ErrorKind, Outcome, Sequence, SessionRequest};

/// Replies kept for one session; at the bound a new request is answered `Busy` and not done.
pub const MAX_UNACKNOWLEDGED: u64 = 1024;
/// Separate ranges of slice ids that one session may hold; at the bound it gets no more before it closes some.
pub const MAX_ISSUED_RANGES: u32 = 4096;

impl Apply<'_> {
    /// One request of a batch.
    pub(super) fn request(&mut self, request: &SessionRequest) -> Result<Outcome, StorageError> {
        let key = key::window(request.session);
        let Some(mut window) = self.txn.row::<Window>(&key)? else {
            return Ok(Err(ErrorKind::SessionLost));
        };
        if request.sequence <= window.high {
            return self.kept(request, &window);
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
        let reply = outcome(self.op(request.session, &request.op, &mut window))?;
        self.session = None;
        let is_final = !reply.as_ref().is_err_and(|kind| kind.is_retryable());
        assert!(is_final, "a kept reply is the answer for ever, so an operation has no failure that passes");
        for dropped in window.acknowledged.0 + 1..=acknowledged.0 {
            self.txn.delete(&key::reply(request.session, Sequence(dropped)))?;
        }
        window.acknowledged = acknowledged;
        window.high = request.sequence;
        self.txn.put(&key, &encode(&window))?;
        self.txn.put(&key::reply(request.session, request.sequence), &encode(&reply))?;
        Ok(reply)
    }

    /// The reply of a request that was done before.
    fn kept(&self, request: &SessionRequest, window: &Window) -> Result<Outcome, StorageError> {
        let kept = self.txn.row::<Outcome>(&key::reply(request.session, request.sequence))?;
        assert_eq!(kept.is_some(), request.sequence > window.acknowledged, "law 10: exactly the unacknowledged replies are kept");
        Ok(kept.unwrap_or(Err(ErrorKind::InvalidArgument)))
    }
}
