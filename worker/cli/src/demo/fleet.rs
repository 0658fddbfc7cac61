//! The demo's banks and workers.

use super::bank::Name;
use crate::error::Error;
use crate::fleet::{Fleet, LOOPBACK};

/// Calls at once of one worker: more would queue up in the banks until they time out.
const CONCURRENCY: &str = "48";
/// The shortest: a dead worker is noticed after so long.
const LEASE_SECONDS: &str = "2";

/// Starts a bank and waits until it listens. Returns its process id and its URL.
///
/// # Errors
/// When it does not start; the error holds the end of its log.
pub(crate) async fn start_bank(fleet: &mut Fleet, bank: Name, seed: u64) -> Result<(u32, String), Error> {
    let seed = seed.to_string();
    let arguments = ["demo-bank", "--log-level", "warn", "--name", bank.as_str(), "--seed", &seed];
    let bank = fleet.spawn(bank.as_str().to_owned(), &arguments)?;
    Ok((bank.pid, bank.first_line().await?))
}

/// Starts a worker and does not wait for it. Returns its process id.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn start_worker(fleet: &mut Fleet) -> Result<u32, Error> {
    #[rustfmt::skip]
    let arguments = [
        "work", "--listen", "127.0.0.1:0", "--log-format", "json", "--concurrency", CONCURRENCY,
        "--lease-seconds", LEASE_SECONDS, "--grace-seconds", "1", "--allow-address", LOOPBACK,
    ];
    let name = format!("worker-{}", fleet.len());
    Ok(fleet.spawn(name, &arguments)?.pid)
}
