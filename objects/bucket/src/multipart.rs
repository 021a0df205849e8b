//! Multipart uploads under way.
//!
//! They live in memory with their parts in files aside; a restart forgets them and removes the files, which S3 allows:
//! clients hear `NoSuchUpload` and start over. When too many are open, the one that was touched longest ago is given up.

use farshore_objects::store::{Md5Tag, Parked, Store, StoreError, Writer};
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::{CompletedPart, Part, PartNumber};
use s3s::{S3Result, s3_error};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Uploads open at a time.
const UPLOADS_MAX: usize = 256;
/// Highest number of a part, as in S3.
const PART_NUMBER_MAX: PartNumber = 10_000;

/// A part received whole.
#[derive(Clone)]
struct StoredPart {
    data: Arc<Parked>,
    md5: [u8; 16],
}

struct Upload {
    key: String,
    headers: BTreeMap<String, String>,
    parts: BTreeMap<PartNumber, StoredPart>,
    touched: u64,
}

#[derive(Default)]
struct Table {
    uploads: HashMap<String, Upload>,
    /// Counts operations, to know which upload was touched longest ago.
    clock: u64,
}

/// All uploads under way.
#[derive(Default)]
pub(crate) struct Uploads {
    table: Mutex<Table>,
}

/// An upload that can be put together.
pub(crate) struct Assembly {
    pub(crate) headers: BTreeMap<String, String>,
    parts: Vec<StoredPart>,
}

impl Uploads {
    /// Opens an upload. `id` must be new and hard to guess.
    pub(crate) fn create(&self, id: String, key: String, headers: BTreeMap<String, String>) {
        let mut table = self.table();
        if table.uploads.len() >= UPLOADS_MAX {
            let oldest = table.uploads.iter().min_by_key(|(_, upload)| upload.touched).map(|(id, _)| id.clone());
            if let Some(oldest) = oldest {
                tracing::warn!(upload = oldest, "gave up the oldest of {UPLOADS_MAX} multipart uploads");
                table.uploads.remove(&oldest);
            }
        }
        table.clock += 1;
        let upload = Upload { key, headers, parts: BTreeMap::new(), touched: table.clock };
        table.uploads.insert(id, upload);
    }

    /// Refuses early what [`Uploads::add`] would refuse after the content was received.
    pub(crate) fn check(&self, id: &str, key: &str, number: PartNumber) -> S3Result<()> {
        if !(1..=PART_NUMBER_MAX).contains(&number) {
            return Err(s3_error!(InvalidArgument, "part numbers go from 1 to {PART_NUMBER_MAX}"));
        }
        self.table().upload(id, key).map(|_| ())
    }

    /// Adds or replaces a part.
    pub(crate) fn add(&self, id: &str, key: &str, number: PartNumber, writer: Writer, md5: [u8; 16]) -> S3Result<()> {
        let part = StoredPart { data: Arc::new(writer.park()), md5 };
        self.table().upload(id, key)?.parts.insert(number, part);
        Ok(())
    }

    /// The parts so far.
    pub(crate) fn parts(&self, id: &str, key: &str) -> S3Result<Vec<Part>> {
        let mut table = self.table();
        let parts = table.upload(id, key)?.parts.iter().map(|(number, part)| Part {
            part_number: Some(*number),
            size: Some(part.data.size() as i64),
            e_tag: Some(s3s::dto::ETag::Strong(crate::answer::hex(&part.md5))),
            ..Default::default()
        });
        Ok(parts.collect())
    }

    /// What the client wants put together; the upload stays open until [`Uploads::remove`].
    pub(crate) fn assemble(&self, id: &str, key: &str, wanted: &[CompletedPart]) -> S3Result<Assembly> {
        let mut table = self.table();
        let upload = table.upload(id, key)?;
        let mut parts = Vec::with_capacity(wanted.len());
        let mut previous = 0;
        for part in wanted {
            let number = part.part_number.unwrap_or(0);
            if number <= previous {
                return Err(s3_error!(InvalidPartOrder, "part {number} comes behind part {previous}"));
            }
            previous = number;
            let stored = upload
                .parts
                .get(&number)
                .filter(|stored| part.e_tag.as_ref().is_none_or(|tag| tag.value() == crate::answer::hex(&stored.md5)));
            let Some(stored) = stored else {
                return Err(s3_error!(InvalidPart, "part {number} was not received with that ETag"));
            };
            parts.push(stored.clone());
        }
        if parts.is_empty() {
            return Err(s3_error!(InvalidRequest, "an upload is completed with at least one part"));
        }
        Ok(Assembly { headers: upload.headers.clone(), parts })
    }

    pub(crate) fn remove(&self, id: &str, key: &str) -> S3Result<()> {
        let mut table = self.table();
        table.upload(id, key)?;
        table.uploads.remove(id);
        Ok(())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn upload(&mut self, id: &str, key: &str) -> S3Result<&mut Upload> {
        self.clock += 1;
        match self.uploads.get_mut(id).filter(|upload| upload.key == key) {
            Some(upload) => {
                upload.touched = self.clock;
                Ok(upload)
            }
            None => Err(s3_error!(NoSuchUpload, "no upload of that key has this id; it may have been given up: start over")),
        }
    }
}

impl Assembly {
    /// Writes the parts one behind the other.
    pub(crate) fn write(&self, store: &Store) -> Result<(Writer, Md5Tag), StoreError> {
        let mut writer = store.write()?;
        let mut md5 = Md5::new();
        for part in &self.parts {
            part.data.append_to(&mut writer)?;
            md5.update(&part.md5);
        }
        let parts = u32::try_from(self.parts.len()).expect("part numbers are bounded");
        Ok((writer, Md5Tag { md5: md5.finalize(), parts }))
    }
}
