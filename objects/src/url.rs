//! URLs of buckets.
//!
//! `s3://bucket[/prefix]`, `s3+http://host:port/bucket[/prefix]` (also `s3+https`), `file:///absolute/directory`. Amazon's
//! own may carry `?region=R` and `?endpoint=https://host`. `gs://` and `az://` are understood and not served yet.
//! A URL never carries credentials (law 31), so it can be printed anywhere.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The region that requests are signed for when none is given; servers with one region take any.
const REGION_DEFAULT: &str = "us-east-1";

/// Which kind of bucket a URL names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    S3,
    Gcs,
    Azure,
    File,
}

/// A parsed URL of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketUrl {
    text: String,
    scheme: Scheme,
    endpoint: Option<String>,
    region: Option<String>,
    bucket: String,
    prefix: String,
}

/// A URL that names no bucket: the rule that it breaks, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bucket URL `{url}` is wrong: {rule}; {fix}")]
pub struct BucketUrlError {
    /// The URL, without what may be a secret.
    pub url: String,
    pub rule: &'static str,
    pub fix: &'static str,
}

const FIX_FORMS: &str = "write s3://BUCKET, s3+http://HOST:PORT/BUCKET or file:///DIRECTORY";

impl BucketUrl {
    /// Parses a URL.
    pub fn parse(text: &str) -> Result<BucketUrl, BucketUrlError> {
        let wrong = |rule, fix| BucketUrlError { url: printable(text), rule, fix };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("it has no scheme", FIX_FORMS))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        if rest.split('/').next().is_some_and(|host| host.contains('@')) {
            return Err(wrong("it carries credentials", "give them by the environment or a file instead"));
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(wrong("it contains a space or a control character", "remove it"));
        }
        let parsed = match scheme {
            "file" => return parse_file(text, rest, query),
            "s3" => parse_bucket(text, Scheme::S3, rest)?,
            "gs" => parse_bucket(text, Scheme::Gcs, rest)?,
            "az" => parse_bucket(text, Scheme::Azure, rest)?,
            "s3+http" | "s3+https" => {
                let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
                check_host(host).map_err(|rule| wrong(rule, "write s3+http://HOST:PORT/BUCKET"))?;
                let protocol = &scheme["s3+".len()..];
                BucketUrl { endpoint: Some(format!("{protocol}://{host}")), ..parse_bucket(text, Scheme::S3, path)? }
            }
            _ => return Err(wrong("the scheme is unknown", FIX_FORMS)),
        };
        parsed.with_query(query)
    }

    /// The same bucket behind another endpoint, such as `https://storage.example`.
    pub fn with_endpoint(mut self, endpoint: &str) -> BucketUrl {
        self.endpoint = Some(endpoint.trim_end_matches('/').to_owned());
        self
    }

    /// The same bucket in a region, which requests are signed for.
    pub fn with_region(mut self, region: &str) -> BucketUrl {
        self.region = Some(region.to_owned());
        self
    }

    fn with_query(mut self, query: &str) -> Result<BucketUrl, BucketUrlError> {
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("region", region)) if !region.is_empty() => self = self.with_region(region),
                Some(("endpoint", endpoint)) if endpoint.starts_with("http://") || endpoint.starts_with("https://") => {
                    self = self.with_endpoint(endpoint);
                }
                _ => {
                    let fix = "only ?region=REGION and ?endpoint=https://HOST are known";
                    return Err(BucketUrlError { url: printable(&self.text), rule: "it has an unknown option", fix });
                }
            }
        }
        Ok(self)
    }

    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The service's address, when it is not the cloud's own.
    pub fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// The region that requests are signed for.
    pub fn region(&self) -> &str {
        self.region.as_deref().unwrap_or(REGION_DEFAULT)
    }

    /// Whether the URL itself names a region.
    pub fn names_region(&self) -> bool {
        self.region.is_some()
    }

    /// The bucket's name; of a `file` URL empty.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// What all names of objects start with: empty, or ending in a slash.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The directory of a `file` URL.
    pub fn directory(&self) -> Option<PathBuf> {
        (self.scheme == Scheme::File).then(|| Path::new("/").join(&self.prefix))
    }
}

fn parse_bucket(text: &str, scheme: Scheme, rest: &str) -> Result<BucketUrl, BucketUrlError> {
    let wrong = |rule, fix| Err(BucketUrlError { url: printable(text), rule, fix });
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.' || c == '_';
    if bucket.is_empty() {
        return wrong("it names no bucket", FIX_FORMS);
    }
    if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(plain) {
        return wrong("the bucket's name is not 3 to 63 lower-case letters, digits, dots or dashes", "correct the name");
    }
    let prefix = prefix.trim_end_matches('/');
    if prefix.split('/').any(|part| matches!(part, "." | "..")) || prefix.contains("//") || prefix.starts_with('/') {
        return wrong("the prefix has a part that is empty, `.` or `..`", "write it without");
    }
    let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    Ok(BucketUrl { text: text.to_owned(), scheme, endpoint: None, region: None, bucket: bucket.to_owned(), prefix })
}

fn parse_file(text: &str, rest: &str, query: &str) -> Result<BucketUrl, BucketUrlError> {
    let wrong = |rule, fix| Err(BucketUrlError { url: printable(text), rule, fix });
    if !query.is_empty() {
        return wrong("a directory has no options", "remove what follows the question mark");
    }
    let Some(path) = rest.strip_prefix('/') else {
        return wrong("the directory is not absolute", "write file:///DIRECTORY, with three slashes");
    };
    let path = path.trim_end_matches('/');
    if path.is_empty() || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return wrong("the directory is the root or has a part that is empty, `.` or `..`", "write it in full");
    }
    Ok(BucketUrl {
        text: text.to_owned(),
        scheme: Scheme::File,
        endpoint: None,
        region: None,
        bucket: String::new(),
        prefix: path.to_owned(),
    })
}

fn check_host(host: &str) -> Result<(), &'static str> {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && !port.ends_with(']') => {
            if port.parse::<u16>().is_err() {
                return Err("the port is no number from 0 to 65535");
            }
            name
        }
        _ => host,
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let bracketed = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let known = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !name.is_empty() && name.chars().all(plain),
    };
    if known { Ok(()) } else { Err("the host is missing or not a name or an address") }
}

/// The URL as it may be shown: without user information and options, which may hold a secret by mistake.
fn printable(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let rest = rest.split('?').next().unwrap_or_default();
    let rest = rest.rsplit_once('@').map_or(rest, |(_, behind)| behind);
    if scheme.is_empty() { rest.to_owned() } else { format!("{scheme}://{rest}") }
}

impl FromStr for BucketUrl {
    type Err = BucketUrlError;

    fn from_str(text: &str) -> Result<BucketUrl, BucketUrlError> {
        BucketUrl::parse(text)
    }
}

impl fmt::Display for BucketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_forms_are_taken_apart() {
        let url = BucketUrl::parse("s3+http://127.0.0.1:7301/us-east/vol/a/").unwrap();
        assert_eq!(url.scheme(), Scheme::S3);
        assert_eq!((url.endpoint(), url.bucket(), url.prefix()), (Some("http://127.0.0.1:7301"), "us-east", "vol/a/"));
        let url = BucketUrl::parse("s3://data?region=eu-west-1&endpoint=https://s3.example").unwrap();
        assert_eq!((url.endpoint(), url.region(), url.prefix()), (Some("https://s3.example"), "eu-west-1", ""));
        let url = BucketUrl::parse("file:///var/data/").unwrap();
        assert_eq!(url.directory(), Some(PathBuf::from("/var/data")));
        assert_eq!(BucketUrl::parse("gs://data/x").unwrap().scheme(), Scheme::Gcs);
        assert_eq!(BucketUrl::parse("az://data").unwrap().scheme(), Scheme::Azure);
        assert_eq!(BucketUrl::parse("s3+http://[::1]:80/abc").unwrap().endpoint(), Some("http://[::1]:80"));
        assert_eq!(BucketUrl::parse("s3+https://host/abc").unwrap().endpoint(), Some("https://host"));
    }

    #[test]
    fn wrong_urls_name_the_rule_and_the_fix() {
        let wrong = [
            "",
            "bucket",
            "http://x/y",
            "s3://",
            "s3://AB",
            "s3://Upper",
            "s3+http:///bucket",
            "s3+http://h:99999/bucket",
            "s3+http://h:1",
            "file://relative/x",
            "file:///",
            "file:///a/../b",
            "s3://abc/a/../b",
            "s3://abc//x",
            "s3://abc?unknown=1",
            "s3://abc?region=",
            "file:///a?x",
            "s3://a bc",
            "s3+http://h o/abc",
            "s3+http://[x]/abc",
        ];
        for text in wrong {
            let error = BucketUrl::parse(text).expect_err(text);
            assert!(!error.rule.is_empty() && !error.fix.is_empty());
        }
    }

    #[test]
    fn credentials_in_a_url_are_refused_and_not_shown() {
        let error = BucketUrl::parse("s3+http://key:canary@host:1/bucket").unwrap_err();
        assert_eq!(error.rule, "it carries credentials");
        assert!(!error.to_string().contains("canary"), "{error}");
        let error = BucketUrl::parse("s3://bucket?secret=canary").unwrap_err();
        assert!(!error.to_string().contains("canary"), "{error}");
    }
}
