use std::fmt;

use crate::invalid::Invalid;
use crate::json::quoted;

/// The name of a saga: 1 to 128 of the characters `A-Z a-z 0-9 . _ : -`.
///
/// Unique over all databases that share participants, and never used again, also after retention.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gid(String);

impl Gid {
    /// Checks a gid.
    pub fn new(gid: impl Into<String>) -> Result<Self, Invalid> {
        let gid = gid.into();
        if is_name(&gid, 128) {
            Ok(Self(gid))
        } else {
            Err(Invalid::new("gid", quoted(&gid), "1 to 128 of the characters A-Z a-z 0-9 . _ : -"))
        }
    }

    /// The gid as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Gid> for String {
    fn from(gid: Gid) -> Self {
        gid.0
    }
}

/// The characters of gids and step names. They can stand in a URL and a header, and lack `/`, which joins them to a key.
pub(crate) fn is_name(name: &str, length_max: usize) -> bool {
    // control: name-characters
    (1..=length_max).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gid_holds_only_what_a_header_and_a_url_can() {
        assert_eq!(Gid::new("order-42:a.b_C").unwrap().as_str(), "order-42:a.b_C");
        assert!(Gid::new("g".repeat(128)).is_ok());
        for bad in ["", "a/b", "a b", "ä", "a\n", "a\0", &"g".repeat(129)] {
            assert!(Gid::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            Gid::new("a/b").unwrap_err().to_string(),
            r#"gid: found "a/b"; allowed: 1 to 128 of the characters A-Z a-z 0-9 . _ : -"#
        );
    }
}
