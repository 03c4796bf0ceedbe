//! `ip` of iproute2: what it says of a device, and changes for which there is no plain ioctl.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;

use crate::error::{Error, OrFailed, Result};
use crate::host::{NetDevice, Program, ProgramError, find_program};

/// It asks the kernel and nobody else.
const DEADLINE: Duration = Duration::from_secs(10);

/// A network device as `ip -j address show` prints it; what else it prints does not matter here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Device {
    pub(super) ifname: String,
    #[serde(default)]
    pub(super) master: Option<String>,
    /// Not in what `ip address` prints.
    #[serde(default)]
    pub(super) ifalias: Option<String>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    pub(super) addr_info: Vec<Assigned>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Assigned {
    local: IpAddr,
    prefixlen: u8,
    scope: String,
}

impl Device {
    /// Down, and without addresses.
    pub(super) fn is_bare(&self) -> bool {
        self.addr_info.is_empty() && !self.flags.iter().any(|flag| flag == "UP")
    }

    /// Its addresses beyond those that the kernel gives every device.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpNet> {
        let own = self.addr_info.iter().filter(|assigned| assigned.scope != "link" || assigned.local.is_ipv4());
        own.filter_map(|assigned| IpNet::new(assigned.local, assigned.prefixlen).ok())
    }
}

/// Refuses to begin where the program is missing.
pub fn check_program() -> Result<()> {
    match find_program("ip") {
        Some(_) => Ok(()),
        None => Err(missing()),
    }
}

fn missing() -> Error {
    Error::failed("`ip` is not installed")
        .hint("install the package iproute2; if it is there, see that /usr/sbin is in PATH (`su -`, not `su`)")
}

/// `None`: there is no such device.
pub(super) fn device(name: &str) -> Result<Option<Device>> {
    if NetDevice::find(name).or_failed(|| format!("cannot look for `{name}`"))?.is_none() {
        return Ok(None);
    }
    let found = parse(&ip(["-json", "address", "show", "dev", name])?)?;
    Ok(found.into_iter().find(|device| device.ifname == name))
}

/// What somebody has written to a device; `None`: nothing, or there is no such device.
pub(super) fn alias(name: &str) -> Result<Option<String>> {
    if NetDevice::find(name).or_failed(|| format!("cannot look for `{name}`"))?.is_none() {
        return Ok(None);
    }
    Ok(parse(&ip(["-json", "link", "show", "dev", name])?)?.into_iter().find_map(|device| device.ifalias))
}

/// Whether anything is plugged into the bridge.
pub(super) fn has_ports(bridge: &str) -> Result<bool> {
    Ok(!parse(&ip(["-json", "link", "show", "master", bridge])?)?.is_empty())
}

/// Every Linux bridge.
pub(super) fn bridges() -> Result<Vec<Device>> {
    parse(&ip(["-json", "link", "show", "type", "bridge"])?)
}

fn parse(text: &str) -> Result<Vec<Device>> {
    // It prints nothing at all, or an empty object, for what is not there.
    let rows: Vec<serde_json::Value> = match text.trim() {
        "" => Vec::new(),
        text => serde_json::from_str(text).or_failed(|| "`ip` gave an answer that cannot be read".to_owned())?,
    };
    rows.into_iter()
        .filter(|row| row.get("ifname").is_some())
        .map(|row| serde_json::from_value(row).or_failed(|| "`ip` gave an answer that cannot be read".to_owned()))
        .collect()
}

/// Runs it; what it wrote to stdout.
pub(in crate::network) fn ip(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<String> {
    match Program::new("ip").args(args).deadline(DEADLINE).run() {
        Ok(output) => Ok(output.text()),
        Err(ProgramError::Missing { .. }) => Err(missing()),
        Err(error) => {
            let denied =
                matches!(&error, ProgramError::Failed { stderr, .. } if stderr.contains("Operation not permitted"));
            let error = Error::failed("the kernel's network could not be set").source(error);
            Err(if denied { error.hint("run as root, or use a network of type `user`") } else { error })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ip_prints() {
        let text = r#"[{"ifindex":3,"ifname":"br0","flags":["BROADCAST","UP"],"mtu":1500,"master":"br9","operstate":"UP",
            "link_type":"ether","address":"02:00:00:00:00:01","ifalias":"virshle /var/lib/virshle",
            "addr_info":[{"family":"inet","local":"10.44.0.1","prefixlen":24,"scope":"global","label":"br0"},
            {"family":"inet","local":"169.254.3.4","prefixlen":16,"scope":"link"},
            {"family":"inet6","local":"fd00::1","prefixlen":64,"scope":"global"},
            {"family":"inet6","local":"fe80::1","prefixlen":64,"scope":"link"}]},{}]"#;
        let found = parse(text).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].master.as_deref(), Some("br9"));
        assert_eq!(found[0].ifalias.as_deref(), Some("virshle /var/lib/virshle"));
        let addresses: Vec<String> = found[0].addresses().map(|net| net.to_string()).collect();
        assert_eq!(addresses, ["10.44.0.1/24", "169.254.3.4/16", "fd00::1/64"]);
        assert!(parse("").unwrap().is_empty());
        assert!(parse("not json").is_err());
    }
}
