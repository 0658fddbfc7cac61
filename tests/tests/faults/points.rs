//! Crash points: at every durable boundary of workers, commands, producers and migrations a process
//! dies, for every step of a saga of three, forward and backward. Another goes on, and nothing may
//! show that there was a death.
//!
//! A small run has each boundary once, at a step and in a direction that follow from `SEED`. Six
//! consecutive seeds are a full run.

mod case;
mod producers;
mod situation;
mod table;
mod transactional;
mod waits;

use std::panic::AssertUnwindSafe;

use futures_util::{FutureExt as _, StreamExt as _, stream};
use pgsaga_sql::query::Statement;
use pgsaga_tests::scene::Scene;
use pgsaga_tests::{Cluster, binary, size};
use tokio::task::spawn_blocking;

use case::{Case, Direction};
use situation::{Situation, every_point};
use table::Coverage;

/// Cases at once: they mostly wait for leases, and each has a few processes with eight connections
/// each.
const AT_ONCE: usize = 10;
/// Steps of the saga.
const STEPS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn wherever_a_process_dies_the_saga_ends_as_if_nothing_had_happened() {
    spawn_blocking(binary::failing).await.unwrap();
    let cluster = Cluster::own(true, false).await;
    let cluster = &cluster;
    let mut coverage = Coverage::default();
    println!("SEED={}", size::seed());
    let cases = Case::wanted();
    let count = cases.len();
    assert!(
        Case::are_some_asked_for() || count >= every_point().len(),
        "{count} deaths leave a boundary out"
    );
    let began = std::time::Instant::now();
    let mut runs = stream::iter(cases)
        // One task for all: a case that panics ends alone.
        .map(|case| async move { (case, AssertUnwindSafe(case.run(cluster)).catch_unwind().await) })
        .buffer_unordered(AT_ONCE);
    let mut failed = Vec::new();
    while let Some((case, run)) = runs.next().await {
        match run {
            Ok(()) => coverage.add(&case),
            Err(_) => failed.push(case.to_string()),
        }
    }
    println!("{coverage}");
    println!("{count} deaths in {} s", began.elapsed().as_secs());
    assert!(failed.is_empty(), "{} of {count} cases went wrong: {failed:#?}", failed.len());
}

/// What writes is found by looking at the files and at the functions that they call, so that a new
/// one cannot be forgotten.
#[tokio::test]
async fn every_statement_that_writes_has_a_point_before_and_after_it() {
    let scene = Scene::new().await;
    let volatile: Vec<String> = sqlx::query_scalar(
        "select 'pgsaga.' || proname || '(' from pg_proc where pronamespace = 'pgsaga'::regnamespace and provolatile = 'v'",
    )
    .fetch_all(scene.pool())
    .await
    .unwrap();
    let mut covered: Vec<&str> = every_point().into_iter().map(|(point, _)| point).collect();
    covered.extend(producers::POINTS);
    let mut writing = 0;
    for Statement { folder, name, sql, .. } in pgsaga_sql::query::all() {
        let code: String =
            sql.lines().filter(|line| !line.trim_start().starts_with("--")).collect::<Vec<_>>().join("\n");
        let writes = ["insert into ", "update ", "delete from "].iter().any(|word| {
            code.match_indices(word).any(|(at, _)| {
                !code[..at].trim_end().ends_with("for") && !code[..at].trim_end().ends_with("no key")
            })
        }) || volatile.iter().any(|function| code.contains(function.as_str()));
        if !writes {
            continue;
        }
        writing += 1;
        for moment in ["before", "after"] {
            let point = format!("{name}:{moment}");
            assert!(
                covered.contains(&point.as_str()),
                "sql/queries/{folder}/{name}.sql writes, and no case dies at {point}"
            );
        }
    }
    assert!(writing > 15, "only {writing} statements were taken for writing ones");
}

impl Case {
    /// `POINT=settle:before` asks for the cases of one point, `CASE="settle:before step-2 action"`
    /// for one of them.
    fn is_asked_for(&self) -> bool {
        let is = |name: &str, value: String| std::env::var(name).map_or(true, |wanted| wanted == value);
        is("POINT", self.point.to_owned()) && is("CASE", self.to_string())
    }

    fn are_some_asked_for() -> bool {
        ["POINT", "CASE"].iter().any(|name| std::env::var_os(name).is_some())
    }

    /// Those that somebody asks for, else all of them, or one of each boundary in a small run.
    fn wanted() -> Vec<Case> {
        let boundaries = every_point().into_iter().enumerate();
        boundaries
            .flat_map(|(nth, (point, situation))| {
                let all = Case::all(point, situation);
                let count = all.len() as u64;
                let cases = all.into_iter().enumerate();
                cases.filter(move |(place, case)| {
                    if Case::are_some_asked_for() {
                        case.is_asked_for()
                    } else {
                        size::is_drawn(nth + place, count)
                    }
                })
            })
            .map(|(_, case)| case)
            .collect()
    }

    fn all(point: &'static str, situation: Situation) -> Vec<Case> {
        let case = |step, direction| Case { point, situation, step, direction };
        [Direction::Forward, Direction::Backward]
            .into_iter()
            .flat_map(|direction| (1..=STEPS).map(move |step| case(step, direction)))
            .filter(|case| situation.exists(case.step, case.direction))
            .collect()
    }
}
