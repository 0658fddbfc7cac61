//! Errors of the database, in words for people.

use std::fmt;

/// An error of sqlx as people read it.
///
/// sqlx adds the line of Postgres' C source (`at line 334`) and says which layer failed. Both
/// mislead: people look for line 334 of their own files.
#[derive(Debug, Clone, Copy)]
pub struct Described<'a>(&'a sqlx::Error);

/// Returns the words for this error.
pub fn describe(error: &sqlx::Error) -> Described<'_> {
    Described(error)
}

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            sqlx::Error::Database(error) => f.write_str(error.message()),
            sqlx::Error::Io(error) => error.fmt(f),
            sqlx::Error::PoolTimedOut => f.write_str("no connection could be had in time"),
            error => error.fmt(f),
        }
    }
}

/// Returns the statement that gives a user the rights of one of pgsaga's roles.
pub fn grant(role: &str, user: &str) -> String {
    format!("grant {role} to \"{}\"", user.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_of_any_name_is_granted_a_role() {
        assert_eq!(grant("pgsaga_reader", "amy"), r#"grant pgsaga_reader to "amy""#);
        assert_eq!(grant("pgsaga_reader", r#"a"b; drop"#), r#"grant pgsaga_reader to "a""b; drop""#);
    }

    #[test]
    fn words_name_no_layer() {
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        assert_eq!(describe(&sqlx::Error::Io(refused)).to_string(), "connection refused");
        assert!(!describe(&sqlx::Error::PoolTimedOut).to_string().contains("pool"));
    }
}
