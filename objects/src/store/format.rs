//! The bytes of an object's file (law 26).
//!
//! The object's data from offset 0, so that a block lies aligned and can be looked at with common tools; then its
//! headers; then a footer of 64 bytes, little-endian:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | magic `FARSHOBJ` |
//! | 8 | 2 | version, 1 |
//! | 10 | 2 | flags: bit 0, the MD5 is known |
//! | 12 | 4 | length of the headers |
//! | 16 | 8 | length of the data |
//! | 24 | 4 | CRC-32C of the data |
//! | 28 | 4 | parts of a multipart upload, 0 for none |
//! | 32 | 16 | MD5 of the data, or of the parts' MD5s |
//! | 48 | 8 | when it was written, milliseconds since 1970 |
//! | 56 | 4 | zero |
//! | 60 | 4 | CRC-32C of the headers and of the 60 bytes before |
//!
//! Headers: for each, name and value, each a length of 2 bytes and as many bytes of UTF-8.
//! A footer at the end is known only once all data was received, so an object of any size is written in one pass.

use std::collections::BTreeMap;

/// Bytes of the footer.
pub const FOOTER_BYTES: usize = 64;
/// Most bytes of headers that an object may carry.
pub const HEADERS_BYTES_MAX: usize = 16 << 10;
const MAGIC: &[u8; 8] = b"FARSHOBJ";
const VERSION: u16 = 1;
const FLAG_MD5: u16 = 1;

/// The MD5 that S3 clients see as ETag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Md5Tag {
    pub md5: [u8; 16],
    /// Parts of the multipart upload, 0 when the object came in one piece.
    pub parts: u32,
}

/// Everything about an object but its key and data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Length of the data in bytes.
    pub size: u64,
    /// CRC-32C of the data.
    pub crc32c: u32,
    pub md5: Option<Md5Tag>,
    /// Milliseconds since 1970, by the writer's clock.
    pub modified_unix_ms: u64,
    /// HTTP headers kept with the object, by lower-case name.
    pub headers: BTreeMap<String, String>,
}

/// Why the end of a file is no footer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error("the file is shorter than a footer")]
    Short,
    #[error("the footer has no magic")]
    Magic,
    #[error("the footer has version {0}, this program knows 1")]
    Version(u16),
    #[error("the checksum of the footer does not agree")]
    Checksum,
    #[error("the lengths in the footer and the file's length do not agree")]
    Lengths,
    #[error("the headers cannot be read")]
    Headers,
    #[error("the headers are longer than 16 KiB")]
    HeadersTooLong,
}

impl ObjectInfo {
    /// What follows the data in the file.
    pub fn encode_tail(&self) -> Result<Vec<u8>, FormatError> {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        for text in self.headers.iter().flat_map(|(name, value)| [name, value]) {
            let length = u16::try_from(text.len()).map_err(|_| FormatError::HeadersTooLong)?;
            out.extend(length.to_le_bytes());
            out.extend(text.as_bytes());
        }
        if out.len() > HEADERS_BYTES_MAX {
            return Err(FormatError::HeadersTooLong);
        }
        let headers_length = u32::try_from(out.len()).expect("bounded by HEADERS_BYTES_MAX");
        let tag = self.md5.unwrap_or(Md5Tag { md5: [0; 16], parts: 0 });
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend(if self.md5.is_some() { FLAG_MD5 } else { 0 }.to_le_bytes());
        out.extend(headers_length.to_le_bytes());
        out.extend(self.size.to_le_bytes());
        out.extend(self.crc32c.to_le_bytes());
        out.extend(tag.parts.to_le_bytes());
        out.extend(tag.md5);
        out.extend(self.modified_unix_ms.to_le_bytes());
        out.extend([0; 4]);
        out.extend(crc32c::crc32c(&out).to_le_bytes());
        Ok(out)
    }

    /// Reads the tail out of `end`, the last bytes of a file of `file_bytes`. `Ok(Err(n))` when the last `n` bytes are
    /// needed for it.
    pub fn decode_tail(end: &[u8], file_bytes: u64) -> Result<Result<ObjectInfo, usize>, FormatError> {
        let (before, footer) = end.split_last_chunk::<FOOTER_BYTES>().ok_or(FormatError::Short)?;
        if &footer[..8] != MAGIC {
            return Err(FormatError::Magic);
        }
        let version = u16::from_le_bytes(field(footer, 8));
        if version != VERSION {
            return Err(FormatError::Version(version));
        }
        let headers_length = u32::from_le_bytes(field(footer, 12)) as usize;
        if headers_length > HEADERS_BYTES_MAX {
            return Err(FormatError::HeadersTooLong);
        }
        let size = u64::from_le_bytes(field(footer, 16));
        let tail_bytes = headers_length + FOOTER_BYTES;
        if size.checked_add(tail_bytes as u64) != Some(file_bytes) {
            return Err(FormatError::Lengths);
        }
        let Some(start) = before.len().checked_sub(headers_length) else {
            return Ok(Err(tail_bytes));
        };
        if crc32c::crc32c(&end[start..end.len() - 4]) != u32::from_le_bytes(field(footer, 60)) {
            return Err(FormatError::Checksum);
        }
        let flags = u16::from_le_bytes(field(footer, 10));
        let tag = Md5Tag { md5: field(footer, 32), parts: u32::from_le_bytes(field(footer, 28)) };
        Ok(Ok(ObjectInfo {
            size,
            crc32c: u32::from_le_bytes(field(footer, 24)),
            md5: (flags & FLAG_MD5 != 0).then_some(tag),
            modified_unix_ms: u64::from_le_bytes(field(footer, 48)),
            headers: decode_headers(&before[start..]).ok_or(FormatError::Headers)?,
        }))
    }
}

fn field<const N: usize>(footer: &[u8; FOOTER_BYTES], offset: usize) -> [u8; N] {
    *footer[offset..].first_chunk().expect("all fields lie inside the footer")
}

fn decode_headers(mut bytes: &[u8]) -> Option<BTreeMap<String, String>> {
    let mut headers = BTreeMap::new();
    while !bytes.is_empty() {
        let name = decode_text(&mut bytes)?;
        let value = decode_text(&mut bytes)?;
        headers.insert(name, value);
    }
    Some(headers)
}

fn decode_text(bytes: &mut &[u8]) -> Option<String> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> ObjectInfo {
        ObjectInfo {
            size: 5,
            crc32c: 0x9a71_bb4c,
            md5: Some(Md5Tag { md5: *b"0123456789abcdef", parts: 0 }),
            modified_unix_ms: 1_700_000_000_123,
            headers: BTreeMap::from([("content-type".to_owned(), "x/y".to_owned())]),
        }
    }

    #[test]
    fn golden_bytes() {
        let hex: String = example().encode_tail().unwrap().iter().map(|b| format!("{b:02x}")).collect();
        let headers = "0c00636f6e74656e742d747970650300782f79";
        let magic_version_flags = "46415253484f424a01000100";
        let lengths_and_crc = "1300000005000000000000004cbb719a";
        let parts_and_md5 = "0000000030313233343536373839616263646566";
        let time_and_checksum = "7b68e5cf8b01000000000000bdae5d80";
        assert_eq!(hex, [headers, magic_version_flags, lengths_and_crc, parts_and_md5, time_and_checksum].concat());
    }

    #[test]
    fn a_tail_comes_back_and_asks_for_more_when_cut() {
        let info = example();
        let tail = info.encode_tail().unwrap();
        let file_bytes = 5 + tail.len() as u64;
        assert_eq!(ObjectInfo::decode_tail(&tail, file_bytes), Ok(Ok(info)));
        let short = &tail[tail.len() - FOOTER_BYTES..];
        assert_eq!(ObjectInfo::decode_tail(short, file_bytes), Ok(Err(tail.len())));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let tail = example().encode_tail().unwrap();
        let file_bytes = 5 + tail.len() as u64;
        for bit in 0..tail.len() * 8 {
            let mut damaged = tail.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(ObjectInfo::decode_tail(&damaged, file_bytes), Ok(Ok(_))), "bit {bit} went unnoticed");
        }
        assert_eq!(ObjectInfo::decode_tail(&tail, file_bytes + 1), Err(FormatError::Lengths), "a longer file");
    }
}
