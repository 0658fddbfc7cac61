//! What happens next and when, and the commands that help.

use std::time::Duration;

use console::style;
use pgsaga_plan::{Attempt, Interrupt, Op, Outcome, State, Wait, retry_limit};
use pgsaga_sql::contract::SagaStatus;
use pgsaga_worker::execute::call::MESSAGE_BYTES_MAX;
use pgsaga_worker::flow::backoff::nominal_retry_delay;

use crate::error::Error;
use crate::operate::decide::consequences::allowed;
use crate::operate::read::saga::{Saga, Step, Stuck, Task};
use crate::output::out;
use crate::words::{count, counted, newer_format, printable, some_names, span, span_us, time};

/// Upper bound on the lines of tasks, of stuck steps, and of waiting steps.
const LINES_MAX: usize = 20;
/// Upper bound on the names of steps in one line.
const NAMES_MAX: usize = 6;
/// Number of workers lost while they held a task, after which the task runs isolated.
const ISOLATED_AFTER_LOST: i16 = 3;

pub(crate) fn print(saga: &Saga) -> Result<(), Error> {
    out("\nNext")?;
    for line in lines(saga) {
        out(format_args!("  {line}"))?;
    }
    Ok(())
}

/// Lines about queued, stuck and waiting steps, and the commands that help.
pub(crate) fn lines(saga: &Saga) -> Vec<String> {
    let head = &saga.head;
    if head.finished_at.is_some() {
        return vec!["nothing: it is over".to_owned()];
    }
    let mut lines = Vec::new();
    if let Some(ending) = &head.ending {
        lines.push(format!(
            "it ends as {}, as a person decided, as soon as the calls in flight have ended",
            ending.as_str()
        ));
    } else if let (Some(reason), SagaStatus::Submitted) = (&head.abort_reason, head.status) {
        let reason = printable(reason, MESSAGE_BYTES_MAX);
        lines.push(format!("it rolls back unless its pivot, which was called, succeeds: {reason}"));
    }
    if let Some(at) = head.paused_at {
        let by = head.paused_by.as_deref().unwrap_or("somebody");
        let queue = &head.queue;
        lines.push(format!(
            "queue {queue} is paused since {} by {}: nothing of it is claimed; `pgsaga resume {queue}` ends that",
            time(at),
            printable(by, 64)
        ));
    }
    if head.workers == 0 {
        lines.push("no worker is alive: start one with `pgsaga work`".to_owned());
    } else if head.serving == 0 {
        let (queue, workers) = (&head.queue, counted(head.workers, "living worker", "living workers"));
        lines.push(format!(
            "none of {workers} serves queue {queue}: start one with `pgsaga work --queue {queue}`, or without --queue"
        ));
    }
    if saga.tasks.is_empty() && saga.stuck.is_empty() {
        lines.push("nothing is queued, which must not be: run `pgsaga doctor`".to_owned());
    }
    some(
        &mut lines,
        saga.tasks.iter().map(|task| queued(saga, task)),
        saga.tasks.len(),
        "queued try",
        "queued tries",
    );
    some(&mut lines, saga.stuck.iter().map(stuck), saga.stuck.len(), "stuck step", "stuck steps");
    lines.extend(what_helps(saga));
    let waiting = waiting(saga);
    some(&mut lines, waiting.iter().cloned(), waiting.len(), "step that waits", "steps that wait");
    lines
}

/// Adds the first lines, and the number of further ones.
fn some(lines: &mut Vec<String>, all: impl Iterator<Item = String>, count: usize, one: &str, many: &str) {
    lines.extend(all.take(LINES_MAX));
    if count > LINES_MAX {
        lines.push(format!("… and {}", counted((count - LINES_MAX) as i64, one, many)));
    }
}

fn queued(saga: &Saga, task: &Task) -> String {
    let step = saga.steps.get(task.step);
    let mut line = format!("{} of {}, try {}: ", task.op.as_str(), task.name, count(task.attempt.into()));
    if task.waits_for_completion() {
        return line + &waits_for_completion(saga, step, task);
    }
    line += &held_or_due(task);
    if let Some(progress) = &task.progress {
        line += &format!("; its handler reports: {}", printable(progress, MESSAGE_BYTES_MAX));
    }
    if let Some(why) = &task.denied {
        let workers = counted(saga.head.workers, "living worker", "living workers");
        let why = printable(why, MESSAGE_BYTES_MAX);
        line += &format!("; {} of {workers} may not call {}: {why}", count(task.denied_by), task.participant);
    } else if task.unserved {
        line += &format!("; no living worker has the participant {}", printable(&task.participant, 128));
    }
    if let Some(why) = newer_format(task.format) {
        return format!("{line}; {why}");
    }
    match (task.interrupt, task.op) {
        _ if task.completion.is_some() => line += "; its end was reported",
        (Some(Interrupt::Skip), _) => line += "; it counts as done, as a person decided",
        (Some(Interrupt::End), _) => line += "; it is not tried again, as a person decided",
        (Some(Interrupt::Unwind), Op::Action)
            if step.is_some_and(|step| step.pivot && !step.acted.succeeded && task.attempt > 1) =>
        {
            line += "; it is asked until its answer is definite";
        }
        (Some(Interrupt::Unwind), Op::Action) => line += "; it is not tried again, the saga rolls back",
        (Some(Interrupt::Unwind), Op::Compensate) | (None, _) => {
            line += &step.and_then(|step| after_that(saga, step, task)).unwrap_or_default();
        }
    }
    if task.lost >= ISOLATED_AFTER_LOST {
        line += &format!(
            "; {} were lost while they held it, so it runs isolated",
            counted(task.lost.into(), "worker", "workers")
        );
    }
    line
}

/// The worker that holds the task, or when it is due.
fn held_or_due(task: &Task) -> String {
    match task.worker {
        Some(worker) => {
            let process = match (&task.host, task.pid) {
                (Some(host), Some(pid)) => format!("process {pid} on {}", printable(host, 64)),
                _ => "whose row is gone".to_owned(),
            };
            let seen = task.seen_us.map(|us| format!(", heard from {} ago", span_us(us))).unwrap_or_default();
            let held = span_us(task.held_us_max);
            format!("held by worker {worker} ({process}{seen}) for at most {held}")
        }
        None if task.due_ms > 0 => {
            format!("in {}, at {}", span_us(task.due_ms.saturating_mul(1000)), time(task.run_at))
        }
        None => format!("due for {}", span_us(task.due_ms.saturating_mul(-1000))),
    }
}

/// How long the task waits for a completion, and what follows if none comes.
fn waits_for_completion(saga: &Saga, step: Option<&Step>, task: &Task) -> String {
    let then = match step {
        Some(step) if task.op == Op::Action && step.waits() && (step.pivot || saga.is_past_pivot()) => {
            "the saga is stuck"
        }
        Some(step) if task.op == Op::Action && step.waits() => "the saga rolls back",
        _ => "it is asked again",
    };
    let left = span_us(task.wait_left_ms.saturating_mul(1000));
    let end = task.wait_ends_at.map(time).unwrap_or_default();
    format!("waits for a completion for {left} more, until {end}; without one {then}")
}

/// What follows if the attempt has no definite outcome.
fn after_that(saga: &Saga, step: &Step, task: &Task) -> Option<String> {
    let now =
        Attempt { counted: u32::try_from(task.counted).unwrap_or(0), ..Attempt::first(task.step, task.op) };
    let next = now.after(Some(Outcome::Unknown));
    let limit = retry_limit(saga.graph.as_ref()?, saga.is_past_pivot(), next);
    if let Some(limit) = limit.filter(|limit| next.counted > *limit) {
        return Some(format!("; the last that its limit of {limit} retries allows"));
    }
    let own = step.setting("retry_interval_seconds").map(Duration::try_from_secs_f64).and_then(Result::ok);
    let interval =
        own.unwrap_or(Duration::try_from_secs_f64(saga.head.retry_interval_seconds).unwrap_or_default());
    let delay = span(nominal_retry_delay(Wait::Backoff { counted: next.counted }, interval));
    let left = limit.map(|limit| format!(", {} of {limit} retries left", limit - now.counted));
    Some(format!("; unless that is definite, again about {delay} later{}", left.unwrap_or_default()))
}

fn stuck(stuck: &Stuck) -> String {
    let op = stuck.op.map_or("an op", Op::as_str);
    let since = format!("since {} ({})", time(stuck.at), span_us(stuck.since_us));
    let reason = printable(&stuck.reason, MESSAGE_BYTES_MAX);
    style(format!("{op} of {} is stuck {since}: {reason}", stuck.step)).red().to_string()
}

fn what_helps(saga: &Saga) -> Vec<String> {
    let Some(first) = saga.stuck.first() else { return Vec::new() };
    let helps =
        allowed(saga).into_iter().filter(|offer| offer.step.as_ref().is_none_or(|step| *step == first.step));
    let helps = helps.filter_map(|offer| {
        let (command, what) = offer.decision.facts().helps?;
        let command = command.replace("GID", &saga.head.gid).replace("STEP", &first.step);
        Some(format!("  pgsaga {command}   {what}"))
    });
    std::iter::once("a person must decide; what helps:".to_owned()).chain(helps).collect()
}

/// The steps that wait for others, with their predecessors.
fn waiting(saga: &Saga) -> Vec<String> {
    let pending = saga.head.status == SagaStatus::Submitted && saga.head.abort_reason.is_some();
    let Some(graph) = saga.graph.as_ref().filter(|_| saga.head.ending.is_none() && !pending) else {
        return Vec::new();
    };
    let steps = saga.steps.iter().enumerate();
    let waits: Vec<usize> = if saga.is_forward() {
        steps.filter(|(_, step)| step.state == State::Waiting).map(|(index, _)| index).collect()
    } else {
        let undoes =
            |step: &Step| matches!(step.state, State::Done | State::MaybeDone) && step.compensate.is_some();
        steps.rev().filter(|(_, step)| undoes(step)).map(|(index, _)| index).collect()
    };
    if graph.is_sequential() {
        let what = if saga.is_forward() { "" } else { "the compensation of " };
        let names: Vec<&str> = waits.iter().map(|&index| saga.steps[index].name.as_str()).collect();
        let then = || format!("then {what}{}", some_names(&names, NAMES_MAX));
        return (!names.is_empty()).then(then).into_iter().collect();
    }
    let mut lines = Vec::new();
    for index in waits {
        let name = &saga.steps[index].name;
        if saga.is_forward() {
            let open = graph.after(index).iter().filter(|&&before| saga.steps[before].state != State::Done);
            lines.push(format!("then {name}, once {} succeeded", have(saga, open)));
        } else {
            let open =
                graph.successors(index).iter().filter(|&&after| !saga.steps[after].state.is_without_effect());
            let open: Vec<&usize> = open.collect();
            if !open.is_empty() {
                lines.push(format!("then {name} is undone, once {} been", have(saga, open.into_iter())));
            }
        }
    }
    lines
}

fn have<'a>(saga: &Saga, steps: impl Iterator<Item = &'a usize>) -> String {
    let names: Vec<&str> = steps.map(|&step| saga.steps[step].name.as_str()).collect();
    format!("{} {}", some_names(&names, NAMES_MAX), if names.len() == 1 { "has" } else { "have" })
}
