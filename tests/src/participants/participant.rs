//! A participant: an HTTP service inside the test process that behaves as it is told and records
//! every call.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;

mod barrier;
mod behaviour;
mod call;
mod line;

pub use behaviour::{Behaviour, Gate};
pub use call::Call;

use crate::eventually;
use crate::ledger::{Did, Entry, Folder, Keeps, Ledger, Source};
use barrier::Barrier;
use behaviour::{Answer, Said};
use line::{Line, Lines};

/// A scripted participant on a port of 127.0.0.1. What is not scripted succeeds.
#[derive(Debug)]
pub struct Participant {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
    /// Its port while it refuses connections: bound, so that no other test gets it, and not
    /// listened on.
    closed: Option<TcpSocket>,
    /// Of its ledger. Not shared: whether a test has failed is known where the participant is
    /// dropped.
    folder: Option<Folder>,
}

#[derive(Debug, Default)]
struct Shared {
    book: Mutex<Book>,
    lines: line::Open,
    ledger: Option<Ledger>,
}

#[derive(Default)]
struct Book {
    scripts: HashMap<(String, String), Script>,
    rule: Option<Rule>,
    barrier: Option<Barrier>,
    forgets: bool,
    calls: Vec<Call>,
    running: HashMap<String, usize>,
    running_max: HashMap<String, usize>,
}

/// What every call gets that has no script, from the call alone.
type Rule = Arc<dyn Fn(&Call) -> Behaviour + Send + Sync>;

impl fmt::Debug for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Book").field("calls", &self.calls.len()).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Script {
    behaviour: Behaviour,
    /// Calls so far, by idempotency key.
    calls: HashMap<String, usize>,
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }
}

impl Participant {
    /// Starts one, in the runtime of the test.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn start() -> Self {
        Self::start_as(Shared::default(), None).await
    }

    /// Starts one that writes every call to a file, and to the disk before it answers.
    ///
    /// # Panics
    /// When no port is free or no file can be written.
    pub async fn with_ledger() -> Self {
        let folder = Folder::new();
        let ledger = Ledger::open(&folder.file("participant")).unwrap();
        Self::start_as(Shared { ledger: Some(ledger), ..Shared::default() }, Some(folder)).await
    }

    /// The same, but it refuses connections until [`Self::accept_again`], and nobody else gets its
    /// port before.
    ///
    /// # Panics
    /// When no port is free or no file can be written.
    pub async fn away_with_ledger() -> Self {
        let socket = bound("127.0.0.1:0".parse().unwrap());
        let folder = Folder::new();
        let ledger = Ledger::open(&folder.file("participant")).unwrap();
        Self {
            address: socket.local_addr().unwrap(),
            shared: Arc::new(Shared { ledger: Some(ledger), ..Shared::default() }),
            server: tokio::spawn(async {}),
            closed: Some(socket),
            folder: Some(folder),
        }
    }

    async fn start_as(shared: Shared, folder: Option<Folder>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(shared);
        let server = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Self { address, shared, server, closed: None, folder }
    }

    /// The URL of one of its endpoints; any path is one.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, calls of this path and op (`action`, `compensate`, …) get this. Counting starts
    /// anew.
    pub fn on(&self, path: &str, op: &str, behaviour: Behaviour) -> &Self {
        let script = Script { behaviour, calls: HashMap::new() };
        self.shared.book().scripts.insert((path.to_owned(), op.to_owned()), script);
        self
    }

    /// From now on, calls without a script get what this says of the call; [`Call::attempt`] is
    /// where a sequence stands.
    pub fn ruled_by(&self, rule: impl Fn(&Call) -> Behaviour + Send + Sync + 'static) -> &Self {
        self.shared.book().rule = Some(Arc::new(rule));
        self
    }

    /// From now on it does the work of each op of a step once, and none that was undone before it
    /// came.
    pub fn behind_a_barrier(&self) -> &Self {
        self.shared.book().barrier = Some(Barrier::default());
        self
    }

    /// From now on calls are in its ledger alone: for runs with millions of them.
    pub fn without_memory(&self) -> &Self {
        self.shared.book().forgets = true;
        self
    }

    /// Its ledger, with all that it has noted so far, for the oracle.
    ///
    /// # Panics
    /// When it has none, or the file could not be written.
    pub async fn ledger(&self) -> Source {
        let folder = self.folder.as_ref().expect("started without a ledger");
        let ledger = self.shared.ledger.as_ref().expect("started without a ledger");
        ledger.synced().await.unwrap();
        let keeps = if self.shared.book().barrier.is_some() { Keeps::Barrier } else { Keeps::Nothing };
        Source { file: folder.file("participant"), keeps }
    }

    /// Every call so far, in the order of arrival.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.book().calls.clone()
    }

    /// The calls of one saga, in the order of arrival.
    pub fn calls_for(&self, gid: &str) -> Vec<Call> {
        self.shared.book().calls.iter().filter(|call| call.gid == gid).cloned().collect()
    }

    /// The same as `"stock action"`, for a comparison with what is expected.
    pub fn ops_for(&self, gid: &str) -> Vec<String> {
        self.calls_for(gid).iter().map(|call| format!("{} {}", call.branch_id, call.op)).collect()
    }

    /// Waits until at least that many calls have arrived; they may still run.
    ///
    /// # Panics
    /// At the deadline.
    pub async fn wait_for_calls(&self, count: usize, deadline: Duration) -> Vec<Call> {
        eventually(deadline, &format!("{count} calls arrive"), async || {
            let book = self.shared.book();
            (book.calls.len() >= count).then(|| book.calls.clone())
        })
        .await
    }

    /// How many calls with this idempotency key ran at the same time at most.
    pub fn at_once_max(&self, key: &str) -> usize {
        self.shared.book().running_max.get(key).copied().unwrap_or(0)
    }

    /// No task was run by two at once.
    ///
    /// # Panics
    /// When one was.
    pub fn assert_never_twice_at_once(&self) {
        let book = self.shared.book();
        let twice: Vec<_> = book.running_max.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "called while the same call was still running: {twice:?}");
    }

    /// Stops listening and hangs up on everyone: nobody can connect until [`Self::accept_again`].
    ///
    /// # Panics
    /// When somebody else takes the port at that very moment.
    pub async fn refuse_connections(&mut self) {
        self.server.abort();
        // Only after its end is the port closed.
        drop((&mut self.server).await);
        self.shared.lines.hang_up();
        self.closed = Some(bound(self.address));
    }

    /// Listens on the same port again.
    ///
    /// # Panics
    /// When it refuses no connections.
    pub async fn accept_again(&mut self) {
        let listener = self.closed.take().unwrap().listen(1024).unwrap();
        self.server = tokio::spawn(serve(listener, Arc::clone(&self.shared)));
    }
}

/// A port that is taken and not listened on: whoever connects is refused.
fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

impl Drop for Participant {
    fn drop(&mut self) {
        self.server.abort();
        self.shared.lines.hang_up();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let lines = Lines::new(listener, shared.lines.clone());
    let router = Router::new().fallback(answer).layer(DefaultBodyLimit::disable()).with_state(shared);
    axum::serve(lines, router.into_make_service_with_connect_info::<Line>()).await.unwrap();
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(line): ConnectInfo<Line>,
    Query(query): Query<HashMap<String, String>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let call = Call::new(method, uri.path(), &query, headers, body);
    let timeout = call.timeout;
    let (behaviour, running) = Running::begin(&shared, call);
    let answer = behaviour.answer(timeout).await;
    match running.finish(answer).await {
        Some((status, headers, body)) => {
            let mut response =
                Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(body.into()).unwrap()
        }
        None => {
            line.hang_up();
            // Never sent: writing fails first.
            StatusCode::OK.into_response()
        }
    }
}

/// A call that is being answered. It ends when it is dropped too: that is a caller who hung up.
struct Running {
    shared: Arc<Shared>,
    call: Call,
    /// Its place in the book, unless that forgets.
    index: Option<usize>,
    entry: Option<Entry>,
}

impl Running {
    fn begin(shared: &Arc<Shared>, call: Call) -> (Behaviour, Self) {
        let key = &call.key;
        let mut guard = shared.book();
        let book = &mut *guard;
        let script = book.scripts.get_mut(&(call.path.clone(), call.op.clone()));
        let behaviour = match (script, &book.rule) {
            (Some(script), _) => {
                let calls = script.calls.entry(key.clone()).or_default();
                *calls += 1;
                script.behaviour.at(*calls - 1)
            }
            (None, Some(rule)) => rule(&call).at(call.attempt.saturating_sub(1) as usize),
            (None, None) => Behaviour::Ok,
        };
        let running = book.running.entry(key.clone()).or_default();
        *running += 1;
        if !book.forgets || *running > 1 {
            let max = book.running_max.entry(key.clone()).or_default();
            *max = (*max).max(*running);
        }
        let index = (!book.forgets).then(|| {
            book.calls.push(call.clone());
            book.calls.len() - 1
        });
        let entry = shared.ledger.as_ref().map(|ledger| ledger.begin(call.asked()));
        drop(guard);
        (behaviour, Self { shared: Arc::clone(shared), call, index, entry })
    }

    /// Does what the participant does and notes it, and gives what it says about it.
    async fn finish(self, answer: Answer) -> Option<Said> {
        if answer.worked {
            self.work();
        }
        if !answer.after.is_zero() {
            tokio::time::sleep(answer.after).await;
        }
        let status = answer.said.as_ref().map(|(status, ..)| *status);
        if let Some(index) = self.index {
            self.shared.book().calls[index].status = status;
        }
        if let Some(entry) = &self.entry {
            let did = status.map_or(Did::HungUp, |status| Did::Answered { status });
            entry.note(did).on_disk().await.unwrap();
        }
        answer.said
    }

    /// What the barrier says and what the ledger says are of one moment, so their order is the
    /// same.
    fn work(&self) {
        let mut book = self.shared.book();
        let proceed = book.barrier.as_mut().is_none_or(|barrier| barrier.enter(&self.call));
        if let Some(index) = self.index {
            book.calls[index].worked = proceed;
        }
        if let Some(entry) = &self.entry {
            drop(entry.note(if proceed { Did::Worked } else { Did::Skipped }));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut book = self.shared.book();
        if let Some(index) = self.index {
            book.calls[index].ended = Some(Instant::now());
        }
        if let Some(running) = book.running.get_mut(&self.call.key) {
            *running -= 1;
            if *running == 0 {
                book.running.remove(&self.call.key);
            }
        }
    }
}
