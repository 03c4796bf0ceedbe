use std::fmt;

use serde::{Deserialize, Serialize};

/// How far a process has come with a verb on one VM. One that was killed leaves it behind, so that
/// the next command can say what was cut short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    pub verb: Verb,
    pub step: String,
    /// Whether the step is done; before that it is under way.
    pub done: bool,
}

impl Progress {
    /// For whoever finds it left behind: what was cut short, and where.
    pub fn cut_short(&self) -> String {
        let place = if self.done { "after" } else { "at" };
        format!("{} was cut short {place} `{}`", self.verb, self.step)
    }
}

/// What is done to a VM in steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    Create,
    Start,
    Stop,
    Restart,
    Rename,
    Reshape,
    Delete,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verb::Create => "create",
            Verb::Start => "start",
            Verb::Stop => "stop",
            Verb::Restart => "restart",
            Verb::Rename => "rename",
            Verb::Reshape => "reshape",
            Verb::Delete => "delete",
        })
    }
}
