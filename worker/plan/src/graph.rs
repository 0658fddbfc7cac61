//! What the planner needs of a definition: who waits for whom, what can be undone, and the limits.

/// The most steps that a saga may have.
pub const STEPS_MAX: usize = 1000;

/// The numbers 0, 1, 2 …: a slice of one of them is what a sequential step waits for.
static POSITIONS: [usize; STEPS_MAX] = {
    let mut positions = [0; STEPS_MAX];
    let mut index = 0;
    while index < STEPS_MAX {
        positions[index] = index;
        index += 1;
    }
    positions
};

/// What the planner needs of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules {
    /// It has something to undo.
    pub has_compensation: bool,
    /// How many counted retries its action gets after the first try; `None` is without limit. A try that was lost with
    /// its worker counts, and is always followed by another: nobody has heard its answer.
    pub retry_limit: Option<u32>,
    /// The same for its compensation.
    pub compensate_retry_limit: Option<u32>,
}

/// The planner's view of a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    rules: Vec<Rules>,
    pivot: Option<usize>,
    order: Order,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Order {
    Sequential,
    Partial {
        after: Vec<Vec<usize>>,
        successors: Vec<Vec<usize>>,
        /// Topological: each step after all that it waits for.
        forward: Vec<usize>,
    },
}

/// Steps that wait for each other, or for none that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the steps wait for each other, or for a step that does not exist")]
pub struct Cyclic;

impl Shape {
    /// Steps one after the other.
    pub fn sequential(rules: Vec<Rules>, pivot: Option<usize>) -> Shape {
        Shape { rules, pivot, order: Order::Sequential }
    }

    /// Steps in any order; `after[i]` names the steps that step `i` waits for.
    ///
    /// # Errors
    /// [`Cyclic`] where that is no order.
    pub fn partial(rules: Vec<Rules>, pivot: Option<usize>, after: Vec<Vec<usize>>) -> Result<Shape, Cyclic> {
        let count = rules.len();
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
        Ok(Shape { rules, pivot, order: Order::Partial { after, successors, forward } })
    }

    /// How many steps; at least 1.
    pub fn count(&self) -> usize {
        self.rules.len()
    }

    /// The point of no return, if the saga has one.
    pub fn pivot(&self) -> Option<usize> {
        self.pivot
    }

    /// Its steps run one after the other.
    pub fn is_sequential(&self) -> bool {
        self.order == Order::Sequential
    }

    /// What step `index` waits for.
    pub fn after(&self, index: usize) -> &[usize] {
        match &self.order {
            Order::Sequential => POSITIONS.get(index.saturating_sub(1)..index).unwrap_or(&[]),
            Order::Partial { after, .. } => &after[index],
        }
    }

    /// What waits for step `index`.
    pub fn successors(&self, index: usize) -> &[usize] {
        match &self.order {
            Order::Sequential if index + 1 < self.count() => {
                POSITIONS.get(index + 1..index + 2).unwrap_or(&[])
            }
            Order::Sequential => &[],
            Order::Partial { successors, .. } => &successors[index],
        }
    }

    /// All steps, each before those that it waits for.
    pub fn backward(&self) -> impl Iterator<Item = usize> {
        let count = self.count();
        let order: Option<&[usize]> = match &self.order {
            Order::Sequential => None,
            Order::Partial { forward, .. } => Some(forward),
        };
        (0..count).rev().map(move |index| order.map_or(index, |forward| forward[index]))
    }

    /// Whether step `index` has something to undo.
    pub fn has_compensation(&self, index: usize) -> bool {
        self.rules[index].has_compensation
    }

    /// The limit of step `index`'s action.
    pub fn retry_limit(&self, index: usize) -> Option<u32> {
        self.rules[index].retry_limit
    }

    /// The limit of step `index`'s compensation.
    pub fn compensate_retry_limit(&self, index: usize) -> Option<u32> {
        self.rules[index].compensate_retry_limit
    }
}
