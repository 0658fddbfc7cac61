//! Signatures of calls, after the [Standard Webhooks](https://www.standardwebhooks.com) specification: a participant knows that a
//! call comes from the workers and from nobody else, that nothing of its body was changed, and that it is not an old one.
//!
//! Workers sign the calls of a named participant that has secrets. The participant looks at each call before it does anything:
//!
//! ```
//! use std::collections::HashMap;
//! use std::time::Duration;
//!
//! use pgsaga_producer::webhook::{Secret, verify};
//!
//! # let headers: HashMap<&str, &str> = HashMap::new();
//! # let body = b"{}";
//! // Once, when the participant starts: the new secret and the old one, while both are in use.
//! let secrets = [
//!     Secret::parse("whsec_bmV3IHNlY3JldCwgMzIgYnl0ZXMgbG9uZywgcmFuZG9t")?,
//!     Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")?,
//! ];
//!
//! // For each call, with its body as it came and its headers in lower case:
//! match verify(|name| headers.get(name).copied(), body, &secrets, Duration::from_secs(300)) {
//!     Ok(call) => println!("{} is genuine", call.id),
//!     Err(error) => println!("answer 401: {error}"),
//! }
//! # Ok::<(), pgsaga_producer::webhook::BadSecret>(())
//! ```
//!
//! What is signed is `webhook-id`, `webhook-timestamp` and the body. The URL is not: let each op have a secret of its own, or look
//! at the call's step and op, which are in the id (`<gid>/<step>/<op>` like the `Idempotency-Key`, with `~` for `.`).
//! A genuine call can come twice, as every call can.

use std::fmt;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Names the call: the same on every try. [`verify`] takes none with a point, which would let another part of the body be
/// taken for the timestamp.
pub const ID: &str = "webhook-id";
/// When the try was signed, in seconds since 1970-01-01 UTC.
pub const TIMESTAMP: &str = "webhook-timestamp";
/// One signature for each secret of the sender, with spaces between them: `v1,<base64>`.
pub const SIGNATURE: &str = "webhook-signature";

const SECRET_PREFIX: &str = "whsec_";
const SIGNATURE_PREFIX: &str = "v1,";
/// The specification's bounds.
const SECRET_BYTES_MIN: usize = 24;
const SECRET_BYTES_MAX: usize = 64;
/// So many signatures of a call are looked at: more than anybody rotates through, and a bound on the work for a call that is not
/// genuine. A sender that has more secrets is not understood.
pub const SIGNATURES_MAX: usize = 16;

/// A secret that sender and participant share. Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Reads `whsec_` and 24 to 64 bytes in base64, such as `echo "whsec_$(openssl rand -base64 32)"` prints.
    ///
    /// # Errors
    /// [`BadSecret`], which shows nothing of it either.
    pub fn parse(text: &str) -> Result<Secret, BadSecret> {
        let encoded = text.strip_prefix(SECRET_PREFIX).ok_or(BadSecret::Prefix)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| BadSecret::Base64)?;
        if (SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&bytes.len()) {
            Ok(Secret(bytes))
        } else {
            Err(BadSecret::Length(bytes.len()))
        }
    }

    /// Ready to sign or to verify `<id>.<timestamp>.<body>`. `None` cannot be: an HMAC takes a key of any length.
    fn mac(&self, id: &str, timestamp: &str, body: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        Some(mac)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A text that is no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadSecret {
    /// It does not start as one.
    #[error("it does not start with whsec_")]
    Prefix,
    /// What follows is not base64.
    #[error("what follows whsec_ is not base64")]
    Base64,
    /// Too short to be safe, or longer than the specification allows.
    #[error("it has {0} bytes; allowed: 24 to 64, in base64")]
    Length(usize),
}

/// The value of [`SIGNATURE`] for a call: a signature by each secret, so that the participant may know either while one takes
/// the other's place. `timestamp` is in seconds since 1970-01-01 UTC.
pub fn sign(id: &str, timestamp: u64, body: &[u8], secrets: &[Secret]) -> String {
    let timestamp = timestamp.to_string();
    let mut signatures = String::new();
    for mac in secrets.iter().filter_map(|secret| secret.mac(id, &timestamp, body)) {
        if !signatures.is_empty() {
            signatures.push(' ');
        }
        signatures.push_str(SIGNATURE_PREFIX);
        STANDARD.encode_string(mac.finalize().into_bytes(), &mut signatures);
    }
    signatures
}

/// A call that is genuine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<'a> {
    /// Its [`ID`].
    pub id: &'a str,
    /// Its [`TIMESTAMP`].
    pub timestamp: u64,
}

/// Why a call is not to be believed. Answer it with 401.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// A header of the signature is not there.
    #[error("the header {0} is missing")]
    Missing(&'static str),
    /// The id is empty or has a point.
    #[error("the id is empty or contains a point")]
    Id,
    /// The timestamp is not a number of seconds.
    #[error("the timestamp is not a number of seconds")]
    Timestamp,
    /// Signed longer ago than the tolerance: an old call that somebody sends again, or clocks that differ.
    #[error("it was signed {seconds} s ago; the tolerance is {tolerance_seconds} s")]
    TooOld {
        /// How long ago.
        seconds: u64,
        /// What would be tolerated.
        tolerance_seconds: u64,
    },
    /// Signed in the future: clocks differ by more than the tolerance.
    #[error("it was signed {seconds} s in the future; the tolerance is {tolerance_seconds} s")]
    TooNew {
        /// How far.
        seconds: u64,
        /// What would be tolerated.
        tolerance_seconds: u64,
    },
    /// No signature is by any of the secrets: a wrong secret, or another id, timestamp or body than was signed.
    #[error("no signature fits any of the secrets")]
    Signature,
    /// There is nothing to verify it with.
    #[error("no secrets were given")]
    NoSecrets,
}

/// Whether a call is genuine, by this machine's clock.
///
/// `header` gives a header's value by its name in lower case, `body` is the body as it came, byte for byte. The comparison takes
/// the same time wherever signatures differ. A tolerance of five minutes is usual.
///
/// # Errors
/// [`VerifyError`]; then nothing of the call is to be believed.
pub fn verify<'a>(
    header: impl Fn(&str) -> Option<&'a str>,
    body: &[u8],
    secrets: &[Secret],
    tolerance: Duration,
) -> Result<Verified<'a>, VerifyError> {
    #[expect(clippy::disallowed_methods, reason = "the sender's wall clock can only be compared with ours")]
    let now = SystemTime::now();
    verify_at(header, body, secrets, tolerance, now)
}

/// The same at a given time.
///
/// # Errors
/// As for [`verify`].
pub fn verify_at<'a>(
    header: impl Fn(&str) -> Option<&'a str>,
    body: &[u8],
    secrets: &[Secret],
    tolerance: Duration,
    now: SystemTime,
) -> Result<Verified<'a>, VerifyError> {
    if secrets.is_empty() {
        return Err(VerifyError::NoSecrets);
    }
    let get = |name: &'static str| header(name).ok_or(VerifyError::Missing(name));
    let (id, timestamp_text, signatures) = (get(ID)?, get(TIMESTAMP)?, get(SIGNATURE)?);
    if id.is_empty() || id.contains('.') {
        return Err(VerifyError::Id);
    }
    if timestamp_text.is_empty() || !timestamp_text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(VerifyError::Timestamp);
    }
    let timestamp: u64 = timestamp_text.parse().map_err(|_| VerifyError::Timestamp)?;
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let tolerance_seconds = tolerance.as_secs();
    if now.saturating_sub(timestamp) > tolerance_seconds {
        return Err(VerifyError::TooOld { seconds: now - timestamp, tolerance_seconds });
    }
    if timestamp.saturating_sub(now) > tolerance_seconds {
        return Err(VerifyError::TooNew { seconds: timestamp - now, tolerance_seconds });
    }
    let genuine = signatures
        .split(' ')
        .filter_map(|signature| signature.strip_prefix(SIGNATURE_PREFIX))
        .filter_map(|signature| STANDARD.decode(signature).ok())
        .take(SIGNATURES_MAX)
        .any(|signature| {
            secrets.iter().any(|secret| {
                secret.mac(id, timestamp_text, body).is_some_and(|mac| mac.verify_slice(&signature).is_ok())
            })
        });
    if genuine { Ok(Verified { id, timestamp }) } else { Err(VerifyError::Signature) }
}

#[cfg(test)]
mod tests;
