//! The saga that is asked about.

use std::collections::BTreeMap;

use pgsaga_plan::Op;
use pgsaga_producer::{Columns, Definition, Invalid};
use pgsaga_sql::contract::default_step_name;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::Error;

/// A saga, and what its steps mean for the questions.
#[derive(Debug)]
pub(super) struct Subject {
    columns: Columns,
    pub(super) steps: Vec<Step>,
}

/// A step of the saga.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) name: String,
    calls: BTreeMap<&'static str, bool>,
    /// The saga can still roll back while the step's action runs.
    pub(super) can_roll_back: bool,
    pub(super) is_pivot: bool,
    /// How many steps run before it.
    before: usize,
}

/// A step as it is written.
#[derive(Debug, Deserialize)]
struct Written {
    name: Option<String>,
    action: Option<String>,
    compensate: Option<String>,
    #[serde(default)]
    pivot: bool,
    after: Option<Vec<String>>,
}

impl Subject {
    pub(super) fn new(saga: &Definition) -> Result<Subject, Error> {
        // What takes longer than usual must not end the saga.
        let columns = Columns { timeout_to_fail_us: None, ..saga.columns().clone() };
        let written: Vec<Written> = serde_json::from_str(&columns.steps).map_err(Error::steps)?;
        let before_pivot = written.iter().position(|step| step.pivot).map(|pivot| up_to(&written, pivot));
        let steps = written.iter().enumerate().map(|(index, step)| Step {
            name: name(&written, index),
            calls: [(Op::Action, &step.action), (Op::Compensate, &step.compensate)]
                .map(|(op, target)| (op.as_str(), target.as_ref().is_some_and(|target| !target.is_empty())))
                .into(),
            can_roll_back: before_pivot.as_ref().is_none_or(|before| before[index]),
            is_pivot: step.pivot,
            before: up_to(&written, index).into_iter().filter(|is_before| *is_before).count(),
        });
        let steps: Vec<Step> = steps.collect();
        let subject = Subject { columns, steps };
        if subject.called().next().is_none() {
            return Err(Error::NoCall);
        }
        Ok(subject)
    }

    /// The step that runs last of those that can roll back.
    pub(super) fn last(&self) -> Option<usize> {
        self.called()
            .filter(|step| self.steps[*step].can_roll_back)
            .max_by_key(|step| self.steps[*step].before)
    }

    /// Whether somebody is called for the op of the step.
    pub(super) fn calls(&self, step: usize, op: Op) -> bool {
        self.steps[step].calls[op.as_str()]
    }

    /// The steps whose action calls somebody.
    pub(super) fn called(&self) -> impl Iterator<Item = usize> {
        (0..self.steps.len()).filter(|step| self.calls(*step, Op::Action))
    }

    /// The ops that call somebody: the actions in the order of the steps, then the compensations.
    pub(super) fn ops(&self) -> impl Iterator<Item = (usize, Op)> {
        let all = [Op::Action, Op::Compensate].into_iter();
        let all = all.flat_map(|op| (0..self.steps.len()).map(move |step| (step, op)));
        all.filter(|(step, op)| self.calls(*step, *op))
    }

    /// The saga under another name.
    pub(super) fn named(&self, gid: String) -> Result<Definition, Invalid> {
        Definition::new(Columns { gid: Some(gid), ..self.columns.clone() })
    }

    /// The same, so that the first attempt of an action without a definite outcome is the last, and
    /// a compensation is asked for as long as it takes. So exactly one thing goes wrong.
    pub(super) fn named_without_retries(&self, gid: String) -> Result<Definition, Error> {
        let mut steps: Vec<BTreeMap<String, Box<RawValue>>> =
            serde_json::from_str(&self.columns.steps).map_err(Error::steps)?;
        for step in &mut steps {
            step.remove("retry_limit");
            step.remove("compensate_retry_limit");
        }
        Ok(Definition::new(Columns {
            gid: Some(gid),
            steps: serde_json::to_string(&steps).map_err(Error::steps)?,
            retry_limit: Some(0),
            compensate_retry_limit: None,
            ..self.columns.clone()
        })?)
    }
}

fn name(written: &[Written], index: usize) -> String {
    written[index].name.clone().unwrap_or_else(|| default_step_name(index + 1))
}

/// For each step, whether it is this one or runs before it. As in the database, a step without
/// `after` follows the step above it.
fn up_to(written: &[Written], step: usize) -> Vec<bool> {
    let mut before = vec![false; written.len()];
    let mut open = vec![step];
    while let Some(index) = open.pop() {
        if std::mem::replace(&mut before[index], true) {
            continue;
        }
        match &written[index].after {
            None => open.extend(index.checked_sub(1)),
            Some(names) => {
                open.extend((0..written.len()).filter(|other| names.contains(&name(written, *other))));
            }
        }
    }
    before
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(steps: &str) -> Subject {
        Subject::new(&Definition::from_json(steps).unwrap()).unwrap()
    }

    #[test]
    fn the_steps_up_to_the_pivot_can_roll_back() {
        let saga = subject(
            r#"[{"action": "http://a.example/"}, {"name": "pay", "action": "http://a.example/", "pivot": true}, {"action": "http://a.example/"}]"#,
        );
        assert_eq!(saga.steps.iter().map(|step| step.can_roll_back).collect::<Vec<_>>(), [true, true, false]);
        assert_eq!(saga.steps.iter().map(|step| step.name.as_str()).collect::<Vec<_>>(), ["01", "pay", "03"]);
        let saga = subject(
            r#"[{"name": "a", "action": "http://a.example/", "after": []}, {"name": "last", "action": "http://a.example/", "after": ["pay"]}, {"name": "pay", "action": "http://a.example/", "pivot": true, "after": ["a"]}]"#,
        );
        assert_eq!(saga.steps.iter().map(|step| step.can_roll_back).collect::<Vec<_>>(), [true, false, true]);
    }

    #[test]
    fn limits_of_retries_are_taken_away_and_all_else_stays() {
        let saga = subject(
            r#"[{"action": "http://a.example/", "retry_limit": 7, "compensate_retry_limit": 0, "payload": {"n": 1e999}}]"#,
        );
        let without = saga.named_without_retries("g".to_owned()).unwrap();
        assert_eq!(without.columns().steps, r#"[{"action":"http://a.example/","payload":{"n": 1e999}}]"#);
        assert_eq!(without.columns().retry_limit, Some(0));
    }
}
