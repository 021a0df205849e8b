//! Which operation goes where.

use super::{Apply, Fail};
use crate::row::Window;
use farshore_types::{ErrorKind, Ino, Op, Reply, SessionId};

impl Apply<'_> {
    pub(super) fn op(&mut self, _session: SessionId, _op: &Op, _window: &mut Window) -> Result<Reply, Fail> {
        Err(ErrorKind::Unsupported.into())
    }

    pub(super) fn purge(&mut self, _ino: Ino) -> Result<(), Fail> {
        Err(ErrorKind::Unsupported.into())
    }
}
