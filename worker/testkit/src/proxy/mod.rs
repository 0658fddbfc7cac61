//! A proxy in front of Postgres that understands just enough of the wire protocol to break a
//! connection at the worst moment: it knows which statement runs on which connection, whether its
//! request or its reply is under way.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::lock;

mod fault;
mod line;
mod wire;

pub use fault::{Fault, Injected};

use fault::{Reach, State};
use line::Line;

/// The proxy: forwards all, until a fault is injected.
#[derive(Debug)]
pub struct Proxy {
    url: String,
    hub: Arc<Hub>,
    server: JoinHandle<()>,
}

/// What the connections share.
#[derive(Debug)]
struct Hub {
    upstream: Upstream,
    faults: Mutex<Vec<Arc<State>>>,
    open: Mutex<Vec<Arc<Open>>>,
    /// What ran since [`Proxy::record`].
    record: Mutex<Option<Vec<Ran>>>,
    /// Every connection ends, and none begins.
    ended: CancellationToken,
}

/// Where the server listens.
#[derive(Debug)]
enum Upstream {
    Tcp(String, u16),
    Unix(PathBuf),
}

type Server = Either<TcpStream, UnixStream>;

impl Upstream {
    async fn connect(&self) -> io::Result<Server> {
        Ok(match self {
            Upstream::Tcp(host, port) => {
                let server = TcpStream::connect((host.as_str(), *port)).await?;
                server.set_nodelay(true)?;
                Either::Left(server)
            }
            Upstream::Unix(path) => Either::Right(UnixStream::connect(path).await?),
        })
    }
}

/// A request that the server has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// The texts of its statements.
    pub texts: Vec<Arc<str>>,
    /// The reply had a row.
    pub has_rows: bool,
}

/// A connection as seen from outside.
#[derive(Debug)]
struct Open {
    /// What it is told to suffer at once.
    orders: mpsc::UnboundedSender<Arc<State>>,
    /// The texts that it has run.
    ran: Mutex<HashSet<Arc<str>>>,
}

impl Proxy {
    /// Starts one in front of the server of this URL, in the current runtime. It does not speak
    /// TLS, so clients are told to do without.
    ///
    /// # Errors
    /// The URL names no single server, asks for TLS, or no port is free.
    pub async fn start(url: &str) -> io::Result<Proxy> {
        let (mut url, upstream) = read(url)?;
        let hub = Arc::new(Hub {
            upstream,
            faults: Mutex::default(),
            open: Mutex::default(),
            record: Mutex::default(),
            ended: CancellationToken::new(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let moved = url.set_ip_host(address.ip()).and_then(|()| url.set_port(Some(address.port())));
        moved.map_err(|()| io::Error::other(ALLOWED))?;
        let server = tokio::spawn(serve(listener, Arc::clone(&hub)));
        Ok(Proxy { url: url.into(), hub, server })
    }

    /// Whether a proxy can stand in front of the server of this URL.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub fn check(url: &str) -> io::Result<()> {
        read(url).map(drop)
    }

    /// The URL of the same database through this proxy.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        lock(&self.hub.open).len()
    }

    /// Records what runs from now on.
    pub fn record(&self) {
        *lock(&self.hub.record) = Some(Vec::new());
    }

    /// What ran since [`Self::record`], in the order of the replies. Ends the recording.
    pub fn recorded(&self) -> Vec<Ran> {
        lock(&self.hub.record).take().unwrap_or_default()
    }

    /// From now on, what is not yet broken is.
    pub fn inject(&self, fault: Fault) -> Injected {
        let state = fault.state();
        if let Some(open) = state.reach_of_the_open() {
            for line in &*lock(&self.hub.open) {
                let ran = lock(&line.ran);
                if state.is_for(ran.iter()) && line.orders.send(Arc::clone(&state)).is_ok() {
                    state.strike();
                }
            }
            if open == Reach::Now {
                return Injected(state);
            }
        }
        lock(&self.hub.faults).push(Arc::clone(&state));
        Injected(state)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Hub {
    fn strike(&self, fault: &State) {
        if fault.ends_all() {
            self.ended.cancel();
        }
        fault.strike();
    }

    fn record(&self, ran: Ran) {
        if let Some(record) = &mut *lock(&self.record)
            && !ran.texts.is_empty()
        {
            record.push(ran);
        }
    }

    /// The fault that strikes a request, if any, by the texts that it runs and those that ran
    /// before.
    fn strikes(&self, runs: &[Arc<str>], before: &[Arc<str>]) -> Option<Arc<State>> {
        let mut faults = lock(&self.faults);
        faults.retain(|fault| !fault.is_over());
        faults.iter().find(|fault| fault.is_for_request(runs, before) && fault.take()).cloned()
    }
}

const ALLOWED: &str = "allowed: a database URL of one server, by TCP or a Unix socket, without TLS: \
    the test kit cuts connections between two messages, which it cannot see within TLS";

/// The URL without what is about the server, and the server.
fn read(text: &str) -> io::Result<(Url, Upstream)> {
    let unfit = |found: &str| io::Error::other(format!("found {found}; {ALLOWED}"));
    let mut url = Url::parse(text).map_err(|_| unfit("no URL"))?;
    let port = url.port().unwrap_or(5432);
    let mut upstream =
        url.host_str().filter(|host| !host.is_empty()).map(|host| Upstream::Tcp(host.to_owned(), port));
    let mut others = Vec::new();
    for (name, value) in url.query_pairs() {
        match &*name {
            "sslmode" if matches!(&*value, "disable" | "allow" | "prefer") => {}
            "sslmode" => return Err(unfit(&format!("sslmode={value}"))),
            "host" if value.starts_with('/') => {
                upstream = Some(Upstream::Unix(Path::new(&*value).join(format!(".s.PGSQL.{port}"))));
            }
            "host" | "port" => return Err(unfit(&format!("the parameter {name}={value}"))),
            _ => others.push((name.into_owned(), value.into_owned())),
        }
    }
    url.query_pairs_mut().clear().extend_pairs(others).append_pair("sslmode", "disable");
    Ok((url, upstream.ok_or_else(|| unfit("no host"))?))
}

async fn serve(listener: TcpListener, hub: Arc<Hub>) {
    // Dropped with this task, and every connection with it.
    let mut lines = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                if hub.ended.is_cancelled() {
                    continue;
                }
                let (orders, ordered) = mpsc::unbounded_channel();
                let open = Arc::new(Open { orders, ran: Mutex::default() });
                lock(&hub.open).push(Arc::clone(&open));
                let hub = Arc::clone(&hub);
                lines.spawn(async move {
                    // Broken pipes are what this is for.
                    let _: io::Result<()> = Line::run(client, &hub, &open, ordered).await;
                    lock(&hub.open).retain(|other| !Arc::ptr_eq(other, &open));
                });
            }
            Some(_) = lines.join_next() => {}
        }
    }
}
