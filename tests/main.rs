//! The suite: whole programs, run as a person runs them. One binary, so that it links once.
//!
//! Every test gets a [`world::World`] of its own: a folder with config, state and sockets below it.
//! A test that needs a program or a privilege that is missing says so and is counted as skipped.

// A test binary has no public interface, and starts programs as a person does.
#![allow(unreachable_pub, missing_debug_implementations, clippy::disallowed_methods)]

mod cli;
mod crash;
mod e2e;
mod faults;
mod firewall;
mod fixtures;
mod flake;
mod golden;
mod layering;
mod lifecycle;
mod network;
mod nix;
mod relay;
mod storm;
mod systemd;
mod world;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    if let Some(code) = firewall::as_a_child() {
        return code;
    }
    let mut arguments = Arguments::from_args();
    // Two cores, and several tests that boot a guest: more at once only makes each slower.
    arguments.test_threads = arguments.test_threads.or(Some(2));
    let trials = [
        cli::trials(),
        crash::trials(),
        golden::trials(),
        layering::trials(),
        lifecycle::trials(),
        network::trials(),
        nix::trials(),
        faults::trials(),
        firewall::trials(),
        flake::trials(),
        relay::trials(),
        storm::trials(),
        systemd::trials(),
        e2e::trials(),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}
