//! The tables: mdtest's summary, and the box of `juicefs bench`, as their users know them.

use super::files::{Item, Report};
use super::tree::{Operation, Rates};
use serde_json::{Value, json};
use std::fmt::Write;

/// Most, least, mean and standard deviation of one operation's rates.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Summary {
    max: f64,
    min: f64,
    mean: f64,
    deviation: f64,
}

fn summary(rates: &[f64]) -> Option<Summary> {
    let count = rates.len() as f64;
    let max = rates.iter().copied().max_by(f64::total_cmp)?;
    let min = rates.iter().copied().min_by(f64::total_cmp)?;
    let mean = rates.iter().sum::<f64>() / count;
    let variance = rates.iter().map(|rate| (rate - mean) * (rate - mean)).sum::<f64>() / count;
    Some(Summary { max, min, mean, deviation: variance.sqrt() })
}

/// As mdtest prints it.
pub fn mdtest(rates: &Rates, iterations: u32) -> String {
    let mut text = format!("SUMMARY rate (in ops/sec): (of {iterations} iterations)\n");
    let _ = writeln!(text, "   {:<22}{:>17}{:>15}{:>15}{:>15}", "Operation", "Max", "Min", "Mean", "Std Dev");
    let _ = writeln!(text, "   {:<22}{:>17}{:>15}{:>15}{:>15}", "---------", "---", "---", "----", "-------");
    for operation in Operation::ALL {
        if let Some(Summary { max, min, mean, deviation }) = summary(&rates.of(operation)) {
            let name = operation.name();
            let _ = writeln!(text, "   {name:<22}{max:>17.3}{min:>15.3}{mean:>15.3}{deviation:>15.3}");
        }
    }
    text
}

pub fn mdtest_json(rates: &Rates) -> Value {
    let line = |operation: Operation| {
        let of = rates.of(operation);
        let key = operation.name().to_ascii_lowercase().replace(' ', "_");
        let value = summary(&of).map(|summary| {
            json!({ "max": summary.max, "min": summary.min, "mean": summary.mean, "std_dev": summary.deviation, "rates": of })
        });
        (key, json!(value))
    };
    Value::Object(Operation::ALL.into_iter().map(line).collect())
}

const HEAD: [&str; 3] = ["ITEM", "VALUE", "COST"];

/// A line of the second table: its name, what `VALUE` counts, and its figures.
fn items(report: &Report) -> [(&'static str, bool, Option<Item>); 5] {
    [
        ("Write big file", true, report.write_big),
        ("Read big file", true, report.read_big),
        ("Write small file", false, report.write_small),
        ("Read small file", false, report.read_small),
        ("Stat file", false, report.stat),
    ]
}

/// As `juicefs bench` prints it.
pub fn bench(report: &Report) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    for (name, big, item) in items(report) {
        let value = |item: Item| {
            if big { format!("{:.2} MiB/s", item.mib_per_second()) } else { format!("{:.1} files/s", item.files_per_second()) }
        };
        let cost = |item: Item| {
            let seconds = item.seconds_per_file();
            if big { format!("{seconds:.2} s/file") } else { format!("{:.2} ms/file", seconds * 1e3) }
        };
        let shown = |show: &dyn Fn(Item) -> String| item.map_or_else(|| "-".to_owned(), show);
        rows.push([name.to_owned(), shown(&value), shown(&cost)]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths = [0, 1, 2].map(width);
    let rule = format!("+{}+\n", widths.map(|width| "-".repeat(width + 2)).join("+"));
    let mut text = rule.clone();
    for (at, row) in rows.iter().enumerate() {
        let cell = |column: usize| {
            let (cell, width) = (&row[column], widths[column]);
            if at == 0 { format!(" {cell:^width$} ") } else { format!(" {cell:>width$} ") }
        };
        let _ = writeln!(text, "|{}|", [0, 1, 2].map(cell).join("|"));
        if at == 0 {
            text += &rule;
        }
    }
    text + &rule
}

pub fn bench_json(report: &Report) -> Value {
    let line = |(name, big, item): (&str, bool, Option<Item>)| {
        let value = item.map(|item| {
            let rate = if big { ("mib_per_second", item.mib_per_second()) } else { ("files_per_second", item.files_per_second()) };
            json!({ rate.0: rate.1, "seconds_per_file": item.seconds_per_file(), "files": item.files, "seconds": item.took.as_secs_f64() })
        });
        (name.to_ascii_lowercase().replace(' ', "_"), json!(value))
    };
    let mut object: serde_json::Map<String, Value> = items(report).into_iter().map(line).collect();
    object.insert("caches_dropped".to_owned(), json!(report.caches_dropped));
    Value::Object(object)
}
