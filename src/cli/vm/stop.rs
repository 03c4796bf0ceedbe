use std::time::Duration;

use clap::Args;
use uuid::Uuid;

use super::select::Many;
use crate::cli::side_by_side;
use crate::cli::ui::Ui;
use crate::error::{Error, Result};
use crate::spec::{Exit, Intent, Name};
use crate::store::{Record, Store};
use crate::vm::{self, Site, Stopped};

/// Press the power button and wait for the guest to shut down
#[derive(Debug, Args)]
pub(crate) struct Stop {
    #[command(flatten)]
    vms: Many,
    #[command(flatten)]
    how: How,
}

/// How long a guest gets, and what then.
#[derive(Debug, Clone, Args)]
pub(super) struct How {
    /// Seconds for the guest to shut down; without it, its template's `stop-timeout` (60 if it has none)
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=86_400))]
    timeout: Option<u64>,
    /// Cut the power when the time is over (with `--timeout 0`: at once)
    #[arg(long)]
    pub(super) force: bool,
}

impl How {
    pub(super) fn timeout(&self, record: &Record) -> Duration {
        self.timeout.map_or_else(|| record.spec.policy.stop_timeout(), Duration::from_secs)
    }

    /// Whether the power is cut without a word to the guest.
    pub(super) fn at_once(&self) -> bool {
        self.force && self.timeout == Some(0)
    }

    pub(super) fn still_running(&self, name: &Name, timeout: Duration) -> Error {
        Error::failed(format!("`{name}` has not shut down in {} s", timeout.as_secs())).hint(format!(
            "give it longer with `--timeout`, or cut its power with `v vm stop --force --timeout 0 {name}`"
        ))
    }
}

impl Stop {
    pub(super) fn run(self, site: &Site, ui: &Ui) -> Result<()> {
        let store = site.store()?;
        let mut records = self.vms.find(&store)?;
        if self.vms.all {
            records.retain(|record| record.state.is_live());
            if records.is_empty() {
                ui.say("no VM runs");
            }
        }
        drop(store);
        side_by_side(records, ui, |record| stop_one(site, record, &self.how, ui))
    }
}

/// Stops one VM as asked; says what became of it.
fn stop_one(site: &Site, record: Record, how: &How, ui: &Ui) -> Result<()> {
    let mut store = site.store()?;
    let (vm, name) = (record.spec.uuid, record.spec.name.clone());
    let timeout = how.timeout(&record);
    let seconds = timeout.as_secs();
    if !how.at_once() {
        match vm::stop(site, &mut store, record, timeout, Intent::Stop) {
            Ok(Stopped::Ended(exit)) => {
                stays_down(&mut store, vm)?;
                ui.say(stopped(&name, &exit));
                return Ok(());
            }
            Ok(Stopped::StillRunning) if !how.force => {
                return Err(how.still_running(&name, timeout));
            }
            Ok(Stopped::StillRunning) => {
                ui.say(format!("`{name}` has not shut down in {seconds} s: cutting its power"));
            }
            Err(error) if !how.force || error.kind() == crate::error::Kind::NotFound => return Err(error),
            // Its supervisor cannot press the button; --force is for that.
            Err(error) => tracing::info!(error = %error.chain().join(": "), "no power button"),
        }
    }
    let exit = vm::force_stop(site, &mut store, vm, Intent::Stop)?;
    stays_down(&mut store, vm)?;
    ui.say(stopped(&name, &exit));
    Ok(())
}

/// An apply that was to start it again owes it no start any more.
fn stays_down(store: &mut Store, vm: Uuid) -> Result<()> {
    let owed = |record: Record| record.declared.is_some_and(|declared| declared.start_again);
    if !store.get(vm)?.is_some_and(owed) {
        return Ok(());
    }
    store.update(vm, |record| {
        if let Some(declared) = &mut record.declared {
            declared.start_again = false;
        }
        Ok(())
    })
}

/// The reason is worth a word only where it is not the one that was asked for.
pub(in crate::cli) fn stopped(name: &Name, exit: &Exit) -> String {
    match exit {
        Exit::Stopped => format!("stopped `{name}`"),
        Exit::Forced => format!("stopped `{name}` (power cut)"),
        other => format!("`{name}` has ended: {other}"),
    }
}
