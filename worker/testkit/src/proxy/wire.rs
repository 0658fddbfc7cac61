//! Frames of version 3 of Postgres's protocol.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

/// Messages of a client that belong together: up to a Sync, a simple query, or one that is alone.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) bytes: Bytes,
    /// The texts that it runs.
    pub(super) runs: Vec<Arc<str>>,
    /// The server ends its reply with ReadyForQuery.
    pub(super) is_answered: bool,
}

/// What a client has said so far.
#[derive(Debug, Default)]
pub(super) struct Requests {
    started: bool,
    scanned: usize,
    runs: Vec<Arc<str>>,
    statements: HashMap<Bytes, Arc<str>>,
    portals: HashMap<Bytes, Arc<str>>,
}

impl Requests {
    /// Takes the next batch, once it is whole.
    pub(super) fn next(&mut self, asked: &mut BytesMut) -> Option<Batch> {
        loop {
            // Only the first message has no type.
            let head = usize::from(self.started);
            let rest = asked.get(self.scanned..)?;
            let length = rest.get(head..head + 4)?.try_into().map(u32::from_be_bytes).ok()? as usize;
            let message = Bytes::copy_from_slice(rest.get(..head + length)?);
            self.scanned += message.len();
            if !std::mem::replace(&mut self.started, true) {
                return Some(self.batch(asked, true));
            }
            self.read(message[0], message.slice(5..));
            if !matches!(message[0], b'P' | b'B' | b'D' | b'E' | b'C') {
                return Some(self.batch(asked, matches!(message[0], b'S' | b'Q')));
            }
        }
    }

    fn batch(&mut self, asked: &mut BytesMut, is_answered: bool) -> Batch {
        let bytes = asked.split_to(std::mem::take(&mut self.scanned)).freeze();
        Batch { bytes, runs: std::mem::take(&mut self.runs), is_answered }
    }

    /// A prepared statement has its text only where it is parsed.
    fn read(&mut self, kind: u8, mut body: Bytes) {
        match kind {
            b'P' => {
                let (name, text) = (word(&mut body), word(&mut body));
                self.statements.insert(name, String::from_utf8_lossy(&text).into());
            }
            b'B' => {
                let (portal, name) = (word(&mut body), word(&mut body));
                if let Some(text) = self.statements.get(&name) {
                    self.portals.insert(portal, Arc::clone(text));
                }
            }
            b'E' => self.runs.extend(self.portals.get(&word(&mut body)).cloned()),
            b'Q' => self.runs.push(String::from_utf8_lossy(&word(&mut body)).into()),
            b'C' if body.first() == Some(&b'S') => {
                self.statements.remove(&word(&mut body.slice(1..)));
            }
            _ => {}
        }
    }
}

/// Takes what ends with a zero byte.
fn word(body: &mut Bytes) -> Bytes {
    let end = body.iter().position(|byte| *byte == 0).unwrap_or(body.len());
    let word = body.split_to(end);
    drop(body.split_to(1.min(body.len())));
    word
}

/// Takes the server's next message, once it is whole.
pub(super) fn answer(answered: &mut BytesMut) -> Option<Bytes> {
    let length = answered.get(1..5)?.try_into().map(u32::from_be_bytes).ok()? as usize;
    (answered.len() > length).then(|| answered.split_to(1 + length).freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut message = vec![kind];
        message.extend((body.len() as u32 + 4).to_be_bytes());
        message.extend(body);
        message
    }

    #[test]
    fn a_batch_names_the_text_of_the_statement_that_it_runs() {
        let mut wire = [0, 0, 0, 9, 0, 3, 0, 0, 0].to_vec();
        let parse = [message(b'P', b"s1\0-- Counts\nselect 1\0\0\0"), message(b'S', b"")].concat();
        let run = [message(b'B', b"p\0s1\0"), message(b'E', b"p\0\0\0\0\0"), message(b'S', b"")].concat();
        wire.extend([parse.clone(), run.clone(), message(b'Q', b"COMMIT\0")].concat());
        let (mut requests, mut asked, mut batches) = (Requests::default(), BytesMut::new(), Vec::new());
        // Byte by byte: nothing may depend on how a client's writes are cut.
        for byte in wire {
            asked.extend([byte]);
            batches.extend(requests.next(&mut asked));
        }
        let runs: Vec<Vec<&str>> =
            batches.iter().map(|batch| batch.runs.iter().map(AsRef::as_ref).collect()).collect();
        assert_eq!(runs, [vec![], vec![], vec!["-- Counts\nselect 1"], vec!["COMMIT"]]);
        assert_eq!((&batches[1].bytes[..], &batches[2].bytes[..]), (&parse[..], &run[..]));
        assert!(batches.iter().all(|batch| batch.is_answered));
    }

    #[test]
    fn an_answer_is_taken_whole() {
        let mut answered = BytesMut::new();
        for byte in message(b'Z', b"I") {
            assert_eq!(answer(&mut answered), None);
            answered.extend([byte]);
        }
        assert_eq!(answer(&mut answered).unwrap()[..], message(b'Z', b"I"));
    }
}
