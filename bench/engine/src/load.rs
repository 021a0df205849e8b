//! The load: entries as sessions' requests make them, up to a batch's bound, with names and directories as a user's tree
//! has them. It is the same for the same arguments.

use crate::cluster::Cluster;
use crate::error::EngineError;
use farshore_meta::MAX_UNACKNOWLEDGED;
use farshore_meta::kv::Store;
use farshore_primary::Proposal;
use farshore_primary::raft::types::Response;
use farshore_types::{
    BucketId, Control, Incarnation, Ino, LogIndex, NewNode, NewSlice, Op, Outcome, RegionId, Reply, Sequence, SessionId,
    SessionInfo, SessionRequest, SharedBody, SliceId,
};
use std::sync::Arc;

/// What is made of each file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// The name and the inode
    Creates,
    /// And one block of data, committed by an entry of its own
    Files,
}

#[derive(Clone, Debug, clap::Args, serde::Serialize)]
pub struct LoadArgs {
    /// Requests in one entry; 1 to 256
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=256))]
    batch: u16,
    /// Entries in one transaction
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    group: u16,
    #[arg(long, value_enum, default_value_t = Shape::Creates)]
    pub shape: Shape,
    /// Sessions that share the entries
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    sessions: u16,
    /// Files in one directory
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    per_dir: u32,
    /// Directories that are filled in turn, as by so many callers
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    dirs: u32,
    /// Length of a name in bytes
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u8).range(12..))]
    name: u8,
    /// Before-images kept behind the newest entry, in entries; the others are trimmed as a node does once the floors allow it
    #[arg(long, default_value_t = 4096)]
    kept: u64,
}

impl LoadArgs {
    pub fn group(&self) -> usize {
        usize::from(self.group)
    }

    /// No session has more requests in one transaction than it may have without an answer.
    fn check(&self) -> Result<(), EngineError> {
        let together = (u64::from(self.batch) * u64::from(self.group)).max(u64::from(self.dirs));
        let share = together.div_ceil(u64::from(self.sessions));
        if share <= MAX_UNACKNOWLEDGED {
            return Ok(());
        }
        let why = format!(
            "a session would have {share} requests without an answer in one transaction and may have {MAX_UNACKNOWLEDGED}: lower --batch, \
             --group or --dirs, or raise --sessions"
        );
        Err(EngineError::new("make the load", why))
    }

    /// Files of the directories that are filled in turn.
    fn round(&self) -> u64 {
        u64::from(self.per_dir) * u64::from(self.dirs)
    }

    /// The name of the directory in the root that holds a file, by the file's number.
    pub fn directory_of(&self, file: u64) -> String {
        format!("dir-{:08}", file / self.round() * u64::from(self.dirs) + file % u64::from(self.dirs))
    }

    /// A file's name.
    pub fn file_name(&self, file: u64) -> String {
        let width = usize::from(self.name) - 5;
        format!("file-{file:0width$}")
    }
}

/// Bytes of each file's one block.
const FILE_BYTES: u32 = 4096;
/// Slice ids that a session draws at once: what is left of a draw stays open, and a session's open ranges are bounded.
const SLICES: u32 = farshore_meta::MAX_ALLOC_SLICES;
/// Entries between two trims: what one trim removes at most.
const TRIM_EVERY: u64 = farshore_meta::MAX_TRIM as u64;

struct Session {
    id: SessionId,
    sequence: u64,
    /// Of the entries before the present group: their answers have arrived.
    acknowledged: u64,
    slices: std::ops::Range<u64>,
}

/// Feeds a primary.
pub struct Load {
    args: LoadArgs,
    sessions: Vec<Session>,
    turn: usize,
    made: u64,
    parents: Vec<Ino>,
    trimmed: u64,
}

impl Load {
    /// Formats the cluster and opens the sessions.
    pub fn begin(args: LoadArgs, primary: &mut Cluster) -> Result<Load, EngineError> {
        args.check()?;
        primary.format()?;
        let bucket = BucketId { region: RegionId(0), incarnation: Incarnation(0) };
        let info = |number| SessionInfo {
            host: format!("host-{number}"),
            mount: "/mnt".to_owned(),
            options: String::new(),
            bucket: Some(bucket),
        };
        let mut sessions = vec![];
        for number in 0..args.sessions {
            let mut id = [0xA5; 16];
            id[..2].copy_from_slice(&number.to_le_bytes());
            let id = SessionId(id);
            primary.control(Control::OpenSession { session: id, info: info(number) })?;
            sessions.push(Session { id, sequence: 0, acknowledged: 0, slices: 0..0 });
        }
        Ok(Load { args, sessions, turn: 0, made: 0, parents: vec![], trimmed: 0 })
    }

    /// Makes `files` files; whole transactions, so it may be a few more. Answers how many were made.
    pub fn run(&mut self, primary: &mut Cluster, files: u64) -> Result<u64, EngineError> {
        let end = self.made + files;
        let begun = self.made;
        while self.made < end {
            self.directories(primary)?;
            let left = self.args.round().min(end - self.made);
            self.fill(primary, left)?;
            self.trim(primary)?;
        }
        Ok(self.made - begun)
    }

    fn directories(&mut self, primary: &mut Cluster) -> Result<(), EngineError> {
        let first = self.made.next_multiple_of(u64::from(self.args.dirs));
        let names = (0..u64::from(self.args.dirs)).map(|at| self.args.directory_of(first + at));
        let ops = names.map(|name| make(Ino::ROOT, name, NewNode::Directory)).collect();
        let outcomes = self.apply(primary, ops)?;
        self.parents = outcomes.iter().map(ino_of).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// Puts `count` files into the present directories.
    fn fill(&mut self, primary: &mut Cluster, count: u64) -> Result<(), EngineError> {
        let group = u64::from(self.args.batch) * u64::from(self.args.group);
        let mut left = count;
        while left > 0 {
            let now = left.min(group);
            let parent = |file: u64| self.parents[(file % u64::from(self.args.dirs)) as usize];
            let files = (0..now).map(|at| self.made + at);
            let ops = files.map(|file| make(parent(file), self.args.file_name(file), NewNode::File)).collect();
            let outcomes = self.apply(primary, ops)?;
            if self.args.shape == Shape::Files {
                let inos = outcomes.iter().map(ino_of).collect::<Result<Vec<_>, _>>()?;
                self.commit(primary, &inos)?;
            }
            self.made += now;
            left -= now;
        }
        Ok(())
    }

    /// Names one block in each file.
    fn commit(&mut self, primary: &mut Cluster, inos: &[Ino]) -> Result<(), EngineError> {
        self.draw_slices(primary, inos.len() as u64)?;
        let ops: Vec<Op> = inos
            .iter()
            .enumerate()
            .map(|(at, ino)| {
                let from = (self.turn + at) % self.sessions.len();
                let id = SliceId(self.sessions[from].slices.next().expect("enough were drawn"));
                let checksums = vec![(id.0 as u32).wrapping_mul(0x9E37_79B9)];
                let slice = NewSlice { chunk: 0, position: 0, id, size: FILE_BYTES, checksums };
                Op::CommitSlices { ino: *ino, slices: vec![slice], clear_set_id: false }
            })
            .collect();
        for outcome in self.apply(primary, ops)? {
            outcome.map_err(|kind| EngineError::new("commit a block", format!("{kind:?}")))?;
        }
        Ok(())
    }

    /// Makes sure that every session has ids for its share of `count` files.
    fn draw_slices(&mut self, primary: &mut Cluster, count: u64) -> Result<(), EngineError> {
        let share = count / self.sessions.len() as u64 + 1;
        if self.sessions.iter().all(|session| session.slices.end - session.slices.start >= share) {
            return Ok(());
        }
        let first = self.turn;
        let ops = self.sessions.iter().map(|_| Op::AllocSlices { count: SLICES.max(share as u32) }).collect();
        for (at, outcome) in self.apply(primary, ops)?.into_iter().enumerate() {
            let Ok(Reply::Slices { first: id, count }) = outcome else {
                return Err(EngineError::new("draw slice ids", format!("{outcome:?}")));
            };
            let at = (first + at) % self.sessions.len();
            self.sessions[at].slices = id.0..id.0 + u64::from(count);
        }
        Ok(())
    }

    /// One transaction of requests that go round the sessions; their outcomes in order.
    fn apply(&mut self, primary: &mut Cluster, ops: Vec<Op>) -> Result<Vec<Outcome>, EngineError> {
        let mut entries = vec![];
        let mut requests = vec![];
        let total = ops.len();
        for (at, op) in ops.into_iter().enumerate() {
            requests.push(self.request(op));
            if requests.len() == usize::from(self.args.batch) || at + 1 == total {
                let canonical = primary.canonical(SharedBody::Batch(std::mem::take(&mut requests)));
                entries.push(Proposal::Shared(canonical).encode());
            }
        }
        let outcomes = self.send(primary, &entries)?;
        self.sessions.iter_mut().for_each(|session| session.acknowledged = session.sequence);
        Ok(outcomes)
    }

    fn send(&self, primary: &mut Cluster, entries: &[Arc<[u8]>]) -> Result<Vec<Outcome>, EngineError> {
        let mut all = vec![];
        for response in primary.apply(entries)? {
            match response {
                Response::Shared { outcomes, .. } => all.extend(outcomes),
                other => return Err(EngineError::new("apply a batch", format!("{other:?}"))),
            }
        }
        Ok(all)
    }

    fn request(&mut self, op: Op) -> SessionRequest {
        let session = &mut self.sessions[self.turn];
        self.turn = (self.turn + 1) % self.args.sessions as usize;
        session.sequence += 1;
        SessionRequest {
            session: session.id,
            sequence: Sequence(session.sequence),
            acknowledged: Sequence(session.acknowledged),
            op,
        }
    }

    fn trim(&mut self, primary: &mut Cluster) -> Result<(), EngineError> {
        let applied = {
            let kv = primary.store.read().map_err(|error| EngineError::new("read the header", error))?;
            farshore_meta::header(&*kv).map_err(|error| EngineError::new("read the header", error))?.index.0
        };
        while applied.saturating_sub(self.args.kept) >= self.trimmed + TRIM_EVERY {
            self.trimmed += TRIM_EVERY;
            primary.trim(LogIndex(self.trimmed))?;
        }
        Ok(())
    }
}

fn make(parent: Ino, name: String, node: NewNode) -> Op {
    Op::Make { parent, name: name.into_bytes(), node, mode: 0o644, uid: 1000, gid: 1000 }
}

fn ino_of(outcome: &Outcome) -> Result<Ino, EngineError> {
    match outcome {
        Ok(Reply::Attr(attr)) => Ok(attr.ino),
        other => Err(EngineError::new("make a name", format!("{other:?}"))),
    }
}
