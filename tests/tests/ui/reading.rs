//! What the pages show.

use pgsaga_tests::Behaviour::{Json, Refuse};
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Ui, binary, eventually};
use reqwest::Method;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::story::{login, stuck, waiting};
use crate::visitor::Visitor;

/// Sagas with an empty action, which no worker has claimed: `gid`s are `name` and a number of six
/// digits.
async fn insert(scene: &Scene, name: &str, count: u32, columns: &str, values: &str) {
    let insert = format!(
        "insert into pgsaga.saga (gid, steps{columns})
         select '{name}' || lpad(n::text, 6, '0'), '[{{\"action\": \"\"}}]'{values} from generate_series(1, {count}) n"
    );
    scene.pool().execute(AssertSqlSafe(insert)).await.unwrap();
}

/// The gids of a list, in its order.
fn gids(page: &str) -> Vec<String> {
    let rows = page.split("<th role=\"rowheader\"").skip(1);
    rows.filter_map(|row| Some(row.split("<bdi>").nth(1)?.split("</bdi>").next()?.to_owned())).collect()
}

#[tokio::test]
async fn the_overview_counts_sagas_and_shows_queues_and_workers() {
    let scene = Scene::with_worker().await;
    scene.saga("fine").step("pay").insert().await;
    scene.ended("fine").await;
    stuck(&scene, "broken").await;
    let ui = Ui::read_only(scene.db.url());
    let visitor = Visitor::of(&ui).await;
    let page = visitor.get("/").await;
    for words in [
        "All sagas by status",
        "data-status=\"succeeded\">1<",
        "data-status=\"stuck\">1<",
        "data-status=\"failed\">0<",
        "1 saga is stuck",
        "<caption>Queues</caption>",
        "<caption>Workers</caption>",
        "<a href=\"/\">Refresh</a>",
        "Skip to the content",
        "aria-current=\"page\">Overview",
        &format!("process {}", scene.workers[0].pid()),
        &format!("database <bdi>{}</bdi>", scene.db.name()),
    ] {
        page.has(words);
    }
    let live = visitor.get("/live").await.fine();
    assert!(live.contains("data-status=\"succeeded\">1<") && !live.contains("<html"), "{live}");
    scene.saga("more").step("pay").insert().await;
    scene.ended("more").await;
    eventually(PATIENCE, "the fragment counts it", async || {
        visitor.get("/live").await.fine().contains("data-status=\"succeeded\">2<").then_some(())
    })
    .await;
    let workers = visitor.get("/workers").await.fine();
    assert!(workers.contains("<span class=\"badge alive\">alive</span>"), "{workers}");
    assert!(visitor.get("/queues").await.fine().contains("queue=default"));
}

#[tokio::test]
async fn sagas_are_paged_from_the_newest_without_gap_or_repetition() {
    let scene = Scene::new().await;
    insert(&scene, "p", 120, "", "").await;
    let ui = Ui::read_only(scene.db.url());
    let visitor = Visitor::of(&ui).await;
    let (mut path, mut seen, mut pages) = ("/sagas".to_owned(), Vec::new(), 0);
    loop {
        let page = visitor.get(&path).await;
        // What is inserted meanwhile does not move the pages.
        insert(&scene, &format!("later{pages}-"), 3, "", "").await;
        pages += 1;
        let older = page.link("Older");
        seen.extend(gids(&page.fine()));
        match older {
            Some(older) => path = older,
            None => break,
        }
    }
    let expected: Vec<String> = (1..=120).rev().map(|n| format!("p{n:06}")).collect();
    assert_eq!((pages, seen), (3, expected));
}

#[tokio::test]
async fn sagas_are_filtered_by_status_queue_label_and_text() {
    let scene = Scene::with_worker().await;
    stuck(&scene, "broken").await;
    scene.saga("fine").step("pay").insert().await;
    scene.ended("fine").await;
    waiting(&scene, "waits").await;
    scene
        .saga("other-queue")
        .column("queue", "'slow'")
        .column("run_at", "now() + interval '1 hour'")
        .step("a")
        .insert()
        .await;
    let labels = "'{\"tenant\": \"7\", \"tier\": \"a=b&c\"}'";
    scene
        .saga("labelled")
        .column("labels", labels)
        .column("run_at", "now() + interval '1 hour'")
        .step("a")
        .insert()
        .await;
    let ui = Ui::read_only(scene.db.url());
    let visitor = Visitor::of(&ui).await;
    for (query, expected) in [
        ("", &["labelled", "other-queue", "waits", "fine", "broken"][..]),
        ("status=stuck", &["broken"]),
        ("status=succeeded", &["fine"]),
        ("status=open", &["labelled", "other-queue", "waits", "broken"]),
        ("status=submitted&queue=default", &["labelled", "waits"]),
        ("queue=slow", &["other-queue"]),
        ("label=tenant", &["labelled"]),
        ("label=tenant%3D7&label=tier%3Da%3Db%26c", &["labelled"]),
        ("label=tenant%3D8", &[]),
        ("text=ait", &["waits"]),
        ("text=QUEUE", &[]),
    ] {
        let page = visitor.get(&format!("/sagas?{query}")).await.fine();
        assert_eq!(gids(&page), expected, "{query}");
    }
    for (query, says) in [
        ("status=done", "allowed: open, submitted, aborting, stuck, succeeded, failed"),
        ("text=%25", "allowed: what a gid may have in it"),
        ("before=soon", "allowed: a whole number"),
        ("page=2", "allowed: status, queue, label, text, before"),
        ("label=%3D1", "allowed: KEY=VALUE"),
        ("queue=%00", "allowed: other text"),
    ] {
        let page = visitor.get(&format!("/sagas?{query}")).await;
        assert_eq!(page.status, 400, "{query}");
        page.has(says);
    }
}

#[tokio::test]
async fn a_search_looks_at_a_bounded_number_of_sagas_and_says_how_far() {
    let scene = Scene::new().await;
    insert(&scene, "oldest", 1, "", "").await;
    insert(&scene, "n", 21_000, "", "").await;
    scene.pool().execute("analyze pgsaga.saga; analyze pgsaga.task").await.unwrap();
    let ui = Ui::read_only(scene.db.url());
    let visitor = Visitor::of(&ui).await;
    for filter in ["text=oldest", "text=oldest&status=open"] {
        let page = visitor.get(&format!("/sagas?{filter}")).await;
        page.has("Looked at 20,000 sagas").has("No saga among these passes the filters");
        let further = visitor.get(&page.link("Look further").unwrap()).await.fine();
        assert_eq!(gids(&further), ["oldest000001"], "{filter}");
        assert!(!further.contains("Look further"), "{filter}: it is the end");
    }
    let exact = visitor.get("/sagas?text=oldest000001").await;
    exact.has("A saga has just this gid");
    assert!(exact.link("oldest000001").unwrap().starts_with("/saga?gid=oldest000001"));
}

/// Each statement can be planned while the tables are empty; with 21,000 sagas none reads a table
/// from end to end.
#[tokio::test]
async fn the_lists_walk_their_indexes() {
    let scene = Scene::new().await;
    let mut connection = PgConnection::connect(scene.db.url()).await.unwrap();
    for filled in [false, true] {
        if filled {
            insert(&scene, "n", 21_000, "", "").await;
            connection
                .execute("analyze pgsaga.saga; analyze pgsaga.task; analyze pgsaga.stuck")
                .await
                .unwrap();
        }
        for (sql, arguments) in [
            (pgsaga_sql::query::UiSagas::SQL, "10000, '{failed}', 'x', '{a}', '{b}', 'x', 20000, 51"),
            (pgsaga_sql::query::UiSagas::SQL, "null, null, null, null, null, null, 20000, 51"),
            (pgsaga_sql::query::UiSagasOpen::SQL, "null, null, null, null, null, 'x', 2000, 51, true"),
            (pgsaga_sql::query::UiSagasOpen::SQL, "null, '{stuck}', null, null, null, 'x', 2000, 51, false"),
            (pgsaga_sql::query::UiSagasLooked::SQL, "10000, 2000, false, false"),
            (pgsaga_sql::query::UiSagasLooked::SQL, "10000, 2000, true, true"),
            (pgsaga_sql::query::UiHistory::SQL, "1, 100, 101, 20000"),
            (pgsaga_sql::query::UI_OVERVIEW, "10000"),
        ] {
            connection.execute(AssertSqlSafe(format!("prepare p as {sql}"))).await.unwrap();
            let explain = AssertSqlSafe(format!("explain (costs off) execute p ({arguments})"));
            let plan: Vec<String> = sqlx::query_scalar(explain).fetch_all(&mut connection).await.unwrap();
            let plan = plan.join("\n");
            connection.execute("deallocate p").await.unwrap();
            if filled {
                assert!(!plan.contains("Seq Scan on saga"), "{plan}");
                assert!(!plan.contains("Seq Scan on history"), "{plan}");
                assert!(!plan.contains("Seq Scan on task"), "{plan}");
            }
            let walks = plan.contains("Index Scan Backward using saga_pkey")
                || !sql.contains("saga where id < coalesce");
            assert!(walks || !filled, "{plan}");
        }
    }
}

#[tokio::test]
async fn one_saga_is_shown_with_every_try_and_its_answer() {
    let scene = Scene::with_worker().await;
    let saga = scene.saga("s").column("labels", "'{\"tenant\": \"7\"}'").step("stock");
    let saga = saga
        .action(Json(200, json!({"room": "twelve"})))
        .step("pay")
        .with("payload", json!({"room": {"$from": "stock", "path": "/room"}}));
    saga.action(Refuse("card declined".into())).insert().await;
    scene.ended("s").await;
    let ui = Ui::read_only(scene.db.url());
    let visitor = Visitor::of(&ui).await;
    let page = visitor.get("/saga?gid=s").await;
    for words in [
        "<span class=\"badge failed\">failed</span>",
        "pay: card declined",
        "nothing: it is over",
        "undone",
        "<span class=\"badge good\">success</span> 200",
        "<span class=\"badge bad\">failure</span> 409",
        "try 1",
        "tenant",
        "compensate",
        "&quot;room&quot;: &quot;twelve&quot;",
        &scene.participant.url("/s/stock"),
    ] {
        page.has(words);
    }
    let unknown = visitor.get("/saga?gid=no-such-one").await;
    assert_eq!(unknown.status, 404);
    unknown.has("No saga has the gid &quot;no-such-one&quot;");
    for gid in ["%3Cscript%3E", "a%00b", ".."] {
        assert_eq!(visitor.get(&format!("/saga?gid={gid}")).await.status, 404, "{gid}");
    }
    assert_eq!(visitor.get("/saga").await.status, 400);
    assert_eq!(visitor.get("/nowhere").await.status, 404);
}

#[tokio::test]
async fn a_long_history_is_read_from_its_end_in_pages() {
    let scene = Scene::new().await;
    insert(&scene, "long", 1, "", "").await;
    let fill = "insert into pgsaga.history (saga_id, step, op, attempt, outcome, message)
        select id, 1, 'action', n, 'unknown', 'answer number ' || n || '.' from pgsaga.saga, generate_series(1, 250) n order by n";
    scene.pool().execute(fill).await.unwrap();
    let ui = Ui::read_only(scene.db.url());
    let visitor = Visitor::of(&ui).await;
    let (mut path, mut from) = ("/saga?gid=long000001".to_owned(), Vec::new());
    for _ in 0..3 {
        let page = visitor.get(&path).await;
        let (_, timeline) = page.body.split_once("id=\"timeline\"").unwrap();
        let numbers: Vec<u32> = timeline
            .split("answer number ")
            .skip(1)
            .filter_map(|rest| rest.split('.').next()?.parse().ok())
            .collect();
        assert!(numbers.is_sorted(), "{numbers:?}");
        from.push((numbers[0], numbers.len(), page.link("The last tries").is_some()));
        match page.link("Earlier tries") {
            Some(earlier) => path = earlier,
            None => break,
        }
    }
    assert_eq!(from, [(151, 100, false), (51, 100, true), (1, 50, true)]);
}

#[tokio::test]
async fn a_long_answer_is_cut_where_it_is_read_and_its_length_is_said() {
    let scene = Scene::new().await;
    insert(&scene, "long", 1, "", "").await;
    let fill = "insert into pgsaga.history (saga_id, step, op, attempt, outcome, answer)
        select id, 1, 'action', 1, 'success', to_json(repeat('ü', 100000))::jsonb from pgsaga.saga";
    scene.pool().execute(fill).await.unwrap();
    let ui = Ui::read_only(scene.db.url());
    let page = Visitor::of(&ui).await.get("/saga?gid=long000001").await;
    page.has("(100,002 characters)").has("The rest is in <code>pgsaga show --json</code>");
    assert_eq!(page.body.matches('ü').count(), 99 + 19_999, "what stays in sight, and what is opened");
    let mut whole = binary::command();
    whole.env("DATABASE_URL", scene.db.url()).args(["show", "--json", "long000001"]);
    let whole: serde_json::Value = serde_json::from_slice(&whole.output().unwrap().stdout).unwrap();
    assert_eq!(whole["history"][0]["answer"], "ü".repeat(100_000));
}

/// Whatever others write is text: participants in their answers, applications in labels and names.
#[tokio::test]
async fn what_others_wrote_is_never_markup() {
    const EVIL: &str = "<script>alert(1)</script><img src=x onerror=alert(2)>\"' & \u{1b}[31m\u{202e}";
    let scene = Scene::with_worker().await;
    let labels = json!({ "note": EVIL }).to_string().replace('\'', "''");
    scene
        .saga("a.b_c:d-e")
        .column("labels", &format!("'{labels}'"))
        .step("stock")
        .with("payload", json!({ "note": EVIL }))
        .compensate(Refuse(EVIL.into()))
        .step("pay")
        .action(Refuse(format!("{EVIL}\n{}", "long ".repeat(100))))
        .insert()
        .await;
    assert_eq!(scene.ended("a.b_c:d-e").await.0, "stuck");
    let retry = sqlx::query("select pgsaga.retry('a.b_c:d-e', $1)").bind(EVIL);
    retry.execute(scene.pool()).await.unwrap();
    eventually(PATIENCE, "it is stuck again", async || {
        (scene.history("a.b_c:d-e").await.len() == 4 && scene.ended("a.b_c:d-e").await.0 == "stuck")
            .then_some(())
    })
    .await;
    let ui = Ui::with_token(scene.db.url());
    let mut visitor = Visitor::of(&ui).await;
    visitor.log_in("<b>Ann</b> & \"Co\"").await;
    let decide = "/decide?action=retry&gid=a.b_c%3Ad-e";
    let evil = [
        "/saga?gid=%3Cscript%3Ealert(1)%3C/script%3E",
        "/sagas?status=%3Cscript%3E",
        "/sagas?%3Cscript%3E=1",
        "/%3Cscript%3E",
        "/login?to=%22%3E%3Cscript%3E",
    ];
    for path in ["/", "/live", "/sagas", "/saga?gid=a.b_c%3Ad-e", "/stuck", "/queues", "/workers", decide]
        .iter()
        .chain(&evil)
    {
        let page = visitor.get(path).await.body;
        let without_ours = page.replace("<script src=\"/static/live.js\" defer></script>", "");
        for markup in ["<script", "<img", "<b>Ann", "onerror=alert(2)>", "\u{1b}", "\u{202e}"] {
            assert!(!without_ours.contains(markup), "{path}: {markup:?} in\n{page}");
        }
    }
    let saga = visitor.get("/saga?gid=a.b_c%3Ad-e").await;
    saga.has("&lt;script&gt;alert(1)&lt;/script&gt;")
        .has("title=\"U+001B\">␛</span>")
        .has("title=\"U+202E\">U+202E</span>");
    saga.has("<details><summary>").has("&lt;b&gt;Ann&lt;/b&gt; &amp; &quot;Co&quot;");
    assert_eq!(visitor.ask(Method::HEAD, "/", &[], "").await.status, 200);
}

#[tokio::test]
async fn the_role_that_reads_is_enough_to_read_and_the_session_cannot_write() {
    let scene = Scene::with_worker().await;
    stuck(&scene, "broken").await;
    let ui = Ui::read_only(&login(&scene, "pgsaga_reader").await);
    let visitor = Visitor::of(&ui).await;
    for path in ["/", "/sagas", "/sagas?status=open", "/saga?gid=broken", "/stuck", "/queues", "/workers"] {
        visitor.get(path).await.fine();
    }
    // Even of a user who may do everything: each page's session says so itself.
    let ui = Ui::with_token(scene.db.url());
    let visitor = Visitor::of(&ui).await;
    scene.pool().execute("create or replace function pgsaga.writes() returns bigint language sql as 'select nextval(''pgsaga.history_seq'')'").await.unwrap();
    scene.pool().execute("alter table pgsaga.worker rename to worker_rows; create view pgsaga.worker as select w.*, pgsaga.writes() as wrote from pgsaga.worker_rows w").await.unwrap();
    let refused = visitor.get("/workers").await;
    scene
        .pool()
        .execute("drop view pgsaga.worker; alter table pgsaga.worker_rows rename to worker")
        .await
        .unwrap();
    assert_eq!(refused.status, 503, "{}", refused.body);
    refused.has("read-only transaction");
}
