use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};

use super::start;
use crate::cli::complete;
use crate::cli::enclosed::Enclosed;
use crate::cli::ui::Ui;
use crate::error::{Error, Result};
use crate::host::{self, Cancel};
use crate::spec::{Forward, Label, Name, Size, VmSpec};
use crate::template::{self, Overrides, UserData};
use crate::vm::{self, Part, Site};

/// Make VMs from a template: all of them, or none
///
/// Without `-u`, the guest gets a user with your name and your public keys (~/.ssh/*.pub).
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The template's name
    #[arg(short, long, add = complete::template_names())]
    template: String,
    /// The VM's name, a DNS label; made up when not given. With --count: NAME-1, NAME-2, …
    #[arg(short, long)]
    name: Option<Name>,
    /// How many, 1 to 1000
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = count)]
    count: u32,
    /// Users and keys (TOML), or raw cloud-init user-data; may be given more than once
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    user_data: Vec<PathBuf>,
    /// Another number of vCPUs than the template's
    #[arg(long, value_name = "N", value_parser = whole)]
    vcpu: Option<u32>,
    /// Another memory size than the template's: `2` (GiB), `512MiB`
    #[arg(long, value_name = "SIZE")]
    vram: Option<Size>,
    /// The address of its NIC on the network whose subnet has it; one VM only
    #[arg(long, value_name = "IP")]
    address: Option<Ipv4Addr>,
    /// A port of this host that leads to one of the guest's, beside the template's own:
    /// `8080:80`, `127.0.0.1:2222:22/tcp`, `5353:53/udp`; may be given more than once
    #[arg(long = "port", value_name = "FORWARD")]
    ports: Vec<Forward>,
    /// A note like `role=db`; may be given more than once
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<Label>,
    /// Start them too
    #[arg(long)]
    start: bool,
    /// What the caller's files hold, when this process runs for another one and opens none itself.
    #[arg(skip)]
    enclosed: Option<Enclosed>,
}

impl Create {
    /// Reads what the command line names, for one who runs the command without reading it.
    pub(crate) fn enclose(&self) -> Result<Vec<u8>> {
        let (users, parts) = vm::user_data(&self.user_data)?;
        Enclosed::new(users, parts).to_bytes()
    }

    /// From now on no file is opened: what they hold is here.
    pub(crate) fn take_enclosed(&mut self, bytes: &[u8]) -> Result<()> {
        self.enclosed = Some(Enclosed::from_bytes(bytes)?);
        Ok(())
    }

    pub(super) fn run(self, site: &Site, ui: &Ui) -> Result<()> {
        let (users, parts) = match self.enclosed {
            Some(enclosed) => enclosed.open(),
            None => vm::user_data(&self.user_data)?,
        };
        let keyless = is_keyless(&users, &parts);
        let config = site.config()?;
        let request = vm::Create {
            template: template::find(&config, &self.template)?.clone(),
            name: self.name,
            count: self.count,
            overrides: Overrides {
                vcpu: self.vcpu,
                vram: self.vram,
                address: self.address,
                ports: self.ports,
                labels: self.labels,
            },
            users,
            parts,
            declared: None,
        };
        let specs = vm::create(site, &config, &request, &Cancel::on_interrupt(), &ui.progress())?;
        for spec in &specs {
            let next = if self.start { String::new() } else { format!("; start it with `v vm start {}`", spec.name) };
            ui.say(format!("{}{next}", created(spec)));
            ui.answer(spec.name.as_str());
        }
        if let (Some(spec), Some(memory)) = (specs.first(), host::memory_size())
            && spec.vram.bytes() > memory
        {
            ui.say(format!("note: {} of memory is more than this host's {}", spec.vram, Size::mib(memory / Size::MIB)));
        }
        if keyless {
            ui.say(keyless_note("name users with `-u`"));
        }
        if !self.start {
            return Ok(());
        }
        let mut store = site.store()?;
        let records = specs
            .iter()
            .map(|spec| store.get(spec.uuid)?.ok_or_else(|| Error::not_found(format!("`{}` is gone", spec.name))))
            .collect::<Result<Vec<_>>>()?;
        start::start_all(site, &mut store, records, Duration::from_secs(60), None, ui)
    }
}

/// `or`: how else somebody could.
pub(in crate::cli) fn keyless_note(or: &str) -> String {
    format!("note: no ssh key was found for the guest; make one with `ssh-keygen`, or {or}")
}

/// Whether nobody could log in by ssh.
pub(in crate::cli) fn is_keyless(users: &UserData, parts: &[Part]) -> bool {
    parts.is_empty() && users.users.iter().all(|user| user.ssh.authorized_keys.is_empty())
}

/// What was made, in a line.
pub(in crate::cli) fn created(spec: &VmSpec) -> String {
    let forwards = spec.nics.iter().flat_map(|nic| &nic.forwards).map(|forward| format!(", {forward}"));
    let address = spec.address().map(|address| format!(", {address}")).into_iter().chain(forwards);
    let address = address.collect::<String>();
    format!("created `{}` (number {}, on {}{address})", spec.name, spec.number, spec.hypervisor)
}

fn whole(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("`{}` is not a whole number", text.escape_debug()))
}

fn count(text: &str) -> Result<u32, String> {
    whole(text).and_then(|count| match count {
        1..=1000 => Ok(count),
        _ => Err("1 to 1000 can be made at once".to_owned()),
    })
}
