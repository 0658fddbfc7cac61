//! Sessions of people who are logged in, and delays after wrong tokens.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::token::digest;

/// Time without a request after which a session ends.
const IDLE_MAX: Duration = Duration::from_secs(3600);
/// Time after the login at which a session ends.
const AGE_MAX: Duration = Duration::from_secs(12 * 3600);
/// Upper bound on the sessions. A further login ends the session that was idle for longest.
const SESSIONS_MAX: usize = 256;
/// Number of successive wrong tokens from one address that cause no delay.
const WRONG_FREE: u32 = 3;
/// Upper bound on the delay before the next token.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Time without a wrong token after which an address has no delay any more.
const FORGET: Duration = Duration::from_secs(900);
/// Upper bound on the addresses with wrong tokens. Beyond it, the address that was silent for
/// longest is dropped.
const ADDRESSES_MAX: usize = 1024;

#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) name: String,
    /// The value that every form of this session contains, against cross-site requests.
    pub(crate) form_token: String,
    id: [u8; 32],
}

struct Known {
    session: Session,
    since: Instant,
    seen: Instant,
    /// A message for the session's next page.
    told: Option<String>,
}

struct Tries {
    wrong: u32,
    last: Instant,
}

/// Sessions and delays, in memory only: a restart logs everybody out.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<State>);

#[derive(Default)]
struct State {
    /// By the digest of the cookie's value, because a search by the secret itself could be timed.
    known: HashMap<[u8; 32], Known>,
    tries: HashMap<IpAddr, Tries>,
}

impl Sessions {
    /// Time that this address has to wait before its next token is compared.
    pub(crate) fn wait(&self, address: IpAddr) -> Option<Duration> {
        self.state().wait(network(address), Instant::now())
    }

    /// Records a wrong token from this address.
    pub(crate) fn wrong(&self, address: IpAddr) {
        self.state().wrong(network(address), Instant::now());
    }

    /// Starts a session and returns the value of its cookie.
    pub(crate) fn begin(&self, address: IpAddr, name: String) -> String {
        let secret = secret();
        let session = Session { name, form_token: self::secret(), id: digest(&secret) };
        let now = Instant::now();
        let mut state = self.state();
        state.tries.remove(&network(address));
        state.known.retain(|_, known| known.lives(now));
        if state.known.len() >= SESSIONS_MAX
            && let Some(quietest) = state.known.iter().min_by_key(|(_, known)| known.seen).map(|(id, _)| *id)
        {
            state.known.remove(&quietest);
        }
        state.known.insert(session.id, Known { session, since: now, seen: now, told: None });
        secret
    }

    /// Returns the session that the cookie belongs to.
    pub(crate) fn find(&self, cookie: &str) -> Option<Session> {
        let now = Instant::now();
        let mut state = self.state();
        let known = state.known.get_mut(&digest(cookie)).filter(|known| known.lives(now))?;
        known.seen = now;
        Some(known.session.clone())
    }

    /// Sets the message for the session's next page.
    pub(crate) fn tell(&self, session: &Session, what: String) {
        if let Some(known) = self.state().known.get_mut(&session.id) {
            known.told = Some(what);
        }
    }

    pub(crate) fn told(&self, session: &Session) -> Option<String> {
        self.state().known.get_mut(&session.id)?.told.take()
    }

    pub(crate) fn end(&self, session: &Session) {
        self.state().known.remove(&session.id);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn lives(&self, now: Instant) -> bool {
        now.duration_since(self.seen) < IDLE_MAX && now.duration_since(self.since) < AGE_MAX
    }
}

impl State {
    fn wait(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let tries = self.tries.get(&address)?;
        let doublings = tries.wrong.checked_sub(WRONG_FREE)?.min(6);
        let wait = Duration::from_secs(1 << doublings).min(WAIT_MAX);
        wait.checked_sub(now.duration_since(tries.last)).filter(|left| !left.is_zero())
    }

    fn wrong(&mut self, address: IpAddr, now: Instant) {
        self.tries.retain(|_, tries| now.duration_since(tries.last) < FORGET);
        if self.tries.len() >= ADDRESSES_MAX
            && !self.tries.contains_key(&address)
            && let Some(quietest) =
                self.tries.iter().min_by_key(|(_, tries)| tries.last).map(|(address, _)| *address)
        {
            self.tries.remove(&quietest);
        }
        let tries = self.tries.entry(address).or_insert(Tries { wrong: 0, last: now });
        tries.wrong = tries.wrong.saturating_add(1);
        tries.last = now;
    }
}

/// The network of an address. Whoever has one IPv6 address has a whole /64 network of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let bits = address.to_bits() >> 64 << 64;
            IpAddr::V6(bits.into())
        }
        address => address,
    }
}

/// 256 bits of the system's random generator, as hexadecimal digits.
fn secret() -> String {
    rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn wrong_tokens_cost_ever_longer_waits_for_one_address_only() {
        let mut state = State::default();
        let start = Instant::now();
        let waits: Vec<u64> = (1..=11)
            .map(|_| {
                state.wrong(HOME, start);
                state.wait(HOME, start).map_or(0, |wait| wait.as_secs())
            })
            .collect();
        assert_eq!(waits, [0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(state.wait(HOME, start + WAIT_MAX), None, "it is over");
        assert_eq!(state.wait("192.0.2.1".parse().unwrap(), start), None, "somebody else");
        state.wrong(HOME, start + FORGET);
        assert_eq!(state.wait(HOME, start + FORGET), None, "forgotten");
    }

    #[test]
    fn addresses_that_try_are_bounded() {
        let mut state = State::default();
        let start = Instant::now();
        for nth in 0..5000u32 {
            state.wrong(IpAddr::V4(nth.into()), start + Duration::from_millis(nth.into()));
        }
        assert_eq!(state.tries.len(), ADDRESSES_MAX);
        assert!(state.tries.contains_key(&IpAddr::V4(4999.into())));
    }

    #[test]
    fn neighbours_of_ipv6_are_one() {
        let parse = |text: &str| network(text.parse().unwrap());
        assert_eq!(parse("2001:db8::1"), parse("2001:db8::ffff:1"));
        assert_ne!(parse("2001:db8::1"), parse("2001:db8:0:1::1"));
        assert_eq!(parse("::ffff:192.0.2.1"), parse("192.0.2.1"));
    }

    #[test]
    fn a_session_is_found_by_its_cookie_until_it_ends_or_is_old() {
        let sessions = Sessions::default();
        let cookie = sessions.begin(HOME, "Ann".into());
        let session = sessions.find(&cookie).unwrap();
        assert_eq!(session.name, "Ann");
        assert_ne!(session.form_token, cookie);
        assert!(sessions.find(&sessions.begin(HOME, "Bob".into())).is_some());
        for other in ["", "x", &session.form_token] {
            assert!(sessions.find(other).is_none(), "{other}");
        }
        sessions.tell(&session, "done".into());
        assert_eq!((sessions.told(&session), sessions.told(&session)), (Some("done".into()), None));
        sessions.end(&session);
        assert!(sessions.find(&cookie).is_none());
        let now = Instant::now();
        let known = |seen: Duration, since: Duration| {
            let (session, now) = (session.clone(), now + AGE_MAX + AGE_MAX);
            Known { session, since: now - since, seen: now - seen, told: None }.lives(now)
        };
        assert!(known(Duration::ZERO, Duration::ZERO));
        assert!(!known(IDLE_MAX, IDLE_MAX));
        assert!(!known(Duration::ZERO, AGE_MAX));
    }
}
