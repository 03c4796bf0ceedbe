use std::fmt;

use serde::{Deserialize, Serialize};

/// What is wrong with a port of a running VM, as its supervisor saw it last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortTrouble {
    pub port: String,
    pub ailment: Ailment,
    /// Why it is not mended yet, or what would mend it.
    pub detail: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ailment {
    /// It is gone from its switch, and is being put back.
    Missing,
    /// Its name belongs to something else now, so it is left alone.
    Taken,
    /// The switch has it, and cannot open it.
    Failed,
    /// The switch serves it, but the guest's NIC is cut off for good.
    Dead,
}

impl fmt::Display for PortTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = &self.port;
        match self.ailment {
            Ailment::Missing => write!(f, "port {port} is gone from its switch")?,
            Ailment::Taken => write!(f, "port {port} belongs to something else now")?,
            Ailment::Failed => write!(f, "port {port} cannot be opened by its switch")?,
            Ailment::Dead => write!(f, "the guest's NIC at port {port} is cut off")?,
        }
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}
