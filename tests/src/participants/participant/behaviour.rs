use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

/// What a participant does with a call. Where it says "then", calls are counted by idempotency key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Behaviour {
    /// Does the work, answers 200.
    Ok,
    /// Answers this status, with an empty body; it did the work when that is a 2xx.
    Status(u16),
    /// Answers this status and body; it did the work when that is a 2xx.
    Json(u16, Value),
    /// Answers this status, these headers and these bytes; it did the work when that is a 2xx.
    Raw {
        /// The status.
        status: u16,
        /// Further headers.
        headers: Vec<(String, String)>,
        /// The body.
        body: Vec<u8>,
    },
    /// Answers 409 with this message.
    Refuse(String),
    /// Answers 425 so many times, then [`Behaviour::Ok`].
    Ongoing(usize),
    /// Answers 500 so many times, then [`Behaviour::Ok`].
    Unknown(usize),
    /// Never answers.
    Hang,
    /// Closes the connection without having done the work.
    CloseBefore,
    /// Does the work, then closes the connection without an answer.
    CloseAfter,
    /// [`Behaviour::Ok`] after so long.
    Slow(Duration),
    /// Does the work, then answers 200 when the caller has waited twice as long as it said it
    /// would.
    Late,
    /// Answers this status and so many bytes; it did the work when that is a 2xx.
    Flood(u16, usize),
    /// [`Behaviour::Ok`] once the gate is open.
    Gate(Gate),
    /// The other behaviour, once the gate is open.
    Behind(Gate, Box<Behaviour>),
    /// One after the other, then [`Behaviour::Ok`]. Each stands for one call, so `Ongoing(1)` for
    /// one 425.
    Sequence(Vec<Behaviour>),
}

/// What the participant does, when it says so, and what: nothing is a closed connection.
pub(super) struct Answer {
    pub(super) worked: bool,
    pub(super) after: Duration,
    pub(super) said: Option<Said>,
}

/// An answer's status, headers and body.
pub(super) type Said = (u16, Vec<(String, String)>, Vec<u8>);

impl Behaviour {
    /// Answers this status with these headers and these bytes.
    pub fn raw(status: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self::Raw { status, headers, body: body.into() }
    }

    /// Answers this status, and asks to be called again after so many seconds.
    pub fn retry_after(status: u16, seconds: u32) -> Self {
        Self::raw(status, &[("retry-after", &seconds.to_string())], "")
    }

    /// Sends the caller elsewhere, who must not go: it would be one more call, of a path that the
    /// test knows.
    pub fn redirect(status: u16, location: &str) -> Self {
        Self::raw(status, &[("location", location)], "")
    }

    /// Answers this status and bytes that are neither JSON nor text.
    pub fn garbage(status: u16) -> Self {
        Self::raw(status, &[], (0..=255).rev().collect::<Vec<u8>>())
    }

    /// This, once the gate is open.
    #[must_use]
    pub fn behind(self, gate: &Gate) -> Self {
        Self::Behind(gate.clone(), Box::new(self))
    }

    /// The behaviour of one call, counted from 0.
    pub(super) fn at(&self, call: usize) -> Self {
        match self {
            Self::Ongoing(times) if call < *times => Self::Status(425),
            Self::Unknown(times) if call < *times => Self::Status(500),
            Self::Ongoing(_) | Self::Unknown(_) => Self::Ok,
            Self::Sequence(each) => each.get(call).map_or(Self::Ok, |behaviour| behaviour.at(0)),
            Self::Behind(gate, behaviour) => Self::Behind(gate.clone(), Box::new(behaviour.at(call))),
            other => other.clone(),
        }
    }

    /// What comes of a call whose caller waits so long.
    pub(super) async fn answer(self, timeout: Duration) -> Answer {
        let mut behaviour = self;
        while let Self::Behind(gate, behind) = behaviour {
            gate.wait().await;
            behaviour = *behind;
        }
        match behaviour.at(0) {
            Self::Status(status) => say(status, String::new()),
            Self::Json(status, body) => say(status, body.to_string()),
            Self::Raw { status, headers, body } => answer(status, headers, body),
            Self::Flood(status, bytes) => answer(status, Vec::new(), vec![b'x'; bytes]),
            Self::Late => Answer { after: 2 * timeout, ..success() },
            Self::Refuse(message) => say(409, json!({ "message": message }).to_string()),
            Self::Hang => pending().await,
            Self::CloseBefore => Answer { worked: false, after: Duration::ZERO, said: None },
            Self::CloseAfter => Answer { worked: true, after: Duration::ZERO, said: None },
            Self::Slow(time) => {
                tokio::time::sleep(time).await;
                success()
            }
            Self::Gate(gate) => {
                gate.wait().await;
                success()
            }
            // `at` leaves none of the others.
            _ => success(),
        }
    }
}

fn success() -> Answer {
    say(200, json!({ "dtm_result": "SUCCESS" }).to_string())
}

fn say(status: u16, body: String) -> Answer {
    answer(status, Vec::new(), body.into_bytes())
}

fn answer(status: u16, headers: Vec<(String, String)>, body: Vec<u8>) -> Answer {
    let worked = (200..300).contains(&status);
    Answer { worked, after: Duration::ZERO, said: Some((status, headers, body)) }
}

/// What calls wait at until the test opens it. Clones are the same gate; it starts closed.
#[derive(Clone, Debug)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Lets everyone through, those who wait and those who come.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Stops those who come.
    pub fn close(&self) {
        self.0.send_replace(false);
    }

    /// Returns once the gate is open.
    pub async fn wait(&self) {
        // It fails only when the sender is gone, and we hold it.
        drop(self.0.subscribe().wait_for(|open| *open).await);
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}
