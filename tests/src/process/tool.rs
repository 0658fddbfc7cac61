//! Outside tools that some tests need.

use std::env;
use std::path::PathBuf;

/// The program's path. Without it the test says so and is skipped on a person's machine; where `CI` is set it fails, since
/// `.ci/run` installs everything.
///
/// # Panics
/// Where `CI` is set and the program is missing.
pub fn tool(name: &str, install: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let found = folders.map(|folder| folder.join(name)).find(|file| file.is_file());
    if found.is_none() {
        skip(&format!("{name} is missing ({install})"));
    }
    found
}

/// Says why a test is skipped.
///
/// # Panics
/// Where `CI` is set.
pub fn skip(why: &str) {
    assert!(env::var_os("CI").is_none(), "{why}");
    eprintln!("SKIPPED: {why}");
}
