use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ssh;
use crate::cli::ui::Ui;
use crate::error::{Error, OrFailed, Result};
use crate::host;
use crate::spec::Name;
use crate::store::Store;
use crate::vm::{self, Site};

/// What a name begins with where ssh takes it for a host's.
pub(in crate::cli) const PREFIX: &str = "vm/";
const SSH: u16 = 22;
/// A guest that boots answers late.
const DEADLINE: Duration = Duration::from_secs(30);

/// Pass a connection to a VM's ssh server to the ssh that runs this (its `ProxyUseFdpass`)
#[derive(Debug, Args)]
pub(crate) struct SshProxy {
    /// A name, a number, or a uuid, with or without `vm/` before it
    vm: String,
}

/// Print the VMs that an ssh configuration is about, as JSON (asked by the `v` of one who is not root)
#[derive(Debug, Args)]
pub(crate) struct SshHosts {}

/// What an ssh configuration says of a VM.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Host {
    pub(in crate::cli) uuid: Uuid,
    pub(in crate::cli) name: Name,
    pub(in crate::cli) login: Option<String>,
}

impl SshProxy {
    pub(super) fn run(self, site: &Site) -> Result<()> {
        let record = ssh::running(site, self.vm.strip_prefix(PREFIX).unwrap_or(&self.vm))?;
        let stream = vm::reach(site, &record, SSH, DEADLINE)?;
        let ssh = io::stdout().as_fd().try_clone_to_owned().or_failed(|| "cannot use standard output".to_owned())?;
        let sent = host::send_with(&UnixStream::from(ssh), &[0], &[stream.as_fd()]);
        match sent {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::usage("standard output takes no connection")
                .source(error)
                .hint("`v vm ssh-proxy` is run by ssh itself, as `v ssh-config` tells it")),
        }
    }
}

impl SshHosts {
    pub(super) fn run(&self, site: &Site, ui: &Ui) -> Result<()> {
        ui.data(serde_json::to_string(&Host::all(site)?).or_failed(|| "cannot write JSON".into())?);
        Ok(())
    }
}

impl Host {
    /// Every VM, in the order of their numbers.
    pub(in crate::cli) fn all(site: &Site) -> Result<Vec<Self>> {
        let records = Store::open_read_only(&site.dirs.database())?.map_or(Ok(Vec::new()), |store| store.list())?;
        let of = |spec: crate::spec::VmSpec| Self { uuid: spec.uuid, name: spec.name, login: spec.login };
        Ok(records.into_iter().map(|record| of(record.spec)).collect())
    }
}
