//! `pgsaga`: only wires. See `pgsaga --help`.

use std::process::ExitCode;

use pgsaga_worker::{cli, signals};

/// What one thread allocates for a call another one frees: under glibc's malloc they wait for each other's arenas.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    signals::hold();
    cli::main()
}
