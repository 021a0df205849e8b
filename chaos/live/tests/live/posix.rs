//! The file system's behaviour through real mounts (issue point 4).

use crate::leases::wait_for_leases;
use farshore_live::{Mount, MountSpec, World, WorldOptions, differential, fuse};
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// `FARSHORE_SEED` runs another seed.
const SEED: u64 = 20_261_120;
const OPERATIONS: usize = 2000;
const ENTRIES: usize = 100_000;

fn small() -> World {
    World::start(WorldOptions { nodes: 1, block_size: "64KiB" })
}

fn mount(world: &World, name: &str) -> Mount {
    world.mount(MountSpec { name, ..MountSpec::default() })
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

fn answers_as_a_local_directory(flags: &[&str]) {
    if !fuse::require_fuse() {
        return;
    }
    let world = small();
    let mount = world.mount(MountSpec { name: "a", flags, ..MountSpec::default() });
    let seed = std::env::var("FARSHORE_SEED").map_or(SEED, |seed| seed.parse().expect("FARSHORE_SEED is a number"));
    if !flags.is_empty() {
        wait_for_leases(&mount, &world.mount(MountSpec { name: "b", ..MountSpec::default() }));
    }
    let tested = mount.join("tested");
    fs::create_dir(&tested).unwrap();
    let local = world.scratch("local");
    differential::run(&tested, &local, seed, OPERATIONS)
        .unwrap_or_else(|what| panic!("{what}; run it again with FARSHORE_SEED={seed}"));
    mount.unmount();
}

#[test]
fn random_operations_answer_as_on_a_local_directory() {
    answers_as_a_local_directory(&[]);
}

#[test]
fn random_operations_answer_so_also_where_files_are_made_at_their_close() {
    answers_as_a_local_directory(&["--durable", "close"]);
}

#[test]
fn a_sparse_file_reads_as_zeros_where_nothing_was_written() {
    if !fuse::require_fuse() {
        return;
    }
    let world = small();
    let mount = mount(&world, "a");
    let path = mount.join("sparse");
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    // Across the border of the first chunk of 64 MiB.
    const FAR: u64 = (64 << 20) - 3;
    file.write_all_at(b"border", FAR).unwrap();
    file.write_all_at(b"start", 0).unwrap();
    assert_eq!(file.metadata().unwrap().len(), FAR + 6);
    file.sync_all().unwrap();
    drop(file);
    let mut file = File::open(&path).unwrap();
    let mut found = [1u8; 16];
    file.read_exact(&mut found).unwrap();
    assert_eq!(&found, b"start\0\0\0\0\0\0\0\0\0\0\0");
    file.seek(SeekFrom::Start(FAR - 4)).unwrap();
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).unwrap();
    assert_eq!(tail, b"\0\0\0\0border");
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(3).unwrap();
    file.set_len(8).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"sta\0\0\0\0\0");
}

#[test]
fn appends_of_two_mounts_follow_each_other_from_close_to_open() {
    if !fuse::require_fuse() {
        return;
    }
    let world = small();
    let (left, right) = (mount(&world, "a"), mount(&world, "b"));
    let append = |mount: &Mount, text: &str| {
        let mut file = OpenOptions::new().append(true).create(true).open(mount.join("log")).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    let mut expected = String::new();
    for round in 0..20 {
        for (mount, name) in [(&left, "left"), (&right, "right")] {
            let line = format!("{name} {round}\n");
            append(mount, &line);
            expected.push_str(&line);
        }
    }
    assert_eq!(fs::read_to_string(left.join("log")).unwrap(), expected);
    assert_eq!(fs::read_to_string(right.join("log")).unwrap(), expected);
}

#[test]
fn what_one_mount_closed_another_sees_when_it_opens() {
    if !fuse::require_fuse() {
        return;
    }
    let world = small();
    let (left, right) = (mount(&world, "a"), mount(&world, "b"));
    fs::write(left.join("file"), "0").unwrap();
    for round in 0..30usize {
        // Longer and shorter in turn, and at every other round under a new inode.
        let content = format!("round {round} {}", "x".repeat(round * 7919 % 5000));
        if round % 2 == 0 {
            fs::write(left.join("file"), &content).unwrap();
        } else {
            fs::write(left.join("new"), &content).unwrap();
            fs::rename(left.join("new"), left.join("file")).unwrap();
        }
        assert_eq!(fs::read_to_string(right.join("file")).unwrap(), content, "round {round}");
    }
    fs::remove_file(left.join("file")).unwrap();
    let gone = farshore_live::wait_for("the name to be gone", Duration::from_secs(10), || File::open(right.join("file")).err());
    assert_eq!(gone.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn a_removed_file_lives_until_it_is_closed() {
    if !fuse::require_fuse() {
        return;
    }
    let world = small();
    let (left, right) = (mount(&world, "a"), mount(&world, "b"));
    let content = vec![7u8; 200_000];
    fs::write(left.join("file"), &content).unwrap();
    let mut held = OpenOptions::new().read(true).write(true).open(left.join("file")).unwrap();
    fs::remove_file(left.join("file")).unwrap();
    let mut far = File::open(left.join("file")).map(drop).unwrap_err();
    assert_eq!(far.kind(), std::io::ErrorKind::NotFound);
    assert_eq!(held.metadata().unwrap().nlink(), 0);
    held.write_all_at(b"still", 199_998).unwrap();
    let mut found = Vec::new();
    held.read_to_end(&mut found).unwrap();
    assert_eq!(found.len(), 200_003);
    assert_eq!(&found[199_998..], b"still");
    // Also when another client removes it.
    fs::write(left.join("other"), &content).unwrap();
    let held = File::open(left.join("other")).unwrap();
    fs::remove_file(right.join("other")).unwrap();
    let mut found = vec![0; content.len()];
    held.read_exact_at(&mut found, 0).unwrap();
    assert_eq!(found, content);
    far = farshore_live::wait_for("the name to be gone", Duration::from_secs(10), || File::open(left.join("other")).err());
    assert_eq!(far.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn times_are_set_to_the_nanosecond_also_before_1970_and_can_be_left_alone() {
    if !fuse::require_fuse() {
        return;
    }
    let world = small();
    let mount = mount(&world, "a");
    let path = mount.join("file");
    let file = File::create(&path).unwrap();
    let early = UNIX_EPOCH - Duration::new(1, 250_000_000);
    let late = UNIX_EPOCH + Duration::new(4_000_000_000, 123_456_789);
    file.set_times(fs::FileTimes::new().set_accessed(early).set_modified(late)).unwrap();
    let found = fs::metadata(&path).unwrap();
    assert_eq!((found.accessed().unwrap(), found.modified().unwrap()), (early, late));
    let name = c_path(&path);
    let omit = libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT };
    let now = libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW };
    let times = [omit, now];
    // SAFETY: the string and the two times live until the call returns.
    assert_eq!(unsafe { libc::utimensat(libc::AT_FDCWD, name.as_ptr(), times.as_ptr(), 0) }, 0);
    let found = fs::metadata(&path).unwrap();
    assert_eq!(found.accessed().unwrap(), early, "UTIME_OMIT leaves a time alone");
    assert!(found.modified().unwrap() < late, "UTIME_NOW is the present");
}

#[test]
fn statfs_tells_use_and_room() {
    if !fuse::require_fuse() {
        return;
    }
    let world = small();
    let mount = mount(&world, "a");
    let name = c_path(mount.path());
    let statfs = || {
        let mut found = std::mem::MaybeUninit::<libc::statvfs>::uninit();
        // SAFETY: the string and the buffer live until the call returns, which fills the buffer when it succeeds.
        unsafe {
            assert_eq!(libc::statvfs(name.as_ptr(), found.as_mut_ptr()), 0);
            found.assume_init()
        }
    };
    let before = statfs();
    assert!(before.f_bavail > 0 && before.f_ffree > 0 && before.f_namemax == 255);
    fs::write(mount.join("file"), vec![1u8; 3 << 20]).unwrap();
    let after = farshore_live::wait_for("the figures to move", Duration::from_secs(30), || {
        let now = statfs();
        (now.f_blocks > before.f_blocks).then_some(now)
    });
    let used = (after.f_blocks - after.f_bfree) * after.f_frsize;
    assert!(used >= 3 << 20, "{used} bytes used");
}

#[test]
fn a_directory_of_100_000_entries_is_listed_whole_and_once() {
    if !fuse::require_fuse() {
        return;
    }
    let world = small();
    let mount = mount(&world, "a");
    // A kernel makes one name of a directory at a time; without it many are under way at once.
    let local = tempfile::tempdir().unwrap();
    for at in 0..ENTRIES {
        fs::write(local.path().join(format!("entry-{at:06}")), b"").unwrap();
    }
    let copied = world.cli(&["cp", "-r", local.path().to_str().unwrap(), "demo:/many"]);
    assert!(copied.status.success(), "{}", copied.stderr);
    let directory = mount.join("many");
    let list = |directory: &Path| {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let expected: Vec<_> = (0..ENTRIES).map(|at| format!("entry-{at:06}")).collect();
    assert!(list(&directory) == expected, "the creator sees every entry once");
    let other = self::mount(&world, "b");
    assert!(list(&other.join("many")) == expected, "and so does another client");
}
