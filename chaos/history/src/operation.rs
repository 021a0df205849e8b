//! What clients ask and are answered, cut down to what the model knows: the names of one group, and the inodes behind them.

use farshore_types::{ErrorKind, RenameMode};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Names of a group: renames and hard links stay among them, so that groups are independent objects.
pub const NAMES: u8 = 3;

/// One of a group's names, below [`NAMES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(pub u8);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", char::from(b'a' + self.0))
    }
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Creates a file, unless the name is there.
    Make {
        name: Name,
        uid: u32,
    },
    Unlink {
        name: Name,
    },
    Rename {
        from: Name,
        to: Name,
        mode: RenameMode,
    },
    Link {
        ino: u64,
        name: Name,
    },
    SetAttr {
        ino: u64,
        mode: u16,
        uid: u32,
    },
    Truncate {
        ino: u64,
        size: u64,
    },
    /// Names a slice at the beginning of the file: it becomes at least so long.
    Commit {
        ino: u64,
        size: u32,
    },
    Lookup {
        name: Name,
    },
    GetAttr {
        ino: u64,
    },
    /// All names of the group, from one state.
    List,
}

impl Call {
    /// Whether it only asks.
    pub fn is_query(&self) -> bool {
        matches!(self, Call::Lookup { .. } | Call::GetAttr { .. } | Call::List)
    }

    /// The inode that it names by number.
    pub fn ino(&self) -> Option<u64> {
        match self {
            Call::Link { ino, .. }
            | Call::SetAttr { ino, .. }
            | Call::Truncate { ino, .. }
            | Call::Commit { ino, .. }
            | Call::GetAttr { ino } => Some(*ino),
            Call::Make { .. } | Call::Unlink { .. } | Call::Rename { .. } | Call::Lookup { .. } | Call::List => None,
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Call::Make { name, uid } => write!(f, "make {name} uid {uid}"),
            Call::Unlink { name } => write!(f, "unlink {name}"),
            Call::Rename { from, to, mode } => write!(f, "rename {from} {to} {mode:?}"),
            Call::Link { ino, name } => write!(f, "link #{ino} {name}"),
            Call::SetAttr { ino, mode, uid } => write!(f, "set #{ino} mode {mode:o} uid {uid}"),
            Call::Truncate { ino, size } => write!(f, "truncate #{ino} {size}"),
            Call::Commit { ino, size } => write!(f, "commit #{ino} {size}"),
            Call::Lookup { name } => write!(f, "lookup {name}"),
            Call::GetAttr { ino } => write!(f, "stat #{ino}"),
            Call::List => write!(f, "list"),
        }
    }
}

/// An inode as an answer shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub ino: u64,
    pub nlink: u32,
    pub mode: u16,
    pub uid: u32,
    pub size: u64,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seen { ino, nlink, mode, uid, size } = self;
        write!(f, "#{ino} links {nlink} mode {mode:o} uid {uid} size {size}")
    }
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Done,
    Inode(Seen),
    /// The names that are there, in order.
    Names(Vec<(Name, Seen)>),
    Refused(ErrorKind),
    /// What no model has: it is never right.
    Strange(String),
}

impl Answer {
    /// All inodes in it.
    pub fn inodes(&self) -> impl Iterator<Item = &Seen> {
        let (one, many) = match self {
            Answer::Inode(seen) => (Some(seen), &[][..]),
            Answer::Names(names) => (None, &names[..]),
            Answer::Done | Answer::Refused(_) | Answer::Strange(_) => (None, &[][..]),
        };
        one.into_iter().chain(many.iter().map(|(_, seen)| seen))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Done => write!(f, "done"),
            Answer::Inode(seen) => write!(f, "{seen}"),
            Answer::Names(names) if names.is_empty() => write!(f, "no name"),
            Answer::Names(names) => {
                let each: Vec<String> = names.iter().map(|(name, seen)| format!("{name} = {seen}")).collect();
                write!(f, "{}", each.join(", "))
            }
            Answer::Refused(kind) => write!(f, "{kind:?}"),
            Answer::Strange(what) => write!(f, "{what}"),
        }
    }
}

/// An answer, and when it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    pub at: u64,
    pub answer: Answer,
    /// The LogIndex that came with it, if one did: told to people, never believed.
    pub index: Option<u64>,
}

/// One operation of one client. Stamps are nanoseconds of one clock, and no two of a history are equal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    pub client: u32,
    pub group: u64,
    pub called: u64,
    pub call: Call,
    /// `None`: whether it was done is unknown, and so is when.
    pub answered: Option<Answered>,
}

impl Operation {
    pub fn answer(&self) -> Option<&Answer> {
        self.answered.as_ref().map(|answered| &answered.answer)
    }

    /// Whether it changed nothing, wherever it took effect: it asked, or was refused.
    pub(crate) fn changes_nothing(&self) -> bool {
        self.call.is_query() || matches!(self.answer(), Some(Answer::Refused(_)))
    }
}
