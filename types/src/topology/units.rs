//! Durations and sizes as people write them: `10s`, `250ms`, `7d`, `4MiB`, `512KiB`.

use crate::ByteCount;
use std::time::Duration;

/// Longest duration that is taken: ten years. Longer ones are slips of the pen.
const DURATION_SECONDS_MAX: u64 = 3650 * 86_400;

const DURATION_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZE_UNITS: [(&str, u64); 5] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// Reads a whole number followed by `ms`, `s`, `m`, `h` or `d`; `None` for anything else.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let millis = parse(text, &DURATION_UNITS)?;
    (millis <= DURATION_SECONDS_MAX * 1000).then(|| Duration::from_millis(millis))
}

/// Reads a whole number followed by `B`, `KiB`, `MiB`, `GiB` or `TiB`; a bare number counts bytes.
pub fn parse_size(text: &str) -> Option<ByteCount> {
    let text = text.trim();
    if let Ok(bytes) = text.parse::<u64>() {
        return Some(ByteCount(bytes));
    }
    parse(text, &SIZE_UNITS).map(ByteCount)
}

/// Writes a duration so that [`parse_duration`] reads it back, in the largest unit that is exact.
pub fn format_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (unit, scale) = DURATION_UNITS.iter().rev().find(|(_, scale)| millis != 0 && millis % scale == 0).unwrap_or(&("s", 1000));
    format!("{}{unit}", millis / scale)
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let scale = units.iter().find(|(name, _)| *name == unit.trim_start())?.1;
    number.parse::<u64>().ok()?.checked_mul(scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_slips_are_not() {
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("10 s"), Some(Duration::from_secs(10)));
        assert_eq!(parse_duration("7d"), Some(Duration::from_secs(7 * 86_400)));
        for wrong in ["", "10", "s", "-1s", "1.5s", "10sec", "99999999999d", "18446744073709551615h"] {
            assert_eq!(parse_duration(wrong), None, "{wrong} was taken");
        }
        assert_eq!(parse_size("4MiB"), Some(ByteCount(4 << 20)));
        assert_eq!(parse_size("65536"), Some(ByteCount(65_536)));
        for wrong in ["", "4MB", "4M", "MiB", "-1B", "99999999TiB"] {
            assert_eq!(parse_size(wrong), None, "{wrong} was taken");
        }
    }

    #[test]
    fn durations_print_and_parse_back() {
        for text in ["250ms", "1s", "90s", "2m", "12h", "7d", "0s"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
    }
}
