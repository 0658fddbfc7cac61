//! What the kit does to the calls of a saga.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use pgsaga_plan::{Op, Outcome};
use pgsaga_worker::{Deciding, Decision, Intercept, Intercepted};
use tokio_util::sync::CancellationToken;

use crate::lock;

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mishap {
    /// The participant is not called, and counts as having refused.
    Refused,
    /// It is called twice.
    Repeated,
    /// Its response is lost.
    AnswerLost,
    /// The call is held back on its way.
    Late,
}

/// A mishap of the first call of an op of a step.
#[derive(Debug)]
pub(super) struct Planned {
    step: usize,
    op: Op,
    mishap: Mishap,
    taken: AtomicBool,
    /// A late call is on its way, or the participant of a lost answer has answered.
    pub(super) met: CancellationToken,
    /// It goes on.
    pub(super) goes_on: CancellationToken,
    /// The participant has answered a late call.
    pub(super) answered: CancellationToken,
}

/// The calls of the kit's workers.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// The saga that runs now. Handlers of a worker that is dead run on, and their calls are not
    /// looked at any more.
    gid: Mutex<String>,
    planned: Mutex<Vec<Arc<Planned>>>,
    made: Mutex<Vec<Intercepted>>,
    /// How many calls have begun and not ended.
    in_flight: AtomicUsize,
}

impl Calls {
    /// Forgets what was planned and made, and looks at the calls of this saga from now on.
    pub(super) fn begin(&self, gid: &str) {
        gid.clone_into(&mut lock(&self.gid));
        lock(&self.planned).clear();
        lock(&self.made).clear();
        self.in_flight.store(0, Ordering::Release);
    }

    /// Plans a mishap. It is waited for where `waits`: see [`Planned::met`].
    pub(super) fn plan(&self, step: usize, op: Op, mishap: Mishap, waits: bool) -> Arc<Planned> {
        let planned = Arc::new(Planned {
            step,
            op,
            mishap,
            taken: AtomicBool::new(false),
            met: CancellationToken::new(),
            goes_on: CancellationToken::new(),
            answered: CancellationToken::new(),
        });
        if !waits {
            planned.goes_on.cancel();
        }
        lock(&self.planned).push(Arc::clone(&planned));
        planned
    }

    /// Whether the op of the step was called.
    pub(super) fn was_made(&self, step: usize, op: Op) -> bool {
        lock(&self.made).iter().any(|call| (call.step, call.op) == (step, op))
    }

    /// The ops that were called whose effect commits together with the record of the attempt.
    pub(super) fn transactional(&self) -> Vec<(usize, Op)> {
        let made = lock(&self.made);
        made.iter().filter(|call| call.is_transactional).map(|call| (call.step, call.op)).collect()
    }

    /// How many calls have begun and not ended.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    fn is_current(&self, call: &Intercepted) -> bool {
        *lock(&self.gid) == call.gid
    }

    fn ended(&self) {
        // A call that is made twice ends twice.
        let one_less = |calls: usize| calls.checked_sub(1);
        let _ = self.in_flight.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less);
    }

    /// The lost answer that the kit looks at now. Other calls wait until it has seen enough.
    fn watched(&self) -> Option<Arc<Planned>> {
        let is_watched = |planned: &&Arc<Planned>| {
            planned.mishap == Mishap::AnswerLost
                && planned.met.is_cancelled()
                && !planned.goes_on.is_cancelled()
        };
        lock(&self.planned).iter().find(is_watched).cloned()
    }

    fn planned(&self, call: &Intercepted, is_wanted: impl Fn(&Planned) -> bool) -> Option<Arc<Planned>> {
        let planned = lock(&self.planned);
        let mut of_call = planned.iter().filter(|planned| (planned.step, planned.op) == (call.step, call.op));
        of_call.find(|planned| is_wanted(planned)).cloned()
    }
}

impl Planned {
    /// Whether the call came at all.
    pub(super) fn was_met(&self) -> bool {
        self.taken.load(Ordering::Acquire)
    }

    fn take(&self) -> bool {
        !self.taken.swap(true, Ordering::AcqRel)
    }
}

impl Intercept for Calls {
    fn before<'a>(&'a self, call: &'a Intercepted) -> Deciding<'a, Decision> {
        Box::pin(async move {
            if !self.is_current(call) {
                return Decision::Make;
            }
            while let Some(watched) = self.watched() {
                watched.goes_on.cancelled().await;
            }
            let planned = self.planned(call, Planned::take);
            let mishap = planned.as_ref().map(|planned| planned.mishap);
            if mishap != Some(Mishap::Refused) {
                self.in_flight.fetch_add(1, Ordering::AcqRel);
            }
            let Some(planned) = planned else { return Decision::Make };
            match planned.mishap {
                Mishap::Refused => Decision::Refuse("the test kit has it refused".to_owned()),
                Mishap::Repeated => Decision::Repeat,
                Mishap::AnswerLost => Decision::Lose,
                Mishap::Late => {
                    planned.met.cancel();
                    planned.goes_on.cancelled().await;
                    Decision::Make
                }
            }
        })
    }

    fn after<'a>(&'a self, call: &'a Intercepted, _: Outcome) -> Deciding<'a, ()> {
        Box::pin(async move {
            if !self.is_current(call) {
                return;
            }
            lock(&self.made).push(call.clone());
            self.ended();
            let is_open = |planned: &Planned| planned.was_met() && !planned.answered.is_cancelled();
            let Some(planned) = self.planned(call, is_open) else { return };
            match planned.mishap {
                Mishap::AnswerLost => {
                    planned.answered.cancel();
                    planned.met.cancel();
                    planned.goes_on.cancelled().await;
                }
                // A call beside the late one is the next attempt.
                Mishap::Late if planned.goes_on.is_cancelled() => planned.answered.cancel(),
                Mishap::Refused | Mishap::Repeated | Mishap::Late => {}
            }
        })
    }

    fn not_made(&self, call: &Intercepted) {
        if self.is_current(call) {
            self.ended();
            if let Some(planned) = self.planned(call, Planned::was_met) {
                planned.taken.store(false, Ordering::Release);
            }
        }
    }
}
