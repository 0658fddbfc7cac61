//! One connection: a client, and its own connection to the server.

use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::either::Either;

use super::fault::{Kind, State};
use super::wire::{self, Requests};
use super::{Hub, Open, Ran, Server};
use crate::lock;

/// Room for what the server says at once: more than one of its own buffers, which has 8 KiB.
const PIECE_BYTES: usize = 64 * 1024;

pub(super) struct Line<'a> {
    hub: &'a Hub,
    open: &'a Open,
    client: TcpStream,
    server: Option<Server>,
    client_gone: bool,
    requests: Requests,
    /// What ran last.
    before: Vec<Arc<str>>,
    asked: BytesMut,
    answered: BytesMut,
    /// The requests that the server has yet to answer.
    replies: VecDeque<Reply>,
}

/// A reply that is to come.
struct Reply {
    /// What becomes of it.
    fault: Option<Arc<State>>,
    ran: Ran,
    /// What of it has come, while it may be lost.
    held: BytesMut,
}

impl Reply {
    fn kind(&self) -> Option<Kind> {
        self.fault.as_ref().map(|fault| fault.kind())
    }
}

impl Line<'_> {
    /// Forwards until one side closes, or a fault ends it.
    pub(super) async fn run(
        client: TcpStream,
        hub: &Hub,
        open: &Open,
        mut orders: mpsc::UnboundedReceiver<Arc<State>>,
    ) -> io::Result<()> {
        client.set_nodelay(true)?;
        let mut line = Line {
            hub,
            open,
            client,
            server: None,
            client_gone: false,
            requests: Requests::default(),
            before: Vec::new(),
            asked: BytesMut::new(),
            answered: BytesMut::new(),
            replies: VecDeque::new(),
        };
        let at_once = lock(&hub.faults).iter().find(|fault| fault.is_for_new_connections()).cloned();
        if let Some(fault) = at_once.filter(|fault| fault.take()) {
            fault.strike();
            if line.suffer(&fault).await?.is_break() {
                return Ok(());
            }
        }
        line.server = Some(hub.upstream.connect().await?);
        loop {
            if line.ask().await?.is_break() || line.client_gone {
                return Ok(());
            }
            let Some(server) = &mut line.server else { return Ok(()) };
            // Else a read takes what little room is left, and a delay counts for each such read.
            line.answered.reserve(PIECE_BYTES);
            tokio::select! {
                () = hub.ended.cancelled() => return Ok(()),
                Some(fault) = orders.recv() => {
                    if line.suffer(&fault).await?.is_break() {
                        return Ok(());
                    }
                }
                read = line.client.read_buf(&mut line.asked) => line.client_gone = read? == 0,
                read = server.read_buf(&mut line.answered) => {
                    let gone = read? == 0;
                    if line.answer().await?.is_break() || gone {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Forwards the requests that are whole.
    async fn ask(&mut self) -> io::Result<ControlFlow<()>> {
        while let Some(batch) = self.requests.next(&mut self.asked) {
            let fault = self.hub.strikes(&batch.runs, &self.before);
            if !batch.runs.is_empty() {
                lock(&self.open.ran).extend(batch.runs.iter().cloned());
                self.before.clone_from(&batch.runs);
            }
            if let Some(fault) = &fault
                && !matches!(fault.kind(), Kind::CutBeforeReply)
            {
                self.hub.strike(fault);
                if self.suffer(fault).await?.is_break() {
                    return Ok(Break(()));
                }
            }
            if batch.is_answered {
                self.replies.push_back(Reply {
                    fault,
                    ran: Ran { texts: batch.runs, has_rows: false },
                    held: BytesMut::new(),
                });
            }
            let Some(server) = &mut self.server else { return Ok(Break(())) };
            server.write_all(&batch.bytes).await?;
        }
        Ok(Continue(()))
    }

    /// Forwards what the server says, unless its reply is to be lost.
    async fn answer(&mut self) -> io::Result<ControlFlow<()>> {
        if let Some(Kind::Delay(by)) = self.replies.front().and_then(Reply::kind) {
            sleep(by).await;
        }
        let mut forward = BytesMut::new();
        while let Some(message) = wire::answer(&mut self.answered) {
            let Some(reply) = self.replies.front_mut() else {
                forward.extend_from_slice(&message);
                continue;
            };
            reply.ran.has_rows |= message[0] == b'D';
            let may_be_lost = matches!(reply.kind(), Some(Kind::CutBeforeReply));
            let to = if may_be_lost { &mut reply.held } else { &mut forward };
            to.extend_from_slice(&message);
            if message[0] == b'Z'
                && let Some(reply) = self.replies.pop_front()
            {
                if let Some(fault) = &reply.fault
                    && may_be_lost
                    && fault.loses_reply(reply.ran.has_rows)
                {
                    // What came before was answered.
                    self.client.write_all(&forward).await?;
                    self.hub.strike(fault);
                    return Ok(Break(()));
                }
                forward.extend_from_slice(&reply.held);
                self.hub.record(reply.ran);
            }
        }
        self.client.write_all(&forward).await?;
        Ok(Continue(()))
    }

    async fn suffer(&mut self, fault: &State) -> io::Result<ControlFlow<()>> {
        match fault.kind() {
            Kind::CutBeforeReply | Kind::CutBeforeRequest => return Ok(Break(())),
            Kind::Delay(by) => sleep(by).await,
            Kind::Stall => {
                // A client may give up meanwhile; what it has said still arrives, as from a kernel
                // that sends again.
                while !self.client_gone {
                    tokio::select! {
                        () = fault.lifted() => return Ok(Continue(())),
                        read = self.client.read_buf(&mut self.asked) => self.client_gone = !read.is_ok_and(|count| count > 0),
                    }
                }
                fault.lifted().await;
            }
            Kind::Reset => {
                self.client.set_zero_linger()?;
                if let Some(Either::Left(server)) = self.server.take() {
                    server.set_zero_linger()?;
                }
                return Ok(Break(()));
            }
            Kind::ServerGone => {
                self.server = None;
                self.client.set_zero_linger()?;
                let mut ignored = Vec::new();
                tokio::select! {
                    () = fault.lifted() => {}
                    read = self.client.read_to_end(&mut ignored) => drop(read),
                }
                return Ok(Break(()));
            }
            Kind::ClientGone => {
                let Some(mut server) = self.server.take() else { return Ok(Break(())) };
                self.client.set_zero_linger()?;
                self.client.shutdown().await?;
                let mut ignored = Vec::new();
                tokio::select! {
                    () = fault.lifted() => {}
                    read = server.read_to_end(&mut ignored) => drop(read),
                }
                return Ok(Break(()));
            }
        }
        Ok(Continue(()))
    }
}
