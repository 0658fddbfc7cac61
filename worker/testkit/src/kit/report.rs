//! What a question found out.

use std::fmt;

/// The questions that every author of a saga should ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Question {
    /// Each step in turn refuses: is everything before it undone?
    Refusal,
    /// Each call comes twice: does it act once?
    Repeat,
    /// Each answer is lost after its effect: is the effect there when the participant answers, and
    /// is it undone?
    LostAnswer,
    /// The worker dies at each of its statements, and the saga is aborted: is only undone what was
    /// done?
    DeadWorker,
    /// An action comes after its compensation: does it stay without effect?
    WorstOrder,
}

impl Question {
    /// All of them, in the order in which they should be asked: a later one presumes what an
    /// earlier one asks.
    pub const ALL: [Question; 5] = [
        Question::Refusal,
        Question::Repeat,
        Question::LostAnswer,
        Question::DeadWorker,
        Question::WorstOrder,
    ];

    /// The question's word on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Question::Refusal => "refusal",
            Question::Repeat => "repeat",
            Question::LostAnswer => "lost-answer",
            Question::DeadWorker => "dead-worker",
            Question::WorstOrder => "worst-order",
        }
    }

    /// What a participant owes.
    pub fn duty(self) -> &'static str {
        match self {
            Question::Refusal => "where a step refuses, the compensations undo all that was done before",
            Question::Repeat => "a call that comes twice with one key acts once, and is answered alike",
            Question::LostAnswer => "the effect is there before the answer, and a lost answer is undone",
            Question::DeadWorker => "a compensation undoes only what was done",
            Question::WorstOrder => "an action that comes after its compensation does nothing",
        }
    }
}

/// How a case of a question ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The duty was met.
    Holds,
    /// The duty was broken: what was found, and what is allowed.
    Broken(String),
    /// The question makes no sense here, for this reason.
    NotAsked(String),
    /// The question could not be answered, for this reason: another duty was broken first.
    Unanswered(String),
}

impl Verdict {
    /// The verdict in one word, and why. A duty that was met needs no reason.
    pub fn words(&self) -> (&'static str, Option<&str>) {
        match self {
            Verdict::Holds => ("holds", None),
            Verdict::Broken(why) => ("BROKEN", Some(why)),
            Verdict::NotAsked(why) => ("not asked", Some(why)),
            Verdict::Unanswered(why) => ("unanswered", Some(why)),
        }
    }
}

/// One thing that went wrong, and what became of the saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// What went wrong, such as `reserve action comes twice`.
    pub name: String,
    /// How it ended.
    pub verdict: Verdict,
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What was asked.
    pub question: Question,
    /// The cases, in the order of the steps.
    pub cases: Vec<Case>,
}

impl Report {
    /// The cases in which the duty was broken.
    pub fn broken(&self) -> impl Iterator<Item = &Case> {
        self.cases.iter().filter(|case| matches!(case.verdict, Verdict::Broken(_)))
    }

    /// Whether no case has broken the duty, and none is unanswered. A question that makes no sense
    /// for a saga, because nothing of it rolls back, holds.
    pub fn holds(&self) -> bool {
        let failed = |case: &Case| matches!(case.verdict, Verdict::Broken(_) | Verdict::Unanswered(_));
        !self.cases.iter().any(failed)
    }

    /// Fails the test unless the duty was met.
    ///
    /// # Panics
    /// With the report, unless it [holds](Self::holds).
    #[track_caller]
    pub fn assert_holds(&self) {
        assert!(self.holds(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.cases.iter().filter(|case| case.verdict == Verdict::Holds).count();
        let answer = match (self.broken().next(), self.holds()) {
            (Some(_), _) => "broken".to_owned(),
            (None, true) if held == 0 => "nothing to ask".to_owned(),
            (None, true) => format!("holds in {held} of {} cases", self.cases.len()),
            (None, false) => "unanswered".to_owned(),
        };
        writeln!(f, "{}: {answer}", self.question.as_str())?;
        writeln!(f, "  the duty: {}", self.question.duty())?;
        for Case { name, verdict } in &self.cases {
            if let (word, Some(why)) = verdict.words() {
                writeln!(f, "  {word}: {name}: {}", why.replace('\n', "\n  "))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(verdicts: &[Verdict]) -> Report {
        let case = |verdict: &Verdict| Case { name: "pay action".to_owned(), verdict: verdict.clone() };
        Report { question: Question::Repeat, cases: verdicts.iter().map(case).collect() }
    }

    #[test]
    fn what_is_unanswered_does_not_hold() {
        let not_asked = Verdict::NotAsked("past the pivot".to_owned());
        let nothing = report(std::slice::from_ref(&not_asked));
        assert!(nothing.holds() && nothing.to_string().starts_with("repeat: nothing to ask"), "{nothing}");
        assert!(report(&[not_asked.clone(), Verdict::Holds]).holds());
        assert!(!report(&[Verdict::Unanswered("stuck".to_owned()), Verdict::Holds]).holds());
        assert!(!report(&[Verdict::Broken("stock: -2".to_owned()), Verdict::Holds]).holds());
    }

    #[test]
    fn a_report_names_the_duty_and_each_case_that_breaks_it() {
        let found = report(&[Verdict::Holds, Verdict::Broken("stock: -2; allowed: stock: -1".to_owned())]);
        let text = found.to_string();
        assert!(text.starts_with("repeat: broken\n  the duty: a call that comes twice"), "{text}");
        assert!(text.ends_with("BROKEN: pay action: stock: -2; allowed: stock: -1\n"), "{text}");
    }
}
