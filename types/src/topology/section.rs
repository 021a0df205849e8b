//! One table of the file: every read names its key, and nothing in the table goes unread (laws 28, 30).

use super::error::{TopologyError, TopologyErrorKind as Kind};
use super::{nearest::nearest, units};
use crate::ByteCount;
use std::net::SocketAddr;
use std::time::Duration;
use toml::{Table, Value};

/// Longest value that a message repeats, in bytes.
const ECHO_BYTES_MAX: usize = 48;
/// Longest name of a world, region, node or volume, in bytes.
pub(super) const NAME_BYTES_MAX: usize = 63;

/// The keys of a table: those honoured, and those that a later version will honour.
pub(super) struct Keys {
    pub known: &'static [&'static str],
    pub later: &'static [&'static str],
}

/// A table under its key path, all of whose keys are known.
pub(super) struct Section<'a> {
    pub origin: &'a str,
    path: String,
    table: &'a Table,
}

impl<'a> Section<'a> {
    /// Opens a table; an unknown key, or one of a later version, is refused here.
    pub fn open(origin: &'a str, path: String, table: &'a Table, keys: &Keys) -> Result<Self, TopologyError> {
        let section = Section { origin, path, table };
        for name in table.keys() {
            if keys.known.contains(&name.as_str()) {
                continue;
            }
            if keys.later.contains(&name.as_str()) {
                return Err(section.not_yet(name));
            }
            let mend = match nearest(name, keys.known.iter().chain(keys.later).copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the keys here are: {}", keys.known.join(", ")),
            };
            return Err(section.error(Kind::UnknownKey, name, "is not a key of the topology", mend));
        }
        Ok(section)
    }

    /// A section whose keys are names chosen by the operator.
    pub fn of_names(origin: &'a str, path: String, table: &'a Table) -> Result<Self, TopologyError> {
        let section = Section { origin, path, table };
        for name in table.keys() {
            section.check_name(name, name)?;
        }
        Ok(section)
    }

    /// The key path of `name` in this table.
    pub fn key(&self, name: &str) -> String {
        let bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let name = if bare { name.to_owned() } else { format!("{name:?}") };
        if self.path.is_empty() { name } else { format!("{}.{name}", self.path) }
    }

    pub fn error(&self, kind: Kind, name: &str, rule: impl Into<String>, mend: impl Into<String>) -> TopologyError {
        error_at(self.origin, kind, self.key(name), rule, mend)
    }

    pub fn not_yet(&self, name: &str) -> TopologyError {
        self.error(Kind::NotAvailableYet, name, "is not available yet", "remove it: nothing in the file is silently ignored")
    }

    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.table.keys().map(String::as_str)
    }

    pub fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    pub fn text(&self, name: &str) -> Result<Option<&'a str>, TopologyError> {
        self.typed(name, Value::as_str, "a string")
    }

    pub fn required_text(&self, name: &str) -> Result<&'a str, TopologyError> {
        self.text(name)?.ok_or_else(|| self.missing(name))
    }

    pub fn integer(&self, name: &str) -> Result<Option<i64>, TopologyError> {
        self.typed(name, Value::as_integer, "a whole number")
    }

    pub fn array(&self, name: &str) -> Result<Option<&'a [Value]>, TopologyError> {
        self.typed(name, |value| value.as_array().map(Vec::as_slice), "an array")
    }

    /// A sub-table with fixed keys.
    pub fn section(&self, name: &str, keys: &Keys) -> Result<Option<Section<'a>>, TopologyError> {
        match self.typed(name, Value::as_table, "a table")? {
            Some(table) => Section::open(self.origin, self.key(name), table, keys).map(Some),
            None => Ok(None),
        }
    }

    /// A sub-table whose keys are names.
    pub fn named(&self, name: &str) -> Result<Option<Section<'a>>, TopologyError> {
        match self.typed(name, Value::as_table, "a table")? {
            Some(table) => Section::of_names(self.origin, self.key(name), table).map(Some),
            None => Ok(None),
        }
    }

    pub fn duration(&self, name: &str) -> Result<Option<Duration>, TopologyError> {
        self.parsed(name, units::parse_duration, "is not a duration", "write a number and ms, s, m, h or d, such as \"10s\"")
    }

    pub fn size(&self, name: &str) -> Result<Option<ByteCount>, TopologyError> {
        self.parsed(name, units::parse_size, "is not a size", "write a number and B, KiB, MiB, GiB or TiB, such as \"4MiB\"")
    }

    /// An address to listen on: loopback, since there is no TLS yet, with a port that is fixed.
    pub fn listener(&self, name: &str) -> Result<Option<SocketAddr>, TopologyError> {
        let mend = "write ADDRESS:PORT, such as \"127.0.0.1:7411\"";
        let Some(address) = self.parsed(name, |text| text.parse::<SocketAddr>().ok(), "is not an address", mend)? else {
            return Ok(None);
        };
        if address.port() == 0 {
            return Err(self.error(Kind::BadValue, name, "has port 0, which no one can find", "give it a port of its own"));
        }
        if !address.ip().is_loopback() {
            let rule = format!("listens on {}, which is off loopback, and TLS is not available yet", address.ip());
            return Err(self.error(
                Kind::OpenListener,
                name,
                rule,
                "listen on 127.0.0.1 or ::1, and tunnel if others must reach it",
            ));
        }
        Ok(Some(address))
    }

    pub fn required_listener(&self, name: &str) -> Result<SocketAddr, TopologyError> {
        self.listener(name)?.ok_or_else(|| self.missing(name))
    }

    /// Lower-case letters, digits and dashes: these names become files, labels and prefixes of object keys.
    pub fn check_name(&self, key: &str, value: &str) -> Result<(), TopologyError> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if value.is_empty() || value.len() > NAME_BYTES_MAX || !value.bytes().all(good) || value.starts_with('-') {
            let rule = format!("is no name{}", echo(value));
            let mend = format!("use 1 to {NAME_BYTES_MAX} of a-z, 0-9 and -, not starting with -");
            return Err(self.error(Kind::BadValue, key, rule, mend));
        }
        Ok(())
    }

    pub fn missing(&self, name: &str) -> TopologyError {
        self.error(Kind::MissingKey, name, "is missing", "add it")
    }

    fn typed<T>(&self, name: &str, read: impl Fn(&'a Value) -> Option<T>, wanted: &str) -> Result<Option<T>, TopologyError> {
        let Some(value) = self.table.get(name) else { return Ok(None) };
        let wrong = || self.error(Kind::WrongType, name, format!("is a {}", value.type_str()), format!("write {wanted}"));
        read(value).map(Some).ok_or_else(wrong)
    }

    fn parsed<T>(
        &self,
        name: &str,
        read: impl Fn(&str) -> Option<T>,
        rule: &str,
        mend: &str,
    ) -> Result<Option<T>, TopologyError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let wrong = || self.error(Kind::BadValue, name, format!("{rule}{}", echo(text)), mend);
        read(text).map(Some).ok_or_else(wrong)
    }
}

pub(super) fn error_at(
    origin: &str,
    kind: Kind,
    key: impl Into<String>,
    rule: impl Into<String>,
    mend: impl Into<String>,
) -> TopologyError {
    TopologyError { kind, origin: origin.to_owned(), key: key.into(), rule: rule.into(), mend: mend.into() }
}

/// ` ("value")` for short values. Secrets were refused before any value is read (see `secrets`).
pub(super) fn echo(value: &str) -> String {
    if value.len() <= ECHO_BYTES_MAX { format!(" ({value:?})") } else { String::new() }
}
