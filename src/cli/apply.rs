use std::path::PathBuf;
use std::sync::Mutex;

use clap::Args;
use serde::Serialize;

use super::enclosed::Enclosed;
use super::plan::{Row, Wished, rows, table, talk};
use super::ui::{Format, Ui, count};
use super::vm::{created, is_keyless, keyless_note, started, stopped};
use crate::error::{Error, Kind, Result};
use crate::host::{self, Cancel, Lock, LockError};
use crate::plan::{self, Class, Fate, Field, Told};
use crate::vm::{self, Site};

/// Bring the VMs to what the config declares
///
/// It shows what `v plan` shows, asks, and does it, VM by VM; what fails keeps no other VM. A VM is
/// restarted, or made anew, only where that is wished. VMs that were made by hand are never touched.
///
/// A guest whose `[[vm]]` names no `user-data` gets a user with your name and your public keys
/// (~/.ssh/*.pub).
#[derive(Debug, Args)]
pub(super) struct Apply {
    /// Do it without asking
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    wished: Wished,
    /// How to print it: as JSON and YAML, what has become of each change
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// The caller's name and keys, when this process runs for another one.
    #[arg(skip)]
    enclosed: Option<Vec<u8>>,
}

/// One line of the plan, and what has become of it.
#[derive(Debug, Serialize)]
struct Outcome {
    #[serde(flatten)]
    row: Row,
    /// `null`: it was not tried.
    done: Option<bool>,
    error: Option<String>,
}

impl Apply {
    /// Reads what the caller's guests would be told, for one who runs the command without reading it.
    pub(super) fn enclose(&self) -> Result<Vec<u8>> {
        let (users, parts) = vm::user_data(&[])?;
        Enclosed::new(users, parts).to_bytes()
    }

    /// From now on none of the caller's files is opened: what they hold is here. It is read where a guest
    /// is to be told of it, and not before.
    pub(super) fn take_enclosed(&mut self, bytes: Vec<u8>) {
        self.enclosed = Some(bytes);
    }

    pub(super) fn run(self, site: &Site, ui: &Ui) -> Result<()> {
        if !self.yes && !ui.can_ask() {
            return Err(Error::usage("`v apply` asks before it does anything, and nobody is there to answer")
                .hint("`v apply --yes` does it without asking; `v plan` only looks"));
        }
        let wishes = self.wished.into();
        let held = lock(site)?;
        // What another one was killed at is no plan's any more.
        vm::finish_reshapes(site)?;
        let config = site.config()?;
        let mut situation = plan::look(site, &config)?;
        let plan = plan::compare(&situation, &wishes)?;
        let (lines, wide) = (rows(&plan), ui.verbose > 0);
        let due = plan.items.iter().any(plan::Item::is_due);
        match self.output {
            Format::Table if !lines.is_empty() => ui.rows(Format::Table, &lines, |rows| table(rows, wide))?,
            Format::Json | Format::Yaml if due && !self.yes => ui.say_table(&table(&lines, wide)),
            _ => {}
        }
        talk(&plan).iter().for_each(|line| ui.say(line));
        let _lock = match due && !self.yes {
            false => held,
            true => {
                // Nobody is kept waiting by a question.
                drop(held);
                if !ui.ask("Apply?")? {
                    ui.say("nothing was done");
                    return Ok(());
                }
                let held = lock(site)?;
                situation = plan::look(site, &site.config()?)?;
                if plan::compare(&situation, &wishes)? != plan {
                    return Err(Error::refused("there is something else to do by now, and nothing was done")
                        .hint("`v apply` again shows it"));
                }
                held
            }
        };
        let failed = Mutex::new(None);
        let fates = match due {
            true => act(site, &situation, &plan, self.enclosed.as_deref(), ui, &failed)?,
            false => plan.items.iter().map(|item| vec![Fate::Left; item.changes.len()]).collect(),
        };
        let outcomes: Vec<Outcome> = lines.into_iter().zip(fates.into_iter().flatten()).map(outcome).collect();
        if due {
            ui.say(summary(&outcomes));
        }
        if self.output != Format::Table {
            ui.rows(self.output, &outcomes, |_| table(&[], wide))?;
        }
        let failed = failed.into_inner().ok().flatten();
        match failed.or(plan.refusals().next().map(|_| Kind::Refused)) {
            Some(kind) => {
                Err(Error::new(kind, "not all is as the config declares it").hint("`v plan` shows what is left"))
            }
            None => Ok(()),
        }
    }
}

/// Does the plan, and says each thing as it is done. `failed`: how the first failure ends a command.
fn act(
    site: &Site,
    situation: &plan::Situation,
    plan: &plan::Plan,
    enclosed: Option<&[u8]>,
    ui: &Ui,
    failed: &Mutex<Option<Kind>>,
) -> Result<Vec<Vec<Fate>>> {
    let first_boot = || {
        let (users, parts) = match enclosed {
            Some(bytes) => Enclosed::from_bytes(bytes)?.open(),
            None => vm::user_data(&[] as &[PathBuf])?,
        };
        if is_keyless(&users, &parts) {
            ui.say(keyless_note("name users with `user-data`"));
        }
        Ok((users, parts))
    };
    let told = |told: Told<'_>| match told {
        Told::Stopped(name, exit) => ui.say(stopped(name, &exit)),
        Told::Deleted(name) => ui.say(format!("deleted `{name}`")),
        Told::Released(name) => ui.say(format!("let go of `{name}`: the config declares it no more")),
        Told::Altered(name, mut fields) => {
            let others = fields.len();
            fields.retain(|field| *field != Field::Declared.to_string());
            if fields.len() < others {
                ui.say(format!("took in `{name}`"));
            }
            if !fields.is_empty() {
                ui.say(format!("changed `{name}`: {}", fields.join(", ")));
            }
        }
        Told::Restarted(name) => ui.say(format!("restarted `{name}`")),
        Told::Created(spec) => ui.say(created(spec)),
        Told::Started(spec) => started(site, spec, ui),
        Told::Failed(error) => {
            ui.error(error);
            if let Ok(mut first) = failed.lock() {
                first.get_or_insert(error.kind());
            }
        }
    };
    let (cancel, progress) = (Cancel::on_interrupt(), ui.progress());
    // A terminal that goes away leaves no guest between its stop and its start.
    host::ignore_hangup();
    let apply =
        plan::Apply { site, situation, first_boot: &first_boot, cancel: &cancel, progress: &progress, told: &told };
    apply.run(plan)
}

fn outcome((row, fate): (Row, Fate)) -> Outcome {
    let (done, error) = match fate {
        Fate::Left => (None, None),
        Fate::Done => (Some(true), None),
        Fate::Failed(error) => (Some(false), Some(error.chain().join(": "))),
    };
    Outcome { row, done, error }
}

/// `3 changes done, 1 failed, 2 waiting`.
fn summary(outcomes: &[Outcome]) -> String {
    let number = |done: Option<bool>| outcomes.iter().filter(|outcome| outcome.done == done).count();
    let refused = outcomes.iter().filter(|outcome| outcome.row.class == Class::Refused).count();
    let mut text = format!("{} done", count(number(Some(true)), "change"));
    for (number, what) in [(number(Some(false)), "failed"), (number(None) - refused, "waiting"), (refused, "refused")] {
        if number > 0 {
            text += &format!(", {number} {what}");
        }
    }
    text
}

/// One apply at a time. It ends with this process, however that ends.
fn lock(site: &Site) -> Result<Lock> {
    // Whoever makes the folder makes it as the store needs it.
    drop(site.store()?);
    let path = site.dirs.state.join("apply.lock");
    match Lock::try_take(&path) {
        Ok(lock) => {
            // Only for whoever is refused meanwhile.
            let _ = lock.sign();
            Ok(lock)
        }
        Err(LockError::Held) => {
            let who = Lock::signature(&path).map(|number| format!(" (pid {number})")).unwrap_or_default();
            Err(Error::refused(format!("another apply is at work{who}"))
                .hint("wait until it is done, and look at `v plan`"))
        }
        Err(LockError::Io(error)) => Err(Error::failed(format!("cannot lock `{}`", path.display())).source(error)),
    }
}
