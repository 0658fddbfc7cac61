use std::time::Duration;

/// Errors of the kit, of its private server and of scratch databases.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A private Postgres server could not be run.
    #[error("failed to {0}")]
    Embedded(#[from] crate::embedded::Error),
    /// The database returned an error or did not answer.
    #[error("the database: {}", pgsaga_worker::db::describe(.0))]
    Database(#[from] sqlx::Error),
    /// The database could not be migrated.
    #[error(transparent)]
    Migrate(#[from] pgsaga_sql::schema::ApplyError),
    /// A worker could not start, or a setting of it or the URL of the database cannot be used.
    #[error(transparent)]
    Worker(#[from] pgsaga_worker::Error),
    /// A worker did not become ready, or did not end.
    #[error("a worker of the test kit: {0}")]
    NoWorker(String),
    /// The saga is malformed.
    #[error(transparent)]
    Invalid(#[from] pgsaga_producer::Invalid),
    /// The saga could not be submitted or aborted.
    #[error(transparent)]
    Producer(#[from] pgsaga_producer::Error),
    /// The saga is gone.
    #[error("there is no saga {0} any more")]
    NoSaga(String),
    /// The saga did not end in time.
    #[error("saga {gid} did not end within {} s; it is {run}{}", waited.as_secs(), denied(why))]
    NotEnded {
        /// The saga's name.
        gid: String,
        /// How long the kit waited.
        waited: Duration,
        /// Its status and history.
        run: String,
        /// Why participants were not called, where workers could not.
        why: Option<String>,
    },
    /// The saga does not succeed when nothing goes wrong.
    #[error("found that the saga, when nothing goes wrong, {0}\nallowed: that it succeeds")]
    NotSound(String),
    /// No step of the saga calls anybody.
    #[error("found a saga that calls nobody; allowed: a saga with an action that is not \"\"")]
    NoCall,
    /// The state says nothing about the saga.
    #[error(
        "the state of the participants: found no change by a saga that succeeded; \
         allowed: a state that shows what the saga changes, such as a balance or a count"
    )]
    Blind,
    /// The state of the participants cannot be read.
    #[error("the state of the participants: {0}")]
    State(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A server or a process could not be started or stopped.
    #[error("{doing}: {source}")]
    Io {
        /// The operation that was in progress.
        doing: String,
        /// The reason for the failure.
        source: std::io::Error,
    },
}

fn denied(why: &Option<String>) -> String {
    why.as_ref().map_or(String::new(), |why| format!("\n  {why}"))
}

impl Error {
    /// The steps of a checked saga are JSON that can be read.
    pub(crate) fn steps(error: serde_json::Error) -> Error {
        Error::Io { doing: "read the steps of the saga".to_owned(), source: error.into() }
    }
}
