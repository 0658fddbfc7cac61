//! A worker signs, the participant verifies.

use std::time::Duration;

use pgsaga_participant::webhook::{Secret, VerifyError, verify};
use pgsaga_tests::clock::Clock;
use pgsaga_tests::command::run;
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Call, Worker};
use serde_json::json;

use crate::participants::{NEW, NO_LOOPBACK, OLD, Participants, scene_with};

fn verified(call: &Call, body: &[u8], secrets: &[&str]) -> Result<String, VerifyError> {
    let secrets: Vec<Secret> = secrets.iter().map(|secret| Secret::parse(secret).unwrap()).collect();
    let header = |name: &str| call.headers.get(name).and_then(|value| value.to_str().ok());
    verify(header, body, &secrets, Duration::from_secs(300)).map(|verified| verified.id.to_owned())
}

async fn inserted(scene: &Scene, gid: &str) {
    let url = json!(format!("participant:p/{gid}/a"));
    let saga = scene.saga(gid).step("a").with("action", url.clone()).with("compensate", url);
    let saga = saga.with("headers", json!({"X-Mine": "1"})).with("payload", json!({"card": [1.50, "é"]}));
    let saga = saga.action(Behaviour::Unknown(1));
    let saga = saga.step("b").with("action", json!(scene.participant.url(&format!("/{gid}/b"))));
    saga.insert().await;
}

/// Step b is denied, and a is undone: two ops, three calls.
async fn undone(scene: &Scene, gid: &str) {
    inserted(scene, gid).await;
    scene.workers[0].wait_for_log("a call was denied", PATIENCE).await;
    run(&scene.db, &["abort", gid, "--reason", "enough"]).fine();
    assert_eq!(scene.ended(gid).await.0, "failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_verifies_the_calls_that_a_worker_signed() {
    let (scene, _participants) =
        scene_with(|participant| Participants::of("p", participant, "secret_files = [\"new\"]")).await;
    undone(&scene, "order.42").await;
    let calls = scene.participant.calls_for("order.42");
    let ids: Vec<_> = calls.iter().map(|call| verified(call, &call.body, &[NEW])).collect();
    // The same on every try, and without a point.
    let (action, compensate) = ("order~42/a/action".to_owned(), "order~42/a/compensate".to_owned());
    assert_eq!(ids, [Ok(action.clone()), Ok(action), Ok(compensate)]);
    for call in &calls {
        assert_eq!(call.header("webhook-signature").split(' ').count(), 1);
        assert_eq!(call.header("x-mine"), "1");
        assert_eq!(verified(call, &call.body, &[OLD]), Err(VerifyError::Signature), "another secret");
        let tampered = String::from_utf8_lossy(&call.body).replace("1.5", "9.5");
        assert_ne!(tampered.as_bytes(), &call.body[..]);
        assert_eq!(verified(call, tampered.as_bytes(), &[NEW]), Err(VerifyError::Signature), "another body");
        let mut moved = call.clone();
        moved.headers.insert("webhook-id", "order~42/a/compensated".parse().unwrap());
        assert_eq!(verified(&moved, &call.body, &[NEW]), Err(VerifyError::Signature), "another op");
        let mut later = call.clone();
        let timestamp: u64 = call.header("webhook-timestamp").parse().unwrap();
        later.headers.insert("webhook-timestamp", (timestamp + 1).into());
        assert_eq!(verified(&later, &call.body, &[NEW]), Err(VerifyError::Signature), "another time");
        later.headers.insert("webhook-timestamp", (timestamp - 1000).into());
        assert!(matches!(verified(&later, &call.body, &[NEW]), Err(VerifyError::TooOld { .. })));
        later.headers.remove("webhook-signature");
        assert_eq!(verified(&later, &call.body, &[NEW]), Err(VerifyError::Missing("webhook-signature")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_secrets_are_rotated_a_participant_that_knows_either_is_served() {
    let lines = "secret_files = [\"new\", \"old\"]";
    let (scene, _participants) = scene_with(|participant| Participants::of("p", participant, lines)).await;
    undone(&scene, "s").await;
    let calls = scene.participant.calls_for("s");
    assert_eq!(calls.len(), 3);
    for call in &calls {
        assert_eq!(call.header("webhook-signature").split(' ').count(), 2);
        for known in [&[NEW][..], &[OLD], &[NEW, OLD], &[OLD, NEW]] {
            assert!(verified(call, &call.body, known).is_ok(), "{known:?}");
        }
    }
}

/// Each try is signed when it is made, so that a participant's tolerance is not about retries.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_has_the_id_of_the_first_try_and_a_time_of_its_own() {
    let lines = "secret_env = [\"STOCK_SECRET\"]";
    let mut scene = Scene::new().await;
    let participants = Participants::of("p", &scene.participant, lines);
    let file = participants.file();
    let flags = ["--lease-seconds", "2", "--participants", &file];
    let worker = pgsaga_tests::Worker::spawn_with_env(scene.db.url(), &flags, &[("STOCK_SECRET", NEW)]);
    scene.workers.push(worker);
    scene.workers[0].ready().await;
    let saga = scene.saga("s").column("retry_interval", "'2 seconds'").step("a");
    saga.with("action", json!("participant:p/s/a")).action(Behaviour::Unknown(1)).insert().await;
    scene.expect("s", "succeeded", None, &["a action", "a action"]).await;
    let calls = scene.participant.calls_for("s");
    let time = |call: &Call| call.header("webhook-timestamp").parse::<u64>().unwrap();
    assert_eq!(calls[0].header("webhook-id"), calls[1].header("webhook-id"));
    assert!(time(&calls[0]) < time(&calls[1]), "{} {}", time(&calls[0]), time(&calls[1]));
    assert!(calls.iter().all(|call| verified(call, &call.body, &[NEW]).is_ok()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_in_no_log_metric_or_row() {
    let mut scene = Scene::new().await;
    let participants = Participants::of("p", &scene.participant, "secret_files = [\"new\", \"old\"]");
    let file = participants.file();
    scene.start_worker(&["--log-level", "trace", "--participants", &file]).await;
    inserted(&scene, "s").await;
    assert_eq!(scene.ended("s").await.0, "succeeded");
    scene.saga("refused").step("a").with("action", json!("participant:p/x")).insert().await;
    scene.ended("refused").await;
    let mut said = scene.workers[0].metrics().await;
    scene.workers[0].terminate();
    scene.workers[0].wait_exit(PATIENCE).await;
    said.push_str(&scene.workers[0].log().join("\n"));
    for table in ["saga", "history", "worker"] {
        let dump = format!("select coalesce(string_agg(t::text, ' '), '') from pgsaga.{table} t");
        let rows: String =
            sqlx::query_scalar(sqlx::AssertSqlSafe(dump)).fetch_one(scene.pool()).await.unwrap();
        said.push_str(&rows);
    }
    assert!(said.contains("participant:p/s/a"), "the rows are there");
    for secret in [NEW, OLD] {
        let bytes = secret.strip_prefix("whsec_").unwrap();
        assert!(!said.contains(bytes), "a secret is shown");
    }
    assert!(!said.contains("secret, 32 bytes"), "a secret is shown as text");
    let signature = scene.participant.calls_for("s")[0].header("webhook-signature");
    assert!(signature.len() > 40 && !said.contains(&signature), "a signature is shown");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_faketime), ignore = "needs faketime: apt-get install faketime")]
async fn a_worker_whose_clock_is_wrong_signs_by_the_databases_and_says_so() {
    let clock = Clock::find();
    for (offset, skew) in [("+10m", 600.0), ("-10m", -600.0)] {
        let mut scene = Scene::new().await;
        let participants = Participants::of("p", &scene.participant, "secret_files = [\"new\"]");
        let file = participants.file();
        let flags = [&NO_LOOPBACK[..], &["--participants", &file, "--lease-seconds", "2"]].concat();
        let worker = Worker::spawn_with_env(scene.db.url(), &flags, &clock.off_by(offset));
        scene.workers.push(worker);
        scene.workers[0].ready().await;
        scene.saga("s").step("a").with("action", json!("participant:p/s/a")).insert().await;
        assert_eq!(scene.ended("s").await.0, "succeeded");
        let call = &scene.participant.calls_for("s")[0];
        assert_eq!(verified(call, &call.body, &[NEW]), Ok("s/a/action".to_owned()), "{offset}");
        scene.workers[0].wait_for_log("differ by more than a second", PATIENCE).await;
        let measured = scene.metric("pgsaga_clock_skew_seconds").await;
        assert!((measured - skew).abs() < 30.0, "{measured} for {offset}");
    }
}
