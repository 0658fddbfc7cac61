//! Whom a plain URL may reach: a real participant on loopback, which must not be.

use std::net::TcpStream;

use pgsaga_tests::command::run;
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, eventually};
use serde_json::json;

use crate::participants::{NO_LOOPBACK, Participants, scene_with};

/// Hosts that lead to 127.0.0.1, and whether a row may name them: the others are refused by the
/// INSERT, and written past it here.
const HOSTS: [(&str, bool); 13] = [
    ("127.0.0.1", true),
    ("localhost", true),
    ("LOCALHOST", true),
    ("0.0.0.0", true),
    ("[::ffff:7f00:1]", true),
    ("127.1", false),
    ("2130706433", false),
    ("0x7f000001", false),
    ("0177.0.0.1", false),
    ("017700000001", false),
    ("0x7f.1", false),
    ("x@127.0.0.1", false),
    ("[::ffff:127.0.0.1]", false),
];

/// One saga for each host, as a row may say it or as somebody wrote it into the table.
async fn sagas(scene: &Scene) -> Vec<String> {
    let port = scene.participant.address().port();
    let mut gids = Vec::new();
    for (nth, (host, allowed)) in HOSTS.iter().enumerate() {
        let gid = format!("s{nth}");
        let url = format!("http://{host}:{port}/{gid}/a");
        if *allowed {
            scene.saga(&gid).step("a").with("action", json!(url)).insert().await;
        } else {
            scene.saga(&gid).step("a").insert().await;
            let overwrite =
                "update pgsaga.saga set steps = jsonb_set(steps, '{0,action}', $1) where gid = $2";
            sqlx::query(overwrite).bind(json!(url)).bind(&gid).execute(scene.pool()).await.unwrap();
        }
        gids.push(gid);
    }
    gids
}

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_loopback_is_called_unless_it_is_allowed() {
    let mut scene = Scene::new().await;
    let gids = sagas(&scene).await;
    scene.start_worker(&NO_LOOPBACK).await;
    eventually(PATIENCE, "every call is denied", async || {
        (scene.metric("pgsaga_denied_calls_total").await == HOSTS.len() as f64).then_some(())
    })
    .await;
    for (gid, (host, _)) in gids.iter().zip(HOSTS) {
        assert_eq!(scene.status(gid).await.unwrap(), ("submitted".to_owned(), None), "{host}");
        assert_eq!(scene.history(gid).await, Vec::<String>::new(), "no try was made: {host}");
        let said = scene.workers[0].wait_for_log(&format!("\"gid\":\"{gid}\""), PATIENCE).await;
        let event: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(
            (&event["level"], &event["fields"]["message"]),
            (&json!("WARN"), &json!("a call was denied"))
        );
        let reason = event["fields"]["reason"].as_str().unwrap();
        assert!(reason.starts_with("not called: "), "{host}: {reason}");
        assert!(reason.contains("--allow-address "), "it names the flag: {host}: {reason}");
        let address = reason.split("--allow-address ").nth(1).unwrap().split(' ').next().unwrap();
        assert!(address.parse::<std::net::IpAddr>().is_ok(), "it names the address: {host}: {reason}");
    }
    assert_eq!(scene.participant.calls().len(), 0, "somebody got through: {:?}", scene.participant.calls());
    assert_eq!(
        scene.metric("pgsaga_breakers_open").await,
        0.0,
        "a denied call speaks against no participant"
    );
    scene.healthy().await;
}

/// The same hosts, all of which lead there: else the test above would say nothing.
#[tokio::test(flavor = "multi_thread")]
async fn every_spelling_of_loopback_is_called_where_it_is_allowed() {
    let mut scene = Scene::new().await;
    let gids = sagas(&scene).await;
    scene.start_worker(&["--allow-address", "127.0.0.0/8,::1,0.0.0.0"]).await;
    for (gid, (host, _)) in gids.iter().zip(HOSTS) {
        // Not every machine has IPv6.
        if host.starts_with('[')
            && TcpStream::connect("[::ffff:127.0.0.1]:1")
                .is_err_and(|error| !matches!(error.kind(), std::io::ErrorKind::ConnectionRefused))
        {
            continue;
        }
        let (status, reason) = scene.ended(gid).await;
        assert_eq!((status.as_str(), reason), ("succeeded", None), "{host}");
        assert_eq!(scene.participant.ops_for(gid), ["a action"], "{host}");
    }
    assert_eq!(scene.metric("pgsaga_denied_calls_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_compensation_waits_for_a_worker_that_may_make_it() {
    let mut scene = Scene::new().await;
    let saga = scene.saga("s").step("a").with("action", json!("")).step("b");
    saga.action(Behaviour::Refuse("never asked".into())).insert().await;
    scene.start_worker(&NO_LOOPBACK).await;
    let said = scene.workers[0].wait_for_log("a call was denied", PATIENCE).await;
    assert!(said.contains("not called: 127.0.0.1 is loopback; --allow-address 127.0.0.1 "), "{said}");
    // It is b's; a person takes it back.
    run(&scene.db, &["abort", "s", "--reason", "enough"]).fine();
    assert_eq!(scene.status("s").await.unwrap().0, "aborting");
    assert_eq!(scene.participant.calls().len(), 0);

    scene.start_worker(&["--allow-address", "127.0.0.1"]).await;
    let ended = scene.ended("s").await;
    assert_eq!(ended.0, "failed", "{ended:?}");
    assert_eq!(scene.participant.ops_for("s"), ["a compensate"], "b was never called");
    scene.healthy().await;
}

/// Whoever is trusted to be called is not trusted to say whom else.
#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_an_internal_address_is_not_followed() {
    let (scene, _participants) = scene_with(|participant| Participants::of("p", participant, "")).await;
    let secret = scene.participant.url("/secret");
    for status in [301, 302, 303, 307, 308] {
        let gid = format!("s{status}");
        let away = Behaviour::redirect(status, &secret);
        let saga = scene.saga(&gid).step("a").action(Behaviour::Sequence(vec![away]));
        saga.with("action", json!(format!("participant:p/{gid}/a"))).insert().await;
        scene.expect(&gid, "succeeded", None, &["a action", "a action"]).await;
        assert_eq!(scene.history(&gid).await, ["a action 1 unknown", "a action 2 success"]);
    }
    assert!(scene.participant.calls().iter().all(|call| call.path != "/secret"), "it was followed");
}

/// A connection that was made for a named participant carries no plain URL's call.
#[tokio::test(flavor = "multi_thread")]
async fn a_plain_url_does_not_go_through_the_connection_of_a_named_participant() {
    let (scene, _participants) = scene_with(|participant| {
        let port = participant.address().port();
        Participants::new(&format!("[participant.p]\nurl = \"http://localhost:{port}\""))
    })
    .await;
    let plain = format!("http://localhost:{}/s/b", scene.participant.address().port());
    let saga = scene.saga("s").step("a").with("action", json!("participant:p/s/a"));
    let saga = saga.with("compensate", json!("participant:p/s/a"));
    saga.step("b").with("action", json!(plain)).insert().await;
    let said = scene.workers[0].wait_for_log("a call was denied", PATIENCE).await;
    assert!(said.contains("not called: localhost resolves to "), "{said}");
    assert_eq!(scene.participant.ops_for("s"), ["a action"]);
}

/// It would look up the name itself, and connect to whatever that is.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_of_the_environment_is_not_used() {
    let mut scene = Scene::new().await;
    let proxy = scene.participant.url("");
    let env: Vec<(&str, &str)> =
        ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
            .iter()
            .map(|name| (*name, proxy.as_str()))
            .collect();
    let worker = pgsaga_tests::Worker::spawn_with_env(scene.db.url(), &NO_LOOPBACK, &env);
    scene.workers.push(worker);
    scene.workers[0].ready().await;
    scene.saga("s").step("a").with("action", json!("http://nowhere.invalid/s/a")).insert().await;
    // Where no name server answers, to find nothing takes longer than a call may.
    let tried = eventually(PATIENCE, "a try", async || scene.history("s").await.into_iter().next()).await;
    assert!(["a action 1 unsent", "a action 1 unknown"].contains(&tried.as_str()), "{tried}");
    assert_eq!(scene.participant.calls().len(), 0, "the proxy was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_plain_urls_are_denied_only_named_participants_are_called() {
    let mut scene = Scene::new().await;
    let participants = Participants::of("p", &scene.participant, "");
    let file = participants.file();
    // Allowed addresses do not matter any more.
    let flags = ["--deny-plain-urls", "--participants", &file, "--allow-address", "127.0.0.0/8"];
    scene.start_worker(&flags).await;
    scene.saga("plain").step("a").insert().await;
    let said = scene.workers[0].wait_for_log("a call was denied", PATIENCE).await;
    assert!(said.contains("not called: --deny-plain-urls; "), "{said}");
    let named = scene.saga("named").step("a").with("action", json!("participant:p/named/a"));
    named.insert().await;
    scene.expect("named", "succeeded", None, &["a action"]).await;
    assert_eq!(scene.participant.calls().len(), 1);
    assert_eq!(scene.metric("pgsaga_denied_calls_total").await, 1.0);
}
