use std::collections::BTreeMap;
use std::fmt;

use super::case::{Case, Direction};
use super::{STEPS, every_point};

/// Which deaths were died, as a table for a person.
#[derive(Default)]
pub(super) struct Coverage(BTreeMap<(&'static str, usize, bool), usize>);

impl Coverage {
    pub(super) fn add(&mut self, case: &Case) {
        *self.0.entry((case.point, case.step, case.direction == Direction::Forward)).or_default() += 1;
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<32} forward 1 2 3  backward 1 2 3", "died at")?;
        let mut points: Vec<&str> = every_point().into_iter().map(|(point, _)| point).collect();
        points.sort_unstable();
        points.dedup();
        for point in points {
            let row = |forward: bool| {
                let cell =
                    |step| self.0.get(&(point, step, forward)).map_or("·".to_owned(), usize::to_string);
                (1..=STEPS).map(cell).collect::<Vec<_>>().join(" ")
            };
            writeln!(f, "{point:<32}         {}           {}", row(true), row(false))?;
        }
        Ok(())
    }
}
