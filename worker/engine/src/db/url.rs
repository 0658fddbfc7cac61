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
            // sqlx's error describes the problem.
            None => one(url).map(DatabaseUrl::plain),
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
            _ => return Ok(false),
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
mod tests {
    use super::*;

    /// Formats each host as `user@host:port/database`, and returns the wanted role.
    fn read(url: &str) -> Result<(Vec<String>, Wanted), String> {
        let read: DatabaseUrl = url.parse()?;
        let host = |options: &PgConnectOptions| {
            let host = options.get_socket().map_or_else(
                || options.get_host().to_owned(),
                |socket| socket.to_string_lossy().into_owned(),
            );
            format!(
                "{}@{host}:{}/{}",
                options.get_username(),
                options.get_port(),
                options.get_database().unwrap_or("-")
            )
        };
        Ok((read.hosts.iter().map(host).collect(), read.wanted))
    }

    #[test]
    fn hosts_are_read_as_libpq_reads_them() {
        let own = default_host();
        for (url, hosts, wanted) in [
            ("postgres://u:p@h:5433/d", vec!["u@h:5433/d"], Wanted::Any),
            ("postgres://u@h/d?target_session_attrs=primary", vec!["u@h:5432/d"], Wanted::Primary),
            ("postgres://u@h1:1,h2:2/d", vec!["u@h1:1/d", "u@h2:2/d"], Wanted::ReadWrite),
            (
                "postgresql://u:p%40%2C@h1,h2:2,h3/d?target_session_attrs=any",
                vec!["u@h1:5432/d", "u@h2:2/d", "u@h3:5432/d"],
                Wanted::Any,
            ),
            ("postgres://u:p,q@h1,h2/d", vec!["u@h1:5432/d", "u@h2:5432/d"], Wanted::ReadWrite),
            (
                "postgres://u@h1,h2?target_session_attrs=read-write&dbname=d",
                vec!["u@h1:5432/d", "u@h2:5432/d"],
                Wanted::ReadWrite,
            ),
            (
                "postgres://u@[::1]:1,[fd00::2]/d",
                vec!["u@[::1]:1/d", "u@[fd00::2]:5432/d"],
                Wanted::ReadWrite,
            ),
            ("postgres:///d?host=h1,h2&port=1,2&user=u", vec!["u@h1:1/d", "u@h2:2/d"], Wanted::ReadWrite),
            ("postgres:///d?host=h1,h2&port=7&user=u", vec!["u@h1:7/d", "u@h2:7/d"], Wanted::ReadWrite),
            ("postgres://u@h1,h2/d?port=7", vec!["u@h1:7/d", "u@h2:7/d"], Wanted::ReadWrite),
            (
                "postgres://u@localhost:5/d?host=%2Ftmp%2Fa,%2Ftmp%2Fb&port=,6",
                vec!["u@/tmp/a:5432/d", "u@/tmp/b:6/d"],
                Wanted::ReadWrite,
            ),
            ("postgres://u@localhost:5/d?host=/tmp/a,h", vec!["u@/tmp/a:5/d", "u@h:5/d"], Wanted::ReadWrite),
            ("postgres://u@%2Ftmp%2Fa:5,h/d", vec!["u@/tmp/a:5/d", "u@h:5432/d"], Wanted::ReadWrite),
            ("postgres://u@h1:5,h2:6/d?host=&port=", vec!["u@h1:5/d", "u@h2:6/d"], Wanted::ReadWrite),
            ("postgres://u@,h:2/d", vec![&format!("u@{own}:5432/d"), "u@h:2/d"], Wanted::ReadWrite),
        ] {
            let hosts = hosts.iter().map(|host| host.to_string()).collect();
            assert_eq!(read(url), Ok((hosts, wanted)), "{url}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_words_and_without_the_password() {
        for (url, said) in [
            ("not a url", "relative URL without a base"),
            (
                "postgres://u:secret@h1,h2/d?target_session_attrs=standby",
                "is \"standby\"; allowed: any, read-write or primary",
            ),
            (
                "postgres://u:secret@h/d?target_session_attrs=prefer-standby",
                "is \"prefer-standby\"; allowed: any",
            ),
            ("postgres://u:secret@h1,h2/d?port=1,2,3", "it names 2 hosts and 3 ports"),
            ("postgres://u:secret@/d?host=h1&port=1,2", "it names 1 hosts and 2 ports"),
            ("postgres://u:secret@h1:x,h2/d", "a port is \"x\"; allowed: 1 to 65535"),
            ("postgres://u:secret@h1:0,h2/d", "a port is \"0\"; allowed: 1 to 65535"),
            ("postgres://u:secret@h1,h2/d?port=65536", "a port is \"65536\"; allowed: 1 to 65535"),
            (
                "postgres://u:secret@::1,h2/d",
                "a host is \"::1\"; allowed: HOST, HOST:PORT, and an IPv6 address in brackets",
            ),
            (
                "postgres://u:secret@h1,h2/d?connect_timeout=soon",
                "connect_timeout is \"soon\"; allowed: whole seconds",
            ),
            ("postgres://u:secret@h1,h2/d?hostaddr=10.0.0.1", "hostaddr is not known beside several hosts"),
            ("postgres://u:secret@h1,h2/d?sslmode=sometimes", "sometimes"),
            ("postgres://u:secret,x/y@h1,h2/d", "is written as %40, %2F or %3F"),
        ] {
            let error = read(url).expect_err(url);
            assert!(error.contains(said) && !error.contains("secret"), "{url}: {error}");
        }
    }

    #[test]
    fn all_hosts_share_what_is_not_of_a_host() {
        let url = "postgres://u@h1,h2/d?sslmode=verify-full&connect_timeout=3&application_name=x";
        let read: DatabaseUrl = url.parse().unwrap();
        assert_eq!(read.connect_timeout, Some(Duration::from_secs(3)));
        for options in read.hosts {
            assert!(matches!(options.get_ssl_mode(), sqlx::postgres::PgSslMode::VerifyFull));
            assert_eq!(options.get_application_name(), Some("x"));
        }
    }

    #[test]
    fn another_database_of_the_same_hosts() {
        for (url, other) in [
            (
                "postgres://u:p%40@h:1/app?sslmode=require",
                Some("postgres://u:p%40@h:1/scratch?sslmode=require"),
            ),
            ("postgres://u@h1:1,h2:2/app", Some("postgres://u@h1:1,h2:2/scratch")),
            ("postgresql://h", Some("postgresql://h/scratch")),
            ("postgres:///app?host=%2Ftmp%2Fx&dbname=y", Some("postgres:///scratch?host=%2Ftmp%2Fx")),
            ("postgres:app", None),
            ("app", None),
        ] {
            assert_eq!(of_database(url, "scratch").as_deref(), other, "{url}");
        }
    }
}
