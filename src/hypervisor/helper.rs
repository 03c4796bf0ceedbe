use std::path::PathBuf;

use crate::spec::Serves;

/// A program that runs beside a hypervisor: it is there, and listens, before the hypervisor starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Helper {
    pub serves: Serves,
    pub program: PathBuf,
    pub args: Vec<String>,
    /// Where the hypervisor connects to it.
    pub socket: PathBuf,
}

impl Helper {
    /// Exactly what is run.
    pub fn argv(&self) -> Vec<String> {
        std::iter::once(self.program.display().to_string()).chain(self.args.iter().cloned()).collect()
    }
}
