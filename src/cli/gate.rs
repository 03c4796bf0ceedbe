use std::ffi::OsString;

use clap::Args;

use crate::error::{OrFailed, Result};
use crate::host::{self, Runner};

/// Wait for a word, give up privileges, become a hypervisor (launched by `v supervise`)
#[derive(Debug, Args)]
pub(super) struct Gate {
    /// As whom; without it as the caller
    #[arg(long, requires = "gid")]
    uid: Option<u32>,
    #[arg(long, requires = "uid")]
    gid: Option<u32>,
    #[arg(long, value_delimiter = ',')]
    groups: Vec<String>,
    /// The descriptors that are passed on
    #[arg(long, value_delimiter = ',')]
    fds: Vec<String>,
    #[arg(last = true, required = true)]
    argv: Vec<OsString>,
}

impl Gate {
    pub(super) fn run(&self) -> Result<()> {
        let failed = || "this is a part of `v vm start`, and of no use by itself".to_owned();
        // An empty list arrives as one empty word.
        let numbers = |words: &[String]| -> Result<Vec<u32>, _> {
            words.iter().filter(|word| !word.is_empty()).map(|word| word.parse()).collect()
        };
        let groups = numbers(&self.groups).or_failed(failed)?;
        let fds = numbers(&self.fds).or_failed(failed)?;
        let runner = self.uid.zip(self.gid).map(|(uid, gid)| Runner { name: uid.to_string(), uid, gid, groups });
        let Some((program, args)) = self.argv.split_first() else { return Ok(()) };
        host::pass_gate(runner.as_ref(), &fds, program, args).or_failed(failed)
    }
}
