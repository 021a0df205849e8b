//! What the kernel says of a process.

use serde::Serialize;

/// Resident memory in bytes. `file` is the mapped state, which the kernel may take back at any time.
#[derive(Debug, Default, Serialize)]
pub struct Resident {
    pub all: Option<u64>,
    pub anonymous: Option<u64>,
    pub file: Option<u64>,
    /// The most that it ever had.
    pub peak: Option<u64>,
}

pub fn resident(pid: u32) -> Resident {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let of = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    Resident { all: of("VmRSS:"), anonymous: of("RssAnon:"), file: of("RssFile:"), peak: of("VmHWM:") }
}
