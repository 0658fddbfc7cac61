//! Watches the polls of a handler: when one began, and whether it panicked.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::participant::{Returned, Running};
use crate::liveness::handlers::RunningHandler;

/// A handler whose polls are watched. A panic becomes an error.
pub(super) struct Watched {
    pub(super) handler: Running,
    pub(super) running: Arc<RunningHandler>,
}

impl Future for Watched {
    type Output = Returned;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Returned> {
        self.running.poll_begins();
        // A handler that has panicked is not polled again, so nobody sees what it left half-done
        // but the application's own state.
        let polled = catch_unwind(AssertUnwindSafe(|| self.handler.as_mut().poll(context)));
        self.running.poll_ends();
        // control: handler-panics
        polled.unwrap_or_else(|panic| {
            Poll::Ready(Err(format!("the handler panicked: {}", words(&*panic)).into()))
        })
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> &str {
    let literal = panic.downcast_ref::<&str>().copied();
    literal.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}
