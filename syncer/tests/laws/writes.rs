//! How the primary writes: real entries that add and drop slices.

use super::cluster::{BLOCK_SIZE, region_of};
use super::{REGIONS, Step, World, demand};
use farshore_syncer::plant::{self, Plant};
use farshore_types::*;
use std::collections::BTreeMap;

/// So high that every incarnation that the world ever makes is known to shared state (law 12).
const MANY: Incarnation = Incarnation(1_000_000);

impl World {
    pub(super) fn control(&self) -> ControlTime {
        ControlTime(self.now)
    }

    fn entry(&self, body: SharedBody) -> SharedEntry {
        let epoch = self.c[self.primary].lineage().head_id();
        SharedEntry { epoch, time: LogTime(self.now), body }
    }

    fn write(&mut self, body: SharedBody) {
        let entry = self.entry(body);
        let control = self.control();
        let (applied, _) = self.c[self.primary].apply(&entry, control);
        for outcome in &applied.outcomes {
            assert!(outcome.is_ok(), "the world writes only what is sound: {outcome:?} for {entry:?}");
        }
    }

    pub(super) fn format(&mut self) {
        let regions = (0..REGIONS as u8)
            .map(|id| RegionRecord {
                id: RegionId(id),
                name: format!("r{id}"),
                cluster: Some(ClusterId(id)),
                incarnation: MANY,
                bucket: Uuid([id; 16]),
            })
            .collect();
        self.write(SharedBody::Control(Control::Format(VolumeRecord {
            name: "world".into(),
            uuid: Uuid([9; 16]),
            group: GroupId(1),
            block_size: BLOCK_SIZE,
            compression: Compression::None,
            encrypted: false,
            trash_days: 0,
            regions,
        })));
    }

    /// Law 7: a fresh slot, counted where no rewind reaches.
    pub(super) fn start_epoch(&mut self, k: usize) -> Step {
        self.primary = k;
        self.sessions.clear();
        let header = self.c[k].header();
        let shared = header.lineage.0.iter().filter(|epoch| epoch.id.cluster == self.c[k].id).count() as u16;
        let start = if plant::is(Plant::SlotInSharedState) { shared } else { self.c[k].starts };
        let slot = Slot::of(self.c[k].id, start).expect("a world has few starts");
        self.c[k].heard += 1;
        self.c[k].starts += 1;
        let id = EpochId { number: self.c[k].heard, cluster: self.c[k].id };
        let epoch = Epoch { id, parent: header.lineage.head_id(), start: header.index, chain: header.chain };
        let entry = SharedEntry { epoch: id, time: LogTime(self.now), body: SharedBody::Control(Control::Start { epoch, slot }) };
        demand(farshore_meta::admissible(&header, &entry).is_ok(), 8, || format!("cluster {k} cannot start {id}"))?;
        let control = self.control();
        self.c[k].apply(&entry, control);
        self.c[k].target = self.c[k].lineage();
        Ok(())
    }

    /// The session of this start that writes this bucket; opened when it is first needed.
    fn session(&mut self, bucket: BucketId) -> SessionId {
        if let Some((session, _)) = self.sessions.get(&bucket) {
            return *session;
        }
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.r.next().to_be_bytes());
        bytes[8..].copy_from_slice(&self.r.next().to_be_bytes());
        let session = SessionId(bytes);
        let info = SessionInfo { host: "h".into(), mount: String::new(), options: String::new(), bucket: Some(bucket) };
        self.write(SharedBody::Control(Control::OpenSession { session, info }));
        self.sessions.insert(bucket, (session, 0));
        session
    }

    fn requests(&mut self, bucket: BucketId, ops: Vec<Op>) {
        let session = self.session(bucket);
        let last = &mut self.sessions.get_mut(&bucket).unwrap().1;
        let requests = ops
            .into_iter()
            .map(|op| {
                *last += 1;
                SessionRequest { session, sequence: Sequence(*last), acknowledged: Sequence(*last - 1), op }
            })
            .collect();
        self.write(SharedBody::Batch(requests));
    }

    /// Adds a slice of one to three blocks: a new file, or over an old file, whose slices the same entry then drops.
    pub(super) fn add(&mut self) -> Step {
        let k = self.primary;
        let region = if self.r.chance(30) { self.r.below(REGIONS) } else { k };
        if !self.c[k].up || self.wiped.contains(&region) {
            return Ok(());
        }
        let bucket = BucketId { region: region_of(ClusterId(region as u8)), incarnation: self.c[region].incarnation };
        self.session(bucket);
        let over = if self.r.chance(20) { self.file_of_some_slice(true) } else { None };
        let header = self.c[k].header();
        let id = SliceId(header.slot.id(header.next_slice));
        let size = 1 + self.r.below(3 * BLOCK_SIZE as usize) as u32;
        let size = if over.is_some() { 3 * BLOCK_SIZE } else { size };
        // Without slots an id would be its counter alone.
        let name = if plant::is(Plant::NoSlots) { header.next_slice } else { id.0 };
        demand(self.issued.insert(name), 7, || format!("slice {name} names two contents"))?;
        let blocks: Vec<BlockKey> = blocks_of(id, size, BLOCK_SIZE).collect();
        let checksums: Vec<u32> = blocks.iter().map(|_| self.r.next() as u32).collect();
        for (block, crc) in blocks.iter().zip(&checksums) {
            self.bucket[region].insert(*block); // blocks first, metadata after
            self.crc.insert(*block, *crc);
        }
        self.names += 1;
        let name = format!("f{}", self.names).into_bytes();
        let ino = over.unwrap_or(Ino(header.slot.id(header.next_ino)));
        let slices = vec![NewSlice { chunk: 0, position: 0, id, size, checksums }];
        let mut ops = Vec::new();
        if over.is_none() {
            ops.push(Op::Make { parent: Ino::ROOT, name, node: NewNode::File, mode: 0o600, uid: 0, gid: 0 });
        }
        ops.push(Op::AllocSlices { count: 1 });
        ops.push(Op::CommitSlices { ino, slices, clear_set_id: false });
        self.requests(bucket, ops);
        let own = &self.c[k].log.last().unwrap().changes.added;
        assert!(own.iter().any(|slice| slice.id == id && slice.origin == Some(bucket)), "the entry added what it was made for");
        Ok(())
    }

    /// A file with a live slice; `linked`: one that still has its name.
    fn file_of_some_slice(&mut self, linked: bool) -> Option<Ino> {
        let (live, orphans) = self.c[self.primary].read(|kv| {
            let live: Vec<Ino> =
                farshore_meta::live_slices(kv, SliceId(0), None).unwrap().map(|row| row.unwrap().1.ino).collect();
            (live, farshore_meta::orphans(kv, usize::MAX).unwrap())
        });
        let files: Vec<Ino> = live.into_iter().filter(|ino| !linked || !orphans.contains(ino)).collect();
        self.r.pick(&files)
    }

    /// Drops all slices of a file: by a purge, a truncation, or an unlink with its purge.
    pub(super) fn drop_some(&mut self) -> Step {
        if !self.c[self.primary].up {
            return Ok(());
        }
        let Some(ino) = self.file_of_some_slice(false) else { return Ok(()) };
        let orphan = self.c[self.primary].read(|kv| farshore_meta::orphans(kv, usize::MAX).unwrap().contains(&ino));
        let home = BucketId { region: region_of(ClusterId(self.primary as u8)), incarnation: Incarnation(0) };
        if !orphan && self.r.chance(50) {
            self.requests(home, vec![Op::Truncate { ino, size: 0 }]);
        } else {
            if !orphan {
                let names = self.names_of_files();
                self.requests(home, vec![Op::Unlink { parent: Ino::ROOT, name: names[&ino].clone() }]);
            }
            // The entry between the unlink and the purge is a place for a rewind to end.
            if orphan || self.r.chance(70) {
                self.write(SharedBody::Control(Control::Purge { inos: vec![ino] }));
            }
        }
        Ok(())
    }

    fn names_of_files(&self) -> BTreeMap<Ino, Vec<u8>> {
        self.c[self.primary].read(|kv| {
            let all = Query::ReadDir { ino: Ino::ROOT, after: None, limit: 4096 };
            match farshore_meta::query(kv, &all).unwrap().unwrap() {
                QueryReply::Entries { entries, more } => {
                    assert!(!more);
                    entries.into_iter().map(|entry| (entry.attr.ino, entry.name)).collect()
                }
                other => panic!("a directory was asked for, not {other:?}"),
            }
        })
    }
}
