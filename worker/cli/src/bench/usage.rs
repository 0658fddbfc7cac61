//! What processes and the database have used.

use std::fs;

use sqlx::Row as _;
use sqlx::postgres::PgPool;

use crate::error::Error;
use pgsaga_worker::db;

/// Seconds of CPU that a process has used, all its threads. `None` where the system does not say: Linux does.
pub(crate) fn cpu_seconds(pid: u32) -> Option<f64> {
    let mut nanoseconds = 0u64;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        // One that has ended meanwhile had little to do with the load.
        let Ok(text) = fs::read_to_string(thread.ok()?.path().join("schedstat")) else { continue };
        nanoseconds += text.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(nanoseconds as f64 / 1e9)
}

/// The same of a Postgres server: its postmaster, every child that runs, and those that have ended.
pub(crate) fn postgres_cpu_seconds(postmaster: u32) -> Option<f64> {
    let mut seconds = cpu_seconds(postmaster)? + ended_children_seconds(postmaster)?;
    for process in fs::read_dir("/proc").ok()? {
        let Some(pid) = process.ok()?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if stat_field(pid, PARENT) == Some(u64::from(postmaster)) {
            seconds += cpu_seconds(pid).unwrap_or(0.0);
        }
    }
    Some(seconds)
}

/// The most memory that a process has had, in bytes.
pub(crate) fn peak_memory_bytes(pid: u32) -> Option<u64> {
    memory_bytes(pid, "VmHWM:")
}

/// The memory that a process has now, in bytes.
pub(crate) fn memory_now_bytes(pid: u32) -> Option<u64> {
    memory_bytes(pid, "VmRSS:")
}

fn memory_bytes(pid: u32, what: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kibibytes = status.lines().find_map(|line| line.strip_prefix(what))?;
    Some(kibibytes.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Fields of /proc/PID/stat after the name, which may hold anything (proc(5)).
const PARENT: usize = 1;
const CHILDREN_USER: usize = 13;
const CHILDREN_SYSTEM: usize = 14;

fn stat_field(pid: u32, field: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(field)?.parse().ok()
}

fn ended_children_seconds(pid: u32) -> Option<f64> {
    // USER_HZ, in which proc(5) counts, is 100 on every Linux that Rust runs on.
    Some((stat_field(pid, CHILDREN_USER)? + stat_field(pid, CHILDREN_SYSTEM)?) as f64 / 100.0)
}

/// What a database has done until a moment.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    pub(crate) at_us: i64,
    pub(crate) commits: i64,
    /// Versions of rows that were left dead, in the tables of pgsaga.
    pub(crate) dead_rows: i64,
    wal_lsn: String,
}

impl Work {
    /// Until now.
    ///
    /// # Errors
    /// What the database says.
    pub(crate) async fn read(pool: &PgPool) -> Result<Work, Error> {
        let row = sqlx::query(include_str!("sql/work.sql")).fetch_one(pool).await?;
        Ok(Work {
            at_us: row.try_get("at_us")?,
            commits: row.try_get("commits")?,
            dead_rows: row.try_get("dead_rows")?,
            wal_lsn: row.try_get("wal_lsn")?,
        })
    }
}

/// WAL of a stretch of work, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wal {
    pub(crate) all: i64,
    /// Full-page images after a checkpoint; `None` where the extension pg_walinspect is not there.
    pub(crate) full_pages: Option<i64>,
}

impl Wal {
    /// Between two moments.
    ///
    /// # Errors
    /// What the database says.
    pub(crate) async fn between(pool: &PgPool, from: &Work, to: &Work) -> Result<Wal, Error> {
        let all = sqlx::query_scalar(include_str!("sql/wal.sql"))
            .bind(&from.wal_lsn)
            .bind(&to.wal_lsn)
            .fetch_one(pool)
            .await?;
        let full_pages = match sqlx::raw_sql(include_str!("sql/walinspect.sql")).execute(pool).await {
            Ok(_) => Some(
                sqlx::query_scalar(include_str!("sql/full_pages.sql"))
                    .bind(&from.wal_lsn)
                    .bind(&to.wal_lsn)
                    .fetch_one(pool)
                    .await?,
            ),
            // Postgres 14, a server without contrib modules, or a user who may not.
            Err(error) if matches!(db::sqlstate(&error).as_deref(), Some("0A000" | "58P01" | "42501")) => {
                tracing::info!(%error, "full-page images are not told apart");
                None
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Wal { all, full_pages })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_that_works_uses_cpu_and_memory() {
        let pid = std::process::id();
        let before = cpu_seconds(pid).unwrap();
        let started = std::time::Instant::now();
        while cpu_seconds(pid).unwrap() - before < 0.02 {
            assert!(started.elapsed().as_secs() < 60, "work was not counted");
            std::hint::black_box((0..100_000u64).sum::<u64>());
        }
        // In this order: other tests of this process take more meanwhile.
        let now = memory_now_bytes(pid).unwrap();
        assert!(peak_memory_bytes(pid).unwrap() >= now);
        assert!(postgres_cpu_seconds(pid).is_some());
        assert!(cpu_seconds(0).is_none());
    }
}
