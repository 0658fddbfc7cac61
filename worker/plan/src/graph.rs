//! The planner's view of a saga's definition: the order of the steps, their compensations and
//! limits.

/// Upper bound on the steps of a saga.
pub const STEPS_MAX: usize = 1000;

/// The numbers 0, 1, 2 …: a sequential step waits for a slice of one of them.
static POSITIONS: [usize; STEPS_MAX] = {
    let mut positions = [0; STEPS_MAX];
    let mut index = 0;
    while index < STEPS_MAX {
        positions[index] = index;
        index += 1;
    }
    positions
};

/// How the action of a step is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ActionKind {
    /// A participant is called.
    #[default]
    Call,
    /// Nobody is called. The action ends by a completion, or by the end of its wait.
    Wait,
    /// The gate of a prepared saga. It ends by `submit`, by `abort`, or by its end.
    Gate {
        /// At its end the saga's `query_prepared` is asked.
        asks: bool,
    },
    /// The decision of a saga that was submitted at once. Nobody is called; it succeeds.
    Decision,
    /// The application does the action by itself. It counts as done from the INSERT on.
    Outside,
    /// The code of a workflow. It is called until it reports the end, and rolls back by itself.
    Workflow,
}

impl ActionKind {
    /// Whether an attempt without a definite outcome may have taken effect.
    pub fn leaves_unknown(self) -> bool {
        matches!(self, ActionKind::Call | ActionKind::Wait)
    }
}

/// The planner's view of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepPolicy {
    /// How the action is done.
    pub action: ActionKind,
    /// The step has a compensation.
    pub has_compensation: bool,
    /// Counted retries of the action after the first attempt; `None` is unlimited. An attempt that
    /// was lost with its worker counts, and is always followed by another, because nobody has
    /// heard its outcome.
    pub retry_limit: Option<u32>,
    /// Counted retries of the compensation.
    pub compensate_retry_limit: Option<u32>,
}

/// Steps, the order between them, and the pivot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepGraph {
    policies: Vec<StepPolicy>,
    pivot: Option<usize>,
    order: Order,
    waits: bool,
    compensate_failed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Order {
    Sequential,
    Partial {
        after: Vec<Vec<usize>>,
        successors: Vec<Vec<usize>>,
        /// Topological order: each step comes after all that it waits for.
        forward: Vec<usize>,
    },
}

/// Steps that wait for each other, or for a step that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the steps wait for each other, or for a step that does not exist")]
pub struct Cyclic;

impl StepGraph {
    /// A graph whose steps run one after the other.
    pub fn sequential(policies: Vec<StepPolicy>, pivot: Option<usize>) -> StepGraph {
        StepGraph::ordered(policies, pivot, Order::Sequential)
    }

    /// A graph in any partial order: step `i` waits for the steps `after[i]`.
    ///
    /// # Errors
    /// [`Cyclic`] where `after` is not a partial order.
    pub fn partial(
        policies: Vec<StepPolicy>,
        pivot: Option<usize>,
        after: Vec<Vec<usize>>,
    ) -> Result<StepGraph, Cyclic> {
        let count = policies.len();
        let mut successors = vec![Vec::new(); count];
        let mut waits_for: Vec<usize> = after.iter().map(Vec::len).collect();
        for (index, before) in after.iter().enumerate() {
            for &step in before {
                successors.get_mut(step).ok_or(Cyclic)?.push(index);
            }
        }
        let mut forward: Vec<usize> = (0..count).filter(|&index| waits_for[index] == 0).collect();
        let mut next = 0;
        while let Some(&index) = forward.get(next) {
            next += 1;
            for &after in &successors[index] {
                waits_for[after] -= 1;
                if waits_for[after] == 0 {
                    forward.push(after);
                }
            }
        }
        if forward.len() != count || after.len() != count {
            return Err(Cyclic);
        }
        Ok(StepGraph::ordered(policies, pivot, Order::Partial { after, successors, forward }))
    }

    fn ordered(policies: Vec<StepPolicy>, pivot: Option<usize>, order: Order) -> StepGraph {
        let waits = policies.iter().any(|policy| policy.action == ActionKind::Wait);
        StepGraph { policies, pivot, order, waits, compensate_failed: false }
    }

    /// The same graph; with `compensate_failed` a refused step is compensated as well.
    pub fn with_compensate_failed(self, compensate_failed: bool) -> StepGraph {
        StepGraph { compensate_failed, ..self }
    }

    /// Number of steps, at least 1.
    pub fn count(&self) -> usize {
        self.policies.len()
    }

    /// The point of no return, if the saga has one.
    pub fn pivot(&self) -> Option<usize> {
        self.pivot
    }

    /// Whether the steps run one after the other.
    pub fn is_sequential(&self) -> bool {
        self.order == Order::Sequential
    }

    /// Whether the saga's row keeps the progress and a version. The one task of a sequential saga
    /// tells its progress, unless a completion can come before its step's turn.
    pub fn keeps_progress(&self) -> bool {
        self.waits || !self.is_sequential()
    }

    /// Whether some step waits for a completion instead of calling.
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// Whether a refused step is compensated as well.
    pub fn compensate_failed(&self) -> bool {
        self.compensate_failed
    }

    /// How the action of step `index` is done.
    pub fn action(&self, index: usize) -> ActionKind {
        self.policies[index].action
    }

    /// The steps that step `index` waits for.
    pub fn after(&self, index: usize) -> &[usize] {
        match &self.order {
            Order::Sequential => POSITIONS.get(index.saturating_sub(1)..index).unwrap_or(&[]),
            Order::Partial { after, .. } => &after[index],
        }
    }

    /// The steps that wait for step `index`.
    pub fn successors(&self, index: usize) -> &[usize] {
        match &self.order {
            Order::Sequential if index + 1 < self.count() => {
                POSITIONS.get(index + 1..index + 2).unwrap_or(&[])
            }
            Order::Sequential => &[],
            Order::Partial { successors, .. } => &successors[index],
        }
    }

    /// All steps, each before the steps that it waits for.
    pub fn backward(&self) -> impl Iterator<Item = usize> {
        let count = self.count();
        let order: Option<&[usize]> = match &self.order {
            Order::Sequential => None,
            Order::Partial { forward, .. } => Some(forward),
        };
        (0..count).rev().map(move |index| order.map_or(index, |forward| forward[index]))
    }

    /// Whether step `index` has a compensation.
    pub fn has_compensation(&self, index: usize) -> bool {
        self.policies[index].has_compensation
    }

    /// Retry limit of step `index`'s action. Actions that leave nothing unknown have none: to ask
    /// again costs nothing, and to give up would decide what nobody has decided.
    pub fn retry_limit(&self, index: usize) -> Option<u32> {
        let policy = &self.policies[index];
        policy.retry_limit.filter(|_| policy.action.leaves_unknown())
    }

    /// Retry limit of step `index`'s compensation.
    pub fn compensate_retry_limit(&self, index: usize) -> Option<u32> {
        self.policies[index].compensate_retry_limit
    }
}
