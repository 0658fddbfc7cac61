//! Transactional handlers: what they write and the record of their attempt commit together.

use std::sync::Arc;
use std::time::Duration;

use pgsaga_tests::eventually;
use pgsaga_tests::local::LocalWorker;
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_worker::{Builder, Call, HandlerError, HandlerTransaction, TransactionalParticipant};
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _};
use tokio::sync::Notify;

/// A scene with a table in which handlers note the keys of their calls.
async fn scene() -> Scene {
    let scene = Scene::new().await;
    sqlx::raw_sql("create table effect (key text not null)").execute(scene.pool()).await.unwrap();
    scene
}

/// What took effect.
async fn effects(scene: &Scene) -> Vec<String> {
    sqlx::query_scalar("select key from effect order by key").fetch_all(scene.pool()).await.unwrap()
}

/// Notes the key of a call. Each attempt that commits leaves a row.
async fn note<P>(call: &Call<P>, transaction: &mut HandlerTransaction) -> Result<(), sqlx::Error> {
    let note = sqlx::query("insert into effect (key) values ($1)").bind(call.key());
    note.execute(&mut **transaction).await.map(drop)
}

fn with(scene: &Scene, participant: TransactionalParticipant) -> Builder {
    LocalWorker::builder(scene.db.url()).participant(participant)
}

async fn insert(scene: &Scene, gid: &str, steps: Value) {
    let insert = "insert into pgsaga.saga (gid, retry_interval, steps) values ($1, '20 milliseconds', $2)";
    sqlx::query(insert).bind(gid).bind(steps).execute(scene.pool()).await.unwrap();
}

async fn run(transaction: &mut HandlerTransaction, sql: &'static str) -> Result<(), sqlx::Error> {
    transaction.execute(sql).await.map(|_| ())
}

/// A saga of one step that calls this path.
fn one(path: &str) -> Value {
    json!([{"name": "work", "action": format!("participant:t/{path}"), "compensate": "participant:t/undo"}])
}

async fn undo(call: Call<()>, mut transaction: HandlerTransaction) -> Result<(), HandlerError> {
    note(&call, &mut transaction).await?;
    Ok(())
}

#[tokio::test]
async fn only_a_success_commits_and_its_effect_is_there_once() {
    let scene = scene().await;
    let work = |call: Call<()>, mut transaction: HandlerTransaction| async move {
        note(&call, &mut transaction).await?;
        match (call.step(), call.attempt()) {
            ("errs", 1) => Err("no luck".into()),
            ("panics", 1) => panic!("no luck"),
            ("waits", 1) => Err(HandlerError::ongoing(Duration::from_millis(10))),
            ("conflicts", 1) => {
                let conflict = "do $$ begin raise exception 'too many' using errcode = '40001'; end $$";
                transaction.execute(conflict).await?;
                Ok(1)
            }
            ("refuses", _) => Err(HandlerError::refuse("never")),
            _ => Ok(1),
        }
    };
    let t = TransactionalParticipant::new("t").action("work", work).compensate("undo", undo);
    let worker = LocalWorker::start(with(&scene, t)).await;
    let step = |name: &str| json!({"name": name, "action": "participant:t/work", "compensate": "participant:t/undo"});
    insert(&scene, "s", json!([step("errs"), step("panics"), step("waits"), step("conflicts")])).await;
    assert_eq!(scene.ended("s").await, ("succeeded".to_owned(), None));
    let history = [
        "errs action 1 unsent",
        "errs action 2 success",
        "panics action 1 unsent",
        "panics action 2 success",
        "waits action 1 ongoing",
        "waits action 2 success",
        "conflicts action 1 ongoing",
        "conflicts action 2 success",
    ];
    assert_eq!(scene.history("s").await, history);
    let done = ["s/conflicts/action", "s/errs/action", "s/panics/action", "s/waits/action"];
    assert_eq!(effects(&scene).await, done);
    // Of a refusal nothing remains, and nobody undoes it.
    sqlx::raw_sql("truncate effect").execute(scene.pool()).await.unwrap();
    insert(&scene, "r", json!([step("first"), step("refuses")])).await;
    assert_eq!(scene.ended("r").await, ("failed".to_owned(), Some("refuses: never".to_owned())));
    assert_eq!(effects(&scene).await, ["r/first/action", "r/first/compensate"]);
    scene.healthy().await;
    worker.ended().await;
}

#[tokio::test]
async fn steps_that_run_at_once_commit_each_with_its_record() {
    let scene = scene().await;
    let work = |call: Call<Value>, mut transaction: HandlerTransaction| async move {
        note(&call, &mut transaction).await?;
        Ok::<_, HandlerError>(call.payload)
    };
    let t = TransactionalParticipant::new("t").action("work", work);
    let worker = LocalWorker::start(with(&scene, t)).await;
    let step = |name: &str, after: &[&str], payload: Value| json!({"name": name, "after": after, "action": "participant:t/work", "payload": payload});
    for nth in 0..20 {
        let (gid, of) = (format!("p{nth}"), |name: &str| json!({"$from": name}));
        let steps = json!([
            step("a", &[], json!(nth)),
            step("b", &["a"], of("a")),
            step("c", &["a"], of("a")),
            step("d", &["a"], of("a")),
            step("e", &["b", "c", "d"], json!([of("b"), of("c"), of("d")])),
        ]);
        insert(&scene, &gid, steps).await;
    }
    scene.all_ended(PATIENCE).await;
    let results: Vec<(String, Value)> = sqlx::query_as("select status, result from pgsaga.saga order by id")
        .fetch_all(scene.pool())
        .await
        .unwrap();
    for (nth, (status, result)) in results.into_iter().enumerate() {
        assert_eq!((status.as_str(), result), ("succeeded", json!([nth, nth, nth])));
    }
    let (effects, mut once) = (effects(&scene).await, effects(&scene).await);
    once.dedup();
    assert_eq!((effects.len(), once.len()), (100, 100));
    scene.healthy().await;
    worker.ended().await;
}

/// A handler that has written, says so, and waits until it may return.
fn held() -> (Arc<Notify>, Arc<Notify>, TransactionalParticipant) {
    let (written, goes_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (Arc::clone(&written), Arc::clone(&goes_on));
    let work = move |call: Call<()>, mut transaction: HandlerTransaction| {
        let (tell, wait) = (Arc::clone(&tell), Arc::clone(&wait));
        async move {
            note(&call, &mut transaction).await?;
            if call.attempt() == 1 {
                tell.notify_one();
                wait.notified().await;
            }
            Ok::<(), HandlerError>(())
        }
    };
    (written, goes_on, TransactionalParticipant::new("t").action("work", work).compensate("undo", undo))
}

#[tokio::test]
async fn an_abort_or_a_lost_lease_during_the_handler_rolls_it_back() {
    let scene = scene().await;
    let (written, goes_on, t) = held();
    let worker = LocalWorker::start(with(&scene, t)).await;
    insert(&scene, "aborted", one("work")).await;
    written.notified().await;
    sqlx::query("select pgsaga.abort('aborted', 'changed my mind')").execute(scene.pool()).await.unwrap();
    goes_on.notify_one();
    assert_eq!(scene.ended("aborted").await.0, "failed");
    assert_eq!(scene.history("aborted").await, ["work action 1 unsent"]);
    assert_eq!(effects(&scene).await, Vec::<String>::new());
    // Another worker has the task, so this one can record nothing, and its effect goes.
    insert(&scene, "lost", one("work")).await;
    written.notified().await;
    sqlx::query("update pgsaga.worker set dead = true").execute(scene.pool()).await.unwrap();
    assert_eq!(scene.ended("lost").await.0, "succeeded");
    goes_on.notify_one();
    let history = ["work action 1 unsent", "work action 2 success"];
    assert_eq!(scene.history("lost").await, history);
    assert_eq!(effects(&scene).await, ["lost/work/action"]);
    worker.ended().await;
    assert_eq!(effects(&scene).await, ["lost/work/action"]);
    scene.healthy().await;
}

#[tokio::test]
async fn a_drain_that_drops_a_handler_rolls_it_back() {
    let scene = scene().await;
    let (written, _goes_on, t) = held();
    let mut worker = LocalWorker::start(with(&scene, t.clone()).grace(Duration::from_millis(200))).await;
    insert(&scene, "s", one("work")).await;
    written.notified().await;
    worker.stop();
    worker.ended().await;
    assert_eq!(effects(&scene).await, Vec::<String>::new());
    let next = LocalWorker::start(with(&scene, t)).await;
    assert_eq!(scene.ended("s").await.0, "succeeded");
    assert_eq!(scene.history("s").await, ["work action 1 unsent", "work action 2 success"]);
    assert_eq!(effects(&scene).await, ["s/work/action"]);
    scene.healthy().await;
    next.ended().await;
}

/// An operator looks at the saga with `for update`, and goes to lunch.
#[tokio::test]
async fn a_saga_that_somebody_has_locked_lets_go_of_the_business_rows() {
    let scene = scene().await;
    let (written, goes_on, t) = held();
    let worker = LocalWorker::start(with(&scene, t)).await;
    insert(&scene, "s", one("work")).await;
    written.notified().await;
    let mut operator = scene.pool().begin().await.unwrap();
    operator.execute("select from pgsaga.saga for update").await.unwrap();
    goes_on.notify_one();
    // The lock on the table is the one of the handler's INSERT.
    eventually(Duration::from_secs(5), "the handler's transaction is over", async || {
        let locks =
            "select count(*) from pg_locks where relation = 'effect'::regclass and mode = 'RowExclusiveLock'";
        let locks: i64 = sqlx::query_scalar(locks).fetch_one(scene.pool()).await.unwrap();
        (locks == 0).then_some(())
    })
    .await;
    assert_eq!(effects(&scene).await, Vec::<String>::new());
    operator.rollback().await.unwrap();
    assert_eq!(scene.ended("s").await.0, "succeeded");
    assert_eq!(scene.history("s").await, ["work action 1 ongoing", "work action 2 success"]);
    let messages = scene.messages("s").await;
    assert_eq!(messages, ["the transaction was rolled back: the saga is locked", "-"]);
    assert_eq!(effects(&scene).await, ["s/work/action"]);
    scene.healthy().await;
    worker.ended().await;
}

#[tokio::test]
async fn a_handler_that_ends_or_keeps_its_transaction_is_named() {
    let scene = scene().await;
    let work = |call: Call<()>, mut transaction: HandlerTransaction| async move {
        note(&call, &mut transaction).await?;
        match (call.gid(), call.attempt()) {
            ("commits", 1) => run(&mut transaction, "commit").await?,
            ("begins", 1) => run(&mut transaction, "commit; begin").await?,
            ("fails", 1) => {
                transaction.execute("commit").await?;
                return Err("and then it fails".into());
            }
            ("keeps", 1) => {
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    drop(transaction);
                });
            }
            ("nests", _) => {
                let mut savepoint = transaction.begin().await?;
                savepoint.execute("insert into effect values ('rolled back')").await?;
                savepoint.rollback().await?;
                let mut savepoint = transaction.begin().await?;
                savepoint.execute("insert into effect values ('nested')").await?;
                savepoint.commit().await?;
            }
            _ => {}
        }
        Ok::<(), HandlerError>(())
    };
    let t = TransactionalParticipant::new("t").action("work", work).compensate("undo", undo);
    let worker = LocalWorker::start(with(&scene, t)).await;
    let ended = "the handler has ended its transaction itself, so nobody knows what of it took effect";
    let kept = "the handler has kept its transaction, which must end with it";
    for (gid, why) in [("commits", ended), ("begins", ended), ("fails", ended), ("keeps", kept)] {
        insert(&scene, gid, one("work")).await;
        assert_eq!(scene.ended(gid).await.0, "succeeded", "{gid}");
        assert_eq!(scene.history(gid).await, ["work action 1 unknown", "work action 2 success"], "{gid}");
        assert_eq!(scene.messages(gid).await[0], why, "{gid}");
    }
    sqlx::raw_sql("truncate effect").execute(scene.pool()).await.unwrap();
    insert(&scene, "nests", one("work")).await;
    assert_eq!(scene.ended("nests").await.0, "succeeded");
    assert_eq!(scene.history("nests").await, ["work action 1 success"]);
    assert_eq!(effects(&scene).await, ["nested", "nests/work/action"]);
    scene.healthy().await;
    worker.ended().await;
}

#[tokio::test]
async fn what_fails_at_the_end_of_the_transaction_is_an_attempt_without_effect() {
    let scene = scene().await;
    let table = "create table once (n int, constraint only_once unique (n) deferrable initially deferred)";
    sqlx::raw_sql(table).execute(scene.pool()).await.unwrap();
    let work = |call: Call<()>, mut transaction: HandlerTransaction| async move {
        note(&call, &mut transaction).await?;
        match (call.gid(), call.attempt()) {
            ("deferred", 1) => run(&mut transaction, "insert into once values (1), (1)").await?,
            // An error that the handler does not pass on.
            ("swallowed", 1) => assert!(run(&mut transaction, "select 1 / 0").await.is_err()),
            _ => {}
        }
        Ok::<(), HandlerError>(())
    };
    let t = TransactionalParticipant::new("t").action("work", work).compensate("undo", undo);
    let worker = LocalWorker::start(with(&scene, t)).await;
    for (gid, why) in [("deferred", "only_once"), ("swallowed", "current transaction is aborted")] {
        insert(&scene, gid, one("work")).await;
        assert_eq!(scene.ended(gid).await.0, "succeeded", "{gid}");
        assert_eq!(scene.history(gid).await, ["work action 1 unsent", "work action 2 success"], "{gid}");
        let message = scene.messages(gid).await.remove(0);
        assert!(message.contains(why), "{message}");
    }
    assert_eq!(effects(&scene).await, ["deferred/work/action", "swallowed/work/action"]);
    scene.healthy().await;
    worker.ended().await;
}

/// The application's statements run as the application's role runs them, and what the settle sets
/// is gone with its transaction.
#[tokio::test]
async fn a_handler_has_the_settings_of_its_role() {
    let scene = scene().await;
    let role = "alter database :db set default_transaction_isolation = 'serializable';
                alter database :db set search_path = 'public'";
    let database: String =
        sqlx::query_scalar("select quote_ident(current_database())").fetch_one(scene.pool()).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(role.replace(":db", &database))).execute(scene.pool()).await.unwrap();
    let work = |call: Call<()>, mut transaction: HandlerTransaction| async move {
        note(&call, &mut transaction).await?;
        let settings: (String, String, String, String, i32) = sqlx::query_as(
            "select current_setting('transaction_isolation'), current_setting('enable_seqscan'), current_setting('search_path'),
               current_setting('statement_timeout'), pg_backend_pid()",
        )
        .fetch_one(&mut *transaction)
        .await?;
        Ok::<_, HandlerError>(json!([settings.0, settings.1, settings.2, settings.3, settings.4]))
    };
    let t = TransactionalParticipant::new("t").action("work", work).limit(1);
    let worker = LocalWorker::start(with(&scene, t)).await;
    let step = |name: &str| json!({"name": name, "action": "participant:t/work"});
    insert(&scene, "s", json!([step("a"), step("b"), step("c")])).await;
    assert_eq!(scene.ended("s").await.0, "succeeded");
    let result: Value =
        sqlx::query_scalar("select result from pgsaga.saga").fetch_one(scene.pool()).await.unwrap();
    assert_eq!(
        result.as_array().unwrap()[..4],
        [json!("read committed"), json!("on"), json!("public"), json!("3s")]
    );
    scene.healthy().await;
    worker.ended().await;
}
