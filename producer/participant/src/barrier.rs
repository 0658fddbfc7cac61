use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use sqlx::{Connection, PgConnection, PgPool, raw_sql};

use crate::error::Error;

/// Creates the barrier in one string of statements, which Postgres runs as one transaction.
const INSTALL: &str = concat!(include_str!("../sql/lock.sql"), include_str!("../sql/barrier.sql"));
const ENTER: &str = include_str!("../sql/enter.sql");

/// Answer of the barrier to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the work may have been done before"]
pub enum Verdict {
    /// Do the work, in the transaction that entered the barrier, then commit and answer success.
    Proceed,
    /// The work was done before, or there is nothing to undo: commit and answer success.
    Skip,
}

/// The participant's barrier. Calls can come twice, late or in the wrong order; the barrier makes
/// the effect of each happen once or not at all.
///
/// Make a new barrier each time a call is handled: it counts its uses, and a retry after a rollback
/// must count from one again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Barrier {
    trans_type: String,
    gid: String,
    branch_id: String,
    op: String,
    uses: u32,
    persistent: bool,
}

impl Barrier {
    /// Creates the schema, the table and the function in the participant's own database.
    /// Idempotent: replicas may run it at once, and a barrier table of DTM's stays as it is.
    pub async fn install(pool: &PgPool) -> Result<(), Error> {
        raw_sql(INSTALL).execute(pool).await?;
        Ok(())
    }

    /// Reads `gid`, `trans_type`, `branch_id` and `op` of a call's URL query. Other parameters are
    /// yours.
    ///
    /// # Errors
    /// [`Error::Query`] when one of them is missing, has several values, or is not what it must be.
    pub fn from_query(query: &str) -> Result<Self, Error> {
        let op = parameter(query, "op", SHORT)?;
        if !OPS.contains(&op.as_str()) {
            let allowed = "action, compensate, try, confirm, cancel, commit, rollback";
            return Err(Error::Query { place: "op", found: quoted(&op), allowed });
        }
        Ok(Self {
            trans_type: parameter(query, "trans_type", SHORT)?,
            gid: parameter(query, "gid", LONG)?,
            branch_id: parameter(query, "branch_id", LONG)?,
            op,
            uses: 0,
            persistent: true,
        })
    }

    /// Does not keep the prepared statement, as a pool through PgBouncer in transaction mode needs.
    #[must_use]
    pub fn behind_pgbouncer(mut self) -> Self {
        self.persistent = false;
        self
    }

    /// The saga's name.
    pub fn gid(&self) -> &str {
        &self.gid
    }

    /// The step's name.
    pub fn branch_id(&self) -> &str {
        &self.branch_id
    }

    /// The operation: `action`, `compensate`, or one of DTM's own.
    pub fn op(&self) -> &str {
        &self.op
    }

    /// Asks whether to do the work. Call it before the work, in the transaction of the work, begun
    /// with sqlx's `begin()`: the barrier's row and the work commit or roll back together.
    ///
    /// A handler may enter several times; the uses are numbered 01, 02, … A backward op numbers its
    /// uses in the same order as its forward op.
    ///
    /// # Errors
    /// [`Error`]. Roll back, and answer an error, so that the call comes again.
    pub async fn enter(&mut self, connection: &mut PgConnection) -> Result<Verdict, Error> {
        // control: barrier-transaction
        if !connection.is_in_transaction() {
            return Err(Error::NoTransaction);
        }
        self.uses += 1;
        let proceed: bool = sqlx::query_scalar(ENTER)
            .bind(&self.trans_type)
            .bind(&self.gid)
            .bind(&self.branch_id)
            .bind(&self.op)
            .bind(format!("{:02}", self.uses))
            .persistent(self.persistent)
            .fetch_one(connection)
            .await?;
        Ok(if proceed { Verdict::Proceed } else { Verdict::Skip })
    }
}

const OPS: [&str; 7] = ["action", "compensate", "try", "confirm", "cancel", "commit", "rollback"];

/// The most characters of a column of the barrier's table, in numbers and in words.
type CharsMax = (usize, &'static str);
const SHORT: CharsMax = (45, "one value of 1 to 45 characters");
const LONG: CharsMax = (128, "one value of 1 to 128 characters");

/// Reads the one value of a parameter.
fn parameter(query: &str, name: &'static str, (chars_max, allowed): CharsMax) -> Result<String, Error> {
    let refuse = |found: String| Err(Error::Query { place: name, found, allowed });
    let query = query.strip_prefix('?').unwrap_or(query);
    let mut values = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(|(key, _)| decode(key).as_deref() == Some(name));
    let Some((_, value)) = values.next() else { return refuse("nothing".to_owned()) };
    if values.next().is_some() {
        return refuse("several values".to_owned());
    }
    match decode(value) {
        Some(text) if (1..=chars_max).contains(&text.chars().count()) && !text.contains('\0') => Ok(text),
        text => refuse(quoted(text.as_deref().unwrap_or(value))),
    }
}

/// Undoes the encoding of forms and queries. `None` when the bytes are no text, or an escape is cut
/// off: readers differ about what such a value means.
fn decode(text: &str) -> Option<String> {
    let is_whole = |escape: &str| escape.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    if !text.split('%').skip(1).all(is_whole) {
        return None;
    }
    percent_decode_str(&text.replace('+', " ")).decode_utf8().ok().map(Cow::into_owned)
}

/// A text between quotes, cut to 64 characters.
fn quoted(text: &str) -> String {
    match text.char_indices().nth(64) {
        Some((end, _)) => format!("{:?}", format!("{}…", &text[..end])),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_s_query_names_the_operation() {
        let barrier =
            Barrier::from_query("x=1&gid=a%3Ab&trans_type=saga&branch_id=01&op=compensate&y").unwrap();
        assert_eq!((barrier.gid(), barrier.branch_id(), barrier.op()), ("a:b", "01", "compensate"));
        assert!(Barrier::from_query("?gid=a&trans_type=saga&branch_id=01&op=action").is_ok());
    }

    #[test]
    fn a_query_that_could_mean_two_things_is_refused() {
        let words = |query: &str| Barrier::from_query(query).unwrap_err().to_string();
        assert_eq!(
            words("gid=a&trans_type=saga&branch_id=01"),
            "the query of the call cannot be a saga's: op: found nothing; allowed: one value of 1 to 45 characters"
        );
        for bad in [
            "gid=a&gid=b&trans_type=saga&branch_id=01&op=action",
            "gid=&trans_type=saga&branch_id=01&op=action",
            "gid=%zz&trans_type=saga&branch_id=01&op=action",
            "gid=%ff&trans_type=saga&branch_id=01&op=action",
            "gid=a%00&trans_type=saga&branch_id=01&op=action",
            "gid=a&trans_type=saga&branch_id=01&op=drop",
            "gid=a%3&trans_type=saga&branch_id=01&op=action",
        ] {
            assert!(words(bad).starts_with("the query of the call cannot be a saga's"), "{bad}");
        }
        let long = "g".repeat(129);
        words(&format!("gid={long}&trans_type=saga&branch_id=01&op=action"));
    }
}
