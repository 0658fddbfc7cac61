statements! {
    folder "wake";

    /// Asks for a sign of life.
    const ALIVE = "alive";
    /// Takes the lock that makes producers notify.
    const IDLE_LOCK = "idle_lock";
    /// Releases the lock, so that producers stop notifying.
    const IDLE_UNLOCK = "idle_unlock";
    /// Notifies idle workers that something is due.
    const WAKE = "wake";
}
