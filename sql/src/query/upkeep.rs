statements! {
    folder "upkeep";

    /// Drops a history partition of which no saga is left.
    const DROP_HISTORY_PARTITION = "drop_history_partition";
    const HISTORY_PARTITIONS = "history_partitions";
    /// Who may keep a migration waiting.
    const LOCK_HOLDERS = "lock_holders";
    const MAKE_HISTORY_PARTITIONS = "make_history_partitions";

    /// Deletes history whose saga is gone.
    struct PurgeHistory = "purge_history" {
        age_us: i64,
        partition: i64,
        after_saga_id: i64,
        after_seq: i64,
        last_saga_id: i64,
        rows_max: i32,
    }

    /// Deletes sagas that finished long ago.
    struct PurgeSagas = "purge_sagas" {
        age_us: i64,
        after_id: i64,
        before_id: i64,
        sagas_max: i32,
    }

    /// What keeps the tables from being vacuumed.
    const SAMPLE = "sample";
    /// Tasks by queue, for metrics.
    const SAMPLE_QUEUES = "sample_queues";
    /// Sagas and workers, for metrics.
    const SAMPLE_SAGAS = "sample_sagas";
    /// The newest applied migration.
    const SCHEMA_VERSION = "schema_version";
}
