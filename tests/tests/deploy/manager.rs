//! Stands for systemd: a datagram socket that `NOTIFY_SOCKET` names.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pgsaga_tests::eventually;
use pgsaga_tests::scene::PATIENCE;
use tempfile::TempDir;
use tokio::net::UnixDatagram;
use tokio::task::JoinHandle;

/// The time of the watchdog in tests.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(4);
pub(crate) const PING: &str = "WATCHDOG=1";

/// The socket, and what came through it.
pub(crate) struct Manager {
    socket: PathBuf,
    heard: Arc<Mutex<Vec<(Instant, String)>>>,
    reads: JoinHandle<()>,
    _folder: TempDir,
}

impl Manager {
    pub(crate) fn start() -> Manager {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("notify");
        let listener = UnixDatagram::bind(&socket).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&heard);
        let reads = tokio::spawn(async move {
            let mut bytes = [0; 4096];
            while let Ok(length) = listener.recv(&mut bytes).await {
                let words = String::from_utf8(bytes[..length].to_vec()).unwrap();
                hears.lock().unwrap().extend(words.lines().map(|word| (Instant::now(), word.to_owned())));
            }
        });
        Manager { socket, heard, reads, _folder: folder }
    }

    /// What systemd would put into the environment.
    pub(crate) fn socket(&self) -> (&str, &str) {
        ("NOTIFY_SOCKET", self.socket.to_str().unwrap())
    }

    /// Everything but the pings, in order.
    pub(crate) fn words(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap();
        heard.iter().map(|(_, word)| word.clone()).filter(|word| word != PING).collect()
    }

    /// When the watchdog was fed.
    pub(crate) fn pings(&self) -> Vec<Instant> {
        self.heard.lock().unwrap().iter().filter(|(_, word)| word == PING).map(|(at, _)| *at).collect()
    }

    /// The longest that it was not.
    pub(crate) fn longest_silence(&self) -> Duration {
        let pings = self.pings();
        pings.windows(2).map(|two| two[1] - two[0]).max().unwrap_or_default()
    }

    pub(crate) async fn hears(&self, word: &str) {
        eventually(PATIENCE, &format!("systemd hears {word}"), async || {
            self.words().iter().any(|heard| heard == word).then_some(())
        })
        .await;
    }

    /// Waits for so many more pings.
    pub(crate) async fn is_fed(&self, times: usize) {
        let before = self.pings().len();
        let fed = async || (self.pings().len() >= before + times).then_some(());
        // A ping comes after half of the watchdog's time, or at the look that follows.
        let patience = PATIENCE + WATCHDOG * times as u32;
        eventually(patience, &format!("{times} more pings"), fed).await;
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.reads.abort();
    }
}
