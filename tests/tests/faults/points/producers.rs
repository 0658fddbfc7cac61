//! The same for applications and for `pgsaga migrate`.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use nix::sys::signal::Signal;
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Cluster, binary};
use tokio::task::spawn_blocking;

/// Where an application or a migration dies.
pub(super) const POINTS: [&str; 18] = [
    "producer_submit:before",
    "producer_submit:after",
    "producer_submit_many:before",
    "producer_submit_many:after",
    "producer_abort:before",
    "producer_abort:after",
    "producer_complete:before",
    "producer_complete:after",
    "commit:before",
    "commit:after",
    "migrate:before",
    "migrate:roles",
    "migrate:applied",
    "migrate:after",
    "home_adopt:before",
    "home_adopt:after",
    "home_name:before",
    "home_name:after",
];

/// Runs a program; it must end well, or die at the point.
async fn run(program: &'static Path, arguments: Vec<String>, point: Option<(&'static str, &Path)>) {
    let mut command = binary::command_of(program);
    command.args(&arguments);
    if let Some((at, when)) = point {
        command.env("FAIL_AT", at).env("FAIL_WHEN", when);
    }
    let output = spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    match point {
        None => assert!(output.status.success(), "{arguments:?} said: {said}"),
        Some((at, _)) => {
            let died = output.status.signal() == Some(Signal::SIGABRT as i32);
            assert!(died && said.contains(at), "{arguments:?} ended with {} and said: {said}", output.status);
        }
    }
}

/// How many of a thing there are.
async fn count(scene: &Scene, query: &'static str, gid: &str) -> i64 {
    sqlx::query_scalar(query).bind(gid).fetch_one(scene.pool()).await.unwrap()
}

const ORDERS: &str = "select count(*) from orders where gid = $1";
const SAGAS: &str = "select count(*) from pgsaga.saga where gid = $1";

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_dies_leaves_its_rows_and_its_saga_or_neither() {
    let producer = spawn_blocking(binary::failing).await.unwrap().producer.as_path();
    let cluster = Cluster::own(true, false).await;
    let mut scene = Scene::on(&cluster).await;
    sqlx::raw_sql("create table orders (gid text primary key)").execute(scene.pool()).await.unwrap();
    scene.start_worker(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let armed = folder.path().join("armed");
    File::create(&armed).unwrap();
    let arguments = |how: &str, gid: &str| {
        let mut arguments = vec![scene.db.url().to_owned(), how.to_owned(), gid.to_owned()];
        arguments.extend((1..=3).map(|step| scene.participant.url(&format!("/{gid}/{step}"))));
        arguments
    };
    for (how, statement) in [("one", "producer_submit"), ("many", "producer_submit_many")] {
        let points = POINTS
            .iter()
            .filter(|point| point.split(':').next() == Some(statement) || point.starts_with("commit"));
        for point in points {
            let gid = format!("{how}-{}", point.replace(':', "-"));
            run(producer, arguments(how, &gid), Some((point, &armed))).await;
            let (orders, sagas) = (count(&scene, ORDERS, &gid).await, count(&scene, SAGAS, &gid).await);
            let committed = i64::from(*point == "commit:after");
            assert_eq!((orders, sagas), (committed, committed), "{point}: both or neither");
            if committed == 0 {
                assert_eq!(scene.participant.ops_for(&gid).len(), 0, "{point}: nobody is called");
            }
            // It starts again and says the same.
            run(producer, arguments(how, &gid), None).await;
            assert_eq!((count(&scene, ORDERS, &gid).await, count(&scene, SAGAS, &gid).await), (1, 1));
            let ops = ["step-1 action", "step-2 action", "step-3 action"];
            scene.expect(&gid, "succeeded", None, &ops).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_dies_while_it_aborts_rolls_the_saga_back_once_or_not_at_all() {
    let producer = spawn_blocking(binary::failing).await.unwrap().producer.as_path();
    let cluster = Cluster::own(true, false).await;
    let mut scene = Scene::on(&cluster).await;
    let folder = tempfile::tempdir().unwrap();
    let armed = folder.path().join("armed");
    File::create(&armed).unwrap();
    let points =
        POINTS.iter().filter(|point| point.starts_with("producer_abort") || point.starts_with("commit"));
    let points: Vec<&str> = points.copied().collect();
    for point in &points {
        let gid = point.replace(':', "-");
        // Not due before the abort.
        scene
            .saga(&gid)
            .column("run_at", "now() + interval '1 hour'")
            .step("pay")
            .step("ship")
            .insert()
            .await;
        let arguments = vec![scene.db.url().to_owned(), "abort".to_owned(), gid.clone()];
        run(producer, arguments.clone(), Some((point, &armed))).await;
        let status = scene.status(&gid).await.unwrap().0;
        assert_eq!(status, if *point == "commit:after" { "aborting" } else { "submitted" }, "{point}");
        run(producer, arguments, None).await;
    }
    scene.start_worker(&[]).await;
    scene.all_ended(PATIENCE).await;
    assert_eq!(scene.count("failed").await, points.len() as i64);
    assert_eq!(scene.participant.calls().len(), 0, "nothing was started, so nothing is undone");
    scene.healthy().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_dies_while_it_reports_has_reported_once_or_not_at_all() {
    let producer = spawn_blocking(binary::failing).await.unwrap().producer.as_path();
    let cluster = Cluster::own(true, false).await;
    let mut scene = Scene::on(&cluster).await;
    scene.start_worker(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let armed = folder.path().join("armed");
    File::create(&armed).unwrap();
    let points =
        POINTS.iter().filter(|point| point.starts_with("producer_complete") || point.starts_with("commit"));
    for point in points {
        let gid = point.replace(':', "-");
        scene.saga(&gid).step("approval").waits(86_400.0).step("ship").insert().await;
        let arguments = vec![scene.db.url().to_owned(), "complete".to_owned(), gid.clone()];
        run(producer, arguments.clone(), Some((point, &armed))).await;
        let reported = "select count(*) from pgsaga.saga where gid = $1 and completions is not null";
        assert_eq!(count(&scene, reported, &gid).await, i64::from(*point == "commit:after"), "{point}");
        // It starts again and says the same.
        run(producer, arguments, None).await;
        scene.expect(&gid, "succeeded", None, &["ship action"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_dies_is_run_again() {
    let pgsaga = spawn_blocking(binary::failing).await.unwrap().pgsaga.as_path();
    let cluster = Cluster::own(true, false).await;
    let folder = tempfile::tempdir().unwrap();
    let armed = folder.path().join("armed");
    File::create(&armed).unwrap();
    let flags = ["--environment", "test"];
    for point in POINTS.iter().filter(|point| point.starts_with("migrate") || point.starts_with("home")) {
        let mut scene = Scene::on(&cluster).await;
        sqlx::raw_sql("drop schema pgsaga cascade").execute(scene.pool()).await.unwrap();
        let arguments = ["migrate", "--database-url", scene.db.url(), "--adopt"].into_iter().chain(flags);
        let arguments: Vec<String> = arguments.map(str::to_owned).collect();
        run(pgsaga, arguments.clone(), Some((point, &armed))).await;
        run(pgsaga, arguments, None).await;
        scene.start_worker(&flags).await;
        scene.saga("s").step("pay").insert().await;
        scene.expect("s", "succeeded", None, &["pay action"]).await;
    }
}
