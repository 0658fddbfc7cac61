//! `pgsaga list`: every filter selects exactly what it says, and `--watch` follows.

use std::fs::File;
use std::io::Read as _;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::pty::{Winsize, openpty};
use pgsaga_tests::command::{Running, run};
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Cluster, eventually};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

async fn execute(scene: &Scene, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(scene.pool()).await.unwrap();
}

/// The rows, as JSON.
fn listed(scene: &Scene, flags: &[&str]) -> Vec<Value> {
    let output = run(&scene.db, &[&["list", "--json"], flags].concat()).fine();
    output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn gids(scene: &Scene, flags: &[&str]) -> Vec<String> {
    listed(scene, flags).iter().map(|row| row["gid"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn every_filter_selects_exactly_what_it_says() {
    let scene = Scene::with_worker().await;
    scene.saga("fine").column("labels", "'{\"tenant\": \"a\", \"tier\": \"gold\"}'").step("x").insert().await;
    scene
        .saga("refused")
        .column("labels", "'{\"tenant\": \"b\", \"tier\": \"gold\"}'")
        .step("x")
        .action(Behaviour::Refuse("no".into()))
        .insert()
        .await;
    scene
        .saga("stuck")
        .column("queue", "'bulk'")
        .step("x")
        .compensate(Behaviour::Refuse("gone".into()))
        .step("y")
        .action(Behaviour::Refuse("no".into()))
        .insert()
        .await;
    scene
        .saga("waits")
        .column("queue", "'bulk'")
        .column("labels", "'{\"tenant\": \"a\"}'")
        .column("retry_interval", "'1 hour'")
        .step("x")
        .action(Behaviour::Status(503))
        .step("y")
        .with("action", json!("https://pay.example/charge?x=1"))
        .with("compensate", json!("https://Refund.example:8443?y"))
        .insert()
        .await;
    for gid in ["fine", "refused", "stuck"] {
        scene.ended(gid).await;
    }
    eventually(PATIENCE, "the first try is settled", async || {
        (scene.history("waits").await.len() == 1).then_some(())
    })
    .await;
    execute(
        &scene,
        "update pgsaga.saga set created_at = now() - interval '2 days' where gid in ('fine', 'stuck')",
    )
    .await;

    let participant = scene.participant.address().to_string();
    let host = scene.participant.address().ip().to_string();
    for (flags, expected) in [
        (&[][..], &["waits", "stuck", "refused", "fine"][..]),
        (&["--status", "stuck"], &["stuck"]),
        (&["--status", "failed,succeeded"], &["refused", "fine"]),
        (&["--status", "failed", "--status", "submitted"], &["waits", "refused"]),
        (&["--status", "aborting"], &[]),
        (&["--open"], &["waits", "stuck"]),
        (&["--open", "--status", "failed"], &[]),
        (&["--older-than", "1d"], &["stuck", "fine"]),
        (&["--newer-than", "1d"], &["waits", "refused"]),
        (&["--older-than", "1h", "--newer-than", "1d"], &[]),
        (&["--queue", "bulk"], &["waits", "stuck"]),
        (&["--queue", "bul"], &[]),
        (&["--label", "tenant=a"], &["waits", "fine"]),
        (&["--label", "tenant=a", "--label", "tier=gold"], &["fine"]),
        (&["--label", "tier"], &["refused", "fine"]),
        (&["--label", "tenant="], &[]),
        (&["--label", "none"], &[]),
        (&["--participant", &participant], &["waits", "stuck", "refused", "fine"]),
        (&["--participant", &host], &[]),
        (&["--participant", "pay.example"], &["waits"]),
        (&["--participant", "Refund.example:8443"], &["waits"]),
        (&["--participant", "pay.example:443"], &[]),
        (&["--open", "--queue", "bulk", "--older-than", "1d"], &["stuck"]),
        (&["--limit", "2"], &["waits", "stuck"]),
        (&["--no-progress"], &[]),
    ] {
        assert_eq!(gids(&scene, flags), expected, "{flags:?}");
    }
    let table = run(&scene.db, &["list"]).fine();
    for words in ["gid", "action of x, try 2, in ", "x: gone", "succeeded", "bulk"] {
        assert!(table.contains(words), "{words:?} is not in\n{table}");
    }
    for (flags, says) in [
        (&["--older-than", "90"][..], "allowed: a duration such as 90s, 2h, 7d"),
        (&["--participant", "https://pay.example"], "allowed: a host, with its port where the URL names it"),
        (&["--label", "=a"], "allowed: KEY=VALUE, or KEY for any value"),
        (&["--watch", "0"], "0 is not in 1..=3600"),
    ] {
        let said = run(&scene.db, &[&["list"], flags].concat());
        assert_eq!(said.code, Some(2), "{flags:?}");
        assert!(said.err.contains(says), "{flags:?}: {}", said.err);
    }
}

/// Answers that a saga's first step had, each so many minutes ago: `404`, `ongoing`, `503`.
async fn answers(scene: &Scene, gid: &str, answers: &[(&str, i32)]) {
    scene.saga(gid).step("a").step("b").insert().await;
    for (nth, (answer, minutes)) in answers.iter().enumerate() {
        let (outcome, code) = match *answer {
            "ongoing" => ("ongoing", "425"),
            "failed to connect" => ("unsent", "null"),
            code => ("unknown", code),
        };
        let attempt = nth + 1;
        execute(
            scene,
            &format!(
                "insert into pgsaga.history (saga_id, step, op, attempt, outcome, status_code, at)
                 select id, 1, 'action', {attempt}, '{outcome}', {code}, now() - interval '{minutes} minutes'
                 from pgsaga.saga where gid = '{gid}'"
            ),
        )
        .await;
    }
    execute(
        scene,
        &format!(
            "update pgsaga.task set attempt = {} where saga_id = (select id from pgsaga.saga where gid = '{gid}')",
            answers.len() + 1
        ),
    )
    .await;
}

#[tokio::test]
async fn no_progress_is_404_or_ongoing_for_an_hour_without_another_answer() {
    let scene = Scene::new().await;
    answers(&scene, "missing", &[("404", 120), ("404", 60), ("404", 1)]).await;
    answers(&scene, "ongoing", &[("ongoing", 61)]).await;
    answers(&scene, "either", &[("503", 180), ("ongoing", 70), ("404", 1)]).await;
    // The controls: not long enough, another answer in between, none at all, and a step further.
    answers(&scene, "recent", &[("404", 59), ("404", 1)]).await;
    answers(&scene, "answered", &[("404", 120), ("503", 30), ("404", 1)]).await;
    answers(&scene, "away", &[("404", 120), ("failed to connect", 2)]).await;
    answers(&scene, "unknown", &[("503", 120), ("503", 1)]).await;
    answers(&scene, "new", &[]).await;
    answers(&scene, "further", &[("ongoing", 120)]).await;
    execute(
        &scene,
        "update pgsaga.task set step = 2 where saga_id = (select id from pgsaga.saga where gid = 'further')",
    )
    .await;
    assert_eq!(gids(&scene, &["--no-progress"]), ["either", "ongoing", "missing"]);
    assert_eq!(gids(&scene, &["--no-progress", "110m"]), ["missing"]);
    assert_eq!(gids(&scene, &["--no-progress=30s"]), ["answered", "recent", "either", "ongoing", "missing"]);

    // And as a worker meets it.
    let mut scene = Scene::new().await;
    scene.start_worker(&[]).await;
    scene.saga("missing").step("a").action(Behaviour::Status(404)).insert().await;
    scene.saga("ongoing").step("a").action(Behaviour::Status(425)).insert().await;
    scene.saga("broken").step("a").action(Behaviour::Status(500)).insert().await;
    eventually(PATIENCE, "two make no progress", async || {
        (gids(&scene, &["--no-progress", "300ms"]) == ["ongoing", "missing"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_saga_with_many_tasks_is_one_row() {
    let scene = Scene::new().await;
    let mut fan = scene.saga("fan");
    for step in ["a", "b", "c", "d", "e"] {
        fan = fan.step(step).with("after", json!([]));
    }
    fan.insert().await;
    scene.saga("chain").step("a").step("b").insert().await;
    execute(&scene, "update pgsaga.task set run_at = now() - interval '1 hour' where step = 3").await;
    let rows = listed(&scene, &[]);
    assert_eq!(rows.len(), 2);
    assert_eq!(
        (&rows[1]["gid"], &rows[1]["tasks"], &rows[1]["next"]["step"]),
        (&json!("fan"), &json!(5), &json!("c"))
    );
    assert_eq!((&rows[0]["gid"], &rows[0]["tasks"]), (&json!("chain"), &json!(1)));
    let table = run(&scene.db, &["list"]).fine();
    assert!(table.contains("action of c, try 1, due for 1 h, +4 more"), "{table}");
    assert_eq!(table.matches("more").count(), 1, "{table}");
}

#[tokio::test]
async fn watch_appends_what_changes_and_ends_with_its_reader_or_a_signal() {
    let scene = Scene::new().await;
    scene.saga("first").step("a").insert().await;
    scene.saga("other").column("queue", "'bulk'").step("a").insert().await;
    let flags = ["list", "--queue", "default", "--watch", "1"];
    let mut lines = Running::start(&scene.db, &flags);
    let mut objects = Running::start(&scene.db, &[&flags[..], &["--json"]].concat());
    lines.wait_for_out("first  submitted", PATIENCE).await;
    objects.wait_for_out("\"first\"", PATIENCE).await;
    scene.saga("second").step("a").insert().await;
    lines.wait_for_out("second  submitted", PATIENCE).await;
    objects.wait_for_out("\"second\"", PATIENCE).await;
    execute(&scene, "update pgsaga.saga set status = 'aborting', reason = 'a: turned' where gid = 'first'")
        .await;
    lines.wait_for_out("first  aborting", PATIENCE).await;
    objects.wait_for_out("a: turned", PATIENCE).await;
    let out = lines.out();
    assert_eq!(out.lines().count(), 3, "what did not change is not repeated\n{out}");
    assert!(!out.contains("other"), "{out}");
    let rows: Vec<Value> = objects.out().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[2]["status"], "aborting");

    lines.interrupt();
    assert_eq!(lines.ended(PATIENCE).await.code(), Some(0), "Ctrl-C is how it ends");
    // Nothing changes any more: it notices a reader that is gone all the same.
    let (reader, writer) = std::io::pipe().unwrap();
    let mut unread = Running::start_with(&scene.db, &flags, Stdio::from(writer));
    let mut reader = File::from(std::os::fd::OwnedFd::from(reader));
    let mut some = [0; 10];
    reader.read_exact(&mut some).unwrap();
    assert!(objects.is_running() && unread.is_running());
    drop(reader);
    assert_eq!(unread.ended(PATIENCE).await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_outlives_a_database_that_is_away() {
    let cluster = Cluster::own(false, false).await;
    let scene = Scene::on(&cluster).await;
    scene.saga("before").step("a").insert().await;
    let mut watch = Running::start(&scene.db, &["list", "--watch=1"]);
    watch.wait_for_out("before  submitted", PATIENCE).await;
    tokio::task::block_in_place(|| cluster.server().stop()).unwrap();
    watch.wait_for_err("trying again", PATIENCE).await;
    tokio::task::block_in_place(|| cluster.server().start_again()).unwrap();
    eventually(PATIENCE, "Postgres answers", async || scene.saga("after").step("a").try_insert().await.ok())
        .await;
    watch.wait_for_err("the database answers again", PATIENCE).await;
    watch.wait_for_out("after  submitted", PATIENCE).await;
    assert_eq!(watch.out().lines().count(), 2, "{}", watch.out());
    watch.interrupt();
    assert_eq!(watch.ended(PATIENCE).await.code(), Some(0));
}

#[tokio::test]
async fn on_a_terminal_watch_draws_the_table_anew_with_colours() {
    let scene = Scene::new().await;
    scene.saga("first").step("a").insert().await;
    let size = Winsize { ws_row: 30, ws_col: 160, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(Some(&size), None).unwrap();
    let mut watch = Running::start_with(&scene.db, &["list", "--watch", "1"], Stdio::from(terminal.slave));
    let seen = Arc::new(Mutex::new(String::new()));
    let screen = Arc::clone(&seen);
    std::thread::spawn(move || {
        let (mut master, mut some) = (File::from(terminal.master), [0; 4096]);
        while let Ok(count @ 1..) = master.read(&mut some) {
            screen.lock().unwrap().push_str(&String::from_utf8_lossy(&some[..count]));
        }
    });
    eventually(PATIENCE, "it was drawn twice", async || {
        let seen = seen.lock().unwrap();
        (seen.matches("\x1b[2J").count() >= 2 && seen.matches("first").count() >= 2).then_some(())
    })
    .await;
    let frame = seen.lock().unwrap().clone();
    assert!(frame.contains("every 1 s") && frame.contains("\x1b[38;5;"), "{frame}");
    watch.interrupt();
    assert_eq!(watch.ended(PATIENCE).await.code(), Some(0));
}

/// What a command draws on a terminal of this size, without the colours.
async fn drawn(scene: &Scene, args: &[&str], rows: u16, columns: u16) -> Vec<String> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(Some(&size), None).unwrap();
    let mut command = Running::start_with(&scene.db, args, Stdio::from(terminal.slave));
    let reads: JoinHandle<Vec<u8>> = std::thread::spawn(move || {
        // The end of the last writer is an error here, not an end of file.
        let (mut master, mut all) = (File::from(terminal.master), Vec::new());
        let _ = master.read_to_end(&mut all);
        all
    });
    assert_eq!(command.ended(PATIENCE).await.code(), Some(0), "{}", command.err());
    let text = String::from_utf8(reads.join().unwrap()).unwrap();
    // A colour is ESC [ and digits, up to an m.
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap().to_owned();
    let plain = parts.fold(first, |plain, part| plain + part.split_once('m').map_or(part, |(_, rest)| rest));
    plain.lines().map(|line| line.trim_end().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_fits_eighty_columns_and_a_terminal_without_a_size() {
    let scene = Scene::with_worker().await;
    let gid = "01935d9e-5a4c-7c3e-9f00-0123456789ab";
    scene.saga(gid).step("pay").action(Behaviour::Refuse("no money ".repeat(30))).insert().await;
    scene.ended(gid).await;
    for (rows, columns) in [(24, 80), (0, 0)] {
        let lines = drawn(&scene, &["list"], rows, columns).await;
        let widest = lines.iter().map(|line| line.chars().count()).max();
        assert!(widest <= Some(80), "{columns} columns: {lines:#?}");
        assert_eq!(lines.len(), 4, "{columns} columns: {lines:#?}");
        assert!(lines[2].starts_with(&format!("{gid}  failed")), "{columns} columns: {lines:#?}");
        assert!(lines[3].starts_with("  pay: no money no money"), "{columns} columns: {lines:#?}");
    }
    for args in [&["queues"][..], &["show", gid]] {
        let lines = drawn(&scene, args, 0, 0).await;
        let widest = lines.iter().map(|line| line.chars().count()).max();
        assert!(
            widest > Some(20),
            "{args:?}: a terminal of size 0 gets no table of single letters: {lines:#?}"
        );
    }
    let wide = drawn(&scene, &["list"], 24, 200).await;
    assert!(wide[0].contains("queue") && wide[0].contains("next"), "{wide:#?}");
}
