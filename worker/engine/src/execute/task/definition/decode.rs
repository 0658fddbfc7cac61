//! Decodes a claimed row. The INSERT has checked the row, but a person may have changed it by hand.

use bytes::Bytes;
use pgsaga_plan::StepGraph;
use pgsaga_sql::contract::TIMEOUT_TO_FAIL;
use serde_json::value::RawValue;

use super::step::{SagaDefaults, StepRow, seconds};
use super::{DecodeError, Definition, SagaColumns, Step};
use crate::execute::task::references;
use crate::flow::capacity::MemoryShare;

impl Definition {
    /// Decodes a claimed row. Payloads are slices of the text that Postgres printed. All attempts
    /// therefore send the same bytes, and numbers keep their digits (docs/races.md, R17).
    ///
    /// # Errors
    /// [`DecodeError`] if the INSERT would have refused the row.
    pub(crate) fn decode(columns: SagaColumns, memory: MemoryShare) -> Result<Definition, DecodeError> {
        let saga = SagaDefaults::read(&columns)?;
        let text = Bytes::from(columns.steps.into_bytes());
        let rows: Vec<StepRow<'_>> = serde_json::from_slice(&text)?;
        let timeout = columns.timeout.map(|found| seconds("timeout_to_fail", found, TIMEOUT_TO_FAIL));
        let mut policies = Vec::with_capacity(rows.len());
        let mut steps = Vec::with_capacity(rows.len());
        for (index, row) in rows.iter().enumerate() {
            policies.push(saga.policy(row)?);
            steps.push(saga.step(index, row, &text)?);
        }
        let pivot = rows.iter().position(|row| row.pivot);
        let graph = if columns.parallel {
            StepGraph::partial(policies, pivot, order(&rows, &steps)?)?
        } else {
            StepGraph::sequential(policies, pivot)
        };
        keep_answers(&columns.result_mapping, columns.refers, columns.parallel, &rows, &mut steps);
        Ok(Definition {
            gid: columns.gid,
            steps,
            graph: graph.with_compensate_failed(columns.compensate_failed),
            timeout: timeout.transpose()?,
            result_mapping: columns.result_mapping,
            _memory: memory,
        })
    }
}

/// Marks the steps whose answer the history keeps, because a body or the result refers to it.
fn keep_answers(
    result_mapping: &Option<String>,
    refers: bool,
    parallel: bool,
    rows: &[StepRow<'_>],
    steps: &mut [Step],
) {
    if refers {
        let bodies = rows.iter().flat_map(|row| [row.payload, row.compensate_payload]);
        let texts = bodies.flatten().map(RawValue::get).chain(result_mapping.as_deref());
        let used: std::collections::BTreeSet<String> = texts.flat_map(references::names).collect();
        for step in &mut *steps {
            step.keeps_answer = used.contains(&step.name);
        }
    }
    if parallel
        && result_mapping.is_none()
        && let Some(last) = steps.last_mut()
    {
        // The last step of a parallel saga need not be the last one that ends, so its answer is
        // kept.
        last.keeps_answer = true;
    }
}

/// Returns, for each step, the steps that it waits for.
fn order(rows: &[StepRow<'_>], steps: &[Step]) -> Result<Vec<Vec<usize>>, pgsaga_plan::Cyclic> {
    let positions: std::collections::HashMap<&str, usize> =
        steps.iter().enumerate().map(|(index, step)| (step.name.as_str(), index)).collect();
    let waits_for = |(index, row): (usize, &StepRow<'_>)| match &row.after {
        None => Ok(index.checked_sub(1).into_iter().collect()),
        Some(names) => {
            names.iter().map(|name| positions.get(&**name).copied().ok_or(pgsaga_plan::Cyclic)).collect()
        }
    };
    rows.iter().enumerate().map(waits_for).collect()
}
