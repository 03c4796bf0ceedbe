//! What a network looks like from this host: who has an address, how names are known, and what the
//! host's own firewall keeps out. It asks programs, so it may take a moment.

use super::hosts::hosts_file;
use crate::error::Result;
pub use crate::network::dnsmasq::Lease;
use crate::network::{dnsmasq, firewall, names};
use crate::spec::NetworkSpec;
use crate::vm::Site;

#[derive(Debug, Clone, Default)]
pub struct Around {
    pub leases: Vec<Lease>,
    pub names: Option<String>,
    pub obstacles: Vec<String>,
}

/// What cannot be seen is left out, with a word in the log.
pub fn around(site: &Site, spec: &NetworkSpec) -> Around {
    if spec.host.is_none() {
        return Around::default();
    }
    Around {
        leases: seen("the leases", dnsmasq::leases(&site.network_run(&spec.name))).unwrap_or_default(),
        names: Some(how(site, spec)),
        obstacles: seen("the host's firewall", firewall::obstacles(spec)).unwrap_or_default(),
    }
}

fn how(site: &Site, spec: &NetworkSpec) -> String {
    match (names::how(spec), hosts_file(site, site.config().ok().as_ref(), spec)) {
        (_, Some(file)) => format!("in `{}`", file.display()),
        (names::How::Resolved, None) => "by systemd-resolved".to_owned(),
        (_, None) => "this host does not know them; `ssh vm/NAME` works (`v ssh-config`)".to_owned(),
    }
}

fn seen<T>(what: &str, looked: Result<T>) -> Option<T> {
    looked.inspect_err(|error| tracing::warn!(error = %error.chain().join(": "), "could not look at {what}")).ok()
}
