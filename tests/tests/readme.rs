//! README.md and grafana/README.md say what is true: their commands, SQL, programs and tables are run or compared as
//! they stand. Only addresses are replaced: the database's, and those that two tests at once would fight over.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use pgsaga_tests::binary;
use pgsaga_tests::scene::{PATIENCE, Scene, broken};
use pgsaga_tests::tool::skip;
use pgsaga_tests::{Behaviour, Database, eventually, pgsaga, tool};
use pgsaga_worker::metrics;
use pgsaga_worker::outcome::judge;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// What the texts name; a test's own participant takes its place.
const ECHO: &str = "127.0.0.1:8080";
const TOUR: &str = "The 60-second tour";
const PRODUCERS: &str = "Producers";

/// A fenced block.
struct Block {
    language: String,
    text: String,
    /// The heading it stands under.
    section: String,
    /// The text of the next block, when that is a `text` block: what running this one prints.
    prints: Option<String>,
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn readme() -> String {
    read("README.md")
}

fn blocks() -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut section, mut open) = (String::new(), false);
    for line in readme().lines() {
        if let Some(language) = line.strip_prefix("```") {
            if !open {
                let (language, section) = (language.to_owned(), section.clone());
                blocks.push(Block { language, text: String::new(), section, prints: None });
            }
            open = !open;
        } else if open {
            let text = &mut blocks.last_mut().unwrap().text;
            text.push_str(line);
            text.push('\n');
        } else if line.starts_with('#') {
            section = line.trim_start_matches('#').trim().to_owned();
        }
    }
    for index in (1..blocks.len()).filter(|&index| blocks[index].language == "text").collect::<Vec<_>>() {
        blocks[index - 1].prints = Some(blocks[index].text.clone());
    }
    blocks
}

fn blocks_of(section: &str, language: &str) -> Vec<Block> {
    let found: Vec<Block> =
        blocks().into_iter().filter(|block| block.section == section && block.language == language).collect();
    assert!(!found.is_empty(), "README.md has no {language} under {section:?}");
    found
}

/// The rows of the table whose header starts with these cells.
fn table(text: &str, header: &[&str]) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()
    };
    let rows = text
        .lines()
        .skip_while(|line| !line.starts_with('|') || !cells(line).iter().zip(header).all(|(a, b)| a == b));
    let rows: Vec<_> = rows.skip(2).take_while(|line| line.starts_with('|')).map(cells).collect();
    assert!(!rows.is_empty(), "no table with the header {header:?}");
    rows
}

/// The `quoted` words of a text.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Lines without the blanks at their ends: an editor may have removed those.
fn trimmed(text: &str) -> Vec<&str> {
    text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A line of a shell, as a process that ends with the test.
struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    fn start(line: &str, database_url: &str) -> Self {
        let path = format!(
            "{}:{}",
            pgsaga().parent().unwrap().display(),
            std::env::var_os("PATH").unwrap_or_default().display()
        );
        let mut child = binary::command()
            .args(["postgres-child", "--signal", "SIGKILL", "--parent", &std::process::id().to_string()])
            .args(["--", "bash", "-c", &format!("exec 2>&1\nexec {line}")])
            .current_dir(ROOT)
            .env("PATH", path)
            .env("DATABASE_URL", database_url)
            .env("PGSAGA_ECHO_LISTEN", "127.0.0.1:0")
            .env("PGSAGA_LISTEN", "127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (log, stdout) = (Arc::clone(&lines), child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                log.lock().unwrap().push(line);
            }
        });
        Self { child, lines }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// The rest of the first line that starts so.
    async fn says(&self, start: &str) -> String {
        eventually(PATIENCE, &format!("a line that starts with {start:?}"), async || {
            self.lines().iter().find_map(|line| Some(line.strip_prefix(start)?.to_owned()))
        })
        .await
    }

    /// Where `pgsaga echo` listens.
    async fn address(&self) -> String {
        let rest = self.says("listening on http://").await;
        rest.split_once(": ").unwrap().0.to_owned()
    }

    /// The calls that `pgsaga echo` had for a saga, by path and key.
    fn calls(&self, gid: &str) -> Vec<String> {
        let calls = self.lines().into_iter().filter(|line| line.contains(&format!(" key={gid}/")));
        let short = |line: String| {
            let path = line.split_once('?').unwrap().0.to_owned();
            format!("{path} {}", line.split(' ').find(|word| word.starts_with("key=")).unwrap())
        };
        calls.map(short).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if thread::panicking() {
            eprintln!("a process of the test said:\n{}", self.lines().join("\n"));
        }
    }
}

/// Runs each line of the tour's second shell block: the last two stay.
async fn start_tour(db: &Database) -> (Process, Process) {
    let commands = blocks_of(TOUR, "sh").swap_remove(1).text;
    let [migrate, echo, work] = commands.lines().collect::<Vec<_>>()[..] else { panic!("{commands}") };
    let mut migrate = Process::start(migrate, db.url());
    assert!(migrate.child.wait().unwrap().success());
    let echo = Process::start(echo, db.url());
    let work = Process::start(work, db.url());
    echo.address().await;
    (echo, work)
}

fn psql(url: &str, sql: &str) -> Child {
    let mut psql = Command::new("psql")
        .args([url, "--no-psqlrc", "-v", "ON_ERROR_STOP=1"])
        .current_dir(ROOT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    psql.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
    psql
}

/// Runs SQL that is to work.
fn query(url: &str, sql: &str) -> String {
    let output = psql(url, sql).wait_with_output().unwrap();
    assert!(output.status.success(), "{sql}\n{}", text(&output.stderr));
    text(&output.stdout)
}

/// Watches, as a person does, until the saga is over.
fn watch(url: &str, sql: &str) -> String {
    let mut psql = psql(url, sql);
    let lines = BufReader::new(psql.stdout.take().unwrap()).lines().map_while(Result::ok);
    let ended = |line: &String| line.contains("| succeeded") || line.contains("| failed");
    let last = lines.take(1000).find(ended).unwrap_or_else(|| panic!("not over: {sql}"));
    psql.kill().unwrap();
    psql.wait().unwrap();
    last
}

fn has_psql() -> bool {
    tool("psql", "apt-get install postgresql-client").is_some()
}

#[tokio::test]
async fn the_tour_runs_as_it_stands() {
    if !has_psql() {
        return;
    }
    let db = Database::new().await;
    let (echo, _work) = start_tour(&db).await;
    let address = echo.address().await;
    let mut watched = Vec::new();
    for block in blocks_of(TOUR, "sql") {
        let sql = block.text.replace(ECHO, &address);
        if sql.contains("\\watch") {
            watched.push(watch(db.url(), &sql));
            continue;
        }
        let printed = query(db.url(), &sql);
        if let Some(prints) = block.prints {
            assert_eq!(trimmed(&printed), trimmed(&prints), "{sql}");
        }
    }
    let words: Vec<Vec<&str>> = watched.iter().map(|line| line.split('|').map(str::trim).collect()).collect();
    assert_eq!(
        words,
        [["tour-1", "succeeded", ""], ["tour-2", "failed", "payment: echo was told to refuse"]]
    );
    assert_eq!(
        echo.calls("tour-1"),
        ["POST /stock/reserve key=tour-1/stock/action", "POST /payment/charge key=tour-1/payment/action"]
    );
    assert_eq!(
        echo.calls("tour-2"),
        [
            "POST /stock/reserve key=tour-2/stock/action",
            "POST /payment/refuse key=tour-2/payment/action",
            "POST /stock/release key=tour-2/stock/compensate"
        ]
    );
    assert_eq!(broken(db.pool()).await, Vec::<String>::new());
}

/// An interpreter that has psycopg.
fn python() -> Option<PathBuf> {
    let candidates = [examples().join("venv/bin/python"), "python3".into()];
    let works = |python: &PathBuf| {
        let output = Command::new(python).args(["-c", "import psycopg"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    let found = candidates.into_iter().find(works);
    if found.is_none() {
        skip("no python3 with psycopg (docs/examples/install)");
    }
    found
}

fn node() -> Option<PathBuf> {
    let node = tool("node", "apt-get install nodejs npm")?;
    if !examples().join("node_modules/pg").is_dir() {
        skip("no module pg for node (docs/examples/install)");
        return None;
    }
    Some(node)
}

/// Where `docs/examples/install` puts things.
fn examples() -> PathBuf {
    Path::new(ROOT).join("target/examples")
}

#[tokio::test]
async fn producers_in_three_languages_run_as_they_stand() {
    let db = Database::new().await;
    let (echo, _work) = start_tour(&db).await;
    let address = echo.address().await;
    let table = blocks_of(PRODUCERS, "sql").swap_remove(0).text;
    sqlx::raw_sql(sqlx::AssertSqlSafe(table)).execute(db.pool()).await.unwrap();
    // Below the folder that has node_modules: an ES module looks for others from its own place upwards.
    fs::create_dir_all(examples()).unwrap();
    let folder = tempfile::tempdir_in(examples()).unwrap();

    let psql = has_psql().then(|| PathBuf::from("psql"));
    for (order, file, program) in
        [(1, "producer.sql", psql), (2, "producer.py", python()), (3, "producer.mjs", node())]
    {
        let Some(program) = program else { continue };
        let copy = folder.path().join(file);
        fs::write(&copy, read(&format!("docs/examples/{file}")).replace(ECHO, &address)).unwrap();
        let gid = format!("order-{order}");
        let run = || -> String {
            let mut command = Command::new(&program);
            if file == "producer.sql" {
                command.args([db.url(), "--no-psqlrc", "-v", "ON_ERROR_STOP=1", "-f"]);
            }
            let output = command.arg(&copy).env("DATABASE_URL", db.url()).output().unwrap();
            assert!(output.status.success(), "{file}: {}", text(&output.stderr));
            text(&output.stdout)
        };
        let printed = run();
        assert!(printed.contains(&gid), "{file}: {printed}");
        eventually(PATIENCE, &format!("{gid} succeeds"), async || {
            let status: Option<String> = sqlx::query_scalar(
                "select s.status from pgsaga.saga s, orders o where s.gid = $1 and o.id = $2 and o.cents = 990",
            )
            .bind(&gid)
            .bind(order)
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
            echo.calls(&gid),
            [
                format!("POST /stock/reserve key={gid}/stock/action"),
                format!("POST /payment/charge key={gid}/payment/action")
            ],
            "{file}"
        );
    }
    assert_eq!(broken(db.pool()).await, Vec::<String>::new());
}

#[tokio::test]
async fn every_sql_block_runs_and_the_roles_suffice() {
    if !has_psql() {
        return;
    }
    let db = Database::new().await;
    for block in blocks() {
        if block.language == "sh" && block.text.starts_with("psql ") {
            let mut process = Process::start(&block.text, db.url());
            assert!(process.child.wait().unwrap().success(), "{}", block.text);
        }
        if block.language != "sql" || block.text.contains("\\watch") {
            continue;
        }
        match block.prints.filter(|prints| prints.starts_with("ERROR")) {
            None => drop(query(db.url(), &block.text)),
            Some(error) => {
                let output = psql(db.url(), &block.text).wait_with_output().unwrap();
                let said = text(&output.stderr);
                assert!(!output.status.success() && said.starts_with(error.trim_end()), "{said}");
            }
        }
    }
    for (user, command) in
        [("alice", &["list", "--open"][..]), ("alice", &["show", "tour-1"]), ("alice", &["doctor"])]
    {
        let output = binary::command()
            .args(command)
            .env("DATABASE_URL", db.url().replace("postgres://postgres@", &format!("postgres://{user}@")))
            .output()
            .unwrap();
        assert!(output.status.success(), "{user} {command:?}: {}", text(&output.stderr));
    }
}

#[tokio::test]
async fn a_stuck_saga_is_tried_again_and_finished_ones_are_deleted_as_the_readme_says() {
    if !has_psql() {
        return;
    }
    let scene = Scene::with_worker().await;
    let repair = blocks_of("A stuck saga", "sql").swap_remove(0).text;
    let retain = blocks_of("Deleting finished sagas", "sql").swap_remove(0).text;
    scene
        .saga("order-42")
        .step("stock")
        .step("pay")
        .compensate(Behaviour::Sequence(vec![Behaviour::Refuse("closed".into())]))
        .step("ship")
        .action(Behaviour::Refuse("no".into()))
        .insert()
        .await;
    let mut calls = vec!["stock action", "pay action", "ship action", "pay compensate"];
    scene.expect("order-42", "stuck", Some("pay: closed"), &calls).await;

    query(scene.db.url(), &repair);
    eventually(PATIENCE, "order-42 goes on", async || {
        scene.status("order-42").await.filter(|(status, _)| status == "failed")
    })
    .await;
    calls.extend(["pay compensate", "stock compensate"]);
    scene.expect("order-42", "failed", Some("pay: closed"), &calls).await;
    let decisions: Vec<String> = sqlx::query_scalar(
        "select message from pgsaga.saga_timeline where gid = 'order-42' and kind = 'decision'",
    )
    .fetch_all(scene.pool())
    .await
    .unwrap();
    assert_eq!(decisions, ["postgres: the refund account was closed, and is open again"]);
    // Nothing is stuck any more: the same statement does nothing.
    query(scene.db.url(), &repair);
    scene.expect("order-42", "failed", Some("pay: closed"), &calls).await;
    let shown =
        binary::command().args(["show", "order-42", "--database-url", scene.db.url()]).output().unwrap();
    assert!(text(&shown.stdout).contains("is open again"), "{}", text(&shown.stderr));

    let left = async || -> (i64, i64) {
        sqlx::query_as("select (select count(*) from pgsaga.saga), (select count(*) from pgsaga.history)")
            .fetch_one(scene.pool())
            .await
            .unwrap()
    };
    assert_eq!(query(scene.db.url(), &retain), "DELETE 0\n");
    assert_eq!(left().await, (1, 7));
    sqlx::query("update pgsaga.saga set finished_at = finished_at - interval '91 days'")
        .execute(scene.pool())
        .await
        .unwrap();
    assert_eq!(query(scene.db.url(), &retain), "DELETE 7\n");
    assert_eq!(left().await, (0, 0));
    scene.healthy().await;
}

#[test]
fn the_examples_are_the_files() {
    let producers = blocks();
    for (language, file) in [("sql", "producer.sql"), ("python", "producer.py"), ("js", "producer.mjs")] {
        let file = read(&format!("docs/examples/{file}"));
        assert!(
            producers.iter().any(|block| block.language == language && block.text == file),
            "README.md does not show the {language} example as its file has it"
        );
    }
    // The crate's README is compiled; this one repeats its lines.
    let compiled = read("producer/README.md");
    for block in blocks().into_iter().filter(|block| block.language == "rust") {
        assert!(compiled.contains(&block.text), "producer/README.md has other lines than:\n{}", block.text);
    }
}

#[test]
fn the_first_screen_has_the_two_commands() {
    let readme = readme();
    let first = readme.split("\n## ").next().unwrap();
    let code: Vec<&str> = first.split("```").collect();
    assert_eq!(code.len(), 3, "one block");
    assert_eq!(code[1], "sh\ncargo run --release -- demo\ncargo test --workspace\n");
    assert_eq!(
        code[0].trim().lines().filter(|line| !line.is_empty()).count(),
        1 + 5,
        "a title and five lines"
    );
}

fn run(args: &[&str]) -> Output {
    binary::command().args(args).output().unwrap()
}

fn help(command: &str) -> String {
    let output = run(&[command, "--help"]);
    assert!(output.status.success(), "pgsaga {command}: no such command");
    text(&output.stdout)
}

/// The words of a text that look like flags.
fn flags(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '-'));
    words.filter(|word| word.starts_with("--") && word.len() > 3).map(str::to_owned).collect()
}

#[test]
fn every_command_flag_variable_and_exit_code_exists() {
    let readme = readme();
    let shells = blocks().into_iter().filter(|block| block.language == "sh").map(|block| block.text);
    let prose = readme.split("```").step_by(2).collect::<Vec<_>>().join("\n");
    let spans: Vec<String> = quoted(&prose).map(str::to_owned).chain(shells).collect();
    let top = text(&run(&["--help"]).stdout);
    let everything: String =
        ["migrate", "work", "show", "list", "check", "doctor", "echo", "demo"].map(help).concat() + &top;
    for line in spans.iter().flat_map(|span| span.lines()) {
        let line = line.split(" # ").next().unwrap();
        if let Some(rest) = line.strip_prefix("pgsaga ") {
            let help = help(rest.split(' ').next().unwrap());
            for flag in flags(rest) {
                assert!(help.contains(&flag), "{line}: no such flag");
            }
        } else if line.starts_with("--") {
            for flag in flags(line) {
                assert!(everything.contains(&flag), "{line}: no command has it");
            }
        }
    }
    for variable in readme.split(|c: char| !(c.is_ascii_uppercase() || c == '_')) {
        if variable.starts_with("PGSAGA_") && !["PGSAGA_", "PGSAGA_PG_BIN"].contains(&variable) {
            assert!(everything.contains(variable), "{variable}: no command has it");
        }
    }

    let work = help("work");
    let work = work.split_once("Options:").unwrap().1;
    let rows = table(&readme, &["flag", "variable", "default"]);
    for row in &rows {
        let [flag, variable, default] = [&row[0], &row[1], &row[2]].map(|cell| cell.trim_matches('`'));
        let (_, described) =
            work.split_once(&format!("{flag} <")).or(work.split_once(&format!("{flag}[="))).unwrap();
        let described = described.split("\n      --").next().unwrap();
        assert!(described.contains(&format!("[env: {variable}")), "{flag}: {described}");
        if !["required", "none", "false"].contains(&default) {
            assert!(described.contains(&format!("[default: {default}]")), "{flag}: {described}");
        }
    }
    let documented: BTreeSet<String> = rows.iter().flat_map(|row| flags(&row[0])).collect();
    let options: String = work.lines().filter(|line| line.trim_start().starts_with("--")).collect();
    assert_eq!(documented, flags(&options));

    let codes = top.split_once("Exit codes:").unwrap().1;
    let codes: Vec<&str> = codes.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let rows = table(&readme, &["exit code"]);
    assert_eq!(rows.iter().map(|row| row[0].as_str()).collect::<Vec<_>>(), codes);
}

#[tokio::test]
async fn the_tables_of_columns_and_keys_are_complete() {
    let readme = readme();
    let first_cells = |header: &[&str]| -> BTreeSet<String> {
        table(&readme, header)
            .iter()
            .flat_map(|row| quoted(&row[0]).map(str::to_owned).collect::<Vec<_>>())
            .collect()
    };
    let db = Database::new().await;
    let columns = async |right: &str| -> BTreeSet<String> {
        let names: Vec<String> = sqlx::query_scalar(
            "select a.attname::text from pg_attribute a where a.attrelid = 'pgsaga.saga'::regclass and a.attnum > 0
             and has_column_privilege('pgsaga_producer', a.attrelid, a.attnum, $1)",
        )
        .bind(right)
        .fetch_all(db.pool())
        .await
        .unwrap();
        names.into_iter().collect()
    };
    assert_eq!(first_cells(&["column", "type"]), columns("insert").await);
    let readable: BTreeSet<String> = columns("select").await;
    let documented = first_cells(&["column", "meaning"]);
    assert!(readable.iter().all(|column| column == "gid" || documented.contains(column)), "{readable:?}");

    let error = pgsaga_producer::check_file(r#"[{"action": "", "?": 1}]"#).unwrap_err().to_string();
    let keys = error.split_once("the keys ").unwrap().1.split(", ").map(str::to_owned).collect();
    assert_eq!(first_cells(&["key", "default"]), keys);

    let roles: Vec<String> =
        sqlx::query_scalar("select rolname::text from pg_roles where rolname like 'pgsaga\\_%'")
            .fetch_all(db.pool())
            .await
            .unwrap();
    assert_eq!(first_cells(&["role", "rights"]), roles.into_iter().collect());
}

#[test]
fn the_table_of_answers_is_what_the_worker_does() {
    let mut statuses = 0;
    for row in table(&readme(), &["answer", "outcome"]) {
        for status in row[0].split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()) {
            assert_eq!(judge(status, b"").0.as_str(), row[1], "{status}");
            statuses += 1;
        }
    }
    assert_eq!(statuses, 8);
    assert_eq!(judge(404, b"").0.as_str(), "unknown", "everything else");
}

#[test]
fn the_table_of_metrics_is_the_workers() {
    let documented = table(&read("grafana/README.md"), &["metric", "kind", "meaning"]);
    let exported: Vec<Vec<String>> = metrics::TABLE
        .iter()
        .map(|(name, kind, help)| vec![format!("`{name}`"), (*kind).to_owned(), (*help).to_owned()])
        .collect();
    assert_eq!(documented, exported);
}

#[test]
fn every_link_leads_somewhere() {
    let readme = readme();
    let anchor = |heading: &str| -> String {
        let kept = heading.to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || *c == '-').collect()
    };
    let headings = |text: &str| -> BTreeSet<String> {
        text.lines()
            .filter(|line| line.starts_with('#'))
            .map(|line| anchor(line.trim_start_matches('#').trim()))
            .collect()
    };
    for link in readme.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
        let target = if path.is_empty() { readme.clone() } else { read(path) };
        assert!(fragment.is_empty() || headings(&target).contains(fragment), "{link}");
    }
}
