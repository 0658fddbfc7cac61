//! A participant that closes an idle connection as the next request arrives makes the outcome of
//! that call unknown. So a connection that was idle for long is not used again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use pgsaga_tests::scene::Scene;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Answers 425 to the first call and 200 to all others, and never closes a connection.
async fn serve(mut stream: TcpStream, connection: usize, calls: Arc<Mutex<Vec<usize>>>) {
    let mut request = Vec::new();
    loop {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
        if !request.ends_with(b"\r\n\r\n7") {
            continue;
        }
        request.clear();
        let first = {
            let mut calls = calls.lock().unwrap();
            calls.push(connection);
            calls.len() == 1
        };
        let status = if first { "425 Too Early" } else { "200 OK" };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

/// The connections of two calls that are more than a second apart.
async fn connections(flags: &[&str]) -> Vec<usize> {
    let mut scene = Scene::new().await;
    scene.start_worker(flags).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/pay", listener.local_addr().unwrap());
    let calls: Arc<Mutex<Vec<usize>>> = Arc::default();
    let all = Arc::clone(&calls);
    let server = tokio::spawn(async move {
        let count = AtomicUsize::new(0);
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, count.fetch_add(1, Ordering::Relaxed), Arc::clone(&all)));
        }
    });
    let saga = scene.saga("s").step("a").with("action", json!(url));
    saga.with("payload", json!(7)).column("retry_interval", "'2 seconds'").insert().await;
    assert_eq!(scene.ended("s").await.0, "succeeded");
    server.abort();
    let calls = calls.lock().unwrap();
    calls.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_idle_for_long_is_not_used_again() {
    assert_eq!(connections(&[]).await, [0, 1]);
    assert_eq!(connections(&["--connection-idle-seconds", "60"]).await, [0, 0], "the time is a flag");
}
