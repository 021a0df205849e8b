//! From the parts of one run to the two committed files: all figures as JSON, and a short table with ratios first.
//!
//! A part is `NAME.json`, what a command printed, with `NAME.cpu`, the share of all cores that was busy meanwhile. What could not
//! run is `NAME.failed` with the reason, and becomes null with that reason. Rounds of the same measurement end in `-1`, `-2` and so
//! on; the table has their medians, and ratios are taken inside a round first, since the disk changes from minute to minute.

use crate::error::BenchError;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

mod table;

/// Callers at once, as in the run script.
const CALLERS: [u32; 4] = [1, 64, 256, 1024];
/// Of lookups and stats.
const READERS: [u32; 2] = [64, 256];
/// What stands behind each directory of the mounts' part.
const MOUNTS: [&str; 5] = ["plain", "farshore", "farshore-close", "juicefs-always", "juicefs-everysec"];
/// Threads of mdtest on the mounts.
const MOUNT_THREADS: [u32; 2] = [1, 64];
/// Of mdtest, those that are compared.
const OPERATIONS: [&str; 4] = ["file_creation", "file_stat", "file_read", "file_removal"];
const ROUNDS_MAX: u32 = 9;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory of the parts
    #[arg(long)]
    parts: PathBuf,
    /// A file of lines KEY=VALUE about the machine and the commit
    #[arg(long)]
    about: PathBuf,
    /// The files to write, without their ends `.json` and `.md`
    #[arg(long)]
    out: PathBuf,
}

/// All parts by name; the failed ones by name with their reason.
#[derive(Debug, Default)]
struct Parts {
    done: BTreeMap<String, Value>,
    failed: BTreeMap<String, String>,
}

pub fn run(args: &Args) -> Result<(), BenchError> {
    let parts = read_parts(&args.parts)?;
    let about = read(&args.about)?;
    let about: Vec<(&str, &str)> = about.lines().filter_map(|line| line.split_once('=')).collect();
    let write = |end: &str, text: &str| {
        let path = PathBuf::from(format!("{}.{end}", args.out.display()));
        std::fs::write(&path, text).map_err(|error| BenchError::new(format!("write {}", path.display()), error))
    };
    let json = serde_json::to_string_pretty(&document(&about, &parts)).expect("figures are plain data");
    write("json", &(json + "\n"))?;
    write("md", &table::of(&about, &parts))
}

fn read(path: &Path) -> Result<String, BenchError> {
    std::fs::read_to_string(path).map_err(|error| BenchError::new(format!("read {}", path.display()), error))
}

fn read_parts(dir: &Path) -> Result<Parts, BenchError> {
    let failed = |error: std::io::Error| BenchError::new(format!("read {}", dir.display()), error);
    let mut parts = Parts::default();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match path.extension().and_then(|end| end.to_str()) {
            Some("json") => {
                let text = read(&path)?;
                let value = serde_json::from_str(&text).map_err(|error| BenchError::new(format!("understand {name}"), error))?;
                let busy = read(&path.with_extension("cpu")).ok().and_then(|text| text.trim().parse::<f64>().ok());
                parts.add(name, value, busy);
            }
            Some("failed") => {
                parts.failed.insert(name, read(&path)?.trim().to_owned());
            }
            _ => {}
        }
    }
    Ok(parts)
}

impl Parts {
    fn add(&mut self, name: String, mut value: Value, cpu_busy: Option<f64>) {
        if let Some(fields) = value.as_object_mut() {
            fields.insert("cpu_busy".into(), json!(cpu_busy));
        }
        self.done.insert(name, value);
    }

    /// A figure of a part; `key` goes down by `/`.
    fn number(&self, part: &str, key: &str) -> Option<f64> {
        self.done.get(part)?.pointer(&format!("/{key}"))?.as_f64()
    }

    /// The median over the rounds of `name`.
    fn median(&self, name: &str, key: &str) -> Option<f64> {
        median((1..=ROUNDS_MAX).filter_map(|round| self.number(&format!("{name}-{round}"), key)).collect())
    }

    /// The median over the rounds of one part's figure by another's.
    fn ratio(&self, over: &str, under: &str, key: &str) -> Option<f64> {
        let of = |name: &str, round| self.number(&format!("{name}-{round}"), key);
        median((1..=ROUNDS_MAX).filter_map(|round| Some(of(over, round)? / of(under, round)?)).collect())
    }

    /// The one worker's speed by rclone's; the best of rclone's rounds counts.
    fn copy_ratio(&self) -> Option<f64> {
        Some(self.rclone_seconds()? / self.number("copy-worker", "seconds")?)
    }

    fn rclone_seconds(&self) -> Option<f64> {
        (1..=ROUNDS_MAX).filter_map(|round| self.number(&format!("copy-rclone-{round}"), "seconds")).min_by(f64::total_cmp)
    }
}

/// The middle one; of an even number the lower of the two in the middle.
fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len().saturating_sub(1) / 2).copied()
}

fn document(about: &[(&str, &str)], parts: &Parts) -> Value {
    let by = |all: &[u32], over: &str, under: &str| -> Map<String, Value> {
        let ratio = |callers| json!(parts.ratio(&format!("{over}-{callers}"), &format!("{under}-{callers}"), "ops_per_second"));
        all.iter().map(|callers| (callers.to_string(), ratio(callers))).collect()
    };
    let by_callers = |over: &str, under: &str| by(&CALLERS, over, under);
    let mdtest = |peer: &str| -> Map<String, Value> {
        let of = |threads, operation: &str| {
            let part = |peer: &str| format!("mdtest-{peer}-{threads}");
            json!(parts.ratio(&part("farshore"), &part(peer), &format!("operations/{operation}/mean")))
        };
        let all = |threads| OPERATIONS.iter().map(move |operation| (threads, *operation));
        let all = MOUNT_THREADS.into_iter().flat_map(all);
        all.map(|(threads, operation)| (format!("{operation}_{threads}"), of(threads, operation))).collect()
    };
    json!({
        "format": 2,
        "about": about.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect::<Map<_, _>>(),
        "ratios": {
            "creates_to_ceiling": by_callers("creates", "ceiling"),
            "creates_to_etcd_puts": by_callers("creates", "etcd"),
            "creates_without_mirror_to_etcd_puts": by_callers("alone", "etcd"),
            "creates_without_mirror_to_juicefs_always_256":
                parts.ratio("alone-256", "alone-juicefs-256", "ops_per_second"),
            "creates_by_one_session_without_mirror_to_juicefs_always_256":
                parts.ratio("alone-one-256", "alone-juicefs-256", "ops_per_second"),
            "lookups_to_juicefs": by(&READERS, "lookups", "juicefs-lookups"),
            "stats_to_juicefs": by(&READERS, "stats", "juicefs-stats"),
            "lookups_to_as_many_clients_of_juicefs": by(&READERS, "lookups", "juicefs-lookups-each"),
            "stats_to_as_many_clients_of_juicefs": by(&READERS, "stats", "juicefs-stats-each"),
            "lookups_by_one_session_to_juicefs": by(&READERS, "lookups-one", "juicefs-lookups"),
            "stats_by_one_session_to_juicefs": by(&READERS, "stats-one", "juicefs-stats"),
            "mirror_catching_up_to_primary": parts.number("mirror", "mirror_times_primary"),
            "creates_to_juicefs_always": by_callers("creates", "juicefs-always"),
            "creates_to_juicefs_everysec": by_callers("creates", "juicefs-everysec"),
            "untar_seconds_to_juicefs_always": parts.ratio("untar-farshore", "untar-juicefs-always", "seconds"),
            "untar_seconds_to_juicefs_everysec": parts.ratio("untar-farshore", "untar-juicefs-everysec", "seconds"),
            "untar_seconds_at_close_to_juicefs_always": parts.ratio("untar-farshore-close", "untar-juicefs-always", "seconds"),
            "untar_seconds_without_mirror_at_close_to_juicefs_always":
                parts.ratio("untar-alone-farshore-close", "untar-alone-juicefs-always", "seconds"),
            "untar_seconds_at_close_to_juicefs_everysec":
                parts.ratio("untar-farshore-close", "untar-juicefs-everysec", "seconds"),
            "untar_seconds_to_plain": parts.ratio("untar-farshore", "untar-plain", "seconds"),
            "mdtest_to_juicefs_always": mdtest("juicefs-always"),
            "mdtest_to_juicefs_everysec": mdtest("juicefs-everysec"),
            "mirror_apply_to_primary_apply": parts.median("engine-creates", "mirror_times_primary"),
            "before_images_share_of_apply": parts.median("engine-creates", "before_images_share"),
            "worker_to_rclone": parts.copy_ratio(),
        },
        "parts": parts.done,
        "missing": parts.failed.iter().map(|(name, why)| json!({ "part": name, "figures": null, "reason": why })).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Parts {
        let mut parts = Parts::default();
        for (round, creates, ceiling) in [(1, 100.0, 200.0), (2, 10.0, 10.0), (3, 90.0, 900.0)] {
            parts.add(format!("creates-64-{round}"), json!({ "ops_per_second": creates }), Some(0.5));
            parts.add(format!("ceiling-64-{round}"), json!({ "ops_per_second": ceiling }), None);
        }
        parts.add("copy-worker".into(), json!({ "seconds": 5.0 }), None);
        parts.add("copy-rclone-1".into(), json!({ "seconds": 10.0 }), None);
        parts.add("copy-rclone-2".into(), json!({ "seconds": 20.0 }), None);
        parts.failed.insert("etcd-64-1".into(), "no etcd here".into());
        parts
    }

    #[test]
    fn ratios_are_taken_inside_a_round_and_a_missing_part_is_null_with_its_reason() {
        let document = document(&[("commit", "abc")], &parts());
        assert_eq!(document["ratios"]["creates_to_ceiling"]["64"], json!(0.5));
        assert_eq!(document["ratios"]["creates_to_ceiling"]["1"], Value::Null);
        assert_eq!(document["ratios"]["creates_to_etcd_puts"]["64"], Value::Null);
        assert_eq!(document["ratios"]["worker_to_rclone"], json!(2.0));
        assert_eq!(document["missing"][0]["reason"], json!("no etcd here"));
        assert_eq!(document["parts"]["creates-64-1"]["cpu_busy"], json!(0.5));
    }

    #[test]
    fn the_table_says_null_where_there_is_no_figure() {
        let text = table::of(&[("commit", "abc")], &parts());
        assert!(text.contains("| 64 | 0.50 | null | null | null | null | 90 | 200 | null |"), "{text}");
        assert!(text.contains("| commit | abc |") && text.contains("Missing: `etcd-64-1`: no etcd here"), "{text}");
    }

    #[test]
    fn mounts_are_compared_operation_by_operation() {
        let mut parts = parts();
        let stat = |rate: f64| json!({ "operations": { "file_stat": { "mean": rate }, "file_read": null } });
        parts.add("mdtest-farshore-1-1".into(), stat(300.0), None);
        parts.add("mdtest-juicefs-always-1-1".into(), stat(100.0), None);
        parts.add("untar-farshore-1".into(), json!({ "seconds": 10.0 }), None);
        parts.add("untar-juicefs-always-1".into(), json!({ "seconds": 40.0 }), None);
        let document = document(&[], &parts);
        assert_eq!(document["ratios"]["mdtest_to_juicefs_always"]["file_stat_1"], json!(3.0));
        assert_eq!(document["ratios"]["mdtest_to_juicefs_always"]["file_read_1"], Value::Null);
        assert_eq!(document["ratios"]["untar_seconds_to_juicefs_always"], json!(0.25));
        let text = table::of(&[], &parts);
        assert!(text.contains("| `tar x` of 10,000 small files, s | null | 10.00 | null | 40.00 | null |"), "{text}");
    }

    #[test]
    fn parts_are_read_back_from_their_files() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("a.json", r#"{"seconds": 2.0}"#), ("a.cpu", "0.25\n"), ("b.failed", "why\n")] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let parts = read_parts(dir.path()).unwrap();
        assert_eq!((parts.number("a", "seconds"), parts.number("a", "cpu_busy")), (Some(2.0), Some(0.25)));
        assert_eq!(parts.failed["b"], "why");
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
    }
}
