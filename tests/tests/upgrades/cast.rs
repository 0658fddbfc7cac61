//! Every saga of the fixtures, what its participants do from the upgrade on, and what it must come
//! to.

use pgsaga_tests::{Behaviour, Participant};
use serde_json::json;

/// How a saga ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was over before the upgrade, and nothing of it changes.
    Unchanged,
    /// By itself.
    As(&'static str, Option<&'static str>),
    /// It was stuck and stays so, until a person tries it again. Then it ends with this status and
    /// reason.
    Retried(&'static str, Option<&'static str>),
    /// It rolls back and gets stuck for this reason, and ends as failed for the other one after a
    /// person's retry.
    StuckThenFailed(&'static str, &'static str),
    /// As succeeded, once a person has resumed its queue.
    Resumed,
    /// Its time has not come.
    Waits,
}

/// A saga of the fixtures.
pub(crate) struct Role {
    pub(crate) gid: &'static str,
    pub(crate) end: End,
    /// What participants are asked for after the upgrade, `a` for the action of a, `-a` for its
    /// compensation; in any order where steps are parallel.
    pub(crate) calls: &'static str,
}

const SUCCEEDED: End = End::As("succeeded", None);

const fn failed(reason: &'static str) -> End {
    End::As("failed", Some(reason))
}

const fn role(gid: &'static str, end: End, calls: &'static str) -> Role {
    Role { gid, end, calls }
}

/// All of them.
pub(crate) const CAST: &[Role] = &[
    role("done", End::Unchanged, ""),
    role("done-after-retries", End::Unchanged, ""),
    role("done-before-the-border", End::Unchanged, ""),
    role("done-behind-the-border", End::Unchanged, ""),
    role("undone", End::Unchanged, ""),
    role("refused-at-once", End::Unchanged, ""),
    role("mapped-done", End::Unchanged, ""),
    role("parallel-done", End::Unchanged, ""),
    role("parallel-undone", End::Unchanged, ""),
    role("resolved", End::Unchanged, ""),
    role("forced", End::Unchanged, ""),
    role("skipped-done", End::Unchanged, ""),
    role("deadline-done", End::Unchanged, ""),
    role("untouched", SUCCEEDED, "a b c"),
    role("untouched-columns", SUCCEEDED, "a c"),
    role("untouched-parallel", SUCCEEDED, "a b c d e"),
    role("untouched-deadline", SUCCEEDED, "a b c"),
    role("retry-unknown", SUCCEEDED, "b c"),
    role("retry-ongoing", SUCCEEDED, "b c"),
    role("retry-mixed", SUCCEEDED, "b c"),
    role("retry-unsent", SUCCEEDED, "a b c"),
    // After an unknown try a refusal is asked for once more, and the step is undone; after an
    // ongoing one it is definite.
    role("retry-then-refused", failed("b: too late"), "b b -b -a"),
    role("ongoing-then-refused", failed("b: too late"), "b -a"),
    // Two of its four tries were made before the upgrade.
    role("retry-limited", failed("b: retry limit 3 reached"), "b b -b -a"),
    role("lane-bulk-3", SUCCEEDED, "b c"),
    role("lane-urgent-0", SUCCEEDED, "b c"),
    role("lane-default-2", SUCCEEDED, "b c"),
    role("paused", End::Resumed, "a b c"),
    role("not-yet", End::Waits, ""),
    role("refers", SUCCEEDED, "b c"),
    role("refers-aborting", failed("b: no"), "-a"),
    role("aborting-waiting", failed("b: no money"), "-a"),
    role("aborting-midway", failed("c: no money"), "-a"),
    role("aborting-then-stuck", End::StuckThenFailed("a: shipped already", "b: no money"), "-a -a -a"),
    role("stuck-compensation", End::Retried("failed", Some("b: no money")), "-a"),
    role("stuck-first-of-two", End::Retried("failed", Some("c: no money")), "-b -a"),
    role("stuck-killer", End::Retried("succeeded", None), "a b c"),
    role("stuck-limit", End::Retried("failed", Some("b: no")), "-a"),
    role("past-pivot", End::Retried("succeeded", None), "c"),
    role("parallel-stuck", End::Retried("failed", Some("d: no")), "-b -a"),
    role("fresh-key", failed("b: no"), "-a"),
    role("retried", failed("b: no"), "-a"),
    role("rescued", SUCCEEDED, "b c"),
    role("half-rescued", SUCCEEDED, "b c"),
    role("half-rescued-aborting", failed("b: no"), "-a"),
    role("in-flight-first", SUCCEEDED, "a b c"),
    role("in-flight-second", SUCCEEDED, "b c"),
    role("in-flight-compensation", failed("b: no"), "-a"),
    role("in-flight-then-refused", failed("b: too late"), "b b -b -a"),
    role("parallel-midway", SUCCEEDED, "b c d"),
    role("parallel-aborting", failed("d: no"), "-c -a"),
    role("parallel-half-refused", failed("b: too late"), "b b -b -c -e -a"),
    role("parallel-in-flight", SUCCEEDED, "b c d"),
    role("parallel-aborted-in-flight", failed("b: aborted: changed my mind"), "-b -c -e -a"),
    role("pivot-awaited-succeeds", SUCCEEDED, "b c"),
    role("pivot-awaited-fails", failed("b: aborted: customer left"), "b b -b -a"),
    role("deadline-ahead", SUCCEEDED, "b c"),
    role("deadline-passes", failed("b: timeout after 3600 seconds"), "-b -a"),
    role("aborted-waiting", failed("a: aborted: before it began"), ""),
    role("aborted-in-flight", failed("b: aborted: changed my mind"), "-b -a"),
    role("skipped-in-flight", SUCCEEDED, "c"),
    role("forced-in-flight", failed("b: stopped without compensating: stop it"), ""),
    role("resolved-in-flight", SUCCEEDED, ""),
];

/// Those who do more than succeed.
pub(crate) fn play(participant: &Participant) {
    let refuse = |why: &str| Behaviour::Refuse(why.to_owned());
    for gid in
        ["retry-then-refused", "ongoing-then-refused", "in-flight-then-refused", "parallel-half-refused"]
    {
        participant.on(&format!("/{gid}/b"), "action", refuse("too late"));
    }
    participant.on("/pivot-awaited-fails/b", "action", refuse("no"));
    participant.on("/retry-limited/b", "action", Behaviour::Status(500));
    let shipped = Behaviour::Sequence(vec![refuse("shipped already"), refuse("shipped already")]);
    participant.on("/aborting-then-stuck/a", "compensate", shipped);
    participant.on("/refers/c", "action", Behaviour::Json(200, json!({"did": "c"})));
}
