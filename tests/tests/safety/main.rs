//! What a row, a network and a producer can be used for, and what they cannot: denied addresses,
//! named participants, signatures and rights. docs/safety.md says it in words.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod addresses;
mod denied;
mod guide;
mod home;
mod named;
mod participants;
mod rights;
mod signatures;
mod tls;
