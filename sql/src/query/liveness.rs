statements! {
    folder "liveness";

    /// Removes a dead worker's row.
    const BURY = "bury";
    /// Why a worker may not work in the database.
    const CHECK_HOME = "check_home";
    /// Declares a silent worker dead.
    const DECLARE_DEAD = "declare_dead";
    /// Raises a worker's counter and reads all counters.
    struct Heartbeat<'a> = "heartbeat" {
        worker_id: i64,
        /// The version that the worker knows.
        schema_version: i64,
        denied: Option<serde_json::Value>,
        environment: Option<&'a str>,
        progress: Option<serde_json::Value>,
    }

    /// The tasks that a worker holds according to the database.
    const HELD = "held";

    struct Register<'a> = "register" {
        lease_ms: i32,
        host: &'a str,
        process_id: i32,
        version: &'a str,
        environment: Option<&'a str>,
        queues: Option<&'a [String]>,
        participants: &'a [String],
        transactional: &'a [String],
    }

    /// Requeues a dead worker's tasks.
    const RESCUE = "rescue";
    /// Ends a worker that shuts down; its tasks are rescued without a death.
    const RETIRE = "retire";
    /// Which server this is, and of which history.
    const SERVER_HISTORY = "server_history";
    /// Whether a server takes writes.
    const SERVER_ROLE = "server_role";
    /// Finds tasks that no claim reaches.
    const UNREACHABLE = "unreachable";
}
