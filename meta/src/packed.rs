//! Numbers in few bytes, for keys and for the rows of which there is one a file (decision 0032).
//!
//! An id in a key must keep the order of its number and end by itself, so that `parent . name` cannot be taken for another
//! parent's: its slot and the length of its counter share the first byte.
//!
//! ```text
//! slot(5 bits) length(3 bits) counter(length)              slots below 31
//! 31(5 bits) 0(3 bits) slot(2) length(1) counter(length)   all others
//! ```
//! Counters are big-endian without leading zeros. The ten million first ids of a slot take 4 bytes at most, instead of 8.

use farshore_types::{COUNTER_BITS, Timestamp};
use std::ops::Deref;

/// Longest packed id in bytes: mark, slot, length, and a counter of 48 bits.
pub(crate) const MAX_ID: usize = 1 + 2 + 1 + 6;
/// Slots from here on have two bytes of their own.
const WIDE_SLOT: u64 = 31;
const LENGTH_BITS: u32 = 3;
/// Seconds of times are counted from here, 2026-01-01, where no nearer time is known: those of the next four years take 4
/// bytes.
pub(crate) const BASE: i64 = 1_767_225_600;

/// A packed id on the stack.
#[derive(Clone, Copy)]
pub(crate) struct Id {
    bytes: [u8; MAX_ID],
    length: usize,
}

impl Deref for Id {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Packs an id, or any other number: what is below 2^48 has slot 0.
pub(crate) fn id(number: u64) -> Id {
    let slot = number >> COUNTER_BITS;
    let counter = number & ((1 << COUNTER_BITS) - 1);
    let length = (u64::BITS - counter.leading_zeros()).div_ceil(8) as usize;
    let mut bytes = [0; MAX_ID];
    let head = if slot < WIDE_SLOT {
        bytes[0] = (slot as u8) << LENGTH_BITS | length as u8;
        1
    } else {
        bytes[0] = (WIDE_SLOT as u8) << LENGTH_BITS;
        bytes[1..3].copy_from_slice(&(slot as u16).to_be_bytes());
        bytes[3] = length as u8;
        4
    };
    bytes[head..head + length].copy_from_slice(&counter.to_be_bytes()[8 - length..]);
    Id { bytes, length: head + length }
}

/// Takes values from the front of bytes; each is `None` when the bytes are none.
pub(crate) struct Unpack<'a>(pub &'a [u8]);

impl<'a> Unpack<'a> {
    pub fn byte(&mut self) -> Option<u8> {
        self.bytes(1).map(|byte| byte[0])
    }

    pub fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// A packed id; one that [`id`] would write otherwise is none.
    pub fn id(&mut self) -> Option<u64> {
        let all = self.0;
        let head = self.byte()?;
        let (slot, length) = if u64::from(head >> LENGTH_BITS) < WIDE_SLOT {
            (u64::from(head >> LENGTH_BITS), head & ((1 << LENGTH_BITS) - 1))
        } else {
            let slot = self.bytes(2)?;
            (u64::from(u16::from_be_bytes([slot[0], slot[1]])), self.byte()?)
        };
        let counter = self.bytes(usize::from(length))?.iter().fold(0u64, |counter, byte| counter << 8 | u64::from(*byte));
        if counter >> COUNTER_BITS != 0 {
            return None;
        }
        let number = slot << COUNTER_BITS | counter;
        (*id(number) == all[..all.len() - self.0.len()]).then_some(number)
    }

    /// A number of [`put_number`].
    pub fn number<T: TryFrom<u64>>(&mut self) -> Option<T> {
        let mut number = 0u64;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7F);
            number |= part << shift;
            if number >> shift != part {
                return None;
            }
            if byte < 0x80 {
                return T::try_from(number).ok();
            }
        }
        None
    }

    pub fn signed(&mut self) -> Option<i64> {
        let number: u64 = self.number()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// A time of [`put_time`] with the same `base`.
    pub fn time(&mut self, base: i64) -> Option<Timestamp> {
        let secs = base.wrapping_add(self.signed()?);
        let nanos: u64 = self.number()?;
        let nanos = if nanos & 1 == 0 { (nanos >> 1).checked_mul(1000)? } else { nanos >> 1 };
        Some(Timestamp { secs, nanos: nanos.try_into().ok()? })
    }
}

/// A number in groups of seven bits, the lowest first.
pub(crate) fn put_number(to: &mut Vec<u8>, number: impl Into<u64>) {
    let mut number = number.into();
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

pub(crate) fn put_signed(to: &mut Vec<u8>, number: i64) {
    put_number(to, (number << 1 ^ number >> 63) as u64);
}

/// A time: its seconds from `base`, and its nanoseconds, of which the log's clock has whole thousands.
pub(crate) fn put_time(to: &mut Vec<u8>, base: i64, time: Timestamp) {
    put_signed(to, time.secs.wrapping_sub(base));
    let nanos = u64::from(time.nanos);
    put_number(to, if nanos % 1000 == 0 { (nanos / 1000) << 1 } else { nanos << 1 | 1 });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const EDGES: [u64; 17] = [
        0,
        1,
        0xFF,
        0x100,
        0xFFFF,
        1 << 24,
        (1 << 48) - 1,
        1 << 48,
        (1 << 48) + 1,
        (1 << 48) + (1 << 32),
        30 << 48,
        (31 << 48) - 1,
        31 << 48,
        (31 << 48) + 5,
        32 << 48,
        0x7FFF << 48,
        u64::MAX,
    ];

    #[test]
    fn ids_keep_their_order_and_end_by_themselves() {
        for pair in EDGES.windows(2) {
            assert!(*id(pair[0]) < *id(pair[1]), "{pair:x?}");
            assert!(!id(pair[1]).starts_with(&id(pair[0])), "{pair:x?}");
        }
        for number in EDGES {
            let followed = [&*id(number), b"name"].concat();
            let mut unpack = Unpack(&followed);
            assert_eq!(unpack.id(), Some(number));
            assert_eq!(unpack.rest(), b"name");
            assert_eq!(Unpack(&id(number)[..id(number).len() - 1]).id(), None, "{number:x} cut short");
        }
        assert_eq!(id((1 << 48) + 9_999_999).len(), 4);
    }

    #[test]
    fn an_id_that_is_written_otherwise_is_none() {
        for bytes in
            [&[0x02, 0, 5][..], &[0x07, 1, 2, 3, 4, 5, 6, 7], &[0xF8, 0, 1, 1, 5], &[0xF9, 0, 40, 1, 5], &[0xF8, 0, 40, 200]]
        {
            assert_eq!(Unpack(bytes).id(), None, "{bytes:x?}");
        }
    }

    #[test]
    fn numbers_come_back() {
        for number in EDGES {
            let mut bytes = Vec::new();
            put_number(&mut bytes, number);
            put_signed(&mut bytes, number as i64);
            let mut unpack = Unpack(&bytes);
            assert_eq!(unpack.number(), Some(number));
            assert_eq!(unpack.signed(), Some(number as i64));
            assert!(unpack.0.is_empty());
        }
        assert_eq!(Unpack(&[0xFF; 11]).number::<u64>(), None, "it has more than 64 bits");
        assert_eq!(Unpack(&[0x80]).number::<u64>(), None, "it goes on");
        assert_eq!(Unpack(&[0x80, 0x80, 4]).number::<u16>(), None, "65,536 is no u16");
    }

    #[test]
    fn times_come_back() {
        for secs in [i64::MIN, -1, 0, BASE, BASE + 100, i64::MAX] {
            for nanos in [0, 1, 999, 1000, 999_999_000, 999_999_999] {
                for base in [BASE, -5, i64::MAX] {
                    let mut bytes = Vec::new();
                    put_time(&mut bytes, base, Timestamp { secs, nanos });
                    let mut unpack = Unpack(&bytes);
                    assert_eq!(unpack.time(base), Some(Timestamp { secs, nanos }));
                    assert!(unpack.0.is_empty());
                }
            }
        }
        let mut bytes = Vec::new();
        put_time(&mut bytes, BASE, Timestamp { secs: BASE + 3 * 365 * 86_400, nanos: 999_999_000 });
        assert_eq!(bytes.len(), 7);
    }
}
