//! Small runs of each measurement: that its figures are of what it says.

use crate::cluster::{Cluster, US};
use crate::load::{Load, LoadArgs};
use crate::usage;
use clap::Parser;
use farshore_meta::kv::{Lmdb, Space, Store};
use farshore_types::SliceId;

#[derive(Parser)]
struct Small {
    #[command(flatten)]
    load: LoadArgs,
}

fn load(words: &[&str]) -> LoadArgs {
    Small::parse_from([&["small"], words].concat()).load
}

fn filled(files: u64, words: &[&str], keep_undo: bool) -> (tempfile::TempDir, Cluster) {
    let temp = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(US, Lmdb::open(temp.path()).unwrap(), keep_undo, "");
    let mut load = Load::begin(load(words), &mut cluster).unwrap();
    assert_eq!(load.run(&mut cluster, files).unwrap(), files);
    (temp, cluster)
}

fn rows(cluster: &Cluster, space: Space) -> usize {
    cluster.store.read().unwrap().scan(space, &[], None).unwrap().count()
}

#[test]
fn the_state_has_each_file_once_with_its_block() {
    let (temp, cluster) = filled(700, &["--shape", "files", "--per-dir", "300", "--batch", "50"], true);
    {
        let kv = cluster.store.read().unwrap();
        assert_eq!(farshore_meta::digest(&*kv).unwrap(), farshore_meta::digest_of(&*kv).unwrap());
        assert_eq!(farshore_meta::live_slices(&*kv, SliceId(0), None).unwrap().count(), 700);
    }
    assert!(rows(&cluster, Space::Undo) > 0);
    drop(cluster);
    let usage = usage::measure(temp.path(), 700).unwrap();
    // 700 files, 3 directories and the root.
    assert_eq!(usage.spaces["shared"].kinds["i"].rows, 704);
    assert!(usage.page_bytes_per_file > 50.0);
    let reads = crate::reads::run(temp.path(), &load(&["--per-dir", "300"]), 700, 500).unwrap();
    assert_eq!(reads.questions, 500);
}

#[test]
fn a_transaction_with_more_than_the_sessions_may_ask_is_refused_by_name() {
    for words in [&["--batch", "256", "--group", "17"][..], &["--dirs", "4097"]] {
        let temp = tempfile::tempdir().unwrap();
        let mut cluster = Cluster::new(US, Lmdb::open(temp.path()).unwrap(), true, "");
        let refused = Load::begin(load(words), &mut cluster).err().unwrap().to_string();
        assert!(refused.contains("may have 1024") && refused.contains("--sessions"), "{refused}");
    }
}

#[test]
fn the_one_without_before_images_has_the_same_state() {
    let (_temp, with) = filled(300, &[], true);
    let (_temp, without) = filled(300, &[], false);
    let digest = |cluster: &Cluster| farshore_meta::digest(&*cluster.store.read().unwrap()).unwrap();
    assert_eq!(digest(&with), digest(&without));
    assert_eq!(rows(&without, Space::Undo), 0);
}
