//! SIGTERM and SIGINT: the first asks for a drain, the second ends the process now.

use nix::sys::signal::{SigSet, Signal};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::error::Error;

/// Exit code of a process that a second signal ended: 128 + SIGINT, as shells say it.
const NOW: i32 = 130;

fn ours() -> SigSet {
    [Signal::SIGTERM, Signal::SIGINT].into_iter().collect()
}

/// The first thing in `main`, before any thread: a signal that comes before [`stop_on_signal`]
/// waits for it instead of killing the process. Threads made meanwhile stay blocked; the main
/// thread takes the signals.
pub(crate) fn hold() {
    // Fails only for an invalid `how`.
    let _ = ours().thread_block();
}

/// For commands that have nothing to drain: a signal ends them as it ends any program.
pub(crate) fn release() {
    // Fails only for an invalid `how`.
    let _ = ours().thread_unblock();
}

/// Starts handling, in the runtime's main thread. The token is cancelled by the first signal.
pub(crate) fn stop_on_signal() -> Result<CancellationToken, Error> {
    let io = || Error::io("install the signal handlers");
    let mut terminate = signal(SignalKind::terminate()).map_err(io())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(io())?;
    ours().thread_unblock().map_err(|errno| io()(errno.into()))?;
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        for nth in 1.. {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if nth > 1 {
                tracing::warn!(
                    signal = name,
                    "a second signal: ending now; another worker rescues what runs"
                );
                std::process::exit(NOW);
            }
            tracing::info!(signal = name, "stopping");
            stopping.cancel();
        }
    });
    Ok(stop)
}
