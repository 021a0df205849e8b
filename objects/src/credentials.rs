//! Credentials of buckets: explicit, from the environment, from a file, or the cloud's own chain (law 31).
//!
//! A secret leaves this module only through [`Credentials::secret_key`]; it is never part of a message.

use std::fmt;
use std::path::{Path, PathBuf};

/// What follows the prefix in the names of environment variables.
const ENV_ACCESS: &str = "_ACCESS_KEY";
const ENV_SECRET: &str = "_SECRET_KEY";
/// Largest file that is read as credentials, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Names of the two keys in files, the first being ours, the others those of common tools.
const ACCESS_NAMES: [&str; 3] = ["access_key", "aws_access_key_id", "AccessKeyId"];
const SECRET_NAMES: [&str; 3] = ["secret_key", "aws_secret_access_key", "SecretAccessKey"];

/// How a bucket is told who asks.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    keys: Option<(String, String)>,
}

/// Credentials that could not be had. Never carries a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    #[error("the environment variable {0} is not set: set it, or name other credentials")]
    NotSet(String),
    #[error("credentials `{0}`: write `env:PREFIX`, `file:/path` or `chain`")]
    Source(String),
    #[error("cannot read credentials from {}: {reason}", .path.display())]
    File { path: PathBuf, reason: String },
    #[error("{} has no `{key}`: give access_key and secret_key, as lines `key=value` or as JSON", .path.display())]
    Missing { path: PathBuf, key: &'static str },
}

impl Credentials {
    /// A pair of keys.
    pub fn new(access_key: impl Into<String>, secret_key: impl Into<String>) -> Credentials {
        Credentials { keys: Some((access_key.into(), secret_key.into())) }
    }

    /// The chain of the cloud's own SDK: its environment variables, its profile files, the machine's role.
    pub fn chain() -> Credentials {
        Credentials { keys: None }
    }

    /// Whether the cloud's own chain is meant.
    pub fn is_chain(&self) -> bool {
        self.keys.is_none()
    }

    /// The access key; `None` for the chain.
    pub fn access_key(&self) -> Option<&str> {
        self.keys.as_ref().map(|(access, _)| access.as_str())
    }

    /// The secret key; `None` for the chain. Not to be printed.
    pub fn secret_key(&self) -> Option<&str> {
        self.keys.as_ref().map(|(_, secret)| secret.as_str())
    }

    /// From a source as topologies name it: `env:PREFIX`, `file:/path`, `chain`.
    pub fn from_source(source: &str) -> Result<Credentials, CredentialsError> {
        match source.split_once(':') {
            Some(("env", prefix)) if !prefix.is_empty() => Credentials::from_env(prefix),
            Some(("file", path)) if !path.is_empty() => Credentials::from_file(Path::new(path)),
            None if source == "chain" => Ok(Credentials::chain()),
            // Only what stands before the colon: someone may have written the secret itself.
            _ => Err(CredentialsError::Source(source.split(':').next().unwrap_or_default().chars().take(5).collect())),
        }
    }

    /// From `PREFIX_ACCESS_KEY` and `PREFIX_SECRET_KEY`.
    pub fn from_env(prefix: &str) -> Result<Credentials, CredentialsError> {
        Credentials::from_variables(prefix, |name| std::env::var(name).ok())
    }

    /// As [`Credentials::from_env`], out of any source of variables.
    pub fn from_variables(prefix: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Credentials, CredentialsError> {
        let read = |suffix: &str| {
            let name = format!("{prefix}{suffix}");
            variable(&name).filter(|value| !value.is_empty()).ok_or(CredentialsError::NotSet(name))
        };
        Ok(Credentials::new(read(ENV_ACCESS)?, read(ENV_SECRET)?))
    }

    /// From a file: lines `key=value`, or one JSON object.
    pub fn from_file(path: &Path) -> Result<Credentials, CredentialsError> {
        let failed = |reason: String| CredentialsError::File { path: path.to_owned(), reason };
        let length = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
        if length > FILE_BYTES_MAX {
            return Err(failed("it is larger than 64 KiB".to_owned()));
        }
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        Credentials::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Credentials, CredentialsError> {
        let pairs: Vec<(String, String)> = if text.trim_start().starts_with('{') {
            // The parser's own message may quote the file, so it is not passed on.
            let json: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(text).map_err(|error| CredentialsError::File {
                    path: path.to_owned(),
                    reason: format!("it is no JSON object, from line {} on", error.line()),
                })?;
            json.into_iter().filter_map(|(key, value)| Some((key, value.as_str()?.to_owned()))).collect()
        } else {
            let lines = text.lines().filter_map(|line| line.split_once('='));
            lines.map(|(key, value)| (key.trim().to_owned(), value.trim().trim_matches('"').to_owned())).collect()
        };
        let value = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let read = |names: [&'static str; 3]| {
            let found = names.iter().find_map(|name| value(name).filter(|value| !value.is_empty()));
            found.ok_or(CredentialsError::Missing { path: path.to_owned(), key: names[0] })
        };
        Ok(Credentials::new(read(ACCESS_NAMES)?, read(SECRET_NAMES)?))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.keys {
            Some((access, _)) => write!(f, "Credentials(access key {access}, secret hidden)"),
            None => f.write_str("Credentials(chain)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: &str = "canary-secret-7c1";

    #[test]
    fn no_message_shows_the_secret() {
        let credentials = Credentials::new("AK", CANARY);
        assert!(!format!("{credentials:?} {credentials:#?}").contains(CANARY));
        let path = Path::new("/x");
        let texts = [format!("{{\"access_key\": \"AK\", \"secret_key\": \"{CANARY}\", }}"), format!("secret_key={CANARY}")];
        for text in texts {
            let error = Credentials::parse(&text, path).unwrap_err();
            assert!(!format!("{error} {error:?}").contains(CANARY), "{error}");
        }
        let error = Credentials::from_source(CANARY).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(CANARY), "{error}");
    }

    #[test]
    fn lines_json_and_environment_give_the_same() {
        let expected = Credentials::new("AK", "S=K");
        let path = Path::new("/x");
        let texts = [
            "access_key=AK\nsecret_key = S=K\n",
            "[default]\naws_access_key_id = AK\naws_secret_access_key = \"S=K\"",
            r#" {"access_key": "AK", "secret_key": "S=K"}"#,
            r#"{"AccessKeyId": "AK", "SecretAccessKey": "S=K"}"#,
        ];
        for text in texts {
            assert_eq!(Credentials::parse(text, path).as_ref(), Ok(&expected), "{text}");
        }
        let variables = |name: &str| match name {
            "FARSHORE_X_ACCESS_KEY" => Some("AK".to_owned()),
            "FARSHORE_X_SECRET_KEY" => Some("S=K".to_owned()),
            _ => None,
        };
        assert_eq!(Credentials::from_variables("FARSHORE_X", variables), Ok(expected));
        let missing = Credentials::from_variables("FARSHORE_Y", variables);
        assert_eq!(missing, Err(CredentialsError::NotSet("FARSHORE_Y_ACCESS_KEY".to_owned())));
    }

    #[test]
    fn sources_are_env_file_or_chain() {
        assert_eq!(Credentials::from_source("chain"), Ok(Credentials::chain()));
        assert!(matches!(Credentials::from_source("file:/nonexistent/x"), Err(CredentialsError::File { .. })));
        for wrong in ["", "env:", "file:", "vault:x", "AKIA"] {
            assert!(matches!(Credentials::from_source(wrong), Err(CredentialsError::Source(_))), "{wrong} was taken");
        }
    }
}
