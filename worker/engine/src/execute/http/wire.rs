//! Whether a request was put on the wire.
//!
//! The client does not tell how far a request got before its timeout. The body does: when a
//! connection takes a request, it asks whether the body has more data before it writes the first
//! byte (hyper's `h1::dispatch` and `h2::client`). If nothing asked the body, the request was not
//! sent, for whatever reason: a name that does not resolve, a full backlog, an unanswered TLS
//! handshake. A request that a connection has taken counts as sent because it cannot be withdrawn.
//! This includes a request that waits for an HTTP/2 stream.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

const WAITING: u8 = 0;
const SENT: u8 = 1;
const TAKEN_BACK: u8 = 2;

/// Progress of one request. A request is either sent or withdrawn, never both.
#[derive(Debug, Clone, Default)]
pub(super) struct Wire(Arc<AtomicU8>);

impl Wire {
    /// Withdraws the request permanently. Returns false if it was sent.
    pub(super) fn take_back(&self) -> bool {
        self.change(TAKEN_BACK)
    }

    /// Marks the request as sent. Returns false if it was withdrawn.
    fn send(&self) -> bool {
        self.change(SENT)
    }

    fn is_taken_back(&self) -> bool {
        self.0.load(Ordering::Acquire) == TAKEN_BACK
    }

    fn change(&self, to: u8) -> bool {
        match self.0.compare_exchange(WAITING, to, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(now) => now == to,
        }
    }
}

/// The request was withdrawn before its body was read.
#[derive(Debug, thiserror::Error)]
#[error("the request was withdrawn")]
pub(super) struct TakenBack;

/// A request body that records when a connection asks for it.
pub(super) struct Payload {
    bytes: Option<Bytes>,
    wire: Wire,
}

impl Payload {
    /// Returns the body and the record of whether it was sent.
    pub(super) fn new(bytes: Bytes) -> (Payload, Wire) {
        let wire = Wire::default();
        (Payload { bytes: Some(bytes), wire: wire.clone() }, wire)
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = TakenBack;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TakenBack>>> {
        if !self.wire.send() {
            // The connection aborts the request, so the participant does not receive all of it.
            return Poll::Ready(Some(Err(TakenBack)));
        }
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        // control: sent-without-body
        let is_sent = self.wire.send();
        self.bytes.as_ref().is_none_or(|bytes| bytes.is_empty() && is_sent)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.bytes {
            // With `content-length: 0`, the head alone would be a complete request.
            Some(_) if self.wire.is_taken_back() => SizeHint::default(),
            Some(bytes) => SizeHint::with_exact(bytes.len() as u64),
            None => SizeHint::with_exact(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_body_that_was_asked_for_is_sent_and_stays_so() {
        for bytes in [Bytes::from_static(b"{}"), Bytes::new()] {
            let (body, wire) = Payload::new(bytes.clone());
            if !body.is_end_stream() {
                assert_eq!(body.size_hint().exact(), Some(bytes.len() as u64));
                assert_eq!(body.collect().await.unwrap().to_bytes(), bytes);
            }
            assert!(!wire.take_back(), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn a_body_that_was_taken_back_is_never_sent() {
        for bytes in [Bytes::from_static(b"{}"), Bytes::new()] {
            let (body, wire) = Payload::new(bytes.clone());
            assert!(wire.take_back() && wire.take_back(), "twice is once");
            assert!(!body.is_end_stream(), "{bytes:?}");
            assert_ne!(body.size_hint().exact(), Some(0), "a whole request without a body: {bytes:?}");
            assert!(body.collect().await.is_err(), "{bytes:?}");
        }
    }
}
