//! Whether a URL leads through a pooler in transaction mode, such as PgBouncer.

use pgsaga_sql::query;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use super::{ACQUIRE_MAX, sqlstate, within};

/// The order in which two connections ask for the process that serves them. A pooler hands out
/// server processes in some order (the last one used first, or in turns), and other clients take
/// some meanwhile. In this order it repeats or changes a process under either rule.
const ASKS: [usize; 6] = [0, 1, 1, 0, 0, 1];

/// Whether these options lead through a pooler in transaction mode.
///
/// A session of Postgres has one process for its whole life, which no other session has. Behind
/// such a pooler each transaction may have another one.
///
/// # Errors
/// The database does not answer.
pub(crate) async fn is_pooled(options: &PgConnectOptions) -> Result<bool, sqlx::Error> {
    let mut connections = Vec::with_capacity(2);
    for _ in 0..2 {
        match within(ACQUIRE_MAX, options.connect()).await {
            Ok(connection) => connections.push(connection),
            Err(error) if refuses_settings(&error) => return Ok(true),
            Err(error) => return Err(error),
        }
    }
    let pooled = share_processes(&mut connections).await;
    for connection in connections {
        // The answer is known. The connections are of no more use.
        let _ = within(ACQUIRE_MAX, connection.close()).await;
    }
    pooled
}

/// Whether a pooler refuses the settings of a session. Postgres knows them all.
pub(super) fn refuses_settings(error: &sqlx::Error) -> bool {
    sqlstate(error).as_deref() == Some("08P01")
        && error.as_database_error().is_some_and(|error| error.message().contains("startup parameter"))
}

async fn share_processes(connections: &mut [PgConnection]) -> Result<bool, sqlx::Error> {
    let mut processes = [None; 2];
    for nth in ASKS {
        // A simple query, because a pooler could send Parse and Bind to different processes.
        let asked = sqlx::raw_sql(query::SERVER_PROCESS).fetch_one(&mut connections[nth]);
        let row = within(ACQUIRE_MAX, asked).await?;
        let process: i32 = sqlx::Row::try_get(&row, "process")?;
        if processes[nth].is_some_and(|known| known != process) || processes[1 - nth] == Some(process) {
            return Ok(true);
        }
        processes[nth] = Some(process);
    }
    Ok(false)
}
