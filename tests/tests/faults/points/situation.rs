use super::case::Direction;

/// How a process gets to its point while a step of the saga is being called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Situation {
    /// It runs the saga; the step's first try is answered with 500, so there is a second one.
    Working,
    /// The same with a saga whose steps 1 and 2 run at the same time.
    Parallel,
    /// The call goes on while what every worker does now and then is due.
    Meanwhile,
    /// It rescues what a worker held that was killed during the call.
    Rescuing,
    /// The same, and the task has lost so many workers that it runs isolated.
    Suspect,
    /// It was told to stop during the call, and holds another task that was not started.
    Draining,
    /// The step's participant is dead, and a breaker open.
    Parking,
    /// A saga calls a participant that no worker has.
    Unserved,
    /// The deadline of such a saga passes.
    Overdue,
    /// It deletes sagas that finished long ago.
    Purging,
    /// A person aborts or forces during the call, pauses the queue, or lets it go on.
    Deciding(&'static [&'static str]),
    /// A person decides about the stuck step.
    Repairing(&'static [&'static str]),
    /// Somebody has changed the queued task by hand, so that no worker can read it, or no claim
    /// reaches it.
    Changed(&'static str),
}

use Situation::{
    Changed, Deciding, Draining, Meanwhile, Overdue, Parallel, Parking, Purging, Repairing, Rescuing,
    Suspect, Unserved, Working,
};

impl Situation {
    pub(super) fn exists(self, step: usize, direction: Direction) -> bool {
        match (self, direction) {
            // Only what follows the pivot, which is the first step here, is stuck when it is
            // refused.
            (Repairing(_), Direction::Forward) => step > 1,
            _ => true,
        }
    }
}

const ABORT: Situation = Deciding(&["abort", "s", "--reason", "no longer wanted"]);
const FORCE: Situation = Deciding(&["force", "s", "--comment", "settled by hand"]);
const PAUSE: Situation = Deciding(&["pause", "default"]);
const RESUME: Situation = Deciding(&["resume", "default"]);
const RETRY: Situation = Repairing(&["retry", "s"]);
const SKIP: Situation = Repairing(&["skip", "s", "STEP", "--comment", "done by hand"]);
const RESOLVE: Situation = Repairing(&["resolve", "s", "failed", "--comment", "settled by hand"]);

const UNREADABLE: Situation = Changed("update pgsaga.task set bytes = -1");
const UNREACHABLE: Situation = Changed("update pgsaga.task set run_at = 'infinity'");

/// Every point of a worker or a command, and how to get there.
pub(super) fn every_point() -> Vec<(&'static str, Situation)> {
    vec![
        ("call:before", Working),
        ("call:after", Working),
        ("claim:before", Working),
        ("claim:after", Working),
        ("claimed", Working),
        ("settle:before", Working),
        ("settle:after", Working),
        ("call:before", Parallel),
        ("call:after", Parallel),
        ("settle_parallel:before", Parallel),
        ("settle_parallel:after", Parallel),
        ("heartbeat:before", Meanwhile),
        ("heartbeat:after", Meanwhile),
        ("open_lanes:before", Unserved),
        ("open_lanes:after", Unserved),
        ("move:before", Unserved),
        ("move:after", Unserved),
        ("overdue:before", Overdue),
        ("overdue:after", Overdue),
        ("register:before", Rescuing),
        ("register:after", Rescuing),
        ("make_history_partitions:before", Rescuing),
        ("make_history_partitions:after", Rescuing),
        ("declare_dead:before", Rescuing),
        ("declare_dead:after", Rescuing),
        ("rescue:before", Rescuing),
        ("rescue:after", Rescuing),
        ("bury:before", Rescuing),
        ("bury:after", Rescuing),
        ("run_isolated:before", Suspect),
        ("run_isolated:after", Suspect),
        ("drain:before", Draining),
        ("drain:calls_ended", Draining),
        ("release:before", Draining),
        ("release:after", Draining),
        ("retire:before", Draining),
        ("retire:after", Draining),
        ("drain:after", Draining),
        ("defer:before", Parking),
        ("defer:after", Parking),
        ("stick:before", UNREADABLE),
        ("stick:after", UNREADABLE),
        ("stick:before", UNREACHABLE),
        ("stick:after", UNREACHABLE),
        ("purge_sagas:before", Purging),
        ("purge_sagas:after", Purging),
        ("purge_history:before", Purging),
        ("purge_history:after", Purging),
        ("drop_history_partition:before", Purging),
        ("drop_history_partition:after", Purging),
        ("decide:before", ABORT),
        ("decide:after", ABORT),
        ("decide:before", FORCE),
        ("decide:after", FORCE),
        ("pause:before", PAUSE),
        ("pause:after", PAUSE),
        ("resume:before", RESUME),
        ("resume:after", RESUME),
        ("decide:before", RETRY),
        ("decide:after", RETRY),
        ("decide:before", SKIP),
        ("decide:after", SKIP),
        ("decide:before", RESOLVE),
        ("decide:after", RESOLVE),
    ]
}
