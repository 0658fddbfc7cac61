use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use crate::error::Error;
use crate::json::quoted;

/// What to do with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the work may have been done before"]
pub enum Verdict {
    /// Do the work, in the transaction that entered the barrier, then commit and answer success.
    Proceed,
    /// It was done before, or there is nothing to undo: commit and answer success.
    Skip,
}

/// The participant's barrier: it makes the effects of calls that can come twice, late or in the wrong order happen once
/// or not at all. DTM's table and algorithm, so that handlers in other languages share it.
///
/// Make one for each try to handle a call: it counts its uses, and a try after a rollback must count from one again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Barrier {
    trans_type: String,
    gid: String,
    branch_id: String,
    op: String,
    uses: u32,
    persistent: bool,
}

const OPS: [&str; 7] = ["action", "compensate", "try", "confirm", "cancel", "commit", "rollback"];

impl Barrier {
    /// Makes the schema, table and function in the participant's own database. Idempotent; replicas may run it at once,
    /// and an existing barrier table of DTM's is kept.
    pub async fn install(pool: &PgPool) -> Result<(), Error> {
        // One string of statements is one transaction on the server, so it cannot be left half done.
        let script = format!("{}{}", include_str!("barrier_lock.sql"), pgsaga_sql::BARRIER);
        sqlx::raw_sql(AssertSqlSafe(script)).execute(pool).await?;
        Ok(())
    }

    /// Reads the URL query of a call: `gid`, `trans_type`, `branch_id` and `op`. Other parameters are yours.
    pub fn from_query(query: &str) -> Result<Self, Error> {
        Ok(Self {
            trans_type: parameter(query, "trans_type", 45)?,
            gid: parameter(query, "gid", 128)?,
            branch_id: parameter(query, "branch_id", 128)?,
            op: {
                let op = parameter(query, "op", 45)?;
                if !OPS.contains(&op.as_str()) {
                    let allowed = "action, compensate, try, confirm, cancel, commit, rollback";
                    return Err(Error::Query { place: "op", found: quoted(&op), allowed });
                }
                op
            },
            uses: 0,
            persistent: true,
        })
    }

    /// For a pool that goes through PgBouncer in transaction mode: the statement is not kept.
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

    /// Which operation is called.
    pub fn op(&self) -> &str {
        &self.op
    }

    /// Asks whether to do the work. Call it before the work and in its transaction, begun with sqlx's `begin()`: the
    /// barrier's row and the work commit, or roll back, together.
    ///
    /// Further uses in one handler are numbered 01, 02, … A backward op numbers its uses in the same order as its
    /// forward op. Any error: roll back, and answer an error, so that the call comes again.
    pub async fn enter(&mut self, connection: &mut PgConnection) -> Result<Verdict, Error> {
        // control: barrier-transaction
        if !connection.is_in_transaction() {
            return Err(Error::NoTransaction);
        }
        self.uses += 1;
        let proceed: bool = sqlx::query_scalar(include_str!("barrier_enter.sql"))
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

/// The one value of a parameter.
fn parameter(query: &str, name: &'static str, chars_max: usize) -> Result<String, Error> {
    let refuse = |found: String| Error::Query {
        place: name,
        found,
        allowed: if chars_max == 45 {
            "one value of 1 to 45 characters"
        } else {
            "one value of 1 to 128 characters"
        },
    };
    let query = query.strip_prefix('?').unwrap_or(query);
    let mut values = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(|(key, _)| decode(key).as_deref() == Some(name));
    let Some((_, value)) = values.next() else { return Err(refuse("nothing".to_owned())) };
    if values.next().is_some() {
        return Err(refuse("several values".to_owned()));
    }
    match decode(value) {
        Some(text) if (1..=chars_max).contains(&text.chars().count()) && !text.contains('\0') => Ok(text),
        Some(text) => Err(refuse(quoted(&text))),
        None => Err(refuse(quoted(value))),
    }
}

/// Undoes the encoding of forms and queries; `None` when the bytes are no text.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
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
