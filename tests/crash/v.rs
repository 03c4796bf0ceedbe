//! `v` with failpoints, for the crash tests. Never installed.

use std::process::ExitCode;

fn main() -> ExitCode {
    virshle::cli::main()
}
