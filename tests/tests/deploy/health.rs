//! `pgsaga health`, as a container's runtime runs it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use pgsaga_tests::command::Said;
use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Behaviour, Cluster, Gate, Worker, binary, eventually};

fn health(args: &[&str], env: &[(&str, &str)]) -> Said {
    let output = binary::command().arg("health").args(args).envs(env.iter().copied()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// Of a worker, by what its two probes say: `Ok` with standard output, or `Err` with standard
/// error.
async fn probes(worker: &Worker) -> [Result<String, String>; 2] {
    let address = worker.address().await.to_string();
    [&["--listen", &address][..], &["--listen", &address, "--ready"]].map(|args| {
        let said = health(args, &[]);
        let lines = said.out.lines().count() + said.err.lines().count();
        assert_eq!(lines, 1, "one line that says why: {said:?}");
        match said.code {
            Some(0) => Ok(said.out.trim_end().to_owned()),
            Some(1) => Err(said.err.trim_end().to_owned()),
            code => panic!("{code:?}: {}", said.err),
        }
    })
}

#[tokio::test]
async fn a_worker_that_works_is_healthy_and_ready() {
    let scene = Scene::with_worker().await;
    let address = scene.workers[0].address().await;
    let both = [Ok(format!("{address}: ok")), Ok(format!("{address}: ready"))];
    assert_eq!(probes(&scene.workers[0]).await, both);

    // As in a container: the worker's own variable, which says that it listens everywhere.
    for everywhere in [format!("0.0.0.0:{}", address.port()), format!("[::]:{}", address.port())] {
        let said = health(&["--ready"], &[("PGSAGA_LISTEN", &everywhere)]);
        assert_eq!((said.code, said.out), (Some(0), format!("{everywhere}: ready\n")), "{}", said.err);
    }
}

#[tokio::test]
async fn a_worker_without_postgres_is_healthy_and_not_ready() {
    let cluster = Cluster::own(false, false).await;
    let mut scene = Scene::on(&cluster).await;
    scene.start_worker(&[]).await;
    cluster.server().kill().unwrap();
    let address = scene.workers[0].address().await;
    let silent = "not ready: no heartbeat was acknowledged for a whole lease";
    let told = [Ok(format!("{address}: ok")), Err(format!("pgsaga: {address}/readyz: {silent}"))];
    let away = async || (probes(&scene.workers[0]).await == told).then_some(());
    eventually(PATIENCE, "the worker is healthy and not ready", away).await;

    // One that never saw it is so from the start.
    let late = Worker::spawn(scene.db.url(), &[]);
    late.wait_for_log("waiting for Postgres", PATIENCE).await;
    let address = late.address().await;
    let waits = "not ready: waiting for Postgres";
    let told = [Ok(format!("{address}: ok")), Err(format!("pgsaga: {address}/readyz: {waits}"))];
    assert_eq!(probes(&late).await, told);

    cluster.server().start_again().unwrap();
    for worker in [&scene.workers[0], &late] {
        let back = async || probes(worker).await[1].is_ok().then_some(());
        eventually(PATIENCE, "it is ready again", back).await;
    }
}

#[tokio::test]
async fn a_worker_that_drains_is_healthy_and_not_ready() {
    let mut scene = Scene::new().await;
    let gate = Gate::new();
    let saga = scene.saga("s").column("request_timeout", "'60 seconds'").step("pay");
    saga.action(Behaviour::Gate(gate.clone())).insert().await;
    scene.start_worker(&[]).await;
    scene.participant.wait_for_calls(1, PATIENCE).await;
    scene.workers[0].terminate();
    scene.workers[0].wait_for_log("draining", PATIENCE).await;
    let address = scene.workers[0].address().await;
    let told = [Ok(format!("{address}: ok")), Err(format!("pgsaga: {address}/readyz: not ready: stopping"))];
    assert_eq!(probes(&scene.workers[0]).await, told);
    gate.open();
    assert_eq!(scene.workers[0].wait_exit(PATIENCE).await.code(), Some(0));
    let said = health(&["--listen", &address.to_string()], &[]);
    let gone =
        format!("pgsaga: {address}/healthz: nobody listens there: Connection refused (os error 111)\n");
    assert_eq!((said.code, said.err), (Some(1), gone));
}

/// Answers whoever comes with these bytes, and keeps the connection open.
fn somebody(says: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut open = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(says);
            open.push(stream);
        }
    });
    address
}

#[test]
fn whoever_is_not_a_worker_is_not_taken_for_one() {
    for (says, why) in [
        (&b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>"[..], r#"it answered 200 "<html>""#),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nok", r#"it answered 404 "ok""#),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n\x1b[2Jx", r#"it answered 200 " [2Jx""#),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", r#"it answered 200 """#),
        (b"SSH-2.0-server\r\n", "no HTTP answer"),
        (b"", "no answer within 1 s"),
    ] {
        let address = somebody(says).to_string();
        let said = health(&["--listen", &address, "--timeout-seconds", "1"], &[]);
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{says:?}: {}", said.err);
        assert!(said.err.contains(why) && said.err.lines().count() == 1, "{says:?}: {}", said.err);
    }
    // More than a worker ever says is not read.
    let endless = [&b"HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n"[..], &[b'k'; 4096]].concat();
    let address = somebody(endless.leak()).to_string();
    let said = health(&["--listen", &address], &[]);
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("an answer of 200 that is not a worker's"), "{}", said.err);
}

#[test]
fn an_address_that_nobody_can_be_asked_at_is_refused() {
    for (args, says) in [
        (&["--listen", "127.0.0.1:0"][..], "--listen 127.0.0.1:0 names no port; allowed: the address"),
        (&["--listen", "9464"], "allowed: an IP address and a port, such as 127.0.0.1:9464"),
        (&["--timeout-seconds", "0"], "0 is not in 1..=60"),
    ] {
        let said = health(args, &[]);
        assert_eq!(said.code, Some(2), "{args:?}");
        assert!(said.err.contains(says), "{args:?}: {}", said.err);
    }
    let help = binary::command().arg("--help").output().unwrap();
    assert!(String::from_utf8_lossy(&help.stdout).contains("\n  health "));
}
