//! HTTP clients without implicit behaviour.

use std::path::Path;
use std::time::Duration;

use reqwest::{Certificate, ClientBuilder};

use crate::error::Error;

/// Returns a client builder without redirects, proxies and automatic retries.
pub fn builder(connections_idle_max: usize) -> ClientBuilder {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .tcp_nodelay(true)
        .pool_max_idle_per_host(connections_idle_max)
        .pool_idle_timeout(Duration::from_secs(30))
        .user_agent(concat!("pgsaga/", env!("CARGO_PKG_VERSION")))
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
