//! docs/sagas.md and the four documents after it: every block runs, one after the other as a reader
//! would, and prints what the text shows.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use pgsaga_tests::scene::{PATIENCE, broken};
use pgsaga_tests::{Database, eventually};

use crate::process::{Process, shell};
use crate::runs::{psql, query, start_tour};
use crate::text::*;
use crate::trip;

/// How long a question is asked again: what comes back after a broken participant takes up to 45
/// seconds.
const ASKED_FOR: Duration = Duration::from_secs(60);

/// A reader's database, and what runs in the terminals.
struct Reader {
    db: Database,
    echo: Process,
    /// The worker, then what the guide starts.
    others: Vec<Process>,
    /// Addresses of the guide, and what takes their place.
    places: Vec<(&'static str, String)>,
}

impl Reader {
    async fn new() -> Reader {
        let db = Database::new().await;
        let (echo, work) = start_tour(&db).await;
        let mut places = vec![(ECHO, echo.address().await)];
        for address in ["127.0.0.1:8081", "127.0.0.1:8082", "127.0.0.1:9470"] {
            places.push((address, free_address()));
        }
        Reader { db, echo, others: vec![work], places }
    }

    /// As it is run here.
    fn placed(&self, text: &str) -> String {
        self.places.iter().fold(text.to_owned(), |text, (shown, real)| text.replace(shown, real))
    }

    /// As the guide would show it.
    fn shown(&self, text: &str) -> String {
        self.places.iter().fold(text.to_owned(), |text, (shown, real)| text.replace(real, shown))
    }

    /// What a block of SQL or of a shell prints.
    fn run(&self, block: &Block) -> String {
        let text = self.placed(&block.text);
        if block.language == "sql" {
            return self.shown(&query(self.db.url(), &text));
        }
        let output = shell(&text, self.db.url());
        let said = crate::text::text(&output.stdout) + &crate::text::text(&output.stderr);
        assert!(output.status.success(), "{text}\n{said}");
        self.shown(&said)
    }

    /// Asks until it prints what is shown.
    async fn ask(&self, block: &Block, shows: &str) {
        let started = Instant::now();
        let printed = eventually(ASKED_FOR * 2, &block.text, async || {
            let printed = self.run(block);
            (is_shown(block, &printed, shows) || started.elapsed() > ASKED_FOR).then_some(printed)
        })
        .await;
        assert!(is_shown(block, &printed, shows), "{}\nprinted:\n{printed}\nshown:\n{shows}", block.text);
    }

    /// A block that is refused.
    fn refused(&self, block: &Block, shows: &str) {
        assert_eq!(block.language, "sql");
        let output = psql(self.db.url(), &self.placed(&block.text)).wait_with_output().unwrap();
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.starts_with(shows.trim_end()), "{}\n{said}", block.text);
    }

    /// Waits for lines of `echo`, or of a worker's log, each after its time.
    async fn hears(&self, shows: &str) {
        for line in shows.lines() {
            let (calls, logged) = (line.starts_with("POST "), line.split_once("Z ").map(|parts| parts.1));
            eventually(PATIENCE, line, async || {
                if calls {
                    return self.echo.lines().iter().any(|said| self.shown(said) == line).then_some(());
                }
                let mut said = self.others.iter().flat_map(Process::lines);
                let told = logged.unwrap().split(" open_ms=").next().unwrap();
                said.any(|said| self.shown(&said).contains(told)).then_some(())
            })
            .await;
        }
    }
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// It only looks: a reader who came too early asks again.
fn is_question(block: &Block) -> bool {
    let starts = |words: &[&str]| words.iter().any(|word| block.text.starts_with(word));
    match block.language.as_str() {
        "sql" => starts(&["select"]) && block.text.contains("from pgsaga."),
        _ => starts(&["pgsaga show", "pgsaga list", "pgsaga queues"]),
    }
}

/// It goes on in a terminal of its own.
fn stays(block: &Block) -> bool {
    let starts = |words: &[&str]| words.iter().any(|word| block.text.starts_with(word));
    starts(&["pgsaga echo", "pgsaga work"]) || block.text.contains(" --watch")
}

/// Tables of psql are as they are shown. What a command prints has times in it, and addresses as
/// wide as our own.
fn is_shown(block: &Block, printed: &str, shows: &str) -> bool {
    match block.language.as_str() {
        "sql" => trimmed(printed) == trimmed(shows),
        _ => masked(printed) == masked(shows),
    }
}

fn is_heard(shows: &str) -> bool {
    shows.starts_with("POST ") || shows.contains(" pgsaga_worker::")
}

#[tokio::test]
#[cfg_attr(not(has_psql), ignore = "needs psql: apt-get install postgresql-client")]
async fn every_example_of_the_guide_runs_and_prints_what_it_shows() {
    let mut reader = Reader::new().await;
    let mut examples = 0;
    for block in GUIDE.into_iter().flat_map(blocks_in) {
        match (block.language.as_str(), block.prints.as_deref()) {
            _ if block.is_printed() => continue,
            ("rust", _) => {
                let services = format!("http://{}", reader.places[0].1);
                trip::book(reader.db.pool(), &services).await.unwrap();
            }
            ("sh", shows) if stays(&block) => {
                let line = reader.placed(block.text.trim_end());
                reader.others.push(Process::start(&line, reader.db.url()));
                if let Some(shows) = shows {
                    reader.hears(shows).await;
                }
            }
            ("sql" | "sh", None) => drop(reader.run(&block)),
            ("sql" | "sh", Some(shows)) if shows.starts_with("ERROR") => reader.refused(&block, shows),
            ("sql" | "sh", Some(shows)) if is_heard(shows) => {
                reader.run(&block);
                reader.hears(shows).await;
            }
            ("sql" | "sh", Some(shows)) if is_question(&block) => reader.ask(&block, shows).await,
            ("sql" | "sh", Some(shows)) => {
                let printed = reader.run(&block);
                assert!(is_shown(&block, &printed, shows), "{}\nprinted:\n{printed}", block.text);
            }
            (language, _) => panic!("a block of {language}:\n{}", block.text),
        }
        examples += 1;
    }
    assert!(examples > 50, "{examples} blocks");
    for process in &mut reader.others {
        assert!(process.child.try_wait().unwrap().is_none(), "it stays");
    }
    let open: i64 = sqlx::query_scalar("select count(*) from pgsaga.saga where finished_at is null")
        .fetch_one(reader.db.pool())
        .await
        .unwrap();
    assert_eq!(open, 0, "every example comes to its end");
    assert_eq!(broken(reader.db.pool()).await, Vec::<String>::new());
}

#[test]
fn what_differs_each_time_is_masked_and_nothing_else() {
    for (one, other) in [
        (
            "+12 ms  2026-11-22 21:02:50.866  try 1  took 0.3 ms",
            "+1.3 s 2027-01-02 00:00:00.000 try 1 took 12 ms",
        ),
        (
            "stuck since 2026-11-22 21:02:50.875 (3 s): x\n----+---",
            "stuck since 2026-11-23 21:02:50.875 (3.2 s): x",
        ),
    ] {
        assert_eq!((masked(one).len(), masked(one)), (1, masked(other)));
    }
    for text in ["try 1 success 200", "00:00:03", "(2 rows)", "127.0.0.1:8080", "s0 --> s1"] {
        assert_eq!(masked(text), [text], "it is compared");
    }
}
