//! A database that is away, not migrated, or does not allow it.

use futures_util::future::{FutureExt as _, join_all};
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Cluster, Ui, eventually};
use sqlx::{AssertSqlSafe, Executor as _};

use crate::story::{login, stuck};
use crate::visitor::Visitor;

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_is_said_and_the_page_recovers_by_itself() {
    let cluster = Cluster::own(false, true).await;
    let scene = Scene::on(&cluster).await;
    scene
        .pool()
        .execute("insert into pgsaga.saga (gid, steps) values ('s', '[{\"action\": \"\"}]')")
        .await
        .unwrap();
    cluster.server().stop().unwrap();
    // Started while nobody answers.
    let mut ui = Ui::with_token(scene.db.tcp_url().unwrap());
    let mut visitor = Visitor::of(&ui).await;
    visitor.log_in("Ann").await;
    let all = [
        "/",
        "/live",
        "/sagas",
        "/saga?gid=s",
        "/stuck",
        "/queues",
        "/workers",
        "/decide?action=force&gid=s",
    ];
    for path in all {
        let away = visitor.get(path).await;
        assert_eq!(away.status, 503, "{path}: {}", away.body);
        away.has("The database does not answer");
    }
    assert_eq!(visitor.get("/healthz").await.status, 200);
    cluster.server().start_again().unwrap();
    for path in all {
        eventually(PATIENCE, path, async || (visitor.get(path).await.status == 200).then_some(())).await;
    }
    // Under its feet, with connections open and a decision read.
    let (_, fields) = visitor.form(&[("action", "force"), ("gid", "s")]).await;
    cluster.server().stop().unwrap();
    let away = visitor.send(&fields, "x").await;
    assert_eq!(away.status, 503, "{}", away.body);
    assert_eq!(visitor.get("/live").await.status, 503);
    cluster.server().start_again().unwrap();
    eventually(PATIENCE, "the page is back", async || {
        (visitor.get("/sagas").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(visitor.send(&fields, "x").await.status, 303, "the session outlived it");
    assert!(!ui.log().join("\n").contains("panicked"));
    ui.terminate();
    assert_eq!(ui.wait_exit(PATIENCE).await.code(), Some(0));
}

#[tokio::test]
async fn a_schema_that_is_not_there_is_said_with_what_helps() {
    let scene = Scene::new().await;
    scene.pool().execute("alter schema pgsaga rename to elsewhere").await.unwrap();
    let ui = Ui::read_only(scene.db.url());
    let visitor = Visitor::of(&ui).await;
    let page = visitor.get("/sagas").await;
    assert_eq!(page.status, 503);
    page.has("The schema does not fit").has("run `pgsaga migrate`");
    scene.pool().execute("alter schema elsewhere rename to pgsaga").await.unwrap();
    visitor.get("/sagas").await.fine();
}

#[tokio::test]
async fn a_user_without_rights_is_told_which_role_is_missing() {
    let scene = Scene::with_worker().await;
    stuck(&scene, "s").await;
    let ui = Ui::read_only(&login(&scene, "pgsaga_producer").await);
    let page = Visitor::of(&ui).await.get("/stuck").await;
    assert_eq!(page.status, 503);
    page.has("needs the role pgsaga_reader; to decide, pgsaga_operator");
    let ui = Ui::with_token(&login(&scene, "pgsaga_reader").await);
    let mut reader = Visitor::of(&ui).await;
    reader.log_in("Ann").await;
    let refused = reader.decide(&[("action", "retry"), ("gid", "s")], "").await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    refused.has("to decide, pgsaga_operator");
    assert_eq!(scene.status("s").await.unwrap().0, "stuck");
}

#[tokio::test]
async fn a_question_that_takes_too_long_is_given_up() {
    let scene = Scene::new().await;
    let ui = Ui::read_only(scene.db.url());
    let visitor = Visitor::of(&ui).await;
    visitor.get("/workers").await.fine();
    let mut holds = scene.pool().begin().await.unwrap();
    holds
        .execute(AssertSqlSafe("lock table pgsaga.worker in access exclusive mode".to_owned()))
        .await
        .unwrap();
    let page = visitor.get("/workers").await;
    assert_eq!(page.status, 503, "{}", page.body);
    page.has("It took too long");
    holds.rollback().await.unwrap();
    visitor.get("/workers").await.fine();
}

/// More slow pages than connections, three times over: the page is busy, not without a database,
/// and never has a fifth.
#[tokio::test]
async fn a_busy_page_says_so_and_keeps_to_its_connections() {
    let scene = Scene::new().await;
    scene.saga("s").column("run_at", "now() + interval '1 hour'").step("a").insert().await;
    let ui = Ui::read_only(&login(&scene, "pgsaga_reader").await);
    let visitor = Visitor::of(&ui).await;
    visitor.get("/saga?gid=s").await.fine();
    let mut holds = scene.pool().begin().await.unwrap();
    holds.execute("lock table pgsaga.task in access exclusive mode").await.unwrap();
    let answers = join_all((0..20).map(async |_| {
        let mut answers = Vec::new();
        for _ in 0..3 {
            answers.push(visitor.get("/saga?gid=s").await);
        }
        answers
    }));
    let sessions =
        format!("select count(*) from pg_stat_activity where usename = '{}_pgsaga_reader'", scene.db.name());
    let (mut answers, mut most) = (std::pin::pin!(answers), 0);
    let answers = eventually(PATIENCE, "all are answered", async || {
        let now: i64 =
            sqlx::query_scalar(AssertSqlSafe(sessions.clone())).fetch_one(scene.pool()).await.unwrap();
        most = most.max(now);
        (&mut answers).now_or_never()
    })
    .await;
    holds.rollback().await.unwrap();
    assert_eq!(most, 4, "connections to read");
    let answers: Vec<_> = answers.into_iter().flatten().collect();
    let said = |words: &str| answers.iter().filter(|answer| answer.body.contains(words)).count();
    let (busy, late) = (said("The page is busy"), said("It took too long"));
    assert!(busy >= 20 && late >= 4 && busy + late == 60, "{busy} busy, {late} late");
    for answer in &answers {
        assert_eq!((answer.status, answer.header("retry-after")), (503, "5"), "{}", answer.body);
    }
    for answer in join_all((0..20).map(|_| visitor.get("/saga?gid=s"))).await {
        answer.fine();
    }
}
