use tokio_util::sync::CancellationToken;

/// The two steps of a worker's end.
#[derive(Debug, Clone)]
pub(crate) struct Shutdown {
    /// Claim nothing more, start no call.
    pub(crate) stop: CancellationToken,
    /// Everything that could be settled is settled: all loops end.
    pub(crate) done: CancellationToken,
}
