//! A database as an older release left it.

use std::fs;
use std::path::PathBuf;

use pgsaga_sql::{ROLES, SCHEMA_VERSION};
use pgsaga_tests::scene::Scene;
use pgsaga_tests::{Participant, binary};
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Connection as _};

/// The version of the baseline's fixture.
pub(crate) const BASELINE: i64 = 1;

/// Stands in the fixtures for a participant's address, and is as long.
const PLACEHOLDER: &str = "participant:443";

/// The rows that workers of a version left behind.
pub(crate) fn fixture(version: i64) -> PathBuf {
    PathBuf::from(format!("{}/fixtures/schema_{version}.sql", env!("CARGO_MANIFEST_DIR")))
}

/// What `pgsaga migrate --print` of the release with this version printed. Of today's version it is
/// what it prints now.
pub(crate) fn script(version: i64) -> PathBuf {
    PathBuf::from(format!("{}/fixtures/script_{version}.sql", env!("CARGO_MANIFEST_DIR")))
}

/// What `pgsaga migrate --print` prints, with further flags.
pub(crate) fn printed(flags: &[&str]) -> String {
    let script = binary::command()
        .args(["migrate", "--print"])
        .args(flags)
        .env_remove("DATABASE_URL")
        .output()
        .unwrap();
    assert!(script.status.success(), "{}", String::from_utf8_lossy(&script.stderr));
    String::from_utf8(script.stdout).unwrap()
}

/// A database that pgsaga was never migrated in, with the roles and the empty schema.
pub(crate) async fn without_schema() -> Scene {
    let scene = Scene::new().await;
    sqlx::raw_sql("drop schema pgsaga cascade").execute(scene.pool()).await.unwrap();
    sqlx::raw_sql(ROLES).execute(scene.pool()).await.unwrap();
    scene
}

/// A database of just this version, without a saga.
pub(crate) async fn at(version: i64) -> Scene {
    let scene = without_schema().await;
    let script = if version == SCHEMA_VERSION {
        printed(&[])
    } else {
        fs::read_to_string(script(version)).unwrap_or_else(|error| panic!("version {version}: {error}"))
    };
    // On a connection of its own, for it may end in another role.
    let mut session = PgConnection::connect(scene.db.url()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut session).await.unwrap();
    session.close().await.unwrap();
    assert_eq!(self::version(scene.pool()).await, version);
    scene
}

/// The same with what the fixture holds.
pub(crate) async fn with_rows(version: i64) -> Scene {
    let scene = at(version).await;
    load(scene.pool(), version, &scene.participant).await;
    scene
}

/// The triggers have done their work when the rows were made.
async fn load(pool: &PgPool, version: i64, participant: &Participant) {
    let address = participant.address().to_string();
    assert_eq!(address.len(), PLACEHOLDER.len(), "{address}: sizes of definitions are stored");
    let rows = fs::read_to_string(fixture(version)).unwrap().replace(PLACEHOLDER, &address);
    let script =
        format!("set session_replication_role = replica;\n{rows}\nset session_replication_role = origin;");
    let mut session = pool.acquire().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut *session).await.unwrap();
    // Its temporary functions go with it.
    session.close().await.unwrap();
}

/// The newest version that is applied.
pub(crate) async fn version(pool: &PgPool) -> i64 {
    sqlx::query_scalar("select max(version) from pgsaga.migration").fetch_one(pool).await.unwrap()
}
