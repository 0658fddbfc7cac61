//! The call log of a test participant: the calls it received and its actions, one JSON object per
//! line. Each line is on disk before the call is answered. The demo's banks and the tests'
//! participants write it, and the tests' oracle reads it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use chrono::Utc;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::lock;

/// One line of the call log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Microseconds since 1970. The values of a file strictly increase.
    pub at_us: i64,
    /// Number of the call, shared by all of its lines.
    pub call: i64,
    /// The request, as received.
    #[serde(flatten)]
    pub asked: Asked,
    /// The action of the participant.
    #[serde(flatten)]
    pub did: Did,
}

/// The identifiers that a call carries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The header `Idempotency-Key` of the call.
    pub key: String,
    /// The query parameter `gid`.
    pub gid: String,
    /// The query parameter `branch_id`.
    pub step: String,
    /// The query parameter `op`.
    pub op: String,
    /// The header `Saga-Attempt` of the call.
    pub attempt: u32,
}

/// What a participant did with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "did", rename_all = "snake_case")]
pub enum Did {
    /// It received the complete request.
    Arrived,
    /// It did the work; behind a barrier, for the first time.
    Worked,
    /// The barrier reported that there was nothing to do.
    Skipped,
    /// It is about to respond.
    Answered {
        /// HTTP status of the response.
        status: u16,
    },
    /// It is about to close the connection without a response.
    HungUp,
}

/// A call log to write to. Clones write to the same file.
///
/// A thread writes and syncs the queued lines in groups.
#[derive(Debug, Clone)]
pub struct Ledger(Arc<Mutex<Desk>>);

/// Lines get their times and are queued under one lock, so the file is in the order of the times.
#[derive(Debug)]
struct Desk {
    writer: mpsc::Sender<Order>,
    last_us: i64,
    last_call: i64,
}

#[derive(Debug)]
struct Order {
    line: Vec<u8>,
    written: oneshot::Sender<()>,
}

impl Ledger {
    /// Opens a call log. Lines in the file are kept.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path) -> io::Result<Ledger> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        end_torn_line(&mut file)?;
        let (writer, orders) = mpsc::channel();
        thread::Builder::new().name("ledger".to_owned()).spawn(move || write(file, &orders))?;
        // Call numbers start at the current time, so that a restarted process uses new numbers.
        let now_us = Utc::now().timestamp_micros();
        Ok(Ledger(Arc::new(Mutex::new(Desk { writer, last_us: now_us, last_call: now_us }))))
    }

    /// Records that a call arrived.
    pub fn begin(&self, asked: Asked) -> Entry {
        let call = {
            let mut desk = lock(&self.0);
            desk.last_call += 1;
            desk.last_call
        };
        let entry = Entry { ledger: self.clone(), call, asked: Arc::new(asked) };
        // Does not wait: the line is on disk with the next line of this call, at the latest.
        drop(entry.note(Did::Arrived));
        entry
    }

    /// Waits until all lines recorded so far are on disk.
    ///
    /// # Errors
    /// The file could not be written.
    pub async fn synced(&self) -> io::Result<()> {
        self.order(|_| Vec::new()).on_disk().await
    }

    fn order(&self, line: impl FnOnce(&mut Desk) -> Vec<u8>) -> Noted {
        let (written, noted) = oneshot::channel();
        let mut desk = lock(&self.0);
        let line = line(&mut desk);
        // The writer ends only if it cannot write, and `noted` then returns an error.
        let _ = desk.writer.send(Order { line, written });
        Noted(noted)
    }
}

/// One call in the log.
#[derive(Debug, Clone)]
pub struct Entry {
    ledger: Ledger,
    call: i64,
    asked: Arc<Asked>,
}

impl Entry {
    /// Records an action with the current time. [`Noted::on_disk`] waits for the disk.
    pub fn note(&self, did: Did) -> Noted {
        self.ledger.order(|desk| {
            desk.last_us = Utc::now().timestamp_micros().max(desk.last_us + 1);
            let line = Line { at_us: desk.last_us, call: self.call, asked: (*self.asked).clone(), did };
            let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
            bytes.push(b'\n');
            bytes
        })
    }
}

/// A queued line. It is written even if nothing waits for it.
#[derive(Debug)]
pub struct Noted(oneshot::Receiver<()>);

impl Noted {
    /// Waits until this line and all earlier lines are on disk.
    ///
    /// # Errors
    /// The file could not be written.
    pub async fn on_disk(self) -> io::Result<()> {
        self.0.await.map_err(|_| io::Error::other("the ledger cannot be written"))
    }
}

/// Completes a partial last line, which a killed process may have left.
fn end_torn_line(file: &mut File) -> io::Result<()> {
    if file.metadata()?.len() > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(())
}

/// Writes and syncs all lines that were queued during the last sync.
fn write(mut file: File, orders: &mpsc::Receiver<Order>) {
    while let Ok(first) = orders.recv() {
        let group: Vec<Order> = std::iter::once(first).chain(orders.try_iter()).collect();
        let lines: Vec<u8> = group.iter().flat_map(|order| &order.line).copied().collect();
        if let Err(error) = file.write_all(&lines).and_then(|()| file.sync_data()) {
            tracing::error!(%error, "failed to write the ledger");
            return;
        }
        for order in group {
            // The receiver is gone if nothing waits for the line.
            let _ = order.written.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(key: &str) -> Asked {
        Asked { key: key.to_owned(), gid: "g".into(), step: "pay".into(), op: "action".into(), attempt: 1 }
    }

    fn lines(path: &Path) -> Vec<Line> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    #[tokio::test]
    async fn a_line_is_in_the_file_once_it_was_waited_for_and_times_follow_the_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let ledger = Ledger::open(&path).unwrap();
        let calls: Vec<Entry> = (0..100).map(|n| ledger.begin(asked(&n.to_string()))).collect();
        for call in &calls {
            drop(call.note(Did::Worked));
        }
        calls[0].note(Did::Answered { status: 200 }).on_disk().await.unwrap();
        let lines = lines(&path);
        assert_eq!(lines.len(), 201);
        assert!(lines.windows(2).all(|pair| pair[0].at_us < pair[1].at_us));
        let last = lines.last().unwrap();
        assert_eq!((last.asked.key.as_str(), last.did), ("0", Did::Answered { status: 200 }));
        assert_eq!(lines[0].call, last.call);
    }

    #[tokio::test]
    async fn a_ledger_goes_on_after_the_half_line_of_a_killed_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        std::fs::write(&path, "{\"at_us\":1,\"ca").unwrap();
        let ledger = Ledger::open(&path).unwrap();
        drop(ledger.begin(asked("k")));
        ledger.synced().await.unwrap();
        assert_eq!(lines(&path).len(), 1);
    }
}
