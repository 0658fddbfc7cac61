use super::limit::{PARTICIPANT_NAME_BYTES_MAX, URL_BYTES_MAX};

/// A step's URL that names a participant instead of its address: `participant:stock/reserve`. The
/// file of `--participants` tells workers where `stock` is and which secrets sign its calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedUrl {
    url: String,
    name_end: usize,
}

impl NamedUrl {
    /// What a named URL starts with.
    pub const SCHEME: &'static str = "participant:";

    /// What [`is_name`](Self::is_name) allows.
    pub const NAMES: &'static str =
        "1 to 64 of a-z 0-9 . _ -, the first a letter or a digit, and not digits alone";

    /// Reads a name, then a path and maybe a query in which URL parsers decode and resolve nothing.
    /// `None` for any other text.
    pub fn parse(url: &str) -> Option<Self> {
        let rest = url.strip_prefix(Self::SCHEME)?;
        let (name, path) = rest.split_at(rest.find('/')?);
        let (before, query) = path.split_at(path.find('?').unwrap_or(path.len()));
        let is_path = |b: u8| b.is_ascii_alphanumeric() || b"._~:@/-".contains(&b);
        let well = url.len() <= URL_BYTES_MAX
            && !url.contains("..")
            && Self::is_name(name)
            && before.bytes().all(is_path)
            && query.bytes().all(|b| is_path(b) || b"?=&,;+".contains(&b));
        well.then(|| Self { url: url.to_owned(), name_end: Self::SCHEME.len() + name.len() })
    }

    /// Whether a participant may have this name: 1 to 64 of `a-z 0-9 . _ -`. The first is a letter
    /// or a digit, no two dots are neighbours, and the name is not digits alone.
    pub fn is_name(name: &str) -> bool {
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        (1..=PARTICIPANT_NAME_BYTES_MAX).contains(&name.len())
            && name.bytes().next().is_some_and(is_plain)
            && name.bytes().all(|b| is_plain(b) || b"._-".contains(&b))
            && !name.contains("..")
            && !name.bytes().all(|b| b.is_ascii_digit())
    }

    /// The URL as it was read.
    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// The participant's name.
    pub fn name(&self) -> &str {
        &self.url[Self::SCHEME.len()..self.name_end]
    }

    /// The path and query, from the slash, that follow the participant's own URL.
    pub fn path(&self) -> &str {
        &self.url[self.name_end..]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_and_a_path_are_read() {
        for (url, name, path) in [
            ("participant:stock/reserve", "stock", "/reserve"),
            ("participant:stock/", "stock", "/"),
            (
                "participant:3d-print_eu.v2/a//b/./c~d:e@f?x=1&y=,;+?/",
                "3d-print_eu.v2",
                "/a//b/./c~d:e@f?x=1&y=,;+?/",
            ),
            ("participant:a./b.", "a.", "/b."),
        ] {
            let named = NamedUrl::parse(url).unwrap();
            assert_eq!((named.name(), named.path()), (name, path), "{url}");
        }
        let longest = format!("participant:{}/", "a".repeat(64));
        assert!(NamedUrl::parse(&longest).is_some());
        assert!(NamedUrl::parse(&format!("participant:a/{}", "x".repeat(URL_BYTES_MAX - 14))).is_some());
    }

    #[test]
    fn what_could_lead_elsewhere_is_none() {
        for url in [
            "",
            "participant",
            "participant:",
            "participant:/",
            "participant:stock",
            "participant:stock?x",
            "participant://stock/reserve",
            "PARTICIPANT:stock/reserve",
            "participant:Stock/reserve",
            "participant:-stock/reserve",
            "participant:.stock/reserve",
            "participant:_/reserve",
            "participant:8080/reserve",
            "participant:st ock/reserve",
            "participant:stock:8080/reserve",
            "participant:user@stock/reserve",
            "participant:a..b/reserve",
            "participant:stock/../admin",
            "participant:stock/..",
            "participant:stock/%2e%2e/admin",
            "participant:stock/%2f",
            "participant:stock/a\\b",
            "participant:stock/a#b",
            "participant:stock/a b",
            "participant:stock/a\n",
            "participant:stock/ä",
            "participant:stock/?x=..",
            "participant:stock/$x",
            "participant:stock/=",
            " participant:stock/reserve",
            "http://participant:80/",
        ] {
            assert_eq!(NamedUrl::parse(url), None, "{url}");
        }
        assert_eq!(NamedUrl::parse(&format!("participant:{}/", "a".repeat(65))), None);
        assert_eq!(NamedUrl::parse(&format!("participant:a/{}", "x".repeat(URL_BYTES_MAX - 13))), None);
    }

    proptest! {
        #[test]
        fn what_is_read_is_the_whole_and_stays_below_its_base(text in "participant:[a-z0-9._:@/?%-]{0,6}/[!-~]{0,12}") {
            if let Some(url) = NamedUrl::parse(&text) {
                prop_assert_eq!(format!("participant:{}{}", url.name(), url.path()), text.clone());
                prop_assert!(url.path().starts_with('/') && !url.path().contains(['%', '\\', '#']) && !text.contains(".."));
                prop_assert!(!url.name().contains(['/', ':', '@', '?']));
            }
        }
    }
}
