//! Runs controls one after the other, and says what they came to.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use comfy_table::{Table, TableStyle};

use super::trial::{self, Built};
use super::{Control, Error, Ran, Rule, SourceCopy, Verdict, judge};

/// What is run, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// The workspace.
    pub root: PathBuf,
    /// Where its copy and what is built of it are kept between runs.
    pub folder: PathBuf,
    /// A test that has not ended after so many seconds is killed.
    pub test_seconds_max: u64,
    /// The same for the tests of one binary, before anything is broken.
    pub baseline_seconds_max: u64,
}

/// What one control came to.
#[derive(Debug)]
struct Outcome<'a> {
    rule: &'a str,
    name: &'a str,
    verdict: Verdict,
    build_seconds: f64,
    test_seconds: f64,
}

/// Runs the controls of `rules`, and prints a table. True when every one of them is red.
///
/// # Errors
/// Where the source cannot be copied, or a program cannot be run.
pub fn run(options: &Options, rules: &[Rule]) -> Result<bool, Error> {
    let _alone = lock(&options.folder)?;
    let copy = SourceCopy::new(&options.root, options.folder.join("source"))?;
    let trials = Trials { copy, target: options.folder.join("target"), options };
    let mut controls: Vec<(&str, &Control)> = rules
        .iter()
        .flat_map(|rule| rule.controls.iter().map(|control| (rule.name.as_str(), control)))
        .collect();
    // Neighbours change the same crate, so that little is built between two of them.
    controls.sort_by_cached_key(|(_, control)| {
        let tag = control.place(trials.copy.tags()).ok();
        (tag.and_then(|tag| tag.file.iter().next().map(ToOwned::to_owned)), trials.binary(control))
    });
    if !trials.are_green_unbroken(&controls)? {
        return Ok(false);
    }
    let mut outcomes = Vec::with_capacity(controls.len());
    for (nth, (rule, control)) in controls.iter().enumerate() {
        eprint!("[{:>2}/{}] {rule}: {} … ", nth + 1, controls.len(), control.name);
        let outcome = trials.outcome(rule, control)?;
        eprintln!(
            "{} (built in {:.0} s, run in {:.0} s)",
            outcome.verdict.as_str(),
            outcome.build_seconds,
            outcome.test_seconds
        );
        if let Some(detail) = outcome.verdict.detail() {
            eprintln!("{detail}");
        }
        outcomes.push(outcome);
    }
    outcomes.sort_by_key(|outcome| outcome.rule);
    println!("{}", table(&outcomes));
    let red = outcomes.iter().filter(|outcome| outcome.verdict == Verdict::Red).count();
    println!("{red} of {} controls are red", outcomes.len());
    Ok(red == outcomes.len())
}

/// Two runs in one folder would break each other's source.
fn lock(folder: &Path) -> Result<File, Error> {
    fs::create_dir_all(folder).map_err(|error| Error::file("make", folder, error))?;
    let path = folder.join("lock");
    let file = File::create(&path).map_err(|error| Error::file("make", &path, error))?;
    // Held until the file is closed, or the process has ended, however.
    file.try_lock().map_err(|error| Error::file("lock, since another run has it,", &path, error.into()))?;
    Ok(file)
}

/// The folder of a package, and the name of its test binary or `lib`.
type Binary<'a> = (PathBuf, &'a str);

struct Trials<'a> {
    copy: SourceCopy,
    target: PathBuf,
    options: &'a Options,
}

impl Trials<'_> {
    /// What is red already shows nothing.
    fn are_green_unbroken(&self, controls: &[(&str, &Control)]) -> Result<bool, Error> {
        let mut binaries: BTreeMap<Binary<'_>, Vec<&str>> = BTreeMap::new();
        for (_, control) in controls {
            // One that has no place is told of when its turn comes.
            if let Some(binary) = self.binary(control) {
                binaries.entry(binary).or_default().push(&control.test);
            }
        }
        let mut green = true;
        for (binary, mut tests) in binaries {
            tests.sort_unstable();
            tests.dedup();
            eprintln!("unbroken: {} tests of {} {}", tests.len(), binary.0.display(), binary.1);
            let built = match self.build(&binary)? {
                Ok(built) => built,
                Err(said) => {
                    eprintln!("  does not compile:\n{said}");
                    green = false;
                    continue;
                }
            };
            let whole: Vec<&str> = tests.iter().filter_map(|test| built.whole_name(test)).collect();
            let ran = trial::run(&built, &self.target, &whole, self.options.baseline_seconds_max)?;
            for test in tests {
                let verdict =
                    built.whole_name(test).map_or(Verdict::DidNotRun, |test| judge(&ran, test, None));
                if verdict != Verdict::StayedGreen {
                    green = false;
                    let words = match verdict {
                        Verdict::OtherReason(said) => format!("red without any change: {said}"),
                        verdict => verdict.as_str().to_owned(),
                    };
                    eprintln!("  {test}: {words}");
                }
            }
        }
        Ok(green)
    }

    fn binary<'a>(&self, control: &'a Control) -> Option<Binary<'a>> {
        let tag = control.place(self.copy.tags()).ok()?;
        Some((control.package(self.copy.path(), tag), &control.binary))
    }

    fn build(&self, (package, name): &Binary<'_>) -> Result<Result<Built, String>, Error> {
        trial::build(self.copy.path(), &self.target, (package, name))
    }

    fn outcome<'a>(&self, rule: &'a str, control: &'a Control) -> Result<Outcome<'a>, Error> {
        let mut outcome = Outcome {
            rule,
            name: &control.name,
            verdict: Verdict::DidNotRun,
            build_seconds: 0.0,
            test_seconds: 0.0,
        };
        let (_broken, binary) = match (self.copy.without(control), self.binary(control)) {
            (Ok(broken), Some(binary)) => (broken, binary),
            (Err(error @ Error::DoesNotFit { .. }), _) => {
                outcome.verdict = Verdict::DidNotApply(error.to_string());
                return Ok(outcome);
            }
            (Err(error), _) => return Err(error),
            (Ok(_), None) => return Ok(outcome),
        };
        let started = Instant::now();
        let built = self.build(&binary)?;
        outcome.build_seconds = started.elapsed().as_secs_f64();
        let built = match built {
            Ok(built) => built,
            Err(said) => {
                outcome.verdict = Verdict::DidNotCompile(said);
                return Ok(outcome);
            }
        };
        let Some(test) = built.whole_name(&control.test) else { return Ok(outcome) };
        let started = Instant::now();
        let ran: Ran = trial::run(&built, &self.target, &[test], self.options.test_seconds_max)?;
        outcome.test_seconds = started.elapsed().as_secs_f64();
        outcome.verdict = judge(&ran, test, Some(&control.says));
        Ok(outcome)
    }
}

fn table(outcomes: &[Outcome<'_>]) -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_header(["rule", "what is taken away", "", "build s", "test s"]);
    for outcome in outcomes {
        table.add_row([
            outcome.rule.to_owned(),
            outcome.name.to_owned(),
            outcome.verdict.as_str().to_owned(),
            format!("{:.0}", outcome.build_seconds),
            format!("{:.0}", outcome.test_seconds),
        ]);
    }
    table
}
