//! The settings of sessions.

use std::time::Duration;

use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};

/// Planner settings for every session of a worker.
///
/// The hot statements are written for index loops, and EXPLAIN tests show that their plans do not
/// depend on statistics. Planning a statement again on each execution costs more than it gains.
///
/// A generic plan made while a table is small stays in use while the table grows to millions of
/// rows. Sequential scans are therefore disabled. Bitmap scans are disabled because a claim that
/// needs a few hundred rows would read and sort all due rows.
pub const PLANNER: [(&str, &str); 4] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("jit", "off"),
    // control: plans-without-scans
    ("enable_seqscan", "off"),
    // control: plans-without-sorts
    ("enable_bitmapscan", "off"),
];

/// Settings that the statements rely on. A role or a database may set others, and a session of a
/// worker or of a command must not follow them. Producers' sessions are their own: the functions
/// that an INSERT runs rely on no setting.
pub const PINNED: [(&str, &str); 5] = [
    ("search_path", "pg_catalog, pg_temp"),
    // Each statement must see what the one before it waited for.
    // control: session-isolation
    ("default_transaction_isolation", "read committed"),
    ("idle_session_timeout", "0"),
    ("standard_conforming_strings", "on"),
    ("IntervalStyle", "postgres"),
];

/// If a worker's machine disappears without closing the connection, its session ends within a
/// minute. Until then the session holds its locks, such as the advisory lock that makes producers
/// notify.
const KEEPALIVES: [(&str, &str); 3] =
    [("tcp_keepalives_idle", "30"), ("tcp_keepalives_interval", "10"), ("tcp_keepalives_count", "3")];

/// Sets [`PINNED`] in an open session of a command.
///
/// # Errors
/// Any error of the database.
pub async fn pin(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let settings = PINNED.map(|(name, value)| format!("set_config('{name}', '{value}', false)"));
    sqlx::raw_sql(AssertSqlSafe(format!("select {}", settings.join(", ")))).execute(connection).await?;
    Ok(())
}

pub(super) fn prepare(options: PgConnectOptions, pooled: bool, timeout: Duration) -> PgConnectOptions {
    // sqlx would log the full text of each statement, and the log's events would be hard to find.
    let options = sqlx::ConnectOptions::disable_statement_logging(options.application_name("pgsaga"));
    if pooled {
        // PgBouncer refuses start-up parameters that it does not track.
        return options.extra_float_digits(None);
    }
    let timeout_ms = timeout.as_millis().to_string();
    options
        .options([
            ("statement_timeout", timeout_ms.as_str()),
            ("lock_timeout", timeout_ms.as_str()),
            ("idle_in_transaction_session_timeout", "60000"),
        ])
        .options(KEEPALIVES)
        .options(PINNED)
        .options(PLANNER)
}

/// The options of a session for the transactions of handlers. Its settings are the role's own: the
/// application's statements run in it.
pub(super) fn of_handlers(options: PgConnectOptions, pooled: bool) -> PgConnectOptions {
    let options = options.application_name("pgsaga handler");
    if pooled {
        // A server connection of the pooler may have a statement of the same name.
        return options.extra_float_digits(None).statement_cache_capacity(0);
    }
    options.options(KEEPALIVES)
}

/// Whether the connection is neither local nor verified. With an `sslmode` below `verify-full`, a
/// man in the middle can read and change all traffic. The default, `prefer`, even falls back to no
/// TLS.
pub(super) fn is_unverified(options: &PgConnectOptions) -> bool {
    let host = options.get_host().trim_matches(['[', ']']);
    let local = options.get_socket().is_some()
        || host.starts_with('/')
        || host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    !local && !matches!(options.get_ssl_mode(), PgSslMode::VerifyFull)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::db::Hosts;

    #[test]
    fn a_connection_that_is_neither_local_nor_verified_is_known() {
        for (url, unverified) in [
            ("postgres://u@db.example/x", true),
            ("postgres://u@db.example/x?sslmode=require", true),
            ("postgres://u@db.example/x?sslmode=verify-full", false),
            ("postgres://u@localhost/x", false),
            ("postgres://u@127.0.0.1/x", false),
            ("postgres://u@[::1]/x", false),
            ("postgres:///x?host=/run/postgresql", false),
            ("postgres://u@localhost,db.example/x", true),
            ("postgres://u@localhost,db.example/x?sslmode=verify-full", false),
        ] {
            let hosts = Hosts::read(url, false, Duration::from_secs(1)).unwrap();
            assert_eq!(hosts.is_unverified(), unverified, "{url}");
        }
    }
}
