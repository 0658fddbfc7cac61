#![doc = include_str!("../README.md")]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")
)]

pub mod call_log;
pub mod child;
mod database;
pub mod embedded;
mod error;
pub mod fleet;
mod kit;
pub mod proxy;
pub mod scratch;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

pub use database::Database;
pub use error::Error;
pub use kit::{Case, Entry, Kit, Question, Report, Run, Verdict};

/// The addresses of this machine, which a kit's workers may call.
pub fn loopback() -> [IpNet; 2] {
    [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()].map(IpNet::from)
}

/// Nothing under the locks of this crate is left half done by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
