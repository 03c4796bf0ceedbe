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
use crate::plan::{self, Class, Fate, Field, Plan, Situation, Told, Wait, Wishes};
use crate::spec::State;
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
        let wishes = self.wished.clone().into();
        let mut look = Look::take(site, &wishes, ui)?;
        self.show(&look, ui)?;
        if look.is_due() && !self.yes {
            match look.agreed(site, &wishes, ui)? {
                Some(agreed) => look = agreed,
                None => return Ok(()),
            }
        }
        let (fates, failed) = match look.is_due() {
            true => act(site, &look, self.enclosed.as_deref(), ui)?,
            false => (look.plan.items.iter().map(|item| vec![Fate::Left; item.changes.len()]).collect(), None),
        };
        self.report(&look, fates, ui)?;
        match failed.or(look.plan.refusals().next().map(|_| Kind::Refused)) {
            Some(kind) => {
                Err(Error::new(kind, "not all is as the config declares it").hint("`v plan` shows what is left"))
            }
            None => Ok(()),
        }
    }

    /// What `v plan` shows. Where stdout is for a script, a person is shown it before the question.
    fn show(&self, look: &Look, ui: &Ui) -> Result<()> {
        let (lines, wide) = (rows(&look.plan), ui.verbose > 0);
        match self.output {
            Format::Table if !lines.is_empty() => ui.rows(Format::Table, &lines, |rows| table(rows, wide))?,
            Format::Json | Format::Yaml if look.is_due() && !self.yes => ui.say_table(&table(&lines, wide)),
            _ => {}
        }
        talk(&look.plan).iter().for_each(|line| ui.say(line));
        Ok(())
    }

    /// What has become of each line.
    fn report(&self, look: &Look, fates: Vec<Vec<Fate>>, ui: &Ui) -> Result<()> {
        let outcomes: Vec<Outcome> =
            rows(&look.plan).into_iter().zip(fates.into_iter().flatten()).map(outcome).collect();
        if look.is_due() {
            ui.say(summary(&outcomes));
        }
        match self.output {
            Format::Table => Ok(()),
            script => ui.rows(script, &outcomes, |_| table(&[], false)),
        }
    }
}

/// What there is to do, as long as no other apply does any of it.
#[derive(Debug)]
struct Look {
    situation: Situation,
    plan: Plan,
    lock: Lock,
}

impl Look {
    /// As soon as no VM is between two states.
    fn take(site: &Site, wishes: &Wishes, ui: &Ui) -> Result<Self> {
        let lock = lock(site)?;
        // What another one was killed at is no plan's any more.
        vm::finish_reshapes(site)?;
        let config = site.config()?;
        plan::settle(site, &config, |wait| ui.say(waiting(&wait)))?;
        let situation = plan::look(site, &config)?;
        let plan = plan::compare(&situation, wishes)?;
        Ok(Self { situation, plan, lock })
    }

    fn is_due(&self) -> bool {
        self.plan.items.iter().any(plan::Item::is_due)
    }

    /// Asks whether it is to be done; `None`: it is not. Nobody is kept waiting by a question, so it is another
    /// look that comes back, with the same to do.
    fn agreed(self, site: &Site, wishes: &Wishes, ui: &Ui) -> Result<Option<Self>> {
        drop(self.lock);
        if !ui.ask("Apply?")? {
            ui.say("nothing was done");
            return Ok(None);
        }
        let now = Self::take(site, wishes, ui)?;
        if now.plan != self.plan {
            return Err(Error::refused("there is something else to do by now, and nothing was done")
                .hint("`v apply` again shows it"));
        }
        Ok(Some(now))
    }
}

/// Does the plan, and says each thing as it is done. With what became of it all comes how the first
/// failure ends a command.
fn act(site: &Site, look: &Look, enclosed: Option<&[u8]>, ui: &Ui) -> Result<(Vec<Vec<Fate>>, Option<Kind>)> {
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
    let failed = Mutex::new(None);
    let told = |told: Told<'_>| match told {
        Told::Waiting(wait) => ui.say(waiting(&wait)),
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
    let apply = plan::Apply {
        site,
        situation: &look.situation,
        first_boot: &first_boot,
        cancel: &cancel,
        progress: &progress,
        told: &told,
    };
    let fates = apply.run(&look.plan)?;
    Ok((fates, failed.into_inner().ok().flatten()))
}

fn outcome((row, fate): (Row, Fate)) -> Outcome {
    let (done, error) = match fate {
        Fate::Left => (None, None),
        Fate::Done => (Some(true), None),
        Fate::Failed(error) => (Some(false), Some(error.chain().join(": "))),
    };
    Outcome { row, done, error }
}

/// ``waiting for `web`, `db` to shut down (at most 90 s)``.
fn waiting(wait: &Wait) -> String {
    let vms: Vec<String> = wait.vms.iter().map(|vm| format!("`{vm}`")).collect();
    let what = if wait.state == State::Starting { "start" } else { "shut down" };
    format!("waiting for {} to {what} (at most {} s)", vms.join(", "), wait.at_most.as_secs())
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
