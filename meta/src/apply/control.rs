//! Control entries: the volume, its epochs, sessions, roster and clock (laws 6, 8, 11, 12, 14, 21).

use super::{Apply, Fail};
use crate::change::Event;
use crate::inode::{Body, Inode};
use crate::key::{self, Key};
use crate::kv::StorageError;
use crate::row::{Window, encode};
use crate::txn::SharedRead;
use farshore_types::{
    BucketId, ClusterId, Compression, Control, ControlTime, Epoch, ErrorKind, Incarnation, Ino, MAX_BLOCK_SIZE, MIN_BLOCK_SIZE,
    RegionId, Reply, SLOT_STRIPES, SessionId, SessionInfo, Slot, Uuid, VolumeRecord,
};

/// Open sessions of one volume; at the bound no further one is opened.
pub const MAX_SESSIONS: u32 = 65_536;
/// Longest host name, mount point or options of a session in bytes, inclusive.
pub const MAX_SESSION_TEXT: usize = 4096;
/// Mode of a new volume's root: everyone may begin, as on a new JuiceFS volume.
const ROOT_MODE: u16 = 0o777;

impl Apply<'_> {
    pub(super) fn control(&mut self, control: &Control) -> Result<Reply, Fail> {
        match control {
            Control::Format(volume) => self.format(volume)?,
            Control::Start { epoch, slot } => self.start(*epoch, *slot)?,
            Control::Version(version) => self.raise_version(*version)?,
            Control::Tick(ControlTime(delta)) => {
                let time = self.header.control.0.checked_add(*delta).ok_or(ErrorKind::InvalidArgument)?;
                self.header.control = ControlTime(time);
            }
            Control::OpenSession { session, info } => self.open_session(*session, info)?,
            Control::CloseSession { session } | Control::Expire { session } => self.end_session(*session)?,
            Control::Purge { inos } => {
                for ino in inos {
                    self.purge(*ino)?;
                }
            }
            Control::ReplaceBucket { region, incarnation, bucket } => self.replace_bucket(*region, *incarnation, *bucket)?,
            Control::RosterAdd { cluster } => self.roster_add(*cluster)?,
            Control::RosterRemove { cluster } => self.roster_remove(*cluster)?,
            Control::RosterNeedsSnapshot { cluster, needs } => self.roster_needs_snapshot(*cluster, *needs)?,
            Control::Freeze => self.header.frozen = true,
        }
        Ok(Reply::Done)
    }

    /// What the record promises is honoured or refused, never ignored.
    fn format(&mut self, volume: &VolumeRecord) -> Result<(), Fail> {
        if self.volume.is_some() {
            return Err(ErrorKind::Exists.into());
        }
        let honoured = volume.block_size.is_power_of_two()
            && (MIN_BLOCK_SIZE..=MAX_BLOCK_SIZE).contains(&volume.block_size)
            && volume.compression == Compression::None
            && !volume.encrypted
            && volume.trash_days == 0;
        if !honoured {
            return Err(ErrorKind::Unsupported.into());
        }
        if !regions_are_sound(volume) {
            return Err(ErrorKind::InvalidArgument.into());
        }
        self.txn.put(key::VOLUME, encode(volume))?;
        self.volume = Some(volume.clone());
        let root = Inode {
            body: Body::Directory { lease: None },
            mode: ROOT_MODE,
            uid: 0,
            gid: 0,
            nlink: 2,
            parent: Ino::ROOT,
            version: self.index,
            ctime: self.now,
            mtime: None,
            atime: None,
        };
        self.put_inode(Ino::ROOT, &root)?;
        self.usage.inodes = 1;
        self.event(Event::Formatted);
        Ok(())
    }

    fn start(&mut self, epoch: Epoch, slot: Slot) -> Result<(), Fail> {
        self.header.lineage.0.push(epoch);
        self.header.slots.push((slot, self.header.next_slice));
        self.header.slot = slot;
        self.header.frozen = false;
        self.txn.put(key::LINEAGE, self.header.lineage_row())?;
        let lineage = self.header.lineage.clone();
        self.event(Event::Lineage(lineage));
        Ok(())
    }

    /// Versions only rise (law 4); one that this build does not know was refused before.
    fn raise_version(&mut self, version: u32) -> Result<(), Fail> {
        if version <= self.header.version {
            return Err(ErrorKind::InvalidArgument.into());
        }
        self.header.version = version;
        Ok(())
    }

    fn open_session(&mut self, session: SessionId, info: &SessionInfo) -> Result<(), Fail> {
        let texts = [&info.host, &info.mount, &info.options];
        let volume = self.volume.as_ref().ok_or(ErrorKind::NotFound)?;
        let bucket_is_known =
            |bucket: BucketId| volume.region_by_id(bucket.region).is_some_and(|region| bucket.incarnation <= region.incarnation);
        if texts.iter().any(|text| text.len() > MAX_SESSION_TEXT) || !info.bucket.is_none_or(bucket_is_known) {
            return Err(ErrorKind::InvalidArgument.into());
        }
        let key = key::session(session);
        match self.txn.row::<SessionInfo>(&key)? {
            // A proposal that was repeated: the session is as it was asked for.
            Some(known) if known == *info => return Ok(()),
            Some(_) => return Err(ErrorKind::Exists.into()),
            None if self.header.sessions >= MAX_SESSIONS => return Err(ErrorKind::Busy.into()),
            None => {}
        }
        self.txn.put(&key, encode(info))?;
        self.txn.put(&key::window(session), encode(&Window::default()))?;
        self.header.sessions += 1;
        self.event(Event::SessionOpened(session));
        Ok(())
    }

    /// Its own wish and an expiry leave the same state (law 11): bounded by the session's window and ranges.
    fn end_session(&mut self, session: SessionId) -> Result<(), Fail> {
        if self.txn.bytes(&key::session(session))?.is_none() {
            return Err(ErrorKind::SessionLost.into());
        }
        self.txn.delete(&key::session(session))?;
        self.txn.delete(&key::window(session))?;
        self.delete_all(key::replies(session))?;
        self.delete_all(key::issued_all(session))?;
        self.txn.delete(&key::numbers(session))?;
        self.header.sessions -= 1;
        self.event(Event::SessionEnded(session));
        Ok(())
    }

    pub(super) fn delete_all(&mut self, prefix: Key) -> Result<(), StorageError> {
        for key in self.txn.keys(&prefix, &prefix.end())? {
            self.txn.delete(&key)?;
        }
        Ok(())
    }

    /// A replaced bucket has another identity: it is not believed to hold what the old one held (law 12).
    fn replace_bucket(&mut self, region: RegionId, incarnation: Incarnation, bucket: Uuid) -> Result<(), Fail> {
        let volume = self.volume.as_mut().ok_or(ErrorKind::NotFound)?;
        let record = volume.regions.iter_mut().find(|record| record.id == region).ok_or(ErrorKind::NotFound)?;
        if (record.incarnation, record.bucket) == (incarnation, bucket) {
            return Ok(());
        }
        if incarnation <= record.incarnation {
            return Err(ErrorKind::InvalidArgument.into());
        }
        record.incarnation = incarnation;
        record.bucket = bucket;
        let row = encode(volume);
        self.txn.put(key::VOLUME, row)?;
        self.event(Event::BucketReplaced(region));
        Ok(())
    }

    fn roster_add(&mut self, cluster: ClusterId) -> Result<(), Fail> {
        let key = key::roster(cluster);
        if self.txn.bytes(&key)?.is_none() {
            self.txn.put(&key, encode(&false))?;
            self.event(Event::Roster { cluster, on: true });
        }
        Ok(())
    }

    fn roster_remove(&mut self, cluster: ClusterId) -> Result<(), Fail> {
        let key = key::roster(cluster);
        self.txn.bytes(&key)?.ok_or(ErrorKind::NotFound)?;
        self.txn.delete(&key)?;
        self.event(Event::Roster { cluster, on: false });
        Ok(())
    }

    fn roster_needs_snapshot(&mut self, cluster: ClusterId, needs: bool) -> Result<(), Fail> {
        let key = key::roster(cluster);
        self.txn.bytes(&key)?.ok_or(ErrorKind::NotFound)?;
        self.txn.put(&key, encode(&needs))?;
        Ok(())
    }
}

/// Whether regions and clusters are told apart by number and name, and every cluster has a stripe of slots (law 7).
fn regions_are_sound(volume: &VolumeRecord) -> bool {
    let clusters = || volume.regions.iter().filter_map(|region| region.cluster);
    let differ = volume.regions.iter().enumerate().all(|(at, region)| {
        let later = &volume.regions[at + 1..];
        later.iter().all(|other| {
            other.id != region.id && other.name != region.name && (other.cluster.is_none() || other.cluster != region.cluster)
        })
    });
    differ && clusters().all(|cluster| u16::from(cluster.0) < SLOT_STRIPES)
}
