//! The database of `demo` and `bench`: a private Postgres, or a scratch database on an existing
//! server.

use std::path::PathBuf;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use crate::embedded::{Options, Server};
use crate::error::Error;
use pgsaga_worker::db;

/// A database that one command uses exclusively.
#[derive(Debug)]
pub struct ScratchDatabase {
    /// URL for connections to the database.
    pub url: String,
    /// Description of the database for people.
    pub description: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Own(Box<Server>),
    Scratch { server_url: String, name: String },
}

impl ScratchDatabase {
    /// Starts a server with these options, or creates a scratch database on the given server, which
    /// keeps its settings.
    ///
    /// # Errors
    /// There is no Postgres to start, or the given server refuses.
    pub async fn prepare(server_url: Option<String>, options: Options) -> Result<ScratchDatabase, Error> {
        let (url, kind, whose) = match server_url {
            None => {
                let binaries =
                    options.binaries.or_else(|| std::env::var_os("PGSAGA_PG_BIN").map(PathBuf::from));
                let options = Options { binaries, ..options };
                let server = tokio::task::spawn_blocking(move || Server::start(&options)).await;
                let server = server.map_err(|error| io("start Postgres", error))??;
                let whose = format!("of its own, process {}", server.pid());
                (server.url("postgres"), Kind::Own(Box::new(server)), whose)
            }
            Some(server_url) => {
                let name = format!("pgsaga_scratch_{:08x}", rand::random::<u32>());
                let url = db::of_database(&server_url, &name).ok_or_else(|| {
                    pgsaga_worker::Error::Usage(
                        "DATABASE_URL cannot be read; it looks like postgres://user:password@host:5432/name"
                            .to_owned(),
                    )
                })?;
                let mut connection = connect(&server_url).await?;
                let create = include_str!("scratch/create_scratch.sql").replace("{name}", &name);
                sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut connection).await?;
                connection.close().await?;
                let whose = format!("of DATABASE_URL, scratch database {name}");
                (url, Kind::Scratch { server_url, name }, whose)
            }
        };
        let mut place = ScratchDatabase { url, description: String::new(), kind };
        match place.describe(&whose).await {
            Ok(description) => place.description = description,
            Err(error) => {
                place.clear_away().await?;
                return Err(error);
            }
        }
        Ok(place)
    }

    /// Returns the postmaster's process id if the server is private.
    pub fn postmaster(&self) -> Option<u32> {
        match &self.kind {
            Kind::Own(server) => Some(server.pid()),
            Kind::Scratch { .. } => None,
        }
    }

    async fn describe(&self, whose: &str) -> Result<String, Error> {
        let mut connection = connect(&self.url).await?;
        let row = sqlx::query(include_str!("scratch/server.sql")).fetch_one(&mut connection).await?;
        connection.close().await?;
        let (version, fsync): (String, String) = (row.try_get("version")?, row.try_get("fsync")?);
        Ok(format!("Postgres {version} {whose}, fsync {fsync}"))
    }

    /// Stops the server and deletes its data, or drops the scratch database.
    ///
    /// # Errors
    /// The database cannot be dropped.
    pub async fn clear_away(self) -> Result<(), Error> {
        match self.kind {
            Kind::Own(server) => tokio::task::spawn_blocking(move || drop(server))
                .await
                .map_err(|error| io("stop Postgres", error)),
            Kind::Scratch { server_url, name } => {
                let mut connection = connect(&server_url).await?;
                let statement = include_str!("scratch/drop_scratch.sql").replace("{name}", &name);
                sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
                Ok(connection.close().await?)
            }
        }
    }
}

async fn connect(url: &str) -> Result<PgConnection, Error> {
    let options = db::choose(url).await?;
    Ok(PgConnection::connect_with(&options).await?)
}

fn io(doing: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Io { doing: doing.to_owned(), source: std::io::Error::other(error) }
}
