//! A saga told in one line, for tests that read as the rule they show.

use std::collections::BTreeMap;

use super::super::*;
use crate::StepPolicy;

/// A saga and its tasks, as its settles leave them.
pub(super) struct Saga {
    pub(super) graph: StepGraph,
    names: Vec<String>,
    progress: Progress,
    tasks: BTreeMap<usize, Task>,
    /// Successes that were reported before their turn.
    reported: Vec<usize>,
    overdue: bool,
}

#[derive(Clone, Copy)]
struct Task {
    now: Attempt,
    interrupt: Option<Interrupt>,
    completion: Option<Completion>,
    wait: TaskWait,
}

/// Steps by name: `"a > b > c"` one after the other, or `"a, b after a, c after a b"` in any order.
/// A name may be followed by `bare` (nothing to undo) or `pivot`, and by the kind of its action:
/// `wait`, `gate`, `asks` (a gate with a question), `decision`, `outside` or `code` (a workflow).
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
            action: words.iter().find_map(|word| action(word)).unwrap_or_default(),
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
    of(graph, names)
}

/// A saga whose graph was made elsewhere.
pub(super) fn of(graph: StepGraph, names: Vec<String>) -> Saga {
    let (progress, queued) = insert(&graph);
    let (tasks, reported) = (BTreeMap::new(), Vec::new());
    let mut saga = Saga { graph, names, progress, tasks, reported, overdue: false };
    queued.into_iter().for_each(|next| saga.queue(next));
    saga
}

fn action(word: &str) -> Option<ActionKind> {
    Some(match word {
        "wait" => ActionKind::Wait,
        "gate" => ActionKind::Gate { asks: false },
        "asks" => ActionKind::Gate { asks: true },
        "decision" => ActionKind::Decision,
        "outside" => ActionKind::Outside,
        "code" => ActionKind::Workflow,
        _ => return None,
    })
}

/// A call's end: the step and what its participant said.
pub(super) type Answer<'a> = (&'a str, Outcome);

impl Saga {
    pub(super) fn step(&self, name: &str) -> usize {
        self.names.iter().position(|told| told == name).unwrap()
    }

    pub(super) fn event(&self, name: &str, outcome: Option<Outcome>) -> Event {
        let Task { now, interrupt, completion, wait } = self.tasks[&self.step(name)];
        let overdue = self.overdue && now.op == Op::Action;
        Event { now, outcome, interrupt, overdue, fault: None, completion, wait }
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
            [event] if !self.graph.keeps_progress() => Progress::of_sequential(self.graph.count(), event.now),
            _ => self.progress.clone(),
        };
        let plan = plan(&self.graph, &before, events).unwrap();
        for (event, then) in events.iter().zip(&plan.tasks) {
            self.tasks.remove(&event.now.step);
            if let TaskPlan::Retry { next, awaited, .. } = then {
                let wait = if self.is_gate(next.step) { event.wait } else { TaskWait::None };
                let interrupt = awaited.then_some(Interrupt::Unwind);
                self.tasks.insert(next.step, Task { now: *next, interrupt, completion: None, wait });
            }
            if let TaskPlan::Waits { now, awaited } = then {
                let interrupt = awaited.then_some(Interrupt::Unwind).or(event.interrupt);
                let Event { completion, wait, .. } = *event;
                self.tasks.insert(now.step, Task { now: *now, interrupt, completion, wait });
            }
        }
        plan.queued.iter().for_each(|next| self.queue(*next));
        if plan.unwinds {
            self.interrupt_actions();
        }
        self.progress = plan.progress.clone();
        plan
    }

    fn interrupt_actions(&mut self) {
        for task in self.tasks.values_mut().filter(|task| task.now.op == Op::Action) {
            task.interrupt = task.interrupt.or(Some(Interrupt::Unwind));
        }
    }

    fn is_gate(&self, step: usize) -> bool {
        matches!(self.graph.action(step), ActionKind::Gate { .. })
    }

    /// A task is made. It bears the completion that came before it.
    fn queue(&mut self, now: Attempt) {
        let is_action = now.op == Op::Action;
        let waits = is_action && (self.graph.action(now.step) == ActionKind::Wait || self.is_gate(now.step));
        let completion = (is_action && self.reported.contains(&now.step)).then_some(Completion::Success);
        let wait = if waits { TaskWait::Pending } else { TaskWait::None };
        self.tasks.insert(now.step, Task { now, interrupt: None, completion, wait });
    }

    /// A completion marks a task.
    pub(super) fn completes(&mut self, name: &str, completion: Completion) {
        let step = self.step(name);
        self.tasks.get_mut(&step).unwrap().completion = Some(completion);
    }

    /// A completion reports an action's success before its turn.
    pub(super) fn is_reported(&mut self, name: &str) {
        let step = self.step(name);
        assert_eq!(self.progress.steps[step], State::Waiting);
        self.progress.steps[step] = State::Reported;
        self.reported.push(step);
    }

    /// The end of a task's wait passes.
    pub(super) fn wait_ends(&mut self, name: &str) {
        let step = self.step(name);
        self.tasks.get_mut(&step).unwrap().wait = TaskWait::Over;
    }

    /// A call is answered by 202 and a wait.
    pub(super) fn accepts(&mut self, name: &str) -> Plan {
        let plan = self.answers(name, Outcome::Ongoing);
        let step = self.step(name);
        self.tasks.get_mut(&step).unwrap().wait = TaskWait::Pending;
        plan
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
        self.tasks.get_mut(&step).unwrap().interrupt = Some(interrupt);
    }

    /// The tasks in the order of the steps: `a1` is the first try of a's action, `~a1` of its
    /// compensation.
    pub(super) fn tasks(&self) -> String {
        let told = |Task { now, .. }: &Task| {
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
