//! Connections that the test can break at any moment, also in the middle of a call.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// The other end of one connection, for its handler.
#[derive(Clone, Debug)]
pub(super) struct Line(Arc<State>);

#[derive(Debug, Default)]
struct State {
    broken: AtomicBool,
    waker: AtomicWaker,
}

impl Line {
    /// From now on every read and write fails, so the server closes the connection without another
    /// byte.
    pub(super) fn hang_up(&self) {
        self.0.broken.store(true, Ordering::Release);
        self.0.waker.wake();
    }
}

/// The connections that are open.
#[derive(Clone, Debug, Default)]
pub(super) struct Open(Arc<Mutex<Vec<Weak<State>>>>);

impl Open {
    fn add(&self, line: &Line) {
        let mut open = self.0.lock().unwrap();
        open.retain(|line| line.strong_count() > 0);
        open.push(Arc::downgrade(&line.0));
    }

    pub(super) fn hang_up(&self) {
        for line in self.0.lock().unwrap().drain(..).filter_map(|line| line.upgrade()) {
            Line(line).hang_up();
        }
    }
}

/// The port.
pub(super) struct Lines {
    listener: TcpListener,
    open: Open,
}

impl Lines {
    pub(super) fn new(listener: TcpListener, open: Open) -> Self {
        Self { listener, open }
    }
}

impl Listener for Lines {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Stream, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        // Nagle's 40 ms would be measured as the worker's.
        drop(stream.set_nodelay(true));
        let line = Line(Arc::default());
        self.open.add(&line);
        (Stream { stream, line }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, Lines>> for Line {
    fn connect_info(stream: IncomingStream<'_, Lines>) -> Self {
        stream.io().line.clone()
    }
}

/// A TCP stream that fails once its line is broken.
pub(super) struct Stream {
    stream: TcpStream,
    line: Line,
}

impl Stream {
    fn check(&self, context: &Context<'_>) -> io::Result<()> {
        // Registered first, so that a break in between still wakes us. One waker is enough: one
        // task does both ways.
        self.line.0.waker.register(context.waker());
        if self.line.0.broken.load(Ordering::Acquire) {
            Err(io::ErrorKind::ConnectionReset.into())
        } else {
            Ok(())
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
