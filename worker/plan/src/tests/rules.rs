//! What surrounds the planner, and how much trouble there is.

/// What surrounds the planner. Each rule that is taken away is a control.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// A settle names the epoch of its task.
    pub(super) epoch: bool,
    /// A settle names the interrupt that it knew.
    pub(super) interrupt: bool,
    /// A settle of a parallel saga names the version that it planned from.
    pub(super) version: bool,
    /// Planning and settling are two moments. With the version a plan of the past writes nothing,
    /// so they may be one.
    pub(super) two_moments: bool,
    /// A retry and a rescue raise it too, though the progress stays: who abort the saga must see
    /// their tasks to interrupt them.
    pub(super) retries_raise_version: bool,
    /// Tasks and saga are written from the rows that both locks returned (docs/races.md, R6).
    pub(super) one_lock: bool,
    /// Whoever inserts or deletes tasks locks the saga, and so does abort (docs/races.md, R5).
    pub(super) abort_locks: bool,
    /// The plan that unwinds a saga interrupts its other actions.
    pub(super) interrupts_the_others: bool,
    /// Rescue records the lost try.
    pub(super) rescue_records: bool,
    /// A rescued task keeps its interrupt.
    pub(super) rescue_keeps_interrupt: bool,
    /// A step cannot be skipped forward once the saga unwinds: a task has one interrupt, and a
    /// sequential saga knows of the abort by it.
    pub(super) skip_spares_unwind: bool,
    /// An answer is recorded before a decision applies (docs/races.md, R23).
    pub(super) answer_before_decision: bool,
    /// After the pivot's success tasks have no deadline.
    pub(super) pivot_ends_deadline: bool,
    /// A request that cannot be built refuses nothing that an earlier try may have done.
    pub(super) only_answers_override: bool,
    /// A settle names the mark of a completion that it knew.
    pub(super) mark: bool,
    /// Whatever queues a wait reads the completions of the locked row.
    pub(super) queue_reads_completions: bool,
    /// A rescued task, and one that is handed back, keeps its mark.
    pub(super) mark_is_kept: bool,
    /// An interrupt does not overwrite the mark of a completion.
    pub(super) mark_beside_interrupt: bool,
    /// A completion raises the version.
    pub(super) completion_raises_version: bool,
    /// An op whose turn has not come is over once the saga is aborting.
    pub(super) aborting_refuses_completions: bool,
    /// Rescue records no try that called nobody, or only asked.
    pub(super) rescue_spares_waits: bool,
    /// A gate that an abort has closed is not opened by a submit any more.
    pub(super) abort_closes_gate: bool,
    /// Nobody skips a gate: `submit` opens it.
    pub(super) skip_spares_gate: bool,
}

impl Rules {
    pub(super) const REAL: Rules = Rules {
        epoch: true,
        interrupt: true,
        version: true,
        retries_raise_version: true,
        two_moments: false,
        one_lock: true,
        abort_locks: true,
        interrupts_the_others: true,
        rescue_records: true,
        rescue_keeps_interrupt: true,
        skip_spares_unwind: true,
        answer_before_decision: true,
        pivot_ends_deadline: true,
        only_answers_override: true,
        mark: true,
        queue_reads_completions: true,
        mark_is_kept: true,
        mark_beside_interrupt: true,
        completion_raises_version: true,
        aborting_refuses_completions: true,
        rescue_spares_waits: true,
        abort_closes_gate: true,
        skip_spares_gate: true,
    };
}

/// How much of each trouble one run may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    pub(super) aborts: u8,
    pub(super) deadlines: u8,
    pub(super) deaths: u8,
    pub(super) lost_replies: u8,
    pub(super) decisions: u8,
    /// Completions, submits and reports of workflows.
    pub(super) completions: u8,
    /// Calls that are answered by 202 and a wait.
    pub(super) accepted: u8,
}
