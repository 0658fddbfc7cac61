//! The parameters of a link or a form.

use std::borrow::Cow;

use super::failure::Failure;

/// Characters of a gid (`pgsaga.saga.gid`).
const GID_CHARS_MAX: usize = 128;

#[derive(Debug, Default)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    /// Reads a query or a form. Any input can be read.
    pub(crate) fn read(text: &str) -> Params {
        let owned = |text: Cow<'_, str>| text.into_owned();
        Params(
            form_urlencoded::parse(text.as_bytes())
                .map(|(name, value)| (owned(name), owned(value)))
                .collect(),
        )
    }

    /// Refuses parameters that the page does not have.
    pub(crate) fn only(&self, allowed: &[&str]) -> Result<(), Failure> {
        match self.0.iter().find(|(name, _)| !allowed.contains(&name.as_str())) {
            None => Ok(()),
            Some((name, _)) => {
                Err(Failure::bad(format!("{name:?} means nothing here; allowed: {}", allowed.join(", "))))
            }
        }
    }

    /// The value of a parameter, if it is not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    pub(crate) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let named = self.0.iter().filter(move |(key, value)| key == name && !value.is_empty());
        named.map(|(_, value)| value.as_str())
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, Failure> {
        let bad = |text| Failure::bad(format!("{name}: found {text:?}; allowed: a whole number"));
        self.get(name).map(|text| text.parse().map_err(|_| bad(text))).transpose()
    }

    /// The saga's gid. Text that cannot be a gid counts as an unknown saga.
    pub(crate) fn gid(&self) -> Result<String, Failure> {
        let gid =
            self.get("gid").ok_or_else(|| Failure::bad("gid: found nothing; allowed: the gid of a saga"))?;
        if !is_of_gid(gid) {
            return Err(unknown(gid));
        }
        Ok(gid.to_owned())
    }
}

/// Whether the text may be part of a gid.
pub(crate) fn is_of_gid(text: &str) -> bool {
    text.len() <= GID_CHARS_MAX
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte))
}

pub(crate) fn unknown(gid: &str) -> Failure {
    let shown: String = gid.chars().take(2 * GID_CHARS_MAX).collect();
    Failure::absent(format!(
        "No saga has the gid {shown:?} in this database. It may have been deleted after its time."
    ))
}

pub(crate) fn link(path: &str, pairs: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs);
    let query = query.finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_read_as_it_was_made() {
        let made = link("/sagas", &[("label", "a=b&c"), ("label", "ü \"<"), ("text", "x:1")]);
        let params = Params::read(made.split_once('?').unwrap().1);
        assert_eq!(params.all("label").collect::<Vec<_>>(), ["a=b&c", "ü \"<"]);
        assert_eq!(params.get("text"), Some("x:1"));
        assert_eq!(params.get("none"), None);
        assert!(params.only(&["label", "text"]).is_ok());
        assert!(
            params.only(&["label"]).unwrap_err().why.contains("\"text\" means nothing here; allowed: label")
        );
    }

    #[test]
    fn what_cannot_be_a_gid_is_unknown() {
        assert_eq!(Params::read("gid=a.b_c:1-2").gid().unwrap(), "a.b_c:1-2");
        for bad in ["gid=a%00", "gid=%3Cb%3E", "gid=a+b", &format!("gid={}", "x".repeat(129))] {
            assert_eq!(Params::read(bad).gid().unwrap_err().status.as_u16(), 404, "{bad}");
        }
        assert_eq!(Params::read("").gid().unwrap_err().status.as_u16(), 400);
    }
}
