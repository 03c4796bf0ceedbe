//! This supervisor becomes another program: the one that now lies where it was started from, so
//! that an upgrade leaves every guest running and watched. It is asked to by SIGHUP, or finds that a
//! newer program has changed the database.
//!
//! ```text
//! SIGHUP ─► does the program start? ─► leave the machine ─► exec, with the lock ─► adopt
//! ```
//!
//! The process stays the same one: it goes on holding the VM's lock, so nobody can get in between,
//! and the hypervisor stays its child, whose end it will see.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use uuid::Uuid;

use crate::error::{Error, OrFailed, Result};
use crate::host::{self, Lock, Program};
use crate::spec::Exit;
use crate::vm::{self, Purpose, Site};

/// What the program before this one passed on.
#[derive(Debug, Default)]
pub struct Handed {
    /// The descriptor of the VM's lock.
    pub lock: Option<i32>,
    /// The end of the run, which the program before this one saw and could not record.
    pub ended: Option<Exit>,
}

/// The program that this one becomes.
#[derive(Debug)]
pub(super) struct Successor {
    program: PathBuf,
}

/// How long it may take to say its version.
const ANSWER: Duration = Duration::from_secs(10);

impl Successor {
    pub(super) fn find() -> Result<Self> {
        let program = host::own_program().or_failed(|| "cannot find this program's own file".to_owned())?;
        Ok(Self { program })
    }

    /// Whether another file lies there by now.
    pub(super) fn is_another(&self) -> bool {
        self.program.is_file() && !host::is_own_program(&self.program)
    }

    /// Tries whether it runs at all: a guest is not left for a program that does not.
    pub(super) fn try_out(&self) -> Result<()> {
        Program::new(&self.program).arg("--version").deadline(ANSWER).run().map(drop).map_err(|cause| {
            Error::failed(format!("`{}` is no program to hand over to", self.program.display())).source(cause)
        })
    }

    /// Becomes it; returns only if that failed, and everything is as before then.
    pub(super) fn take_over(
        &self,
        site: &Site,
        vm: Uuid,
        deadline: Duration,
        lock: &Lock,
        ended: Option<&Exit>,
    ) -> Error {
        let failed =
            |cause: io::Error| Error::failed(format!("cannot become `{}`", self.program.display())).source(cause);
        let number = match lock.pass_on() {
            Ok(number) => number,
            Err(error) => return failed(error),
        };
        let mut args = vm::arguments(site, &vm.to_string(), Purpose::Adopt, deadline);
        args.extend(["--lock".into(), number.to_string().into()]);
        if let Some(json) = ended.and_then(|exit| serde_json::to_string(exit).ok()) {
            args.extend::<[OsString; 2]>(["--ended".into(), json.into()]);
        }
        host::ignore_hangup();
        let error = host::exec(&self.program, &args);
        if let Err(error) = lock.keep() {
            tracing::warn!(%error, "the lock may be passed on");
        }
        failed(error)
    }
}
