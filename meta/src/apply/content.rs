//! A file's attributes and content: set attributes, commit slices, truncate, purge.
//!
//! Content is a list of pieces a chunk; later pieces lie above earlier ones. A live slice has exactly one piece: a piece is
//! never split, it goes as a whole when one later piece covers all of it or the file ends before it, and then the slice is
//! dropped. A piece at a file's first byte that lies on nothing is its ground and stands in the inode, all others have rows.
//! Work of one entry is bounded by what it drops; whoever proposes large truncates and purges paces them.

use super::tree::MODE_BITS;
use super::{Apply, Fail};
use crate::change::{SliceAdded, SliceDropped, Touched};
use crate::key::{self, Key};
use crate::kv::{Space, StorageError};
use crate::row::{Body, Ground, Inode, Piece, SliceRecord, Window, decode, encode, key_id};
use crate::txn::SharedRead;
use farshore_types::{
    BucketId, CHUNK_SIZE, ErrorKind, Ino, NewSlice, Reply, SessionId, SessionInfo, SliceId, TimeChange, Timestamp,
};

/// Longest file in bytes, inclusive.
pub const MAX_FILE_SIZE: u64 = 1 << 57;
/// Slices of one commit, inclusive.
pub const MAX_COMMIT_SLICES: usize = 255;
const _: () = assert!(MAX_FILE_SIZE / CHUNK_SIZE <= u32::MAX as u64, "chunk numbers are u32");
const _: () =
    assert!(MAX_COMMIT_SLICES * crate::MAX_ENTRY_REQUESTS <= u16::MAX as usize, "pieces of an entry are told apart by u16");

const SET_UID: u16 = 0o4000;
const SET_GID: u16 = 0o2000;
const GROUP_EXECUTE: u16 = 0o010;
const NANOS: u32 = 1_000_000_000;

/// A piece with its key.
type Keyed = (Vec<u8>, Piece);

impl Apply<'_> {
    pub(super) fn set_attr(
        &mut self,
        ino: Ino,
        mode: Option<u16>,
        (uid, gid): (Option<u32>, Option<u32>),
        (atime, mtime): (Option<TimeChange>, Option<TimeChange>),
    ) -> Result<Reply, Fail> {
        let mut inode = self.inode(ino)?;
        let atime = self.changed_time(atime, inode.atime())?;
        let mtime = self.changed_time(mtime, inode.mtime())?;
        inode.mode = mode.map_or(inode.mode, |mode| mode & MODE_BITS);
        inode.uid = uid.unwrap_or(inode.uid);
        inode.gid = gid.unwrap_or(inode.gid);
        inode.set_times(atime, mtime, self.now);
        inode.version = self.index;
        self.put_inode(ino, &inode)?;
        self.touch(Touched::Inode(ino));
        Ok(Reply::Attr(inode.attr(ino)))
    }

    fn changed_time(&self, change: Option<TimeChange>, old: Timestamp) -> Result<Timestamp, Fail> {
        match change {
            None => Ok(old),
            Some(TimeChange::Now) => Ok(self.now),
            Some(TimeChange::At(time)) if time.nanos < NANOS => Ok(time),
            Some(TimeChange::At(_)) => Err(ErrorKind::InvalidArgument.into()),
        }
    }

    /// Names uploaded slices in a file. Slices that it names already change nothing, whoever sends them again (law 10).
    pub(super) fn commit_slices(
        &mut self,
        session: SessionId,
        window: &mut Window,
        ino: Ino,
        slices: &[NewSlice],
        clear_set_id: bool,
    ) -> Result<Reply, Fail> {
        let mut inode = self.inode(ino)?;
        let (mut size, mut ground) = file_content(&inode)?;
        let new = self.check_slices(session, window, (ino, ground), slices)?;
        if new.is_empty() {
            return Ok(Reply::Attr(inode.attr(ino)));
        }
        let origin = self.origin(session)?;
        for slice in new {
            self.consume_slice(session, window, slice.id)?;
            let start = u64::from(slice.chunk) * CHUNK_SIZE + u64::from(slice.position);
            if start < size {
                self.drop_covered(ino, slice, &mut ground)?;
            }
            if start == 0 && ground.is_none() && (size == 0 || self.has_none(&key::chunk(ino, 0))?) {
                ground = Some(Ground { slice: slice.id, length: slice.size });
            } else {
                let piece = Piece { position: slice.position, length: slice.size, offset: 0, slice: slice.id };
                self.put_piece(ino, slice.chunk, piece)?;
            }
            self.add_slice(ino, slice, origin)?;
            size = size.max(start + u64::from(slice.size));
        }
        inode.body = Body::File { size, ground };
        if clear_set_id {
            inode.mode &= !SET_UID;
            // Without group execution the bit asks for mandatory locks, and a write leaves it.
            inode.mode &= if inode.mode & GROUP_EXECUTE != 0 { !SET_GID } else { MODE_BITS };
        }
        inode.modified(self.now, self.index);
        self.put_inode(ino, &inode)?;
        self.touch(Touched::Inode(ino));
        Ok(Reply::Attr(inode.attr(ino)))
    }

    /// The slices that are new, when all are sound.
    fn check_slices<'s>(
        &self,
        session: SessionId,
        window: &Window,
        (ino, ground): (Ino, Option<Ground>),
        slices: &'s [NewSlice],
    ) -> Result<Vec<&'s NewSlice>, Fail> {
        let block_size = self.volume.as_ref().ok_or(ErrorKind::NotFound)?.block_size;
        if !(1..=MAX_COMMIT_SLICES).contains(&slices.len()) {
            return Err(ErrorKind::InvalidArgument.into());
        }
        let mut new = Vec::with_capacity(slices.len());
        let mut ids = Vec::with_capacity(slices.len());
        for slice in slices {
            check_shape(slice, block_size)?;
            ids.push(slice.id);
            match self.txn.row::<SliceRecord>(&key::slice(slice.id))? {
                Some(known) => self.check_same((ino, ground), slice, &known)?,
                None if !self.header.slot_is_open(slice.id.slot()) => return Err(ErrorKind::SliceOfOlderEpoch.into()),
                None if self.issued_range(session, slice.id)?.is_none() => return Err(ErrorKind::InvalidArgument.into()),
                None => new.push(slice),
            }
        }
        ids.sort_unstable();
        let repeats = ids.windows(2).any(|pair| pair[0] == pair[1]);
        let ranges = window.ranges as usize + new.len();
        if repeats || ranges > super::MAX_ISSUED_RANGES as usize + MAX_COMMIT_SLICES {
            return Err(ErrorKind::InvalidArgument.into());
        }
        Ok(new)
    }

    /// Whether a slice that is named already is named with the same content and at the same place.
    fn check_same(&self, (ino, ground): (Ino, Option<Ground>), slice: &NewSlice, known: &SliceRecord) -> Result<(), Fail> {
        let same = (known.ino, known.chunk, known.size) == (ino, slice.chunk, slice.size) && known.checksums == slice.checksums;
        if !same {
            return Err(ErrorKind::SliceConflict.into());
        }
        let is_ground = ground.is_some_and(|ground| ground.slice == slice.id);
        let position = if is_ground { 0 } else { self.piece_of(slice.id, known)?.position };
        if position == slice.position { Ok(()) } else { Err(ErrorKind::SliceConflict.into()) }
    }

    /// The one piece of a live slice that has a row.
    fn piece_of(&self, id: SliceId, record: &SliceRecord) -> Result<Piece, StorageError> {
        let of_entry = key::pieces_of_entry(record.ino, record.chunk, record.added);
        for row in self.txn.rows(&of_entry, &of_entry.end())? {
            let (key, value) = row?;
            let piece: Piece = decode(key, value)?;
            if piece.slice == id {
                return Ok(piece);
            }
        }
        Err(StorageError::damaged(Space::Shared, &key::slice(id), "the slice has no piece"))
    }

    /// The bucket that the session registered (law 12), never a claim of the request.
    fn origin(&self, session: SessionId) -> Result<Option<BucketId>, StorageError> {
        let key = key::session(session);
        let info: Option<SessionInfo> = self.txn.row(&key)?;
        Ok(info.ok_or_else(|| StorageError::damaged(Space::Shared, &key, "a window without its session"))?.bucket)
    }

    fn add_slice(&mut self, ino: Ino, slice: &NewSlice, origin: Option<BucketId>) -> Result<(), StorageError> {
        let NewSlice { chunk, id, size, ref checksums, .. } = *slice;
        let (added, time) = (self.index, self.header.time);
        let record = SliceRecord { added, time, size, origin, checksums: checksums.clone(), ino, chunk };
        self.txn.put_new(&key::slice(id), encode(&record))?;
        self.usage.bytes += u64::from(size);
        self.changes.added.push(SliceAdded { id, size, added, time, origin });
        Ok(())
    }

    fn put_piece(&mut self, ino: Ino, chunk: u32, piece: Piece) -> Result<(), StorageError> {
        self.txn.put_new(&key::piece(ino, chunk, self.index, self.sub), encode(&piece))?;
        self.sub = self.sub.checked_add(1).expect("bounded by the requests of an entry and the slices of a commit");
        Ok(())
    }

    fn pieces(&self, from: &[u8], to: &[u8]) -> Result<Vec<Keyed>, StorageError> {
        self.txn.rows(from, to)?.map(|row| row.and_then(|(key, value)| Ok((key.to_vec(), decode(key, value)?)))).collect()
    }

    fn pieces_of(&self, prefix: Key) -> Result<Vec<Keyed>, StorageError> {
        self.pieces(&prefix, &prefix.end())
    }

    /// Removes the pieces that the new slice hides completely.
    fn drop_covered(&mut self, ino: Ino, slice: &NewSlice, ground: &mut Option<Ground>) -> Result<(), StorageError> {
        let end = slice.position + slice.size;
        if slice.chunk == 0 && slice.position == 0 {
            self.drop_ground(ground, |ground| ground.length <= end)?;
        }
        for (key, piece) in self.pieces_of(key::chunk(ino, slice.chunk))? {
            if piece.position >= slice.position && piece.position + piece.length <= end {
                self.drop_piece(&key, piece)?;
            }
        }
        Ok(())
    }

    fn drop_ground(&mut self, ground: &mut Option<Ground>, goes: impl FnOnce(&Ground) -> bool) -> Result<(), StorageError> {
        match ground.take_if(|ground| goes(ground)) {
            Some(ground) => self.drop_slice(ground.slice),
            None => Ok(()),
        }
    }

    fn drop_piece(&mut self, key: &[u8], piece: Piece) -> Result<(), StorageError> {
        self.txn.delete(key)?;
        if piece.slice == SliceId::HOLE { Ok(()) } else { self.drop_slice(piece.slice) }
    }

    fn drop_slice(&mut self, id: SliceId) -> Result<(), StorageError> {
        let key = key::slice(id);
        let record: Option<SliceRecord> = self.txn.row(&key)?;
        let SliceRecord { added, size, origin, .. } =
            record.ok_or_else(|| StorageError::damaged(Space::Shared, &key, "a piece leads to no slice"))?;
        self.txn.delete(&key)?;
        self.usage.bytes -= u64::from(size);
        self.changes.dropped.push(SliceDropped { id, size, added, dropped: self.index, origin });
        Ok(())
    }

    pub(super) fn truncate(&mut self, ino: Ino, size: u64) -> Result<Reply, Fail> {
        let mut inode = self.inode(ino)?;
        let (old_size, mut ground) = file_content(&inode)?;
        if size > MAX_FILE_SIZE {
            return Err(ErrorKind::FileTooLarge.into());
        }
        if size < old_size {
            self.cut(ino, size, &mut ground)?;
        }
        inode.body = Body::File { size, ground };
        inode.modified(self.now, self.index);
        self.put_inode(ino, &inode)?;
        self.touch(Touched::Inode(ino));
        Ok(Reply::Attr(inode.attr(ino)))
    }

    /// Drops what lies wholly beyond `size`, and lays a hole over what reaches beyond it: a later end must show zeros.
    fn cut(&mut self, ino: Ino, size: u64, ground: &mut Option<Ground>) -> Result<(), StorageError> {
        let chunk = u32::try_from(size / CHUNK_SIZE).expect("bounded by MAX_FILE_SIZE");
        let position = u32::try_from(size % CHUNK_SIZE).expect("bounded by CHUNK_SIZE");
        let mut reach = position;
        if size == 0 {
            self.drop_ground(ground, |_| true)?;
        } else if let Some(ground) = ground.filter(|_| chunk == 0) {
            reach = reach.max(ground.length);
        }
        for (key, piece) in self.pieces(&key::chunk(ino, chunk), &key::pieces(ino).end())? {
            if key_chunk(ino, &key)? > chunk || piece.position >= position {
                self.drop_piece(&key, piece)?;
            } else if piece.slice != SliceId::HOLE {
                reach = reach.max(piece.position + piece.length);
            }
        }
        if reach > position {
            self.put_piece(ino, chunk, Piece { position, length: reach - position, offset: 0, slice: SliceId::HOLE })?;
        }
        Ok(())
    }

    /// Frees an unlinked inode and all of its content; anything else is left alone.
    pub(super) fn purge(&mut self, ino: Ino) -> Result<(), StorageError> {
        let orphan = key::orphan(ino);
        if self.txn.bytes(&orphan)?.is_none() {
            return Ok(());
        }
        let inode = self.named_inode(ino)?;
        assert_eq!(inode.nlink, 0, "an orphan has no name");
        if let Body::File { ground: Some(ground), .. } = inode.body {
            self.drop_slice(ground.slice)?;
        }
        for (key, piece) in self.pieces_of(key::pieces(ino))? {
            self.drop_piece(&key, piece)?;
        }
        self.txn.delete(&orphan)?;
        self.txn.delete(&key::inode(ino))?;
        self.usage.inodes -= 1;
        self.touch(Touched::Inode(ino));
        Ok(())
    }
}

/// The length of a file and its ground; what is no file has no content.
fn file_content(inode: &Inode) -> Result<(u64, Option<Ground>), Fail> {
    match inode.body {
        Body::File { size, ground } => Ok((size, ground)),
        Body::Directory => Err(ErrorKind::IsDirectory.into()),
        _ => Err(ErrorKind::InvalidArgument.into()),
    }
}

/// The chunk in the key of a piece of this inode.
fn key_chunk(ino: Ino, key: &[u8]) -> Result<u32, StorageError> {
    let chunk = key_id(key, key::pieces(ino).len())?;
    u32::try_from(chunk).map_err(|_| StorageError::damaged(Space::Shared, key, "the key of a piece has no chunk"))
}

fn check_shape(slice: &NewSlice, block_size: u32) -> Result<(), Fail> {
    let end = u64::from(slice.position) + u64::from(slice.size);
    let fits = slice.id != SliceId::HOLE && slice.size > 0 && end <= CHUNK_SIZE;
    if !fits || slice.checksums.len() != slice.size.div_ceil(block_size) as usize {
        return Err(ErrorKind::InvalidArgument.into());
    }
    if u64::from(slice.chunk) * CHUNK_SIZE + end > MAX_FILE_SIZE {
        return Err(ErrorKind::FileTooLarge.into());
    }
    Ok(())
}
