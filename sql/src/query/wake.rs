statements! {
    folder "wake";

    /// Asks for a sign of life.
    const ALIVE = "alive";
    /// Asks producers to notify.
    const IDLE_LOCK = "idle_lock";
    /// Asks producers to stop notifying.
    const IDLE_UNLOCK = "idle_unlock";
    /// Notifies idle workers that something is due.
    const WAKE = "wake";
}
