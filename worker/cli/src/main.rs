//! `pgsaga`: only wires. See `pgsaga --help`.

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

/// What one thread allocates for a call another one frees: under glibc's malloc they wait for each
/// other's arenas.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    signals::hold();
    cli::main()
}
