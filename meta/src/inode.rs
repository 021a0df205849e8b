//! The row of an inode.

use crate::packed::{self, BASE, Unpack, put_number, put_time};
use crate::row::{Held, KINDS, Value, kind_number, put_checksums, put_origin, read_checksums, read_origin};
use farshore_types::{Attr, Ino, LogIndex, LogTime, NodeKind, SessionId, SliceId, Timestamp};

/// Size that `stat` shows for a directory.
const DIRECTORY_SIZE: u64 = 4096;

/// What an inode is, with what only this kind has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    File { size: u64, ground: Option<Ground> },
    Directory { lease: Option<Lease> },
    Symlink { target: Vec<u8> },
    Fifo,
    Socket,
    CharDevice { rdev: u32 },
    BlockDevice { rdev: u32 },
}

/// Who holds a directory: no other session changes its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub holder: SessionId,
    /// When another session asked for it first.
    pub recalled: Option<LogTime>,
}

/// A file's piece at its first byte, when no piece of chunk 0 lies below it. Most files have one block and this one piece,
/// and so no row for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ground {
    /// All of the slice, in bytes.
    pub length: u32,
    /// The entry that committed it.
    pub added: LogIndex,
    pub slice: Held,
}

/// An inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inode {
    pub body: Body,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    /// The directory that names it. Of an inode with several links the `l` rows tell, and this is stale.
    pub parent: Ino,
    pub version: LogIndex,
    pub ctime: Timestamp,
    /// `None`: equal to `ctime`.
    pub mtime: Option<Timestamp>,
    /// `None`: equal to `ctime`.
    pub atime: Option<Timestamp>,
}

impl Inode {
    pub fn kind(&self) -> NodeKind {
        match self.body {
            Body::File { .. } => NodeKind::File,
            Body::Directory { .. } => NodeKind::Directory,
            Body::Symlink { .. } => NodeKind::Symlink,
            Body::Fifo => NodeKind::Fifo,
            Body::Socket => NodeKind::Socket,
            Body::CharDevice { .. } => NodeKind::CharDevice,
            Body::BlockDevice { .. } => NodeKind::BlockDevice,
        }
    }

    pub fn is_directory(&self) -> bool {
        matches!(self.body, Body::Directory { .. })
    }

    pub fn atime(&self) -> Timestamp {
        self.atime.unwrap_or(self.ctime)
    }

    pub fn mtime(&self) -> Timestamp {
        self.mtime.unwrap_or(self.ctime)
    }

    /// Sets all three times; equal ones are stored once.
    pub fn set_times(&mut self, atime: Timestamp, mtime: Timestamp, ctime: Timestamp) {
        self.ctime = ctime;
        self.atime = (atime != ctime).then_some(atime);
        self.mtime = (mtime != ctime).then_some(mtime);
    }

    /// Its attributes changed at `now`, its content did not.
    pub fn changed(&mut self, now: Timestamp, version: LogIndex) {
        self.set_times(self.atime(), self.mtime(), now);
        self.version = version;
    }

    /// Its content changed at `now`.
    pub fn modified(&mut self, now: Timestamp, version: LogIndex) {
        self.set_times(self.atime(), now, now);
        self.version = version;
    }

    pub fn attr(&self, ino: Ino) -> Attr {
        let (size, rdev) = match &self.body {
            Body::File { size, .. } => (*size, 0),
            Body::Directory { .. } => (DIRECTORY_SIZE, 0),
            Body::Symlink { target } => (target.len() as u64, 0),
            Body::CharDevice { rdev } | Body::BlockDevice { rdev } => (0, *rdev),
            Body::Fifo | Body::Socket => (0, 0),
        };
        Attr {
            ino,
            kind: self.kind(),
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            nlink: self.nlink,
            size,
            rdev,
            atime: self.atime(),
            mtime: self.mtime(),
            ctime: self.ctime,
            version: self.version,
        }
    }
}

/// The inner `None`: there is none; the outer: the bytes are no row.
fn read_lease(more: u8, ctime: Timestamp, from: &mut Unpack) -> Option<Option<Lease>> {
    if more & has::LEASE == 0 {
        return Some(None);
    }
    let holder = SessionId(from.bytes(16)?.try_into().ok()?);
    let recalled = if more & has::RECALLED != 0 { Some(from.time(ctime.secs)?.to_log_time()?) } else { None };
    Some(Some(Lease { holder, recalled }))
}

/// What an inode's row has beyond the usual.
mod has {
    /// Another count of links than a new inode of its kind.
    pub const LINKS: u8 = 1 << 0;
    pub const MTIME: u8 = 1 << 1;
    pub const ATIME: u8 = 1 << 2;
    pub const GROUND: u8 = 1 << 3;
    /// The ground ends elsewhere than the file.
    pub const GROUND_LENGTH: u8 = 1 << 4;
    /// The inode changed after the ground was committed.
    pub const GROUND_ADDED: u8 = 1 << 5;
    /// The ground was committed at another time than the content changed.
    pub const GROUND_TIME: u8 = 1 << 6;
    /// A bucket held the ground first.
    pub const GROUND_ORIGIN: u8 = 1 << 7;
    /// Of a directory, which has no ground: it is leased.
    pub const LEASE: u8 = 1 << 3;
    /// Of a directory: its lease was recalled.
    pub const RECALLED: u8 = 1 << 4;
}

/// A new file's row is so many bytes longer than it need be, as it will be once its content is committed: LMDB has filled the
/// page, and a row that grows splits it. The bytes are zeros.
const ROOM: [u8; 18] = [0; 18];

/// Modes that take no byte of their own.
const MODES: [u16; OTHER_MODE as usize] =
    [0o644, 0o755, 0o600, 0o700, 0o664, 0o775, 0o666, 0o777, 0o640, 0o750, 0o444, 0o555, 0o400, 0o660, 0o440];
/// The number of a mode that follows.
const OTHER_MODE: u8 = 15;
/// Above the number of the mode: whose it is.
const OWNER_SHIFT: u32 = 4;

/// Whose an inode is, by what follows.
mod owner {
    /// Root's, and its group's.
    pub const ROOT: u8 = 0;
    /// The number of the user, whose group has the same.
    pub const ALIKE: u8 = 1;
    /// The numbers of the user and of the group.
    pub const BOTH: u8 = 2;
}

/// Mode and owner: in one byte what is usual of them, then the rest.
fn put_owned(to: &mut Vec<u8>, mode: u16, uid: u32, gid: u32) {
    let number = MODES.iter().position(|usual| *usual == mode).map_or(OTHER_MODE, |at| at as u8);
    let whose = match (uid, gid) {
        (0, 0) => owner::ROOT,
        _ if uid == gid => owner::ALIKE,
        _ => owner::BOTH,
    };
    to.push(whose << OWNER_SHIFT | number);
    if number == OTHER_MODE {
        put_number(to, mode);
    }
    if whose != owner::ROOT {
        put_number(to, uid);
    }
    if whose == owner::BOTH {
        put_number(to, gid);
    }
}

fn read_owned(from: &mut Unpack) -> Option<(u16, u32, u32)> {
    let first = from.byte()?;
    let number = first & ((1 << OWNER_SHIFT) - 1);
    let mode = if number == OTHER_MODE { from.number()? } else { *MODES.get(usize::from(number))? };
    match first >> OWNER_SHIFT {
        owner::ROOT => Some((mode, 0, 0)),
        owner::ALIKE => from.number().map(|uid| (mode, uid, uid)),
        owner::BOTH => Some((mode, from.number()?, from.number()?)),
        _ => None,
    }
}

/// Links of a new inode.
fn usual_links(kind: NodeKind) -> u32 {
    if kind == NodeKind::Directory { 2 } else { 1 }
}

/// Kind beside the version. Then a byte of [`has`]; mode and owner; parent; version; ctime, and as distances from it mtime
/// and atime; links; what only this kind has.
impl Value for Inode {
    fn small(&self) -> u8 {
        kind_number(self.kind())
    }

    fn write(&self, to: &mut Vec<u8>) {
        let at = to.len();
        let mut more = 0;
        to.push(more);
        put_owned(to, self.mode, self.uid, self.gid);
        to.extend_from_slice(&packed::id(self.parent.0));
        put_number(to, self.version.0);
        put_time(to, BASE, self.ctime);
        for (time, bit) in [(self.mtime, has::MTIME), (self.atime, has::ATIME)] {
            if let Some(time) = time {
                more |= bit;
                put_time(to, self.ctime.secs, time);
            }
        }
        if self.nlink != usual_links(self.kind()) {
            more |= has::LINKS;
            put_number(to, self.nlink);
        }
        match &self.body {
            Body::File { size, ground } => {
                put_number(to, *size);
                if *size == 0 && ground.is_none() {
                    to.extend_from_slice(&ROOM);
                }
                if let Some(ground) = ground {
                    more |= has::GROUND;
                    self.write_ground(to, &mut more, *size, ground);
                }
            }
            Body::Symlink { target } => to.extend_from_slice(target),
            Body::CharDevice { rdev } | Body::BlockDevice { rdev } => put_number(to, *rdev),
            Body::Directory { lease: Some(lease) } => {
                more |= has::LEASE;
                to.extend_from_slice(&lease.holder.0);
                if let Some(recalled) = lease.recalled {
                    more |= has::RECALLED;
                    put_time(to, self.ctime.secs, Timestamp::from_log_time(recalled));
                }
            }
            Body::Directory { lease: None } | Body::Fifo | Body::Socket => {}
        }
        to[at] = more;
    }

    fn read(small: u8, from: &mut Unpack) -> Option<Inode> {
        let kind = *KINDS.get(usize::from(small))?;
        let more = from.byte()?;
        let (mode, uid, gid) = read_owned(from)?;
        let parent = Ino(from.id()?);
        let version = LogIndex(from.number()?);
        let ctime = from.time(BASE)?;
        let mtime = if more & has::MTIME != 0 { Some(from.time(ctime.secs)?) } else { None };
        let atime = if more & has::ATIME != 0 { Some(from.time(ctime.secs)?) } else { None };
        let nlink = if more & has::LINKS != 0 { from.number()? } else { usual_links(kind) };
        let body = match kind {
            NodeKind::File => {
                let size = from.number()?;
                if size == 0 && more & has::GROUND == 0 && from.rest() != ROOM {
                    return None;
                }
                let mut body = Body::File { size, ground: None };
                if more & has::GROUND != 0 {
                    let ground = read_ground(more, size, version, (mtime.unwrap_or(ctime), ctime), from)?;
                    body = Body::File { size, ground: Some(ground) };
                }
                body
            }
            NodeKind::Directory => Body::Directory { lease: read_lease(more, ctime, from)? },
            NodeKind::Symlink => Body::Symlink { target: from.rest().to_vec() },
            NodeKind::Fifo => Body::Fifo,
            NodeKind::Socket => Body::Socket,
            NodeKind::CharDevice => Body::CharDevice { rdev: from.number()? },
            NodeKind::BlockDevice => Body::BlockDevice { rdev: from.number()? },
        };
        Some(Inode { body, mode, uid, gid, nlink, parent, version, ctime, mtime, atime })
    }
}

impl Inode {
    /// The slice's id; its length, the distance of its entry and its time where they are not the file's; origin, checksums.
    fn write_ground(&self, to: &mut Vec<u8>, more: &mut u8, size: u64, ground: &Ground) {
        let Ground { length, added, slice } = ground;
        to.extend_from_slice(&packed::id(slice.id.0));
        if u64::from(*length) != size {
            *more |= has::GROUND_LENGTH;
            put_number(to, *length);
        }
        if *added != self.version {
            *more |= has::GROUND_ADDED;
            put_number(to, self.version.0.checked_sub(added.0).expect("a commit changes the inode"));
        }
        let time = Timestamp::from_log_time(slice.time);
        if time != self.mtime() {
            *more |= has::GROUND_TIME;
            put_time(to, self.ctime.secs, time);
        }
        if slice.origin.is_some() {
            *more |= has::GROUND_ORIGIN;
        }
        put_origin(to, slice.origin);
        put_checksums(to, &slice.checksums);
    }
}

fn read_ground(
    more: u8,
    size: u64,
    version: LogIndex,
    (mtime, ctime): (Timestamp, Timestamp),
    from: &mut Unpack,
) -> Option<Ground> {
    let id = SliceId(from.id()?);
    let length = if more & has::GROUND_LENGTH != 0 { from.number()? } else { size.try_into().ok()? };
    let distance = if more & has::GROUND_ADDED != 0 { from.number()? } else { 0 };
    let added = LogIndex(version.0.checked_sub(distance)?);
    let time = if more & has::GROUND_TIME != 0 { from.time(ctime.secs)? } else { mtime };
    let origin = read_origin(more & has::GROUND_ORIGIN != 0, from)?;
    let slice = Held { id, time: time.to_log_time()?, origin, checksums: read_checksums(from)? };
    Some(Ground { length, added, slice })
}
