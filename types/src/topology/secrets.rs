//! Refuses secrets written into the file (law 31). Runs before any other check, so that no message repeats one.
//!
//! It looks at names of keys and at shapes of values. It is a net for accidents, not a proof.

use super::error::{TopologyError, TopologyErrorKind as Kind};
use super::section::error_at;
use toml::{Table, Value};

/// Keys whose value is a secret, however it looks.
const SECRET_KEYS: [&str; 16] = [
    "access_key",
    "access_key_id",
    "account_key",
    "api_key",
    "aws_access_key_id",
    "aws_secret_access_key",
    "client_secret",
    "passphrase",
    "passwd",
    "password",
    "private_key",
    "sas_token",
    "secret",
    "secret_access_key",
    "secret_key",
    "session_token",
];
/// Shortest run of letters and digits that is taken for a key by its looks.
const SUSPICIOUS_BYTES_MIN: usize = 32;

/// Refuses the first secret found in the table, by its key.
pub(super) fn refuse(origin: &str, table: &Table) -> Result<(), TopologyError> {
    walk_table(origin, "", table)
}

fn walk_table(origin: &str, path: &str, table: &Table) -> Result<(), TopologyError> {
    for (name, value) in table {
        let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let plain = name.to_ascii_lowercase().replace('-', "_");
        if SECRET_KEYS.contains(&plain.as_str()) || (plain == "token" && value.is_str()) {
            return Err(literal(origin, key));
        }
        walk(origin, &key, value)?;
    }
    Ok(())
}

fn walk(origin: &str, key: &str, value: &Value) -> Result<(), TopologyError> {
    match value {
        Value::String(text) if looks_secret(text) => Err(literal(origin, key.to_owned())),
        Value::Table(table) => walk_table(origin, key, table),
        Value::Array(items) => items.iter().enumerate().try_for_each(|(at, item)| walk(origin, &format!("{key}[{at}]"), item)),
        _ => Ok(()),
    }
}

fn literal(origin: &str, key: String) -> TopologyError {
    let mend = "take it out (and change it, if others saw it); name a file or a variable: credentials = { file = \"...\" } or { env = \"...\" }";
    error_at(origin, Kind::LiteralSecret, key, "holds a secret, which never belongs into the topology", mend)
}

fn looks_secret(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let marked = lower.contains("-----begin")
        || lower.contains("x-amz-signature")
        || lower.contains("sig=")
        || lower.contains("accountkey=");
    let aws_id = text.len() == 20 && (text.starts_with("AKIA") || text.starts_with("ASIA"));
    let user_info = text.split_once("://").is_some_and(|(_, rest)| {
        rest.split('/').next().and_then(|authority| authority.rsplit_once('@')).is_some_and(|(user, _)| user.contains(':'))
    });
    let base64 = |b: u8| b.is_ascii_alphanumeric() || b"+/=_".contains(&b);
    let mixed = text.bytes().any(|b| b.is_ascii_lowercase())
        && text.bytes().any(|b| b.is_ascii_uppercase())
        && text.bytes().any(|b| b.is_ascii_digit());
    let dense = text.len() >= SUSPICIOUS_BYTES_MIN && !text.starts_with('/') && text.bytes().all(base64) && mixed;
    marked || aws_id || user_info || dense
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_of_secrets_are_known_and_ordinary_values_pass() {
        let secrets = [
            "-----BEGIN PRIVATE KEY-----",
            "AKIAIOSFODNN7EXAMPLE",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "https://user:pass@host/x",
            "https://h/x?sig=abc",
            "AccountName=a;AccountKey=b",
        ];
        for secret in secrets {
            assert!(looks_secret(secret), "{secret} passed");
        }
        for plain in [
            "127.0.0.1:7411",
            "us-east",
            "embedded://us-east",
            "/etc/Farshore/secrets/prod-rsa4096/Key1x",
            "s3://example-farshore-use1",
        ] {
            assert!(!looks_secret(plain), "{plain} was refused");
        }
    }
}
