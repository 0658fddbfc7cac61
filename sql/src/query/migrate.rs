statements! {
    folder "migrate";

    /// The environment of the database, and whether its workers may work.
    const HOME = "home";
    /// Makes the database one of this cluster.
    const HOME_ADOPT = "home_adopt";
    /// Names the environment of the database.
    const HOME_NAME = "home_name";
    /// Whether pgsaga was ever migrated.
    const MIGRATE_EXISTS = "migrate_exists";
    /// The functions that migrate has applied.
    const MIGRATE_FUNCTIONS = "migrate_functions";
    /// Takes the lock of migrations.
    const MIGRATE_LOCK = "migrate_lock";
}
