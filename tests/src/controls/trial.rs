//! Builds a test binary of the copy, and runs tests of it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Error, Ran};
use crate::binary;

/// How often a running test is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// A test binary, and the folder of its package, where cargo would run it.
#[derive(Debug, Clone)]
pub(super) struct Built {
    executable: PathBuf,
    folder: PathBuf,
    /// The whole names of its tests.
    tests: Vec<String>,
}

impl Built {
    /// The whole name of the one test whose name ends with `name`, from the beginning of a module
    /// on.
    pub(super) fn whole_name(&self, name: &str) -> Option<&str> {
        let is_named = |test: &&String| {
            test.strip_suffix(name).is_some_and(|modules| modules.is_empty() || modules.ends_with("::"))
        };
        let mut named = self.tests.iter().filter(is_named);
        let test = named.next()?;
        named.next().is_none().then_some(test)
    }
}

/// Builds; the inner error is what the compiler says.
pub(super) fn build(
    source: &Path,
    target: &Path,
    (package, name): (&Path, &str),
) -> Result<Result<Built, String>, Error> {
    let mut cargo = binary::cargo();
    cargo.args([
        "test",
        "--locked",
        "--no-run",
        "--quiet",
        "--message-format=json-render-diagnostics",
        "--manifest-path",
    ]);
    cargo.arg(package.join("Cargo.toml"));
    let kind = match name {
        "unit" if source.join(package).join("src/lib.rs").is_file() => "lib",
        "unit" => "bin",
        _ => "test",
    };
    match kind {
        "lib" => cargo.arg("--lib"),
        "bin" => cargo.arg("--bins"),
        _ => cargo.args(["--test", name]),
    };
    cargo.args(binary::UNOPTIMISED);
    let output = in_target(&mut cargo, target)
        .current_dir(source)
        .output()
        .map_err(|error| Error::file("run cargo in", source, error))?;
    if !output.status.success() {
        return Ok(Err(last_lines(&String::from_utf8_lossy(&output.stderr))));
    }
    let built = output
        .stdout
        .split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
        .filter(|message| {
            let target = &message["target"];
            let is_of_kind =
                target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|other| other == kind));
            message["profile"]["test"] == true && is_of_kind && (kind != "test" || target["name"] == name)
        })
        .find_map(|message| {
            let executable = PathBuf::from(message["executable"].as_str()?);
            let folder = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
            Some(Built { executable, folder, tests: Vec::new() })
        });
    let mut built = built.ok_or_else(|| Error::Program {
        program: "cargo",
        status: output.status.to_string(),
        said: format!("it named no test binary {name} in {}", package.display()),
    })?;
    built.tests = list(&built)?;
    Ok(Ok(built))
}

fn list(built: &Built) -> Result<Vec<String>, Error> {
    let output = Command::new(&built.executable)
        .args(["--list", "--format", "terse"])
        .current_dir(&built.folder)
        .output()
        .map_err(|error| Error::file("run", &built.executable, error))?;
    let lines = String::from_utf8_lossy(&output.stdout);
    Ok(lines.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// Runs tests by their whole names, and kills what has not ended after `seconds_max`.
pub(super) fn run(built: &Built, target: &Path, tests: &[&str], seconds_max: u64) -> Result<Ran, Error> {
    let mut command = Command::new(&built.executable);
    in_target(&mut command, target)
        .arg("--exact")
        .args(tests)
        .current_dir(&built.folder)
        // The words of a panic end where a backtrace would begin.
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let failed = |error| Error::file("run", &built.executable, error);
    let mut child = command.spawn().map_err(failed)?;
    let mut pipe = child.stdout.take();
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = &mut pipe {
            drop(pipe.read_to_end(&mut bytes));
        }
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let ends = Instant::now() + Duration::from_secs(seconds_max);
    let mut hung = false;
    while child.try_wait().map_err(failed)?.is_none() {
        if Instant::now() >= ends {
            hung = true;
            // Its workers and its Postgres end with it.
            child.kill().map_err(failed)?;
            child.wait().map_err(failed)?;
            break;
        }
        thread::sleep(LOOK);
    }
    Ok(Ran { out: reader.join().unwrap_or_default(), hung })
}

/// For cargo, and for the cargo that the tests run to build `pgsaga`. The tests run whole: what a
/// control breaks may show in a case that a small run leaves out.
fn in_target<'a>(command: &'a mut Command, target: &Path) -> &'a mut Command {
    command
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env("TEST_SIZE", "full")
        .env(binary::OF_A_CONTROL, "true")
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
