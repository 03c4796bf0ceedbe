use std::fmt;

use serde::{Deserialize, Serialize};

/// What was asked of a running VM, recorded before acting, so that its end can be told apart:
/// the hypervisor's events look the same for a power-off from inside, from its API and by signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Intent {
    Stop,
    ForceStop,
    Restart,
    Delete,
}

/// How a VM's last run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Exit {
    /// Asked for with `stop`, and the guest shut down in order.
    Stopped,
    /// Asked for with `stop --force`: the power was cut.
    Forced,
    /// The guest powered itself off.
    PoweredOff,
    /// The hypervisor ended by a signal nobody here sent.
    Killed { signal: i32 },
    /// The kernel killed the hypervisor because memory ran out: the VM's own limit, or the host's.
    OutOfMemory,
    /// The hypervisor ended by itself with an error.
    Failed { code: i32, detail: String },
    /// It never came to run; `detail` holds the hypervisor's own last words.
    BootFailed { detail: String },
    /// The hypervisor ended without a word, and only the supervisor that launched it, gone by then,
    /// could have seen how.
    Unseen,
    /// Its supervisor was gone when somebody looked, and so was the hypervisor: unseen.
    Lost,
}

impl Exit {
    /// Whether the VM ended as somebody wanted it to.
    pub fn is_clean(&self) -> bool {
        matches!(self, Exit::Stopped | Exit::Forced | Exit::PoweredOff)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Stopped => f.write_str("stopped on request"),
            Exit::Forced => f.write_str("power cut on request"),
            Exit::PoweredOff => f.write_str("powered off by the guest"),
            Exit::Killed { signal } => match signal_name(*signal) {
                Some("SIGSYS") => f.write_str("hypervisor killed by SIGSYS (a system call its seccomp filter forbids)"),
                Some(name) => write!(f, "hypervisor killed by {name}"),
                None => write!(f, "hypervisor killed by signal {signal}"),
            },
            Exit::OutOfMemory => f.write_str("hypervisor killed by the kernel: out of memory"),
            Exit::Failed { code, detail } if detail.is_empty() => write!(f, "hypervisor ended with exit code {code}"),
            Exit::Failed { code, detail } => write!(f, "hypervisor ended with exit code {code}: {detail}"),
            Exit::BootFailed { detail } => write!(f, "boot failed: {detail}"),
            Exit::Unseen => f.write_str("hypervisor ended without a word (its first supervisor was gone)"),
            Exit::Lost => f.write_str("ended while nobody watched (supervisor and hypervisor are gone)"),
        }
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        31 => "SIGSYS",
        _ => return None,
    })
}
