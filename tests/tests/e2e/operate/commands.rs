//! What a person decides on the command line: for one saga, and in bulk.

use pgsaga_tests::command::{Said, run, run_as};
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Gate, Participant, eventually};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _};

/// A saga whose compensation of `stock` is refused, once it is stuck.
async fn stuck(scene: &Scene, gid: &str, queue: &'static str) {
    scene
        .saga(gid)
        .column("queue", queue)
        .step("stock")
        .compensate(Behaviour::Refuse("gone".into()))
        .step("pay")
        .action(Behaviour::Refuse("no".into()))
        .insert()
        .await;
    assert_eq!(scene.ended(gid).await.0, "stuck");
}

/// A saga that waits for an hour after its first try of `pay`.
async fn waiting(scene: &Scene, gid: &str, columns: &[(&'static str, &str)]) {
    let mut saga = scene.saga(gid).column("retry_interval", "'1 hour'");
    for (name, literal) in columns {
        saga = saga.column(name, literal);
    }
    saga.step("stock").step("pay").action(Behaviour::Status(503)).insert().await;
    eventually(PATIENCE, "the first try is settled", async || {
        (scene.history(gid).await.len() == 2).then_some(())
    })
    .await;
}

#[track_caller]
pub(crate) fn assert_said(said: &Said, code: i32, words: &str) {
    assert_eq!(said.code, Some(code), "{}{}", said.out, said.err);
    assert!(
        said.out.contains(words) || said.err.contains(words),
        "{words:?} is not in\n{}{}",
        said.out,
        said.err
    );
}

/// A saga's decisions as `"skip by postgres: why"`.
async fn decisions(scene: &Scene, gid: &str) -> Vec<String> {
    sqlx::query_scalar(
        "select concat_ws(' ', decision, step, message) from pgsaga.saga_timeline
         where gid = $1 and kind = 'decision' order by seq",
    )
    .bind(gid)
    .fetch_all(scene.pool())
    .await
    .unwrap()
}

#[tokio::test]
async fn each_decision_takes_effect_and_is_recorded() {
    let scene = Scene::with_worker().await;
    let db = &scene.db;
    waiting(&scene, "abort", &[]).await;
    assert_said(&run(db, &["abort", "abort", "--reason", "wrong"]), 0, "abort: submitted → aborting");
    let ops = ["stock action", "pay action", "pay compensate", "stock compensate"];
    scene.expect("abort", "failed", Some("pay: aborted: wrong"), &ops).await;

    waiting(&scene, "force", &[]).await;
    assert_said(&run(db, &["force", "force", "--comment", "by hand"]), 0, "force: submitted → failed");
    assert_eq!(scene.participant.ops_for("force"), ["stock action", "pay action"], "nothing is compensated");
    assert_eq!(scene.status("force").await.unwrap().1.unwrap(), "pay: stopped without compensating: by hand");

    waiting(&scene, "now", &[]).await;
    scene.participant.on("/now/pay", "action", Behaviour::Ok);
    assert_said(&run(db, &["retry", "now"]), 0, "now: submitted\n");
    scene.expect("now", "succeeded", None, &["stock action", "pay action", "pay action"]).await;

    stuck(&scene, "retry", "'default'").await;
    scene.participant.on("/retry/stock", "compensate", Behaviour::Ok);
    assert_said(&run(db, &["retry", "retry", "--comment", "repaired"]), 0, "retry: stuck → aborting");
    assert_eq!(scene.ended("retry").await, ("failed".into(), Some("pay: no".into())));

    stuck(&scene, "fresh", "'default'").await;
    scene.participant.on("/fresh/stock", "compensate", Behaviour::Ok);
    assert_said(&run(db, &["retry", "fresh", "--fresh-key"]), 0, "fresh: stuck → aborting");
    scene.ended("fresh").await;
    let calls = scene.participant.calls_for("fresh");
    let keys: Vec<&str> = calls.iter().rev().take(2).map(|call| call.key.as_str()).collect();
    assert_eq!(keys[1], "fresh/stock/compensate");
    assert_ne!(keys[0], keys[1], "a new idempotency key");

    stuck(&scene, "skip", "'default'").await;
    assert_said(&run(db, &["skip", "skip", "stock", "--comment", "by hand"]), 0, "skip: stuck → aborting");
    assert_eq!(scene.ended("skip").await.0, "failed");

    stuck(&scene, "resolve", "'default'").await;
    assert_said(
        &run(db, &["resolve", "resolve", "succeeded", "--comment", "seen to"]),
        0,
        "resolve: stuck → succeeded",
    );
    assert_eq!(scene.status("resolve").await.unwrap().0, "succeeded");

    for (gid, decided) in [
        ("abort", "abort wrong"),
        ("force", "force by hand"),
        ("now", "retry"),
        ("retry", "retry stock repaired"),
        ("fresh", "retry stock with a fresh key"),
        ("skip", "skip stock by hand"),
        ("resolve", "resolve succeeded: seen to"),
    ] {
        assert_eq!(decisions(&scene, gid).await, [decided], "{gid}");
    }
    scene.healthy().await;
}

#[tokio::test]
async fn refusals_have_the_databases_words_and_their_exit_codes() {
    let scene = Scene::with_worker().await;
    let db = &scene.db;
    scene.saga("over").step("a").insert().await;
    scene.ended("over").await;
    waiting(&scene, "open", &[]).await;
    scene.saga("future").column("run_at", "now() + interval '1 hour'").step("a").insert().await;
    for (args, code, words) in [
        (&["abort", "none", "--reason", "x"][..], 4, "no saga has the gid \"none\""),
        (&["force", "none", "--comment", "x"], 4, "no saga has the gid \"none\""),
        (&["retry", "none"], 4, "no saga has the gid \"none\""),
        (&["skip", "none", "a", "--comment", "x"], 4, "no saga has the gid \"none\""),
        (&["resolve", "none", "failed", "--comment", "x"], 4, "no saga has the gid \"none\""),
        (&["skip", "open", "b", "--comment", "x"], 4, "saga open has no step \"b\""),
        (&["pause", "none"], 4, "no saga was ever in the queue \"none\""),
        (&["resume", "none"], 4, "no saga was ever in the queue \"none\""),
        (
            &["abort", "over", "--reason", "x"],
            1,
            "saga over has succeeded: nothing can be decided about it any more",
        ),
        (&["force", "over", "--comment", "x"], 1, "saga over has succeeded"),
        (&["retry", "over"], 1, "saga over has succeeded"),
        (&["skip", "over", "a", "--comment", "x"], 1, "saga over has succeeded"),
        (&["resolve", "over", "failed", "--comment", "x"], 1, "saga over has succeeded"),
        (
            &["skip", "open", "stock", "--comment", "x"],
            1,
            "step \"stock\" of saga open neither runs nor is stuck; allowed: \"pay\"",
        ),
        (&["retry", "future"], 1, "saga future is submitted: nothing of it is stuck or waits for a retry"),
        (&["retry", "open", "--fresh-key"], 1, "only a stuck step gets a fresh key"),
        (
            &["abort", "open", "--reason", " "],
            2,
            "reason: found nothing; allowed: 1 to 1,024 bytes that say why",
        ),
        (&["skip", "open", "pay", "--comment", ""], 2, "comment: found nothing"),
        (&["abort", "open"], 2, "--reason"),
        (&["force", "open"], 2, "--comment"),
        (&["skip", "open", "--comment", "x"], 2, "<STEP>"),
        (&["resolve", "open", "stuck", "--comment", "x"], 2, "possible values: succeeded, failed"),
        (&["retry"], 2, "<GID>"),
        (&["retry", "open", "--stuck"], 2, "cannot be used with"),
        // Never taken for an order to do it.
        (&["retry", "open", "--dry-run"], 2, "cannot be used with"),
        (&["skip", "open", "pay", "--comment", "x", "--dry-run"], 2, "cannot be used with"),
        (&["abort", "open", "--reason", "x", "--dry-run"], 2, "cannot be used with"),
        (&["resolve", "open", "failed", "--comment", "x", "--limit", "1"], 2, "cannot be used with"),
        (&["retry", "--dry-run"], 2, "--stuck"),
        (
            &["abort", "--open", "--reason", "x"],
            2,
            "--label <KEY[=VALUE]>|--participant <HOST[:PORT]>|--queue <NAME>",
        ),
        (&["abort", "--queue", "default", "--reason", "x"], 2, "--open"),
    ] {
        let said = run(db, args);
        assert_eq!(said.code, Some(code), "{args:?}: {}{}", said.out, said.err);
        assert!(said.err.contains(words), "{args:?}: {}", said.err);
    }
    assert_eq!(decisions(&scene, "open").await, Vec::<String>::new());
    assert_eq!(decisions(&scene, "over").await, Vec::<String>::new());
    assert_eq!(scene.status("open").await.unwrap().0, "submitted");

    let database: String =
        sqlx::query_scalar("select current_database()::text").fetch_one(scene.pool()).await.unwrap();
    for (role, code) in [("operator", 0), ("producer", 0), ("reader", 5)] {
        let user = format!("{database}_{role}");
        let create = format!("create role {user} login in role pgsaga_{role}");
        scene.pool().execute(AssertSqlSafe(create)).await.unwrap();
        let url = db.url().replace("postgres://postgres@", &format!("postgres://{user}@"));
        let gid = format!("of-{role}");
        waiting(&scene, &gid, &[]).await;
        let said = run_as(&url, &["abort", &gid, "--reason", "may I"]);
        assert_eq!(said.code, Some(code), "{role}: {}{}", said.out, said.err);
        // Whoever reads can look at everything.
        let readable = if role == "producer" { 5 } else { 0 };
        for look in [&["show", &gid][..], &["show", &gid, "--json"], &["list"], &["queues"]] {
            assert_eq!(run_as(&url, look).code, Some(readable), "{role} {look:?}");
        }
    }
}

#[tokio::test]
async fn a_paused_queue_stands_still_and_queues_shows_it() {
    let scene = Scene::with_worker().await;
    let db = &scene.db;
    scene.saga("first").column("queue", "'bulk'").step("a").insert().await;
    scene.ended("first").await;
    assert_eq!(run(db, &["pause", "bulk"]).fine(), "queue bulk is paused\n");
    scene.saga("held").column("queue", "'bulk'").column("priority", "0").step("a").insert().await;
    scene.saga("free").step("a").insert().await;
    scene.ended("free").await;
    assert_eq!(scene.status("held").await.unwrap().0, "submitted");
    let rows: Vec<Value> = run(db, &["queues", "--json"])
        .fine()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let row = |queue: &str, priority: i32| {
        rows.iter().find(|row| row["queue"] == queue && row["priority"] == priority).unwrap()
    };
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert_eq!((&row("bulk", 0)["due"], &row("bulk", 0)["paused_by"]), (&json!(1), &json!("postgres")));
    assert_eq!((&row("bulk", 1)["due"], &row("default", 1)["paused_at"]), (&json!(0), &json!(null)));
    let table = run(db, &["queues"]).fine();
    assert!(
        table
            .lines()
            .any(|line| line.contains("bulk") && line.contains("since 20") && line.contains("by postgres")),
        "{table}"
    );
    assert_eq!(run(db, &["resume", "bulk"]).fine(), "queue bulk is resumed\n");
    scene.ended("held").await;
    assert!(!run(db, &["queues"]).fine().contains("since 20"));
}

#[tokio::test]
async fn a_bulk_retry_is_for_the_chosen_goes_on_after_a_refusal_and_can_be_tried_dry() {
    let scene = Scene::with_worker().await;
    let db = &scene.db;
    let other = Participant::start().await;
    stuck(&scene, "one", "'default'").await;
    stuck(&scene, "two", "'bulk'").await;
    let url = other.url("/x");
    other.on("/x", "compensate", Behaviour::Refuse("gone".into()));
    scene
        .saga("elsewhere")
        .step("stock")
        .with("compensate", json!(url))
        .step("pay")
        .action(Behaviour::Refuse("no".into()))
        .insert()
        .await;
    scene.ended("elsewhere").await;
    let here = scene.participant.address().to_string();

    let dry = run(db, &["retry", "--stuck", "--participant", &here, "--dry-run"]).fine();
    assert!(
        dry.contains("one: would retry; stuck for ") && dry.contains(": compensate of stock (stock: gone)"),
        "{dry}"
    );
    assert!(dry.ends_with("2 sagas chosen; nothing was changed\n") && !dry.contains("elsewhere"), "{dry}");
    for (flags, chosen) in [
        (&[][..], 3),
        (&["--queue", "bulk"], 1),
        (&["--limit", "2"], 2),
        (&["--older-than", "1h"], 0),
        (&["--participant", "nobody.example"], 0),
    ] {
        let dry = run(db, &[&["retry", "--stuck", "--dry-run"], flags].concat()).fine();
        assert_eq!(dry.lines().count(), chosen + 1, "{flags:?}\n{dry}");
    }
    for gid in ["one", "two", "elsewhere"] {
        assert_eq!(scene.status(gid).await.unwrap().0, "stuck", "a dry run changes nothing");
        assert!(decisions(&scene, gid).await.is_empty());
    }

    // The second has a try that was not definitely refused: a fresh key could do it twice.
    sqlx::raw_sql(
        "update pgsaga.history set outcome = 'unknown' where op = 'compensate'
         and saga_id = (select id from pgsaga.saga where gid = 'one')",
    )
    .execute(scene.pool())
    .await
    .unwrap();
    for gid in ["one", "two"] {
        scene.participant.on(&format!("/{gid}/stock"), "compensate", Behaviour::Ok);
    }
    let said = run(db, &["retry", "--stuck", "--participant", &here, "--fresh-key", "--comment", "repaired"]);
    assert_said(
        &said,
        1,
        "one: retry with a fresh key: refused: step \"stock\": some compensate of it was not definitely refused",
    );
    assert_said(&said, 1, "two: retry with a fresh key: stuck → aborting");
    assert_said(&said, 1, "1 saga done, 1 refused");
    assert_said(&said, 1, "pgsaga: 1 of 2 sagas refused");
    scene
        .expect(
            "two",
            "failed",
            Some("pay: no"),
            &["stock action", "pay action", "stock compensate", "stock compensate"],
        )
        .await;
    assert_eq!(scene.status("one").await.unwrap().0, "stuck");
    assert_eq!(scene.status("elsewhere").await.unwrap().0, "stuck");
    let said = run(db, &["retry", "--stuck", "--queue", "bulk"]);
    assert_said(&said, 0, "0 sagas done, 0 refused");
}

#[tokio::test]
async fn a_bulk_skip_is_for_each_stuck_step_and_a_bulk_resolve_for_each_saga() {
    let scene = Scene::with_worker().await;
    let db = &scene.db;
    let refused = || Behaviour::Refuse("gone".into());
    let both = |gid: &'static str| {
        let saga = scene.saga(gid).step("a").with("after", json!([])).compensate(refused());
        saga.step("b").with("after", json!([])).compensate(refused())
    };
    for gid in ["skipped", "resolved"] {
        let last = both(gid).step("c").with("after", json!(["a", "b"]));
        last.action(Behaviour::Refuse("no".into())).insert().await;
        eventually(PATIENCE, "two steps are stuck", async || {
            let stuck: i64 = sqlx::query_scalar(
                "select count(*) from pgsaga.stuck where saga_id = (select id from pgsaga.saga where gid = $1)",
            )
            .bind(gid)
            .fetch_one(scene.pool())
            .await
            .unwrap();
            (stuck == 2).then_some(())
        })
        .await;
        if gid == "skipped" {
            let said = run(db, &["skip", "--stuck", "--comment", "by hand"]);
            assert_said(&said, 0, "skipped: skip a: stuck\n");
            assert_said(&said, 0, "skipped: skip b: stuck → aborting\n2 steps done, 0 refused\n");
            assert_eq!(scene.ended(gid).await, ("failed".into(), Some("c: no".into())));
        }
    }
    let said = run(db, &["resolve", "--stuck", "failed", "--comment", "seen to"]);
    assert_said(&said, 0, "resolved: resolve as failed: stuck → failed\n1 saga done, 0 refused\n");
    assert_eq!(decisions(&scene, "skipped").await, ["skip a by hand", "skip b by hand"]);
    assert_eq!(decisions(&scene, "resolved").await, ["resolve failed: seen to"]);
    scene.healthy().await;
}

#[tokio::test]
async fn a_bulk_abort_needs_a_filter_and_leaves_the_rest_alone() {
    let scene = Scene::with_worker().await;
    let db = &scene.db;
    waiting(&scene, "a-1", &[("labels", "'{\"tenant\": \"a\"}'")]).await;
    waiting(&scene, "a-2", &[("labels", "'{\"tenant\": \"a\"}'"), ("queue", "'bulk'")]).await;
    waiting(&scene, "b-1", &[("labels", "'{\"tenant\": \"b\"}'")]).await;
    // Rolls back already, for as long as its call takes.
    let columns = [("labels", "'{\"tenant\": \"a\"}'"), ("request_timeout", "'60 seconds'")];
    waiting(&scene, "turned", &columns).await;
    let gate = Gate::new();
    scene.participant.on("/turned/pay", "compensate", Behaviour::Gate(gate.clone()));
    run(db, &["abort", "turned", "--reason", "before"]).fine();

    for (flags, chosen) in [
        (&["--label", "tenant=a"][..], &["a-1", "a-2"][..]),
        (&["--label", "tenant"], &["a-1", "a-2", "b-1"]),
        (&["--queue", "bulk"], &["a-2"]),
        (&["--label", "tenant=a", "--queue", "default"], &["a-1"]),
        (&["--participant", "nobody.example"], &[]),
        (&["--label", "tenant", "--limit", "1"], &["a-1"]),
        (&["--label", "tenant", "--older-than", "1h"], &[]),
    ] {
        let flags = [&["abort", "--open", "--reason", "x", "--dry-run"], flags].concat();
        let dry = run(db, &flags).fine();
        let gids: Vec<&str> = dry
            .lines()
            .filter_map(|line| line.split_once(": would abort; submitted for "))
            .map(|line| line.0)
            .collect();
        assert_eq!(gids, chosen, "{flags:?}\n{dry}");
    }
    let said = run(db, &["abort", "--open", "--label", "tenant=a", "--reason", "the tenant left"]);
    assert_said(
        &said,
        0,
        "a-1: abort: submitted → aborting\na-2: abort: submitted → aborting\n2 sagas done, 0 refused\n",
    );
    for gid in ["a-1", "a-2"] {
        assert_eq!(scene.ended(gid).await, ("failed".into(), Some("pay: aborted: the tenant left".into())));
    }
    assert_eq!(scene.status("b-1").await.unwrap().0, "submitted");
    gate.open();
    assert_eq!(scene.ended("turned").await.1.unwrap(), "pay: aborted: before");
    scene.healthy().await;
}
