//! A process of `pgsaga` that ends with the tests, however those end.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use crate::binary;

/// A process and what it logs.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) child: Child,
    pub(crate) log: Arc<Mutex<Vec<String>>>,
    pub(crate) log_ended: Arc<AtomicBool>,
}

/// Starts a build of `pgsaga` with these arguments and further environment variables.
///
/// # Panics
/// When it cannot be started.
pub(crate) fn spawn(program: &Path, args: &[&str], env: &[(&str, &str)], stdout: Stdio) -> Spawned {
    let mut command = binary::tied(program, program);
    command.args(args).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).envs(env.iter().copied());

    let log = Arc::new(Mutex::new(Vec::new()));
    let log_ended = Arc::new(AtomicBool::new(false));
    let (lines, ended) = (Arc::clone(&log), Arc::clone(&log_ended));
    let (send, receive) = mpsc::channel();
    // The thread that starts the process counts as its parent, so it stays to read the log to its
    // end.
    thread::spawn(move || {
        let mut child = command.spawn().expect("failed to start pgsaga");
        let stderr = child.stderr.take().unwrap();
        send.send(child).unwrap();
        for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
            lines.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
        }
        ended.store(true, Ordering::Release);
    });
    Spawned { child: receive.recv().expect("failed to start pgsaga"), log, log_ended }
}
