use std::fmt;

use crate::gid::is_name;

/// The name of a step, unique in its saga: 1 to 64 of the characters `A-Z a-z 0-9 . _ : -`.
///
/// Participants get it as `branch_id`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepName(String);

impl StepName {
    /// `None` when the text cannot name a step.
    pub fn new(name: impl Into<String>) -> Option<Self> {
        let name = name.into();
        is_name(&name, 64).then_some(Self(name))
    }

    /// The name of a step without one: its position from 1, `01`, `02`, …, `99`, `100`.
    pub fn of_position(position: usize) -> Self {
        Self(format!("{position:02}"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StepName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_have_at_least_two_digits() {
        let names: Vec<_> =
            [1, 9, 10, 99, 100, 1000].map(StepName::of_position).iter().map(StepName::to_string).collect();
        assert_eq!(names, ["01", "09", "10", "99", "100", "1000"]);
    }
}
