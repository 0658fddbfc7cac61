//! Dockerfile, compose.yaml and docs/deploy: what they say of the worker is true, and what they run
//! runs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Worker, binary, eventually, pgsaga, tool};
use tempfile::TempDir;

use crate::manager::Manager;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const UNIT: &str = "docs/deploy/pgsaga-worker@.service";
const WORKER: &str = "docs/deploy/kubernetes/worker.yaml";
const COMPOSE: &str = "compose.yaml";

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands behind a key, on the one line that has it.
pub(crate) fn value(text: &str, key: &str) -> String {
    let lines = text.lines().map(|line| line.trim_start().trim_start_matches("- "));
    let values: Vec<&str> = lines.filter_map(|line| line.strip_prefix(key)).collect();
    assert_eq!(values.len(), 1, "{key}: {values:?}");
    values[0].trim().to_owned()
}

/// Every file of the deployment.
fn files() -> Vec<PathBuf> {
    let mut files = vec![PathBuf::from("Dockerfile"), COMPOSE.into()];
    for folder in ["docs/deploy", "docs/deploy/compose", "docs/deploy/kubernetes"] {
        for entry in fs::read_dir(Path::new(ROOT).join(folder)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                files.push(Path::new(folder).join(entry.file_name()));
            }
        }
    }
    assert!(files.len() > 10, "{files:?}");
    files
}

fn help(args: &[&str]) -> String {
    let output = binary::command().args(args).arg("--help").output().unwrap();
    assert!(output.status.success(), "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A worker refuses a variable that it does not know, so a misspelt one would keep a fleet from
/// starting.
#[test]
fn every_variable_and_image_of_the_deployment_exists() {
    let known = [help(&["work"]), help(&["health"])].concat();
    let mut variables = BTreeSet::new();
    for file in files() {
        let text = read(file.to_str().unwrap());
        for word in text.split(|c: char| !(c.is_ascii_uppercase() || c == '_')) {
            // The subnet is compose's own; the rest ends in the middle of a pattern.
            if word.starts_with("PGSAGA_") && !["PGSAGA_", "PGSAGA_SUBNET"].contains(&word) {
                assert!(known.contains(&format!("[env: {word}")), "{}: {word}", file.display());
                variables.insert(word.to_owned());
            }
        }
        for line in text.lines().filter(|line| line.contains("ghcr.io/pgsaga/pgsaga:")) {
            let version = line.split("pgsaga/pgsaga:").nth(1).unwrap().trim();
            assert_eq!(version, env!("CARGO_PKG_VERSION"), "{}", file.display());
        }
    }
    assert!(variables.len() > 3, "{variables:?}");
}

/// A supervisor that is less patient than a drain cuts off calls that might have ended.
#[test]
fn every_supervisor_waits_for_the_grace_and_fifteen_seconds_more() {
    let help = help(&["work"]);
    let (_, grace) = help.split_once("[env: PGSAGA_GRACE_SECONDS").unwrap();
    let (_, grace) = grace.split_once("[default: ").unwrap();
    let grace: u64 = grace.split(']').next().unwrap().parse().unwrap();
    let compose = read(COMPOSE);
    let (_, worker) = compose.split_once("\n  worker:\n").unwrap();
    let worker = worker.split("\n  echo:\n").next().unwrap();
    let kubernetes = read(WORKER);
    for said in [
        value(worker, "PGSAGA_GRACE_SECONDS:").trim_matches('"').to_owned(),
        kubernetes.split("PGSAGA_GRACE_SECONDS, value: \"").nth(1).unwrap().split('"').next().unwrap().into(),
    ] {
        assert_eq!(said.parse::<u64>().unwrap(), grace);
    }
    for patience in [
        value(worker, "stop_grace_period:"),
        value(&kubernetes, "terminationGracePeriodSeconds:"),
        value(&read(UNIT), "TimeoutStopSec="),
    ] {
        assert_eq!(patience.trim_end_matches('s').parse::<u64>().unwrap(), grace + 15);
    }
}

/// The target of the autoscaler is a worker's slots.
#[test]
fn the_scaler_counts_in_the_slots_of_a_worker() {
    let slots = read(WORKER);
    let slots = slots.split("PGSAGA_CONCURRENCY, value: ").nth(1).unwrap().split('}').next().unwrap();
    assert_eq!(value(&read("docs/deploy/kubernetes/keda.yaml"), "targetQueryValue:"), slots);
}

/// Runs what the unit runs, as systemd would: `$$` is `$`, the URL is a file of the credentials'
/// folder.
#[tokio::test]
async fn the_units_command_starts_a_worker_that_systemd_can_watch() {
    let scene = Scene::new().await;
    let credentials = TempDir::new().unwrap();
    fs::write(credentials.path().join("database-url"), format!("{}\n", scene.db.url())).unwrap();
    let command = value(&read(UNIT), "ExecStart=");
    let script = command.strip_prefix("/bin/sh -c '").unwrap().strip_suffix('\'').unwrap();
    let installed = "/usr/local/bin/pgsaga";
    assert!(script.contains(installed), "{script}");
    let script = script.replace("$$", "$").replace(installed, pgsaga().to_str().unwrap());

    let systemd = Manager::start();
    let (socket_name, socket) = systemd.socket();
    let mut sh = binary::command_of(Path::new("/bin/sh"));
    sh.args(["-c", &script])
        .env_remove("DATABASE_URL")
        .env("CREDENTIALS_DIRECTORY", credentials.path())
        .env("PGSAGA_LISTEN", "127.0.0.1:0")
        .env("PGSAGA_ALLOW_ADDRESSES", "127.0.0.1")
        .env(socket_name, socket)
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let mut main = Ended(sh.spawn().unwrap());
    systemd.hears("READY=1").await;
    scene.saga("s").step("pay").insert().await;
    scene.expect("s", "succeeded", None, &["pay action"]).await;
    // systemd watches and stops the process that it started: the shell must have become the worker.
    let program = fs::read_link(format!("/proc/{}/exe", main.0.id())).unwrap();
    assert_eq!(program, pgsaga().canonicalize().unwrap());
    main.terminate();
    let exit = eventually(PATIENCE, "it drains", async || main.0.try_wait().unwrap()).await;
    assert_eq!(exit.code(), Some(0));
}

/// Killed with the test, where that did not end it.
struct Ended(std::process::Child);

impl Ended {
    fn terminate(&self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The database of compose.yaml, made as the image's entrypoint makes it, and then migrated.
#[tokio::test]
#[cfg_attr(not(has_psql), ignore = "needs psql: apt-get install postgresql-client")]
async fn the_logins_of_compose_suffice_for_a_worker() {
    let mut scene = Scene::new().await;
    let mounted: Vec<String> = read(COMPOSE)
        .lines()
        .filter(|line| line.contains(":/docker-entrypoint-initdb.d/"))
        .map(|line| line.trim().trim_start_matches("- ./").split(':').next().unwrap().to_owned())
        .collect();
    assert_eq!(mounted, ["sql/roles.sql", "docs/deploy/compose/logins.sql"]);
    for file in &mounted {
        let output = Command::new(tool("psql"))
            .args([scene.db.url(), "--no-psqlrc", "-v", "ON_ERROR_STOP=1", "-f", file])
            .current_dir(ROOT)
            .env("FLEET_PASSWORD", "it's secret")
            .output()
            .unwrap();
        assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let has_password: bool =
        sqlx::query_scalar("select rolpassword is not null from pg_authid where rolname = 'fleet'")
            .fetch_one(scene.pool())
            .await
            .unwrap();
    assert!(has_password);
    let url = scene.db.url().replace("postgres://postgres@", "postgres://fleet@");
    scene.workers.push(Worker::spawn(&url, &[]));
    scene.workers[0].ready().await;
    scene.saga("s").step("pay").insert().await;
    scene.expect("s", "succeeded", None, &["pay action"]).await;
}

/// The ports that a command listens at by default, and those that documents give to workers.
#[test]
fn no_port_is_given_out_twice() {
    let mut given: Vec<(String, String)> = ["work", "ui", "echo"]
        .map(|command| {
            let help = help(&[command]);
            let (_, listen) = help.split_once("--listen <ADDRESS:PORT>").unwrap();
            let (_, default) = listen.split_once("[default: ").unwrap();
            let port = default.split(']').next().unwrap().rsplit(':').next().unwrap();
            (port.to_owned(), format!("pgsaga {command}"))
        })
        .into();
    let work = given[0].0.clone();
    let documents = ["docs", "docs/deploy"].into_iter().flat_map(|folder| {
        let entries = fs::read_dir(Path::new(ROOT).join(folder)).unwrap();
        entries.map(move |entry| Path::new(folder).join(entry.unwrap().file_name()))
    });
    for path in documents.filter(|path| Path::new(ROOT).join(path).is_file()) {
        for line in read(path.to_str().unwrap()).lines() {
            let port = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
            let instances =
                line.split("pgsaga-worker@").skip(1).map(|rest| (port(rest), "an instance".to_owned()));
            let started = line.split_once("pgsaga work ").into_iter().filter_map(|(_, rest)| {
                let (_, address) = rest.split_once("--listen ")?;
                Some((
                    port(address.split(' ').next()?.rsplit(':').next()?),
                    format!("{}: {line}", path.display()),
                ))
            });
            given.extend(instances.chain(started).filter(|(port, _)| !port.is_empty() && *port != work));
        }
    }
    given.sort();
    given.dedup();
    let ports: BTreeSet<&String> = given.iter().map(|(port, _)| port).collect();
    assert_eq!(ports.len(), given.len(), "{given:#?}");
    assert!(given.len() >= 5, "{given:#?}");
}
