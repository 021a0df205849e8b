//! `farshore bench`: big and small files, in the table that users of `juicefs bench` know.

use crate::error::{CliError, Done, EXIT_DONE};
use crate::measure::files::{Files, Sizes};
use crate::measure::{Place, run as measure, table};
use crate::output::{bytes, print, print_json};
use farshore_types::topology::units::parse_size;
use serde_json::json;
use std::time::Instant;

/// Largest block and largest small file: each thread holds one in memory.
const PIECE_MAX: u64 = 256 << 20;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// What a big file is written and read in; a bare number is MiB
    #[arg(long, value_name = "SIZE", default_value = "1MiB")]
    block_size: String,
    /// One for each thread; a bare number is MiB; 0 leaves big files out
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    big_file_size: String,
    /// A bare number is KiB; 0 leaves small files out
    #[arg(long, value_name = "SIZE", default_value = "128KiB")]
    small_file_size: String,
    /// For each thread
    #[arg(long, value_name = "N", default_value_t = 100)]
    small_file_count: u64,
    /// Read what the kernel has cached; without this root drops the caches of the whole machine before reading
    #[arg(long)]
    keep_caches: bool,
}

pub async fn run(args: Args) -> Done {
    let sizes = Sizes {
        block: size("--block-size", &args.block_size, 1 << 20, PIECE_MAX)?,
        big_file: size("--big-file-size", &args.big_file_size, 1 << 20, u64::MAX >> 20)?,
        small_file: size("--small-file-size", &args.small_file_size, 1 << 10, PIECE_MAX)?,
        small_files: args.small_file_count,
        drop_caches: !args.keep_caches,
    };
    if sizes.block == 0 {
        return Err(CliError::usage("--block-size is 0", "give it a size such as 1MiB"));
    }
    let begun = Instant::now();
    let report = measure(&args.place, Files(sizes.clone())).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let (cpu, memory) = used();
    if args.place.json {
        let about =
            json!({ "place": args.place.place, "threads": args.place.threads, "sessions": args.place.sessions, "sizes": sizes });
        let used = json!({ "seconds": seconds, "cpu_seconds": cpu, "memory_bytes": memory });
        print_json(&json!({ "load": about, "items": table::bench_json(&report), "used": used }));
        return Ok(EXIT_DONE);
    }
    print(&format!(
        "BlockSize: {}, BigFileSize: {}, SmallFileSize: {}, SmallFileCount: {}, NumThreads: {}\n",
        bytes(sizes.block),
        bytes(sizes.big_file),
        bytes(sizes.small_file),
        sizes.small_files,
        args.place.threads,
    ));
    let cached = if report.caches_dropped { "" } else { "; the kernel's caches were kept" };
    print(&format!("Time used: {seconds:.1} s, CPU: {:.1}%, Memory: {}{cached}\n", cpu / seconds * 100.0, bytes(memory)));
    print(&table::bench(&report));
    Ok(EXIT_DONE)
}

/// A size with its unit, or a bare number of `scale` bytes as in JuiceFS.
fn size(key: &str, text: &str, scale: u64, max: u64) -> Result<u64, CliError> {
    let bare = text.parse::<u64>().ok();
    let bytes = match bare {
        Some(count) => count.checked_mul(scale),
        None => parse_size(text).map(|size| size.0),
    };
    match bytes {
        Some(bytes) if bytes <= max => Ok(bytes),
        Some(_) => Err(CliError::usage(format!("{key} {text}: too large"), format!("at most {max} bytes"))),
        None => Err(CliError::usage(format!("{key}: {text:?} is no size"), "write 128KiB, 1MiB, 1GiB")),
    }
}

/// CPU seconds and the most memory that this process has used. Of a mount's own process nothing is known here.
fn used() -> (f64, u64) {
    // SAFETY: all zeros is a valid rusage, and the call fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    (seconds(usage.ru_utime) + seconds(usage.ru_stime), usage.ru_maxrss as u64 * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_numbers_have_juicefs_s_units() {
        assert_eq!(size("k", "4", 1 << 20, u64::MAX).unwrap(), 4 << 20);
        assert_eq!(size("k", "4KiB", 1 << 20, u64::MAX).unwrap(), 4 << 10);
        for wrong in ["", "x", "-1", "18446744073709551615", "2"] {
            let error = size("k", wrong, 1 << 20, 1 << 20).unwrap_err();
            assert!(error.exit == 2 && error.what.contains('k'), "{wrong}");
        }
    }

    #[test]
    fn this_process_has_used_something() {
        let (_, memory) = used();
        assert!(memory > 1 << 20);
    }
}
