//! 10 · What a person types: one file per verb, whose doc comment is its help. The only part that
//! prints: data goes to stdout, talk to stderr.

mod access;
mod apply;
mod colour;
mod complete;
mod completions;
mod config;
mod confinement;
mod doctor;
mod door;
mod gate;
mod guard;
mod enclosed;
mod events;
mod history;
mod man;
mod network;
mod plan;
mod relay;
mod repair;
mod ssh_config;
mod supervise;
mod table;
mod template;
mod ui;
mod units;
mod vm;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::error::{Error, Result};
use crate::host::{self, Dirs, Mode};
use crate::vm::Site;
use ui::Ui;

const GLOBAL: &str = "Global options";

/// Turns a template in a TOML file into a running, reachable virtual machine.
#[derive(Debug, Parser)]
#[command(name = "v", version, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 bad usage or config, 3 no such VM, template or network, \
                        4 refused in this state; of `v plan` also 10 something to do.")]
pub struct Cli {
    /// Put config, state and sockets below DIR, and touch nothing outside it (also: VIRSHLE_ROOT)
    #[arg(long, global = true, value_name = "DIR", value_hint = clap::ValueHint::DirPath, help_heading = GLOBAL)]
    root: Option<PathBuf>,

    /// Work on your own VMs, even where you are let in to the host's
    #[arg(long, global = true, conflicts_with = "root", help_heading = GLOBAL)]
    session: bool,

    /// Wider tables, and more talk
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = GLOBAL)]
    verbose: u8,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Virtual machines
    #[command(subcommand, arg_required_else_help = true)]
    Vm(vm::Command),
    /// Templates of the config file
    #[command(subcommand, arg_required_else_help = true)]
    Template(template::Command),
    /// Networks that VMs are plugged into
    #[command(subcommand, arg_required_else_help = true)]
    Network(network::Command),
    /// The config file
    #[command(subcommand, arg_required_else_help = true)]
    Config(config::Command),
    Plan(plan::Plan),
    Apply(apply::Apply),
    Events(events::Events),
    Doctor(doctor::Doctor),
    Repair(repair::Repair),
    SshConfig(ssh_config::SshConfig),
    Completions(completions::Completions),
    Man(man::Man),
    Units(units::Units),
    Relay(relay::Relay),
    #[command(hide = true)]
    Supervise(supervise::Supervise),
    #[command(hide = true)]
    Gate(gate::Gate),
}

/// The whole command line, for completions and manual pages.
pub fn command() -> clap::Command {
    Cli::command()
}

pub fn main() -> ExitCode {
    complete::answer_the_shell();
    let cli = match relay::ordered(Cli::parse()) {
        Ok(cli) => cli,
        Err(error) => return failure(&error, &Ui::new(0)),
    };
    let ui = match cli.command {
        Command::Supervise(_) | Command::Gate(_) | Command::Relay(_) => Ui::for_a_log(),
        _ => Ui::new(cli.verbose),
    };
    let done = relay::elsewhere(cli, &ui).and_then(|done| match done {
        ControlFlow::Break(code) => Ok(code),
        ControlFlow::Continue(cli) => run(cli, &ui),
    });
    done.map_or_else(|error| failure(&error, &ui), ExitCode::from)
}

fn failure(error: &Error, ui: &Ui) -> ExitCode {
    ui.error(error);
    ExitCode::from(error.kind().exit_code())
}

/// What any command may have open at once.
const DESCRIPTORS: usize = 16;

/// Ends with the exit code of a command that was done.
fn run(cli: Cli, ui: &Ui) -> Result<u8> {
    // Its environment is the hypervisor's: empty. It finds no folder, and needs none.
    if let Command::Gate(gate) = &cli.command {
        return gate.run().map(|()| 0);
    }
    host::check_descriptors(DESCRIPTORS)?;
    if cli.session && cli.root.is_some() {
        // One before the verb and one behind it: clap compares only what stands together.
        return Err(Error::usage("`--session` cannot be used with `--root`"));
    }
    let root = cli.root.or_else(|| root_of_environment().filter(|_| !cli.session));
    let site = Site::new(Dirs::find(root.as_deref())?);
    if cli.session && site.dirs.mode == Mode::System {
        return Err(Error::usage("root has no VMs of its own beside the host's").hint("leave `--session` out"));
    }
    match cli.command {
        Command::Vm(command) => vm::run(command, &site, ui),
        Command::Template(command) => template::run(command, &site, ui),
        Command::Network(command) => network::run(command, &site, ui),
        Command::Config(command) => config::run(command, &site, ui),
        Command::Plan(plan) => return plan.run(&site, ui),
        Command::Apply(apply) => apply.run(&site, ui),
        Command::Events(events) => events.run(&site, ui),
        Command::Doctor(doctor) => doctor.run(&site, ui),
        Command::Repair(repair) => repair.run(&site, ui),
        Command::SshConfig(command) => command.run(&site, ui),
        Command::Completions(completions) => completions.run(ui),
        Command::Man(man) => man.run(ui),
        Command::Units(units) => units.run(ui),
        Command::Relay(relay) => relay.run(&site),
        Command::Supervise(supervise) => supervise.run(&site),
        Command::Gate(gate) => gate.run(),
    }
    .map(|()| 0)
}

/// The root that the environment names; an empty one names none.
fn root_of_environment() -> Option<PathBuf> {
    std::env::var_os("VIRSHLE_ROOT").filter(|root| !root.is_empty()).map(PathBuf::from)
}

/// [`for_each`], each on a thread of its own: guests shut down side by side.
fn side_by_side<T: Send>(items: Vec<T>, ui: &Ui, act: impl Fn(T) -> Result<()> + Sync) -> Result<()> {
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let act = &act;
        let threads: Vec<_> = items.into_iter().map(|item| scope.spawn(move || act(item))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(Error::failed("a thread ended in a panic"))))
            .collect()
    });
    for_each(results, ui, |result| result)
}

/// Does `act` for each, tells every failure, and ends with the first one's exit code.
fn for_each<T>(items: Vec<T>, ui: &Ui, mut act: impl FnMut(T) -> Result<()>) -> Result<()> {
    let mut failures: Vec<Error> = items.into_iter().filter_map(|item| act(item).err()).collect();
    if failures.len() > 1 {
        let last = failures.split_off(failures.len() - 1);
        failures.iter().for_each(|failure| ui.error(failure));
        let kind = failures[0].kind();
        return Err(last.into_iter().next().map_or_else(|| Error::failed("failed"), |error| error.with_kind(kind)));
    }
    failures.pop().map_or(Ok(()), Err)
}
