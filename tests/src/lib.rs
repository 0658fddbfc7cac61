//! The harness of the end-to-end tests: real workers, a real Postgres, scripted participants.
//!
//! A test makes a [`Database`], a [`Participant`] and as many [`Worker`]s as it needs, in that
//! order; they end in reverse. Nothing here sleeps for a fixed time: see [`eventually`].
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a harness that cannot go on fails its test"
)]

pub mod controls;
pub mod dump;
pub mod extremes;
pub mod oracle;
pub mod scene;
pub mod size;

/// Postgres, and what breaks it.
mod database {
    pub mod cluster;
    pub mod standby;
}

/// Who is called, and what they wrote down.
mod participants {
    pub mod authority;
    pub mod bank;
    pub mod http2;
    pub mod ledger;
    pub mod participant;
}

/// Programs that tests run.
mod process {
    pub mod binary;
    pub(crate) mod child;
    pub mod clock;
    pub mod command;
    pub mod local;
    pub mod tool;
    pub mod ui;
    pub mod vault;
    pub mod worker;
}

use process::child;

pub use database::{cluster, standby};
pub use participants::{authority, bank, http2, ledger, participant};
pub use process::{binary, clock, command, local, tool, ui, vault, worker};

pub use binary::pgsaga;
pub use cluster::{Cluster, Database};
pub use participant::{Behaviour, Call, Gate, Participant};
pub use pgsaga_test::proxy::{Fault, Proxy};
pub use size::sized;
pub use standby::{Frozen, Pair, Replication};
pub use tool::tool;
pub use ui::Ui;
pub use vault::Vault;
pub use worker::Worker;

use std::time::{Duration, Instant};

/// How often [`eventually`] looks.
const POLL: Duration = Duration::from_millis(10);

/// A number that makes a run longer or repeats it, from the environment.
///
/// # Panics
/// When the variable is there and holds no number.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}; allowed: a whole number"))
    })
}

/// Asks until there is an answer, and panics with `what` when there is none within the deadline.
///
/// # Panics
/// At the deadline.
pub async fn eventually<T>(deadline: Duration, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(started.elapsed() < deadline, "not within {deadline:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}
