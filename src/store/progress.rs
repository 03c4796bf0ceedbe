//! How far a process has come with a verb: a note for whoever finds the verb cut short.
//!
//! It decides nothing and changes with every step, so it is written as cheaply as can be: it
//! outlives `kill -9` (the write-ahead log is in the kernel's hands) but not a power cut, which
//! takes the process's work with it too. It is no change of the VM: neither `updated_at` nor the
//! history shows it.

use std::time::Duration;

use rusqlite::{Connection, params};
use uuid::Uuid;

use super::fault::Fault;
use super::open::{self, Store};
use super::record::to_json;
use crate::error::Result;
use crate::spec::Progress;

/// How long a note waits for another process's transaction: no verb is held up for one, and of fifty
/// commands at once none that has to write waits behind the others' notes.
const PATIENCE: Duration = Duration::ZERO;

impl Store {
    /// Notes how far these VMs have come, or that nothing is under way. One that is not recorded
    /// is passed over.
    pub fn note_progress(&self, vms: &[Uuid], progress: Option<&Progress>) -> Result<()> {
        let text = progress.map(to_json).transpose()?;
        self.read("note the progress", |connection| {
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            connection.busy_timeout(PATIENCE)?;
            let noted = note(connection, vms, text.as_deref());
            connection.busy_timeout(open::PATIENCE)?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            noted
        })
    }
}

fn note(connection: &Connection, vms: &[Uuid], progress: Option<&str>) -> Result<(), Fault> {
    let transaction = connection.unchecked_transaction()?;
    for vm in vms {
        let mut statement = transaction.prepare_cached("UPDATE vm SET progress = ?2 WHERE uuid = ?1")?;
        statement.execute(params![vm.to_string(), progress])?;
    }
    Ok(transaction.commit()?)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::spec::Verb;
    use crate::store::tests::fixture::{add, store};

    fn at(step: &str, done: bool) -> Progress {
        Progress { verb: Verb::Create, step: step.to_owned(), done }
    }

    #[test]
    fn it_is_noted_and_changes_nothing_else() {
        let (_dir, mut store) = store();
        let (one, other) = (add(&mut store, "one", Uuid::new_v4()).uuid, add(&mut store, "other", Uuid::new_v4()).uuid);
        let before = store.get(one).unwrap().unwrap();
        let progress = at("disk os", false);
        store.note_progress(&[one, Uuid::new_v4()], Some(&progress)).unwrap();
        let after = store.get(one).unwrap().unwrap();
        assert_eq!(after.progress, Some(progress));
        assert_eq!(crate::store::Record { progress: None, ..after }, before);
        assert_eq!(store.get(other).unwrap().unwrap().progress, None);
        store.note_progress(&[one], None).unwrap();
        assert_eq!(store.get(one).unwrap().unwrap(), before);
        let synchronous: i64 =
            store.read("ask", |c| Ok(c.pragma_query_value(None, "synchronous", |row| row.get(0))?)).unwrap();
        assert_eq!(synchronous, 2, "the next transaction is durable again");
    }

    /// `--nocapture` shows the figure.
    #[test]
    fn what_a_note_costs() {
        const NOTES: u32 = 200;
        let (_dir, mut store) = store();
        let vm = add(&mut store, "one", Uuid::new_v4()).uuid;
        let began = Instant::now();
        for n in 0..NOTES {
            store.note_progress(&[vm], Some(&at("disk os", n % 2 == 1))).unwrap();
        }
        println!("one note of progress {:>9.3} ms", (began.elapsed() / NOTES).as_secs_f64() * 1e3);
        let began = Instant::now();
        for n in 0..20 {
            store
                .update(vm, |record| {
                    record.spec.vcpu = n + 2;
                    Ok(())
                })
                .unwrap();
        }
        println!("one durable update   {:>9.3} ms", (began.elapsed() / 20).as_secs_f64() * 1e3);
    }
}
