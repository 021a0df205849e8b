//! The one error of reading a topology: which key, which rule, which mend (law 30).

use std::fmt;

/// What sort of mistake it is; for callers and tests. People read the sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopologyErrorKind {
    /// The text is no TOML.
    Syntax,
    UnknownKey,
    MissingKey,
    /// A value of another type than the key takes.
    WrongType,
    /// A value that breaks the key's rule.
    BadValue,
    /// Declared something that this version does not honour; refused rather than ignored (law 28).
    NotAvailableYet,
    /// A name, port or bucket that something else in the file has already.
    Duplicate,
    /// A name that nothing in the file has.
    UnknownName,
    /// A secret written into the file; its value is in no message (law 31).
    LiteralSecret,
    /// A listener off loopback, which needs TLS.
    OpenListener,
}

/// A topology that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopologyError {
    pub kind: TopologyErrorKind,
    /// The file, or what stands for it.
    pub origin: String,
    /// The key as a path, for example `region.eu-west.nodes[1].listen`; empty for a syntax error.
    pub key: String,
    /// What rule the value breaks.
    pub rule: String,
    /// What to do about it.
    pub mend: String,
}

impl TopologyError {
    /// The first sentence: where and what, without the mend.
    pub fn what(&self) -> String {
        match self.key.as_str() {
            "" => format!("{}: {}", self.origin, self.rule),
            key => format!("{}: `{key}` {}", self.origin, self.rule),
        }
    }
}

impl fmt::Display for TopologyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what(), self.mend)
    }
}

impl std::error::Error for TopologyError {}
