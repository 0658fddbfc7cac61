//! What a process takes, as Linux counts it.

use pgsaga_tests::Worker;

/// The most memory it ever had, in bytes.
pub(crate) fn memory_max(worker: &Worker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

/// Its open descriptors.
pub(crate) fn descriptors(worker: &Worker) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", worker.pid())).unwrap().count()
}

/// Nothing in its log is an error, and nothing panicked.
pub(crate) fn assert_calm(worker: &Worker) {
    let loud: Vec<String> = worker
        .log()
        .into_iter()
        .filter(|line| line.contains("\"level\":\"ERROR\"") || line.contains("panicked"))
        .collect();
    assert!(loud.is_empty(), "{loud:#?}");
}
