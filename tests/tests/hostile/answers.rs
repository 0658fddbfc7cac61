//! What participants may answer, in bytes. Each is judged by the contract, nothing of it reaches
//! another saga, and every saga ends once its participant behaves.

use std::time::Duration;

use pgsaga_tests::scene::{PATIENCE, Scene};
use serde_json::json;

use crate::dice::Dice;
use crate::process::{assert_calm, memory_max};
use crate::raw::{Answer, Raw};
use crate::{count, seed};

/// A worker may grow by so much over all of it.
const GROWTH_MAX: u64 = 96 * 1024 * 1024;

pub(crate) fn http(head: &str, body: &[u8]) -> Answer {
    Answer::Bytes([b"HTTP/1.1 ", head.as_bytes(), b"\r\n\r\n", body].concat())
}

fn repeated(count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count).map(line).collect()
}

/// A name, the answer, and what its try is judged to be: one of these.
fn answers() -> Vec<(&'static str, Answer, &'static str)> {
    use Answer::{Bytes, Endless, Open, Reset, Trickle};
    let ten_megabytes = vec![b'x'; 10 * 1024 * 1024];
    let tenth = Duration::from_millis(100);
    let million = "a".repeat(1_000_000);
    vec![
        ("nothing", Bytes(Vec::new()), "unknown"),
        ("reset", Reset(Vec::new()), "unknown"),
        ("a-word", Bytes(b"hello\r\n\r\n".to_vec()), "unknown"),
        ("every-byte", Bytes((0..=255).cycle().take(5_000).collect()), "unknown"),
        ("zeros", Bytes(vec![0; 100_000]), "unknown"),
        ("http-0.9", Bytes(b"<html>ok</html>".to_vec()), "unknown"),
        ("tls", Bytes(b"\x15\x03\x01\x00\x02\x02\x28".to_vec()), "unknown"),
        ("http2", Bytes(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80".to_vec()), "unknown"),
        ("ssh", Bytes(b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()), "unknown"),
        ("version-1.0", Bytes(b"HTTP/1.0 200 OK\r\n\r\n{}".to_vec()), "success"),
        ("version-2.0", Bytes(b"HTTP/2.0 200 OK\r\n\r\n{}".to_vec()), "unknown"),
        ("version-9", Bytes(b"HTTP/9.9 200 OK\r\n\r\n{}".to_vec()), "unknown"),
        ("status-000", http("000 x", b""), "unknown"),
        ("status-999", http("999 x", b""), "unknown"),
        ("status-1000", http("1000 x", b""), "unknown"),
        ("status-letters", http("2OO OK", b""), "unknown"),
        ("status-minus", http("-200 OK", b""), "unknown"),
        ("no-reason", http("200", b"{}"), "success"),
        ("long-reason", http(&format!("200 {}", "x".repeat(3_000)), b"{}"), "success"),
        ("half-a-head", Bytes(b"HTTP/1.1 200 OK\r\ncontent-le".to_vec()), "unknown"),
        ("half-a-head-reset", Reset(b"HTTP/1.1 200 OK\r\ncontent-le".to_vec()), "unknown"),
        ("half-a-body", http("200 OK\r\ncontent-length: 100", b"{\"dtm_result\":"), "unknown"),
        ("half-a-body-reset", Reset(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_vec()), "unknown"),
        ("half-a-refusal", http("409 Conflict\r\ncontent-length: 100", b"no"), "unknown"),
        ("no-length", http("200 OK", b"{}"), "success"),
        ("negative-length", http("200 OK\r\ncontent-length: -1", b"{}"), "unknown"),
        ("two-lengths", http("200 OK\r\ncontent-length: 2\r\ncontent-length: 5", b"{}"), "unknown"),
        ("a-huge-length", http("200 OK\r\ncontent-length: 99999999999999999999999", b"{}"), "unknown"),
        ("u64-length", http("200 OK\r\ncontent-length: 18446744073709551615", b"{}"), "unknown"),
        ("hex-length", http("200 OK\r\ncontent-length: 0x2", b"{}"), "unknown"),
        ("bad-chunk", http("200 OK\r\ntransfer-encoding: chunked", b"zz\r\n{}\r\n0\r\n\r\n"), "unknown"),
        ("huge-chunk", http("200 OK\r\ntransfer-encoding: chunked", b"FFFFFFFFFFFFFFFFF\r\n{}\r\n"), "unknown"),
        ("negative-chunk", http("200 OK\r\ntransfer-encoding: chunked", b"-2\r\n{}\r\n0\r\n\r\n"), "unknown"),
        ("cut-chunk", http("200 OK\r\ntransfer-encoding: chunked", b"5\r\n{}"), "unknown"),
        (
            "chunk-extension",
            Endless(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;".to_vec(), vec![b'x'; 10_000]),
            "unknown",
        ),
        (
            "trailers-without-end",
            Endless(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n".to_vec(), b"a: b\r\n".repeat(100)),
            "unknown",
        ),
        (
            "chunks-without-end",
            Trickle(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(), b"1\r\nx\r\n".to_vec(), tenth),
            "unknown",
        ),
        (
            // Read up to its bound, and no further: what it is about is known by then.
            "a-body-without-end",
            Endless(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 65_536]),
            "success",
        ),
        ("a-refusal-without-end", Endless(b"HTTP/1.1 409 No\r\n\r\n".to_vec(), b"\x1b[2J\x00".repeat(9_000)), "failure"),
        ("a-head-without-end", Endless(b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'x'; 65_536]), "unknown"),
        ("a-slow-head", Trickle(b"HTTP/1.1 200 OK\r\n".to_vec(), b"x".to_vec(), tenth), "unknown"),
        ("silence", Trickle(Vec::new(), Vec::new(), Duration::from_secs(1)), "unknown"),
        ("ten-megabytes", http("200 OK", &ten_megabytes), "success"),
        ("ten-megabytes-of-error", http("500 No", &ten_megabytes), "unknown"),
        ("a-header-of-a-megabyte", http(&format!("200 OK\r\nx: {million}"), b"{}"), "unknown"),
        ("a-name-of-a-megabyte", http(&format!("200 OK\r\n{million}: x"), b"{}"), "unknown"),
        (
            "ten-thousand-headers",
            http(&format!("200 OK\r\n{}x: y", repeated(10_000, |nth| format!("h{nth}: v\r\n"))), b"{}"),
            "unknown",
        ),
        ("an-odd-header", http("200 OK\r\nä b: c", b"{}"), "unknown"),
        ("a-nul-header", http("200 OK\r\nx: a\0b", b"{}"), "unknown"),
        ("a-folded-header", http("200 OK\r\nx: a\r\n b", b"{}"), "unknown"),
        ("bytes-in-a-header", Bytes(b"HTTP/1.1 200 OK\r\nx: \xff\x80\xfe\r\n\r\n{}".to_vec()), "success"),
        ("early-hints", http(&format!("{}200 OK", "103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 ".repeat(5)), b"{}"), "success"),
        ("continues-without-end", Endless(Vec::new(), b"HTTP/1.1 100 Continue\r\n\r\n".repeat(500)), "unknown"),
        ("an-upgrade", http("101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade", b"???"), "unknown"),
        ("gzip", http("200 OK\r\ncontent-encoding: gzip", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab"), "unknown"),
        ("a-refusal-in-gzip", http("409 No\r\ncontent-encoding: gzip", b"\x1f\x8b\x08\x00\x00\x00\x00"), "failure"),
        ("a-204-with-a-body", http("204 No\r\ncontent-length: 9", b"{\"a\":1}xx"), "success"),
        ("a-304", http("304 Not Modified", b""), "unknown"),
        ("deep", http("200 OK", "{\"dtm_result\":".repeat(50_000).as_bytes()), "unknown"),
        ("a-long-refusal", http("409 No", &[b"{\"message\": \"", &vec![b'"'; 200_000][..]].concat()), "failure"),
        // What follows the answer is nobody's: the next call must not take it for its own.
        (
            "one-more-answer",
            Open(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 409 No\r\ncontent-length: 2\r\n\r\nno".to_vec()),
            "success",
        ),
        ("garbage-behind", Open(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}\x00\xff\r\n\r\n".to_vec()), "success"),
    ]
}

/// Retry-After of no meaning: the saga's own interval counts.
const NO_TIMES: [&str; 8] =
    ["", "soon", "-1", "1.5", "0x10", "Thu, 32 Dec 2099 25:61:61 GMT", "1, 2", "\u{ff}\u{ff}"];

pub(crate) async fn insert(scene: &Scene, gid: &str, url: &str) {
    let steps = json!([{"name": "a", "action": url, "compensate": url, "payload": {"a": 1}}]);
    sqlx::query(
        "insert into pgsaga.saga (gid, steps, retry_interval, request_timeout) values ($1, $2, '20 ms', '1 second')",
    )
    .bind(gid)
    .bind(steps)
    .execute(scene.pool())
    .await
    .unwrap();
}

/// Sagas of a participant that behaves, beside the others: each is called once per op, and
/// succeeds.
async fn bystanders(scene: &Scene, from: usize, count: usize) {
    for n in from..from + count {
        scene.saga(&format!("bystander-{n}")).step("a").step("b").insert().await;
    }
    for n in from..from + count {
        scene.expect(&format!("bystander-{n}"), "succeeded", None, &["a action", "b action"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_judged_by_the_contract_and_concerns_nobody_else() {
    let scene = Scene::with_worker().await;
    bystanders(&scene, 0, 20).await;
    let before = memory_max(&scene.workers[0]);
    let answers = answers();
    let mut raws = Vec::new();
    for (name, answer, _) in &answers {
        // Each its own participant: one that hangs has its own limits.
        let raw = Raw::start().await;
        insert(&scene, name, &raw.on(name, answer.clone())).await;
        raws.push(raw);
    }
    bystanders(&scene, 20, 20).await;
    for ((name, _, judged), raw) in answers.iter().zip(&raws) {
        let ended = scene.ended(name).await;
        let status = if *judged == "failure" { "failed" } else { "succeeded" };
        let history = scene.history(name).await;
        assert_eq!(ended.0, status, "{name}: {history:?} {:?}", ended.1);
        assert_eq!(history[0], format!("a action 1 {judged}"), "{name}: {history:?}");
        assert!(history.len() <= 3, "{name}: {history:?}");
        // The next saga of the same participant, maybe on the same connection.
        insert(&scene, &format!("{name}-next"), &raw.url("next")).await;
    }
    for (name, ..) in &answers {
        let next = format!("{name}-next");
        assert_eq!(scene.ended(&next).await.0, "succeeded", "{next}");
        let refused = scene.history(&next).await.iter().any(|line| line.ends_with("failure"));
        assert!(!refused, "{next} took the answer of another: {:?}", scene.history(&next).await);
    }
    let grown = memory_max(&scene.workers[0]).saturating_sub(before);
    println!("{} answers; the worker grew by {} KiB", answers.len(), grown / 1024);
    assert!(grown < GROWTH_MAX, "{grown} bytes");
    assert_calm(&scene.workers[0]);
    scene.healthy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_after_of_no_meaning_changes_nothing_and_a_huge_one_is_an_hour() {
    let scene = Scene::with_worker().await;
    let raw = Raw::start().await;
    for (nth, time) in NO_TIMES.iter().enumerate() {
        // As single bytes, not as UTF-8.
        let time: Vec<u8> = time.chars().map(|character| character as u8).collect();
        let answer =
            [b"HTTP/1.1 503 No\r\ncontent-length: 0\r\nretry-after: ", &time[..], b"\r\n\r\n"].concat();
        insert(&scene, &format!("no-{nth}"), &raw.on(&format!("no-{nth}"), Answer::Open(answer))).await;
    }
    for huge in ["3601", "18446744073709551616", "99999999999999999999999999"] {
        let answer = format!("HTTP/1.1 429 No\r\ncontent-length: 0\r\nretry-after: {huge}\r\n\r\n");
        insert(
            &scene,
            &format!("h-{huge}"),
            &raw.on(&format!("h-{huge}"), Answer::Open(answer.into_bytes())),
        )
        .await;
    }
    for nth in 0..NO_TIMES.len() {
        assert_eq!(scene.ended(&format!("no-{nth}")).await.0, "succeeded", "{nth}");
    }
    let wait = "select count(*) from pgsaga.task where attempt = 2 and run_at - clock_timestamp() between interval '59 min' and interval '73 min'";
    pgsaga_tests::eventually(PATIENCE, "three wait for an hour", async || {
        let waiting: i64 = sqlx::query_scalar(wait).fetch_one(scene.pool()).await.unwrap();
        (waiting == 3).then_some(())
    })
    .await;
    sqlx::query("select pgsaga.retry(gid) from pgsaga.saga where finished_at is null")
        .execute(scene.pool())
        .await
        .unwrap();
    scene.all_ended(PATIENCE).await;
    assert_eq!(scene.count("succeeded").await, NO_TIMES.len() as i64 + 3);
    assert_calm(&scene.workers[0]);
    scene.healthy().await;
}

/// Valid answers of every kind with some bytes changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_answers_end_in_success_or_refusal_and_never_in_an_error_of_ours() {
    const VALID: [&str; 6] = [
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 26\r\n\r\n{\"dtm_result\": \"SUCCESS\"}\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n4\r\n\"b\"}\r\n0\r\n\r\n",
        "HTTP/1.1 409 Conflict\r\ncontent-length: 19\r\n\r\n{\"message\": \"no 7\"}",
        "HTTP/1.1 425 Too Early\r\ncontent-length: 0\r\nretry-after: 0\r\n\r\n",
        "HTTP/1.1 503 No\r\nretry-after: 0\r\ndate: Wed, 21 Oct 2015 07:28:00 GMT\r\ncontent-length: 2\r\n\r\nno",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 429 No\r\nretry-after: Wed, 21 Oct 2015 07:28:00 GMT\r\ncontent-length: 0\r\n\r\n",
    ];
    let scene = Scene::with_worker().await;
    let seed = seed();
    let mut dice = Dice::new(seed);
    let raw = Raw::start().await;
    let sagas = count() / 50;
    for n in 0..sagas {
        let bytes = {
            let valid = dice.of(&VALID);
            dice.mutated(valid.as_bytes())
        };
        let answer = if dice.below(3) == 0 { Answer::Reset(bytes) } else { Answer::Bytes(bytes) };
        insert(&scene, &format!("s{n}"), &raw.on(&format!("s{n}"), answer)).await;
    }
    bystanders(&scene, 0, 10).await;
    // A Retry-After that became a number may be up to an hour.
    pgsaga_tests::eventually(PATIENCE * (1 + sagas as u32 / 2_000), "every saga ends or waits", async || {
        let running: i64 = sqlx::query_scalar(
            "select count(*) from pgsaga.task where worker is not null or run_at < clock_timestamp() + interval '2 seconds'",
        )
        .fetch_one(scene.pool())
        .await
        .unwrap();
        (running == 0).then_some(())
    })
    .await;
    sqlx::query("select pgsaga.retry(gid) from pgsaga.saga where finished_at is null")
        .execute(scene.pool())
        .await
        .unwrap();
    scene.all_ended(PATIENCE).await;
    let (succeeded, failed) = (scene.count("succeeded").await - 10, scene.count("failed").await);
    println!("{succeeded} succeeded, {failed} were refused");
    assert_eq!((succeeded + failed) as usize, sagas, "HOSTILE_SEED={seed}");
    assert!(succeeded > 0 && failed > 0);
    assert_calm(&scene.workers[0]);
    scene.healthy().await;
}
