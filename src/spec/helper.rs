use std::fmt;

use serde::{Deserialize, Serialize};

/// What a program that runs beside a hypervisor is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "index", rename_all = "kebab-case")]
pub enum Serves {
    /// The NIC with this index: `passt`, its network.
    Nic(u8),
    /// The guest's line to this host: `vhost-device-vsock`.
    Line,
}

impl Serves {
    /// The program's name.
    pub fn program(self) -> &'static str {
        match self {
            Serves::Nic(_) => "passt",
            Serves::Line => "vhost-device-vsock",
        }
    }
}

impl fmt::Display for Serves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Serves::Nic(index) => write!(f, "NIC {index}"),
            Serves::Line => f.write_str("its line to this host"),
        }
    }
}
