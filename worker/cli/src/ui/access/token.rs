//! The token that a person who decides logs in with. It is in no row, no log and no `Debug` output.

use std::fmt;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::error::Error;

/// The environment variable that holds the token. Not a variable of clap, because that would also
/// be a flag.
pub(crate) const VARIABLE: &str = "PGSAGA_UI_TOKEN";

const BYTES_MIN: usize = 16;
const BYTES_MAX: usize = 1024;

/// Holds only the token's digest.
#[derive(Clone)]
pub(crate) struct Token([u8; 32]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// Returns the token of the environment variable or of the file, if one of them is given.
    pub(crate) fn find(file: Option<&Path>) -> Result<Option<Token>, Error> {
        let variable = match std::env::var(VARIABLE) {
            Ok(text) => Some(text),
            Err(std::env::VarError::NotPresent) => None,
            Err(std::env::VarError::NotUnicode(_)) => return Err(unfit(VARIABLE, "bytes that are no text")),
        };
        match (variable, file) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(Error::Usage(format!(
                "{VARIABLE} and --token-file both name a token; allowed: one of them"
            ))),
            (Some(text), None) => Token::read(VARIABLE, &text).map(Some),
            (None, Some(path)) => {
                let name = format!("--token-file {}", path.display());
                let bytes = std::fs::read(path)
                    .map_err(|error| Error::Usage(format!("{name} cannot be read: {error}")))?;
                let text = String::from_utf8(bytes).map_err(|_| unfit(&name, "bytes that are no text"))?;
                // Editors end the last line with a line break.
                Token::read(&name, text.trim_end_matches(['\r', '\n'])).map(Some)
            }
        }
    }

    fn read(name: &str, text: &str) -> Result<Token, Error> {
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(unfit(name, "a character that is none of them"));
        }
        if !(BYTES_MIN..=BYTES_MAX).contains(&text.len()) {
            return Err(unfit(name, &format!("{} characters", text.len())));
        }
        Ok(Token(digest(text)))
    }

    /// Whether `given` is the token. The duration of the comparison reveals nothing about it.
    pub(crate) fn is(&self, given: &str) -> bool {
        self.0.ct_eq(&digest(given)).into()
    }
}

/// A digest has the same length for every input.
pub(crate) fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// Refuses a token without showing any part of it.
fn unfit(name: &str, found: &str) -> Error {
    Error::Usage(format!(
        "{name}: found {found}; allowed: {BYTES_MIN} to 1,024 printable ASCII characters without a space"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_all_of_it_and_never_shown() {
        let token = Token::read("t", "0123456789abcdef").unwrap();
        assert!(token.is("0123456789abcdef"));
        for other in ["", "0123456789abcde", "0123456789abcdef0", "0123456789abcdeF"] {
            assert!(!token.is(other), "{other}");
        }
        assert_eq!(format!("{token:?}"), "Token");
    }

    #[test]
    fn an_unfit_token_is_refused_without_being_shown() {
        let long = "x".repeat(1025);
        for unfit in
            ["", "short-secret", "with a space in it", "tab\tin-between-here", "größer-als-erlaubt", &long]
        {
            let said = Token::read("t", unfit).unwrap_err();
            assert_eq!(said.exit_code(), 2);
            let said = said.to_string();
            assert!(said.contains("allowed: 16 to 1,024"), "{said}");
            assert!(unfit.is_empty() || !said.contains(unfit), "{said}");
        }
    }
}
