//! Extreme values: what a column of a saga's rows can be made to hold by whoever may write to it.
//!
//! Nothing in a table's definition keeps most of them out, so a restore, a script or a typing error
//! brings them in. One such row may cost its own saga; it may cost no other saga, no command and no
//! process.

use sqlx::{AssertSqlSafe, PgExecutor, PgPool};

use crate::size::{is_drawn, seed};

/// The tables that hold rows of sagas, and the column that names the saga.
const TABLES: [(&str, &str); 4] =
    [("saga", "id"), ("task", "saga_id"), ("history", "saga_id"), ("stuck", "saga_id")];

/// The extremes of each type, as SQL without the cast.
const VALUES: [(&str, &[&str]); 8] = [
    ("smallint", &["-32768", "32767", "0", "-1"]),
    ("integer", &["-2147483648", "2147483647", "0", "-1"]),
    ("bigint", &["-9223372036854775808", "9223372036854775807", "0", "-1"]),
    (
        "timestamp with time zone",
        &["'infinity'", "'-infinity'", "'290000-01-01'", "'4713-01-01 BC'", "'10000-01-01'"],
    ),
    ("interval", &["'178000000 years'", "'-178000000 years'", "'0'"]),
    ("text", &["''", r"E'\x01\x1b[31m\n\u202e'", "repeat('x', 1048576)"]),
    (
        "jsonb",
        &[
            "7",
            "1e400",
            "{}",
            "[]",
            "null",
            r#""x""#,
            "[7]",
            r#"[{"action": 7}]"#,
            r#"[{"action": "", "name": {}, "compensate": [], "after": {}, "pivot": 7, "payload": null,
                "retry_limit": 1e400, "compensate_retry_limit": "x", "retry_interval_seconds": {}}]"#,
            r#"{"1/action": 1e400, "1/compensate": "x"}"#,
            "DEEP",
        ],
    ),
    ("boolean", &["false", "true"]),
];

/// Levels of the deeply nested value: more than serde_json reads.
const LEVELS: usize = 1_000;

/// A column of a saga's rows and a value for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extreme {
    /// The table, without its schema.
    pub table: &'static str,
    /// The column.
    pub column: String,
    /// An SQL expression with its cast.
    pub value: String,
}

impl std::fmt::Display for Extreme {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{} = {}", self.table, self.column, self.value.chars().take(80).collect::<String>())
    }
}

/// Each extreme value of each column of `saga`, `task`, `history` and `stuck`, with null where the
/// column takes it. A small run has a third of them, drawn by `SEED`; three consecutive seeds have
/// all.
///
/// # Panics
/// When a column's type has no extreme values here.
pub async fn extremes(pool: &PgPool) -> Vec<Extreme> {
    let mut all = Vec::new();
    let mut columns_before = 0;
    for (table, _) in TABLES {
        let columns: Vec<(String, String, bool)> = sqlx::query_as(
            // A domain takes the values of its type that it allows.
            "select a.attname::text, format_type(coalesce(nullif(t.typbasetype, 0), t.oid), null), a.attnotnull
             from pg_attribute a join pg_type t on t.oid = a.atttypid
             where a.attrelid = ('pgsaga.' || $1)::regclass and a.attnum > 0 and not a.attisdropped order by a.attnum",
        )
        .bind(table)
        .fetch_all(pool)
        .await
        .unwrap();
        for (column, kind, filled) in columns {
            let Some((_, values)) = VALUES.iter().find(|(of, _)| *of == kind) else {
                panic!(
                    "pgsaga.{table}.{column}: found type {kind}; allowed: one with extreme values in VALUES"
                );
            };
            let mut values: Vec<String> = values.iter().map(|value| literal(&kind, value)).collect();
            if !filled {
                values.push(format!("null::{kind}"));
            }
            let drawn = values.into_iter().enumerate().filter(|(nth, _)| is_drawn(columns_before + nth, 3));
            all.extend(drawn.map(|(_, value)| Extreme { table, column: column.clone(), value }));
            columns_before += 1;
        }
    }
    println!("SEED={}: {} extreme values", seed(), all.len());
    all
}

fn literal(kind: &str, value: &str) -> String {
    match (kind, value) {
        ("jsonb", "DEEP") => format!("(repeat('[', {LEVELS}) || repeat(']', {LEVELS}))::jsonb"),
        ("jsonb", json) => format!("'{json}'::jsonb"),
        ("smallint" | "integer" | "bigint", number) => format!("({number})::{kind}"),
        (_, value) => format!("({value})::{kind}"),
    }
}

/// Writes the value to the saga's row, or rows, of the table, and says whether the database took
/// it: a constraint, a trigger or an index may refuse it, an identity always does, and the saga may
/// have no row there.
///
/// # Panics
/// When the database fails in another way, or there is no such table.
pub async fn apply(
    database: impl PgExecutor<'_>,
    table: &str,
    column: &str,
    value: &str,
    saga_id: i64,
) -> bool {
    let Some((_, key)) = TABLES.iter().find(|(name, _)| *name == table) else {
        panic!("no table {table} has rows of sagas");
    };
    let update = format!("update pgsaga.{table} set {column} = {value} where {key} = $1");
    match sqlx::query(AssertSqlSafe(update)).bind(saga_id).execute(database).await {
        Ok(done) => done.rows_affected() > 0,
        Err(sqlx::Error::Database(error)) if refuses(error.code().as_deref()) => false,
        Err(error) => panic!("{table}.{column} = {value}: {error}"),
    }
}

/// A refusal of this value: bad data, a constraint, a generated column, an entry that an index
/// cannot hold.
fn refuses(code: Option<&str>) -> bool {
    code.is_some_and(|code| matches!(&code[..2], "22" | "23" | "54" | "55") || code == "428C9")
}
