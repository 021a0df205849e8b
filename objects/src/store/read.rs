//! Reading.

use super::format::{FOOTER_BYTES, FormatError, ObjectInfo};
use super::write::is_absent;
use super::{Store, StoreError, path};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::PoisonError;

/// Bytes read at the end of a file in the hope that they hold all headers.
const TAIL_READ_BYTES: usize = 512;

/// An open object. What is read is the version that was there at the opening, whatever happens to the key.
#[derive(Debug)]
pub struct Reader {
    file: File,
    key: String,
    info: ObjectInfo,
}

impl Store {
    /// Opens the object. Waits for a write of the same key to be durable, so that nobody acts on what may vanish.
    pub fn read(&self, key: &str) -> Result<Reader, StoreError> {
        let path = path::of_key(&self.root, key)?;
        let _key = self.key_lock(&path).read().unwrap_or_else(PoisonError::into_inner);
        let file = File::open(&path).map_err(|error| {
            if is_absent(&error) { StoreError::NotFound { key: key.to_owned() } } else { StoreError::io("open", &path)(error) }
        })?;
        let info = read_info(&file, &path)?.map_err(|why| StoreError::Damaged { key: key.to_owned(), why })?;
        Ok(Reader { file, key: key.to_owned(), info })
    }
}

impl Reader {
    /// What is known of the object.
    pub fn info(&self) -> &ObjectInfo {
        &self.info
    }

    /// All data, its checksum verified (law 16). Only for objects that fit into memory.
    pub fn all(&self) -> Result<Vec<u8>, StoreError> {
        let data = self.range(0..self.info.size)?;
        let found = crc32c::crc32c(&data);
        self.verify(found)?;
        Ok(data)
    }

    /// Compares the checksum of the whole data, taken by a caller that read it in pieces.
    pub fn verify(&self, found: u32) -> Result<(), StoreError> {
        if found != self.info.crc32c {
            return Err(StoreError::Corrupt { key: self.key.clone(), expected: self.info.crc32c, found });
        }
        Ok(())
    }

    /// The bytes of `range`, which is cut at the end of the object; an empty range has none.
    pub fn range(&self, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        if range.start >= self.info.size {
            return Err(StoreError::BeyondEnd { key: self.key.clone(), start: range.start, size: self.info.size });
        }
        let length = (range.end.min(self.info.size) - range.start) as usize;
        let mut data = vec![0; length];
        self.file.read_exact_at(&mut data, range.start).map_err(StoreError::io("read", Path::new(&self.key)))?;
        Ok(data)
    }
}

/// Reads the tail of an object's file.
pub(super) fn read_info(file: &File, path: &Path) -> Result<Result<ObjectInfo, FormatError>, StoreError> {
    let file_bytes = file.metadata().map_err(StoreError::io("look at", path))?.len();
    let decoded = decode_end(file, file_bytes).map_err(StoreError::io("read", path))?;
    Ok(decoded)
}

fn decode_end(file: &File, file_bytes: u64) -> io::Result<Result<ObjectInfo, FormatError>> {
    if file_bytes < FOOTER_BYTES as u64 {
        return Ok(Err(FormatError::Short));
    }
    let mut wanted = TAIL_READ_BYTES;
    // The first answer says how much is needed, so the second try has it all.
    for _ in 0..2 {
        let length = file_bytes.min(wanted as u64);
        let mut end = vec![0; length as usize];
        file.read_exact_at(&mut end, file_bytes - length)?;
        match ObjectInfo::decode_tail(&end, file_bytes) {
            Ok(Ok(info)) => return Ok(Ok(info)),
            Ok(Err(needed)) => wanted = needed,
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Err(FormatError::Lengths))
}
