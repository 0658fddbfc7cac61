//! A saga told in one line, for tests that read as the rule they show.

use std::collections::BTreeMap;

use super::super::*;
use crate::StepPolicy;

/// A saga and its tasks, as its settles leave them.
pub(super) struct Saga {
    pub(super) graph: StepGraph,
    names: Vec<String>,
    progress: Progress,
    tasks: BTreeMap<usize, (Attempt, Option<Interrupt>)>,
    overdue: bool,
}

/// Steps by name: `"a > b > c"` one after the other, or `"a, b after a, c after a b"` in any order.
/// A name may be followed by `bare` (nothing to undo) or `pivot`.
pub(super) fn saga(told: &str) -> Saga {
    limited(told, None, None)
}

/// The same with a limit for every action, and one for every compensation.
pub(super) fn limited(told: &str, retry_limit: Option<u32>, compensate_retry_limit: Option<u32>) -> Saga {
    let is_sequential = told.contains('>');
    let steps: Vec<Vec<&str>> =
        told.split(['>', ',']).map(|step| step.split_whitespace().collect()).collect();
    let names: Vec<String> = steps.iter().map(|words| words[0].to_owned()).collect();
    let rules = steps
        .iter()
        .map(|words| StepPolicy {
            has_compensation: !words.contains(&"bare"),
            retry_limit,
            compensate_retry_limit,
        })
        .collect();
    let pivot = steps.iter().position(|words| words.contains(&"pivot"));
    let graph = if is_sequential {
        StepGraph::sequential(rules, pivot)
    } else {
        let after = |words: &Vec<&str>| {
            let before = words.iter().skip_while(|word| **word != "after").skip(1);
            before.filter_map(|word| names.iter().position(|name| name == word)).collect()
        };
        StepGraph::partial(rules, pivot, steps.iter().map(after).collect()).unwrap()
    };
    let mut progress = Progress { steps: vec![State::Waiting; names.len()], abort_requested: false };
    let mut tasks = BTreeMap::new();
    for step in (0..names.len()).filter(|step| graph.after(*step).is_empty()) {
        progress.steps[step] = State::Acting;
        tasks.insert(step, (Attempt::first(step, Op::Action), None));
    }
    Saga { graph, names, progress, tasks, overdue: false }
}

/// A call's end: the step and what its participant said.
pub(super) type Answer<'a> = (&'a str, Outcome);

impl Saga {
    pub(super) fn step(&self, name: &str) -> usize {
        self.names.iter().position(|told| told == name).unwrap()
    }

    pub(super) fn event(&self, name: &str, outcome: Option<Outcome>) -> Event {
        let (now, interrupt) = self.tasks[&self.step(name)];
        let overdue = self.overdue && now.op == Op::Action;
        Event { now, outcome, interrupt, overdue, fault: None }
    }

    /// One call ends.
    pub(super) fn answers(&mut self, name: &str, outcome: Outcome) -> Plan {
        self.settles(&[self.event(name, Some(outcome))])
    }

    /// Several calls end, and are settled together.
    pub(super) fn all_answer(&mut self, answers: &[Answer<'_>]) -> Plan {
        let events: Vec<Event> =
            answers.iter().map(|(name, outcome)| self.event(name, Some(*outcome))).collect();
        self.settles(&events)
    }

    /// A task is claimed and must not be called.
    pub(super) fn is_met(&mut self, name: &str) -> Plan {
        let event = self.event(name, None);
        assert!(!may_call(&self.graph, &event), "{name} may be called");
        self.settles(&[event])
    }

    pub(super) fn may_be_called(&self, name: &str) -> bool {
        may_call(&self.graph, &self.event(name, None))
    }

    pub(super) fn settles(&mut self, events: &[Event]) -> Plan {
        let before = match events {
            [event] if self.graph.is_sequential() => Progress::of_sequential(self.graph.count(), event.now),
            _ => self.progress.clone(),
        };
        let plan = plan(&self.graph, &before, events).unwrap();
        for (event, then) in events.iter().zip(&plan.tasks) {
            self.tasks.remove(&event.now.step);
            if let TaskPlan::Retry { next, awaited, .. } = then {
                self.tasks.insert(next.step, (*next, awaited.then_some(Interrupt::Unwind)));
            }
        }
        for next in &plan.queued {
            self.tasks.insert(next.step, (*next, None));
        }
        if plan.unwinds {
            self.interrupt_actions();
        }
        self.progress = plan.progress.clone();
        plan
    }

    fn interrupt_actions(&mut self) {
        for (now, interrupt) in self.tasks.values_mut().filter(|(now, _)| now.op == Op::Action) {
            *interrupt = interrupt.or((now.op == Op::Action).then_some(Interrupt::Unwind));
        }
    }

    /// Somebody aborts it.
    pub(super) fn is_aborted(&mut self) {
        self.progress.abort_requested = true;
        self.interrupt_actions();
    }

    /// Its deadline passes.
    pub(super) fn is_overdue(&mut self) {
        self.overdue = true;
    }

    /// A decision interrupts a task.
    pub(super) fn is_interrupted(&mut self, name: &str, interrupt: Interrupt) {
        let step = self.step(name);
        self.tasks.get_mut(&step).unwrap().1 = Some(interrupt);
    }

    /// The tasks in the order of the steps: `a1` is the first try of a's action, `~a1` of its
    /// compensation.
    pub(super) fn tasks(&self) -> String {
        let told = |(now, _): &(Attempt, Option<Interrupt>)| {
            let sign = if now.op == Op::Action { "" } else { "~" };
            format!("{sign}{}{}", self.names[now.step], now.attempt)
        };
        self.tasks.values().map(told).collect::<Vec<_>>().join(" ")
    }

    /// Where each step stands, in the letters of `pgsaga.saga.progress`.
    pub(super) fn progress(&self) -> String {
        self.progress.text()
    }
}
