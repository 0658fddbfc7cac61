//! What happens next and when, and which commands help.

use std::time::Duration;

use console::style;

use super::draw::some_names;
use super::read::{Saga, Step, Stuck, Task};
use crate::error::Error;
use crate::operate::out;
use crate::words::{count, counted, newer_format, printable, span, span_us, time};
use pgsaga_plan::State;
use pgsaga_plan::{Op, Wait, nominal_delay};
use pgsaga_worker::execute::outcome::MESSAGE_BYTES_MAX;
use pgsaga_worker::flow::backoff::RETRY_DELAY_MAX;

/// Lines of tasks, of stuck steps, and of steps that wait.
const LINES_MAX: usize = 20;
/// Workers lost during one try, from which on it runs alone.
const ALONE_AFTER_LOST: i16 = 3;

/// Says what is queued, stuck or waits.
pub(crate) fn print(saga: &Saga) -> Result<(), Error> {
    out("\nNext")?;
    for line in lines(saga) {
        out(format_args!("  {line}"))?;
    }
    Ok(())
}

/// The same as lines.
pub(crate) fn lines(saga: &Saga) -> Vec<String> {
    let head = &saga.head;
    if head.finished_at.is_some() {
        return vec!["nothing: it is over".to_owned()];
    }
    let mut lines = Vec::new();
    if let Some(ending) = &head.ending {
        lines.push(format!(
            "it ends as {ending}, as a person decided, as soon as the calls in flight have ended"
        ));
    } else if let (Some(reason), "submitted") = (&head.abort_reason, head.status.as_str()) {
        let reason = printable(reason, MESSAGE_BYTES_MAX);
        lines.push(format!("it turns back unless its pivot, which was called, succeeds: {reason}"));
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
    if let Some(first) = saga.stuck.first() {
        lines.extend(what_helps(saga, first));
    }
    let waiting = waiting(saga);
    some(&mut lines, waiting.iter().cloned(), waiting.len(), "step that waits", "steps that wait");
    lines
}

/// The first lines, and how many there are more.
fn some(lines: &mut Vec<String>, all: impl Iterator<Item = String>, count: usize, one: &str, many: &str) {
    lines.extend(all.take(LINES_MAX));
    if count > LINES_MAX {
        lines.push(format!("… and {}", counted((count - LINES_MAX) as i64, one, many)));
    }
}

fn queued(saga: &Saga, task: &Task) -> String {
    let step = saga.steps.get(task.step);
    let name = step.map_or("?", |step| step.name.as_str());
    let mut line = format!("{} of {name}, try {}: ", task.op.as_str(), count(task.attempt.into()));
    match task.worker {
        Some(worker) => {
            let process = match (&task.host, task.pid) {
                (Some(host), Some(pid)) => format!("process {pid} on {}", printable(host, 64)),
                _ => "whose row is gone".to_owned(),
            };
            let seen = task.seen_us.map(|us| format!(", heard from {} ago", span_us(us))).unwrap_or_default();
            let held = span_us(task.held_us_max);
            line += &format!("held by worker {worker} ({process}{seen}) for at most {held}");
        }
        None if task.due_ms > 0 => {
            line += &format!("in {}, at {}", span_us(task.due_ms.saturating_mul(1000)), time(task.run_at));
        }
        None => line += &format!("due for {}", span_us(task.due_ms.saturating_mul(-1000))),
    }
    if let Some(why) = &task.denied {
        let workers = counted(saga.head.workers, "living worker", "living workers");
        let why = printable(why, MESSAGE_BYTES_MAX);
        line += &format!("; {} of {workers} may not call {}: {why}", count(task.denied_by), task.participant);
    }
    if let Some(why) = newer_format(task.format) {
        return format!("{line}; {why}");
    }
    match (task.interrupt.as_deref(), task.op) {
        (Some("skip"), _) => line += "; it counts as done, as a person decided",
        (Some("end"), _) => line += "; it is not tried again, as a person decided",
        (Some("unwind"), Op::Action)
            if step.is_some_and(|step| step.pivot && !step.acted.done && task.attempt > 1) =>
        {
            line += "; it is asked until its answer is definite";
        }
        (Some("unwind"), Op::Action) => line += "; it is not tried again, the saga turns back",
        _ => {
            if let Some(step) = step {
                line += &after_that(saga, step, task);
            }
        }
    }
    if task.lost >= ALONE_AFTER_LOST {
        line += &format!(
            "; {} were lost while they held it, so it runs alone",
            counted(task.lost.into(), "worker", "workers")
        );
    }
    line
}

/// What follows where the try has no definite answer.
fn after_that(saga: &Saga, step: &Step, task: &Task) -> String {
    let own = step.retry_interval_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let interval = own.unwrap_or(Duration::from_micros(saga.head.retry_interval_us.try_into().unwrap_or(0)));
    let counted = u32::try_from(task.counted).unwrap_or(0).saturating_add(1);
    let delay = nominal_delay(Wait::Backoff { counted }, interval, RETRY_DELAY_MAX.max(interval));
    let limit = match task.op {
        // Neither a pivot that was called nor what comes after it has a limit; what comes before it ends before it begins.
        Op::Action if saga.steps.iter().any(|step| step.pivot && step.state != State::Waiting) => None,
        Op::Action => step.retry_limit.or(saga.head.retry_limit.map(f64::from)),
        Op::Compensate => step.compensate_retry_limit.or(saga.head.compensate_retry_limit.map(f64::from)),
    };
    match limit {
        Some(limit) if f64::from(counted) > limit => {
            format!("; the last that its limit of {limit} retries allows")
        }
        Some(limit) => {
            format!(
                "; unless that is definite, again about {} later, {} of {limit} retries left",
                span(delay),
                limit - f64::from(task.counted)
            )
        }
        None => format!("; unless that is definite, again about {} later", span(delay)),
    }
}

fn stuck(stuck: &Stuck) -> String {
    let op = stuck.op.map_or("an op", Op::as_str);
    let since = format!("since {} ({})", time(stuck.at), span_us(stuck.since_us));
    let reason = printable(&stuck.reason, MESSAGE_BYTES_MAX);
    style(format!("{op} of {} is stuck {since}: {reason}", stuck.step)).red().to_string()
}

fn what_helps(saga: &Saga, first: &Stuck) -> Vec<String> {
    let gid = &saga.head.gid;
    let mut helps = vec![
        "a person must decide; what helps:".to_owned(),
        format!("  pgsaga retry {gid}   tries what is stuck again"),
        format!("  pgsaga skip {gid} {} --comment TEXT   counts it as done", first.step),
        format!(
            "  pgsaga resolve {gid} succeeded|failed --comment TEXT   ends the saga as you have seen to it"
        ),
    ];
    let past_pivot = saga.steps.iter().any(|step| step.pivot && step.state == State::Done);
    if saga.is_forward() && !past_pivot {
        helps.push(format!("  pgsaga abort {gid} --reason TEXT   turns the saga back"));
    }
    helps.push(format!("  pgsaga force {gid} --comment TEXT   ends it as failed without compensating"));
    helps
}

/// The steps that wait for others, and for which.
fn waiting(saga: &Saga) -> Vec<String> {
    let mut lines = Vec::new();
    let pending =
        saga.head.ending.is_some() || saga.head.status == "submitted" && saga.head.abort_reason.is_some();
    if pending {
        return lines;
    }
    let undo =
        |step: &&Step| matches!(step.state, State::Done | State::MaybeDone) && step.compensate.is_some();
    if saga.head.progress.is_none() {
        // One after the other.
        let waits: Vec<&str> = if saga.is_forward() {
            let waits = saga.steps.iter().filter(|step| step.state == State::Waiting);
            waits.map(|step| step.name.as_str()).collect()
        } else {
            saga.steps.iter().rev().filter(undo).map(|step| step.name.as_str()).collect()
        };
        if !waits.is_empty() {
            let what = if saga.is_forward() { "" } else { "the compensation of " };
            lines.push(format!("then {what}{}", some_names(&waits)));
        }
        return lines;
    }
    if saga.is_forward() {
        for step in saga.steps.iter().filter(|step| step.state == State::Waiting) {
            let open = step.after.iter().filter(|&&before| saga.steps[before].state != State::Done);
            lines.push(format!("then {}, once {} succeeded", step.name, have(saga, open)));
        }
        return lines;
    }
    let mut waits_for = vec![Vec::new(); saga.steps.len()];
    for (index, step) in saga.steps.iter().enumerate() {
        for &before in step.after.iter().filter(|_| !step.state.is_without_effect()) {
            waits_for[before].push(index);
        }
    }
    for (index, step) in saga.steps.iter().enumerate().rev() {
        if undo(&step) && !waits_for[index].is_empty() {
            let open = have(saga, waits_for[index].iter());
            lines.push(format!("then {} is undone, once {open} been", step.name));
        }
    }
    lines
}

fn have<'a>(saga: &Saga, steps: impl Iterator<Item = &'a usize>) -> String {
    let names: Vec<&str> = steps.map(|&step| saga.steps[step].name.as_str()).collect();
    format!("{} {}", some_names(&names), if names.len() == 1 { "has" } else { "have" })
}
