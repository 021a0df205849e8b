//! Between the operations of the model and those of the file system. A group's names lie in the root directory, with the
//! group's number before them.

use crate::model::MADE_MODE;
use crate::{Answer, Call, NAMES, Name, Seen};
use farshore_types::{Attr, ErrorKind, Ino, MIN_BLOCK_SIZE, NewNode, NewSlice, NodeKind, Op, Outcome, Query, QueryReply, Reply};

/// Length of the block that [`Call::Commit`] names: one block in every volume.
pub const BLOCK: u32 = MIN_BLOCK_SIZE;

/// What a session is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Op(Op),
    Query(Query),
    /// A commit: the caller names a slice of its own, of this inode and length.
    Commit(Ino, u32),
}

fn prefix(group: u64) -> String {
    format!("history-{group:010}-")
}

fn full(group: u64, name: Name) -> Vec<u8> {
    format!("{}{name}", prefix(group)).into_bytes()
}

impl Call {
    /// The request, for the names of this group.
    pub fn request(&self, group: u64) -> Request {
        let parent = Ino::ROOT;
        let path = |name: &Name| full(group, *name);
        Request::Op(match self {
            Call::Make { name, uid } => {
                Op::Make { parent, name: path(name), node: NewNode::File, mode: MADE_MODE, uid: *uid, gid: 0 }
            }
            Call::Unlink { name } => Op::Unlink { parent, name: path(name) },
            Call::Rename { from, to, mode } => {
                Op::Rename { parent, name: path(from), new_parent: parent, new_name: path(to), mode: *mode }
            }
            Call::Link { ino, name } => Op::Link { ino: Ino(*ino), new_parent: parent, new_name: path(name) },
            Call::SetAttr { ino, mode, uid } => {
                Op::SetAttr { ino: Ino(*ino), mode: Some(*mode), uid: Some(*uid), gid: None, atime: None, mtime: None }
            }
            Call::Truncate { ino, size } => Op::Truncate { ino: Ino(*ino), size: *size },
            Call::Commit { ino, size } => return Request::Commit(Ino(*ino), *size),
            Call::Lookup { name } => return Request::Query(Query::Lookup { parent, name: path(name) }),
            Call::GetAttr { ino } => return Request::Query(Query::GetAttr { ino: Ino(*ino) }),
            Call::List => {
                let after = Some(prefix(group).into_bytes());
                return Request::Query(Query::ReadDir { ino: parent, after, limit: u32::from(NAMES) });
            }
        })
    }

    /// The commit of a slice that its session was issued.
    pub fn commit(ino: Ino, slice: NewSlice) -> Op {
        Op::CommitSlices { ino, slices: vec![slice], clear_set_id: false }
    }
}

fn seen(attr: &Attr) -> Result<Seen, Answer> {
    if attr.kind != NodeKind::File {
        return Err(Answer::Strange(format!("{attr:?}")));
    }
    Ok(Seen { ino: attr.ino.0, nlink: attr.nlink, mode: attr.mode, uid: attr.uid, size: attr.size })
}

fn refused(kind: ErrorKind) -> Answer {
    Answer::Refused(kind)
}

/// What an operation's outcome says.
pub fn answer_of_op(outcome: &Outcome) -> Answer {
    match outcome {
        Ok(Reply::Done) => Answer::Done,
        Ok(Reply::Attr(attr)) => seen(attr).map_or_else(|strange| strange, Answer::Inode),
        Ok(other @ (Reply::Slices { .. } | Reply::Inos { .. })) => Answer::Strange(format!("{other:?}")),
        Err(kind) => refused(*kind),
    }
}

/// What a question's answer says of this group.
pub fn answer_of_query(group: u64, result: &Result<QueryReply, ErrorKind>) -> Answer {
    match result {
        Ok(QueryReply::Attr(attr)) => seen(attr).map_or_else(|strange| strange, Answer::Inode),
        Ok(QueryReply::Entries { entries, .. }) => {
            let prefix = prefix(group).into_bytes();
            let mut names = vec![];
            // What comes behind the group's names belongs to others.
            for entry in entries {
                let Some([letter]) = entry.name.strip_prefix(prefix.as_slice()) else { continue };
                match seen(&entry.attr) {
                    Ok(seen) => names.push((Name(letter.wrapping_sub(b'a')), seen)),
                    Err(strange) => return strange,
                }
            }
            Answer::Names(names)
        }
        Ok(other) => Answer::Strange(format!("{other:?}")),
        Err(kind) => refused(*kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_types::{DirEntry, LogIndex, Timestamp};

    fn attr(ino: u64, kind: NodeKind) -> Attr {
        let time = Timestamp::default();
        let (mode, uid, gid, nlink, size, rdev) = (MADE_MODE, 5, 0, 1, 9, 0);
        Attr {
            ino: Ino(ino),
            kind,
            mode,
            uid,
            gid,
            nlink,
            size,
            rdev,
            atime: time,
            mtime: time,
            ctime: time,
            version: LogIndex(1),
        }
    }

    #[test]
    fn a_listing_is_cut_to_its_group() {
        let name = |group, name| full(group, Name(name));
        let entry = |name: Vec<u8>, ino| DirEntry { name, attr: attr(ino, NodeKind::File) };
        let entries = vec![entry(name(7, 0), 1), entry(name(7, 2), 2), entry(name(8, 0), 3)];
        let Answer::Names(names) = answer_of_query(7, &Ok(QueryReply::Entries { entries, more: true })) else { panic!() };
        assert_eq!(names.iter().map(|(name, seen)| (name.0, seen.ino)).collect::<Vec<_>>(), [(0, 1), (2, 2)]);
        let Request::Query(Query::ReadDir { after: Some(after), limit, .. }) = Call::List.request(7) else { panic!() };
        assert!(after < name(7, 0) && name(6, 2) < after, "it begins at the group's first name");
        assert_eq!(limit, 3);
    }

    #[test]
    fn what_the_model_does_not_know_is_strange() {
        assert!(matches!(answer_of_op(&Ok(Reply::Attr(attr(1, NodeKind::Fifo)))), Answer::Strange(_)));
        assert!(matches!(answer_of_query(1, &Ok(QueryReply::Done)), Answer::Strange(_)));
        assert_eq!(answer_of_op(&Err(ErrorKind::Io)), Answer::Refused(ErrorKind::Io));
    }
}
