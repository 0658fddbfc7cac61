use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

/// The reason why a private Postgres could not be started or stopped. Each text completes the
/// sentence "failed to …".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The machine has no directory with `initdb` and `postgres`.
    #[error(
        "find a Postgres server on this machine, or fetch one ({why}); install one (`apt-get install postgresql`, \
         `dnf install postgresql-server`, `brew install postgresql@17`) or name the folder of its `initdb` in PGSAGA_PG_BIN"
    )]
    NoBinaries {
        /// The reason why the download failed.
        why: String,
    },
    /// The given directory lacks one of the programs.
    #[error(
        "use the Postgres in {}: it does not hold both `initdb` and `postgres`; name the folder that does in \
         PGSAGA_PG_BIN, such as /usr/lib/postgresql/17/bin, or unset it to have one looked for", .0.display()
    )]
    NotBinaries(PathBuf),
    /// This process is root, and no unprivileged user exists for the server.
    #[error(
        "find the user `postgres` or `nobody`: Postgres refuses to run as root; add one (`useradd --system postgres`) \
         or do not start this as root"
    )]
    NoAccount,
    /// A file or directory of the server could not be prepared.
    #[error("prepare {}: {source}; it needs a writable /tmp with some 100 MB of space", .path.display())]
    Directory {
        /// Path that could not be created, opened or handed over.
        path: PathBuf,
        /// The reason for the failure.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("run {}: {source}", .program.display())]
    Run {
        /// Path of the program file.
        program: PathBuf,
        /// The reason for the failure.
        source: io::Error,
    },
    /// The program `initdb` failed.
    #[error("make a database cluster: initdb ended with {status} and said:\n{output}")]
    Initdb {
        /// Exit status of the program.
        status: ExitStatus,
        /// The end of its output.
        output: String,
    },
    /// The program `pg_basebackup` failed.
    #[error("copy a server: pg_basebackup ended with {status} and said:\n{output}")]
    Copy {
        /// Exit status of the program.
        status: ExitStatus,
        /// The end of its output.
        output: String,
    },
    /// The server ended, or did not become ready.
    #[error("start Postgres: {ended}; the end of its log:\n{log}")]
    Start {
        /// Description of the server's end.
        ended: String,
        /// The end of the server's log.
        log: String,
    },
    /// The server could not be signalled.
    #[error("signal the Postgres with pid {pid}: {source}")]
    Signal {
        /// Process id of the postmaster.
        pid: u32,
        /// The reason for the failure.
        source: nix::errno::Errno,
    },
    /// The server did not end after any signal.
    #[error(
        "stop the Postgres with pid {pid}: it did not end; look at its state with `ps -o stat,wchan -p {pid}`"
    )]
    Stop {
        /// Process id of the postmaster.
        pid: u32,
    },
}
