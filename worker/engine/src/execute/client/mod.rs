//! How HTTP clients are built: without implicit behaviour.

mod links;

use std::path::Path;
use std::time::Duration;

use reqwest::{Certificate, Client, Identity};

use crate::error::Error;
use crate::execute::address::{Addresses, Resolver};
pub use links::Clients;
pub(crate) use links::Link;

/// Interval between the pings of an HTTP/2 connection with calls in flight, and the time that the
/// peer has for its reply. A frozen peer acknowledges TCP segments, so only a ping finds it.
const PING_EVERY: Duration = Duration::from_secs(5);

/// How a client keeps its connections.
#[derive(Debug, Clone, Copy)]
pub struct Connections {
    /// Upper bound on idle connections per participant.
    pub idle_max: usize,
    /// Time after which an idle connection is not used again.
    pub idle: Duration,
    /// Time after which a connection gets no new calls.
    pub age: Duration,
}

/// Everything that tells one client from another.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// How connections are kept.
    pub connections: Connections,
    /// Certificate authorities that are trusted.
    pub authorities: Vec<Certificate>,
    /// The authorities of the system are not trusted.
    pub authorities_only: bool,
    /// The client's own certificate.
    pub identity: Option<Identity>,
    /// Addresses that the client may reach; `None` means all.
    pub addresses: Option<Addresses>,
}

impl Recipe {
    /// Trusts the authorities of the system, and reaches any address.
    pub fn new(connections: Connections) -> Recipe {
        Recipe {
            connections,
            authorities: Vec::new(),
            authorities_only: false,
            identity: None,
            addresses: None,
        }
    }

    /// Builds a client without redirects, proxies and automatic retries.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn build(&self) -> Result<Client, reqwest::Error> {
        let mut builder = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .tcp_nodelay(true)
            .pool_max_idle_per_host(self.connections.idle_max)
            .pool_idle_timeout(self.connections.idle)
            .http2_keep_alive_interval(PING_EVERY)
            .http2_keep_alive_timeout(PING_EVERY)
            .user_agent(concat!("pgsaga/", env!("CARGO_PKG_VERSION")));
        let authorities = self.authorities.iter().cloned();
        builder = if self.authorities_only {
            builder.tls_certs_only(authorities)
        } else {
            builder.tls_certs_merge(authorities)
        };
        if let Some(identity) = &self.identity {
            builder = builder.identity(identity.clone());
        }
        if let Some(addresses) = &self.addresses {
            // control: addresses-resolved
            builder = builder.dns_resolver(Resolver(addresses.clone()));
        }
        builder.build()
    }
}

/// Reads the certificates of a PEM file, at least one.
///
/// # Errors
/// [`Error::Usage`] with the name of the file.
pub fn certificates(file: &Path) -> Result<Vec<Certificate>, Error> {
    let refuse = |why: &str| Error::Usage(format!("{}: {why}", file.display()));
    let pem = std::fs::read(file).map_err(|error| refuse(&error.to_string()))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|_| refuse("no certificates in PEM"))?;
    if certificates.is_empty() { Err(refuse("no certificates in PEM")) } else { Ok(certificates) }
}

#[cfg(test)]
impl Connections {
    /// For tests that make few connections.
    pub(crate) fn few() -> Connections {
        Connections { idle_max: 1, idle: Duration::from_secs(1), age: Duration::from_secs(60) }
    }
}
