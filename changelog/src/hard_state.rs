//! Small durable values: a vote, a committed index, a purged log id, a fence. Opaque bytes to this module.
//!
//! The file holds the value twice, in two slots that are written and flushed one after the other, in place. So:
//! - a write that breaks off leaves the other slot whole: the old value, or already the new one;
//! - once `store` has returned, both slots hold the value, and damage to either one is survived. With two slots written
//!   in turn, damage to the newer one would silently bring the older value back, and with it a vote given twice.
//!
//! It takes two flushes without any change of metadata, where write-aside and rename take two and two journal commits.
//! ```text
//! slot  4096  "FSHSML" version:2 generation:8 length:4 0:4 bytes 0.. crc:4 mark:4
//! ```

use crate::disk::{Disk, DiskFile};
use crate::format::{put, u32_at, u64_at};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of one slot: one page, so that the two never share a page.
const SLOT: usize = 4096;
const HEADER: usize = 24;
const FOOTER: usize = 8;
/// The largest value; a larger one is refused.
pub const MAX_SMALL_BYTES: usize = SLOT - HEADER - FOOTER;
const MAGIC: &[u8; 6] = b"FSHSML";
const VERSION: u16 = 1;
const MARK: &[u8; 4] = b"SML\xE7";

/// Why a small file could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SmallFileError {
    #[error("cannot {action} {path}: {cause}")]
    Io { action: &'static str, path: PathBuf, cause: String },
    /// Neither slot can be trusted: the value is lost, and what depends on it must not be guessed (law 24).
    #[error("both copies in {path} are damaged")]
    Damaged { path: PathBuf },
    #[error("{path} has format version {found}; this program reads version {known}")]
    UnknownVersion { path: PathBuf, found: u16, known: u16 },
    #[error("{bytes} bytes are more than the bound of {max}")]
    TooLarge { bytes: usize, max: usize },
    /// An earlier write failed; what is on the disk is unknown until the file is opened again (law 24).
    #[error("{path} is poisoned by an earlier failed write")]
    Poisoned { path: PathBuf },
}

/// A small durable value.
pub struct SmallFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: Option<Arc<dyn DiskFile>>,
    generation: u64,
    value: Option<Vec<u8>>,
    damaged_copy: bool,
    poisoned: bool,
}

fn encode(generation: u64, value: &[u8]) -> Vec<u8> {
    let mut slot = vec![0u8; SLOT];
    put(&mut slot, 0, MAGIC);
    put(&mut slot, 6, &VERSION.to_le_bytes());
    put(&mut slot, 8, &generation.to_le_bytes());
    put(&mut slot, 16, &(value.len() as u32).to_le_bytes());
    put(&mut slot, HEADER, value);
    let crc = crc32c::crc32c(&slot[..SLOT - FOOTER]);
    put(&mut slot, SLOT - FOOTER, &crc.to_le_bytes());
    put(&mut slot, SLOT - 4, MARK);
    slot
}

/// The generation and value in a slot, or the version that is not known, or `None` for damage.
fn decode(slot: &[u8]) -> Option<Result<(u64, Vec<u8>), u16>> {
    let sealed = slot.len() == SLOT
        && &slot[..6] == MAGIC
        && &slot[SLOT - 4..] == MARK
        && u32_at(slot, SLOT - FOOTER) == crc32c::crc32c(&slot[..SLOT - FOOTER]);
    if !sealed {
        return None;
    }
    let version = u16::from_le_bytes([slot[6], slot[7]]);
    if version != VERSION {
        return Some(Err(version));
    }
    let length = u32_at(slot, 16) as usize;
    (length <= MAX_SMALL_BYTES).then(|| Ok((u64_at(slot, 8), slot[HEADER..HEADER + length].to_vec())))
}

impl SmallFile {
    /// Opens the value at `path`; there need not be one yet. Nothing is written.
    pub fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<SmallFile, SmallFileError> {
        let mut small = SmallFile {
            disk,
            path: path.to_owned(),
            file: None,
            generation: 0,
            value: None,
            damaged_copy: false,
            poisoned: false,
        };
        match small.disk.open(path) {
            Ok(file) => small.read(file)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(small.io("open", &error)),
        }
        Ok(small)
    }

    /// The value at `path` as if there were none: for one that is damaged and given up. The next store replaces it whole.
    pub fn anew(disk: Arc<dyn Disk>, path: &Path) -> SmallFile {
        SmallFile { disk, path: path.to_owned(), file: None, generation: 0, value: None, damaged_copy: false, poisoned: false }
    }

    /// The value; `None` before the first store.
    pub fn load(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }

    /// Whether one of the two copies was damaged or older when the file was opened; the next store mends it.
    pub fn damaged_copy(&self) -> bool {
        self.damaged_copy
    }

    /// Replaces the value; durable when this returns.
    pub fn store(&mut self, value: &[u8]) -> Result<(), SmallFileError> {
        if value.len() > MAX_SMALL_BYTES {
            return Err(SmallFileError::TooLarge { bytes: value.len(), max: MAX_SMALL_BYTES });
        }
        if self.poisoned {
            return Err(SmallFileError::Poisoned { path: self.path.clone() });
        }
        // Cleared only at the end: a failed write or flush leaves the file's contents unknown (law 24).
        self.poisoned = true;
        let slot = encode(self.generation + 1, value);
        match self.file.clone() {
            Some(file) => self.write_slots(file.as_ref(), &slot)?,
            None => self.create(&slot)?,
        }
        self.generation += 1;
        self.value = Some(value.to_vec());
        self.damaged_copy = false;
        self.poisoned = false;
        Ok(())
    }

    /// Removes the value and its file, durably.
    pub fn remove(&mut self) -> Result<(), SmallFileError> {
        if self.file.take().is_some() {
            self.disk.remove(&self.path).map_err(|error| self.io("remove", &error))?;
            self.sync_dir()?;
        }
        self.value = None;
        self.poisoned = false;
        Ok(())
    }

    fn read(&mut self, file: Arc<dyn DiskFile>) -> Result<(), SmallFileError> {
        let mut bytes = vec![0u8; 2 * SLOT];
        let got = file.read_at(0, &mut bytes).map_err(|error| self.io("read", &error))?;
        bytes.truncate(got);
        let mut copies = Vec::with_capacity(2);
        for slot in bytes.chunks(SLOT) {
            match decode(slot) {
                Some(Ok(copy)) => copies.push(copy),
                Some(Err(found)) => {
                    return Err(SmallFileError::UnknownVersion { path: self.path.clone(), found, known: VERSION });
                }
                None => {}
            }
        }
        self.damaged_copy = copies.len() != 2 || copies[0] != copies[1];
        let newest = copies.into_iter().max_by_key(|copy| copy.0);
        let (generation, value) = newest.ok_or_else(|| SmallFileError::Damaged { path: self.path.clone() })?;
        self.generation = generation;
        self.value = Some(value);
        self.file = Some(file);
        Ok(())
    }

    fn write_slots(&self, file: &dyn DiskFile, slot: &[u8]) -> Result<(), SmallFileError> {
        for offset in [0, SLOT as u64] {
            file.write_at(offset, slot).map_err(|error| self.io("write", &error))?;
            file.sync_data().map_err(|error| self.io("flush", &error))?;
        }
        Ok(())
    }

    /// The first store: the file gets its name when both slots are durable, so a file without a valid slot is damage.
    fn create(&mut self, slot: &[u8]) -> Result<(), SmallFileError> {
        let mut aside = self.path.clone().into_os_string();
        aside.push(".tmp");
        let aside = PathBuf::from(aside);
        let file = self.disk.create(&aside).map_err(|error| self.io("create", &error))?;
        self.write_slots(file.as_ref(), slot)?;
        self.disk.rename(&aside, &self.path).map_err(|error| self.io("rename", &error))?;
        self.sync_dir()?;
        self.file = Some(file);
        Ok(())
    }

    fn sync_dir(&self) -> Result<(), SmallFileError> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        self.disk.sync_dir(dir).map_err(|error| self.io("flush the directory of", &error))
    }

    fn io(&self, action: &'static str, error: &std::io::Error) -> SmallFileError {
        SmallFileError::Io { action, path: self.path.clone(), cause: error.to_string() }
    }
}
