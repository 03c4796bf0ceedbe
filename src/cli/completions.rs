use clap::Args;
use clap_complete::env::Shells;

use super::ui::Ui;
use crate::error::{Error, OrFailed, Result};

/// Print a shell's completion script
///
/// It offers the names of VMs and templates as they are at that moment.
///
/// bash: `source <(v completions bash)` in ~/.bashrc. zsh: `source <(v completions zsh)`.
/// fish: `v completions fish | source`.
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// bash, zsh, fish, elvish or powershell
    #[arg(value_parser = ["bash", "zsh", "fish", "elvish", "powershell"])]
    shell: String,
}

impl Completions {
    pub(super) fn run(&self, ui: &Ui) -> Result<()> {
        let shells = Shells::builtins();
        let shell = shells
            .completer(&self.shell)
            .ok_or_else(|| Error::usage(format!("no completions for the shell `{}`", self.shell)))?;
        let mut script = Vec::new();
        shell
            .write_registration("COMPLETE", "v", "v", "v", &mut script)
            .or_failed(|| "cannot write the completion script".to_owned())?;
        ui.data(String::from_utf8_lossy(&script));
        Ok(())
    }
}
