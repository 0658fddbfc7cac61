//! docs/examples: each program is run as its first line says, by a login with a producer's rights.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pgsaga_tests::scene::{PATIENCE, broken};
use pgsaga_tests::tool::examples;
use pgsaga_tests::{Cluster, Database, eventually, tool};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tokio::task::block_in_place;

use crate::runs::start_tour;
use crate::text::*;

const ORM: &str = "docs/orm.md";

/// Reachable by TCP, because JDBC has no Unix sockets.
async fn cluster() -> &'static Cluster {
    static SHARED: OnceCell<Cluster> = OnceCell::const_new();
    SHARED.get_or_init(|| Cluster::own(false, true)).await
}

/// A login that owns tables of its own, and has only a producer's rights in pgsaga. Roles belong to
/// the cluster: the login's name is the database's.
async fn producer(db: &Database) -> String {
    let user = format!("{}_shop", db.name());
    let create = format!(
        "create role {user} login in role pgsaga_producer; grant create, usage on schema public to {user}"
    );
    sqlx::raw_sql(AssertSqlSafe(create)).execute(db.pool()).await.unwrap();
    db.tcp_url().unwrap().replace("postgres://postgres@", &format!("postgres://{user}@"))
}

/// The command in the first line of a file. What it needs stands behind it, in parentheses.
fn header(text: &str) -> String {
    let line = text.lines().next().unwrap();
    let line = ["-- ", "# ", "// "].iter().find_map(|sign| line.strip_prefix(sign)).unwrap();
    let command = line.split("  ").next().unwrap().trim();
    // Set by the reader, who knows the address.
    let variables = ["DATABASE_URL=postgres://… ", "JDBC_URL=jdbc:postgresql://… "];
    variables.iter().find_map(|variable| command.strip_prefix(variable)).unwrap_or(command).to_owned()
}

/// A copy of the examples, with the address of a participant of the test.
struct Copy {
    /// Below the folder that has node_modules: an ES module looks for others from its own place
    /// upwards.
    folder: TempDir,
    url: String,
}

impl Copy {
    async fn new(db: &Database, participant: &str) -> Copy {
        fs::create_dir_all(examples()).unwrap();
        let folder = tempfile::tempdir_in(examples()).unwrap();
        for from in ["docs/examples", "docs/examples/orm"] {
            fs::create_dir_all(folder.path().join(from)).unwrap();
            for entry in fs::read_dir(Path::new(ROOT).join(from)).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_file() {
                    let text = fs::read_to_string(entry.path()).unwrap().replace(ECHO, participant);
                    fs::write(folder.path().join(from).join(entry.file_name()), text).unwrap();
                }
            }
        }
        Copy { folder, url: producer(db).await }
    }

    /// Runs a file as its header says; `program` is the tool that it needs.
    fn run(&self, file: &str, program: &Path) -> Output {
        let command = header(&fs::read_to_string(self.folder.path().join(file)).unwrap());
        assert!(command.contains(file), "{file}: its first line runs something else: {command}");
        if file.ends_with(".java") {
            // Where the reader has it.
            drop(symlink(program, self.folder.path().join("postgresql.jar")));
        }
        let path = format!(
            "{}:{}",
            program.parent().unwrap().display(),
            std::env::var_os("PATH").unwrap_or_default().display()
        );
        let jdbc = self.url.replace("postgres://", "jdbc:postgresql://");
        let (before, host) = jdbc.split_once("://").unwrap();
        let (user, host) = host.split_once('@').unwrap();
        let jdbc = format!("{before}://{host}{}user={user}", if host.contains('?') { '&' } else { '?' });
        let mut bash = Command::new("bash");
        bash.args(["-e", "-c", &command])
            .current_dir(&self.folder)
            .env("PATH", path)
            .env("DATABASE_URL", &self.url)
            .env("JDBC_URL", jdbc);
        block_in_place(|| bash.output().unwrap())
    }
}

/// A producer of docs/examples makes its order and its saga once, however often it runs.
async fn makes_its_saga_once(file: &str, gid: &str, program: PathBuf) -> String {
    let db = cluster().await.database().await;
    let (echo, _work) = start_tour(&db).await;
    let copy = Copy::new(&db, &echo.address().await).await;
    let run = || -> String {
        let output = copy.run(file, &program);
        assert!(output.status.success(), "{file}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    };
    let first = run();
    assert!(first.contains(gid), "{file}: {first}");
    eventually(PATIENCE, &format!("{gid} succeeds"), async || {
        let status: Option<String> = sqlx::query_scalar(
            "select s.status from pgsaga.saga s, orders o where s.gid = $1 and $1 = 'order-' || o.id and o.cents = 990",
        )
        .bind(gid)
        .fetch_optional(db.pool())
        .await
        .unwrap();
        (status? == "succeeded").then_some(())
    })
    .await;
    // A second run, as after a lost answer, changes nothing, and tells how it ended.
    let printed = run();
    assert!(printed.contains("succeeded"), "{file}: {printed}");
    assert_eq!(
        echo.calls(gid),
        [
            format!("POST /stock/reserve key={gid}/stock/action"),
            format!("POST /payment/charge key={gid}/payment/action")
        ],
        "{file}"
    );
    assert_eq!(broken(db.pool()).await, Vec::<String>::new());
    format!("{first}{printed}")
}

/// The same by an ORM, which reads back the id that the database has chosen.
async fn reads_back_its_id(file: &str, gid: &str, program: PathBuf) {
    let printed = makes_its_saga_once(file, gid, program).await;
    let start = format!("{gid} has the id ");
    let id =
        printed.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_else(|| panic!("{printed}"));
    assert!(id.parse::<i64>().is_ok_and(|id| id > 0), "{printed}");
    assert!(printed.contains(&format!("{gid} was there already\n")), "{printed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(has_psql), ignore = "needs psql: apt-get install postgresql-client")]
async fn the_producer_in_sql_runs_as_its_header_says() {
    makes_its_saga_once("docs/examples/producer.sql", "order-1", tool("psql")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(has_psql), ignore = "needs psql: apt-get install postgresql-client")]
async fn the_trip_in_sql_runs_as_its_header_says() {
    let db = cluster().await.database().await;
    let (echo, _work) = start_tour(&db).await;
    let copy = Copy::new(&db, &echo.address().await).await;
    let output = copy.run("docs/examples/trip.sql", &tool("psql"));
    assert!(output.status.success(), "{}", text(&output.stderr));
    eventually(PATIENCE, "the trip ends", async || {
        let ended = "select 1 from pgsaga.saga where gid = 'trip-1' and finished_at is not null";
        sqlx::query(ended).fetch_optional(db.pool()).await.unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(has_psycopg), ignore = "needs psycopg: docs/examples/install")]
async fn the_producer_in_python_runs_as_its_header_says() {
    makes_its_saga_once("docs/examples/producer.py", "order-2", tool("psycopg")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(has_node_pg), ignore = "needs node_pg: docs/examples/install")]
async fn the_producer_in_javascript_runs_as_its_header_says() {
    makes_its_saga_once("docs/examples/producer.mjs", "order-3", tool("node_pg")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(has_sqlalchemy), ignore = "needs sqlalchemy: docs/examples/install")]
async fn sqlalchemy_submits_and_reads_back_with_a_producers_rights() {
    reads_back_its_id("docs/examples/orm/with_sqlalchemy.py", "order-4", tool("sqlalchemy")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(has_django), ignore = "needs django: docs/examples/install")]
async fn django_submits_and_reads_back_with_a_producers_rights() {
    reads_back_its_id("docs/examples/orm/with_django.py", "order-5", tool("django")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(has_jdbc), ignore = "needs jdbc: apt-get install default-jdk maven && docs/examples/install")]
async fn jdbc_submits_and_reads_back_with_a_producers_rights() {
    reads_back_its_id("docs/examples/orm/WithJdbc.java", "order-6", tool("jdbc")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(has_drizzle), ignore = "needs drizzle: docs/examples/install")]
async fn drizzle_submits_and_reads_back_with_a_producers_rights() {
    reads_back_its_id("docs/examples/orm/with_drizzle.mts", "order-7", tool("drizzle")).await;
}

/// Every file of the folders has a test above, or is compiled.
#[test]
fn every_example_is_run() {
    let tests = include_str!("examples.rs");
    for folder in ["docs/examples", "docs/examples/orm"] {
        for entry in fs::read_dir(Path::new(ROOT).join(folder)).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{folder}/{}", entry.file_name().to_str().unwrap());
            let is_run = tests.contains(&format!("\"{name}\""));
            let is_exempt = ["docs/examples/install", "docs/examples/trip.rs"].contains(&&*name);
            assert!(is_run || is_exempt || entry.path().is_dir(), "{name} is run by no test");
        }
    }
}

#[test]
fn the_page_of_orms_shows_the_files() {
    let blocks = blocks_in(ORM);
    for file in ["with_sqlalchemy.py", "with_django.py", "WithJdbc.java", "with_drizzle.mts"] {
        let file = read(&format!("docs/examples/orm/{file}"));
        assert!(blocks.iter().any(|block| block.text == file), "{ORM} does not show:\n{file}");
    }
    // And the versions with which they are tested.
    let (page, install) = (read(ORM), read("docs/examples/install"));
    for (row, pinned) in [
        ("SQLAlchemy", "SQLAlchemy=="),
        ("Django", "Django=="),
        ("JDBC", "jdbc="),
        ("Drizzle", "drizzle-orm@"),
    ] {
        let version = install.split(pinned).nth(1).unwrap().split(|c: char| !c.is_ascii_digit() && c != '.');
        let version = version.take(1).collect::<String>();
        let row = page.lines().find(|line| line.starts_with(&format!("| [{row}]"))).unwrap();
        let said = row.split(" | ").nth(1).unwrap();
        assert!(version.starts_with(&format!("{said}.")), "{row}: installed is {version}");
    }
}

/// The columns of the page are those that a producer may read, and an INSERT may return each.
#[tokio::test]
async fn the_page_of_orms_names_all_that_a_producer_may_read_back() {
    let db = cluster().await.database().await;
    let mut shop = PgConnection::connect(&producer(&db).await).await.unwrap();
    let rows = table(&read(ORM), &["column", "example of use"]);
    let named: Vec<String> =
        rows.iter().flat_map(|row| quoted(&row[0]).map(str::to_owned).collect::<Vec<_>>()).collect();
    let readable: Vec<String> = sqlx::query_scalar(
        "select a.attname::text from pg_attribute a where a.attrelid = 'pgsaga.saga'::regclass and a.attnum > 0
         and has_column_privilege(a.attrelid, a.attnum, 'select')",
    )
    .fetch_all(&mut shop)
    .await
    .unwrap();
    assert_eq!(
        std::collections::BTreeSet::from_iter(&named),
        std::collections::BTreeSet::from_iter(&readable)
    );
    let insert = r#"insert into pgsaga.saga (steps) values ('[{"action": ""}]') returning "#;
    let all = format!("{insert}{}", named.join(", "));
    shop.execute(AssertSqlSafe(all)).await.unwrap();
    for refused in ["*", "steps", "headers", "labels", "result_mapping", "abort_reason", "progress"] {
        let error = shop.execute(AssertSqlSafe(format!("{insert}{refused}"))).await.unwrap_err();
        let code = error.as_database_error().and_then(|error| error.code());
        assert_eq!(code.as_deref(), Some("42501"), "{refused}: {error}");
    }
    shop.close().await.unwrap();
}
