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

use super::fault::{Kind, State};
use super::wire::{self, Requests};
use super::{Hub, Open};

/// Room for what the server says at once: more than one of its own buffers, which has 8 KiB.
const PIECE_BYTES: usize = 64 * 1024;

pub(super) struct Line<'a> {
    hub: &'a Hub,
    open: &'a Open,
    client: TcpStream,
    server: Option<TcpStream>,
    client_gone: bool,
    requests: Requests,
    /// What ran last.
    before: Vec<Arc<str>>,
    asked: BytesMut,
    answered: BytesMut,
    /// The requests that the server has yet to answer, each with what becomes of its reply.
    replies: VecDeque<Option<Arc<State>>>,
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
        let at_once = hub.faults.lock().unwrap().iter().find(|fault| fault.is_for_new_connections()).cloned();
        if let Some(fault) = at_once.filter(|fault| fault.take()) {
            fault.strike();
            if line.suffer(&fault).await?.is_break() {
                return Ok(());
            }
        }
        let server = TcpStream::connect(hub.upstream).await?;
        server.set_nodelay(true)?;
        line.server = Some(server);
        loop {
            if line.ask().await?.is_break() || line.client_gone {
                return Ok(());
            }
            let Some(server) = &mut line.server else { return Ok(()) };
            // Else a read takes what little room is left, and a delay counts for each such read.
            line.answered.reserve(PIECE_BYTES);
            tokio::select! {
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
                self.open.ran.lock().unwrap().extend(batch.runs.iter().cloned());
                self.before = batch.runs;
            }
            if let Some(fault) = &fault
                && !matches!(fault.kind(), Kind::CutBeforeReply)
            {
                fault.strike();
                if self.suffer(fault).await?.is_break() {
                    return Ok(Break(()));
                }
            }
            if batch.is_answered {
                self.replies.push_back(fault);
            }
            let Some(server) = &mut self.server else { return Ok(Break(())) };
            server.write_all(&batch.bytes).await?;
        }
        Ok(Continue(()))
    }

    /// Forwards what the server says, unless its reply is to be lost.
    async fn answer(&mut self) -> io::Result<ControlFlow<()>> {
        let kind = |reply: Option<&Option<Arc<State>>>| reply?.as_ref().map(|fault| fault.kind());
        if let Some(Kind::Delay(by)) = kind(self.replies.front()) {
            sleep(by).await;
        }
        let mut forward = BytesMut::new();
        while let Some(message) = wire::answer(&mut self.answered) {
            let is_lost = matches!(kind(self.replies.front()), Some(Kind::CutBeforeReply));
            if !is_lost {
                forward.extend_from_slice(&message);
            }
            if message[0] == b'Z'
                && let Some(Some(fault)) = self.replies.pop_front()
                && is_lost
            {
                // What came before was answered.
                self.client.write_all(&forward).await?;
                fault.strike();
                return Ok(Break(()));
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
                if let Some(server) = self.server.take() {
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
