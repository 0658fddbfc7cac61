//! The `pgsaga` executable under test.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// What cargo tells the tests about themselves. Passed on, it would change the inputs of build
/// scripts (ring's among them) and have the dependencies built again at each change between the two
/// cargos.
const OF_THIS_CRATE: [&str; 7] = [
    "CARGO_PKG_",
    "CARGO_MANIFEST_",
    "CARGO_BIN_",
    "CARGO_CRATE_",
    "CARGO_PRIMARY_",
    "CARGO_TARGET_TMPDIR",
    "OUT_DIR",
];

/// What cargo is told for negative controls, and says to the cargo that their tests run: each
/// builds the worker anew, and only the planner's search needs an optimised one.
pub(crate) const UNOPTIMISED: [&str; 2] = ["--config", "profile.test.package.pgsaga-plan.opt-level=0"];
/// Set for the tests of a negative control.
pub(crate) const OF_A_CONTROL: &str = "PGSAGA_CONTROL";

/// The `pgsaga` executable, built from the present source once per test process.
///
/// Its path is what cargo reports after the build: what merely lies in the target folder may be of
/// another day.
///
/// # Panics
/// When the build fails; cargo has said why on stderr.
pub fn pgsaga() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let [pgsaga] = build(&["--bin", "pgsaga"], ["pgsaga"]);
        pgsaga
    })
}

/// An example of a crate of the workspace.
///
/// # Panics
/// When the build fails; cargo has said why on stderr.
pub fn example(name: &str) -> PathBuf {
    let [example] = build(&["--example", name], [name]);
    example
}

/// Executables that end themselves at a fail point, see [`pgsaga_sql::fail`].
#[derive(Debug)]
pub struct Failing {
    /// `pgsaga`.
    pub pgsaga: PathBuf,
    /// An application, see `tests/src/bin/producer.rs`.
    pub producer: PathBuf,
    /// An application with transactional handlers, see `tests/src/bin/vault.rs`.
    pub vault: PathBuf,
}

/// They lie in a target folder of their own, so that fail points cannot leak into the product. What
/// they are linked from lies beside the rest, so that nothing without fail points is built again.
///
/// # Panics
/// When the build fails; cargo has said why on stderr.
pub fn failing() -> &'static Failing {
    static BINARIES: OnceLock<Failing> = OnceLock::new();
    BINARIES.get_or_init(|| {
        let target = target_folder();
        let folder = target.join("fail-points");
        let shared =
            format!("build.build-dir = {:?}", target.to_str().expect("a target folder that is text"));
        let mut arguments = vec!["--features", "pgsaga-tests/fail-points"];
        let names = ["pgsaga", "producer", "vault"];
        names.iter().for_each(|name| arguments.extend(["--bin", name]));
        arguments.extend(["--config", &shared, "--target-dir"]);
        arguments.push(folder.to_str().expect("a target folder that is text"));
        let [pgsaga, producer, vault] = build(&arguments, names);
        Failing { pgsaga, producer, vault }
    })
}

/// Cargo's, wherever that was set to: `pgsaga` lies in `debug` or `release` below it.
fn target_folder() -> PathBuf {
    pgsaga().ancestors().nth(2).expect("a target folder").to_owned()
}

/// A command of `pgsaga` without the variables of the tests: it refuses those that it does not
/// know.
pub fn command() -> Command {
    command_of(pgsaga())
}

/// The same of another executable.
pub fn command_of(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PGSAGA_")) {
        command.env_remove(name);
    }
    command
}

/// A command that becomes `program` and is killed when the thread that starts it ends, however that
/// ends: a worker, say, never ends because its database is gone. `through` is the executable of
/// `pgsaga` that sees to it.
pub fn tied(through: &Path, program: &Path) -> Command {
    let mut command = command_of(through);
    command.args(["child", "--parent", &std::process::id().to_string(), "--"]).arg(program);
    command
}

/// The cargo that builds these tests, as if a person had started it.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        if OF_THIS_CRATE.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Builds and names the executables: of the whole workspace and in the profile of the tests, so
/// that they are linked from what the tests are linked from. Other choices would build most
/// dependencies again.
fn build<const COUNT: usize>(arguments: &[&str], names: [&str; COUNT]) -> [PathBuf; COUNT] {
    let mut cargo = cargo();
    cargo
        .args([
            "build",
            "--quiet",
            "--locked",
            "--message-format=json-render-diagnostics",
            "--workspace",
            "--profile",
        ])
        .arg(if cfg!(debug_assertions) { "test" } else { "release" })
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit());
    if env::var_os(OF_A_CONTROL).is_some() {
        cargo.args(UNOPTIMISED);
    }
    let output = cargo.output().expect("failed to run cargo");
    assert!(output.status.success(), "failed to build {names:?}: {}", output.status);
    let messages: Vec<Value> = output
        .stdout
        .split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    names.map(|name| {
        messages
            .iter()
            .filter(|message| message["target"]["name"] == name)
            .find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)))
            .unwrap_or_else(|| panic!("cargo named no executable of {name}"))
    })
}
