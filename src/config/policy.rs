use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::file::Template;
use crate::spec::{Autostart, Limits, Policy, Size};

/// What a VM with its hypervisor may take of the host. systemd enforces it, so it needs a host that runs systemd.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct LimitsEntry {
    /// Processor time, in processors: `1.5` is one and a half.
    pub cpus: Option<Cpus>,
    /// Memory, the guest's and the hypervisor's own together; more than `vram`.
    pub memory: Option<Size>,
}

/// Processor time, in processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(transparent)]
pub struct Cpus(#[schemars(with = "f64", range(min = 0.001, max = 255))] u32);

impl Cpus {
    const MOST: f64 = 255.0;

    fn of<E: de::Error>(cpus: f64) -> Result<Self, E> {
        let thousandths = (cpus * 1000.0).round();
        if thousandths >= 1.0 && cpus <= Self::MOST {
            return Ok(Self(thousandths as u32));
        }
        Err(E::custom(format!("`{cpus}` is not a number of processors from 0.001 to {}", Self::MOST)))
    }
}

impl Serialize for Cpus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.0) / 1000.0)
    }
}

impl<'de> Deserialize<'de> for Cpus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Cpus;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of processors like `2` or `1.5`")
            }

            fn visit_i64<E: de::Error>(self, cpus: i64) -> Result<Cpus, E> {
                Cpus::of(cpus as f64)
            }

            fn visit_u64<E: de::Error>(self, cpus: u64) -> Result<Cpus, E> {
                Cpus::of(cpus as f64)
            }

            fn visit_f64<E: de::Error>(self, cpus: f64) -> Result<Cpus, E> {
                Cpus::of(cpus)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Template {
    /// How a VM made from it is kept.
    pub fn policy(&self) -> Policy {
        let autostart =
            Autostart { order: self.autostart_order.unwrap_or(0), delay: self.autostart_delay.unwrap_or(0) };
        Policy {
            restart: self.restart,
            watchdog: self.watchdog,
            autostart: self.autostart.then_some(autostart),
            limits: Limits { millicpus: self.limits.cpus.map(|cpus| cpus.0), memory: self.limits.memory },
            stop_timeout: self.stop_timeout.unwrap_or(Policy::STOP_TIMEOUT),
            protect: self.protect,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_kept_in_thousandths() {
        for (text, millicpus) in [("1", Some(1000)), ("1.5", Some(1500)), ("0.0004", None), ("256", None), ("-1", None)]
        {
            let read: Result<Cpus, _> = serde_json::from_str(text);
            assert_eq!(read.ok().map(|cpus| cpus.0), millicpus, "{text}");
        }
        assert_eq!(serde_json::to_string(&Cpus(1500)).unwrap(), "1.5");
    }
}
