//! A file's attributes and content: set attributes, commit slices, truncate, purge.
//!
//! Content is a list of pieces a chunk; later pieces lie above earlier ones. A live slice has exactly one piece: a piece is
//! never split, it goes as a whole when one later piece covers all of it or the file ends before it, and then the slice is
//! dropped. A piece at a file's first byte that lies on nothing is its ground and stands in the inode, all others have rows.
//! Work of one entry is bounded by what it drops; whoever proposes large truncates and purges paces them.

use super::tree::MODE_BITS;
use super::{Apply, Fail};
use crate::change::{SliceAdded, SliceDropped, Touched};
use crate::inode::{Body, Ground, Inode};
use crate::key::{self, Key};
use crate::kv::{Space, StorageError};
use crate::row::{Held, Piece, Window, decode, encode, piece_key};
use crate::shelf::{self, PieceRow, Place, Shelf, SliceRecord};
use crate::txn::SharedRead;
use farshore_types::{
    BucketId, CHUNK_SIZE, ErrorKind, Ino, LogIndex, NewSlice, Reply, SET_GID, SessionId, SessionInfo, SliceId, TimeChange,
    Timestamp,
};

/// Longest file in bytes, inclusive.
pub const MAX_FILE_SIZE: u64 = 1 << 57;
/// Slices of one commit, inclusive.
pub const MAX_COMMIT_SLICES: usize = 255;
const _: () = assert!(MAX_FILE_SIZE / CHUNK_SIZE <= u32::MAX as u64, "chunk numbers are u32");
const _: () =
    assert!(MAX_COMMIT_SLICES * crate::MAX_ENTRY_REQUESTS <= u16::MAX as usize, "pieces of an entry are told apart by u16");

const SET_UID: u16 = 0o4000;
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
        let (mut size, mut ground) = take_content(&mut inode)?;
        let new = self.check_slices(session, window, ino, slices)?;
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
            let held = Held { id: slice.id, time: self.header.time, origin, checksums: slice.checksums.clone() };
            let row = if start == 0 && ground.is_none() && (size == 0 || self.has_none(&key::chunk(ino, 0))?) {
                ground = Some(Ground { length: slice.size, added: self.index, slice: held });
                None
            } else {
                let piece = Piece { position: slice.position, length: slice.size, slice: Some(held) };
                Some(self.put_piece(ino, slice.chunk, piece)?)
            };
            self.add_slice(slice, origin, Place { ino, row })?;
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
        ino: Ino,
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
            match shelf::find(&self.txn, slice.id)? {
                Some(known) if is_same(ino, slice, &known) => {}
                Some(_) => return Err(ErrorKind::SliceConflict.into()),
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

    /// The bucket that the session registered (law 12), never a claim of the request.
    fn origin(&self, session: SessionId) -> Result<Option<BucketId>, StorageError> {
        let key = key::session(session);
        let info: Option<SessionInfo> = self.txn.row(&key)?;
        Ok(info.ok_or_else(|| StorageError::damaged(Space::Shared, &key, "a window without its session"))?.bucket)
    }

    fn add_slice(&mut self, slice: &NewSlice, origin: Option<BucketId>, place: Place) -> Result<(), StorageError> {
        let NewSlice { id, size, .. } = *slice;
        self.change_shelf(id, |shelf, at| shelf.put(at, place))?;
        self.usage.bytes += u64::from(size);
        self.changes.added.push(SliceAdded { id, size, added: self.index, time: self.header.time, origin });
        Ok(())
    }

    fn change_shelf<T>(&mut self, id: SliceId, change: impl FnOnce(&mut Shelf, u8) -> T) -> Result<T, StorageError> {
        let (number, at) = shelf::shelf_of(id);
        let key = key::shelf(number);
        let mut shelf: Shelf = self.txn.row(&key)?.unwrap_or_default();
        let changed = change(&mut shelf, at);
        if shelf.is_empty() {
            self.txn.delete(&key)?;
        } else {
            self.txn.put(&key, encode(&shelf))?;
        }
        Ok(changed)
    }

    fn put_piece(&mut self, ino: Ino, chunk: u32, piece: Piece) -> Result<PieceRow, StorageError> {
        let (added, sub) = (self.index, self.sub);
        self.txn.put_new(&key::piece(ino, chunk, added, sub), encode(&piece))?;
        self.sub = self.sub.checked_add(1).expect("bounded by the requests of an entry and the slices of a commit");
        Ok(PieceRow { chunk, added, sub })
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
            Some(Ground { length, added, slice }) => self.drop_slice(slice, length, added),
            None => Ok(()),
        }
    }

    fn drop_piece(&mut self, key: &[u8], piece: Piece) -> Result<(), StorageError> {
        self.txn.delete(key)?;
        match piece.slice {
            Some(slice) => self.drop_slice(slice, piece.length, piece_key(key)?.1),
            None => Ok(()),
        }
    }

    fn drop_slice(&mut self, slice: Held, size: u32, added: LogIndex) -> Result<(), StorageError> {
        let Held { id, origin, .. } = slice;
        if self.change_shelf(id, Shelf::remove)?.is_none() {
            return Err(StorageError::damaged(Space::Shared, &key::shelf(shelf::shelf_of(id).0), "a slice is on no shelf"));
        }
        self.usage.bytes -= u64::from(size);
        self.changes.dropped.push(SliceDropped { id, size, added, dropped: self.index, origin });
        Ok(())
    }

    pub(super) fn truncate(&mut self, ino: Ino, size: u64) -> Result<Reply, Fail> {
        let mut inode = self.inode(ino)?;
        let (old_size, mut ground) = take_content(&mut inode)?;
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
        } else if let Some(ground) = ground.as_ref().filter(|_| chunk == 0) {
            reach = reach.max(ground.length);
        }
        for (key, piece) in self.pieces(&key::chunk(ino, chunk), &key::pieces(ino).end())? {
            if piece_key(&key)?.0 > chunk || piece.position >= position {
                self.drop_piece(&key, piece)?;
            } else if piece.slice.is_some() {
                reach = reach.max(piece.position + piece.length);
            }
        }
        if reach > position {
            self.put_piece(ino, chunk, Piece { position, length: reach - position, slice: None })?;
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
        if let Body::File { mut ground, .. } = inode.body {
            self.drop_ground(&mut ground, |_| true)?;
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

/// The length of a file and its ground, which is taken out; what is no file has no content.
fn take_content(inode: &mut Inode) -> Result<(u64, Option<Ground>), Fail> {
    match &mut inode.body {
        Body::File { size, ground } => Ok((*size, ground.take())),
        Body::Directory { .. } => Err(ErrorKind::IsDirectory.into()),
        _ => Err(ErrorKind::InvalidArgument.into()),
    }
}

/// Whether a slice that is named already is named with the same content and at the same place.
fn is_same(ino: Ino, slice: &NewSlice, (known, position): &(SliceRecord, u32)) -> bool {
    let of_known = (known.ino, known.chunk, *position, known.size, &known.checksums);
    of_known == (ino, slice.chunk, slice.position, slice.size, &slice.checksums)
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
