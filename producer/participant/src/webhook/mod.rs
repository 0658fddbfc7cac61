//! Signatures of calls, after the [Standard Webhooks](https://www.standardwebhooks.com)
//! specification. A signature proves that a call comes from a worker, that nobody changed its body,
//! and that it is not an old call sent again.
//!
//! Workers sign the calls of a named participant that has secrets. The participant verifies each
//! call before it does anything else:
//!
//! ```
//! use std::collections::HashMap;
//! use std::time::Duration;
//!
//! use pgsaga_participant::webhook::{Secret, verify};
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
//! # Ok::<(), pgsaga_participant::webhook::BadSecret>(())
//! ```
//!
//! The signature covers `webhook-id`, `webhook-timestamp` and the body, but not the URL. So give
//! each op a secret of its own, or compare the op with the id, which is `<gid>/<step>/<op>` like
//! the `Idempotency-Key`, with `~` for `.`. A genuine call can come twice, as every call can.

use std::fmt;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Header that names the call; the same on every try. An id must not contain a point: part of the
/// body could then pass for the timestamp.
pub const ID: &str = "webhook-id";
/// Header with the time of the signature, in seconds since 1970-01-01 UTC.
pub const TIMESTAMP: &str = "webhook-timestamp";
/// Header with a signature `v1,<base64>` by each secret of the sender, with spaces between them.
pub const SIGNATURE: &str = "webhook-signature";

const SECRET_PREFIX: &str = "whsec_";
const SIGNATURE_PREFIX: &str = "v1,";
/// Bounds of the specification.
const SECRET_BYTES_MIN: usize = 24;
const SECRET_BYTES_MAX: usize = 64;
/// Most signatures of one call that are compared. The limit bounds the work for a forged call, and
/// is more than any rotation of secrets needs.
pub const SIGNATURES_MAX: usize = 16;

/// A secret that workers and participant share. `Debug` does not print it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Reads `whsec_` and 24 to 64 bytes in base64, as `echo "whsec_$(openssl rand -base64 32)"`
    /// prints them.
    ///
    /// # Errors
    /// [`BadSecret`], which does not contain the text.
    pub fn parse(text: &str) -> Result<Secret, BadSecret> {
        let encoded = text.strip_prefix(SECRET_PREFIX).ok_or(BadSecret::Prefix)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| BadSecret::Base64)?;
        if (SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&bytes.len()) {
            Ok(Secret(bytes))
        } else {
            Err(BadSecret::Length(bytes.len()))
        }
    }

    /// The HMAC of `<id>.<timestamp>.<body>`. Never `None`, because an HMAC takes a key of any
    /// length.
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

/// Why a text cannot be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadSecret {
    /// The text does not start with `whsec_`.
    #[error("it does not start with whsec_")]
    Prefix,
    /// The rest of the text is not base64.
    #[error("what follows whsec_ is not base64")]
    Base64,
    /// Too short to be safe, or longer than the specification allows.
    #[error("it has {0} bytes; allowed: 24 to 64, in base64")]
    Length(usize),
}

/// Returns the value of [`SIGNATURE`] for a call. It holds a signature by each secret, so that the
/// participant can replace one secret by another without a gap. `timestamp` is in seconds since
/// 1970-01-01 UTC.
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

/// A call whose signature is genuine and recent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<'a> {
    /// Value of the header [`ID`].
    pub id: &'a str,
    /// Value of the header [`TIMESTAMP`].
    pub timestamp: u64,
}

/// Why a call is not genuine. Answer it with 401.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// One of the three headers is missing.
    #[error("the header {0} is missing")]
    Missing(&'static str),
    /// The id is empty or contains a point.
    #[error("the id is empty or contains a point")]
    Id,
    /// The timestamp is not a number of seconds.
    #[error("the timestamp is not a number of seconds")]
    Timestamp,
    /// The call was signed too long ago: somebody sends an old call again, or the clocks differ.
    #[error("it was signed {seconds} s ago; the tolerance is {tolerance_seconds} s")]
    TooOld {
        /// Age of the signature.
        seconds: u64,
        /// Highest age that is accepted.
        tolerance_seconds: u64,
    },
    /// The call was signed in the future: the clocks differ by more than the tolerance.
    #[error("it was signed {seconds} s in the future; the tolerance is {tolerance_seconds} s")]
    TooNew {
        /// How far in the future.
        seconds: u64,
        /// Highest difference that is accepted.
        tolerance_seconds: u64,
    },
    /// None of the secrets made any of the signatures: the secret is wrong, or the id, the
    /// timestamp or the body is not what was signed.
    #[error("no signature fits any of the secrets")]
    Signature,
    /// The list of secrets is empty.
    #[error("no secrets were given")]
    NoSecrets,
}

/// Verifies a call by this machine's clock.
///
/// `header` returns a header's value by its name in lower case; `body` is the body as it came, byte
/// for byte. The comparison takes the same time wherever signatures differ. A tolerance of five
/// minutes is usual.
///
/// # Errors
/// [`VerifyError`]. Then do nothing of what the call asks.
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

/// Verifies a call as [`verify`] does, by the time `now`.
///
/// # Errors
/// [`VerifyError`], as for [`verify`].
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
