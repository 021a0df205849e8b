//! Writers that make files through a mount until they are told to stop. What a call acknowledged is remembered, and how
//! long the longest call took.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Files in one directory, so that none grows without bound.
const FILES_IN_DIRECTORY: u64 = 500;

/// Writers at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    writers: Vec<JoinHandle<Written>>,
}

/// What writers made.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// Below the directory that was written into; each holds its own name.
    pub files: Vec<PathBuf>,
    /// The longest of all calls.
    pub longest: Duration,
}

impl Load {
    /// Starts `writers` threads that make files below `root`.
    pub fn start(root: &Path, writers: usize) -> Load {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let one = |number: usize| {
            let (root, stop, written) = (root.to_owned(), stop.clone(), written.clone());
            std::thread::spawn(move || write(&root, number, &stop, &written))
        };
        Load { writers: (0..writers).map(one).collect(), stop, written }
    }

    /// Files that were acknowledged so far.
    pub fn count(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Waits until so many more files were acknowledged.
    pub fn wait_for_more(&self, files: u64, bound: Duration) {
        let goal = self.count() + files;
        crate::wait_for(&format!("{files} more files"), bound, || (self.count() >= goal).then_some(()));
    }

    /// Stops the writers; fails if any call failed.
    pub fn finish(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Written::default();
        for writer in self.writers {
            let one = writer.join().expect("no call failed");
            all.files.extend(one.files);
            all.longest = all.longest.max(one.longest);
        }
        all
    }
}

impl Written {
    /// Fails unless every file is below `root` with its content.
    pub fn assert_in(&self, root: &Path) {
        for file in &self.files {
            let content = fs::read(root.join(file)).unwrap_or_else(|error| panic!("{} is lost: {error}", file.display()));
            assert_eq!(content, file.as_os_str().as_encoded_bytes(), "{}", file.display());
        }
    }
}

fn write(root: &Path, number: usize, stop: &AtomicBool, written: &AtomicU64) -> Written {
    let mut done = Written::default();
    let timed = |what: &mut dyn FnMut() -> std::io::Result<()>, path: &Path| {
        let began = Instant::now();
        what().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        began.elapsed()
    };
    for at in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let directory = PathBuf::from(format!("w{number}-{}", at / FILES_IN_DIRECTORY));
        if at % FILES_IN_DIRECTORY == 0 {
            let path = root.join(&directory);
            done.longest = done.longest.max(timed(&mut || fs::create_dir(&path), &path));
        }
        let name = directory.join(format!("f{at}"));
        let path = root.join(&name);
        let took = timed(&mut || fs::File::create_new(&path)?.write_all(name.as_os_str().as_encoded_bytes()), &path);
        done.longest = done.longest.max(took);
        done.files.push(name);
        written.fetch_add(1, Ordering::Relaxed);
    }
    done
}
