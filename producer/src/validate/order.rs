use std::collections::HashMap;

use super::invalid::Invalid;
use super::json::quoted;
use super::step::{NAMES, Step};

/// Names of a cycle that an error shows.
const CYCLE_NAMES_MAX: usize = 9;

/// Which steps come before which, whatever the outcomes.
#[derive(Debug)]
pub(super) struct Order<'a> {
    positions: HashMap<&'a str, usize>,
    /// For each step the steps before it; `None` where they run one by one, as they are listed.
    before: Option<Vec<Set>>,
}

impl<'a> Order<'a> {
    /// Refuses names that no step has, then cycles.
    pub(super) fn of(steps: &'a [Step<'_>]) -> Result<Self, Invalid> {
        let positions = steps
            .iter()
            .enumerate()
            .map(|(index, step)| (step.name.as_str(), index))
            .collect::<HashMap<_, _>>();
        let as_listed = |index: usize, step: &Step<'_>| match &step.after {
            None => true,
            Some(after) => after.iter().map(String::as_str).eq(previous(steps, index)),
        };
        if steps.iter().enumerate().all(|(index, step)| as_listed(index, step)) {
            return Ok(Self { positions, before: None });
        }
        let mut waits = Vec::with_capacity(steps.len());
        for (index, step) in steps.iter().enumerate() {
            waits.push(match &step.after {
                None => index.checked_sub(1).into_iter().collect(),
                Some(after) => after
                    .iter()
                    .map(|name| {
                        positions.get(name.as_str()).copied().ok_or_else(|| {
                            Invalid::new(format!("step \"{}\": after", step.name), quoted(name), NAMES)
                        })
                    })
                    .collect::<Result<Vec<_>, _>>()?,
            });
        }
        let before = closure(&waits).map_err(|cycle| refuse_cycle(steps, cycle))?;
        Ok(Self { positions, before: Some(before) })
    }

    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.positions.get(name).copied()
    }

    pub(super) fn is_before(&self, earlier: usize, later: usize) -> bool {
        match &self.before {
            None => earlier < later,
            Some(before) => before[later].contains(earlier),
        }
    }

    /// Refuses a step without an order to the pivot, and a compensation after the pivot.
    pub(super) fn check_pivot(&self, steps: &[Step<'_>]) -> Result<(), Invalid> {
        let Some(pivot) = steps.iter().position(|step| step.pivot) else { return Ok(()) };
        let pivot_name = &steps[pivot].name;
        for (index, step) in steps.iter().enumerate() {
            if index == pivot || self.is_before(index, pivot) {
                continue;
            }
            if !self.is_before(pivot, index) {
                return Err(Invalid::new(
                    format!("step \"{}\"", step.name),
                    format!("no order between it and the pivot \"{pivot_name}\""),
                    "each step before or after the pivot",
                ));
            }
            if step.compensates {
                return Err(Invalid::new(
                    format!("step \"{}\": compensate", step.name),
                    format!("a compensation after the pivot \"{pivot_name}\""),
                    "none there, the saga only goes forward",
                ));
            }
        }
        Ok(())
    }
}

/// The name of the step that is listed before this one.
fn previous<'a>(steps: &'a [Step<'_>], index: usize) -> Option<&'a str> {
    index.checked_sub(1).map(|previous| steps[previous].name.as_str())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    /// On the path of the walk.
    Open,
    /// Its set of earlier steps is complete.
    Done,
}

/// Returns for each step all steps before it, by a depth-first walk along what steps wait for.
///
/// # Errors
/// The steps of a cycle: each waits for the next one, and the last one for the first.
fn closure(waits: &[Vec<usize>]) -> Result<Vec<Set>, Vec<usize>> {
    let mut before = vec![Set::of(waits.len()); waits.len()];
    let mut state = vec![State::New; waits.len()];
    let mut cursor = vec![0; waits.len()];
    for start in 0..waits.len() {
        if state[start] == State::Done {
            continue;
        }
        state[start] = State::Open;
        let mut path = vec![start];
        while let Some(&step) = path.last() {
            let Some(&earlier) = waits[step].get(cursor[step]) else {
                state[step] = State::Done;
                path.pop();
                continue;
            };
            match state[earlier] {
                State::Done => {
                    let known = before[earlier].clone();
                    before[step].add_all(&known);
                    before[step].add(earlier);
                    cursor[step] += 1;
                }
                State::Open => {
                    return Err(path.into_iter().skip_while(|&step| step != earlier).collect());
                }
                State::New => {
                    state[earlier] = State::Open;
                    path.push(earlier);
                }
            }
        }
    }
    Ok(before)
}

/// Describes a cycle, beginning with the step that is listed first.
fn refuse_cycle(steps: &[Step<'_>], mut cycle: Vec<usize>) -> Invalid {
    let first = (0..cycle.len()).min_by_key(|&at| cycle[at]).unwrap_or(0);
    cycle.rotate_left(first);
    cycle.extend(cycle.first().copied());
    let names: Vec<_> =
        cycle.iter().take(CYCLE_NAMES_MAX).map(|&step| format!("\"{}\"", steps[step].name)).collect();
    let cut = if cycle.len() > CYCLE_NAMES_MAX { " after …" } else { "" };
    Invalid::new(
        format!("step {}: after", names[0]),
        format!("a cycle, {}{cut}", names.join(" after ")),
        "an order without cycles",
    )
}

#[derive(Debug, Clone)]
struct Set(Vec<u64>);

impl Set {
    fn of(positions: usize) -> Self {
        Self(vec![0; positions.div_ceil(64)])
    }

    fn add(&mut self, position: usize) {
        self.0[position / 64] |= 1 << (position % 64);
    }

    fn add_all(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(own, other)| *own |= other);
    }

    fn contains(&self, position: usize) -> bool {
        self.0[position / 64] & (1 << (position % 64)) != 0
    }
}
