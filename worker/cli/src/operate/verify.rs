//! Asks the five questions of the test kit about a saga and the real participants that it calls.

use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use pgsaga_producer::Definition;
use pgsaga_test::{Database, Kit, Question, Report, loopback};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::check;
use super::filter::{duration, network};
use crate::error::Error;
use crate::output::{out, out_json};

/// Upper bound on the bytes of a probe's output that an error shows.
const PROBE_BYTES_SHOWN: usize = 300;

/// Asks whether the participants of a saga keep their duties: refusals, calls that come twice, lost
/// answers, dead workers, and calls in the worst order. Calls the real participants: use those of a
/// test environment.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The saga, as for `pgsaga check`; - for standard input
    file: PathBuf,
    /// A shell command that prints the participants' state as JSON: what the saga changes, such as
    /// balances and counts, without times and generated ids
    #[arg(long, value_name = "COMMAND")]
    probe: String,
    /// Ask only this question; repeatable
    #[arg(long, value_enum, value_name = "QUESTION")]
    question: Vec<Asked>,
    /// A file with the URLs and secrets of the participants that steps call by name
    #[arg(long, value_name = "FILE")]
    participants: Option<PathBuf>,
    /// A file with PEM certificates of authorities that may sign participants' certificates
    #[arg(long, value_name = "FILE")]
    participant_ca: Option<PathBuf>,
    /// Further networks that plain URLs may reach, besides public addresses and this machine;
    /// repeatable
    #[arg(long, value_delimiter = ',', value_name = "CIDR", value_parser = network)]
    allow_address: Vec<IpNet>,
    /// How long an effect may come after its answer and still be found out
    #[arg(long, default_value = "300ms", value_name = "DURATION", value_parser = duration)]
    window: Duration,
    /// How long the saga may take to end
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = duration)]
    patience: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// A Postgres server to use instead of a private one, such as
    /// postgres://user:password@host:5432/name; the user may create databases and roles
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<String>,
}

/// A question, as a flag names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked(Question);

impl ValueEnum for Asked {
    fn value_variants<'a>() -> &'a [Asked] {
        const ALL: [Asked; Question::ALL.len()] = {
            let mut all = [Asked(Question::Refusal); Question::ALL.len()];
            let mut nth = 0;
            while nth < all.len() {
                all[nth] = Asked(Question::ALL[nth]);
                nth += 1;
            }
            all
        };
        &ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.0.as_str()).help(self.0.duty()))
    }
}

impl Verify {
    /// Asks, and clears away in any case.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let saga = check::read(&self.file)?;
        let database = match self.database_url.as_deref().filter(|url| !url.is_empty()) {
            Some(url) => Database::on(url).await?,
            None => Database::start().await?,
        };
        let result = tokio::select! {
            biased;
            () = stop.cancelled() => Err(Error::stopped("ask all questions")),
            result = self.ask_all(&database, &saga) => result,
        };
        let cleared = database.clear_away().await;
        result.and(cleared.map_err(Error::from))
    }

    async fn ask_all(&self, database: &Database, saga: &Definition) -> Result<(), Error> {
        let (participants, authorities) = (self.participants.clone(), self.participant_ca.clone());
        let addresses = [&loopback(), &self.allow_address[..]].concat();
        let probe: Arc<str> = self.probe.as_str().into();
        let kit = Kit::new(
            database,
            move |worker| {
                let worker = worker.participants_file(participants.clone());
                worker.participant_ca(authorities.clone()).allow_addresses(addresses.clone())
            },
            move || look(Arc::clone(&probe)),
        );
        let kit = kit.patience(self.patience).window(self.window);
        let mut reports = Vec::new();
        for question in Question::ALL {
            if self.question.is_empty() || self.question.contains(&Asked(question)) {
                let report = kit.ask(question, saga).await?;
                if !self.json {
                    out(&report)?;
                }
                reports.push(report);
            }
        }
        if self.json {
            out_json(reports.iter().map(as_json).collect::<Value>())?;
        }
        let failed: Vec<&str> =
            reports.iter().filter(|report| !report.holds()).map(|report| report.question.as_str()).collect();
        if failed.is_empty() { Ok(()) } else { Err(Error::Found(format!("not met: {}", failed.join(", ")))) }
    }
}

fn as_json(report: &Report) -> Value {
    let cases = report.cases.iter().map(|case| {
        let (verdict, why) = case.verdict.words();
        json!({"case": case.name, "verdict": verdict, "why": why})
    });
    json!({
        "question": report.question.as_str(),
        "duty": report.question.duty(),
        "holds": report.holds(),
        "cases": cases.collect::<Vec<_>>(),
    })
}

/// Why a probe gave no state.
#[derive(Debug)]
struct NoState(String);

impl fmt::Display for NoState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoState {}

/// Runs the probe.
async fn look(probe: Arc<str>) -> Result<Value, NoState> {
    let mut command = Command::new("sh");
    command.args(["-c", &probe]).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|error| NoState(format!("the probe cannot run: {error}")))?;
    let shown =
        |text: &[u8]| String::from_utf8_lossy(&text[..text.len().min(PROBE_BYTES_SHOWN)]).into_owned();
    if !output.status.success() {
        let said = shown(&output.stderr);
        return Err(NoState(format!("the probe ended with {} and said: {}", output.status, said.trim_end())));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| {
        NoState(format!("the probe printed {:?}; allowed: JSON ({error})", shown(&output.stdout)))
    })
}
