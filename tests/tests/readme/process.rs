//! What a shell block says, as real processes.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use pgsaga_tests::scene::PATIENCE;
use pgsaga_tests::{binary, eventually, pgsaga};

use crate::text::ROOT;

/// With `pgsaga` on the path, at ports that are free.
fn as_a_reader<'a>(command: &'a mut Command, database_url: &str) -> &'a mut Command {
    let path = format!(
        "{}:{}",
        pgsaga().parent().unwrap().display(),
        std::env::var_os("PATH").unwrap_or_default().display()
    );
    command
        .current_dir(ROOT)
        .env("PATH", path)
        .env("DATABASE_URL", database_url)
        .env("PGSAGA_ECHO_LISTEN", "127.0.0.1:0")
        .env("PGSAGA_LISTEN", "127.0.0.1:0")
        .stdin(Stdio::null())
}

/// A whole block that ends by itself.
pub(crate) fn shell(text: &str, database_url: &str) -> Output {
    let mut bash = Command::new("bash");
    as_a_reader(bash.args(["-e", "-c", text]), database_url).output().unwrap()
}

/// A line of a shell, as a process that ends with the test.
pub(crate) struct Process {
    pub(crate) child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    pub(crate) fn start(line: &str, database_url: &str) -> Self {
        let mut tied = binary::tied(binary::pgsaga(), Path::new("bash"));
        tied.args(["-c", &format!("exec 2>&1\nexec {line}")]);
        let mut child = as_a_reader(&mut tied, database_url).stdout(Stdio::piped()).spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (log, stdout) = (Arc::clone(&lines), child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                log.lock().unwrap().push(line);
            }
        });
        Self { child, lines }
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// The rest of the first line that starts so.
    pub(crate) async fn says(&self, start: &str) -> String {
        eventually(PATIENCE, &format!("a line that starts with {start:?}"), async || {
            self.lines().iter().find_map(|line| Some(line.strip_prefix(start)?.to_owned()))
        })
        .await
    }

    /// Where `pgsaga echo` listens.
    pub(crate) async fn address(&self) -> String {
        let rest = self.says("listening on http://").await;
        rest.split_once(": ").unwrap().0.to_owned()
    }

    /// The calls that `pgsaga echo` had for a saga, by path and key.
    pub(crate) fn calls(&self, gid: &str) -> Vec<String> {
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
