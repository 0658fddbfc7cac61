//! Whose database it is: the name of its environment, and the cluster that workers work in.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{FromRow, Row as _};

use crate::{fail, query};

/// What a person changes of the row `pgsaga.home`.
#[derive(Debug, Clone, Default)]
pub struct HomeChange {
    /// The database becomes one of this cluster, so that workers work in it.
    pub adopts: bool,
    /// The new name of the environment.
    pub environment: Option<String>,
}

impl HomeChange {
    /// Applies the change. The connection's role must own the schema `pgsaga`.
    ///
    /// # Errors
    /// Any error of the database.
    pub async fn apply(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self.adopts {
            fail::before(query::HOME_ADOPT);
            sqlx::query(query::HOME_ADOPT).execute(&mut *connection).await?;
            fail::after(query::HOME_ADOPT);
        }
        if let Some(environment) = &self.environment {
            fail::before(query::HOME_NAME);
            sqlx::query(query::HOME_NAME).bind(environment).execute(&mut *connection).await?;
            fail::after(query::HOME_NAME);
        }
        Ok(())
    }

    /// The same as a script.
    pub(super) fn script(&self) -> String {
        let adopts = self.adopts.then(|| format!("\n{};\n", query::HOME_ADOPT.trim_end()));
        let named = self.environment.as_ref().map(|environment| {
            let literal = format!("'{}'", environment.replace('\'', "''"));
            format!("\n{};\n", query::HOME_NAME.trim_end().replace("= $1", &format!("= {literal}")))
        });
        adopts.into_iter().chain(named).collect()
    }
}

/// Whose database it is, and what its workers are told.
#[derive(Debug, Clone)]
pub struct Home {
    /// The name of the environment.
    pub environment: Option<String>,
    /// Why workers of this environment may not work here.
    pub misfit: Option<String>,
    /// What workers of this environment warn of.
    pub doubt: Option<String>,
}

impl Home {
    /// Reads the row, and what `pgsaga.check_home` says of it.
    ///
    /// # Errors
    /// Any error of the database.
    pub async fn read(connection: &mut PgConnection) -> Result<Home, sqlx::Error> {
        sqlx::query_as(query::HOME).fetch_one(connection).await
    }
}

impl FromRow<'_, PgRow> for Home {
    fn from_row(row: &PgRow) -> Result<Home, sqlx::Error> {
        Ok(Home {
            environment: row.try_get("environment")?,
            misfit: row.try_get("misfit")?,
            doubt: row.try_get("doubt")?,
        })
    }
}

/// Reads the name of an environment, as the table `pgsaga.home` allows it.
///
/// # Errors
/// What is allowed.
pub fn environment(text: &str) -> Result<String, String> {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut bytes = text.bytes();
    let is_name = (1..=64).contains(&text.len())
        && bytes.next().is_some_and(is_word)
        && bytes.all(|byte| is_word(byte) || matches!(byte, b'.' | b'_' | b'-'));
    let allowed = "allowed: 1 to 64 of the characters a-z 0-9 . _ -, the first of them a letter or a digit, such as production";
    if is_name { Ok(text.to_owned()) } else { Err(allowed.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_changes_what_was_asked_for() {
        assert_eq!(HomeChange::default().script(), "");
        let change = HomeChange { adopts: true, environment: Some("it's".to_owned()) };
        let script = change.script();
        assert!(script.contains("\ninsert into pgsaga.home "), "{script}");
        assert!(script.ends_with("update pgsaga.home set environment = 'it''s';\n"), "{script}");
    }
}
