//! A barrier in memory, by the rules of `producer/participant/sql/barrier.sql`.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::call::Call;

const ACTION: u8 = 1;
const COMPENSATE: u8 = 2;

/// Which ops of which steps were done, as a hash of the step and two bits: runs of hours have
/// millions.
#[derive(Debug, Default)]
pub(super) struct Barrier(HashMap<u64, u8>);

impl Barrier {
    /// Whether to do the work of this call.
    pub(super) fn enter(&mut self, call: &Call) -> bool {
        let mut hasher = DefaultHasher::new();
        (&call.gid, &call.branch_id).hash(&mut hasher);
        let done = self.0.entry(hasher.finish()).or_default();
        let before = *done;
        if call.op == "compensate" {
            // It takes the place of an action that never came, which then does nothing.
            *done |= ACTION | COMPENSATE;
            before == ACTION
        } else {
            *done |= ACTION;
            before & ACTION == 0
        }
    }
}
