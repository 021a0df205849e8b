//! File attributes as every part of the system sees them.

use crate::{Ino, LogIndex};
use serde::{Deserialize, Serialize};

/// The mode's bit that runs a program as its group, and gives a directory's group to what is made in it.
pub const SET_GID: u16 = 0o2000;

/// Seconds and nanoseconds since 1970; `nanos` is below 1,000,000,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp {
    pub secs: i64,
    pub nanos: u32,
}

impl Timestamp {
    /// From the time of an entry.
    pub fn from_log_time(time: crate::LogTime) -> Self {
        Timestamp { secs: (time.0 / 1_000_000) as i64, nanos: (time.0 % 1_000_000) as u32 * 1000 }
    }

    /// The time of an entry that [`Timestamp::from_log_time`] gave; `None` when no entry's time gives this.
    pub fn to_log_time(self) -> Option<crate::LogTime> {
        let micros = u64::try_from(self.secs).ok()?.checked_mul(1_000_000)?.checked_add(u64::from(self.nanos / 1000))?;
        let time = crate::LogTime(micros);
        (Timestamp::from_log_time(time) == self).then_some(time)
    }
}

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NodeKind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

/// An inode's attributes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attr {
    pub ino: Ino,
    pub kind: NodeKind,
    /// Permission, set-id and sticky bits: 0o0000 to 0o7777 inclusive.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    /// Length in bytes; of a symbolic link, of its target; of a directory, 4096.
    pub size: u64,
    /// Device number of a device node, else 0.
    pub rdev: u32,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    /// Index of the last entry that changed this inode: equal versions mean equal content and attributes.
    pub version: LogIndex,
}

impl Attr {
    /// Of one name, with zero everywhere else.
    pub fn zero(ino: Ino, kind: NodeKind) -> Attr {
        let time = Timestamp::default();
        Attr {
            ino,
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            nlink: 1,
            size: 0,
            rdev: 0,
            atime: time,
            mtime: time,
            ctime: time,
            version: LogIndex(0),
        }
    }
}
