//! The worker's own port, `/metrics`, `/healthz` and `/readyz`, for whoever can reach it.

use std::net::SocketAddr;
use std::time::Duration;

use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Worker, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::dice::Dice;
use crate::process::{assert_calm, descriptors, memory_max};
use crate::{count, seed};

/// Connections that are held open; the worker keeps 64.
const HELD: usize = 400;
const CONNECTIONS_MAX: usize = 64;
/// Beside them, a few that calls and Postgres come to need meanwhile.
const DESCRIPTORS_MORE: usize = CONNECTIONS_MAX + 30;
const GROWTH_MAX: u64 = 64 * 1024 * 1024;
/// For one answer; the tests share two cores.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// For a request that may never be whole.
const A_MOMENT: Duration = Duration::from_millis(10);

/// What comes back for these bytes: the first bytes, or nothing. Waits so long before it says that
/// no more will come; a request that is whole is answered before.
async fn ask(address: SocketAddr, bytes: &[u8], patience: Duration) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // It may hang up before all is written; then what it said before may be lost as well.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(patience, stream.read_buf(&mut answer)).await;
    let _ = stream.shutdown().await;
    let read = tokio::time::timeout(ANSWER_MAX, (&mut stream).take(65_536).read_to_end(&mut answer)).await;
    assert!(
        read.is_ok(),
        "neither an answer nor an end within {ANSWER_MAX:?}: {:?}",
        String::from_utf8_lossy(bytes)
    );
    answer
}

/// The status of an answer; `None` where there was none.
fn status(answer: &[u8]) -> Option<u16> {
    let answer = String::from_utf8_lossy(answer);
    answer.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()
}

/// It is ready, tells its metrics, and works.
async fn goes_on(scene: &Scene, gid: &str) {
    let worker = &scene.workers[0];
    assert_eq!(worker.get("/readyz").await.unwrap(), (200, "ready\n".to_owned()));
    assert_eq!(worker.get("/healthz").await.unwrap(), (200, "ok\n".to_owned()));
    assert!(worker.metric("pgsaga_ready").await == Some(1.0));
    scene.saga(gid).step("a").insert().await;
    scene.expect(gid, "succeeded", None, &["a action"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_a_surprise() {
    let scene = Scene::with_worker().await;
    goes_on(&scene, "before").await;
    let worker = &scene.workers[0];
    let address = worker.address().await;
    let before = memory_max(worker);
    let get = |rest: &str| format!("GET {rest}\r\n\r\n").into_bytes();
    let million = "a".repeat(1_000_000);
    let many: String = (0..10_000).map(|nth| format!("h{nth}: v\r\n")).collect();
    let fine = get("/healthz HTTP/1.1\r\nhost: a");
    let asked: Vec<(Vec<u8>, &[u16])> = vec![
        (fine.clone(), &[200]),
        (get("/healthz?\x7f HTTP/1.1"), &[200, 400]),
        (get("/nothing HTTP/1.1"), &[404]),
        (get("/metrics/ HTTP/1.1"), &[404]),
        (get("//metrics HTTP/1.1"), &[404]),
        (get("/../../etc/passwd HTTP/1.1"), &[404]),
        (get("/metrics%00 HTTP/1.1"), &[404]),
        (get("/\u{1b}[2J HTTP/1.1"), &[400, 404]),
        (get("http://other.example/metrics HTTP/1.1"), &[200]),
        (get("* HTTP/1.1"), &[400, 404]),
        (get("metrics HTTP/1.1"), &[400, 404]),
        (get("/metrics HTTP/9.9"), &[400]),
        (get("/metrics"), &[400]),
        (get(" HTTP/1.1"), &[400]),
        (get(&format!("/{} HTTP/1.1", "a/".repeat(40_000))), &[414, 431]),
        (get(&format!("/metrics HTTP/1.1\r\nx: {million}")), &[431]),
        (get(&format!("/metrics HTTP/1.1\r\n{million}: x")), &[400, 431]),
        (get(&format!("/metrics HTTP/1.1\r\n{many}x: y")), &[431]),
        (get("/metrics HTTP/1.1\r\nno colon"), &[400]),
        (get("/metrics HTTP/1.1\r\nx: a\0b"), &[400]),
        (b"POST /metrics HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello".to_vec(), &[405]),
        (b"PUT /readyz HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\nx".to_vec(), &[405]),
        (b"DELETE /healthz HTTP/1.1\r\n\r\n".to_vec(), &[405]),
        (b"TRACE / HTTP/1.1\r\n\r\n".to_vec(), &[404]),
        (b"CONNECT a:1 HTTP/1.1\r\n\r\n".to_vec(), &[400, 404, 405]),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), &[400]),
        (b"G\xffT /metrics HTTP/1.1\r\n\r\n".to_vec(), &[400]),
        (
            b"POST /metrics HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\nzz".to_vec(),
            &[400, 405],
        ),
        (b"GET /metrics HTTP/1.1\r\ncontent-length: -1\r\n\r\n".to_vec(), &[400]),
        (b"GET /metrics HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n".to_vec(), &[400]),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), &[400]),
        (vec![0; 100_000], &[400, 431]),
        (Vec::new(), &[]),
    ];
    for (bytes, allowed) in &asked {
        let patience = if allowed.is_empty() { Duration::ZERO } else { ANSWER_MAX };
        let answer = ask(address, bytes, patience).await;
        // A refusal may be lost when the worker hangs up on what it has not read.
        let said = status(&answer);
        let fits = said.map_or(bytes.is_empty() || allowed != &[200], |said| allowed.contains(&said));
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
        assert!(fits, "{shown:?}: {said:?}, allowed {allowed:?}");
    }
    let seed = seed();
    let mut dice = Dice::new(seed);
    for _ in 0..count() / 50 {
        let bytes = match dice.below(4) {
            0 => (0..dice.below(300)).map(|_| dice.below(256) as u8).collect(),
            _ => {
                let valid = dice.of(&[
                    "GET /metrics HTTP/1.1\r\nhost: a\r\naccept: */*\r\n\r\n",
                    "POST /readyz HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody",
                    "HEAD /healthz HTTP/1.0\r\n\r\nGET /readyz HTTP/1.1\r\n\r\n",
                    "GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
                ]);
                dice.mutated(valid.as_bytes())
            }
        };
        let answer = ask(address, &bytes, A_MOMENT).await;
        let fits = answer.is_empty() || status(&answer).is_some_and(|status| (200..500).contains(&status));
        assert!(fits, "{:?}; HOSTILE_SEED={seed}", String::from_utf8_lossy(&bytes));
    }
    goes_on(&scene, "after").await;
    let grown = memory_max(worker).saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes");
    assert_calm(worker);
}

/// The ways to hold a connection: to say nothing, to say half, to ask and not to listen, to send
/// without end.
fn ways() -> [Vec<u8>; 5] {
    [
        Vec::new(),
        b"GET /metrics HTTP/1.1\r\nhost: a\r\nx: ".to_vec(),
        b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n".repeat(500),
        b"POST /metrics HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000000\r\n\r\nx".to_vec(),
        b"POST /metrics HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
    ]
}

async fn hold(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut rest = bytes;
    // As much as it takes just now: who does not read is not waited for.
    while !rest.is_empty() {
        match stream.try_write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(_) => break,
        }
    }
    stream
}

async fn accepted(worker: &Worker, before: usize) {
    eventually(PATIENCE, "the connections arrive", async || {
        (descriptors(worker) >= before + CONNECTIONS_MAX / 2).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_holds_connections_open_keeps_nobody_out() {
    let scene = Scene::with_worker().await;
    goes_on(&scene, "before").await;
    let worker = &scene.workers[0];
    let address = worker.address().await;
    let (memory, open) = (memory_max(worker), descriptors(worker));
    let mut held = Vec::new();
    let mut most = 0;
    for nth in 0..HELD {
        held.push(hold(address, &ways()[nth % ways().len()]).await);
        if nth % 50 == 49 {
            accepted(worker, open).await;
            goes_on(&scene, &format!("held-{nth}")).await;
            most = most.max(descriptors(worker));
        }
    }
    println!("{HELD} connections held: {} descriptors of the worker at most, {open} before", most);
    assert!(most <= open + DESCRIPTORS_MORE, "{most} descriptors, {open} before");
    let grown = memory_max(worker).saturating_sub(memory);
    assert!(grown < GROWTH_MAX, "{grown} bytes");
    drop(held);
    eventually(PATIENCE, "the connections are closed again", async || {
        (descriptors(worker) <= open + DESCRIPTORS_MORE - CONNECTIONS_MAX).then_some(())
    })
    .await;
    goes_on(&scene, "after").await;
    assert_calm(worker);
}

/// As Prometheus does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_used_again_and_one_more_than_fit_ends_only_the_oldest() {
    let scene = Scene::with_worker().await;
    let address = scene.workers[0].address().await;
    let again = async |stream: &mut TcpStream| {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await.ok()?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"ok\n") {
            let read = tokio::time::timeout(ANSWER_MAX, stream.read_buf(&mut answer)).await.unwrap();
            read.ok().filter(|&read| read > 0)?;
        }
        status(&answer)
    };
    let mut streams = Vec::new();
    // The last look of the test at /readyz may still hold a place.
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert_eq!(again(&mut stream).await, Some(200));
        streams.push(stream);
    }
    for stream in &mut streams[1..] {
        assert_eq!(again(stream).await, Some(200), "used again");
    }
    for _ in 0..2 {
        let mut one_more = TcpStream::connect(address).await.unwrap();
        assert_eq!(again(&mut one_more).await, Some(200));
        streams.push(one_more);
    }
    assert_eq!(again(&mut streams[0]).await, None, "the oldest has made room");
    for stream in &mut streams[2..] {
        assert_eq!(again(stream).await, Some(200), "and nobody else");
    }
}
