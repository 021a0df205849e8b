//! What goes to stdout: tables for people, JSON for scripts.

use serde::Serialize;
use std::io::Write;

/// Writes to stdout. A reader that went away (`| head`) ends the program quietly.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if let Err(error) = written {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        eprintln!("error: cannot write to stdout: {error}");
        std::process::exit(1);
    }
}

/// Pretty JSON, one value.
pub fn print_json(value: &impl Serialize) {
    let text = serde_json::to_string_pretty(value).expect("views are plain data and always serialise");
    print(&(text + "\n"));
}

/// Columns as wide as their widest cell, two spaces apart; no space at the end of a line.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(head: &[&str]) -> Table {
        Table { rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.rows[0].len(), "a row has a cell for each column");
        self.rows.push(cells);
    }

    pub fn render(&self) -> String {
        let width = |at: usize| self.rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.rows[0].len()).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// `12.3 GiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut scaled = count as f64;
    let mut unit = 0;
    while scaled >= 1024.0 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{scaled:.1} {}", UNITS[unit]) }
}

/// `0.1 s`, `41 s`, `3m12s`, `2h01m`.
pub fn seconds(age: f64) -> String {
    let whole = age.max(0.0) as u64;
    match whole {
        0..=9 => format!("{age:.1} s"),
        10..=119 => format!("{whole} s"),
        120..=7199 => format!("{}m{:02}s", whole / 60, whole % 60),
        _ => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
    }
}

/// A figure that may be unknown (law 28).
pub fn known<T>(figure: Option<T>, show: impl FnOnce(T) -> String) -> String {
    figure.map_or_else(|| "-".to_owned(), show)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_read_well() {
        assert_eq!([bytes(0), bytes(1023), bytes(4 << 20), bytes(12_777_728_409)], ["0 B", "1023 B", "4.0 MiB", "11.9 GiB"]);
        assert_eq!([seconds(0.12), seconds(41.7), seconds(192.0), seconds(7290.0)], ["0.1 s", "41 s", "3m12s", "2h01m"]);
        assert_eq!(known(None::<u64>, |figure| figure.to_string()), "-");
    }

    #[test]
    fn tables_line_up() {
        let mut table = Table::new(&["A", "LONG", "Z"]);
        table.row(vec!["four".into(), "x".into(), String::new()]);
        assert_eq!(table.render(), "A     LONG  Z\nfour  x\n");
    }
}
