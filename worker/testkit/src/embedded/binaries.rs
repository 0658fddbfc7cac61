use std::cmp::Reverse;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Error;
use super::download::downloaded;

/// Finds the directory with `initdb` and `postgres`.
///
/// If `given` (`PGSAGA_PG_BIN`) is set, no other directory is tried. Otherwise the order is:
/// `pg_config --bindir`; `initdb` on the PATH with links resolved; the highest version in the
/// directories of Debian, of the PGDG packages for Red Hat, and of Homebrew; a download.
///
/// # Errors
/// [`Error::NotBinaries`] if `given` lacks a program, [`Error::NoBinaries`] if nothing is found.
pub fn find_binaries(given: Option<&Path>) -> Result<PathBuf, Error> {
    if let Some(given) = given {
        return if is_complete(given) {
            Ok(given.to_owned())
        } else {
            Err(Error::NotBinaries(given.to_owned()))
        };
    }
    let from_programs = [pg_config, initdb_on_path].into_iter().filter_map(|find| find());
    let from_packages = [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/opt/homebrew/opt", "postgresql"),
        ("/usr/local/opt", "postgresql"),
        ("/home/linuxbrew/.linuxbrew/opt", "postgresql"),
    ]
    .into_iter()
    .flat_map(|(folder, prefix)| versions(Path::new(folder), prefix));
    from_programs.chain(from_packages).find(|folder| is_complete(folder)).map_or_else(downloaded, Ok)
}

/// Client packages have `pg_config` and even a `bin` directory, but no server.
fn is_complete(folder: &Path) -> bool {
    ["initdb", "postgres"].iter().all(|program| folder.join(program).is_file())
}

fn pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let folder = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| folder.trim().into())
}

fn initdb_on_path() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let program =
        env::split_paths(&path).map(|folder| folder.join("initdb")).find(|program| program.is_file())?;
    // Distributions link single programs. The directory of the link's target contains `postgres`.
    Some(fs::canonicalize(program).ok()?.parent()?.to_owned())
}

/// Returns the `bin` directories in `folder/{prefix}{version}`, highest version first.
fn versions(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let version = name.to_str()?.strip_prefix(prefix)?.trim_start_matches('@');
            // "9.6" counts as 9. Homebrew's plain "postgresql" counts as 0.
            let major = version.split('.').next()?.parse().unwrap_or(0);
            Some((major, entry.path().join("bin")))
        })
        .collect();
    found.sort_by_key(|(major, _)| Reverse(*major));
    found.into_iter().map(|(_, path)| path).collect()
}
