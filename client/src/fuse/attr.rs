//! Attributes between the volume and the kernel; pure.

use farshore_types::{Attr, Ino, NodeKind, TimeChange, Timestamp};
use fuser::{FileAttr, FileType, Generation, INodeNo, TimeOrNow};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Inode numbers are never issued twice in the life of a volume (law 7), so one generation serves for ever.
pub(super) const GENERATION: Generation = Generation(0);
/// Unit of `st_blocks`, fixed by POSIX.
const STAT_BLOCK: u64 = 512;
/// What `st_blksize` advises: the largest request that the mount takes.
const ADVISED_IO: u32 = 1 << 20;
/// Permission, set-id and sticky bits; the rest of a mode is the type.
pub(super) const MODE_BITS: u32 = 0o7777;

/// What a setattr request asks, apart from the size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub mode: Option<u16>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub atime: Option<TimeChange>,
    pub mtime: Option<TimeChange>,
}

impl Changes {
    /// Maps the kernel's fields; UTIME_OMIT arrives as `None` and UTIME_NOW as [`TimeOrNow::Now`].
    pub fn from_kernel(
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
    ) -> Changes {
        let time = |time: TimeOrNow| match time {
            TimeOrNow::Now => TimeChange::Now,
            TimeOrNow::SpecificTime(time) => TimeChange::At(timestamp_from_request(time)),
        };
        Changes { mode: mode.map(|mode| (mode & MODE_BITS) as u16), uid, gid, atime: atime.map(time), mtime: mtime.map(time) }
    }

    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }
}

/// The kernel's form of a kind of inode.
pub(super) fn file_type(kind: NodeKind) -> FileType {
    match kind {
        NodeKind::File => FileType::RegularFile,
        NodeKind::Directory => FileType::Directory,
        NodeKind::Symlink => FileType::Symlink,
        NodeKind::Fifo => FileType::NamedPipe,
        NodeKind::Socket => FileType::Socket,
        NodeKind::CharDevice => FileType::CharDevice,
        NodeKind::BlockDevice => FileType::BlockDevice,
    }
}

/// The kernel's form of attributes.
pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    let ctime = system_time(attr.ctime);
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.size.div_ceil(STAT_BLOCK),
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime,
        crtime: ctime,
        kind: file_type(attr.kind),
        perm: attr.mode & MODE_BITS as u16,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: ADVISED_IO,
        flags: 0,
    }
}

/// The volume's form of an inode number.
pub(super) fn ino(number: INodeNo) -> Ino {
    Ino(number.0)
}

/// A time for an answer. A time beyond what the system can express becomes 1970, since no answer is worse than a strange date.
fn system_time(time: Timestamp) -> SystemTime {
    let nanos = Duration::from_nanos(u64::from(time.nanos));
    let whole = if time.secs >= 0 {
        UNIX_EPOCH.checked_add(Duration::from_secs(time.secs.unsigned_abs()))
    } else {
        UNIX_EPOCH.checked_sub(Duration::from_secs(time.secs.unsigned_abs()))
    };
    whole.and_then(|whole| whole.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
}

/// A time out of a request. fuser 0.18 turns a request's (seconds, nanoseconds) with negative seconds into 1970 minus
/// |seconds| minus nanoseconds (its `system_time_from_time`), so before 1970 both parts are read back as they are.
fn timestamp_from_request(time: SystemTime) -> Timestamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => Timestamp { secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() },
        Err(before) => {
            let until = before.duration();
            Timestamp { secs: i64::try_from(until.as_secs()).map_or(i64::MIN, |secs| -secs), nanos: until.subsec_nanos() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_types::LogIndex;

    fn attr() -> Attr {
        Attr {
            ino: Ino(7),
            kind: NodeKind::File,
            mode: 0o4755,
            uid: 1,
            gid: 2,
            nlink: 3,
            size: 1025,
            rdev: 0,
            atime: Timestamp { secs: 5, nanos: 6 },
            mtime: Timestamp { secs: -2, nanos: 800_000_000 },
            ctime: Timestamp { secs: 0, nanos: 0 },
            version: LogIndex(9),
        }
    }

    #[test]
    fn every_field_reaches_the_kernel() {
        let told = file_attr(&attr());
        assert_eq!((told.ino, told.size, told.blocks), (INodeNo(7), 1025, 3));
        assert_eq!((told.perm, told.nlink, told.uid, told.gid), (0o4755, 3, 1, 2));
        assert_eq!(told.kind, FileType::RegularFile);
        assert_eq!(told.atime, UNIX_EPOCH + Duration::new(5, 6));
        assert_eq!(told.mtime, UNIX_EPOCH - Duration::new(1, 200_000_000));
        let kinds = [
            (NodeKind::Directory, FileType::Directory),
            (NodeKind::Symlink, FileType::Symlink),
            (NodeKind::Fifo, FileType::NamedPipe),
            (NodeKind::Socket, FileType::Socket),
            (NodeKind::CharDevice, FileType::CharDevice),
            (NodeKind::BlockDevice, FileType::BlockDevice),
        ];
        for (ours, theirs) in kinds {
            assert_eq!(file_attr(&Attr { kind: ours, ..attr() }).kind, theirs);
        }
    }

    #[test]
    fn times_that_cannot_be_expressed_do_not_panic() {
        // Whether these can be expressed is the system's affair.
        for secs in [i64::MIN, i64::MIN + 1, i64::MAX] {
            system_time(Timestamp { secs, nanos: 999_999_999 });
        }
        let far = UNIX_EPOCH + Duration::new(1 << 40, 1);
        assert_eq!(timestamp_from_request(far), Timestamp { secs: 1 << 40, nanos: 1 });
    }

    #[test]
    fn a_request_before_1970_is_read_as_the_kernel_sent_it() {
        // The kernel sent (-2, 800,000,000); this is what fuser makes of it.
        let from_fuser = UNIX_EPOCH - Duration::new(2, 800_000_000);
        assert_eq!(timestamp_from_request(from_fuser), Timestamp { secs: -2, nanos: 800_000_000 });
    }

    #[test]
    fn setattr_maps_only_what_is_asked() {
        assert!(Changes::from_kernel(None, None, None, None, None).is_empty());
        let asked = Changes::from_kernel(
            Some(0o100_640),
            Some(0),
            None,
            Some(TimeOrNow::Now),
            Some(TimeOrNow::SpecificTime(UNIX_EPOCH + Duration::new(3, 4))),
        );
        let expected = Changes {
            mode: Some(0o640),
            uid: Some(0),
            gid: None,
            atime: Some(TimeChange::Now),
            mtime: Some(TimeChange::At(Timestamp { secs: 3, nanos: 4 })),
        };
        assert_eq!(asked, expected);
        assert!(!asked.is_empty());
    }
}
