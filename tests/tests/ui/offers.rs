//! The page offers just what the database accepts.

use std::collections::BTreeSet;

use pgsaga_tests::Behaviour::{self, Ok, Refuse, Sequence, Status};
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Gate, Ui, eventually};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::story::{stuck, waiting};
use crate::visitor::Visitor;

/// What the page of a saga has buttons for, as `"skip pay"`.
async fn offered(visitor: &Visitor, gid: &str) -> BTreeSet<String> {
    let page = visitor.get(&format!("/saga?gid={gid}")).await.fine();
    let links = page.split("href=\"/decide?action=").skip(1).map(|rest| rest.split('"').next().unwrap());
    links
        .map(|link| {
            let step = link.split_once("step=").map(|(_, step)| format!(" {step}")).unwrap_or_default();
            format!("{}{step}", link.split('&').next().unwrap())
        })
        .collect()
}

/// Whether the database takes a decision that changes the saga's status or its tasks; nothing of it
/// stays.
async fn accepts(scene: &Scene, gid: &str, decision: &str) -> bool {
    let call = match decision.split_once(' ') {
        Some(("skip", step)) => format!("skip('{gid}', '{step}', 'x')"),
        _ => match decision {
            "retry" => format!("retry('{gid}')"),
            "retry-fresh" => format!("retry('{gid}', null, true)"),
            "resolve-succeeded" => format!("resolve('{gid}', 'succeeded', 'x')"),
            "resolve-failed" => format!("resolve('{gid}', 'failed', 'x')"),
            other => format!("{other}('{gid}', 'x')"),
        },
    };
    let decisions = "select count(*) from pgsaga.history h join pgsaga.saga s on s.id = h.saga_id where s.gid = $1 and h.kind = 'decision'";
    let mut transaction = scene.pool().begin().await.unwrap();
    let called = sqlx::query(AssertSqlSafe(format!("select pgsaga.{call}"))).execute(&mut *transaction).await;
    let recorded = match called {
        Result::Ok(_) => {
            sqlx::query_scalar::<_, i64>(decisions).bind(gid).fetch_one(&mut *transaction).await.unwrap() > 0
        }
        Err(error) => {
            let code = error.as_database_error().unwrap().code().unwrap().into_owned();
            assert_eq!(code, "55000", "{gid}: {decision}: {error}");
            false
        }
    };
    transaction.rollback().await.unwrap();
    recorded
}

#[tokio::test]
async fn the_page_offers_what_the_database_accepts_and_nothing_else() {
    let scene = Scene::with_worker().await;
    let gate = Gate::new();
    let patient = |gid| scene.saga(gid).column("request_timeout", "'60 seconds'");
    stuck(&scene, "backwards").await;
    waiting(&scene, "waits").await;
    let saga = scene
        .saga("past-pivot")
        .step("pay")
        .with("pivot", json!(true))
        .step("ship")
        .with("compensate", Value::Null);
    saga.action(Refuse("no".into())).insert().await;
    patient("in-flight").step("stock").step("pay").action(Ok.behind(&gate)).insert().await;
    let saga = patient("pivot-in-flight")
        .step("stock")
        .step("pay")
        .with("pivot", json!(true))
        .action(Ok.behind(&gate));
    saga.step("mail").with("compensate", Value::Null).insert().await;
    let saga =
        scene.saga("parallel").step("hotel").with("after", json!([])).compensate(Refuse("full".into()));
    let saga = saga.step("train").with("after", json!([])).compensate(Refuse("gone".into()));
    saga.step("pay").with("after", json!(["hotel", "train"])).action(Refuse("no".into())).insert().await;
    let doubtful: Behaviour = Sequence(vec![Status(500), Refuse("x".into()), Refuse("x".into())]);
    let saga = scene.saga("doubtful").step("stock").compensate(doubtful);
    saga.step("pay").action(Refuse("no".into())).insert().await;
    // Refused in the end, but a try before was accepted: a fresh key could do it twice.
    let accepted: Behaviour = Sequence(vec![Status(425), Refuse("x".into())]);
    let saga = scene.saga("accepted").step("stock").compensate(accepted);
    saga.step("pay").action(Refuse("no".into())).insert().await;
    scene.saga("future").column("run_at", "now() + interval '1 hour'").step("stock").insert().await;
    let saga =
        scene.saga("undoing").column("retry_interval", "'1 hour'").step("stock").compensate(Status(503));
    saga.step("pay").action(Refuse("no".into())).insert().await;
    scene.saga("over").step("stock").insert().await;
    for gid in ["backwards", "past-pivot", "parallel", "doubtful", "accepted", "over"] {
        scene.ended(gid).await;
    }
    eventually(PATIENCE, "both branches are stuck, the calls are in flight, and the undo waits", async || {
        let stuck: i64 = sqlx::query_scalar(
            "select count(*) from pgsaga.stuck k join pgsaga.saga s on s.id = k.saga_id where s.gid = 'parallel'",
        )
        .fetch_one(scene.pool())
        .await
        .unwrap();
        let called = |gid| scene.participant.ops_for(gid).len() == 2;
        (stuck == 2 && called("in-flight") && called("pivot-in-flight") && scene.history("undoing").await.len() == 3)
            .then_some(())
    })
    .await;

    let ui = Ui::with_token(scene.db.url());
    let visitor = Visitor::of(&ui).await;
    let mut seen = BTreeSet::new();
    for (gid, steps) in [
        ("backwards", &["stock", "pay"][..]),
        ("waits", &["stock", "pay"]),
        ("past-pivot", &["pay", "ship"]),
        ("in-flight", &["stock", "pay"]),
        ("pivot-in-flight", &["stock", "pay", "mail"]),
        ("parallel", &["hotel", "train", "pay"]),
        ("doubtful", &["stock", "pay"]),
        ("accepted", &["stock", "pay"]),
        ("future", &["stock"]),
        ("undoing", &["stock", "pay"]),
        ("over", &["stock"]),
    ] {
        let mut accepted = BTreeSet::new();
        let plain = ["retry", "retry-fresh", "resolve-succeeded", "resolve-failed", "abort", "force"];
        let skips = steps.iter().map(|step| format!("skip {step}"));
        for decision in plain.map(str::to_owned).into_iter().chain(skips) {
            if accepts(&scene, gid, &decision).await {
                accepted.insert(decision);
            }
        }
        let offered = offered(&visitor, gid).await;
        assert_eq!(offered, accepted, "{gid}");
        seen.extend(offered);
    }
    let kinds: BTreeSet<&str> = seen.iter().map(|decision| decision.split(' ').next().unwrap()).collect();
    assert_eq!(kinds.len(), 7, "each kind is offered somewhere: {kinds:?}");
    gate.open();
}

#[tokio::test]
async fn a_saga_with_many_steps_has_a_bounded_number_of_buttons() {
    let scene = Scene::new().await;
    let mut saga = scene.saga("wide").column("run_at", "now() + interval '1 hour'");
    for nth in 0..50 {
        saga = saga.step(&format!("s{nth}")).with("after", json!([]));
    }
    saga.insert().await;
    let ui = Ui::with_token(scene.db.url());
    let visitor = Visitor::of(&ui).await;
    let offered = offered(&visitor, "wide").await;
    assert_eq!(offered.iter().filter(|decision| decision.starts_with("skip ")).count(), 20);
    visitor.get("/saga?gid=wide").await.has("And to skip one of 30 other steps");
}
