//! What a handler gets, and what becomes of what it returns.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pgsaga_tests::command::run;
use pgsaga_tests::eventually;
use pgsaga_tests::local::LocalWorker;
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_worker::{Call, HandlerError, Participant, Worker};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Notify;

#[derive(Debug, Deserialize)]
struct Reserve {
    lines: Vec<Line>,
}

#[derive(Debug, Deserialize)]
struct Line {
    item: String,
    quantity: u32,
}

#[derive(Debug, Serialize)]
struct Reserved {
    total: u32,
}

/// What the handlers of a test saw.
#[derive(Debug, Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

async fn insert(scene: &Scene, gid: &str, steps: Value) {
    insert_with(scene, gid, steps, "").await;
}

/// Retries come after 20 ms; `columns` are further columns as `, name = literal`.
async fn insert_with(scene: &Scene, gid: &str, steps: Value, columns: &str) {
    let (names, values): (Vec<&str>, Vec<&str>) =
        columns.split(';').filter_map(|column| column.split_once('=')).unzip();
    let comma = |parts: &[&str]| parts.iter().map(|part| format!(", {part}")).collect::<String>();
    let insert = format!(
        "insert into pgsaga.saga (gid, retry_interval, steps{}) values ($1, '20 milliseconds', $2{})",
        comma(&names),
        comma(&values)
    );
    sqlx::query(sqlx::AssertSqlSafe(insert)).bind(gid).bind(steps).execute(scene.pool()).await.unwrap();
}

async fn ended(scene: &Scene, gid: &str) -> (String, Option<String>) {
    let ended = scene.ended(gid).await;
    scene.healthy().await;
    ended
}

#[tokio::test]
async fn a_handler_gets_its_type_and_what_a_participant_reads_from_headers_and_its_answer_is_kept() {
    let scene = Scene::new().await;
    let seen = Seen::default();
    let reserve = {
        let seen = seen.clone();
        move |call: Call<Reserve>| {
            let seen = seen.clone();
            async move {
                seen.note(format!("{} {} {} {}", call.key(), call.gid(), call.step(), call.attempt()));
                seen.note(format!("{:?} {:?}", call.header("x-tenant"), call.header("x-none")));
                assert!(call.header("traceparent").is_some() && call.deadline().is_some());
                assert!(!call.is_compensation() && !call.cancellation().is_cancelled());
                assert_eq!(call.payload.lines[0].item, "chair");
                Ok(Reserved { total: call.payload.lines.iter().map(|line| line.quantity).sum() })
            }
        }
    };
    let total = |call: Call<Value>| async move { Ok::<_, HandlerError>(call.payload) };
    let stock = Participant::new("stock").action("reserve", reserve).action("/total", total);
    let worker = LocalWorker::start(LocalWorker::builder(scene.db.url()).participant(stock)).await;
    insert_with(
        &scene,
        "s",
        json!([
            {"name": "stock", "action": "participant:stock/reserve?ignored=1", "headers": {"X-Tenant": "7"},
             "payload": {"lines": [{"item": "chair", "quantity": 3}, {"item": "table", "quantity": 1}]}},
            {"name": "sum", "action": "participant:stock/total", "payload": {"sum": {"$from": "stock", "path": "/total"}}},
        ]),
        "timeout_to_fail='1 hour'",
    )
    .await;
    assert_eq!(ended(&scene, "s").await, ("succeeded".to_owned(), None));
    assert_eq!(seen.all(), ["s/stock/action s stock 1", "Some(\"7\") None"]);
    let result: Value =
        sqlx::query_scalar("select result from pgsaga.saga").fetch_one(scene.pool()).await.unwrap();
    assert_eq!(result, json!({"sum": 4}));
    worker.ended().await;
}

#[tokio::test]
async fn a_refusal_rolls_back_and_the_compensation_gets_its_own_key_and_that_of_the_action() {
    let scene = Scene::new().await;
    let seen = Seen::default();
    let note = |seen: Seen| {
        move |call: Call<()>| {
            seen.note(format!("{} {} {}", call.key(), call.action_key(), call.is_compensation()));
            async { Ok::<(), HandlerError>(()) }
        }
    };
    let refuse = |_: Call<()>| async { Err::<(), _>(HandlerError::refuse("sold out")) };
    let shop = Participant::new("shop")
        .action("pay", note(seen.clone()))
        .compensate("pay", note(seen.clone()))
        .action("ship", refuse);
    let worker = LocalWorker::start(LocalWorker::builder(scene.db.url()).participant(shop)).await;
    let pay = "participant:shop/pay";
    insert(
        &scene,
        "s",
        json!([{"name": "pay", "action": pay, "compensate": pay}, {"name": "ship", "action": "participant:shop/ship"}]),
    )
    .await;
    assert_eq!(ended(&scene, "s").await, ("failed".to_owned(), Some("ship: sold out".to_owned())));
    assert_eq!(seen.all(), ["s/pay/action s/pay/action false", "s/pay/compensate s/pay/action true"]);
    assert_eq!(
        scene.history("s").await,
        ["pay action 1 success", "ship action 1 failure", "pay compensate 1 success"]
    );
    worker.ended().await;
}

#[tokio::test]
async fn a_payload_of_another_type_is_refused_with_the_place_of_the_value() {
    let scene = Scene::new().await;
    let reserve = |call: Call<Reserve>| async move { Ok::<_, HandlerError>(call.payload.lines.len()) };
    let stock = Participant::new("stock").action("reserve", reserve);
    let worker = LocalWorker::start(LocalWorker::builder(scene.db.url()).participant(stock)).await;
    for (gid, payload, why) in [
        (
            "field",
            json!({"lines": [{"item": "chair", "quantity": 1}, {"item": "table", "quantity": "two"}]}),
            "payload: lines[1].quantity: invalid type: string \"two\", expected u32",
        ),
        ("whole", json!(7), "payload: invalid type: integer `7`, expected struct Reserve"),
        ("missing", json!({"lines": [{"item": "chair"}]}), "payload: lines[0]: missing field `quantity`"),
    ] {
        insert(
            &scene,
            gid,
            json!([{"name": "stock", "action": "participant:stock/reserve", "payload": payload}]),
        )
        .await;
        let (status, reason) = ended(&scene, gid).await;
        assert_eq!(status, "failed");
        assert!(reason.as_deref().unwrap().starts_with(&format!("stock: {why}")), "{reason:?}");
    }
    insert(&scene, "none", json!([{"name": "stock", "action": "participant:stock/reserve"}])).await;
    let (_, reason) = ended(&scene, "none").await;
    assert!(reason.as_deref().unwrap().starts_with("stock: payload: invalid type: null"), "{reason:?}");
    worker.ended().await;
}

/// What a handler does in its first attempts; the last is a success.
#[derive(Debug, Clone, Copy)]
enum First {
    Fails,
    Panics,
    Ongoing,
}

#[tokio::test]
async fn errors_and_panics_are_unknown_with_their_words_and_ongoing_is_asked_again() {
    #[derive(Debug, thiserror::Error)]
    #[error("the warehouse is closed")]
    struct Closed(#[source] std::fmt::Error);

    fn open() -> Result<(), Closed> {
        Err(Closed(std::fmt::Error))
    }

    let scene = Scene::new().await;
    let handler = |first: First| {
        move |call: Call<()>| async move {
            match first {
                _ if call.attempt() > 1 => {}
                First::Fails => open()?,
                First::Panics => panic!("not in the mood, {}", call.gid()),
                First::Ongoing => return Err(HandlerError::ongoing(Duration::from_millis(30))),
            }
            Ok(())
        }
    };
    let stock = Participant::new("stock")
        .action("fails", handler(First::Fails))
        .action("panics", handler(First::Panics))
        .action("ongoing", handler(First::Ongoing));
    let worker = LocalWorker::start(LocalWorker::builder(scene.db.url()).participant(stock)).await;
    let error = std::fmt::Error.to_string();
    for (gid, outcome, said) in [
        ("fails", "unknown", format!("the warehouse is closed: {error}")),
        ("panics", "unknown", "the handler panicked: not in the mood, panics".to_owned()),
        ("ongoing", "ongoing", "not finished".to_owned()),
    ] {
        // The limit of no retry counts the failure, and not what is asked again.
        let limit = if outcome == "ongoing" { "retry_limit=0" } else { "retry_limit=1" };
        let steps = json!([{"name": "stock", "action": format!("participant:stock/{gid}")}]);
        insert_with(&scene, gid, steps, limit).await;
        assert_eq!(ended(&scene, gid).await, ("succeeded".to_owned(), None));
        let first = format!("stock action 1 {outcome}");
        assert_eq!(scene.history(gid).await, [first.as_str(), "stock action 2 success"]);
        assert_eq!(scene.messages(gid).await, [said.as_str(), "-"]);
    }
    worker.ended().await;
}

/// An answer that is too large is not kept, as one that came over HTTP.
#[tokio::test]
async fn an_answer_over_the_limit_is_not_kept_and_the_saga_succeeds() {
    let scene = Scene::new().await;
    let large = |call: Call<usize>| async move { Ok::<_, HandlerError>("x".repeat(call.payload)) };
    let stock = Participant::new("stock").action("large", large);
    let builder = LocalWorker::builder(scene.db.url()).participant(stock).answer_bytes_max(1024);
    let worker = LocalWorker::start(builder).await;
    for (gid, bytes, is_kept) in [("fits", 1022, true), ("over", 1023, false)] {
        let steps = json!([{"name": "stock", "action": "participant:stock/large", "payload": bytes}]);
        insert(&scene, gid, steps).await;
        assert_eq!(ended(&scene, gid).await, ("succeeded".to_owned(), None));
        let kept: bool = sqlx::query_scalar("select result is not null from pgsaga.saga where gid = $1")
            .bind(gid)
            .fetch_one(scene.pool())
            .await
            .unwrap();
        assert_eq!(kept, is_kept, "{gid}");
    }
    worker.ended().await;
}

/// Another worker may run a newer program, which has the path: nobody was called, and the next
/// attempt may find a handler.
#[tokio::test]
async fn a_path_without_a_handler_is_unsent_and_its_message_has_the_paths_that_there_are() {
    let scene = Scene::new().await;
    let fine = |_: Call<()>| async { Ok::<(), HandlerError>(()) };
    let stock = || Participant::new("stock").action("reserve", fine).compensate("release", fine);
    let worker = LocalWorker::start(LocalWorker::builder(scene.db.url()).participant(stock())).await;
    let steps = json!([{"name": "stock", "action": "participant:stock/release"}]);
    insert_with(&scene, "gives-up", steps.clone(), "retry_limit=1").await;
    assert_eq!(ended(&scene, "gives-up").await.0, "failed");
    assert_eq!(scene.history("gives-up").await, ["stock action 1 unsent", "stock action 2 unsent"]);
    let why =
        "not called: the participant \"stock\" of this worker has no action \"/release\"; it has: /reserve";
    assert_eq!(scene.messages("gives-up").await, [why, why]);
    insert(&scene, "waits", steps).await;
    eventually(PATIENCE, "the older worker gets it", async || {
        scene.history("waits").await.contains(&"stock action 1 unsent".to_owned()).then_some(())
    })
    .await;
    worker.ended().await;
    let newer = LocalWorker::builder(scene.db.url()).participant(stock().action("release", fine));
    let newer = LocalWorker::start(newer).await;
    assert_eq!(ended(&scene, "waits").await, ("succeeded".to_owned(), None));
    newer.ended().await;
}

#[tokio::test]
async fn a_saga_goes_from_a_handler_to_a_worker_that_calls_over_http_and_back() {
    let mut scene = Scene::new().await;
    scene.start_worker(&[]).await;
    let fine = |_: Call<Value>| async { Ok::<(), HandlerError>(()) };
    let stock = Participant::new("stock").action("reserve", fine);
    let builder = LocalWorker::builder(scene.db.url()).participant(stock).deny_plain_urls(true);
    let worker = LocalWorker::start(builder).await;
    let reserve = |name: &str| json!({"name": name, "action": "participant:stock/reserve"});
    let pay = json!({"name": "pay", "action": scene.participant.url("/s/pay")});
    insert(&scene, "s", json!([reserve("a"), pay, reserve("b")])).await;
    scene.expect("s", "succeeded", None, &["pay action"]).await;
    worker.ended().await;
}

#[tokio::test]
async fn a_worker_does_not_start_with_handlers_that_contradict_each_other() {
    let scene = Scene::new().await;
    let fine = |_: Call<()>| async { Ok::<(), HandlerError>(()) };
    let stock = || Participant::new("stock").action("reserve", fine);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[participant.stock]\nurl = \"http://stock.internal\"\n").unwrap();
    let words = |participants: Vec<Participant>| {
        let builder = Worker::builder(scene.db.url());
        participants.into_iter().fold(builder, |builder, participant| builder.participant(participant))
    };
    for (builder, why) in [
        (
            words(vec![stock().action("/reserve", fine)]),
            "participant \"stock\": found two handlers of the action \"/reserve\"; allowed: one",
        ),
        (
            words(vec![stock(), stock()]),
            "participant \"stock\": found twice; allowed: once, with all its handlers",
        ),
        (
            words(vec![Participant::new("stock")]),
            "participant \"stock\": found no handler; allowed: one or more",
        ),
        (
            words(vec![Participant::new("Stock").action("reserve", fine)]),
            "participant \"Stock\": a bad name; allowed: 1 to 64 of a-z 0-9 . _ -, the first a letter or a digit, and not digits alone",
        ),
        (
            words(vec![Participant::new("stock").action("a b", fine)]),
            "participant \"stock\": found the path \"/a b\"; allowed: the characters A-Z a-z 0-9 . _ ~ : @ / -, without ..",
        ),
        (words(vec![stock().limit(0)]), "participant \"stock\": found a limit of 0; allowed: 1 or more"),
        (
            words(vec![stock()]).participants_file(Some(file.path().to_owned())),
            "participant \"stock\": found handlers in this process and a URL in the file of --participants; allowed: one of them",
        ),
        (
            words(vec![stock().limit(2)]).participant_limits(vec![("participant:stock".to_owned(), 3)]),
            "participant:stock: found a limit of its own and one by --participant-limit; allowed: one of them",
        ),
        (Worker::builder(scene.db.url()).database(scene.db.url()), "found the database"),
    ] {
        let error = builder.build().unwrap_err().to_string();
        assert!(error.starts_with(why), "{error}");
    }
}

#[tokio::test]
async fn a_report_of_progress_is_shown_while_the_handler_runs() {
    let scene = Scene::new().await;
    let (reported, goes_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (Arc::clone(&reported), Arc::clone(&goes_on));
    let work = move |call: Call<()>| {
        let (tell, wait) = (Arc::clone(&tell), Arc::clone(&wait));
        async move {
            call.report_progress("1 of 9");
            call.report_progress(format_args!("2 of 9\u{7} {}", "é".repeat(200)));
            tell.notify_one();
            wait.notified().await;
            Ok::<(), HandlerError>(())
        }
    };
    let long = Participant::new("long").action("work", work);
    let worker = LocalWorker::start(LocalWorker::builder(scene.db.url()).participant(long)).await;
    insert(&scene, "s", json!([{"name": "a", "action": "participant:long/work"}])).await;
    reported.notified().await;
    let shown = eventually(PATIENCE, "the report is shown", async || {
        let shown = run(&scene.db, &["show", "s"]).fine();
        shown.contains("its handler reports: ").then_some(shown)
    })
    .await;
    let report = format!("its handler reports: 2 of 9  {}", "é".repeat(96));
    assert!(shown.contains(&report) && !shown.contains(&"é".repeat(97)), "{shown}");
    goes_on.notify_one();
    assert_eq!(ended(&scene, "s").await, ("succeeded".to_owned(), None));
    worker.ended().await;
}
