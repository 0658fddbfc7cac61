//! Resources that processes and the database have used.

use pgsaga_worker::db;
use sqlx::postgres::PgPool;

use crate::error::Error;
use crate::operate::read::row;

#[cfg(target_os = "linux")]
mod process {
    use procfs::process::{Process, all_processes};

    fn process(pid: u32) -> Option<Process> {
        Process::new(pid.try_into().ok()?).ok()
    }

    pub(crate) fn cpu_seconds(pid: u32) -> Option<f64> {
        let tasks = process(pid)?.tasks().ok()?.flatten();
        // A thread that has ended had little to do with the load.
        let nanoseconds: u64 = tasks.filter_map(|task| Some(task.schedstat().ok()?.sum_exec_runtime)).sum();
        Some(nanoseconds as f64 / 1e9)
    }

    pub(crate) fn postgres_cpu_seconds(postmaster: u32) -> Option<f64> {
        let stat = process(postmaster)?.stat().ok()?;
        let ended = (stat.cutime + stat.cstime) as f64 / procfs::ticks_per_second() as f64;
        let children = all_processes().ok()?.flatten().filter_map(|child| child.stat().ok());
        let running = children.filter(|child| child.ppid == stat.pid);
        let running = running.filter_map(|child| cpu_seconds(child.pid.cast_unsigned()));
        Some(cpu_seconds(postmaster)? + ended + running.sum::<f64>())
    }

    pub(crate) fn peak_memory_bytes(pid: u32) -> Option<u64> {
        Some(process(pid)?.status().ok()?.vmhwm? * 1024)
    }

    pub(crate) fn memory_now_bytes(pid: u32) -> Option<u64> {
        Some(process(pid)?.status().ok()?.vmrss? * 1024)
    }
}

/// Other systems do not report it.
#[cfg(not(target_os = "linux"))]
mod process {
    pub(crate) fn cpu_seconds(_: u32) -> Option<f64> {
        None
    }

    pub(crate) fn peak_memory_bytes(_: u32) -> Option<u64> {
        None
    }

    pub(crate) use cpu_seconds as postgres_cpu_seconds;
    pub(crate) use peak_memory_bytes as memory_now_bytes;
}

/// Seconds of CPU that all threads of a process have used.
pub(crate) use process::cpu_seconds;
/// Bytes of memory that a process uses now.
pub(crate) use process::memory_now_bytes;
/// Peak bytes of memory of a process.
pub(crate) use process::peak_memory_bytes;
/// CPU seconds of a Postgres server: its postmaster and all children, including those that have
/// ended.
pub(crate) use process::postgres_cpu_seconds;

row! {
    /// Work that a database has done up to a moment.
    #[derive(Debug, Clone)]
    Work {
        at_us: i64,
        commits: i64,
        /// Row versions in pgsaga's tables that became dead.
        dead_rows: i64,
        wal_lsn: String,
    }
}

impl Work {
    pub(crate) async fn read(pool: &PgPool) -> Result<Work, Error> {
        Ok(sqlx::query_as(include_str!("sql/read/work.sql")).fetch_one(pool).await?)
    }

    pub(crate) fn seconds_since(&self, before: &Work) -> f64 {
        (self.at_us - before.at_us) as f64 / 1e6
    }
}

/// Bytes of WAL between two moments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wal {
    pub(crate) all: i64,
    /// Bytes of full-page images after a checkpoint; `None` without the extension pg_walinspect.
    pub(crate) full_pages: Option<i64>,
}

impl Wal {
    pub(crate) async fn between(pool: &PgPool, from: &Work, to: &Work) -> Result<Wal, Error> {
        let bytes = |sql| sqlx::query_scalar(sql).bind(&from.wal_lsn).bind(&to.wal_lsn).fetch_one(pool);
        let all = bytes(include_str!("sql/read/wal.sql")).await?;
        let full_pages = match sqlx::raw_sql(include_str!("sql/setup/walinspect.sql")).execute(pool).await {
            Ok(_) => Some(bytes(include_str!("sql/read/full_pages.sql")).await?),
            // Postgres 14, a server without contrib modules, or a user without the right.
            Err(error) if matches!(db::sqlstate(&error).as_deref(), Some("0A000" | "58P01" | "42501")) => {
                tracing::info!(error = %db::describe(&error), "full-page images are not told apart");
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
        // In this order, because other tests of this process allocate memory meanwhile.
        let now = memory_now_bytes(pid).unwrap();
        assert!(peak_memory_bytes(pid).unwrap() >= now);
        assert!(postgres_cpu_seconds(pid).is_some());
        assert!(cpu_seconds(0).is_none());
    }
}
