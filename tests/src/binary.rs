//! The `pgsaga` executable under test.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// What cargo tells the tests about themselves. Passed on, it would change the inputs of build scripts (ring's
/// among them) and have the dependencies built again at each change between the two cargos.
const OF_THIS_CRATE: [&str; 7] = [
    "CARGO_PKG_",
    "CARGO_MANIFEST_",
    "CARGO_BIN_",
    "CARGO_CRATE_",
    "CARGO_PRIMARY_",
    "CARGO_TARGET_TMPDIR",
    "OUT_DIR",
];

/// The `pgsaga` executable, built from the present source once per test process.
///
/// Its path is what cargo reports after the build: what merely lies in the target folder may be of another day.
///
/// # Panics
/// When the build fails; cargo has said why on stderr.
pub fn pgsaga() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(build)
}

/// A command of `pgsaga` without the variables of the tests: it refuses those that it does not know.
pub fn command() -> Command {
    let mut command = Command::new(pgsaga());
    for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PGSAGA_")) {
        command.env_remove(name);
    }
    command
}

fn build() -> PathBuf {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        if OF_THIS_CRATE.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
            cargo.env_remove(name);
        }
    }
    cargo
        .args(["build", "--quiet", "-p", "pgsaga-worker", "--bin", "pgsaga", "--message-format=json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit());
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo.output().expect("failed to run cargo");
    assert!(output.status.success(), "failed to build pgsaga: {}", output.status);
    output
        .stdout
        .split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "pgsaga")
        .find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)))
        .expect("cargo named no executable of pgsaga")
}
