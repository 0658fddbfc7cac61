use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

/// Why a private Postgres could not be started or stopped. Texts complete the sentence "failed to …".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No folder with `initdb` and `postgres` is on this machine.
    #[error(
        "find a Postgres server on this machine, or fetch one ({why}); install one (`apt-get install postgresql`, \
         `dnf install postgresql-server`, `brew install postgresql@17`) or name the folder of its `initdb` in PGSAGA_PG_BIN"
    )]
    NoBinaries {
        /// Why it could not be fetched.
        why: String,
    },
    /// The folder that was named does not hold the programs.
    #[error(
        "use the Postgres in {}: it does not hold both `initdb` and `postgres`; name the folder that does in \
         PGSAGA_PG_BIN, such as /usr/lib/postgresql/17/bin, or unset it to have one looked for", .0.display()
    )]
    NotBinaries(PathBuf),
    /// We are root, Postgres refuses to be, and there is nobody else.
    #[error(
        "find the user `postgres` or `nobody`: Postgres refuses to run as root; add one (`useradd --system postgres`) \
         or do not start this as root"
    )]
    NoAccount,
    /// A file or folder of the server.
    #[error("prepare {}: {source}; it needs a writable /tmp with some 100 MB of space", .path.display())]
    Directory {
        /// What could not be made, opened or handed over.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A program did not start at all.
    #[error("run {}: {source}", .program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `initdb` failed.
    #[error("make a database cluster: initdb ended with {status} and said:\n{output}")]
    Initdb {
        /// How it ended.
        status: ExitStatus,
        /// The end of its output.
        output: String,
    },
    /// `pg_basebackup` failed.
    #[error("copy a server: pg_basebackup ended with {status} and said:\n{output}")]
    Copy {
        /// How it ended.
        status: ExitStatus,
        /// The end of its output.
        output: String,
    },
    /// The server ended, or did not become ready.
    #[error("start Postgres: {ended}; the end of its log:\n{log}")]
    Start {
        /// How it ended, in words.
        ended: String,
        /// The end of its log.
        log: String,
    },
    /// The server could not be signalled.
    #[error("signal the Postgres with pid {pid}: {source}")]
    Signal {
        /// The postmaster.
        pid: u32,
        /// Why.
        source: nix::errno::Errno,
    },
    /// The server outlived every signal.
    #[error(
        "stop the Postgres with pid {pid}: it did not end; look at its state with `ps -o stat,wchan -p {pid}`"
    )]
    Stop {
        /// The postmaster.
        pid: u32,
    },
}
