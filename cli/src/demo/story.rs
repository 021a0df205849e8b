//! The steps. Each is a claim: what it says at the end was measured on the way.

use super::Step;
use super::stage::Stage;
use super::tree::{Tree, copy};
use serde_json::json;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Until the other region must have everything.
const SYNCED_MAX: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Block size of the built-in topology's volume.
const BLOCK: u64 = 4 << 20;
const HOME: &str = "us-east";
const AWAY: &str = "eu-west";

/// A step that did not hold, and why.
#[derive(Debug)]
pub struct Failed(String);

impl Failed {
    pub fn new(why: impl Into<String>) -> Failed {
        Failed(why.into())
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Failed {
        Failed(error.to_string())
    }
}

type Act = fn(&mut Stage, &mut Step) -> Result<String, Failed>;

/// The story, in order.
pub const STEPS: [(&str, Act); 6] = [
    ("start", start),
    ("write a tree", write_tree),
    ("copy to the other region", copy_blocks),
    ("kill the leader while writing", kill_leader),
    ("lose a bucket", lose_bucket),
    ("read everything from the mirror", read_back),
];

fn note(step: &mut Step, key: &str, value: impl Into<serde_json::Value>) {
    step.figures.insert(key.to_owned(), value.into());
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64)
}

fn start(stage: &mut Stage, step: &mut Step) -> Result<String, Failed> {
    stage.run(&["up"])?;
    let status = stage.status()?;
    note(step, "nodes", status.nodes.len());
    note(step, "buckets", status.buckets.len());
    let down: Vec<_> = status.nodes.iter().filter(|node| node.role == "down").map(|node| node.name.clone()).collect();
    if !down.is_empty() {
        return Err(Failed::new(format!("down: {}", down.join(", "))));
    }
    Ok(format!("{} metadata nodes in two clusters and {} bucket servers run", status.nodes.len(), status.buckets.len()))
}

/// Where the first region's files go in; without FUSE a path of the volume.
fn entrance(stage: &Stage) -> PathBuf {
    stage.dir().join("mount-us-east")
}

/// Puts a tree into the volume at `name`.
fn put(stage: &Stage, tree: &Tree, name: &str, done: &AtomicU64) -> Result<(), Failed> {
    if stage.fuse {
        let bar = stage.bar(tree.bytes(), "bytes");
        copy(tree, &entrance(stage).join(name), |bytes| {
            done.fetch_add(bytes, Ordering::Relaxed);
            bar.inc(bytes);
        })?;
        bar.finish_and_clear();
        return Ok(());
    }
    let from = tree.root.to_string_lossy().into_owned();
    stage.run(&["cp", "-r", &from, &format!("demo:/{name}")])?;
    done.store(tree.bytes(), Ordering::Relaxed);
    Ok(())
}

fn write_tree(stage: &mut Stage, step: &mut Step) -> Result<String, Failed> {
    let tree = Tree::make(&stage.dir().join("tree"), 2026)?;
    if stage.fuse {
        // It copies no blocks itself, so that the lag can be seen.
        stage.mount("mount-us-east", &["--no-bgjob"])?;
    }
    put(stage, &tree, "first", &AtomicU64::new(0))?;
    let lag = stage.lag(AWAY)?;
    let expected = tree.blocks(BLOCK);
    note(step, "files", tree.files.len());
    note(step, "bytes", tree.bytes());
    note(step, "blocks", expected);
    note(step, "blocks_behind", json!(lag.blocks_behind));
    note(step, "bytes_behind", json!(lag.bytes_behind));
    let told = format!("{} files, {}; {AWAY} owes every block of them", tree.files.len(), mib(tree.bytes()));
    let (blocks, bytes) = (expected, tree.bytes());
    stage.tree = Some(tree);
    wait_for(stage, "the lag shows every block that was written", |stage| {
        let lag = stage.lag(AWAY)?;
        Ok(lag.blocks_behind == Some(blocks) && lag.bytes_behind == Some(bytes))
    })?;
    Ok(told)
}

fn wait_for(stage: &Stage, what: &str, mut is: impl FnMut(&Stage) -> Result<bool, Failed>) -> Result<(), Failed> {
    let deadline = Instant::now() + SYNCED_MAX;
    loop {
        if is(stage)? {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Failed::new(format!("in {SYNCED_MAX:?} it did not come to pass that {what}")));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Waits until the other region has everything up to what is committed now.
fn until_synced(stage: &mut Stage) -> Result<(), Failed> {
    let goal = stage.lag(AWAY)?.committed.ok_or_else(|| Failed::new("the lag has no committed index"))?;
    let owed = stage.lag(AWAY)?.blocks_behind.unwrap_or(0);
    let bar = stage.bar(owed, "blocks");
    let mut lag = stage.lag(AWAY)?;
    wait_for(stage, "the other region is complete", |stage| {
        lag = stage.lag(AWAY)?;
        bar.set_position(owed.saturating_sub(lag.blocks_behind.unwrap_or(owed)));
        bar.set_message(format!("recoverable {} of {goal}", lag.recoverable.map_or("-".to_owned(), |index| index.to_string())));
        Ok(lag.recoverable.is_some_and(|index| index >= goal) && lag.blocks_behind == Some(0))
    })?;
    bar.finish_and_clear();
    stage.last_index = lag.recoverable.unwrap_or(0);
    Ok(())
}

fn copy_blocks(stage: &mut Stage, step: &mut Step) -> Result<String, Failed> {
    let owed = stage.lag(AWAY)?.bytes_behind.unwrap_or(0);
    stage.start_worker("worker-1")?;
    stage.start_worker("worker-2")?;
    let began = Instant::now();
    until_synced(stage)?;
    let seconds = began.elapsed().as_secs_f64();
    note(step, "bytes", owed);
    note(step, "recoverable", stage.last_index);
    Ok(format!("two workers copied {} in {seconds:.1} s; recoverable is {}, the lag is 0", mib(owed), stage.last_index))
}

fn kill_leader(stage: &mut Stage, step: &mut Step) -> Result<String, Failed> {
    let leader = |stage: &Stage| -> Result<Option<(String, u32)>, Failed> {
        let nodes = stage.status()?.nodes;
        let found = nodes.into_iter().find(|node| node.region == HOME && node.role == "leader");
        Ok(found.and_then(|node| node.pid.map(|pid| (node.name, pid))))
    };
    let (name, pid) = leader(stage)?.ok_or_else(|| Failed::new("no leader is known"))?;
    let tree = stage.tree.take().ok_or_else(|| Failed::new("there is no tree"))?;
    let done = AtomicU64::new(0);
    let result = std::thread::scope(|scope| {
        let copying = scope.spawn(|| put(stage, &tree, "second", &done));
        let deadline = Instant::now() + SYNCED_MAX;
        // In the middle of the copy; without a mount its progress is not seen, so after a moment.
        let half = if stage.fuse { tree.bytes() / 3 } else { 0 };
        while done.load(Ordering::Relaxed) < half && Instant::now() < deadline && !copying.is_finished() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let running = !copying.is_finished();
        let killed = stage.kill(pid);
        let copied = copying.join().unwrap_or_else(|_| Err(Failed::new("the copy panicked")));
        killed.and(copied).map(|()| running)
    });
    stage.tree = Some(tree);
    if !result? {
        return Err(Failed::new("the copy was over before the leader could be killed: the step showed nothing"));
    }
    let mut heir = String::new();
    wait_for(stage, "another node leads", |stage| {
        heir = leader(stage)?.map(|(name, _)| name).unwrap_or_default();
        Ok(!heir.is_empty() && heir != name)
    })?;
    note(step, "killed", name.as_str());
    note(step, "leader", heir.as_str());
    stage.run(&["up"])?;
    Ok(format!("{name} was killed in mid-copy, {heir} leads now; every call of the copy succeeded"))
}

fn lose_bucket(stage: &mut Stage, step: &mut Step) -> Result<String, Failed> {
    until_synced(stage)?;
    let bucket = stage.status()?.buckets.into_iter().find(|bucket| bucket.region == HOME);
    let pid = bucket.and_then(|bucket| bucket.pid).ok_or_else(|| Failed::new("the bucket server is not known"))?;
    stage.kill(pid)?;
    note(step, "recoverable", stage.last_index);
    Ok(format!("{AWAY} is recoverable to {}; then the bucket server of {HOME} was killed", stage.last_index))
}

fn read_back(stage: &mut Stage, step: &mut Step) -> Result<String, Failed> {
    let tree = stage.tree.take().ok_or_else(|| Failed::new("there is no tree"))?;
    let result = check_all(stage, &tree);
    let files = tree.files.len() * 2;
    note(step, "files", files);
    note(step, "bytes", tree.bytes() * 2);
    stage.tree = Some(tree);
    let wrong = result?;
    note(step, "wrong", wrong.len());
    match wrong.first() {
        None => Ok(format!("{files} files read through {AWAY}, every checksum is equal")),
        Some(first) => Err(Failed::new(format!("{} of {files} files are wrong, first {first}", wrong.len()))),
    }
}

fn check_all(stage: &mut Stage, tree: &Tree) -> Result<Vec<String>, Failed> {
    let root = if stage.fuse {
        stage.mount("mount-eu-west", &["--region", AWAY, "--read-only"])?
    } else {
        let out = stage.dir().join("read-back");
        std::fs::create_dir_all(&out)?;
        for name in ["first", "second"] {
            let to = out.join(name).to_string_lossy().into_owned();
            stage.run(&["cp", "-r", &format!("demo:/{name}"), &to, "--region", AWAY])?;
        }
        out
    };
    let bar = stage.bar(tree.bytes() * 2, "bytes");
    let mut wrong = check(tree, &root.join("first"), &bar);
    wrong.extend(check(tree, &root.join("second"), &bar));
    bar.finish_and_clear();
    Ok(wrong)
}

fn check(tree: &Tree, root: &Path, bar: &indicatif::ProgressBar) -> Vec<String> {
    tree.differences(root, |bytes| bar.inc(bytes))
}
