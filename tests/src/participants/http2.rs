//! Participants that speak HTTP/2: processes of Node, which can be frozen, and a TCP load balancer
//! in front of them.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::authority::Authority;
use crate::{binary, pgsaga, tool};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/http2.mjs");

/// An authority for `localhost`, with its files.
#[derive(Debug)]
pub struct Tls(TempDir);

/// A participant of `fixtures/http2.mjs`. Dropping it kills it.
#[derive(Debug)]
pub struct Http2 {
    child: Child,
    port: u16,
    lines: Arc<Mutex<Vec<String>>>,
}

/// Sends each new connection to the next of some addresses.
#[derive(Debug)]
pub struct Balancer {
    port: u16,
    task: JoinHandle<()>,
    to: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Tls {
    /// Writes the authority and a server's certificate.
    ///
    /// # Panics
    /// When the files cannot be written.
    #[expect(clippy::new_without_default, reason = "it writes files")]
    pub fn new() -> Tls {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("theirs");
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        authority.server("localhost").write(folder.path(), "server");
        Tls(folder)
    }

    /// The file with the authority, for `--participant-ca`.
    pub fn ca(&self) -> String {
        self.file("ca.pem")
    }

    fn file(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

impl Http2 {
    /// Starts a participant that behaves as the script's arguments say.
    ///
    /// # Panics
    /// When Node cannot be started.
    pub fn start(tls: &Tls, mut wants: Value) -> Http2 {
        wants["cert"] = tls.file("server.pem").into();
        wants["key"] = tls.file("server-key.pem").into();
        let mut command: Command = binary::tied(pgsaga(), &tool("node"));
        command.args([SCRIPT, &wants.to_string()]).stdin(Stdio::null()).stdout(Stdio::piped());
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (said, (send, receive)) = (Arc::clone(&lines), mpsc::channel());
        // The thread that starts the process counts as its parent.
        thread::spawn(move || {
            let mut child = command.spawn().expect("failed to start node");
            let stdout = child.stdout.take().unwrap();
            let mut output = BufReader::new(stdout).lines().map_while(Result::ok);
            let port = output.next().and_then(|line| line.strip_prefix("port ")?.parse().ok());
            send.send((child, port)).unwrap();
            for line in output {
                said.lock().unwrap().push(line);
            }
        });
        let (child, port): (Child, Option<u16>) = receive.recv().expect("failed to start node");
        Http2 { child, port: port.expect("the script says its port"), lines }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// The number of connections that were made to it.
    ///
    /// # Panics
    /// Never.
    pub fn connections(&self) -> usize {
        self.lines.lock().unwrap().iter().filter(|line| *line == "connection").count()
    }

    /// The keys of the calls that it took, in order.
    ///
    /// # Panics
    /// Never.
    pub fn calls(&self) -> Vec<String> {
        let lines = self.lines.lock().unwrap();
        lines.iter().filter_map(|line| Some(line.strip_prefix("call ")?.to_owned())).collect()
    }

    /// Freezes the process. The kernel still acknowledges what is sent to it.
    ///
    /// # Panics
    /// When it is gone.
    pub fn freeze(&self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGSTOP).unwrap();
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Balancer {
    /// Starts on a port of its own.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn start(to: &[SocketAddr]) -> Balancer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let to = Arc::new(Mutex::new(to.to_vec()));
        let (targets, nth) = (Arc::clone(&to), AtomicUsize::new(0));
        let task = tokio::spawn(async move {
            while let Ok((mut outside, _)) = listener.accept().await {
                let target = {
                    let targets = targets.lock().unwrap();
                    targets[nth.fetch_add(1, Ordering::Relaxed) % targets.len()]
                };
                tokio::spawn(async move {
                    let Ok(mut inside) = TcpStream::connect(target).await else { return };
                    let _ = copy_bidirectional(&mut outside, &mut inside).await;
                });
            }
        });
        Balancer { port, task, to }
    }

    /// The URL of a path, by the name of the certificate.
    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    /// Sends new connections elsewhere, as a change in DNS does.
    ///
    /// # Panics
    /// Never.
    pub fn point_to(&self, to: SocketAddr) {
        *self.to.lock().unwrap() = vec![to];
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
