//! `pgsaga`: only wires. See `pgsaga --help`.

use std::process::ExitCode;

use pgsaga_worker::{cli, signals};

fn main() -> ExitCode {
    signals::hold();
    cli::main()
}
