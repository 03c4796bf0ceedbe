//! A guest that uses an address and a MAC that are not its own: what it tells the host then is not
//! heard.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::side::Side;
use crate::fixtures::echo::Echo;
use crate::world::eventually;

/// Where the host hears what a guest tells.
const HEARING: u16 = 9009;

/// Whom a guest takes itself for.
pub struct Lie {
    pub ip: Ipv4Addr,
    pub ip6: Ipv6Addr,
    pub mac: String,
}

impl Side<'_> {
    /// It takes that address, then that MAC, then both, and is itself again. It needs talk.py.
    pub fn lies(&self, lie: &Lie) {
        let hearing = Echo::serve(HEARING).expect("a server");
        self.said(&login(self, lie));
        let heard = || hearing.heard().into_iter().map(|(_, words)| words).collect::<Vec<_>>();
        eventually("it is honest again", Duration::from_secs(180), || heard().contains(&"honest-again-6".to_owned()));
        let mut told = heard();
        told.sort();
        told.dedup();
        assert_eq!(told, ["honest", "honest-6", "honest-again", "honest-again-6"], "nothing else got through");
        for (from, words) in hearing.heard() {
            assert!([IpAddr::from(self.ip), IpAddr::from(self.ip6)].contains(&from), "{words} from {from}");
        }
    }
}

fn login(guest: &Side<'_>, lie: &Lie) -> String {
    let script = format!(
        r#"dev=$(ip -o link | awk -F': ' '/{own_mac}/ {{ print $2 }}')
ping -c 1 -W 5 {gateway} >/dev/null
gw=$(ip neigh show {gateway} dev $dev | awk '{{ for (i = 1; i < NF; i++) if ($i == "lladdr") print $(i + 1) }}')
systemctl stop systemd-networkd.socket systemd-networkd
tell() {{ talk.py tell {gateway} {HEARING} "$1"; talk.py tell {gateway6} {HEARING} "$1-6"; }}
# To the host's own MAC, whatever ARP says.
known() {{ ip neigh replace {gateway} lladdr $gw dev $dev; ip -6 neigh replace {gateway6} lladdr $gw dev $dev; }}
own() {{
  ip address flush dev $dev scope global
  ip address add {own}/24 dev $dev; ip address add {own6}/64 dev $dev nodad
  known
}}
others() {{
  ip address flush dev $dev scope global
  ip address add {other}/24 dev $dev; ip address add {other6}/64 dev $dev nodad
  known
}}
tell honest
others
tell address
# ARP and neighbour discovery in the neighbour's name.
ip neigh flush dev $dev nud permanent
ping -c 2 -W 1 {gateway} >/dev/null
ping -c 2 -W 1 {gateway6} >/dev/null
ip link set $dev address {other_mac}
own
tell mac
others
tell both
ip link set $dev address {own_mac}
own
tell honest-again
systemctl start systemd-networkd
"#,
        own_mac = guest.mac,
        own = guest.ip,
        own6 = guest.ip6,
        other = lie.ip,
        other6 = lie.ip6,
        other_mac = lie.mac,
        gateway = guest.gateway,
        gateway6 = guest.gateway6,
    );
    // As a unit: the login that starts it may lose its line to the guest's lies.
    format!("sudo tee /run/lie >/dev/null <<'END'\n{script}END\nsudo systemd-run --quiet sh /run/lie")
}
