//! A disk in memory that knows what is durable, and can fail.

use crate::format::SECTOR;
use crate::{Disk, DiskFile};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

/// How long a flush waits for its release.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

#[derive(Default)]
struct Data {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that a failed flush marked clean, as a kernel does: no later flush writes them, unless they change again.
    lost: std::collections::BTreeSet<usize>,
}

/// What is planted, and what is counted.
#[derive(Default)]
pub struct Control {
    pub syncs: AtomicU64,
    pub writes: AtomicU64,
    pub fail_next_sync: AtomicBool,
    pub fail_next_write: AtomicBool,
    /// How many bytes may still be added; 0: no limit is set.
    pub space: Mutex<Option<u64>>,
    /// While this is true, flushes wait.
    held: Mutex<bool>,
    released: Condvar,
}

impl Control {
    pub fn hold(&self) {
        *self.held.lock().unwrap() = true;
    }

    pub fn release(&self) {
        *self.held.lock().unwrap() = false;
        self.released.notify_all();
    }
}

struct MemFile {
    data: Mutex<Data>,
    control: Arc<Control>,
}

type Names = BTreeMap<PathBuf, Arc<MemFile>>;

#[derive(Clone, Default)]
pub struct MemDisk {
    names: Arc<Mutex<(Names, Names)>>,
    pub control: Arc<Control>,
}

impl MemFile {
    fn grow(&self, data: &mut Data, end: usize) -> io::Result<()> {
        if end > data.live.len() {
            if let Some(space) = self.control.space.lock().unwrap().as_mut() {
                let more = (end - data.live.len()) as u64;
                *space = space.checked_sub(more).ok_or(ErrorKind::StorageFull)?;
            }
            data.live.resize(end, 0);
        }
        Ok(())
    }
}

impl DiskFile for MemFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.control.writes.fetch_add(1, Ordering::SeqCst);
        let mut data = self.data.lock().unwrap();
        let from = offset as usize;
        if self.control.fail_next_write.swap(false, Ordering::SeqCst) {
            let half = bytes.len() / 2;
            self.grow(&mut data, from + half)?;
            data.live[from..from + half].copy_from_slice(&bytes[..half]);
            return Err(io::Error::other("planted write error"));
        }
        self.grow(&mut data, from + bytes.len())?;
        data.live[from..from + bytes.len()].copy_from_slice(bytes);
        let touched = from / SECTOR..(from + bytes.len()).div_ceil(SECTOR);
        data.lost.retain(|sector| !touched.contains(sector));
        Ok(())
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let data = self.data.lock().unwrap();
        let from = (offset as usize).min(data.live.len());
        let count = bytes.len().min(data.live.len() - from);
        bytes[..count].copy_from_slice(&data.live[from..from + count]);
        Ok(count)
    }

    fn sync_data(&self) -> io::Result<()> {
        // Bounded, so that a test that fails while it holds the disk ends.
        let held = self.control.held.lock().unwrap();
        drop(self.control.released.wait_timeout_while(held, PATIENCE, |held| *held).unwrap());
        self.control.syncs.fetch_add(1, Ordering::SeqCst);
        let mut data = self.data.lock().unwrap();
        let Data { live, durable, lost } = &mut *data;
        durable.resize(live.len(), 0);
        let fails = self.control.fail_next_sync.swap(false, Ordering::SeqCst);
        for (at, (to, from)) in durable.chunks_mut(SECTOR).zip(live.chunks(SECTOR)).enumerate() {
            if fails && to != from {
                lost.insert(at);
            } else if !lost.contains(&at) {
                to.copy_from_slice(from);
            }
        }
        if fails { Err(io::Error::other("planted flush error")) } else { Ok(()) }
    }

    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        let mut data = self.data.lock().unwrap();
        self.grow(&mut data, bytes as usize)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.data.lock().unwrap().live.len() as u64)
    }
}

impl MemDisk {
    /// The disk after a power cut: of everything that was not durable, what `keep` says survives, name by name and
    /// sector by sector.
    pub fn crash(&self, mut keep: impl FnMut() -> bool) -> MemDisk {
        let (live, durable) = &*self.names.lock().unwrap();
        let after = MemDisk::default();
        let mut names = Names::new();
        let paths: std::collections::BTreeSet<_> = live.keys().chain(durable.keys()).collect();
        for path in paths {
            let same = matches!((live.get(path), durable.get(path)), (Some(a), Some(b)) if Arc::ptr_eq(a, b));
            let side = if same || keep() { live } else { durable };
            let Some(file) = side.get(path) else { continue };
            let data = file.data.lock().unwrap();
            let mut bytes = data.durable.clone();
            bytes.resize(data.live.len().max(bytes.len()), 0);
            for (to, from) in bytes.chunks_mut(SECTOR).zip(data.live.chunks(SECTOR)) {
                if to != from && keep() {
                    to.copy_from_slice(from);
                }
            }
            let data = Mutex::new(Data { live: bytes.clone(), durable: bytes, ..Data::default() });
            names.insert(path.clone(), Arc::new(MemFile { data, control: after.control.clone() }));
        }
        *after.names.lock().unwrap() = (names.clone(), names);
        after
    }

    /// A copy of what is visible now, as after a killed process.
    pub fn copy(&self) -> MemDisk {
        self.crash(|| true)
    }

    pub fn files(&self) -> Vec<PathBuf> {
        self.names.lock().unwrap().0.keys().cloned().collect()
    }

    pub fn segments(&self) -> Vec<PathBuf> {
        self.files().into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "seg")).collect()
    }

    pub fn bytes(&self, path: &Path) -> Vec<u8> {
        self.names.lock().unwrap().0[path].data.lock().unwrap().live.clone()
    }

    pub fn replace(&self, path: &Path, bytes: Vec<u8>) {
        let names = self.names.lock().unwrap();
        let mut data = names.0[path].data.lock().unwrap();
        data.durable = bytes.clone();
        data.live = bytes;
    }

    pub fn flip(&self, path: &Path, at: usize, mask: u8) {
        let mut bytes = self.bytes(path);
        bytes[at] ^= mask;
        self.replace(path, bytes);
    }
}

impl Disk for MemDisk {
    fn create_dir_all(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        match self.names.lock().unwrap().0.get(path) {
            Some(file) => Ok(file.clone()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = Arc::new(MemFile { data: Mutex::default(), control: self.control.clone() });
        self.names.lock().unwrap().0.insert(path.to_owned(), file.clone());
        Ok(file)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let inside = |path: &PathBuf| path.parent() == Some(dir);
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        Ok(self.files().into_iter().filter(inside).map(name).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut names = self.names.lock().unwrap();
        let file = names.0.remove(from).ok_or(ErrorKind::NotFound)?;
        names.0.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = self.names.lock().unwrap().0.remove(path).ok_or(ErrorKind::NotFound)?;
        if let Some(space) = self.control.space.lock().unwrap().as_mut() {
            *space += removed.data.lock().unwrap().live.len() as u64;
        }
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut names = self.names.lock().unwrap();
        names.1 = names.0.clone();
        Ok(())
    }
}
