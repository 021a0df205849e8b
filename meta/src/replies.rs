//! The row with the replies of one entry to one session. Most of them are attributes of what the entry made or changed, and
//! differ in a number or two: each is told as its difference to the one before. A new file's takes 3 bytes instead of 60, and is
//! hashed, stored and, once it goes, kept as a before-image in as many.

use crate::packed::{BASE, Unpack, put_number, put_signed, put_time};
use crate::row::{KINDS, Value, kind_number};
use farshore_types::{Attr, Ino, LogIndex, NodeKind, Outcome, Reply, Timestamp};

/// The replies of one entry to one session, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Replies(pub Vec<Outcome>);

/// What follows in the row.
mod tag {
    /// Attributes: their inode's number less that of those before, what else differs, and that.
    pub const ATTR: u8 = 0;
    /// Any other outcome, as postcard.
    pub const OTHER: u8 = 1;
}

/// What of attributes differs from those before.
mod differs {
    pub const KIND_AND_MODE: u8 = 1;
    pub const OWNER: u8 = 2;
    pub const NLINK: u8 = 4;
    pub const SIZE: u8 = 8;
    pub const RDEV: u8 = 16;
    pub const CTIME: u8 = 32;
    /// Reading or writing time, from `ctime`.
    pub const TIMES: u8 = 64;
    pub const VERSION: u8 = 128;
}

/// Those before the first.
fn first() -> Attr {
    let time = Timestamp { secs: BASE, nanos: 0 };
    Attr { atime: time, mtime: time, ctime: time, ..Attr::zero(Ino(0), NodeKind::File) }
}

fn put_attr(to: &mut Vec<u8>, before: &Attr, attr: &Attr) {
    let times = (attr.atime, attr.mtime);
    let differs = [
        (differs::KIND_AND_MODE, (attr.kind, attr.mode) != (before.kind, before.mode)),
        (differs::OWNER, (attr.uid, attr.gid) != (before.uid, before.gid)),
        (differs::NLINK, attr.nlink != before.nlink),
        (differs::SIZE, attr.size != before.size),
        (differs::RDEV, attr.rdev != before.rdev),
        (differs::CTIME, attr.ctime != before.ctime),
        (differs::TIMES, times != (attr.ctime, attr.ctime)),
        (differs::VERSION, attr.version != before.version),
    ];
    let differs = differs.into_iter().fold(0, |all, (bit, differs)| all | if differs { bit } else { 0 });
    let has = |bit| differs & bit != 0;
    to.push(tag::ATTR);
    put_signed(to, attr.ino.0.wrapping_sub(before.ino.0) as i64);
    to.push(differs);
    if has(differs::KIND_AND_MODE) {
        to.push(kind_number(attr.kind));
        put_number(to, attr.mode);
    }
    if has(differs::OWNER) {
        put_number(to, attr.uid);
        put_number(to, attr.gid);
    }
    if has(differs::NLINK) {
        put_number(to, attr.nlink);
    }
    if has(differs::SIZE) {
        put_number(to, attr.size);
    }
    if has(differs::RDEV) {
        put_number(to, attr.rdev);
    }
    if has(differs::CTIME) {
        put_time(to, before.ctime.secs, attr.ctime);
    }
    if has(differs::TIMES) {
        put_time(to, attr.ctime.secs, attr.atime);
        put_time(to, attr.ctime.secs, attr.mtime);
    }
    if has(differs::VERSION) {
        put_signed(to, attr.version.0.wrapping_sub(before.version.0) as i64);
    }
}

fn read_attr(before: &Attr, from: &mut Unpack) -> Option<Attr> {
    let ino = Ino(before.ino.0.wrapping_add(from.signed()? as u64));
    let differs = from.byte()?;
    let has = |bit| differs & bit != 0;
    let mut attr = Attr { ino, ..before.clone() };
    if has(differs::KIND_AND_MODE) {
        attr.kind = *KINDS.get(usize::from(from.byte()?))?;
        attr.mode = from.number()?;
    }
    if has(differs::OWNER) {
        (attr.uid, attr.gid) = (from.number()?, from.number()?);
    }
    if has(differs::NLINK) {
        attr.nlink = from.number()?;
    }
    if has(differs::SIZE) {
        attr.size = from.number()?;
    }
    if has(differs::RDEV) {
        attr.rdev = from.number()?;
    }
    if has(differs::CTIME) {
        attr.ctime = from.time(before.ctime.secs)?;
    }
    (attr.atime, attr.mtime) = (attr.ctime, attr.ctime);
    if has(differs::TIMES) {
        (attr.atime, attr.mtime) = (from.time(attr.ctime.secs)?, from.time(attr.ctime.secs)?);
    }
    if has(differs::VERSION) {
        attr.version = LogIndex(before.version.0.wrapping_add(from.signed()? as u64));
    }
    Some(attr)
}

impl Value for Replies {
    fn write(&self, to: &mut Vec<u8>) {
        let first = first();
        let mut before = &first;
        for outcome in &self.0 {
            if let Ok(Reply::Attr(attr)) = outcome {
                put_attr(to, before, attr);
                before = attr;
            } else {
                to.push(tag::OTHER);
                outcome.write(to);
            }
        }
    }

    fn read(small: u8, from: &mut Unpack) -> Option<Self> {
        let (mut replies, mut before) = (Vec::new(), first());
        while !from.0.is_empty() {
            replies.push(match from.byte()? {
                tag::ATTR => {
                    before = read_attr(&before, from)?;
                    Ok(Reply::Attr(before.clone()))
                }
                tag::OTHER => Outcome::read(0, from)?,
                _ => return None,
            });
        }
        (small == 0).then_some(Replies(replies))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::row::{decode, encode};
    use farshore_types::{ErrorKind, SliceId};

    fn file(ino: u64) -> Attr {
        let time = Timestamp { secs: BASE + 9, nanos: 5000 };
        let times = Attr { atime: time, mtime: time, ctime: time, version: LogIndex(70), ..first() };
        Attr { ino: Ino(ino), mode: 0o644, uid: 1000, gid: 1000, ..times }
    }

    fn comes_back(replies: Vec<Outcome>) -> usize {
        let bytes = encode(&Replies(replies.clone()));
        assert_eq!(decode::<Replies>(b"key", &bytes).unwrap(), Replies(replies));
        bytes.len()
    }

    #[test]
    fn files_made_together_take_three_bytes_each() {
        let made = |count: u64| comes_back((0..count).map(|n| Ok(Reply::Attr(file(900 + n)))).collect());
        assert_eq!(made(81) - made(1), 80 * 3);
    }

    #[test]
    fn each_field_comes_back_whatever_came_before() {
        let at = |secs, nanos| Timestamp { secs, nanos };
        let plain = file(7);
        let others = [
            Attr { ino: Ino(u64::MAX), ..plain.clone() },
            Attr { ino: Ino(0), ..plain.clone() },
            Attr { kind: NodeKind::Directory, size: 4096, nlink: 2, ..plain.clone() },
            Attr { kind: NodeKind::BlockDevice, rdev: u32::MAX, ..plain.clone() },
            Attr { mode: 0o7777, ..plain.clone() },
            Attr { uid: u32::MAX, ..plain.clone() },
            Attr { gid: 0, ..plain.clone() },
            Attr { nlink: u32::MAX, size: u64::MAX, ..plain.clone() },
            Attr { atime: at(i64::MIN, 1), ..plain.clone() },
            Attr { mtime: at(i64::MAX, 999_999_999), ..plain.clone() },
            Attr { ctime: at(-1, 0), ..plain.clone() },
            Attr { version: LogIndex(u64::MAX), ..plain.clone() },
        ];
        for one in &others {
            for next in &others {
                comes_back([one, &plain, next].map(|attr| Ok(Reply::Attr(attr.clone()))).to_vec());
            }
        }
    }

    #[test]
    fn outcomes_without_attributes_come_back_between_them() {
        let ids = Reply::Slices { first: SliceId(1 << 50), count: 64 };
        let others = [Ok(Reply::Done), Err(ErrorKind::Exists), Ok(Reply::Attr(file(3))), Ok(ids), Ok(Reply::Attr(file(4)))];
        comes_back(others.to_vec());
        comes_back(vec![]);
    }

    #[test]
    fn what_is_no_reply_is_damage() {
        let good = encode(&Replies(vec![Ok(Reply::Attr(file(3)))]));
        for cut in 1..good.len() {
            // The version alone is a row with no replies.
            assert_eq!(decode::<Replies>(b"key", &good[..cut]).is_err(), cut > 1, "cut at {cut}");
        }
        assert!(decode::<Replies>(b"key", &[&good[..], &[9]].concat()).is_err());
    }
}
