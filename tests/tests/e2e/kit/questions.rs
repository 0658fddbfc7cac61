//! The planted bugs: each is named by exactly its question.

use std::sync::Arc;

use pgsaga_producer::{Definition, Saga, Step};
use pgsaga_test::{Database, Kit, Question, Verdict};
use pgsaga_tests::Cluster;
use pgsaga_worker::{Call, HandlerError, HandlerTransaction, TransactionalParticipant};
use serde_json::json;
use tokio::sync::OnceCell;

use super::shelf::{Bug, Shelf};

/// A cluster that the kit reaches by TCP.
pub(super) async fn cluster() -> &'static Cluster {
    static SHARED: OnceCell<Cluster> = OnceCell::const_new();
    SHARED.get_or_init(|| Cluster::own(false, true)).await
}

async fn database() -> Database {
    let url = cluster().await.server().tcp_url("postgres").unwrap();
    Database::on(&url).await.unwrap()
}

/// Two articles of one shelf, the second of which is taken when the first is.
fn saga() -> Definition {
    let step = |name: &str| {
        Step::new(name).action("participant:shelf/take").compensate("participant:shelf/put").payload(&1)
    };
    Saga::new().step(step("first")).step(step("second")).definition().unwrap()
}

fn kit<'a>(database: &'a Database, shelf: &Arc<Shelf>) -> Kit<'a> {
    let (served, looked_at) = (Arc::clone(shelf), Arc::clone(shelf));
    Kit::new(
        database,
        move |worker| worker.participant(served.participant()),
        move || {
            let shelf = Arc::clone(&looked_at);
            async move { Ok::<_, std::io::Error>(shelf.state()) }
        },
    )
}

/// Each question finds that its duty is met.
async fn all_hold(kit: &Kit<'_>, saga: &Definition) {
    for question in Question::ALL {
        let report = kit.ask(question, saga).await.unwrap();
        println!("{report}");
        report.assert_holds();
    }
}

/// Asks all questions about a participant with a bug, and returns those that find it broken.
async fn named(bug: Bug) -> Vec<Question> {
    let database = database().await;
    let shelf = Arc::new(Shelf::new(bug));
    let kit = kit(&database, &shelf);
    let mut named = Vec::new();
    for question in Question::ALL {
        let report = kit.ask(question, &saga()).await.unwrap();
        println!("{report}");
        if report.broken().next().is_some() {
            named.push(question);
        } else if bug != Bug::RefusesToUndo {
            report.assert_holds();
        }
    }
    drop(kit);
    database.clear_away().await.unwrap();
    named
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_that_keeps_its_duties_is_found_sound() {
    assert_eq!(named(Bug::None).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compensation_that_refuses_is_named_where_a_step_refuses() {
    assert_eq!(named(Bug::RefusesToUndo).await, [Question::Refusal]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_idempotence_is_named_where_a_call_comes_twice() {
    assert_eq!(named(Bug::NotIdempotent).await, [Question::Repeat]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_the_effect_is_named_where_an_answer_is_lost() {
    assert_eq!(named(Bug::AnswersEarly).await, [Question::LostAnswer]);
}

#[tokio::test(flavor = "multi_thread")]
async fn undoing_what_was_not_done_is_named_where_the_worker_dies() {
    assert_eq!(named(Bug::UndoesWhatWasNotDone).await, [Question::DeadWorker]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_action_that_acts_is_named_where_calls_come_in_the_worst_order() {
    assert_eq!(named(Bug::ActsAfterUndo).await, [Question::WorstOrder]);
}

/// What a participant has answered is in the history, and nothing that differs from run to run.
#[tokio::test(flavor = "multi_thread")]
async fn a_history_is_text_without_times_and_ids() {
    let database = database().await;
    let shelf = Arc::new(Shelf::new(Bug::None));
    let kit = kit(&database, &shelf);
    let done = kit.run_to_end(&saga()).await.unwrap();
    assert_eq!(done.to_string(), "succeeded\n  first action 1: success\n  second action 1: success");
    shelf.empty();
    let refused = kit.run_to_end(&saga()).await.unwrap();
    assert_eq!(
        refused.to_string(),
        "failed: first: the shelf is empty\n  first action 1: failure, the shelf is empty"
    );
}

/// A saga that fails by itself is no ground for questions.
#[tokio::test(flavor = "multi_thread")]
async fn a_saga_that_does_not_succeed_by_itself_is_refused_with_its_history() {
    let database = database().await;
    let shelf = Arc::new(Shelf::new(Bug::None));
    shelf.empty();
    let error = kit(&database, &shelf).fail_each_step(&saga()).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "found that the saga, when nothing goes wrong, failed: first: the shelf is empty\n  \
         first action 1: failure, the shelf is empty\nallowed: that it succeeds"
    );
}

/// A step that nothing undoes, before or at the pivot, blames no other step.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_without_a_compensation_is_not_asked_to_be_undone() {
    let database = database().await;
    let shelf = Arc::new(Shelf::new(Bug::None));
    let kit = kit(&database, &shelf);
    let take = |name: &str| Step::new(name).action("participant:shelf/take").payload(&1);
    let undone = take("first").compensate("participant:shelf/put");
    let job = Saga::new().step(take("job")).definition().unwrap();
    let mixed = Saga::new().step(undone.clone()).step(take("second")).definition().unwrap();
    let pivot = Saga::new().step(undone).step(take("second").pivot()).definition().unwrap();
    for saga in [job, mixed, pivot] {
        all_hold(&kit, &saga).await;
    }
}

/// What never gets a definite answer is named by its case, and the other questions are asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_compensation_that_fails_where_there_is_nothing_to_undo_is_named() {
    for (bug, said) in
        [(Bug::FailsToUndoNothing, "20 attempts without one"), (Bug::RefusesToUndoNothing, "stuck: first")]
    {
        let database = database().await;
        let shelf = Arc::new(Shelf::new(bug));
        let kit = kit(&database, &shelf);
        for question in [Question::Refusal, Question::Repeat, Question::LostAnswer] {
            kit.ask(question, &saga()).await.unwrap().assert_holds();
        }
        let report = kit.ask(Question::DeadWorker, &saga()).await.unwrap().to_string();
        assert!(report.contains("BROKEN: the worker dies after claim 1: allowed: "), "{report}");
        assert!(report.contains(said), "{report}");
    }
}

/// Two kits of one database take turns.
#[tokio::test(flavor = "multi_thread")]
async fn two_questions_at_once_are_asked_one_after_the_other() {
    let database = database().await;
    let (one, other) = (Arc::new(Shelf::new(Bug::None)), Arc::new(Shelf::new(Bug::None)));
    let (first, second) = (kit(&database, &one), kit(&database, &other));
    let saga = saga();
    let (first, second) = tokio::join!(first.repeat_each_call(&saga), second.lose_each_answer(&saga));
    first.unwrap().assert_holds();
    second.unwrap().assert_holds();
}

/// Steps that run at the same time hold no answer for another's effect.
#[tokio::test(flavor = "multi_thread")]
async fn a_parallel_saga_is_asked_the_same() {
    let database = database().await;
    let shelf = Arc::new(Shelf::new(Bug::None));
    let kit = kit(&database, &shelf);
    let step = |name: &str| {
        let step = Step::new(name).action("participant:shelf/take").compensate("participant:shelf/put");
        step.payload(&1).after_none()
    };
    let saga = Saga::new().step(step("first")).step(step("second")).definition().unwrap();
    all_hold(&kit, &saga).await;
}

/// The worker dies at each statement of its handlers' transactions, too.
#[tokio::test(flavor = "multi_thread")]
async fn transactional_handlers_keep_each_duty() {
    let database = database().await;
    let table = "create table account (cents bigint); insert into account values (1000000)";
    sqlx::raw_sql(table).execute(database.pool()).await.unwrap();
    async fn change(by: i64, mut transaction: HandlerTransaction) -> Result<(), HandlerError> {
        let change = sqlx::query("update account set cents = cents + $1").bind(by);
        change.execute(&mut *transaction).await?;
        Ok(())
    }
    let pool = database.pool().clone();
    let kit = Kit::new(
        &database,
        |worker| {
            worker.participant(
                TransactionalParticipant::new("bank")
                    .action("pay", |call: Call<i64>, transaction| change(-call.payload, transaction))
                    .compensate("repay", |call: Call<i64>, transaction| change(call.payload, transaction)),
            )
        },
        move || {
            let pool = pool.clone();
            async move {
                let cents: i64 = sqlx::query_scalar("select cents from account").fetch_one(&pool).await?;
                Ok::<_, sqlx::Error>(json!(cents))
            }
        },
    );
    let pay = |name: &str| {
        Step::new(name).action("participant:bank/pay").compensate("participant:bank/repay").payload(&7)
    };
    let saga = Saga::new().step(pay("first")).step(pay("second")).definition().unwrap();
    all_hold(&kit, &saga).await;
}

/// The test of the guide is the one that runs here.
#[test]
fn the_guide_has_its_test_as_it_runs() {
    let guide = include_str!("../../../../docs/testing.md");
    assert!(guide.contains(include_str!("guide.rs")), "docs/testing.md has another test than guide.rs");
}

/// Nothing is asked about where nothing could be found.
#[tokio::test(flavor = "multi_thread")]
async fn steps_after_the_pivot_are_not_asked_to_roll_back() {
    let database = database().await;
    let shelf = Arc::new(Shelf::new(Bug::None));
    let take = |name: &str| Step::new(name).action("participant:shelf/take").payload(&1);
    let saga = Saga::new().step(take("pay").pivot()).step(take("send")).definition().unwrap();
    let report = kit(&database, &shelf).fail_each_step(&saga).await.unwrap();
    let verdicts: Vec<_> = report.cases.iter().map(|case| &case.verdict).collect();
    assert_eq!(
        verdicts,
        [&Verdict::Holds, &Verdict::NotAsked("after the pivot nothing is rolled back".to_owned())]
    );
}
