use std::path::PathBuf;

use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::host::Mode;
use crate::network::ovs::Ovs;
use crate::spec::Name;
use crate::store::Store;
use crate::vm::Site;

/// What every change of a network needs.
#[derive(Debug)]
pub(super) struct Work<'a> {
    pub(super) site: &'a Site,
    pub(super) store: Store,
    pub(super) ovs: Ovs,
    /// `None`: it is wrong, which is no reason to leave a network as it is.
    pub(super) config: Option<Config>,
}

impl<'a> Work<'a> {
    pub(super) fn new(site: &'a Site, config: Option<&Config>) -> Result<Self> {
        let config = config.cloned().or_else(|| site.config().ok());
        let ovs = config.as_ref().map_or_else(|| Ovs::new(None).for_state(&site.dirs.state), |config| site.ovs(config));
        Ok(Self { site, store: site.store()?, ovs, config })
    }
}

impl Site {
    /// Where the files of a network's name server are.
    pub(in crate::vm) fn network_run(&self, network: &Name) -> PathBuf {
        self.dirs.runtime.join("net").join(network.as_str())
    }

    /// The name of the firewall's tables: each root has its own.
    pub(in crate::vm) fn firewall_table(&self) -> String {
        if self.dirs.mode != Mode::Rooted {
            return "virshle".to_owned();
        }
        let digest = Sha256::digest(self.dirs.state.as_os_str().as_encoded_bytes());
        let hex: String = digest[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("virshle_{hex}")
    }
}

/// Only root makes bridges.
pub(super) fn check_root(name: &Name) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Error::refused(format!("network `{name}` cannot be brought up"))
        .source(Error::failed("only root makes bridges, addresses and firewall rules"))
        .hint(format!("`sudo v network up {name}` makes it on the host; without root use a network of type `user`")))
}
