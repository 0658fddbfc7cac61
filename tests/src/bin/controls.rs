//! Takes each rule away and sees its test go red: `cargo run -p pgsaga-tests --bin controls`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use pgsaga_tests::controls::{Options, Rule, read, run};

/// Runs the negative controls of tests/controls in a copy of the source. Ends with 1 unless every
/// control is red.
#[derive(Parser)]
#[command(name = "controls")]
struct Cli {
    /// Print the controls and run none.
    #[arg(long)]
    list: bool,
    /// Only controls, or rules, whose name contains this; may be repeated.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Only those of this entry of docs/races.md; may be repeated.
    #[arg(long, value_name = "N")]
    race: Vec<u8>,
    /// The workspace.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/.."))]
    root: PathBuf,
    /// Where the copy and what is built of it are kept; by default in the workspace's own `target`.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Kill a test that has not ended after so many seconds.
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    test_seconds_max: u64,
}

impl Cli {
    fn wants(&self, rule: &Rule, name: &str) -> bool {
        let named = |part: &String| name.contains(part.as_str()) || rule.name.contains(part.as_str());
        (self.race.is_empty() || rule.race().is_some_and(|race| self.race.contains(&race)))
            && (self.only.is_empty() || self.only.iter().any(named))
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut rules = match read(&cli.root.join("tests/controls")) {
        Ok(rules) => rules,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    for rule in &mut rules {
        let whole = rule.clone();
        rule.controls.retain(|control| cli.wants(&whole, &control.name));
    }
    rules.retain(|rule| !rule.controls.is_empty());
    if rules.is_empty() {
        eprintln!("no control is called that; --list names them all");
        return ExitCode::FAILURE;
    }
    if cli.list {
        for rule in &rules {
            println!("{}", rule.name);
            for control in &rule.controls {
                println!("  {}\n    {}: {}", control.name, control.tag, control.test);
            }
        }
        return ExitCode::SUCCESS;
    }
    let options = Options {
        folder: cli.folder.unwrap_or_else(|| cli.root.join("target/controls")),
        root: cli.root,
        test_seconds_max: cli.test_seconds_max,
        baseline_seconds_max: 4 * cli.test_seconds_max,
    };
    match run(&options, &rules) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
