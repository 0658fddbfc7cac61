//! What a run of a test binary says of one test. Pure: a text in, a verdict out.

/// How a test binary ended.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Its standard output.
    pub out: String,
    /// It did not end by itself within its time, and was killed.
    pub hung: bool,
}

/// What a control came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The test failed, with the words that it should.
    Red,
    /// The test passed without the rule: it does not show it.
    StayedGreen,
    /// The test failed with these words instead.
    OtherReason(String),
    /// The test did not run: its name fits none or several, or it is ignored, or the process died
    /// before it.
    DidNotRun,
    /// It was killed: a test of a rule ends by itself.
    Hung,
    /// The source without the rule does not compile; cargo's last words.
    DidNotCompile(String),
    /// The tag is not there exactly once, or what stands below it is not what the control breaks.
    DidNotApply(String),
}

impl Verdict {
    /// In a word or three.
    pub fn as_str(&self) -> &'static str {
        match self {
            Verdict::Red => "red",
            Verdict::StayedGreen => "stayed green",
            Verdict::OtherReason(_) => "another reason",
            Verdict::DidNotRun => "did not run",
            Verdict::Hung => "hung",
            Verdict::DidNotCompile(_) => "did not compile",
            Verdict::DidNotApply(_) => "did not apply",
        }
    }

    /// What a person needs to repair it.
    pub fn detail(&self) -> Option<&str> {
        match self {
            Verdict::OtherReason(said) | Verdict::DidNotCompile(said) | Verdict::DidNotApply(said) => {
                Some(said)
            }
            Verdict::Red | Verdict::StayedGreen | Verdict::DidNotRun | Verdict::Hung => None,
        }
    }
}

/// What became of `test` in a run of its binary. It is red where it failed with words that contain
/// `says`; where nothing was taken away there are no such words.
pub fn judge(ran: &Ran, test: &str, says: Option<&str>) -> Verdict {
    let result = ran
        .out
        .lines()
        .find_map(|line| line.strip_prefix("test ")?.strip_prefix(test)?.strip_prefix(" ... "));
    match result {
        _ if ran.hung => Verdict::Hung,
        // With its time, where that is asked for.
        Some(result) if result == "ok" || result.starts_with("ok ") => Verdict::StayedGreen,
        Some(result) if result.starts_with("FAILED") => match panic(&ran.out, test) {
            said if says.is_some_and(|says| said.contains(says)) => Verdict::Red,
            said => Verdict::OtherReason(said.to_owned()),
        },
        _ => Verdict::DidNotRun,
    }
}

/// The words of the test's panic, without what else it and its workers have written. It is the last
/// one: handlers of a test may panic before.
fn panic<'a>(out: &'a str, test: &str) -> &'a str {
    let header = format!("---- {test} stdout ----\n");
    let Some((_, section)) = out.split_once(&header) else { return "" };
    let section = section.split_once("\n---- ").map_or(section, |(section, _)| section);
    let section = section.split_once("\nfailures:\n").map_or(section, |(section, _)| section);
    let section =
        section.split_once("\nthe end of the log of worker").map_or(section, |(section, _)| section);
    let Some(start) = section.rfind(" panicked at ") else { return section.trim() };
    let words = &section[start..];
    words.split_once("\nnote: run with ").map_or(words, |(words, _)| words).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: &str = "
running 2 tests
test races::other ... ok
test races::late ... FAILED

failures:

---- races::late stdout ----

thread 'races::late' (7) panicked at tests/tests/e2e/interleaving/races.rs:20:5:
assertion `left == right` failed: the repeat finds another epoch
  left: 1
 right: 0
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace
the end of the log of worker 9:
  a saga is stuck


failures:
    races::late

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 100 filtered out; finished in 0.10s
";

    fn ran(out: &str) -> Ran {
        Ran { out: out.to_owned(), hung: false }
    }

    #[test]
    fn red_is_the_named_test_with_its_own_words() {
        assert_eq!(judge(&ran(FAILED), "races::late", Some("the repeat finds another epoch")), Verdict::Red);
        let Verdict::OtherReason(said) = judge(&ran(FAILED), "races::late", Some("a saga is stuck")) else {
            panic!("the worker's log is not what the test says")
        };
        assert!(said.starts_with("panicked at ") && said.ends_with("right: 0"), "{said}");
    }

    #[test]
    fn of_several_panics_the_last_is_the_tests() {
        let said = FAILED.replace(
            "\nthread 'races::late' (7)",
            "\nthread 'races::late' (7) panicked at tests/tests/e2e/handlers/calls.rs:1:1:\nnot in the mood\nnote: run with x\n\nthread 'races::late' (7)",
        );
        assert_eq!(judge(&ran(&said), "races::late", Some("the repeat finds another epoch")), Verdict::Red);
    }

    #[test]
    fn a_test_that_passes_stayed_green_whatever_fails_beside_it() {
        assert_eq!(judge(&ran(FAILED), "races::other", Some("the repeat")), Verdict::StayedGreen);
        assert_eq!(
            judge(&ran("test races::late ... ok <0.1s>\n"), "races::late", Some("")),
            Verdict::StayedGreen
        );
    }

    #[test]
    fn what_did_not_run_is_not_red() {
        let none = "running 0 tests\n\ntest result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 101 filtered out\n";
        for out in [
            none,
            "",
            "test races::late ... ignored\n",
            "test races::later ... FAILED\n",
            "test races::late ... ",
        ] {
            assert_eq!(judge(&ran(out), "races::late", Some("")), Verdict::DidNotRun, "{out:?}");
        }
    }

    #[test]
    fn what_had_to_be_killed_is_not_red() {
        let hung = Ran { hung: true, ..ran(FAILED) };
        assert_eq!(judge(&hung, "races::late", Some("the repeat finds another epoch")), Verdict::Hung);
    }
}
