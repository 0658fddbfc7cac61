//! The URL of a database. As in libpq, it may name several hosts; sqlx's own parser accepts only
//! one.
//!
//! The rules are in the PostgreSQL manual, chapter "libpq", section "Connection Strings":
//! "Connection URIs", "Specifying Multiple Hosts", and `target_session_attrs` under "Parameter Key
//! Words". There is one difference. With several hosts and no `target_session_attrs`, libpq accepts
//! any host. Here the default is `read-write`, because a standby accepts no writes and every client
//! here writes.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;

/// Role that a server must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Any server that answers.
    Any,
    /// Neither a standby nor read-only by `default_transaction_read_only`.
    ReadWrite,
    /// Any server but a standby.
    Primary,
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Wanted, String> {
        match text {
            "any" => Ok(Wanted::Any),
            "read-write" => Ok(Wanted::ReadWrite),
            "primary" => Ok(Wanted::Primary),
            found => Err(format!("target_session_attrs is {found:?}; allowed: any, read-write or primary")),
        }
    }
}

/// Parameters that are honoured: those of sqlx, and those of [`Given`].
const PARAMETERS: [&str; 20] = [
    "application_name",
    "connect_timeout",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "target_session_attrs",
    "user",
];

#[derive(Debug)]
pub(super) struct DatabaseUrl {
    /// Connection options for each host, in the order of the URL; never empty.
    pub(super) hosts: Vec<PgConnectOptions>,
    /// Role that the chosen host must have.
    pub(super) wanted: Wanted,
    /// Upper bound on the answer of one host; `Some(ZERO)` means no limit.
    pub(super) connect_timeout: Option<Duration>,
}

impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(url: &str) -> Result<DatabaseUrl, String> {
        match Parts::of(url) {
            Some(parts) => parts.read(url).map_err(|error| {
                // Without credentials, an `@` shows that the apparent host may be part of the
                // password.
                let torn = parts.credentials.is_empty() && url.contains('@');
                if torn {
                    "an @, / or ? of the user or password is written as %40, %2F or %3F".to_owned()
                } else {
                    error
                }
            }),
            None => match url.split_once("://") {
                // sqlx would take the scheme for Postgres's.
                Some((scheme, _)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                    Err(format!("the scheme is {scheme:?}; allowed: postgres, postgresql"))
                }
                // sqlx's error describes the problem.
                _ => one(url).map(DatabaseUrl::plain),
            },
        }
    }
}

impl DatabaseUrl {
    fn plain(options: PgConnectOptions) -> DatabaseUrl {
        DatabaseUrl { hosts: vec![options], wanted: Wanted::Any, connect_timeout: None }
    }
}

/// Returns the URL of another database on the same hosts; `None` if `url` is no database URL.
pub fn of_database(url: &str, name: &str) -> Option<String> {
    let parts = Parts::of(url)?;
    let mut other = format!("{}://{}{}/{name}", parts.scheme, parts.credentials, parts.hosts);
    // A `dbname` parameter would override the path.
    let kept: Vec<&str> = parts.pairs().filter(|pair| decoded(pair).0 != "dbname").collect();
    if !kept.is_empty() {
        other.push('?');
        other.push_str(&kept.join("&"));
    }
    Some(other)
}

/// `scheme://credentials` `hosts` `path` `?query`.
struct Parts<'a> {
    scheme: &'a str,
    /// Ends with `@`, or is empty.
    credentials: &'a str,
    hosts: &'a str,
    path: &'a str,
    query: &'a str,
}

impl<'a> Parts<'a> {
    fn of(url: &'a str) -> Option<Parts<'a>> {
        let (scheme, rest) = url.split_once("://")?;
        if !matches!(scheme, "postgres" | "postgresql") {
            return None;
        }
        let rest = rest.split('#').next().unwrap_or_default();
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (credentials, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
        Some(Parts { scheme, credentials, hosts, path, query })
    }

    fn pairs(&self) -> impl Iterator<Item = &'a str> {
        self.query.split('&').filter(|pair| !pair.is_empty())
    }

    fn read(&self, url: &str) -> Result<DatabaseUrl, String> {
        let (mut given, mut kept) = (Given::default(), Vec::new());
        for pair in self.pairs() {
            if !given.take(pair)? {
                kept.push(pair);
            }
        }
        let (mut hosts, mut ports) = (Vec::new(), Vec::new());
        for host in self.hosts.split(',') {
            let (host, port) = host_and_port(host)?;
            hosts.push(Host::Named(host));
            ports.push(port);
        }
        if let Some(named) = &given.hosts {
            hosts = named.split(',').map(|host| Host::Queried(host.to_owned())).collect();
        }
        if let Some(named) = &given.ports {
            ports = named.split(',').collect();
        }
        if hosts.len() == 1 && ports.len() == 1 && given.wanted.is_none() {
            return one(url).map(DatabaseUrl::plain);
        }
        if given.addresses {
            return Err("hostaddr is not known beside several hosts: name addresses in host".to_owned());
        }
        // A single port applies to all hosts.
        if ports.len() != 1 && ports.len() != hosts.len() {
            return Err(format!("it names {} hosts and {} ports", hosts.len(), ports.len()));
        }
        let several = hosts.len() > 1;
        let port_of = |nth: usize| ports.get(nth).or(ports.first()).copied().unwrap_or_default();
        let hosts = hosts.iter().enumerate().map(|(nth, host)| self.host(host, port_of(nth), &kept));
        Ok(DatabaseUrl {
            hosts: hosts.collect::<Result<_, _>>()?,
            wanted: given.wanted.unwrap_or(if several { Wanted::ReadWrite } else { Wanted::Any }),
            connect_timeout: given.connect_timeout,
        })
    }

    /// Builds the options for one host. They are parsed from a URL with this host only, so that
    /// sqlx reads the other parameters and looks up the host's password in the password file.
    fn host(&self, host: &Host<'_>, port: &str, kept: &[&str]) -> Result<PgConnectOptions, String> {
        let port = match port {
            "" => String::new(),
            port => match port.parse::<u16>() {
                Ok(1..) => format!(":{port}"),
                _ => return Err(format!("a port is {port:?}; allowed: 1 to 65535")),
            },
        };
        let (named, queried) = match host {
            Host::Named("") => ("localhost", Some(default_host())),
            Host::Named(host) => (*host, None),
            Host::Queried(host) if host.is_empty() => ("localhost", Some(default_host())),
            Host::Queried(host) => ("localhost", Some(host.clone())),
        };
        let text = format!("{}://{}{named}{port}{}", self.scheme, self.credentials, self.path);
        let mut url = reqwest::Url::parse(&text).map_err(|error| error.to_string())?;
        url.set_query((!kept.is_empty()).then(|| kept.join("&")).as_deref());
        if let Some(host) = queried {
            url.query_pairs_mut().append_pair("host", &host);
        }
        one(url.as_str())
    }
}

/// A host from the authority of the URL, or from the `host` parameter, which may be the directory
/// of a Unix socket.
enum Host<'a> {
    Named(&'a str),
    Queried(String),
}

/// Parameters that sqlx does not know, or of which it accepts only one value.
#[derive(Default)]
struct Given {
    hosts: Option<String>,
    ports: Option<String>,
    addresses: bool,
    wanted: Option<Wanted>,
    connect_timeout: Option<Duration>,
}

impl Given {
    /// Returns false for a parameter that sqlx handles. The last value of a parameter wins, and an
    /// empty value is ignored.
    fn take(&mut self, pair: &str) -> Result<bool, String> {
        let (key, value) = decoded(pair);
        let value = Some(value).filter(|value| !value.is_empty());
        match key.as_str() {
            "host" => self.hosts = value.or(self.hosts.take()),
            "port" => self.ports = value.or(self.ports.take()),
            "target_session_attrs" => {
                self.wanted = value.map(|value| value.parse()).transpose()?.or(self.wanted);
            }
            "connect_timeout" => {
                let seconds = value.map(|value| {
                    value.parse::<i32>().map_err(|_| {
                        format!("connect_timeout is {value:?}; allowed: whole seconds, 0 for no limit")
                    })
                });
                let seconds = seconds.transpose()?.map(|seconds| Duration::from_secs(seconds.max(0) as u64));
                self.connect_timeout = seconds.or(self.connect_timeout);
            }
            "hostaddr" => {
                self.addresses = true;
                return Ok(false);
            }
            known if PARAMETERS.contains(&known) || known.starts_with("options[") => return Ok(false),
            // A parameter that is ignored may be the one that the safety of the connection rests
            // on, such as channel_binding, or sslmode with a letter missing. Its value may be a
            // secret.
            unknown => {
                let allowed = PARAMETERS.join(", ");
                return Err(format!("the parameter {unknown:?} is not known; allowed: {allowed}"));
            }
        }
        Ok(true)
    }
}

/// Parses `host`, `host:port`, `[address]` or `[address]:port`; either part may be empty.
fn host_and_port(text: &str) -> Result<(&str, &str), String> {
    let after_brackets = text.rfind(']').map_or(0, |end| end + 1);
    let (host, port) = match text.get(after_brackets..).and_then(|rest| rest.find(':')) {
        Some(colon) => text.split_at(after_brackets + colon),
        None => (text, ""),
    };
    let port = port.strip_prefix(':').unwrap_or(port);
    if port.contains(':') {
        return Err(format!("a host is {text:?}; allowed: HOST, HOST:PORT, and an IPv6 address in brackets"));
    }
    Ok((host, port))
}

/// Returns the decoded name and value of a parameter.
fn decoded(pair: &str) -> (String, String) {
    let url = reqwest::Url::parse(&format!("parameter:?{pair}"));
    url.ok()
        .and_then(|url| url.query_pairs().next().map(|(key, value)| (key.into(), value.into())))
        .unwrap_or_default()
}

/// Returns libpq's default host: the directory of the Unix socket, or localhost.
fn default_host() -> String {
    PgConnectOptions::new_without_pgpass().get_host().to_owned()
}

fn one(url: &str) -> Result<PgConnectOptions, String> {
    PgConnectOptions::from_str(url).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
