//! A history for tests: entries are stamped as the judge would, on any store.
#![allow(dead_code, clippy::unwrap_used)]

pub mod random;

use farshore_meta::kv::{KvRead, Lmdb, Memory, Space, Store};
use farshore_meta::{Applied, Header, Stamped, admissible, apply_shared, decode_entry, encode_entry, header, query};
use farshore_types::*;

pub const ALICE: SessionId = SessionId(*b"alice...........");
pub const BOB: SessionId = SessionId(*b"bob.............");
pub const US: ClusterId = ClusterId(0);
pub const EU: ClusterId = ClusterId(1);
pub const BLOCK: u32 = MIN_BLOCK_SIZE;
pub const US_BUCKET: BucketId = BucketId { region: RegionId(0), incarnation: Incarnation(0) };

pub type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// Every row of a space.
pub fn rows(kv: &dyn KvRead, space: Space) -> Rows {
    kv.scan(space, &[], None).unwrap().map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
}

pub fn volume() -> VolumeRecord {
    let region = |id: u8, name: &str| RegionRecord {
        id: RegionId(id),
        name: name.to_owned(),
        cluster: Some(ClusterId(id)),
        incarnation: Incarnation(0),
        bucket: Uuid([id; 16]),
    };
    VolumeRecord {
        name: "demo".to_owned(),
        uuid: Uuid([7; 16]),
        group: GroupId(7),
        block_size: BLOCK,
        compression: Compression::None,
        encrypted: false,
        trash_days: 0,
        regions: vec![region(0, "us-east"), region(1, "eu-west")],
    }
}

pub fn info() -> SessionInfo {
    SessionInfo { host: "host".to_owned(), mount: "/mnt".to_owned(), options: String::new(), bucket: Some(US_BUCKET) }
}

/// A store with its history.
pub struct History<S> {
    pub store: S,
    pub log: Vec<SharedEntry>,
    /// Sequences used by each session.
    pub used: std::collections::BTreeMap<SessionId, u64>,
    pub acknowledged: u64,
}

/// A chain for tests: any function of all entries so far will do.
pub fn chain_after(before: Chain, entry: &SharedEntry) -> Chain {
    let mut chain = before.0;
    for (at, byte) in encode_entry(entry).into_iter().enumerate() {
        chain[at % 32] = chain[at % 32].wrapping_mul(31).wrapping_add(byte);
    }
    Chain(chain)
}

/// Runs a test on both stores.
pub fn on_both(test: impl Fn(Box<dyn Fn() -> Either>)) {
    test(Box::new(|| Either::Memory(Memory::new())));
    test(Box::new(|| {
        let directory = tempfile::tempdir().unwrap();
        Either::Lmdb(Lmdb::open(directory.path()).unwrap(), std::sync::Arc::new(directory))
    }));
}

/// One of the two stores.
#[derive(Clone)]
pub enum Either {
    Memory(Memory),
    Lmdb(Lmdb, std::sync::Arc<tempfile::TempDir>),
}

impl Store for Either {
    fn read(&self) -> Result<Box<dyn KvRead + '_>, farshore_meta::kv::StorageError> {
        match self {
            Either::Memory(store) => store.read(),
            Either::Lmdb(store, _) => store.read(),
        }
    }

    fn write(&self) -> Result<Box<dyn farshore_meta::kv::KvWrite + '_>, farshore_meta::kv::StorageError> {
        match self {
            Either::Memory(store) => store.write(),
            Either::Lmdb(store, _) => store.write(),
        }
    }

    fn write_light(&self) -> Result<Box<dyn farshore_meta::kv::KvWrite + '_>, farshore_meta::kv::StorageError> {
        match self {
            Either::Memory(store) => store.write_light(),
            Either::Lmdb(store, _) => store.write_light(),
        }
    }

    fn read_through(&self) -> Result<Box<dyn KvRead + '_>, farshore_meta::kv::StorageError> {
        match self {
            Either::Memory(store) => store.read_through(),
            Either::Lmdb(store, _) => store.read_through(),
        }
    }

    fn replace(&self) -> Result<Box<dyn farshore_meta::kv::KvWrite + '_>, farshore_meta::kv::StorageError> {
        match self {
            Either::Memory(store) => store.replace(),
            Either::Lmdb(store, _) => store.replace(),
        }
    }
}

impl History<Memory> {
    pub fn in_memory() -> Self {
        History::started(Memory::new())
    }
}

impl<S: Store> History<S> {
    pub fn empty(store: S) -> Self {
        History { store, log: Vec::new(), used: Default::default(), acknowledged: 0 }
    }

    /// Formatted and started, with Alice's session open.
    pub fn started(store: S) -> Self {
        let mut history = History::empty(store);
        history.control(Control::Format(volume())).unwrap();
        history.start(US, 0);
        history.open(ALICE);
        history
    }

    /// Raises the volume to the version that has leases.
    pub fn know_leases(&mut self) {
        self.control(Control::Version(LEASES_VERSION)).unwrap();
    }

    pub fn header(&self) -> Header {
        header(&*self.store.read().unwrap()).unwrap()
    }

    pub fn entry(&self, body: SharedBody) -> SharedEntry {
        let header = self.header();
        let epoch = match &body {
            SharedBody::Control(Control::Start { epoch, .. }) => epoch.id,
            _ => header.lineage.head_id(),
        };
        SharedEntry { epoch, time: LogTime(1_790_000_000_000_000 + header.index.0 * 1001), body }
    }

    pub fn apply(&mut self, body: SharedBody) -> Applied {
        let entry = self.entry(body);
        self.apply_entry(entry)
    }

    pub fn apply_entry(&mut self, entry: SharedEntry) -> Applied {
        let entry = decode_entry(&encode_entry(&entry)).unwrap();
        let mut kv = self.store.write().unwrap();
        let before = header(&*kv).unwrap();
        admissible(&before, &entry).unwrap();
        let chain = chain_after(before.chain, &entry);
        let applied = apply_shared(&mut *kv, &Stamped { index: before.index.next(), chain, entry: &entry }).unwrap();
        assert_eq!(
            farshore_meta::digest(&*kv).unwrap(),
            farshore_meta::digest_of(&*kv).unwrap(),
            "law 2: the digest follows every change"
        );
        kv.commit().unwrap();
        self.log.push(entry);
        applied
    }

    pub fn control(&mut self, control: Control) -> Outcome {
        self.apply(SharedBody::Control(control)).outcomes.remove(0)
    }

    /// Starts the next epoch of a cluster with the `start`-th slot of its stripe.
    pub fn start(&mut self, cluster: ClusterId, start: u16) -> Applied {
        let body = self.start_body(cluster, start);
        self.apply(body)
    }

    pub fn start_body(&self, cluster: ClusterId, start: u16) -> SharedBody {
        let header = self.header();
        let parent = header.lineage.head_id();
        let id = EpochId { number: parent.number + 1, cluster };
        let epoch = Epoch { id, parent, start: header.index, chain: header.chain };
        SharedBody::Control(Control::Start { epoch, slot: Slot::of(cluster, start).unwrap() })
    }

    pub fn open(&mut self, session: SessionId) {
        self.control(Control::OpenSession { session, info: info() }).unwrap();
        self.used.insert(session, 0);
    }

    /// The session's next request.
    pub fn request(&mut self, session: SessionId, op: Op) -> SessionRequest {
        let used = self.used.entry(session).or_default();
        *used += 1;
        SessionRequest { session, sequence: Sequence(*used), acknowledged: Sequence(self.acknowledged), op }
    }

    pub fn apply_op(&mut self, session: SessionId, op: Op) -> Applied {
        let request = self.request(session, op);
        self.apply(SharedBody::Batch(vec![request]))
    }

    /// Alice does something.
    pub fn op(&mut self, op: Op) -> Outcome {
        self.apply_op(ALICE, op).outcomes.remove(0)
    }

    pub fn make(&mut self, parent: Ino, name: &str, node: NewNode) -> Ino {
        match self.op(make(parent, name, node)).unwrap() {
            Reply::Attr(attr) => attr.ino,
            other => panic!("{other:?}"),
        }
    }

    pub fn alloc(&mut self, session: SessionId, count: u32) -> SliceId {
        match self.apply_op(session, Op::AllocSlices { count }).outcomes.remove(0).unwrap() {
            Reply::Slices { first, count: got } if got == count => first,
            other => panic!("{other:?}"),
        }
    }

    pub fn query(&self, question: Query) -> Result<QueryReply, ErrorKind> {
        query(&*self.store.read().unwrap(), &question).unwrap()
    }

    pub fn attr(&self, ino: Ino) -> Attr {
        match self.query(Query::GetAttr { ino }).unwrap() {
            QueryReply::Attr(attr) => attr,
            other => panic!("{other:?}"),
        }
    }

    pub fn slices(&self, ino: Ino, chunk: u32) -> Vec<SliceView> {
        match self.query(Query::Slices { ino, chunk }).unwrap() {
            QueryReply::Slices(slices) => slices,
            other => panic!("{other:?}"),
        }
    }

    pub fn rows(&self, space: Space) -> Rows {
        rows(&*self.store.read().unwrap(), space)
    }
}

pub fn make(parent: Ino, name: &str, node: NewNode) -> Op {
    Op::Make { parent, name: name.into(), node, mode: 0o644, uid: 10, gid: 20 }
}

pub fn make_as(parent: Ino, name: &str, node: NewNode, ino: Option<Ino>, lease: bool) -> Op {
    Op::MakeAs { parent, name: name.into(), node, mode: 0o644, uid: 10, gid: 20, ino, lease }
}

pub fn recall(dir: Ino, name: &str) -> Op {
    Op::Recall { dir, name: name.into(), take: false }
}

pub fn take(dir: Ino, name: &str) -> Op {
    Op::Recall { dir, name: name.into(), take: true }
}

pub fn slice(id: SliceId, chunk: u32, position: u32, size: u32) -> NewSlice {
    let checksums = (0..size.div_ceil(BLOCK)).map(|block| id.0 as u32 * 1000 + block).collect();
    NewSlice { chunk, position, id, size, checksums }
}

pub fn commit(ino: Ino, slices: Vec<NewSlice>) -> Op {
    Op::CommitSlices { ino, slices, clear_set_id: false }
}

pub fn rename(parent: Ino, name: &str, new_parent: Ino, new_name: &str, mode: RenameMode) -> Op {
    Op::Rename { parent, name: name.into(), new_parent, new_name: new_name.into(), mode }
}

pub fn unlink(parent: Ino, name: &str) -> Op {
    Op::Unlink { parent, name: name.into() }
}

pub fn rmdir(parent: Ino, name: &str) -> Op {
    Op::Rmdir { parent, name: name.into() }
}

pub fn link(ino: Ino, new_parent: Ino, new_name: &str) -> Op {
    Op::Link { ino, new_parent, new_name: new_name.into() }
}
