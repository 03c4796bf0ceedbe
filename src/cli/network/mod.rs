//! `v network …`: one file per verb.

mod down;
mod info;
mod ls;
mod repair;
mod select;
mod up;

use clap::Subcommand;

use super::ui::Ui;
use crate::error::Result;
use crate::vm::Site;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    #[command(visible_alias = "list")]
    Ls(ls::Ls),
    Info(info::Info),
    Up(up::Up),
    Down(down::Down),
    Repair(repair::Repair),
}

pub(super) fn run(command: Command, site: &Site, ui: &Ui) -> Result<()> {
    match command {
        Command::Ls(command) => command.run(site, ui),
        Command::Info(command) => command.run(site, ui),
        Command::Up(command) => command.run(site, ui),
        Command::Down(command) => command.run(site, ui),
        Command::Repair(command) => command.run(site, ui),
    }
}
