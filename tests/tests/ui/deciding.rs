//! Decisions on the page: each works, is recorded with its name, and does what was shown.

use pgsaga_tests::scene::{DECISIONS, PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Gate, Ui, eventually};
use reqwest::Method;
use sqlx::{AssertSqlSafe, Executor as _};

use crate::story::{decisions, login, stuck, waiting};
use crate::visitor::{Visitor, encoded};

/// Somebody who is logged in.
pub(crate) async fn ann(ui: &Ui) -> Visitor {
    let mut visitor = Visitor::of(ui).await;
    visitor.log_in("Ann Lee").await;
    visitor
}

fn of<'a>(action: &'a str, gid: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![("action", action), ("gid", gid)]
}

#[tokio::test]
async fn each_decision_takes_effect_and_is_recorded_with_the_name() {
    let scene = Scene::with_worker().await;
    let operator = login(&scene, "pgsaga_operator").await;
    let user = format!("{}_pgsaga_operator", scene.db.name());
    let ui = Ui::with_token(&operator);
    let ann = ann(&ui).await;
    for gid in ["retry", "fresh", "skip", "done", "undone", "force-stuck"] {
        stuck(&scene, gid).await;
    }
    for gid in ["now", "abort", "force"] {
        waiting(&scene, gid).await;
    }
    let skip = [of("skip", "skip"), vec![("step", "stock")]].concat();
    for (asked, comment, said, end, recorded) in [
        (of("retry", "retry"), "", "retry: retry: stuck → aborting", "failed", "retry by Ann Lee (USER): "),
        (
            of("retry-fresh", "fresh"),
            "new key",
            "stuck → aborting",
            "failed",
            "retry by Ann Lee (USER): with a fresh key, new key",
        ),
        (skip, "by hand", "stuck → aborting", "failed", "skip by Ann Lee (USER): by hand"),
        (
            of("resolve-succeeded", "done"),
            "shipped",
            "stuck → succeeded",
            "succeeded",
            "resolve by Ann Lee (USER): succeeded: shipped",
        ),
        (
            of("resolve-failed", "undone"),
            "called them",
            "stuck → failed",
            "failed",
            "resolve by Ann Lee (USER): failed: called them",
        ),
        (
            of("force", "force-stuck"),
            "test data",
            "stuck → failed",
            "failed",
            "force by Ann Lee (USER): test data",
        ),
        (of("retry", "now"), "", "now: retry: submitted", "succeeded", "retry by Ann Lee (USER): "),
        (
            of("abort", "abort"),
            "wrong order",
            "submitted → aborting",
            "failed",
            "abort by Ann Lee (USER): wrong order",
        ),
        (of("force", "force"), "stop", "submitted → failed", "failed", "force by Ann Lee (USER): stop"),
    ] {
        let gid = asked[1].1;
        let taken = ann.decide(&asked, comment).await;
        assert_eq!(
            (taken.status, taken.header("location")),
            (303, format!("/saga?gid={gid}").as_str()),
            "{}",
            taken.body
        );
        let page = ann.get(taken.header("location")).await;
        page.has(said).has("Ann Lee (");
        assert!(!ann.get(taken.header("location")).await.body.contains("role=\"status\""), "it is said once");
        assert_eq!(scene.ended(gid).await.0, end, "{gid}");
        assert_eq!(decisions(&scene, gid).await, [recorded.replace("USER", &user)], "{gid}");
    }
    let ops = scene.participant.ops_for("force");
    assert_eq!(ops, ["stock action", "pay action"], "nothing is compensated");
    let keys: Vec<String> = scene.participant.calls_for("fresh").into_iter().map(|call| call.key).collect();
    assert_eq!(keys.last().unwrap(), "fresh/stock/compensate/1");
    scene.healthy().await;
}

#[tokio::test]
async fn a_queue_is_paused_and_resumed() {
    let scene = Scene::with_worker().await;
    let ui = Ui::with_token(&login(&scene, "pgsaga_operator").await);
    let ann = ann(&ui).await;
    let asked = |action| [("action", action), ("queue", "default")];
    let (page, fields) = ann.form(&asked("pause")).await;
    page.has("No try of the queue default is claimed any more").has("Deadlines wait, too");
    assert_eq!(ann.send(&fields, "").await.header("location"), "/queues");
    ann.get("/queues").await.has("Queue default is paused.").has("by <bdi>Ann Lee (").has("Resume");
    scene.saga("later").step("a").insert().await;
    assert_eq!(ann.decide(&asked("resume"), "").await.status, 303);
    assert_eq!(scene.ended("later").await.0, "succeeded");
    let gone = ann.get(&format!("/decide?{}", encoded(&[("action", "pause"), ("queue", "none")]))).await;
    assert_eq!(gone.status, 404);
    gone.has("No saga was ever in the queue &quot;none&quot;");
}

/// A backlog that takes too long to be counted is when somebody wants to pause a queue.
#[tokio::test]
async fn a_queue_is_paused_while_its_tasks_cannot_be_counted() {
    let scene = Scene::new().await;
    let ui = Ui::with_token(&login(&scene, "pgsaga_operator").await);
    let ann = ann(&ui).await;
    let mut holds = scene.pool().begin().await.unwrap();
    holds.execute("lock table pgsaga.task in access exclusive mode").await.unwrap();
    let page = ann.get("/queues").await;
    assert_eq!(page.status, 200, "{}", page.body);
    page.has("What lies in the queues is not counted. It took too long").has("not counted</span>");
    let pause = page.link("Pause").unwrap();
    assert_eq!(pause, "/decide?action=pause&queue=default");
    assert_eq!(ann.decide(&[("action", "pause"), ("queue", "default")], "").await.status, 303);
    ann.get("/queues").await.has("by <bdi>Ann Lee (");
    ann.get("/").await.has("What lies in the queues is not counted").has("All sagas by status");
    assert_eq!(ann.decide(&[("action", "resume"), ("queue", "default")], "").await.status, 303);
    holds.rollback().await.unwrap();
}

#[tokio::test]
async fn a_confirmation_shows_exactly_what_will_happen() {
    let scene = Scene::with_worker().await;
    let gate = Gate::new();
    let closed = Behaviour::Refuse("warehouse closed".into());
    let saga = scene
        .saga("s")
        .step("book")
        .step("stock")
        .compensate(closed)
        .step("mail")
        .with("compensate", serde_json::Value::Null);
    saga.step("pay").action(Behaviour::Refuse("no".into())).step("ship").insert().await;
    assert_eq!(scene.ended("s").await.0, "stuck");
    let flying = scene.saga("flying").step("first").step("second").action(Behaviour::Ok.behind(&gate));
    flying.column("request_timeout", "'60 seconds'").insert().await;
    eventually(PATIENCE, "the second call is in flight", async || {
        (scene.participant.ops_for("flying").len() == 2).then_some(())
    })
    .await;
    let ui = Ui::with_token(scene.db.url());
    let ann = ann(&ui).await;
    let url = scene.participant.url("/s/stock");
    for (asked, lines) in [
        (
            of("retry", "s"),
            vec![
                format!(
                    "The compensation of stock is called again, as try 2, under the same idempotency key, at {url}."
                ),
                "The saga goes on backwards: its status becomes aborting.".to_owned(),
                "If it is refused again, the saga is stuck again.".to_owned(),
            ],
        ),
        (
            [of("skip", "s"), vec![("step", "stock")]].concat(),
            vec![
                "The compensation of stock counts as done. It is not called any more.".to_owned(),
                "What stock did stays, unless you have undone it.".to_owned(),
            ],
        ),
        (
            of("force", "s"),
            vec![
                "The saga ends as failed, at once. Nothing more is called for it, ever.".to_owned(),
                "Done, and stays as it is: book, stock".to_owned(),
                "Never done: pay, ship.".to_owned(),
            ],
        ),
        (
            of("resolve-succeeded", "flying"),
            vec![
                "The saga ends as succeeded, as soon as the call in flight has ended.".to_owned(),
                "May have happened, and stays as it is: second.".to_owned(),
            ],
        ),
        (
            of("abort", "flying"),
            vec![
                "No new action starts; calls in flight end first.".to_owned(),
                "Compensated, as far as it may have taken effect, the last first: second, first.".to_owned(),
            ],
        ),
    ] {
        let (page, _) = ann.form(&asked).await;
        for line in lines {
            page.has(&line);
        }
    }
    gate.open();
    let refused = ann.get("/decide?action=abort&gid=s").await;
    assert_eq!(refused.status, 409);
    refused.has("The saga s is stuck: that cannot be decided about it now. Allowed: Retry");
}

#[tokio::test]
async fn what_changed_after_it_was_read_is_not_decided() {
    let scene = Scene::with_worker().await;
    stuck(&scene, "s").await;
    let ui = Ui::with_token(scene.db.url());
    let ann = ann(&ui).await;
    let (_, force) = ann.form(&of("force", "s")).await;
    // Somebody else was faster, and the participant refuses again.
    scene.participant.on("/s/stock", "compensate", Behaviour::Refuse("closed for good".into()));
    let (_, retry) = ann.form(&of("retry", "s")).await;
    assert_eq!(ann.send(&retry, "").await.status, 303);
    eventually(PATIENCE, "it is stuck again", async || {
        (scene.history("s").await.len() == 4 && scene.ended("s").await.0 == "stuck").then_some(())
    })
    .await;
    let again = ann.send(&retry, "").await;
    assert_eq!(again.status, 409, "it would be another try than the one that was shown");
    again.has("Meanwhile something changed").has("as try 3");
    assert_eq!(decisions(&scene, "s").await.len(), 1);
    // What forcing does is still the same.
    assert_eq!(ann.send(&force, "given up").await.status, 303);
    let over = ann.send(&force, "twice").await;
    assert_eq!(over.status, 409);
    over.has("Allowed: nothing any more");
    assert_eq!(decisions(&scene, "s").await.len(), 2);
}

/// After it was compared with what was shown, a decision waits for a row: what is committed counts.
#[tokio::test]
async fn what_changes_while_a_decision_waits_for_its_locks_is_not_decided() {
    let scene = Scene::with_worker().await;
    stuck(&scene, "s").await;
    let ui = Ui::with_token(&login(&scene, "pgsaga_operator").await);
    let ann = ann(&ui).await;
    let waiting = format!(
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and usename = '{}_pgsaga_operator'",
        scene.db.name()
    );
    let waits = async || {
        eventually(PATIENCE, "the decision waits", async || {
            let count = sqlx::query_scalar::<_, i64>(AssertSqlSafe(waiting.clone()));
            (count.fetch_one(scene.pool()).await.unwrap() == 1).then_some(())
        })
        .await;
    };
    let (_, retry) = ann.form(&of("retry", "s")).await;
    let settling = async |and_then: &'static str| {
        let mut settle = scene.pool().begin().await.unwrap();
        settle.execute("select from pgsaga.saga where gid = 's' for update").await.unwrap();
        settle.execute(and_then).await.unwrap();
        let commit = async {
            waits().await;
            settle.commit().await.unwrap();
        };
        futures_util::join!(ann.send(&retry, ""), commit).0
    };
    let refused = settling(
        "update pgsaga.stuck set attempt = attempt + 1; update pgsaga.saga set version = version + 1",
    )
    .await;
    assert_eq!(refused.status, 409, "{}", refused.body);
    refused.has("Meanwhile something changed").has("as try 3");
    assert_eq!(decisions(&scene, "s").await, Vec::<String>::new());
    assert_eq!(scene.status("s").await.unwrap().0, "stuck");
    // What has no consequence does not keep the decision from being taken.
    scene.pool().execute("update pgsaga.stuck set attempt = attempt - 1").await.unwrap();
    let taken = settling("update pgsaga.saga set version = version + 1").await;
    assert_eq!(taken.status, 303, "{}", taken.body);
    assert_eq!(decisions(&scene, "s").await.len(), 1);
}

#[tokio::test]
async fn a_comment_is_asked_for_where_it_is_needed() {
    let scene = Scene::with_worker().await;
    stuck(&scene, "s").await;
    let ui = Ui::with_token(scene.db.url());
    let ann = ann(&ui).await;
    let long = "x".repeat(1025);
    for (asked, comment, says) in [
        (of("force", "s"), "", "comment: found nothing; allowed: 1 to 1,024 bytes"),
        (of("force", "s"), "   ", "comment: found nothing"),
        (of("resolve-failed", "s"), long.as_str(), "found 1025 bytes; allowed: 1 to 1,024 bytes"),
    ] {
        let refused = ann.decide(&asked, comment).await;
        assert_eq!(refused.status, 400, "{}", refused.body);
        refused.has(says).has("What will happen");
    }
    for (query, says) in [
        ("action=destroy&gid=s", "allowed: retry, retry-fresh, complete-success, complete-failure, skip"),
        ("action=skip&gid=s", "step: found nothing"),
        ("action=retry", "gid: found nothing"),
        ("action=pause", "queue: found nothing"),
    ] {
        let bad = ann.get(&format!("/decide?{query}")).await;
        assert_eq!(bad.status, 400, "{query}");
        bad.has(says);
    }
    assert_eq!(ann.get("/decide?action=retry&gid=none").await.status, 404);
    assert_eq!(decisions(&scene, "s").await, Vec::<String>::new());
}

#[tokio::test]
async fn a_page_without_a_token_decides_nothing() {
    let scene = Scene::with_worker().await;
    stuck(&scene, "s").await;
    let ui = Ui::read_only(scene.db.url());
    let visitor = Visitor::of(&ui).await;
    for path in ["/", "/stuck", "/saga?gid=s", "/queues"] {
        let page = visitor.get(path).await.fine();
        assert!(!page.contains("/decide") && !page.contains("/login"), "{path}: {page}");
        assert!(page.contains("read-only"), "{path}");
    }
    for action in DECISIONS.into_iter().chain(["pause", "resume"]) {
        let asked = [
            ("action", action),
            ("gid", "s"),
            ("step", "stock"),
            ("queue", "default"),
            ("comment", "x"),
            ("form_token", ""),
            ("stamp", ""),
        ];
        for answer in [
            visitor.get(&format!("/decide?{}", encoded(&asked))).await,
            visitor.post("/decide", &asked).await,
        ] {
            assert_eq!(answer.status, 403, "{action}");
            answer.has("read-only");
        }
    }
    assert_eq!(visitor.get("/login").await.status, 403);
    assert_eq!(visitor.post("/login", &[("name", "a"), ("token", "")]).await.status, 403);
    assert_eq!(decisions(&scene, "s").await, Vec::<String>::new());
    assert_eq!(scene.status("s").await.unwrap().0, "stuck");
}

#[tokio::test]
async fn who_is_not_logged_in_decides_nothing() {
    let scene = Scene::with_worker().await;
    stuck(&scene, "s").await;
    let ui = Ui::with_token(scene.db.url());
    let visitor = Visitor::of(&ui).await;
    let asked = visitor.get("/decide?action=force&gid=s").await;
    assert_eq!(
        (asked.status, asked.header("location")),
        (303, "/login?to=%2Fdecide%3Faction%3Dforce%26gid%3Ds")
    );
    let (_, fields) = ann(&ui).await.form(&of("force", "s")).await;
    assert_eq!(visitor.send(&fields, "x").await.status, 401, "a form of somebody else's");
    let mut bob = Visitor::of(&ui).await;
    bob.log_in("Bob").await;
    let stolen = bob.send(&fields, "x").await;
    assert_eq!(stolen.status, 403);
    stolen.has("This form is not of your session");
    let (_, mut own) = bob.form(&of("force", "s")).await;
    own.retain(|(name, _)| name != "form_token");
    assert_eq!(bob.send(&own, "x").await.status, 403, "without its form token");
    assert_eq!(decisions(&scene, "s").await, Vec::<String>::new());
}

#[tokio::test]
async fn logging_out_ends_the_session() {
    let scene = Scene::new().await;
    scene
        .pool()
        .execute("insert into pgsaga.saga (gid, steps) values ('s', '[{\"action\": \"\"}]')")
        .await
        .unwrap();
    let ui = Ui::with_token(scene.db.url());
    let ann = ann(&ui).await;
    let (_, fields) = ann.form(&of("force", "s")).await;
    let form_token = &fields.iter().find(|(name, _)| name == "form_token").unwrap().1;
    assert_eq!(ann.post("/logout", &[("form_token", "x")]).await.status, 403);
    ann.get("/").await.has("<bdi>Ann Lee</bdi>");
    let left = ann.post("/logout", &[("form_token", form_token)]).await;
    assert_eq!(left.status, 303);
    assert!(left.header("set-cookie").contains("Max-Age=0"), "{}", left.header("set-cookie"));
    assert_eq!(ann.send(&fields, "x").await.status, 401, "the cookie is worth nothing");
    assert!(ann.ask(Method::GET, "/", &[], "").await.link("Log in").is_some());
}
