//! `v vm …`: one file per verb.

mod autostart;
mod console;
mod create;
mod delete;
mod export;
mod history;
mod info;
mod log;
mod ls;
mod pause;
mod policy;
mod protect;
mod rename;
mod restart;
mod select;
mod show_launch;
mod ssh;
mod ssh_proxy;
mod start;
mod stop;
mod wait;

pub(super) use create::{created, is_keyless, keyless_note};
pub(super) use ls::tone;
pub(super) use ssh_proxy::Host;
pub(super) use start::started;
pub(super) use stop::stopped;

use clap::Subcommand;

use super::ui::Ui;
use crate::error::Result;
use crate::vm::Site;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Create(create::Create),
    #[command(visible_alias = "list")]
    Ls(ls::Ls),
    Info(info::Info),
    Start(start::Start),
    Stop(stop::Stop),
    Restart(restart::Restart),
    Autostart(autostart::Autostart),
    Pause(pause::Pause),
    Resume(pause::Resume),
    Rename(rename::Rename),
    Protect(protect::Protect),
    Export(export::Export),
    #[command(visible_alias = "rm")]
    Delete(delete::Delete),
    Console(console::Console),
    Log(log::Log),
    History(history::History),
    Ssh(ssh::Ssh),
    #[command(hide = true)]
    SshTarget(ssh::SshTarget),
    #[command(hide = true)]
    SshProxy(ssh_proxy::SshProxy),
    #[command(hide = true)]
    SshHosts(ssh_proxy::SshHosts),
    Wait(wait::Wait),
    ShowLaunch(show_launch::ShowLaunch),
}

pub(super) fn run(command: Command, site: &Site, ui: &Ui) -> Result<()> {
    match command {
        Command::Create(command) => command.run(site, ui),
        Command::Ls(command) => command.run(site, ui),
        Command::Info(command) => command.run(site, ui),
        Command::Start(command) => command.run(site, ui),
        Command::Stop(command) => command.run(site, ui),
        Command::Restart(command) => command.run(site, ui),
        Command::Autostart(command) => command.run(site, ui),
        Command::Pause(command) => command.run(site, ui),
        Command::Resume(command) => command.run(site, ui),
        Command::Rename(command) => command.run(site, ui),
        Command::Protect(command) => command.run(site, ui),
        Command::Export(command) => command.run(site, ui),
        Command::Delete(command) => command.run(site, ui),
        Command::Console(command) => command.run(site, ui),
        Command::Log(command) => command.run(site, ui),
        Command::History(command) => command.run(site, ui),
        Command::Ssh(command) => command.run(site, ui),
        Command::SshTarget(command) => command.run(site, ui),
        Command::SshProxy(command) => command.run(site),
        Command::SshHosts(command) => command.run(site, ui),
        Command::Wait(command) => command.run(site, ui),
        Command::ShowLaunch(command) => command.run(site, ui),
    }
}
