//! Which client calls a participant. A client keeps one HTTP/2 connection for each host, and all
//! calls use it, whatever happens to it. So the client of a participant is replaced when its
//! connection is ill or old. Calls in flight end on the replaced client, which closes its
//! connections when they are idle (docs/decisions/0027-generations-of-clients.md).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::{Client, Version};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::Recipe;
use crate::error::Error;

/// Upper bound on the calls that may look for a connection at once, unless the participant is known
/// to speak HTTP/1.1. The client opens a connection for each call that finds none, also where one
/// HTTP/2 connection will carry all of them. Before its first response, a connection carries no
/// more calls than these: only then is it certain that the peer's settings have arrived, and that
/// the client knows how many streams it may open.
const CONNECTING_MAX: usize = 4;

/// The clients of one recipe: one that participants share, and one for each participant whose
/// connection fell ill.
#[derive(Debug)]
pub struct Clients {
    recipe: Recipe,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    shared: Born,
    links: HashMap<Arc<str>, Arc<Link>>,
}

/// A client, and the time when it was built.
#[derive(Debug, Clone)]
struct Born {
    client: Client,
    at: Instant,
}

/// The connections to one participant until they are replaced.
#[derive(Debug)]
pub(crate) struct Link {
    client: Born,
    /// The participant has answered by HTTP/1.1, which needs a connection for each call.
    is_http_1: AtomicBool,
    connecting: Arc<Semaphore>,
    on_wire: AtomicUsize,
    /// The most calls that were on the wire at once.
    on_wire_max: AtomicUsize,
    /// Microseconds from the client's birth to the latest response; 0 before the first one.
    answered_us: AtomicU64,
    replaced: CancellationToken,
}

impl Clients {
    /// Builds the shared client.
    ///
    /// # Errors
    /// [`Error::HttpClient`] if TLS cannot be set up.
    pub fn new(recipe: Recipe) -> Result<Clients, Error> {
        let shared = Born { client: recipe.build().map_err(Error::HttpClient)?, at: Instant::now() };
        Ok(Clients { recipe, state: Mutex::new(State { shared, links: HashMap::new() }) })
    }

    /// Returns the connections for a new call of a participant.
    pub(crate) fn link(&self, participant: &str) -> Arc<Link> {
        let mut state = self.lock();
        let known = state.links.get(participant);
        match known {
            // control: connection-age
            Some(link) if !self.is_old(&link.client) => Arc::clone(link),
            _ => {
                let is_http_1 = known.is_some_and(|link| link.is_http_1());
                if self.is_old(&state.shared) {
                    self.rebuild(&mut state.shared);
                    state.links.retain(|_, link| !self.is_old(&link.client));
                }
                let link = Arc::new(Link::new(state.shared.clone(), is_http_1));
                state.links.insert(participant.into(), Arc::clone(&link));
                link
            }
        }
    }

    /// Gives the next calls of a participant new connections. Does nothing for connections that
    /// were replaced already, or that carry one call at a time: the client closes these itself.
    pub(crate) fn ill(&self, participant: &str, link: &Arc<Link>) {
        let mut state = self.lock();
        let is_current = state.links.get(participant).is_some_and(|current| Arc::ptr_eq(current, link));
        // control: ill-connection
        if !is_current || link.is_http_1() {
            return;
        }
        let mut client = link.client.clone();
        self.rebuild(&mut client);
        state.links.insert(participant.into(), Arc::new(Link::new(client, false)));
        drop(state);
        link.replaced.cancel();
        tracing::debug!(participant, "a call timed out: new calls get new connections");
    }

    /// Replaces a client by a new one. Where that fails, the client goes on for another age.
    fn rebuild(&self, client: &mut Born) {
        match self.recipe.build() {
            Ok(built) => client.client = built,
            Err(error) => {
                tracing::error!(%error, "HTTP clients cannot be replaced: the connections stay");
            }
        }
        client.at = Instant::now();
    }

    fn is_old(&self, client: &Born) -> bool {
        client.at.elapsed() >= self.recipe.connections.age
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    fn new(client: Born, is_http_1: bool) -> Link {
        Link {
            client,
            is_http_1: AtomicBool::new(is_http_1),
            connecting: Arc::new(Semaphore::new(CONNECTING_MAX)),
            on_wire: AtomicUsize::new(0),
            on_wire_max: AtomicUsize::new(0),
            answered_us: AtomicU64::new(0),
            replaced: CancellationToken::new(),
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client.client
    }

    /// The slots of calls that look for a connection or wait for a stream. `None` for a participant
    /// that needs a connection for each call.
    pub(crate) fn connecting(&self, url: &reqwest::Url) -> Option<Arc<Semaphore>> {
        // HTTP/2 is negotiated by TLS only.
        let is_one_call_each = url.scheme() == "http" || self.is_http_1();
        // control: connecting-few
        (!is_one_call_each).then(|| Arc::clone(&self.connecting))
    }

    /// Learns from a response which protocol the participant speaks.
    pub(crate) fn answered(&self, version: Version) {
        self.is_http_1.store(version != Version::HTTP_2, Ordering::Relaxed);
        let since_birth = self.client.at.elapsed().as_micros() as u64;
        self.answered_us.store(since_birth.max(1), Ordering::Release);
    }

    /// Counts a request that was put on the wire.
    pub(crate) fn sent(&self) {
        let calls = self.on_wire.fetch_add(1, Ordering::AcqRel) + 1;
        self.on_wire_max.fetch_max(calls, Ordering::AcqRel);
    }

    /// Ends the count of a request that was put on the wire.
    pub(crate) fn ended(&self) {
        self.on_wire.fetch_sub(1, Ordering::AcqRel);
    }

    /// Ends when the connections were replaced because they are ill.
    pub(crate) fn replaced(&self) -> impl Future<Output = ()> {
        self.replaced.cancelled()
    }

    pub(crate) fn is_replaced(&self) -> bool {
        self.replaced.is_cancelled()
    }

    fn is_http_1(&self) -> bool {
        self.is_http_1.load(Ordering::Relaxed)
    }

    /// Whether the participant has answered on these connections.
    pub(crate) fn is_proven(&self) -> bool {
        self.answered_us.load(Ordering::Acquire) > 0
    }

    /// Whether there is a shared connection that carries calls now, or has answered after `since`.
    /// A call that was not sent meanwhile waits for a stream. A participant that has not answered
    /// yet may speak HTTP/2.
    pub(crate) fn is_carrying(&self, since: Instant) -> bool {
        let answered_at = self.client.at + Duration::from_micros(self.answered_us.load(Ordering::Acquire));
        let is_alive = self.on_wire.load(Ordering::Acquire) > 0 || answered_at > since;
        !self.is_http_1() && is_alive
    }

    /// The most calls that were on the wire at once; `None` before the first response.
    pub(crate) fn carried_max(&self) -> Option<usize> {
        self.is_proven().then(|| self.on_wire_max.load(Ordering::Acquire))
    }
}

#[cfg(test)]
impl Clients {
    /// Uses this client until it is old.
    pub(crate) fn set_shared(&self, client: Client) {
        self.lock().shared.client = client;
    }
}

#[cfg(test)]
mod tests {
    use super::super::Connections;
    use super::*;

    fn clients(age: Duration) -> Clients {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Clients::new(Recipe::new(Connections { age, ..Connections::few() })).unwrap()
    }

    #[test]
    fn an_ill_connection_is_replaced_once_and_for_its_participant_alone() {
        let clients = clients(Duration::from_secs(3600));
        let (ill, other) = (clients.link("a"), clients.link("b"));
        ill.answered(Version::HTTP_2);
        clients.ill("a", &ill);
        let next = clients.link("a");
        assert!(!Arc::ptr_eq(&ill, &next));
        assert!(Arc::ptr_eq(&other, &clients.link("b")));
        clients.ill("a", &ill);
        assert!(Arc::ptr_eq(&next, &clients.link("a")), "a late call on the replaced connection");
    }

    #[test]
    fn connections_of_one_call_each_are_not_replaced() {
        let clients = clients(Duration::from_secs(3600));
        let link = clients.link("a");
        link.answered(Version::HTTP_11);
        clients.ill("a", &link);
        assert!(Arc::ptr_eq(&link, &clients.link("a")));
    }

    #[test]
    fn an_old_connection_gets_no_new_calls_and_its_lane_is_forgotten() {
        let clients = clients(Duration::ZERO);
        let link = clients.link("a");
        assert!(!Arc::ptr_eq(&link, &clients.link("a")));
        clients.link("b");
        assert_eq!(clients.lock().links.len(), 1, "the link of `a` is older than its age");
    }

    #[test]
    fn few_calls_connect_at_once_unless_each_needs_a_connection() {
        let clients = clients(Duration::from_secs(3600));
        let link = clients.link("a");
        let (plain, tls) = ("http://a/".parse().unwrap(), "https://a/".parse().unwrap());
        assert!(link.connecting(&plain).is_none());
        assert_eq!(link.connecting(&tls).unwrap().available_permits(), CONNECTING_MAX);
        link.answered(Version::HTTP_11);
        assert!(link.connecting(&tls).is_none());
    }
}
