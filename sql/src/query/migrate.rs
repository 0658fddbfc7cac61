statements! {
    folder "migrate";

    /// Whether pgsaga was ever migrated.
    const MIGRATE_EXISTS = "migrate_exists";
    /// The functions that migrate has applied.
    const MIGRATE_FUNCTIONS = "migrate_functions";
    /// Takes the lock of migrations.
    const MIGRATE_LOCK = "migrate_lock";
}
