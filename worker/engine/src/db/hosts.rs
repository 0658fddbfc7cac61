use std::io;
use std::time::Duration;

use pgsaga_sql::{describe, query};
use sqlx::Row as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use super::session::{is_unverified, of_handlers, prepare};
use super::url::{DatabaseUrl, Wanted};
use super::{Class, no_answer, within};
use crate::error::Error;

/// Upper bound on a host's answer if the URL has no `connect_timeout` and names several hosts. A
/// dead host must not use up the time of the next host.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// The meaning of `connect_timeout=0`: no limit.
const UNLIMITED: Duration = Duration::from_secs(3600);

/// The hosts of a database. One of them accepts writes.
#[derive(Debug, Clone)]
pub struct Hosts {
    hosts: Vec<PgConnectOptions>,
    /// The same hosts, for sessions of handlers.
    of_handlers: Vec<PgConnectOptions>,
    wanted: Wanted,
    answer_max: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Role {
    standby: bool,
    read_only: bool,
}

#[derive(Debug)]
enum Refused {
    Standby,
    ReadOnly,
    Error(sqlx::Error),
}

impl Hosts {
    /// Parses a database URL.
    ///
    /// # Errors
    /// [`Error::Usage`] if the URL cannot be parsed. The message does not contain the URL, which
    /// may hold a password.
    pub fn read(url: &str, pooled: bool, timeout: Duration) -> Result<Hosts, Error> {
        let url: DatabaseUrl = url.parse().map_err(|error: String| {
            Error::Usage(format!(
                "the database URL cannot be read: {error}; it looks like postgres://user:password@host:5432/name, or \
                 with several hosts postgres://user:password@host1:5432,host2:5432/name"
            ))
        })?;
        let answer_max = match url.connect_timeout {
            None => ANSWER_MAX,
            Some(Duration::ZERO) => UNLIMITED,
            Some(timeout) => timeout,
        };
        let handlers = url.hosts.iter().map(|host| of_handlers(host.clone(), pooled)).collect();
        let hosts = url.hosts.into_iter().map(|host| prepare(host, pooled, timeout)).collect();
        Ok(Hosts { hosts, of_handlers: handlers, wanted: url.wanted, answer_max })
    }

    /// Whether a host must be chosen, or the role of the only host must be checked.
    pub fn chooses(&self) -> bool {
        self.hosts.len() > 1 || self.wanted != Wanted::Any
    }

    /// Whether the connection to any host is neither local nor verified.
    pub fn is_unverified(&self) -> bool {
        self.hosts.iter().any(is_unverified)
    }

    /// Returns the first host and the name of the database, without user and password.
    pub fn database(&self) -> String {
        let database = self.hosts.first().and_then(PgConnectOptions::get_database).unwrap_or("?");
        format!("{}/{database}", self.name(0))
    }

    /// Returns a host's name and port. For a Unix socket, the name is the directory.
    pub fn name(&self, host: usize) -> String {
        self.hosts.get(host).map(name).unwrap_or_default()
    }

    pub(super) fn options(&self, host: usize) -> PgConnectOptions {
        self.hosts.get(host).or(self.hosts.first()).cloned().unwrap_or_default()
    }

    /// The options of a session for handlers' transactions.
    pub(super) fn handler_options(&self, host: usize) -> PgConnectOptions {
        self.of_handlers.get(host).or(self.of_handlers.first()).cloned().unwrap_or_default()
    }

    /// Returns the user of the first host.
    pub fn user(&self) -> &str {
        self.hosts.first().map_or("?", PgConnectOptions::get_username)
    }

    /// Connects as [`Hosts::connect`] does, to a single host within `one`.
    ///
    /// # Errors
    /// [`Error::Unreachable`] names hosts, database and user.
    pub(super) async fn reach(&self, one: Duration) -> Result<(usize, PgConnection), Error> {
        let patience = if self.chooses() { UNLIMITED } else { one };
        within(patience, self.connect())
            .await
            .map_err(|source| Error::Unreachable { place: self.place(), source })
    }

    /// Where the URL leads to, without the password.
    fn place(&self) -> String {
        let hosts: Vec<String> = self.hosts.iter().map(name).collect();
        let database = self.hosts.first().and_then(PgConnectOptions::get_database).unwrap_or(self.user());
        format!("{}, database {database}, user {}", hosts.join(" or "), self.user())
    }

    /// Returns the options of the first suitable host. A single host is not contacted.
    ///
    /// # Errors
    /// As [`Hosts::connect`].
    pub async fn choose(&self) -> Result<&PgConnectOptions, sqlx::Error> {
        let host = if self.chooses() { self.connect().await?.0 } else { 0 };
        self.hosts.get(host).ok_or_else(no_answer)
    }

    /// Connects to the first suitable host, in the order of the URL.
    ///
    /// Like libpq, continues with the next host if a host is unreachable, starting up or
    /// unsuitable. Stops at a host that answers with any other error, such as a wrong password.
    ///
    /// # Errors
    /// The error of the only host. With several hosts, the reason for each.
    pub async fn connect(&self) -> Result<(usize, PgConnection), sqlx::Error> {
        let mut refused = Vec::new();
        for (nth, host) in self.hosts.iter().enumerate() {
            if !self.chooses() {
                return Ok((nth, host.connect().await?));
            }
            let answered = tokio::time::timeout(self.answer_max, ask(host, self.wanted)).await;
            match answered.unwrap_or_else(|_| Err(Refused::Error(no_answer()))) {
                Ok(connection) => return Ok((nth, connection)),
                Err(Refused::Error(error)) if !may_pass(&error) => return Err(error),
                Err(why) => refused.push((name(host), why)),
            }
        }
        Err(sqlx::Error::Io(io::Error::other(words(&refused))))
    }

    /// Whether the server of an open connection is still suitable.
    pub(super) async fn suits(&self, connection: &mut PgConnection) -> bool {
        judge(connection, self.wanted).await.is_ok()
    }
}

async fn ask(host: &PgConnectOptions, wanted: Wanted) -> Result<PgConnection, Refused> {
    let mut connection = host.connect().await.map_err(Refused::Error)?;
    match judge(&mut connection, wanted).await {
        Ok(()) => Ok(connection),
        Err(why) => {
            // The server's answer is known. The caller's timeout also covers this optional close.
            let _ = connection.close().await;
            Err(why)
        }
    }
}

async fn judge(connection: &mut PgConnection, wanted: Wanted) -> Result<(), Refused> {
    if wanted == Wanted::Any {
        return Ok(());
    }
    // A simple query, because a pooler could send Parse and Bind to different servers.
    let row = sqlx::raw_sql(query::SERVER_ROLE).fetch_one(connection).await.map_err(Refused::Error)?;
    let read = |column| row.try_get(column).map_err(Refused::Error);
    Role { standby: read("standby")?, read_only: read("read_only")? }.suits(wanted)
}

impl Role {
    fn suits(self, wanted: Wanted) -> Result<(), Refused> {
        match wanted {
            Wanted::ReadWrite | Wanted::Primary if self.standby => Err(Refused::Standby),
            Wanted::ReadWrite if self.read_only => Err(Refused::ReadOnly),
            Wanted::Any | Wanted::ReadWrite | Wanted::Primary => Ok(()),
        }
    }
}

/// Whether another host may succeed where this host failed.
fn may_pass(error: &sqlx::Error) -> bool {
    matches!(Class::of(error), Class::Connection | Class::Conflict)
}

fn name(host: &PgConnectOptions) -> String {
    let socket = host.get_socket().map(|socket| socket.to_string_lossy().into_owned());
    format!("{}:{}", socket.unwrap_or_else(|| host.get_host().to_owned()), host.get_port())
}

fn words(refused: &[(String, Refused)]) -> String {
    let names = || refused.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    if refused.iter().all(|(_, why)| matches!(why, Refused::Standby)) {
        return format!("every host is a standby, none takes writes: {}", names());
    }
    let each = refused.iter().map(|(name, why)| match why {
        Refused::Standby => format!("{name} is a standby"),
        Refused::ReadOnly => format!("{name} is read-only (default_transaction_read_only)"),
        Refused::Error(error) => format!("{name}: {}", describe(error)),
    });
    format!("no host takes writes: {}", each.collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_is_refused_unless_any_will_do_and_a_read_only_primary_where_writes_are_wanted() {
        for (standby, read_only, any, read_write, primary) in [
            (false, false, true, true, true),
            (false, true, true, false, true),
            (true, true, true, false, false),
        ] {
            let role = Role { standby, read_only };
            for (wanted, suits) in
                [(Wanted::Any, any), (Wanted::ReadWrite, read_write), (Wanted::Primary, primary)]
            {
                assert_eq!(role.suits(wanted).is_ok(), suits, "{role:?} {wanted:?}");
            }
        }
    }

    #[test]
    fn the_words_name_every_host_and_what_it_is() {
        let standby = || ("a:1".to_owned(), Refused::Standby);
        assert_eq!(words(&[standby(), standby()]), "every host is a standby, none takes writes: a:1, a:1");
        let dead = ("b:2".to_owned(), Refused::Error(no_answer()));
        assert_eq!(
            words(&[standby(), dead, ("c:3".to_owned(), Refused::ReadOnly)]),
            "no host takes writes: a:1 is a standby; b:2: no answer from the database; \
             c:3 is read-only (default_transaction_read_only)"
        );
    }

    #[tokio::test]
    async fn a_host_that_is_not_there_is_named_and_the_password_is_not() {
        let url = "postgres://u:secret@127.0.0.1:1,127.0.0.1:2/d";
        let hosts = Hosts::read(url, false, Duration::from_secs(1)).unwrap();
        let error = hosts.connect().await.unwrap_err();
        assert_eq!(Class::of(&error), Class::Connection);
        let error = error.to_string();
        assert!(error.contains("127.0.0.1:1: ") && error.contains("127.0.0.1:2: "), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}
