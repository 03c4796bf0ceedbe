//! Open vSwitch, through `ovs-vsctl`: an argv under a deadline, one transaction per change, JSON
//! back. The switch's database is the truth about ports; nothing of it is remembered elsewhere.
//!
//! ```text
//!  no row ──add──► row in the database ──ovs-vswitchd acts──► opened ──the guest's side──► link up
//!     ▲                   │ nobody acts in 5 s                    │
//!     └──── withdrawn ◄───┴────── it cannot be opened ◄───────────┘
//! ```
//!
//! A change waits until `ovs-vswitchd` has acted on it; a port or bridge that does not come up is
//! taken out of the database again and is an error. A port's row names its VM in `external_ids`;
//! a row that names no VM, or another one, is never replaced or removed.
//!
//! [`follow`] tells how ports stand while nobody asks: over a connection to the database itself.
//!
//! What may fail: `ovs-vsctl` missing, the database unreachable, `ovs-vswitchd` dead or hanging,
//! the bridge missing or of the wrong datapath, DPDK off, the port taken.

mod answer;
mod daemon;
mod flows;
mod guard;
mod keep;
mod monitor;
mod ofctl;
mod vsctl;
mod watch;

use std::path::Path;

use uuid::Uuid;

use crate::error::{Error, Result};
use crate::host::{Cancel, Output, Program, ProgramError};
use crate::spec::Mac;
pub use monitor::{Sight, Sightings};
use vsctl::{Failure, checked, checked_socket, equals};
pub use watch::follow;

const VM_KEY: &str = "virshle-vm";
const NAME_KEY: &str = "virshle-name";
const STATE_KEY: &str = "virshle-state";
const NETWORK_KEY: &str = "virshle-network";
const GUARD_KEY: &str = "virshle-guard";
const VHOST: &str = "dpdkvhostuserclient";

/// The switch behind one database socket.
#[derive(Debug, Clone, Default)]
pub struct Ovs {
    db: Option<String>,
    cancel: Cancel,
    /// The state folder of the store whose ports are made, so that no other store collects them.
    state: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    pub name: String,
    pub datapath: Datapath,
}

/// Where a bridge's frames are switched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Datapath {
    /// In the kernel, by its module `openvswitch`.
    System,
    /// In `ovs-vswitchd`; the only one that has vhost-user ports.
    Netdev,
    Other(String),
}

impl Datapath {
    pub fn as_str(&self) -> &str {
        match self {
            Datapath::System => "system",
            Datapath::Netdev => "netdev",
            Datapath::Other(name) => name,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dpdk {
    pub initialized: bool,
    /// None: this Open vSwitch is built without DPDK.
    pub version: Option<String>,
}

/// Whose port it is; goes into `external_ids`.
#[derive(Debug, Clone, Copy)]
pub struct Tag<'a> {
    pub vm: Uuid,
    pub vm_name: &'a str,
    pub mac: Mac,
}

/// What a port does with frames.
#[derive(Debug, Clone, Copy, Default)]
pub struct Line {
    /// In bytes; the switch's own when not given.
    pub mtu: Option<u16>,
    /// The VLAN that it is an access port of.
    pub vlan: Option<u16>,
    /// The number that its guard's flows know it by, from [`Ovs::guard`].
    pub number: Option<u16>,
}

/// A port in the database and what it says about its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub port: String,
    pub bridge: String,
    /// None: made by something else.
    pub vm: Option<Uuid>,
    pub vm_name: Option<String>,
    /// The state folder of the store that made it; an earlier version did not say.
    pub state: Option<String>,
    /// Its number in the switch, if it has a guard.
    pub guard: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortState {
    /// Empty for a network device of the host.
    pub kind: String,
    /// The switch's number for it; none: it is not opened.
    pub number: Option<u16>,
    pub error: Option<String>,
    pub link_up: Option<bool>,
    /// The socket of a vhost-user port.
    pub socket: Option<String>,
}

impl PortState {
    /// Why the port does not work, if it does not.
    pub fn failure(&self) -> Option<String> {
        match &self.error {
            None if self.number.is_some_and(|number| number > 0) => None,
            None => Some("`ovs-vswitchd` did not open it; its log says why".to_owned()),
            Some(error) => Some(error.clone()),
        }
    }
}

/// A port as it is wanted.
struct Wanted<'a> {
    bridge: &'a str,
    port: &'a str,
    socket: Option<&'a str>,
    tag: &'a Tag<'a>,
    line: Line,
}

impl Ovs {
    /// `db` as in `ovs-vsctl --db`: `unix:/run/openvswitch/db.sock`; without one, the default.
    pub fn new(db: Option<String>) -> Self {
        Self { db, state: None, cancel: Cancel::default() }
    }

    /// The same switch, whose calls are given up once `cancel` is set.
    #[must_use]
    pub fn until(&self, cancel: &Cancel) -> Self {
        Self { cancel: cancel.clone(), ..self.clone() }
    }

    /// The same, marking the ports that it adds as those of the store in the folder `state`.
    #[must_use]
    pub fn for_state(self, state: &Path) -> Self {
        Self { state: Some(state.display().to_string()), ..self }
    }

    /// Whether the store this is for made the port; `None` when the port does not say.
    pub fn is_ours(&self, owner: &Owner) -> Option<bool> {
        owner.state.as_ref().map(|state| self.state.as_ref() == Some(state))
    }

    /// The version of the installed program.
    pub fn version(&self) -> Result<String> {
        let output = Program::new("ovs-vsctl").arg("--version").run();
        let output = output.map_err(|error| Failure::Program(error).into_error(None))?;
        answer::parse_version(&output.text()).map_err(unreadable)
    }

    pub fn bridge(&self, name: &str) -> Result<Option<Bridge>> {
        let name = equals("name", checked("bridge", name)?);
        self.read(&["--columns=name,datapath_type", "find", "Bridge", &name], answer::parse_bridge)
    }

    pub fn dpdk(&self) -> Result<Dpdk> {
        self.read(&["--columns=dpdk_initialized,dpdk_version", "list", "Open_vSwitch"], answer::parse_dpdk)
    }

    /// Whether this kernel has the module of the `system` datapath.
    pub fn can_system_datapath(&self) -> bool {
        Path::new("/sys/module/openvswitch").exists()
    }

    /// Adds a bridge. One that another process added meanwhile, of the same datapath, is as good.
    pub fn add_bridge(&self, name: &str, datapath: &Datapath) -> Result<()> {
        let name = checked("bridge", name)?;
        let datapath_type = equals("datapath_type", datapath.as_str());
        match self.run(&["add-br", name, "--", "set", "Bridge", name, &datapath_type]) {
            Ok(_) => {}
            Err(Failure::Timeout) => return Err(self.withdraw("del-br", name, self.not_acted_on("bridge", name))),
            Err(failure) => match self.bridge(name)? {
                Some(found) if found.datapath == *datapath => return Ok(()),
                _ => return Err(self.error(failure).context(format!("cannot add the bridge `{name}`"))),
            },
        }
        let Some(reason) = self.port_error(name)? else { return Ok(()) };
        let error = Error::failed(format!("Open vSwitch could not make the bridge `{name}`")).source(reason);
        Err(self.withdraw("del-br", name, error))
    }

    /// Adds a vhost-user port whose guest listens on `socket`. One of the same VM is replaced,
    /// unless it is the very same and works: a running guest's link is not cut.
    pub fn add_vhost_port(&self, bridge: &str, port: &str, socket: &Path, tag: &Tag<'_>, line: Line) -> Result<()> {
        self.add_port(&Wanted { bridge, port, socket: Some(checked_socket(socket)?), tag, line })
    }

    /// Plugs in the network device `port` of this host. A port of that name and of the same VM is
    /// replaced: the device behind it was another.
    pub fn add_tap_port(&self, bridge: &str, port: &str, tag: &Tag<'_>, line: Line) -> Result<()> {
        self.add_port(&Wanted { bridge, port, socket: None, tag, line })
    }

    /// Removes a port, whoever owns it. One that is not there is done.
    pub fn del_port(&self, bridge: Option<&str>, port: &str) -> Result<()> {
        let mut args = vec!["--if-exists", "del-port"];
        if let Some(bridge) = bridge {
            args.push(checked("bridge", bridge)?);
        }
        args.push(checked("port", port)?);
        match self.run(&args) {
            Ok(_) => Ok(()),
            // The row is gone; `ovs-vswitchd` closes the port when it is back.
            Err(Failure::Timeout) if self.port_owner(port)?.is_none() => Ok(()),
            Err(failure) => Err(self.error(failure).context(format!("cannot remove the port `{port}`"))),
        }
    }

    /// Removes the port if it is this VM's. `false`: there is none, or it is somebody else's.
    pub fn release_port(&self, port: &str, vm: Uuid) -> Result<bool> {
        match self.port_owner(port)? {
            Some(owner) if owner.vm == Some(vm) => {
                self.del_port(None, port)?;
                if let Some(number) = owner.guard {
                    self.unguard(&owner.bridge, vm, number);
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Makes sure that the name is free for this VM: removes its own port of an earlier life, and
    /// refuses when it is somebody else's.
    pub fn clear_port(&self, port: &str, vm: Uuid) -> Result<()> {
        match self.port_owner(port)? {
            None => Ok(()),
            Some(owner) if owner.vm == Some(vm) => self.del_port(None, port),
            Some(owner) => Err(self.taken(&owner)),
        }
    }

    /// Writes the VM's name into the port, if it is this VM's; its guest notices nothing. `false`:
    /// there is none, or it is somebody else's.
    pub fn name_port(&self, port: &str, vm: Uuid, name: &str) -> Result<bool> {
        match self.port_owner(port)? {
            Some(owner) if owner.vm == Some(vm) => {}
            _ => return Ok(false),
        }
        let id = equals(&format!("external_ids:{NAME_KEY}"), name);
        // Nothing for `ovs-vswitchd` to act on, so nothing to wait for.
        let args = ["--no-wait", "set", "Port", port, &id, "--", "set", "Interface", port, &id];
        self.run(&args).map(|_| true).map_err(|failure| {
            self.error(failure).context(format!("cannot write the VM's name into the port `{port}`"))
        })
    }

    pub fn port_owner(&self, port: &str) -> Result<Option<Owner>> {
        let name = equals("name", checked("port", port)?);
        Ok(self.owners(&name)?.into_iter().next())
    }

    /// Every port that names a VM, for the collection of orphans.
    pub fn ports_of_virshle(&self) -> Result<Vec<Owner>> {
        let mut owners = self.owners(&format!("external_ids:{VM_KEY}!=\"\""))?;
        owners.retain(|owner| owner.vm.is_some());
        Ok(owners)
    }

    /// None: there is no such port.
    pub fn port_state(&self, port: &str) -> Result<Option<PortState>> {
        let name = equals("name", checked("port", port)?);
        let columns = "--columns=type,options,ofport,error,link_state";
        self.read(&[columns, "find", "Interface", &name], answer::parse_port_state)
    }

    /// Why the port does not work, if it does not.
    pub fn port_error(&self, port: &str) -> Result<Option<String>> {
        match self.port_state(port)? {
            Some(state) => Ok(state.failure()),
            None => Ok(Some("its row is gone from the database".to_owned())),
        }
    }

    /// The beginning of a command that a person can type.
    pub(super) fn command(&self) -> String {
        self.db.as_ref().map_or_else(|| "ovs-vsctl".to_owned(), |db| format!("ovs-vsctl --db={db}"))
    }

    pub(super) fn no_bridge(&self, name: &str, datapath: &Datapath) -> Error {
        Error::not_found(format!("there is no Open vSwitch bridge `{name}`")).hint(format!(
            "set `create = true` in its network, or add it: `{} add-br {name} -- set Bridge {name} datapath_type={}`",
            self.command(),
            datapath.as_str()
        ))
    }

    fn add_port(&self, wanted: &Wanted<'_>) -> Result<()> {
        let (bridge, port) = (checked("bridge", wanted.bridge)?, checked("port", wanted.port)?);
        // Most often the name is free, so this asks nothing first; the database itself refuses a
        // second port of one name, so two who try at once cannot both succeed.
        match self.insert(wanted) {
            Ok(()) => {}
            Err(Failure::Timeout) => return Err(self.withdraw_port(wanted, self.not_acted_on("port", port))),
            Err(failure) => {
                let Some(owner) = self.port_owner(port)? else {
                    if self.bridge(bridge)?.is_none() {
                        let needed = if wanted.socket.is_some() { Datapath::Netdev } else { self.tap_datapath() };
                        return Err(self.no_bridge(bridge, &needed));
                    }
                    return Err(self.error(failure).context(format!("cannot add the port `{port}` to `{bridge}`")));
                };
                if owner.vm != Some(wanted.tag.vm) {
                    return Err(self.taken(&owner));
                }
                if owner.bridge == bridge && self.is_same(wanted)? {
                    return Ok(());
                }
                self.replace(wanted)?;
            }
        }
        let state = self.port_state(port)?;
        let reason = match &state {
            None => Some("its row is gone from the database".to_owned()),
            Some(state) => state.failure().or_else(|| wanted.line.missed(state)),
        };
        let Some(reason) = reason else { return Ok(()) };
        let error =
            Error::failed(format!("Open vSwitch could not open the port `{port}` on `{bridge}`")).source(reason);
        let dpdk = if wanted.socket.is_some() { self.dpdk().ok() } else { None };
        let error = match dpdk.and_then(|dpdk| dpdk.hint(self)) {
            Some(hint) => error.hint(hint),
            None => error,
        };
        Err(self.withdraw_port(wanted, error))
    }

    fn insert(&self, wanted: &Wanted<'_>) -> Result<(), Failure> {
        let tag = wanted.tag;
        let mut ids = vec![
            equals(&format!("external_ids:{VM_KEY}"), &tag.vm.to_string()),
            equals(&format!("external_ids:{NAME_KEY}"), tag.vm_name),
            equals("external_ids:attached-mac", &tag.mac.to_string()),
        ];
        ids.extend(self.state.as_ref().map(|state| equals(&format!("external_ids:{STATE_KEY}"), state)));
        let interface = match wanted.socket {
            Some(socket) => vec![equals("type", VHOST), equals("options:vhost-server-path", socket)],
            None => Vec::new(),
        };
        let Line { mtu, vlan, number } = wanted.line;
        // One with a guard is in no VLAN but its own: without one it would get the frames of all.
        let vlan = vlan.or(number.map(|_| 0)).map(|vlan| format!("tag={vlan}"));
        let guard = number.map(|number| equals(&format!("external_ids:{GUARD_KEY}"), &number.to_string()));
        let request =
            [number.map(|number| format!("ofport_request={number}")), mtu.map(|mtu| format!("mtu_request={mtu}"))];
        let mut args = vec!["add-port", wanted.bridge, wanted.port];
        args.extend(vlan.iter().chain(&guard).chain(&ids).map(String::as_str));
        args.extend(["--", "set", "Interface", wanted.port]);
        args.extend(interface.iter().chain(&ids).chain(request.iter().flatten()).map(String::as_str));
        self.run(&args).map(drop)
    }

    /// Whether the port that is there is the wanted one, and works.
    fn is_same(&self, wanted: &Wanted<'_>) -> Result<bool> {
        let Some(state) = self.port_state(wanted.port)? else { return Ok(false) };
        Ok(wanted.socket.is_some()
            && state.kind == VHOST
            && state.socket.as_deref() == wanted.socket
            && wanted.line.missed(&state).is_none()
            && state.failure().is_none())
    }

    /// In two transactions: within one, `ovs-vswitchd` would take the new row for the old port
    /// with another name for its socket, and stay on the old one.
    fn replace(&self, wanted: &Wanted<'_>) -> Result<()> {
        self.del_port(None, wanted.port)?;
        self.insert(wanted).map_err(|failure| match failure {
            Failure::Timeout => self.withdraw_port(wanted, self.not_acted_on("port", wanted.port)),
            failure => self.error(failure).context(format!("cannot replace the port `{}`", wanted.port)),
        })
    }

    /// What a new bridge for taps gets.
    pub(super) fn tap_datapath(&self) -> Datapath {
        if self.can_system_datapath() { Datapath::System } else { Datapath::Netdev }
    }

    /// The same for a port, unless the name is somebody else's by now.
    fn withdraw_port(&self, wanted: &Wanted<'_>, error: Error) -> Error {
        match self.port_owner(wanted.port) {
            Ok(Some(owner)) if owner.vm == Some(wanted.tag.vm) => self.withdraw("del-port", wanted.port, error),
            Ok(Some(owner)) => self.taken(&owner),
            _ => error,
        }
    }

    /// Takes what did not come up out of the database again, and says so.
    fn withdraw(&self, command: &str, name: &str, error: Error) -> Error {
        let hint = error.hint_text().map(|hint| format!("{hint}; ")).unwrap_or_default();
        match self.run(&["--no-wait", "--if-exists", command, name]) {
            Ok(_) => error.hint(format!("{hint}its row was removed again")),
            Err(_) => error.hint(format!("{hint}its row is still there: `{} {command} {name}`", self.command())),
        }
    }

    fn not_acted_on(&self, what: &str, name: &str) -> Error {
        Error::failed(format!(
            "Open vSwitch did not act on the new {what} `{name}` within {} s",
            vsctl::TIMEOUT.as_secs()
        ))
        .hint("is `ovs-vswitchd` running? `systemctl status openvswitch-switch` (on NixOS `ovs-vswitchd`)")
    }

    fn taken(&self, owner: &Owner) -> Error {
        let Owner { port, bridge, vm, vm_name, .. } = owner;
        let whose = match (vm, vm_name) {
            (Some(vm), Some(name)) => format!("belongs to the VM `{name}` ({vm})"),
            (Some(vm), None) => format!("belongs to the VM `{vm}`"),
            (None, _) => "was not made by virshle".to_owned(),
        };
        Error::refused(format!("the port `{port}` is already on the bridge `{bridge}` and {whose}"))
            .hint(format!("if nothing uses it, remove it: `{} del-port {port}`", self.command()))
    }

    fn owners(&self, condition: &str) -> Result<Vec<Owner>> {
        let ports = ["--columns=_uuid,name,external_ids", "find", "Port", condition];
        let bridges = ["--", "--columns=name,ports", "list", "Bridge"];
        self.read(&[ports, bridges].concat(), answer::parse_owners)
    }

    fn run(&self, args: &[&str]) -> Result<Output, Failure> {
        vsctl::run(self.db.as_deref(), &self.cancel, args)
    }

    fn read<T>(&self, args: &[&str], parse: impl FnOnce(&[u8]) -> Result<T, String>) -> Result<T> {
        let output = self.run(args).map_err(|failure| self.error(failure))?;
        parse(&output.stdout).map_err(unreadable)
    }

    fn error(&self, failure: Failure) -> Error {
        failure.into_error(self.db.as_deref())
    }
}

impl Line {
    /// Why the port has not the number that its guard's flows are for, if so.
    fn missed(&self, state: &PortState) -> Option<String> {
        let (wanted, got) = (self.number?, state.number?);
        (wanted != got).then(|| format!("it got the number {got}, and its guard is for {wanted}"))
    }
}

impl Dpdk {
    /// What to do so that vhost-user ports work, if they do not.
    pub fn hint(&self, ovs: &Ovs) -> Option<String> {
        match (self.initialized, &self.version) {
            (true, _) => None,
            (false, Some(_)) => Some(format!(
                "reserve hugepages, `{} --no-wait set Open_vSwitch . other_config:dpdk-init=true`, restart \
                 `ovs-vswitchd`; or give the template's net the type `tap`",
                ovs.command()
            )),
            (false, None) => Some(
                "run an Open vSwitch with DPDK (Debian: `apt install openvswitch-switch-dpdk librte-mempool-ring23`, then \
                 `update-alternatives --set ovs-vswitchd /usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk` and restart \
                 it; NixOS: `virtualisation.vswitch.package = pkgs.openvswitch-dpdk`), or give the template's net the \
                 type `tap`"
                    .to_owned(),
            ),
        }
    }
}

fn unreadable(reason: String) -> Error {
    let program = "ovs-vsctl".to_owned();
    Error::failed("cannot read the switch's database").source(ProgramError::Answer { program, reason })
}
