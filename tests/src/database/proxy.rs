//! A proxy in front of Postgres that understands just enough of the wire protocol to break a
//! connection at the worst moment: it knows which statement runs on which connection, whether its
//! request or its reply is under way.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

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
    upstream: SocketAddr,
    faults: Mutex<Vec<Arc<State>>>,
    open: Mutex<Vec<Arc<Open>>>,
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
    /// Starts one in front of the server of this URL, such as
    /// [`Database::tcp_url`](crate::Database::tcp_url), in the runtime of the test. It does not
    /// speak TLS.
    ///
    /// # Panics
    /// When the URL names no address, or no port is free.
    pub async fn start(url: &str) -> Proxy {
        let (user, rest) = url.split_once('@').expect("a URL with a user");
        let (upstream, database) = rest.split_once('/').expect("a URL with a database");
        let hub = Arc::new(Hub {
            upstream: upstream.parse().expect("an address and a port"),
            faults: Mutex::default(),
            open: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{user}@{}/{database}", listener.local_addr().unwrap());
        let server = tokio::spawn(serve(listener, Arc::clone(&hub)));
        Proxy { url, hub, server }
    }

    /// The URL of the same database through this proxy.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.hub.open.lock().unwrap().len()
    }

    /// From now on, what is not yet broken is.
    pub fn inject(&self, fault: Fault) -> Injected {
        let state = fault.state();
        if let Some(open) = state.reach_of_the_open() {
            for line in &*self.hub.open.lock().unwrap() {
                let ran = line.ran.lock().unwrap();
                if state.is_for(ran.iter()) && line.orders.send(Arc::clone(&state)).is_ok() {
                    state.strike();
                }
            }
            if open == Reach::Now {
                return Injected(state);
            }
        }
        self.hub.faults.lock().unwrap().push(Arc::clone(&state));
        Injected(state)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Hub {
    /// The fault that strikes a request, if any, by the texts that it runs and those that ran
    /// before.
    fn strikes(&self, runs: &[Arc<str>], before: &[Arc<str>]) -> Option<Arc<State>> {
        let mut faults = self.faults.lock().unwrap();
        faults.retain(|fault| !fault.is_over());
        faults.iter().find(|fault| fault.is_for_request(runs, before) && fault.take()).cloned()
    }
}

async fn serve(listener: TcpListener, hub: Arc<Hub>) {
    // Dropped with this task, and every connection with it.
    let mut lines = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                let (orders, ordered) = mpsc::unbounded_channel();
                let open = Arc::new(Open { orders, ran: Mutex::default() });
                hub.open.lock().unwrap().push(Arc::clone(&open));
                let hub = Arc::clone(&hub);
                lines.spawn(async move {
                    // Broken pipes are what this is for.
                    let _: io::Result<()> = Line::run(client, &hub, &open, ordered).await;
                    hub.open.lock().unwrap().retain(|other| !Arc::ptr_eq(other, &open));
                });
            }
            Some(_) = lines.join_next() => {}
        }
    }
}
