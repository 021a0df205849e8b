//! What was deleted from a bucket is not leased to be copied there again (law 17).

/// A copy that was leased before the deletion may be under way for so long (microseconds); it leaves an orphan, at worst.
pub const UNDER_WAY_US: u64 = 5_000_000;

/// Asked when a lease of a copy arrives at `now_us`; `deleted_us` is when the block was deleted there.
pub fn check(deleted_us: Option<u64>, now_us: u64) -> Result<(), String> {
    match deleted_us {
        Some(deleted) if now_us > deleted + UNDER_WAY_US => Err(format!("deleted at {deleted}, leased to be copied at {now_us}")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_fires() {
        assert_eq!(super::check(None, 1), Ok(()));
        assert_eq!(super::check(Some(1), super::UNDER_WAY_US), Ok(()));
        assert!(super::check(Some(1), super::UNDER_WAY_US + 2).is_err());
    }
}
