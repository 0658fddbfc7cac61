//! The result, as a table for people or as one flat JSON object.

use clap::ValueEnum as _;
use comfy_table::CellAlignment;
use serde_json::{Map, Value};

use super::Scenario;
use super::limits::Limits;
use super::rig::Groups;
use super::run::Measured;
use super::times::Percentiles;
use crate::output::table_of;
use crate::words::count;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bar {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
}

impl Bar {
    fn value(self) -> f64 {
        match self {
            Bar::AtLeast(value) | Bar::AtMost(value) | Bar::Below(value) => value,
        }
    }

    fn holds(self, figure: f64) -> bool {
        match self {
            Bar::AtLeast(bar) => figure >= bar,
            Bar::AtMost(bar) => figure <= bar,
            Bar::Below(bar) => figure < bar,
        }
    }

    fn words(self) -> String {
        let value = number(self.value());
        match self {
            Bar::AtLeast(_) => format!("≥ {value}"),
            Bar::AtMost(_) => format!("≤ {value}"),
            Bar::Below(_) => format!("< {value}"),
        }
    }
}

#[derive(Debug)]
struct Line {
    name: String,
    value: Option<f64>,
    meaning: String,
    bar: Option<Bar>,
}

/// The result of a scenario. The first figure with a bar is the main figure of the scenario.
#[derive(Debug)]
pub(crate) struct Report {
    scenario: String,
    lines: Vec<Line>,
}

impl Report {
    pub(crate) fn new(scenario: Scenario) -> Report {
        let scenario = scenario.to_possible_value().map(|value| value.get_name().to_owned());
        Report { scenario: scenario.unwrap_or_default(), lines: Vec::new() }
    }

    /// Adds a figure that is compared with a bar.
    pub(crate) fn bar(&mut self, name: &str, value: f64, bar: Bar, meaning: &str) {
        self.figure(name, value, Some(bar), meaning);
    }

    pub(crate) fn line(&mut self, name: &str, value: impl Into<Option<f64>>, meaning: &str) {
        self.figure(name, value, None, meaning);
    }

    /// Adds a figure; `None` if it cannot be measured on this machine.
    pub(crate) fn figure(
        &mut self,
        name: &str,
        value: impl Into<Option<f64>>,
        bar: Option<Bar>,
        meaning: &str,
    ) {
        let (name, meaning) = (name.to_owned(), meaning.to_owned());
        self.lines.push(Line { name, value: value.into(), meaning, bar });
    }

    pub(crate) fn groups(&mut self, groups: &Groups) {
        self.line("claim_tasks", groups.claim, "tasks of a claim that found some");
        self.line("settle_tasks", groups.settle, "tasks of a settle");
    }

    pub(crate) fn limits(&mut self, limits: &Limits, composed: f64) {
        self.line("http_calls_per_second", limits.http_calls_per_second, "the worker's HTTP client alone");
        self.line("stub_calls_per_second", limits.stub_calls_per_second, "the stub participant alone");
        self.line(
            "sql_sagas_per_second",
            limits.sql_sagas_per_second,
            "the worker's claims and settles alone, in this run's groups",
        );
        self.line("produce_sagas_per_second", limits.produce_sagas_per_second, "the producers' INSERT alone");
        self.line("limit_sagas_per_second", composed, "all of it after each other");
    }

    pub(crate) fn measured(&mut self, measured: &Measured) {
        self.line("sagas_per_second", measured.sagas_per_second, "end to end, counted at their final state");
        self.percentiles("first_call", measured.first_call, "from the INSERT's commit to the first call");
        self.percentiles("finished", measured.finished, "from the INSERT's commit to the final state");
        self.groups(&measured.groups);
        self.line(
            "full_page_bytes_per_saga",
            measured.full_page_bytes,
            "full-page images, once a page and checkpoint",
        );
        self.line("dead_rows_per_saga", measured.dead_rows, "versions of rows left to vacuum");
        self.line("worker_cpu_us_per_saga", measured.worker_cpu_us, "microseconds of all workers");
        self.line("postgres_cpu_us_per_saga", measured.postgres_cpu_us, "microseconds of the server");
    }

    pub(crate) fn percentiles(&mut self, name: &str, of: Percentiles, meaning: &str) {
        for (share, ms) in [("p50", of.p50_ms), ("p90", of.p90_ms), ("p99", of.p99_ms)] {
            self.line(&format!("{name}_{share}_ms"), ms, meaning);
        }
    }

    /// The bars that were missed.
    pub(crate) fn missed(&self) -> Vec<String> {
        let missed = |line: &&Line| match (line.bar, line.value) {
            (Some(bar), Some(value)) => !bar.holds(value),
            _ => false,
        };
        self.lines
            .iter()
            .filter(missed)
            .map(|line| {
                let bar = line.bar.map(Bar::words).unwrap_or_default();
                format!("{} is {}, not {bar}", line.name, number(line.value.unwrap_or_default()))
            })
            .collect()
    }

    pub(crate) fn json(&self) -> String {
        let mut object = Map::new();
        for line in &self.lines {
            object.insert(line.name.clone(), value(line.value));
        }
        object.insert("scenario".to_owned(), self.scenario.as_str().into());
        if let Some((figure, bar)) = self.lines.iter().find_map(|line| Some((line.value, line.bar?))) {
            object.insert("figure".to_owned(), value(figure));
            object.insert("bar".to_owned(), value(Some(bar.value())));
        }
        let missed = self.missed();
        object.insert("holds".to_owned(), missed.is_empty().into());
        object.insert("missed".to_owned(), missed.join("; ").into());
        Value::Object(object).to_string()
    }

    pub(crate) fn table(&self) -> String {
        let mut table = table_of(&["figure", "value", "bar", "meaning"]);
        for line in &self.lines {
            let value = line.value.map_or_else(|| "not known here".to_owned(), number);
            let bar = match (line.bar, line.value) {
                (Some(bar), Some(value)) if bar.holds(value) => format!("{} holds", bar.words()),
                (Some(bar), _) => format!("{} MISSED", bar.words()),
                (None, _) => String::new(),
            };
            table.add_row([&line.name, &value, &bar, &line.meaning]);
        }
        if let Some(column) = table.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.to_string()
    }

    pub(crate) fn verdict(&self) -> String {
        match self.missed().as_slice() {
            [] => format!("{}: every bar holds", self.scenario),
            missed => format!("{}: {}", self.scenario, missed.join("; ")),
        }
    }
}

/// Rounded to three decimals, because more digits would claim too much precision.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn value(value: Option<f64>) -> Value {
    value.map_or(Value::Null, |value| rounded(value).into())
}

fn number(value: f64) -> String {
    if value.abs() >= 100.0 { count(value.round() as i64) } else { rounded(value).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bar_is_the_figure_and_all_must_hold() {
        let mut report = Report::new(Scenario::Steady);
        report.line("http_calls_per_second", 50_000.4, "");
        report.line("full_page_bytes_per_saga", None, "");
        report.bar("ratio", 0.8123, Bar::AtLeast(0.8), "");
        report.bar("worker_commits_per_saga", 0.02, Bar::AtMost(0.1), "");
        let json: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(
            (&json["figure"], &json["bar"], &json["holds"], &json["missed"]),
            (&0.812.into(), &0.8.into(), &true.into(), &"".into())
        );
        assert_eq!(json["full_page_bytes_per_saga"], Value::Null);
        assert!(json.as_object().unwrap().values().all(|value| !value.is_object() && !value.is_array()));
        report.bar("idle_cores", 0.01, Bar::Below(0.01), "");
        let json: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["holds"], false);
        assert_eq!(json["missed"], "idle_cores is 0.01, not < 0.01");
        assert!(report.table().contains("MISSED") && !report.json().contains('\n'));
    }
}
