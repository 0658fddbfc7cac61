//! Whether a request was put on the wire.
//!
//! The client does not tell how far a request came before its time was up. Its body does: a
//! connection asks whether the body has more to give when it takes the request, before it writes a
//! byte of it (hyper's `h1::dispatch` and `h2::client`). A request whose body nobody asked was not
//! sent, whatever kept it: a name that does not resolve, a full backlog, a TLS handshake without an
//! answer. A request that a connection has taken counts as sent, also while it waits for a stream
//! of HTTP/2: nothing can take it back from there.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

const WAITING: u8 = 0;
const SENT: u8 = 1;
const TAKEN_BACK: u8 = 2;

/// How far one request came. Sending it and taking it back exclude each other.
#[derive(Debug, Clone, Default)]
pub(super) struct Wire(Arc<AtomicU8>);

impl Wire {
    /// Takes the request back, for good. False: it was sent.
    pub(super) fn take_back(&self) -> bool {
        self.change(TAKEN_BACK)
    }

    /// Puts the request on the wire. False: it was taken back.
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

/// The request was taken back before its body was asked for.
#[derive(Debug, thiserror::Error)]
#[error("the request was taken back")]
pub(super) struct TakenBack;

/// A request's body that notes when a connection asks for it.
pub(super) struct Payload {
    bytes: Option<Bytes>,
    wire: Wire,
}

impl Payload {
    /// A body, and what tells whether it was sent.
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
            // The connection gives the request up: the participant does not have all of it.
            return Poll::Ready(Some(Err(TakenBack)));
        }
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        let is_sent = self.wire.send();
        self.bytes.as_ref().is_none_or(|bytes| bytes.is_empty() && is_sent)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.bytes {
            // A length would make the head a whole request where there is no body.
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
