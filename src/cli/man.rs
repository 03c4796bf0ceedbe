use std::path::{Path, PathBuf};

use clap::Args;
use clap_mangen::Man as Page;

use super::ui::Ui;
use crate::error::{OrFailed, Result};

/// Print the manual page, or write one for each command into a folder
///
/// Read it with `v man | man -l -`.
#[derive(Debug, Args)]
pub(super) struct Man {
    /// Write `v.1`, `v-vm.1`, `v-vm-create.1`, … into DIR
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Man {
    pub(super) fn run(&self, ui: &Ui) -> Result<()> {
        let mut command = super::command();
        command.build();
        match &self.dir {
            None => ui.data(render(command)?),
            Some(dir) => {
                std::fs::create_dir_all(dir).or_failed(|| format!("cannot make `{}`", dir.display()))?;
                write_tree(dir, "v", command)?;
            }
        }
        Ok(())
    }
}

fn render(command: clap::Command) -> Result<String> {
    let mut page = Vec::new();
    let version = format!("virshle {}", env!("CARGO_PKG_VERSION"));
    Page::new(command)
        .source(version)
        .manual("Virshle manual")
        .render(&mut page)
        .or_failed(|| "cannot write the manual page".to_owned())?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

fn write_tree(dir: &Path, name: &str, command: clap::Command) -> Result<()> {
    let shown = |command: &&clap::Command| !command.is_hide_set() && command.get_name() != "help";
    for inner in command.get_subcommands().filter(shown) {
        write_tree(dir, &format!("{name}-{}", inner.get_name()), inner.clone())?;
    }
    let path = dir.join(format!("{name}.1"));
    let page = render(command.display_name(name))?;
    std::fs::write(&path, page).or_failed(|| format!("cannot write `{}`", path.display()))
}
