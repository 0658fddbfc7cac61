//! One saga, read in one snapshot.

use std::collections::HashMap;

use pgsaga_plan::{ActionKind, Op, Progress, State, StepGraph, StepPolicy};
use pgsaga_sql::contract::{SagaStatus, default_step_name};
use pgsaga_sql::query;
use serde::Serialize;
use sqlx::Executor as _;
use sqlx::postgres::{PgPool, PgRow};

pub(crate) use super::parts::{Head, Line, Step, Stuck, Task, Tries};
use super::parts::{NO_POSITION, StepDefinition};
use super::standing;
use crate::error::Error;

/// A saga with a summary of its history. As JSON: the saga's row, `next` and `stuck`.
#[derive(Debug, Serialize)]
pub(crate) struct Saga {
    #[serde(flatten)]
    pub(crate) head: Head,
    #[serde(skip)]
    pub(crate) steps: Vec<Step>,
    /// The steps as the planner sees them. Absent if the steps of a row that was changed by hand
    /// wait for each other.
    #[serde(skip)]
    pub(crate) graph: Option<StepGraph>,
    #[serde(rename = "next")]
    pub(crate) tasks: Vec<Task>,
    pub(crate) stuck: Vec<Stuck>,
    /// Empty unless the caller requested lines.
    #[serde(skip)]
    pub(crate) timeline: Vec<Line>,
}

impl Saga {
    /// Reads the saga in one snapshot: with all columns in full if `whole`, and with about `lines`
    /// lines of its timeline.
    pub(crate) async fn read(
        pool: &PgPool,
        gid: &str,
        whole: bool,
        lines: Option<i64>,
    ) -> Result<Option<Saga>, Error> {
        let mut snapshot = pool.begin().await?;
        snapshot.execute("set transaction isolation level repeatable read, read only").await?;
        let head =
            sqlx::query_as(query::SHOW_SAGA).bind(gid).bind(whole).fetch_optional(&mut *snapshot).await?;
        let Some(head) = head else { return Ok(None) };
        let head: Head = head;
        let steps = sqlx::query(query::SHOW_STEPS).bind(head.id).fetch_all(&mut *snapshot).await?;
        let tasks = sqlx::query_as(query::SHOW_TASKS).bind(head.id).fetch_all(&mut *snapshot).await?;
        let stuck = sqlx::query_as(query::SHOW_STUCK).bind(head.id).fetch_all(&mut *snapshot).await?;
        let timeline = match lines {
            Some(lines) => {
                let lines = sqlx::query_as(query::SHOW_TIMELINE).bind(head.id).bind(lines);
                lines.fetch_all(&mut *snapshot).await?
            }
            None => Vec::new(),
        };
        snapshot.commit().await?;
        let steps = steps_of(&steps, head.progress.is_some())?;
        let graph = graph(&head, &steps);
        let mut saga = Saga { head, steps, graph, tasks, stuck, timeline };
        for index in 0..saga.tasks.len() {
            saga.tasks[index].name = saga.step_name(saga.tasks[index].step);
        }
        let progress = saga.head.progress.as_deref().and_then(|text| Progress::parse(text, false));
        for index in 0..saga.steps.len() {
            let state = progress.as_ref().and_then(|progress| progress.steps.get(index)).copied();
            let task = saga.tasks.iter().find(|task| task.step == index).map(|task| task.op);
            let stuck = saga.stuck.iter().find(|stuck| stuck.position == Some(index));
            let stuck = stuck.and_then(|stuck| stuck.op);
            saga.steps[index].state = standing::of(&saga.steps[index], state, task, stuck);
        }
        Ok(Some(saga))
    }

    /// Returns the name of the step at this position, from 0. A position without a step, in a row
    /// that was changed by hand, has the default name.
    pub(crate) fn step_name(&self, step: usize) -> String {
        match self.steps.get(step) {
            Some(step) => step.name.clone(),
            None if step == NO_POSITION => "?".to_owned(),
            None => default_step_name(step + 1),
        }
    }

    /// Whether the saga runs actions and no compensations.
    pub(crate) fn is_forward(&self) -> bool {
        match self.head.status {
            SagaStatus::Submitted => true,
            SagaStatus::Stuck => self.stuck.iter().all(|stuck| stuck.op == Some(Op::Action)),
            SagaStatus::Aborting | SagaStatus::Succeeded | SagaStatus::Failed => false,
        }
    }

    /// Whether the pivot has succeeded, so that the saga only goes forward.
    pub(crate) fn is_past_pivot(&self) -> bool {
        self.steps.iter().any(|step| step.pivot && step.state == State::Done)
    }
}

fn steps_of(rows: &[PgRow], parallel: bool) -> Result<Vec<Step>, sqlx::Error> {
    let definitions = rows.iter().map(StepDefinition::read).collect::<Result<Vec<_>, _>>()?;
    let steps = definitions.iter().zip(rows).enumerate();
    let steps = steps.map(|(index, (keys, row))| Step::read(index, keys, row));
    let mut steps = steps.collect::<Result<Vec<_>, _>>()?;
    let positions: HashMap<String, usize> =
        steps.iter().enumerate().map(|(index, step)| (step.name.clone(), index)).collect();
    for (index, (step, keys)) in steps.iter_mut().zip(&definitions).enumerate() {
        step.after = match keys.names("after").filter(|_| parallel) {
            Some(names) => names.iter().filter_map(|name| positions.get(name).copied()).collect(),
            None => index.checked_sub(1).into_iter().collect(),
        };
    }
    Ok(steps)
}

fn graph(head: &Head, steps: &[Step]) -> Option<StepGraph> {
    let limit = |step: &Step, key: &str, of_saga: Option<i32>| {
        step.setting(key).or(of_saga.map(f64::from)).map(|limit| limit as u32)
    };
    let rules = steps.iter().map(|step| StepPolicy {
        action: if step.waits() { ActionKind::Wait } else { ActionKind::Call },
        has_compensation: step.compensate.is_some(),
        retry_limit: limit(step, "retry_limit", head.retry_limit),
        compensate_retry_limit: limit(step, "compensate_retry_limit", head.compensate_retry_limit),
    });
    let pivot = steps.iter().position(|step| step.pivot);
    let graph = match head.progress {
        Some(_) => {
            let after = steps.iter().map(|step| step.after.clone());
            StepGraph::partial(rules.collect(), pivot, after.collect()).ok()?
        }
        None => StepGraph::sequential(rules.collect(), pivot),
    };
    Some(graph.with_compensate_failed(head.compensate_failed))
}
