//! This host's own addresses on a network.

use ipnet::IpNet;

use super::ip::{self, ip};
use crate::error::Result;
use crate::spec::{HostSide, NetworkSpec};

fn wanted(host: &HostSide) -> Vec<IpNet> {
    std::iter::once(IpNet::from(host.address)).chain(host.address6.map(IpNet::from)).collect()
}

/// What `ip` is told for one address: `replace` changes nothing where it is there already.
fn assign<'a>(address: &'a str, device: &'a str, is_v6: bool) -> Vec<&'a str> {
    let head = ["address", "replace", address, "dev", device];
    // On a bridge without a port nobody would ever say that the address is free.
    let tail: &[&str] = if is_v6 { &["nodad"] } else { &["broadcast", "+"] };
    head.iter().chain(tail).copied().collect()
}

/// Gives the network's device this host's addresses.
pub fn give_addresses(spec: &NetworkSpec) -> Result<()> {
    let Some(host) = &spec.host else { return Ok(()) };
    let device = spec.device();
    for address in wanted(host) {
        ip(assign(&address.to_string(), &device, address.addr().is_ipv6()))?;
    }
    Ok(())
}

/// Takes them off again, where they are.
pub fn take_addresses(spec: &NetworkSpec) -> Result<()> {
    let Some(host) = &spec.host else { return Ok(()) };
    let name = spec.device();
    let Some(device) = ip::device(&name)? else { return Ok(()) };
    let there: Vec<IpNet> = device.addresses().collect();
    for address in wanted(host).into_iter().filter(|address| there.contains(address)) {
        ip(["address", "delete", &address.to_string(), "dev", &name])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ip_is_told() {
        let v4 = assign("10.44.0.1/24", "br0", false).join(" ");
        assert_eq!(v4, "address replace 10.44.0.1/24 dev br0 broadcast +");
        let v6 = assign("fd00::1/64", "br0", true).join(" ");
        assert_eq!(v6, "address replace fd00::1/64 dev br0 nodad");
    }
}
