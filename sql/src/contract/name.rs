use std::fmt;

/// A name of the characters `A-Z a-z 0-9 . _ : -`. They can stand in a URL and a header, and lack
/// `/`, which joins a gid, a step's name and an op to an idempotency key.
#[derive(Debug, Clone, Copy)]
pub struct Name {
    /// The longest name that is allowed.
    pub bytes_max: usize,
}

impl Name {
    /// Whether the text is such a name.
    pub fn allows(self, text: &str) -> bool {
        // control: name-characters
        (1..=self.bytes_max).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1 to {} of the characters A-Z a-z 0-9 . _ : -", self.bytes_max)
    }
}

/// The name of a step that is given none: its position from 1, with two digits or more.
pub fn default_step_name(position: usize) -> String {
    format!("{position:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::GID;

    #[test]
    fn a_name_holds_only_what_a_header_and_a_url_can() {
        for good in ["order-42:a.b_C", "0", &"g".repeat(128)] {
            assert!(GID.allows(good), "{good}");
        }
        for bad in ["", "a/b", "a b", "ä", "a\n", "a\0", &"g".repeat(129)] {
            assert!(!GID.allows(bad), "{bad:?}");
        }
    }

    #[test]
    fn positions_have_at_least_two_digits() {
        let names = [1, 9, 10, 99, 100, 1000].map(default_step_name);
        assert_eq!(names, ["01", "09", "10", "99", "100", "1000"]);
    }
}
