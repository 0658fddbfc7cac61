//! A request that was never put on the wire did nothing, whatever kept it; a request that was may
//! have.

use std::net::TcpStream;
use std::time::Duration;

use pgsaga_tests::scene::Scene;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

/// A saga whose second step calls `url` once, with and without a body.
async fn sagas(scene: &Scene, url: &str) -> [&'static str; 2] {
    let gids = ["body", "no-body"];
    for (gid, payload) in gids.into_iter().zip([json!({"cents": 990}), Value::Null]) {
        let saga = scene.saga(gid).column("request_timeout", "'1 second'").column("retry_limit", "0");
        let saga = saga.step("stock").step("pay").with("payload", payload);
        saga.with("action", json!(url)).with("compensate", json!(url)).insert().await;
    }
    gids
}

/// The payment is not undone: that could not be done either, and there is nothing to undo.
async fn nothing_was_sent(scene: &Scene, url: &str) {
    for gid in sagas(scene, url).await {
        let (status, reason) = scene.ended(gid).await;
        assert_eq!(
            (status.as_str(), reason.as_deref()),
            ("failed", Some("pay: retry limit 0 reached")),
            "{gid}"
        );
        assert_eq!(
            scene.history(gid).await,
            ["stock action 1 success", "pay action 1 unsent", "stock compensate 1 success"],
            "{gid}"
        );
    }
    scene.healthy().await;
}

/// Linux drops the SYN of whoever comes once the backlog is full, so connecting takes until
/// somebody gives up.
#[tokio::test(flavor = "multi_thread")]
async fn a_participant_with_a_full_backlog_was_sent_nothing() {
    let scene = Scene::with_worker().await;
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    // Until one is not taken: the system rounds the length up.
    while let Ok(connection) = TcpStream::connect_timeout(&address, Duration::from_millis(500)) {
        waiting.push(connection);
        assert!(waiting.len() < 64, "a backlog without an end");
    }
    nothing_was_sent(&scene, &format!("http://{address}/pay")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_that_does_not_answer_the_handshake_of_tls_was_sent_nothing() {
    let scene = Scene::with_worker().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let silent = tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            connections.push(connection);
        }
    });
    nothing_was_sent(&scene, &format!("https://{address}/pay")).await;
    silent.abort();
}

/// The control: the same silence after the request has come is unknown, and the payment is undone.
#[tokio::test(flavor = "multi_thread")]
async fn a_participant_that_reads_the_request_and_does_not_answer_may_have_done_it() {
    let scene = Scene::with_worker().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let silent = tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut read = vec![0; 4096];
                while connection.read(&mut read).await.is_ok_and(|bytes| bytes > 0) {}
            });
        }
    });
    for gid in sagas(&scene, &format!("http://{address}/pay")).await {
        pgsaga_tests::eventually(pgsaga_tests::scene::PATIENCE, "the payment is undone", async || {
            let tries = scene.history(gid).await;
            assert_ne!(tries.get(1).map(String::as_str), Some("pay action 1 unsent"), "{gid}");
            tries.contains(&"pay compensate 1 unknown".to_owned()).then_some(())
        })
        .await;
    }
    silent.abort();
}
