//! Every graph of up to three steps.

use std::fmt;

use super::super::*;
use super::model::{DRAFT_MAX, STEPS_MAX};
use crate::StepPolicy as StepRules;

/// The limits of a saga: of its actions, of its compensations.
pub(super) type Limits = (Option<u32>, Option<u32>);

/// A saga's order, what can be undone, and its pivot; `order[i][j]`: step `j` waits for step `i`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Draft {
    pub(super) count: usize,
    /// `None` is one after the other.
    pub(super) order: Option<[[bool; STEPS_MAX]; STEPS_MAX]>,
    pub(super) compensations: [bool; STEPS_MAX],
    pub(super) pivot: Option<usize>,
}

impl fmt::Display for Draft {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in 0..self.count {
            let bare = if self.compensations[step] { "" } else { " bare" };
            let pivot = if self.pivot == Some(step) { " pivot" } else { "" };
            let separator = match (self.order, step) {
                (_, 0) => "",
                (None, _) => " > ",
                (Some(_), _) => ", ",
            };
            write!(to, "{separator}{}{bare}{pivot}", step + 1)?;
            let before =
                (0..self.count).filter(|&before| self.order.is_some_and(|order| order[before][step]));
            for (nth, before) in before.enumerate() {
                write!(to, "{} {}", if nth == 0 { " after" } else { "" }, before + 1)?;
            }
        }
        Ok(())
    }
}

impl Draft {
    fn depends(&self) -> [[bool; STEPS_MAX]; STEPS_MAX] {
        let mut order = self.order.unwrap_or_default();
        if self.order.is_none() {
            for step in 1..self.count {
                order[step - 1][step] = true;
            }
        }
        for through in 0..self.count {
            for from in 0..self.count {
                for to in 0..self.count {
                    order[from][to] |= order[from][through] && order[through][to];
                }
            }
        }
        order
    }

    /// As the INSERT allows it: no cycle, and every step is before the pivot, or after it and
    /// without a compensation.
    fn is_legal(&self) -> bool {
        let depends = self.depends();
        let pivot_fits = |pivot: usize| {
            (0..self.count).all(|step| {
                step == pivot || depends[step][pivot] || depends[pivot][step] && !self.compensations[step]
            })
        };
        (0..self.count).all(|step| !depends[step][step]) && self.pivot.is_none_or(pivot_fits)
    }

    /// How many steps can run at the same time.
    pub(super) fn at_once(&self) -> usize {
        let depends = self.depends();
        let apart = |one: usize, other: usize| !depends[one][other] && !depends[other][one];
        let independent = |bits: &u32| {
            let chosen = |step: usize| bits >> step & 1 == 1;
            (0..self.count).all(|i| (0..i).all(|j| !chosen(i) || !chosen(j) || apart(i, j)))
        };
        (0..1u32 << self.count).filter(independent).map(|bits| bits.count_ones() as usize).max().unwrap_or(0)
    }

    /// The same saga with its steps told in another order.
    pub(super) fn permuted(&self, places: &[usize]) -> Draft {
        let mut draft = *self;
        for from in 0..self.count {
            draft.compensations[places[from]] = self.compensations[from];
            for to in 0..self.count {
                if let (Some(new), Some(old)) = (&mut draft.order, &self.order) {
                    new[places[from]][places[to]] = old[from][to];
                }
            }
        }
        draft.pivot = self.pivot.map(|pivot| places[pivot]);
        draft
    }

    pub(super) fn graph(&self, (retry_limit, compensate_retry_limit): Limits) -> StepGraph {
        let rules = self.compensations[..self.count]
            .iter()
            .map(|&has_compensation| StepRules {
                action: ActionKind::Call,
                has_compensation,
                retry_limit,
                compensate_retry_limit,
            })
            .collect();
        match self.order {
            None => StepGraph::sequential(rules, self.pivot),
            Some(order) => {
                let after =
                    (0..self.count).map(|to| (0..self.count).filter(|&from| order[from][to]).collect());
                StepGraph::partial(rules, self.pivot, after.collect()).unwrap()
            }
        }
    }
}

/// Every order of a list's places.
pub(super) fn permutations(count: usize) -> Vec<Vec<usize>> {
    let mut all = vec![vec![]];
    for place in 0..count {
        all = all
            .into_iter()
            .flat_map(|places: Vec<usize>| {
                (0..=place).map(move |at| {
                    let mut places = places.clone();
                    places.insert(at, place);
                    places
                })
            })
            .collect();
    }
    all
}

/// Every saga of up to three steps that the INSERT allows.
pub(super) fn drafts() -> Vec<Draft> {
    let mut drafts = Vec::new();
    for count in 1..=DRAFT_MAX {
        let pairs: Vec<(usize, usize)> =
            (0..count).flat_map(|i| (0..count).map(move |j| (i, j))).filter(|(i, j)| i != j).collect();
        let orders = (0..1u32 << pairs.len()).map(|bits| {
            let mut order = [[false; STEPS_MAX]; STEPS_MAX];
            for (place, &(from, to)) in pairs.iter().enumerate() {
                order[from][to] = bits >> place & 1 == 1;
            }
            Some(order)
        });
        for order in orders.chain([None]) {
            for bits in 0..1u32 << count {
                let compensations = std::array::from_fn(|step| step < count && bits >> step & 1 == 1);
                for pivot in (0..count).map(Some).chain([None]) {
                    drafts.push(Draft { count, order, compensations, pivot });
                }
            }
        }
    }
    drafts.retain(Draft::is_legal);
    drafts
}

/// One of each class of sagas that differ only in the order in which their steps are told.
pub(super) fn representatives() -> Vec<Draft> {
    let mut drafts = drafts();
    drafts.retain(|draft| {
        draft.order.is_none()
            || permutations(draft.count).iter().all(|places| *draft <= draft.permuted(places))
    });
    drafts
}
