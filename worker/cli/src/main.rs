//! `pgsaga`: wires the parts together. See `pgsaga --help`.

mod bench;
mod cli;
mod demo;
mod echo;
mod error;
mod operate;
mod output;
mod signals;
mod ui;
mod words;
mod work;

use std::process::ExitCode;

/// Memory that one thread allocates for a call is freed by another thread. With glibc's malloc, the
/// threads wait for each other's arenas.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    signals::hold();
    cli::main()
}
