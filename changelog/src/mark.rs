//! The failure mark: a file beside the segments that says that a write or flush failed (law 24).
//!
//! After a failed flush the kernel may call lost pages clean, so that the bytes read back well until the machine is
//! restarted. Nothing in the segments can show this; only the mark tells the next start.
//!
//! So the mark names a place in the log, and a replay stops there, whatever lies behind it. Appending behind such bytes
//! would be worse than damage: after a power cut they may be gone, and what was appended behind them could not be reached.

use crate::disk::Disk;
use crate::error::LogError;
use crate::format::{Void, put, u64_at};
use crate::hard_state::{MAX_SMALL_BYTES, SmallFile};
use farshore_types::RaftIndex;
use std::path::Path;
use std::sync::Arc;

/// Its name, beside the segments.
pub const FAILURE_MARK: &str = "failed.mark";
/// The longest cause that is kept; a longer one is cut.
const MAX_CAUSE_BYTES: usize = 1024;

/// Index, segment and offset.
const FIXED: usize = 24;

const _: () = assert!(FIXED + MAX_CAUSE_BYTES <= MAX_SMALL_BYTES, "a mark fits into a small file");

/// What an earlier failure left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureMark {
    /// Entries from this index on are not trusted, though they may read well: they must be fetched again.
    pub untrusted_from: RaftIndex,
    pub cause: String,
    /// The segment's ordinal and the byte in it from which on nothing is trusted.
    pub segment: u64,
    pub offset: u64,
}

impl FailureMark {
    pub(crate) fn place(&self) -> Void {
        Void { ordinal: self.segment, offset: self.offset }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut cut = self.cause.len().min(MAX_CAUSE_BYTES);
        while !self.cause.is_char_boundary(cut) {
            cut -= 1;
        }
        let mut bytes = vec![0u8; FIXED + cut];
        put(&mut bytes, 0, &self.untrusted_from.0.to_le_bytes());
        put(&mut bytes, 8, &self.segment.to_le_bytes());
        put(&mut bytes, 16, &self.offset.to_le_bytes());
        put(&mut bytes, FIXED, &self.cause.as_bytes()[..cut]);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<FailureMark> {
        let cause = String::from_utf8_lossy(bytes.get(FIXED..)?).into_owned();
        let untrusted_from = RaftIndex(u64_at(bytes, 0));
        Some(FailureMark { untrusted_from, cause, segment: u64_at(bytes, 8), offset: u64_at(bytes, 16) })
    }
}

/// The mark's file.
pub(crate) struct Mark(SmallFile);

impl Mark {
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Mark, LogError> {
        SmallFile::open(disk, &dir.join(FAILURE_MARK)).map(Mark).map_err(|error| LogError::Mark { cause: error.to_string() })
    }

    /// What is recorded.
    pub fn load(&self) -> Option<FailureMark> {
        self.0.load().and_then(FailureMark::decode)
    }

    /// Records a failure. An earlier one may go: what it named was given up before anything could be written again.
    pub fn record(&mut self, mark: &FailureMark) -> Result<(), LogError> {
        self.0.store(&mark.encode()).map_err(|error| LogError::Mark { cause: error.to_string() })
    }

    /// Forgets it, once the caller has refilled what was not trusted.
    pub fn clear(&mut self) -> Result<(), LogError> {
        self.0.remove().map_err(|error| LogError::Mark { cause: error.to_string() })
    }
}
