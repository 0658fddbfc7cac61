//! Named participants: what `participant:stock/reserve` in a step calls, and with which secrets.
//! They are this worker's own configuration, so no row can choose their address or see their
//! secrets.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgsaga_participant::webhook::{SIGNATURES_MAX, Secret};
use pgsaga_sql::contract::NamedUrl;
use reqwest::{Certificate, Identity, Url};
use serde::Deserialize;

use crate::error::{Error, causes};
use crate::execute::client::{self, Clients, Connections, Recipe};
use crate::execute::handler::Participant;

const LIMIT_MAX: usize = 65_536;

/// The participants that this worker knows by name.
#[derive(Debug, Default)]
pub struct Registry {
    services: HashMap<String, Service>,
}

/// Where a named participant is.
#[derive(Debug)]
pub enum Service {
    /// Behind a URL, called over HTTP.
    Http(HttpService),
    /// Async functions of this process.
    Process(Participant),
}

/// The configuration of one named participant.
#[derive(Debug)]
pub struct HttpService {
    /// Without a trailing slash.
    base: String,
    clients: Arc<Clients>,
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

impl Registry {
    /// Reads the file of `--participants`. `variable` reads an environment variable. Participants
    /// without a `ca_file` trust `authorities` in addition to those of the system.
    ///
    /// # Errors
    /// [`Error::Usage`] with the file and the problem, but no secret. [`Error::HttpClient`] if TLS
    /// cannot be set up.
    pub fn read(
        file: &Path,
        variable: impl Fn(&str) -> Option<String>,
        authorities: &[Certificate],
        connections: Connections,
    ) -> Result<Registry, Error> {
        let refuse = |why: String| Error::Usage(format!("{}: {why}", file.display()));
        let text = std::fs::read_to_string(file).map_err(|error| refuse(error.to_string()))?;
        let parsed: File = toml::from_str(&text).map_err(|error| refuse(words(&error, &text)))?;
        // Plain URLs have other clients, because they must not reuse a connection that was opened
        // for a named participant.
        let common = Recipe { authorities: authorities.to_vec(), ..Recipe::new(connections) };
        let shared = Arc::new(Clients::new(common.clone())?);
        // Paths are relative to the file, not to the working directory.
        let folder = file.parent().unwrap_or(Path::new("."));
        let mut services = HashMap::new();
        for (name, entry) in parsed.participant {
            let refuse = |why: String| refuse(format!("participant {name:?}: {why}"));
            if !NamedUrl::is_name(&name) {
                return Err(refuse(format!("a bad name; allowed: {}", NamedUrl::NAMES)));
            }
            let base = base(&entry.url).map_err(&refuse)?;
            let secrets = secrets(&entry, folder, &variable).map_err(&refuse)?;
            if entry.limit.is_some_and(|limit| !(1..=LIMIT_MAX).contains(&limit)) {
                return Err(refuse("limit: allowed: 1 to 65,536 calls at once".to_owned()));
            }
            let clients = match own_recipe(&entry, folder, &common).map_err(&refuse)? {
                Some(recipe) => Arc::new(own_clients(recipe).map_err(&refuse)?),
                None => Arc::clone(&shared),
            };
            services.insert(name, Service::Http(HttpService { base, clients, secrets, limit: entry.limit }));
        }
        Ok(Registry { services })
    }

    /// Adds a participant of this process.
    ///
    /// # Errors
    /// [`Error::Usage`] with what is wrong with the participant, or that its name is taken.
    pub fn add(&mut self, participant: Participant) -> Result<(), Error> {
        let refuse = |why: &str| Err(Error::Usage(format!("participant {:?}: {why}", participant.name)));
        if let Some(fault) = participant.fault() {
            return refuse(fault);
        }
        match self.services.get(&participant.name) {
            Some(Service::Http(_)) => refuse(
                "found handlers in this process and a URL in the file of --participants; allowed: one of them",
            ),
            Some(Service::Process(_)) => refuse("found twice; allowed: once, with all its handlers"),
            None => {
                self.services.insert(participant.name.clone(), Service::Process(participant));
                Ok(())
            }
        }
    }

    /// Returns the number of named participants.
    pub fn len(&self) -> usize {
        self.services.len()
    }

    /// Whether no participant has a name.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// Returns where a participant is.
    pub fn get(&self, name: &str) -> Option<&Service> {
        self.services.get(name)
    }

    /// Returns all participants, by the names that tasks use for them.
    pub fn task_names(&self) -> impl Iterator<Item = String> {
        self.services.keys().map(|name| task_name(name))
    }

    /// Returns the participants of this process, by the names that tasks use for them.
    pub fn in_process(&self) -> impl Iterator<Item = String> {
        let is_here = |service: &Service| matches!(service, Service::Process(_));
        self.services.iter().filter(move |(_, service)| is_here(service)).map(|(name, _)| task_name(name))
    }

    /// Returns the participants whose handlers get a transaction of the saga's database, by the
    /// names that tasks use for them.
    pub fn transactional(&self) -> impl Iterator<Item = String> {
        self.services
            .iter()
            .filter(|(_, service)| service.is_transactional())
            .map(|(name, _)| task_name(name))
    }

    /// Upper bound on the transactions of handlers that run at once.
    pub fn transactions_max(&self) -> usize {
        let transactional = self.services.values().filter(|service| service.is_transactional());
        transactional.filter_map(Service::limit).sum()
    }

    /// Returns the limits on calls in flight, with the names that tasks use for these participants.
    pub fn limits(&self) -> impl Iterator<Item = (String, usize)> {
        self.services.iter().filter_map(|(name, service)| Some((task_name(name), service.limit()?)))
    }
}

impl Service {
    fn limit(&self) -> Option<usize> {
        match self {
            Service::Http(service) => service.limit,
            Service::Process(participant) => participant.limit,
        }
    }

    fn is_transactional(&self) -> bool {
        matches!(self, Service::Process(participant) if participant.is_transactional())
    }
}

/// The name that tasks use for a participant.
fn task_name(name: &str) -> String {
    format!("{}{name}", NamedUrl::SCHEME)
}

impl HttpService {
    /// Returns the common prefix of its URLs, without a trailing slash.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Returns the HTTP clients for calls to the participant.
    pub fn clients(&self) -> &Clients {
        &self.clients
    }

    /// Returns the secrets that sign its calls; empty if calls are not signed.
    pub fn secrets(&self) -> &[Secret] {
        &self.secrets
    }
}

/// Describes an error in the file without quoting the line, which may contain a secret.
fn words(error: &toml::de::Error, text: &str) -> String {
    let message = error.message();
    let message = if message.contains("whsec_") {
        "this file contains a secret; name the files or variables that hold secrets in secret_files or secret_env".to_owned()
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

/// Parses the base URL of a participant, and removes the trailing slash.
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
        return Err(allowed("it contains a user, which anyone could read in the logs"));
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
        // Rejects lower-case letters, because the Base64 text of a secret contains them.
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

/// Resolves a path in the participants file, relative to that file.
fn path(key: &str, folder: &Path, file: &Path) -> Result<PathBuf, String> {
    let text = file.to_string_lossy();
    if text.starts_with("whsec_") || text.contains("-----BEGIN") || text.contains('\n') {
        return Err(format!("{key}: this file contains a secret; name the file that holds it"));
    }
    Ok(folder.join(file))
}

/// Returns the recipe with the participant's own authorities or client certificate; `None` if it
/// has neither.
fn own_recipe(entry: &Entry, folder: &Path, common: &Recipe) -> Result<Option<Recipe>, String> {
    let mut recipe = common.clone();
    match (&entry.client_cert_file, &entry.client_key_file) {
        (Some(certificate), Some(key)) => {
            recipe.identity = Some(identity(
                &path("client_cert_file", folder, certificate)?,
                &path("client_key_file", folder, key)?,
            )?);
        }
        (None, None) if entry.ca_file.is_none() => return Ok(None),
        (None, None) => {}
        _ => return Err("client_cert_file and client_key_file: found one; allowed: both or none".to_owned()),
    }
    if let Some(file) = &entry.ca_file {
        // A `ca_file` replaces all other authorities.
        let authorities = client::certificates(&path("ca_file", folder, file)?);
        recipe.authorities = authorities.map_err(|error| format!("ca_file: {error}"))?;
        recipe.authorities_only = true;
    }
    Ok(Some(recipe))
}

fn own_clients(recipe: Recipe) -> Result<Clients, String> {
    Clients::new(recipe).map_err(|error| {
        let cause = causes(&error).last().map(ToString::to_string).unwrap_or_default();
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
        .map_err(|_| "client_cert_file and client_key_file: no PEM certificate with its key".to_owned())
}

#[cfg(test)]
mod tests;
