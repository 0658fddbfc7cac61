//! Whether a request was put on the wire.
//!
//! The client does not tell how far a request got before its timeout. The body does: a connection
//! reads the body when it sends the request (hyper's `h1::dispatch` and `h2::client`). If nothing
//! read the body to its end, the request was not sent, for whatever reason: a name that does not
//! resolve, a full backlog, an unanswered TLS handshake, no free HTTP/2 stream. A request whose
//! body was read counts as sent, because it cannot be withdrawn.
//!
//! An HTTP/2 connection reads the beginning of a body before the request has its stream, and goes
//! on when the stream is open (h2 gives no flow-control capacity before). So the last byte of a
//! body is a part of its own there. Without that byte no participant has a whole request. A request
//! without a body counts as sent a little early: when the connection has taken it.

use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;

use crate::execute::client::Link;

const WAITING: u8 = 0;
const SENT: u8 = 1;
const TAKEN_BACK: u8 = 2;

/// Progress of one request. A request is either sent or withdrawn, never both.
#[derive(Debug, Clone)]
pub(super) struct Wire(Arc<Progress>);

#[derive(Debug)]
struct Progress {
    state: AtomicU8,
    sent_at: OnceLock<Instant>,
    link: Arc<Link>,
}

impl Wire {
    /// Withdraws the request permanently.
    ///
    /// # Errors
    /// The request was sent at the returned time.
    pub(super) fn take_back(&self) -> Result<(), Instant> {
        if self.change(TAKEN_BACK) {
            return Ok(());
        }
        Err(*self.0.sent_at.get_or_init(Instant::now))
    }

    /// Returns the time when the request was sent.
    pub(super) fn sent_at(&self) -> Option<Instant> {
        self.0.sent_at.get().copied()
    }

    /// Marks the request as sent. Returns false if it was withdrawn.
    fn send(&self) -> bool {
        let is_first = !self.is(SENT);
        let is_sent = self.change(SENT);
        if is_sent && is_first {
            self.0.sent_at.get_or_init(Instant::now);
            self.0.link.sent();
        }
        is_sent
    }

    fn is(&self, state: u8) -> bool {
        self.0.state.load(Ordering::Acquire) == state
    }

    fn change(&self, to: u8) -> bool {
        match self.0.state.compare_exchange(WAITING, to, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(now) => now == to,
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if *self.state.get_mut() == SENT {
            self.link.ended();
        }
    }
}

/// Time in which a connection opens a stream that it has for a request. It takes all requests that
/// wait before it opens the first stream, and learns only then that it has no more.
const STREAM_OPENS: Duration = Duration::from_millis(2);

/// The request was withdrawn before its body was read.
#[derive(Debug, thiserror::Error)]
#[error("the request was withdrawn")]
pub(super) struct TakenBack;

/// A request body that records when a connection reads it.
pub(super) struct Payload {
    bytes: Option<Bytes>,
    /// The last byte is read by itself.
    is_split: bool,
    wire: Wire,
    /// Free for the next call once this one has its connection.
    connecting: Option<OwnedSemaphorePermit>,
}

impl Payload {
    /// Returns the body and the record of whether it was sent.
    pub(super) fn new(
        bytes: Bytes,
        link: Arc<Link>,
        is_shared: bool,
        connecting: Option<OwnedSemaphorePermit>,
    ) -> (Payload, Wire) {
        let progress = Progress { state: AtomicU8::new(WAITING), sent_at: OnceLock::new(), link };
        let wire = Wire(Arc::new(progress));
        let is_split = is_shared && bytes.len() > 1;
        (Payload { bytes: Some(bytes), is_split, wire: wire.clone(), connecting }, wire)
    }

    fn is_empty(&self) -> bool {
        self.bytes.as_ref().is_none_or(Bytes::is_empty)
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        // Nothing tells when a request without a body gets its stream.
        // While the runtime shuts down, nobody waits for the slot.
        if let Some(slot) = self.connecting.take().filter(|_| self.wire.is(SENT))
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move {
                tokio::time::sleep(STREAM_OPENS).await;
                drop(slot);
            });
        }
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = TakenBack;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TakenBack>>> {
        if std::mem::take(&mut self.is_split) && !self.wire.is(TAKEN_BACK) {
            // control: last-byte-apart
            let beginning = self.bytes.as_mut().map(|bytes| bytes.split_to(bytes.len() - 1));
            return Poll::Ready(beginning.map(|bytes| Ok(Frame::data(bytes))));
        }
        self.connecting = None;
        if !self.wire.send() {
            // The connection aborts the request, so the participant does not receive all of it.
            return Poll::Ready(Some(Err(TakenBack)));
        }
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        // A request without a body is sent with its head, and nothing reads the body.
        // control: sent-without-body
        self.is_empty() && self.wire.send()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.bytes {
            // With `content-length: 0`, the head alone would be a complete request.
            Some(_) if self.wire.is(TAKEN_BACK) => SizeHint::default(),
            Some(bytes) => SizeHint::with_exact(bytes.len() as u64),
            None => SizeHint::with_exact(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::execute::client::{Clients, Connections, Recipe};

    fn payload(bytes: &Bytes, is_shared: bool) -> (Payload, Wire, Arc<Link>) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let link = Clients::new(Recipe::new(Connections::few())).unwrap().link("a");
        link.answered(reqwest::Version::HTTP_2);
        let (body, wire) = Payload::new(bytes.clone(), Arc::clone(&link), is_shared, None);
        (body, wire, link)
    }

    const CASES: [(&[u8], bool); 6] =
        [(b"{}", false), (b"", false), (b"7", false), (b"{}", true), (b"", true), (b"7", true)];

    #[tokio::test]
    async fn a_body_that_was_read_is_sent_and_stays_so() {
        for (bytes, is_shared) in CASES {
            let (body, wire, link) = payload(&Bytes::from_static(bytes), is_shared);
            if body.is_end_stream() {
                drop(body);
            } else {
                assert_eq!(body.size_hint().exact(), Some(bytes.len() as u64));
                assert!(!link.is_carrying(Instant::now()), "nothing has read it");
                assert_eq!(body.collect().await.unwrap().to_bytes(), bytes);
            }
            assert!(wire.take_back().is_err() && wire.sent_at().is_some(), "{bytes:?}");
            assert!(link.is_carrying(Instant::now()));
            drop(wire);
            assert!(!link.is_carrying(Instant::now()), "the call has ended");
        }
    }

    #[tokio::test]
    async fn a_body_that_was_taken_back_is_never_sent() {
        for (bytes, is_shared) in CASES {
            let (body, wire, link) = payload(&Bytes::from_static(bytes), is_shared);
            assert!(wire.take_back().is_ok() && wire.take_back().is_ok(), "twice is once");
            assert!(!body.is_end_stream(), "{bytes:?}");
            assert_ne!(body.size_hint().exact(), Some(0), "a whole request without a body: {bytes:?}");
            assert!(body.collect().await.is_err(), "{bytes:?}");
            assert!(!link.is_carrying(Instant::now()));
        }
    }

    #[tokio::test]
    async fn a_body_of_which_the_last_byte_was_not_read_can_be_taken_back() {
        let (mut body, wire, link) = payload(&Bytes::from_static(b"{}"), true);
        let beginning = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(beginning, "{");
        assert_eq!((link.is_carrying(Instant::now()), body.size_hint().exact()), (false, Some(1)));
        assert!(wire.take_back().is_ok());
        assert!(body.frame().await.unwrap().is_err());
    }
}
