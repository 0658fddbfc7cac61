//! Whom a step's URL calls. Each kind of URL is listed in this file, and for the INSERT in
//! `functions/insert/check_url.sql`.

use super::named_url::NamedUrl;
use super::url::{has_reserved_query_key, is_url};

pub(super) const URLS: &str = "\"\", participant:name/path, or a URL like https://host:port/path?query: up to 2,048 visible ASCII characters, without user, fragment or backslash";
const NAMED_URLS: &str = "participant:name/path?query, with a name of 1 to 64 of a-z 0-9 . _ - that starts with a letter or a digit and is not digits alone: up to 2,048 of the characters A-Z a-z 0-9 . _ ~ : @ / ? = & , ; + -, without ..";
const QUERIES: &str = "a query without gid, trans_type, branch_id and op, which workers add";

/// Whom an op calls: a step's `action` or `compensate`, read once. Each kind has its executor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `http://…` or `https://…`.
    Http(String),
    /// `participant:NAME/PATH`, for a participant of the worker's configuration.
    Named(NamedUrl),
}

impl Target {
    /// Reads a URL that an INSERT has accepted. `None` for an op that calls nobody.
    ///
    /// A row that was changed by hand may hold anything. What is of no other kind is left to the
    /// HTTP client, which says what is wrong with it.
    pub fn read(url: &str) -> Option<Target> {
        if url.is_empty() {
            return None;
        }
        Some(NamedUrl::parse(url).map_or_else(|| Target::Http(url.to_owned()), Target::Named))
    }

    /// Checks a URL as the INSERT does. `None` stands for what is no string.
    ///
    /// # Errors
    /// What is allowed instead.
    pub fn check(url: Option<&str>) -> Result<(), &'static str> {
        match url {
            Some(url) if has_reserved_query_key(url) => Err(QUERIES),
            Some(url) if url.is_empty() || is_url(url) || NamedUrl::parse(url).is_some() => Ok(()),
            Some(url) if url.starts_with(NamedUrl::SCHEME) => Err(NAMED_URLS),
            _ => Err(URLS),
        }
    }

    /// The name that limits, the breaker and `task.participant` know: what the URL has before its
    /// first slash, as in `participant:stock`; where that is a scheme alone, the host and port
    /// after the second slash, as they are written. Statements find the name by the same rule.
    pub fn participant(&self) -> &str {
        let mut parts = match self {
            Target::Http(url) => url,
            Target::Named(named) => named.as_str(),
        }
        .split('/');
        let first = parts.next().unwrap_or("");
        let part = if first.ends_with(':') { parts.nth(1).unwrap_or("") } else { first };
        part.split('?').next().unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_a_url_calls_is_read_as_it_is_written() {
        for (url, name) in [
            ("https://pay.example/charge?x=/y", "pay.example"),
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://Pay.Example:80?x", "Pay.Example:80"),
            ("http://[::1]:9/", "[::1]:9"),
            ("http://a?b=http://c", "a"),
            ("participant:stock/reserve?x=/y", "participant:stock"),
            ("participant:stock//a://b", "participant:stock"),
            ("http://stock/reserve", "stock"),
            ("stock:reserve", "stock:reserve"),
            ("stock:reserve?x", "stock:reserve"),
            ("http:", ""),
        ] {
            assert_eq!(Target::read(url).unwrap().participant(), name, "{url}");
        }
        assert_eq!(Target::read(""), None);
    }

    #[test]
    fn a_named_url_that_the_insert_would_refuse_is_left_to_the_http_client() {
        for url in ["participant:Stock/x", "participant:stock", "ftp://a", "http://127.1/"] {
            assert_eq!(Target::read(url), Some(Target::Http(url.to_owned())));
            assert!(Target::check(Some(url)).is_err(), "{url}");
        }
        assert!(matches!(Target::read("participant:stock/x"), Some(Target::Named(_))));
    }
}
