//! Random histories: mostly sensible, sometimes not. Numbers are taken modulo what exists.
#![allow(dead_code, clippy::unwrap_used)]

use super::*;
use farshore_meta::Event;
use proptest::prelude::*;

#[derive(Clone, Debug)]
pub enum Step {
    Op(bool, RandomOp),
    Batch(Vec<(bool, RandomOp)>),
    Control(u8),
}

#[derive(Clone, Debug)]
pub struct RandomOp {
    pub verb: u8,
    /// Inodes, names, sizes: as the verb wants them.
    pub a: u64,
    pub b: u64,
    pub c: u64,
    pub d: u64,
}

pub const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
/// Files of random histories are this short, once from 0 and once around the border of two chunks.
pub const SPAN: u64 = 48;

pub fn random_op() -> impl Strategy<Value = RandomOp> {
    (any::<u8>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(verb, a, b, c, d)| RandomOp {
        verb,
        a,
        b,
        c,
        d,
    })
}

/// Bob asks less often than Alice.
fn by_bob() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.3)
}

pub fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (by_bob(), random_op()).prop_map(|(bob, op)| Step::Op(bob, op)),
        3 => prop::collection::vec((by_bob(), random_op()), 1..8).prop_map(Step::Batch),
        3 => any::<u8>().prop_map(Step::Control),
    ]
}

fn pick<T: Copy>(from: &[T], by: u64) -> T {
    from[(by % from.len() as u64) as usize]
}

/// A byte position that is interesting: near the start or around the first border of chunks.
pub fn position(by: u64) -> u64 {
    if by.is_multiple_of(3) { CHUNK_SIZE - SPAN / 2 + by / 3 % SPAN } else { by / 3 % SPAN }
}

/// Cuts a write into one slice a chunk.
pub fn write_slices(first: SliceId, start: u64, length: u64) -> Vec<NewSlice> {
    let border = CHUNK_SIZE.clamp(start, start + length);
    let mut slices = Vec::new();
    for (from, to) in [(start, border), (border, start + length)] {
        if from < to {
            let id = SliceId(first.0 + slices.len() as u64);
            slices.push(slice(id, (from / CHUNK_SIZE) as u32, (from % CHUNK_SIZE) as u32, (to - from) as u32));
        }
    }
    slices
}

/// An operation on a few inodes (`1..=inos`) and names; `ids` is the next unused slice id of the session.
pub fn to_op(random: &RandomOp, inos: &[Ino], ids: &mut SliceId) -> Op {
    let &RandomOp { verb, a, b, c, d } = random;
    let (ino, other) = (pick(inos, a), pick(inos, b));
    // Half of all names lie in the root, so that many operations find what they name.
    let dir = if a.is_multiple_of(2) { Ino::ROOT } else { ino };
    // Content goes to few inodes, so that slices come to lie over each other.
    let file = pick(&inos[..inos.len().min(4)], a);
    let (name, new_name) = (pick(&NAMES, c), pick(&NAMES, d));
    match verb % 24 {
        0..4 => make(dir, name, NewNode::File),
        4..7 => make(dir, name, NewNode::Directory),
        7 => make(dir, name, pick::<fn() -> NewNode>(&[|| NewNode::Fifo, || NewNode::Symlink(b"t".to_vec())], d)()),
        8 => unlink(dir, name),
        9 => rmdir(dir, name),
        10 => rename(dir, name, other, new_name, RenameMode::Replace),
        11 => {
            rename(dir, name, other, new_name, pick(&[RenameMode::NoReplace, RenameMode::Exchange, RenameMode::Replace], a / 7))
        }
        12 => link(other, dir, name),
        13 => {
            let time = Timestamp { secs: d as i64 % 1000, nanos: 5 };
            let mtime = pick(&[None, Some(TimeChange::Now), Some(TimeChange::At(time))], b);
            Op::SetAttr { ino, mode: c.is_multiple_of(2).then_some(b as u16), uid: Some(d as u32), gid: None, atime: None, mtime }
        }
        14 => Op::Truncate { ino: file, size: position(b) },
        15..19 => {
            let slices = write_slices(*ids, position(b), 1 + c % 60);
            ids.0 += slices.len() as u64;
            commit(file, slices)
        }
        19 => make_as(dir, name, NewNode::Directory, None, !b.is_multiple_of(4)),
        20 => make_as(dir, name, NewNode::File, None, false),
        21 if d.is_multiple_of(2) => take(dir, name),
        21 => recall(dir, name),
        22 if d.is_multiple_of(2) => Op::AllocInos { count: 1 + (c % 9) as u32 },
        22 => Op::GiveBack { dirs: vec![ino, other] },
        _ if d.is_multiple_of(2) => Op::CloseSlices { below: SliceId(c % (ids.0 + 1)) },
        _ => Op::AllocSlices { count: 1 + (c % 9) as u32 },
    }
}

/// Two sessions, of which Bob's comes and goes, at work on few inodes and names.
pub struct Play<S> {
    pub history: History<S>,
    next_ids: [SliceId; 2],
    starts: [u16; 2],
    /// The newest inodes, and some that do not exist.
    inos: Vec<Ino>,
}

/// Inodes that operations choose from.
const MAX_INOS: usize = 10;

impl<S: Store> Play<S> {
    pub fn new(store: S) -> Self {
        let mut history = History::started(store);
        history.know_leases();
        history.open(BOB);
        let next_ids = [history.alloc(ALICE, 300), history.alloc(BOB, 300)];
        Play { history, next_ids, starts: [1, 0], inos: vec![Ino(12345), Ino::ROOT] }
    }

    pub fn play(&mut self, step: &Step) -> Applied {
        let body = match step {
            Step::Op(bob, op) => SharedBody::Batch(vec![self.request(*bob, op)]),
            Step::Batch(ops) => SharedBody::Batch(ops.iter().map(|(bob, op)| self.request(*bob, op)).collect()),
            Step::Control(number) => self.control(*number),
        };
        let applied = self.history.apply(body.clone());
        if applied.changes.events.contains(&Event::SessionOpened(BOB)) {
            self.history.used.insert(BOB, 0);
        }
        if let SharedBody::Batch(requests) = body {
            requests.iter().zip(&applied.outcomes).for_each(|(request, outcome)| self.learn(request, outcome));
        }
        applied
    }

    fn learn(&mut self, request: &SessionRequest, outcome: &Outcome) {
        match outcome {
            Ok(Reply::Attr(attr)) if matches!(request.op, Op::Make { .. } | Op::MakeAs { .. }) => {
                self.inos.truncate(MAX_INOS - 1);
                self.inos.insert(0, attr.ino);
            }
            Ok(Reply::Slices { first, .. }) => self.next_ids[usize::from(request.session == BOB)] = *first,
            // What was not done took no sequence.
            Err(ErrorKind::SessionLost) => *self.history.used.entry(request.session).or_default() -= 1,
            _ => {}
        }
    }

    fn request(&mut self, bob: bool, op: &RandomOp) -> SessionRequest {
        let session = if bob { BOB } else { ALICE };
        let ids = &mut self.next_ids[usize::from(bob)];
        let op = match to_op(op, &self.inos, ids) {
            // Ids of an older slot may be of no use: mostly it asks for new ones.
            Op::CommitSlices { .. } if ids.slot() != self.history.header().slot && !op.d.is_multiple_of(8) => {
                Op::AllocSlices { count: 300 }
            }
            op => op,
        };
        let used = self.history.used.get(&session).copied().unwrap_or_default();
        self.history.acknowledged = used.saturating_sub(9);
        self.history.request(session, op)
    }

    fn control(&mut self, number: u8) -> SharedBody {
        let region = RegionId(number / 16 % 2);
        let incarnation = Incarnation(u32::from(number / 32));
        SharedBody::Control(match number % 16 {
            0..4 => Control::OpenSession { session: BOB, info: info() },
            4 if number > 127 => Control::Expire { session: BOB },
            4 => Control::CloseSession { session: BOB },
            5 => Control::RosterAdd { cluster: EU },
            6 => Control::RosterRemove { cluster: EU },
            7 => Control::RosterNeedsSnapshot { cluster: EU, needs: number > 99 },
            8 => Control::ReplaceBucket { region, incarnation, bucket: Uuid([number; 16]) },
            9 | 10 => {
                let cluster = usize::from(number > 127);
                self.starts[cluster] += 1;
                return self.history.start_body(ClusterId(cluster as u8), self.starts[cluster]);
            }
            11 => Control::Tick(ControlTime(u64::from(number))),
            12 => Control::Format(volume()),
            _ => Control::Purge { inos: self.inos.clone() },
        })
    }
}
