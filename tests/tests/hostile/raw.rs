//! A participant that answers bytes, not HTTP.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The end of a connection that a caller has long given up.
const HELD_MAX: Duration = Duration::from_secs(20);

/// What comes back for the first call of a path.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// These bytes, then the end.
    Bytes(Vec<u8>),
    /// These bytes, and the connection stays open.
    Open(Vec<u8>),
    /// These bytes, then a reset.
    Reset(Vec<u8>),
    /// The first bytes, then the others again and again, as fast as they are read, for as long as
    /// somebody reads.
    Endless(Vec<u8>, Vec<u8>),
    /// The same, with a pause before each.
    Trickle(Vec<u8>, Vec<u8>, Duration),
}

/// A server: the first call of a path gets its answer, every later one a plain 200.
#[derive(Debug)]
pub(crate) struct Raw {
    address: SocketAddr,
    answers: Arc<Mutex<HashMap<String, Answer>>>,
    server: JoinHandle<()>,
}

impl Raw {
    pub(crate) async fn start() -> Raw {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers: Arc<Mutex<HashMap<String, Answer>>> = Arc::default();
        let known = Arc::clone(&answers);
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, Arc::clone(&known)));
            }
        });
        Raw { address, answers, server }
    }

    /// The URL of a path whose first call gets this.
    pub(crate) fn on(&self, path: &str, answer: Answer) -> String {
        self.answers.lock().unwrap().insert(format!("/{path}"), answer);
        self.url(path)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Answers one call after the other, until a connection broke.
async fn serve(stream: TcpStream, answers: Arc<Mutex<HashMap<String, Answer>>>) {
    let mut stream = BufReader::new(stream);
    while let Some(path) = request(&mut stream).await {
        let answer = answers.lock().unwrap().remove(&path);
        let Some(answer) = answer else {
            let plain = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
            if stream.write_all(plain).await.is_err() {
                return;
            }
            continue;
        };
        match answer {
            Answer::Bytes(bytes) => {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
                return;
            }
            Answer::Open(bytes) => {
                let _ = stream.write_all(&bytes).await;
            }
            Answer::Reset(bytes) => {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.get_ref().set_zero_linger();
                return;
            }
            Answer::Endless(first, again) => {
                let _ = stream.write_all(&first).await;
                while stream.write_all(&again).await.is_ok() {}
                return;
            }
            Answer::Trickle(first, again, pause) => {
                let _ = stream.write_all(&first).await;
                let mut tick = tokio::time::interval(pause);
                while stream.write_all(&again).await.is_ok() {
                    tick.tick().await;
                }
                return;
            }
        }
    }
}

/// Reads a request to its end and gives its path; `None` where there is none any more.
async fn request(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        // A caller that gave up without closing is none of ours.
        head.push(tokio::time::timeout(HELD_MAX, stream.read_u8()).await.ok()?.ok()?);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
    stream.read_exact(&mut body).await.ok()?;
    let target = head.split(' ').nth(1)?;
    Some(target.split('?').next()?.to_owned())
}
