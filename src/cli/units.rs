use std::path::{Path, PathBuf};

use clap::Args;

use super::ui::Ui;
use crate::error::{Error, OrFailed, Result};
use crate::host;

/// Print the units that run VMs under systemd, or write them into a folder
///
/// A package brings them. Without one: `v units --dir /etc/systemd/system`, then `systemctl
/// daemon-reload`, then `systemctl enable virshle-autostart` for the VMs that start with the host,
/// `systemctl enable virshle-apply` for those that the config declares to be there when it is up, and `systemctl enable --now virshle.socket` for the members of the group `virshle`. They run the
/// program that wrote them.
#[derive(Debug, Args)]
pub(super) struct Units {
    /// Write `virshle-vm@.service` and those beside it into DIR
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// As they are packaged.
const FILES: [(&str, &str); 9] = [
    ("virshle-vm@.service", include_str!("../../packaging/systemd/virshle-vm@.service")),
    ("virshle-network@.service", include_str!("../../packaging/systemd/virshle-network@.service")),
    ("virshle-networks.target", include_str!("../../packaging/systemd/virshle-networks.target")),
    ("virshle.slice", include_str!("../../packaging/systemd/virshle.slice")),
    ("virshle-shutdown.service", include_str!("../../packaging/systemd/virshle-shutdown.service")),
    ("virshle.socket", include_str!("../../packaging/systemd/virshle.socket")),
    ("virshle@.service", include_str!("../../packaging/systemd/virshle@.service")),
    ("virshle-apply.service", include_str!("../../packaging/systemd/virshle-apply.service")),
    ("virshle-autostart.service", include_str!("../../packaging/systemd/virshle-autostart.service")),
];
const PROGRAM: &str = "/usr/bin/v ";

impl Units {
    pub(super) fn run(&self, ui: &Ui) -> Result<()> {
        let program = host::own_program().or_failed(|| "cannot find this program's own path".to_owned())?;
        for (name, text) in FILES {
            let text = running(text, &program)?;
            match &self.dir {
                None => ui.data(format!("# {name}\n{text}")),
                Some(dir) => {
                    let path = dir.join(name);
                    std::fs::write(&path, text).or_failed(|| format!("cannot write `{}`", path.display()))?;
                }
            }
        }
        Ok(())
    }
}

/// The unit with another program than the packaged one.
fn running(text: &str, program: &Path) -> Result<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._+-".contains(c);
    match program.to_str().filter(|path| path.chars().all(plain)) {
        Some(path) => Ok(text.replace(PROGRAM, &format!("{path} "))),
        None => Err(Error::failed(format!("a unit cannot name `{}`", program.display()))
            .hint("put `v` where its path has letters, digits and `._+-` only")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_run_the_program_that_wrote_them() {
        for (name, text) in FILES {
            let text = running(text, Path::new("/opt/virshle-1.2/v")).unwrap();
            assert!(!text.contains("/usr/bin/v"), "{name}");
            assert_eq!(text.contains("=/opt/virshle-1.2/v "), name.ends_with(".service"), "{name}");
        }
        assert!(running("", Path::new("/opt/my 100%/v")).is_err());
    }
}
