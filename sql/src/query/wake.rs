statements! {
    folder "wake";

    /// Asks for a sign of life.
    const ALIVE = "alive";
    /// Takes the lock that makes producers notify.
    const IDLE_LOCK = "idle_lock";
    /// Releases the lock, so that producers stop notifying.
    const IDLE_UNLOCK = "idle_unlock";
    /// Lets the server end the session of a frozen worker.
    const LISTEN_LIMITS = "listen_limits";
    /// The process that serves a transaction.
    const SERVER_PROCESS = "server_process";
    /// Notifies idle workers that something is due.
    const WAKE = "wake";
}
