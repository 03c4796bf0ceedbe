use std::process::ExitCode;

fn main() -> ExitCode {
    virshle::cli::main()
}
