//! Percent-encoding of bytes, as names of files and as keys in listings need it.
//!
//! `%XX` with upper-case digits stands for one byte. What is encoded is the caller's choice; decoding takes every
//! well-formed escape and refuses the rest, so that no two spellings are taken for different names by accident.

const DIGITS: &[u8; 16] = b"0123456789ABCDEF";

/// Appends `byte` to `out` as `%XX`.
pub(crate) fn push_escape(out: &mut Vec<u8>, byte: u8) {
    out.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

/// Replaces every `%XX` by its byte; `None` when an escape is cut short or has other digits.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        if first != b'%' {
            out.push(first);
            rest = tail;
            continue;
        }
        let (&[high, low], tail) = tail.split_first_chunk::<2>()?;
        out.push(digit(high)? << 4 | digit(low)?);
        rest = tail;
    }
    Some(out)
}

/// A key as listings carry it when the client asked for `encoding-type=url`: all but the plainest bytes escaped.
pub fn encode_listed(key: &str) -> String {
    let mut out = Vec::with_capacity(key.len());
    for &byte in key.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-_./~".contains(&byte) {
            out.push(byte);
        } else {
            push_escape(&mut out, byte);
        }
    }
    String::from_utf8(out).expect("every byte pushed is ASCII")
}

/// The inverse of [`encode_listed`]; also takes `+` for a space, as Amazon's own service writes it.
pub fn decode_listed(text: &str) -> Option<String> {
    String::from_utf8(decode(text.replace('+', " ").as_bytes())?).ok()
}

fn digit(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'A'..=b'F' => Some(c - b'A' + 10),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_keys_come_back() {
        for key in ["plain/a_b-c.d", "space and +plus", "100%", "\u{1}\u{7f}", "caf\u{e9}/\u{6d77}", ""] {
            assert_eq!(decode_listed(&encode_listed(key)).as_deref(), Some(key));
        }
        assert_eq!(decode_listed("a+b").as_deref(), Some("a b"));
    }

    #[test]
    fn a_broken_escape_is_refused() {
        for wrong in ["%", "%4", "a%zz", "%4g"] {
            assert_eq!(decode(wrong.as_bytes()), None, "{wrong} was taken");
        }
        assert_eq!(decode_listed("%FF"), None, "not UTF-8");
    }
}
