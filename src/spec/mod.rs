//! 0 · The plain data that every part speaks: names, sizes, addresses, and [`VmSpec`], which is
//! everything decided about one VM, so that nothing is left for its start to guess.
//!
//! It stands below `vm/` and `template/` because disks, networks and hypervisors read a spec too,
//! and none of them may know a VM's life. Nothing here does I/O.

mod declared;
mod exit;
mod forward;
mod guard;
mod helper;
mod history;
mod labels;
mod mac;
mod name;
mod network;
mod policy;
mod port;
mod progress;
mod size;
mod state;
mod vm;

pub use declared::{Declared, OnRemove};
pub use exit::{Exit, Intent};
pub use forward::{Forward, ForwardError, Protocol};
pub use guard::{Direction, Guard, PortRange, Rate, RateError, Rule, RuleError, RuleProtocol};
pub use helper::Serves;
pub use history::{Actor, Entry, Happening};
pub use labels::{Label, LabelError, Labels};
pub use mac::Mac;
pub use name::{Name, NameError};
pub use network::{Address, Datapath, HostSide, NetworkSpec, Subnet, ip6_of};
pub use policy::{Autostart, Limits, Policy, Restart};
pub use port::{Ailment, PortTrouble};
pub use progress::{Progress, Verb};
pub use size::{Size, SizeError};
pub use state::{Event, Refusal, State};
pub use vm::{Accel, Boot, Disk, HypervisorKind, Link, Nic, SPEC_VERSION, Switch, VmSpec};
