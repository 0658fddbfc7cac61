//! Named participants: what `participant:stock/reserve` in a step calls, and with which secrets. They are this worker's own
//! configuration, so no row can choose their address or see their secrets.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use pgsaga_producer::NamedUrl;
use pgsaga_producer::webhook::{SIGNATURES_MAX, Secret};
use reqwest::{Certificate, Identity, Url};
use serde::Deserialize;

use crate::error::Error;
use crate::execute::client;

const LIMIT_MAX: usize = 65_536;

/// The participants that this worker knows by name.
#[derive(Debug, Default)]
pub struct Named {
    services: HashMap<String, Service>,
}

/// One of them.
#[derive(Debug)]
pub struct Service {
    /// Without a slash at its end.
    base: String,
    client: reqwest::Client,
    secrets: Vec<Secret>,
    limit: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    participant: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    url: String,
    #[serde(default)]
    secret_files: Vec<PathBuf>,
    #[serde(default)]
    secret_env: Vec<String>,
    limit: Option<usize>,
    ca_file: Option<PathBuf>,
    client_cert_file: Option<PathBuf>,
    client_key_file: Option<PathBuf>,
}

impl Named {
    /// Reads the file of `--participants`. `variable` gives the environment's; `authorities` are trusted beside the system's
    /// own by participants without a `ca_file`.
    ///
    /// # Errors
    /// [`Error::Usage`] says what is wrong in which file, and nothing of a secret; [`Error::HttpClient`] when TLS cannot be set up.
    pub fn read(
        file: &Path,
        variable: impl Fn(&str) -> Option<String>,
        authorities: &[Certificate],
        connections_idle_max: usize,
    ) -> Result<Named, Error> {
        let refuse = |why: String| Error::Usage(format!("{}: {why}", file.display()));
        let text = std::fs::read_to_string(file).map_err(|error| refuse(error.to_string()))?;
        let parsed: File = toml::from_str(&text).map_err(|error| refuse(words(&error, &text)))?;
        // One for all that need no TLS of their own, and none that plain URLs use as well: those must not find a connection that
        // was made for a named participant.
        let shared = client::builder(connections_idle_max)
            .tls_certs_merge(authorities.iter().cloned())
            .build()
            .map_err(Error::HttpClient)?;
        // Relative to the file, wherever the worker is started.
        let folder = file.parent().unwrap_or(Path::new("."));
        let mut services = HashMap::new();
        for (name, entry) in parsed.participant {
            let refuse = |why: String| refuse(format!("participant {name:?}: {why}"));
            if !NamedUrl::is_name(&name) {
                return Err(refuse(
                    "a bad name; allowed: 1 to 64 of a-z 0-9 . _ -, the first a letter or a digit, and not digits alone"
                        .to_owned(),
                ));
            }
            let base = base(&entry.url).map_err(&refuse)?;
            let secrets = secrets(&entry, folder, &variable).map_err(&refuse)?;
            if entry.limit.is_some_and(|limit| !(1..=LIMIT_MAX).contains(&limit)) {
                return Err(refuse("limit: allowed: 1 to 65,536 calls at once".to_owned()));
            }
            let own = own_client(&entry, folder, authorities, connections_idle_max).map_err(&refuse)?;
            let client = own.unwrap_or_else(|| shared.clone());
            services.insert(name, Service { base, client, secrets, limit: entry.limit });
        }
        Ok(Named { services })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.services.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// One by its name.
    pub fn get(&self, name: &str) -> Option<&Service> {
        self.services.get(name)
    }

    /// How many calls each may take at once, where the file says so, by the name that tasks have for it.
    pub fn limits(&self) -> impl Iterator<Item = (String, usize)> {
        self.services
            .iter()
            .filter_map(|(name, service)| Some((format!("participant:{name}"), service.limit?)))
    }
}

impl Service {
    /// Its own part of each URL, without a slash at its end.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// What calls it.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// What its calls are signed with; none where they are not.
    pub fn secrets(&self) -> &[Secret] {
        &self.secrets
    }
}

/// What is wrong with the file, without the line itself: a secret may stand where it must not.
fn words(error: &toml::de::Error, text: &str) -> String {
    let message = error.message();
    let message = if message.contains("whsec_") {
        "a secret stands in this file; name the files or variables that hold secrets in secret_files or secret_env".to_owned()
    } else if let Some((_, expected)) =
        message.strip_prefix("invalid type: string ").and_then(|rest| rest.rsplit_once(", expected "))
    {
        format!("found a string; allowed: {expected}")
    } else {
        message.to_owned()
    };
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => format!("line {}: {message}", before.matches('\n').count() + 1),
        None => message,
    }
}

/// The base URL of a participant, without a slash at its end.
fn base(text: &str) -> Result<String, String> {
    let allowed = |why: &str| {
        format!(
            "url: {why}; allowed: a URL like https://stock.internal:8443/api, without user, query or fragment"
        )
    };
    let url = Url::parse(text).map_err(|error| allowed(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(allowed("neither http nor https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(allowed("it holds a user, and everybody could read it in logs"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(allowed("it has a query or a fragment"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn secrets(
    entry: &Entry,
    folder: &Path,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Vec<Secret>, String> {
    let mut secrets = Vec::new();
    let count = entry.secret_files.len() + entry.secret_env.len();
    if count > SIGNATURES_MAX {
        return Err(format!(
            "secret_files and secret_env: found {count} secrets; allowed: up to {SIGNATURES_MAX}"
        ));
    }
    for file in &entry.secret_files {
        let path = path("secret_files", folder, file)?;
        let text = std::fs::read_to_string(&path)
            .map_err(|error| format!("secret_files: {}: {error}", path.display()))?;
        let secret = Secret::parse(text.trim())
            .map_err(|error| format!("secret_files: {}: {error}", path.display()))?;
        secrets.push(secret);
    }
    for name in &entry.secret_env {
        // Base64 of a secret has small letters, and may be nothing but letters.
        if !name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_') {
            return Err(
                "secret_env: found what may be a secret; allowed: the names of variables that hold secrets, of A-Z 0-9 _".to_owned(),
            );
        }
        let text = variable(name).ok_or_else(|| format!("secret_env: {name} is not set"))?;
        secrets.push(Secret::parse(text.trim()).map_err(|error| format!("secret_env: {name}: {error}"))?);
    }
    Ok(secrets)
}

/// A file that the file of participants names, relative to it.
fn path(key: &str, folder: &Path, file: &Path) -> Result<PathBuf, String> {
    let text = file.to_string_lossy();
    if text.starts_with("whsec_") || text.contains("-----BEGIN") || text.contains('\n') {
        return Err(format!("{key}: a secret stands in this file; name the file that holds it"));
    }
    Ok(folder.join(file))
}

/// A client with the participant's own authorities or with a certificate for it; `None` where it needs neither.
fn own_client(
    entry: &Entry,
    folder: &Path,
    authorities: &[Certificate],
    connections_idle_max: usize,
) -> Result<Option<reqwest::Client>, String> {
    let identity = match (&entry.client_cert_file, &entry.client_key_file) {
        (Some(certificate), Some(key)) => Some(identity(
            &path("client_cert_file", folder, certificate)?,
            &path("client_key_file", folder, key)?,
        )?),
        (None, None) if entry.ca_file.is_none() => return Ok(None),
        (None, None) => None,
        _ => return Err("client_cert_file and client_key_file: found one; allowed: both or none".to_owned()),
    };
    let mut builder = client::builder(connections_idle_max);
    builder = match &entry.ca_file {
        // Whoever has an authority of its own is to be trusted by it alone.
        Some(file) => {
            let authorities = client::certificates(&path("ca_file", folder, file)?);
            builder.tls_certs_only(authorities.map_err(|error| format!("ca_file: {error}"))?)
        }
        None => builder.tls_certs_merge(authorities.iter().cloned()),
    };
    if let Some(identity) = identity {
        builder = builder.identity(identity);
    }
    builder.build().map(Some).map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        format!("its certificates cannot be used: {cause}")
    })
}

fn identity(certificate: &Path, key: &Path) -> Result<Identity, String> {
    let mut pem = Vec::new();
    for (name, file) in [("client_cert_file", certificate), ("client_key_file", key)] {
        let read = std::fs::read(file).map_err(|error| format!("{name}: {}: {error}", file.display()))?;
        pem.extend_from_slice(&read);
        pem.push(b'\n');
    }
    Identity::from_pem(&pem)
        .map_err(|_| "client_cert_file and client_key_file: no certificate and its key in PEM".to_owned())
}

#[cfg(test)]
mod tests;
