//! What is noted of each change, what is kept, and what is read of it.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::Connection;
use uuid::Uuid;

use super::fixture::{self, add, draft, name, place, reserve, store, tamper};
use crate::host::{self, Handle};
use crate::spec::{Actor, Entry, Event, Exit, Happening, Intent, State, VmSpec};
use crate::store::{Draft, Follow, Record, Runtime, Store};

const ANN: Actor = Actor::User { uid: 1000, name: None };

fn change(store: &mut Store, vm: Uuid, change: impl FnOnce(&mut Record)) {
    store
        .update(vm, |record| {
            change(record);
            Ok(())
        })
        .unwrap();
}

fn run_by(pid: i32) -> Option<Runtime> {
    Some(Runtime::of(Handle { pid, start_time: 1 }))
}

fn lines(store: &Store, vm: Uuid) -> Vec<String> {
    let line = |entry: Entry| match entry.happening.cause() {
        Some(cause) => format!("{}: {cause}", entry.happening.words()),
        None => entry.happening.words(),
    };
    store.history(Some(vm), 100).unwrap().into_iter().map(line).collect()
}

#[test]
fn a_life_line_by_line() {
    let (_dir, mut store) = store();
    let vm = add(&mut store, "web", Uuid::new_v4()).uuid;
    change(&mut store, vm, |record| record.apply(&Event::Created).unwrap());
    for exit in [Exit::PoweredOff, Exit::PoweredOff, Exit::Killed { signal: 9 }] {
        change(&mut store, vm, |record| {
            record.apply(&Event::Start).unwrap();
            record.runtime = run_by(1);
        });
        // The process becomes known: nothing that a person would call a change.
        change(&mut store, vm, |record| record.runtime.as_mut().unwrap().hypervisor = Some(fixture::OWNER));
        change(&mut store, vm, |record| record.apply(&Event::Booted).unwrap());
        change(&mut store, vm, |record| record.end(exit).unwrap());
    }
    store.remove(vm).unwrap();
    assert_eq!(
        lines(&store, vm),
        [
            "creating",
            "created",
            "starting",
            "running",
            "stopped: powered off by the guest",
            "starting",
            "running",
            "stopped: powered off by the guest",
            "starting",
            "running",
            "crashed: hypervisor killed by SIGKILL",
            "deleted",
        ]
    );
}

#[test]
fn what_is_asked_of_a_run() {
    let (_dir, mut store) = store();
    let vm = add(&mut store, "web", Uuid::new_v4()).uuid;
    change(&mut store, vm, |record| (record.state, record.runtime) = (State::Running, run_by(1)));
    let ask = |record: &mut Record, intent| {
        record.apply(&Event::Stop).unwrap();
        record.intent = Some(intent);
    };
    change(&mut store, vm, |record| record.apply(&Event::Pause).unwrap());
    change(&mut store, vm, |record| record.apply(&Event::Resume).unwrap());
    change(&mut store, vm, |record| ask(record, Intent::Stop));
    // Asked again: no news. Asked for more: news.
    change(&mut store, vm, |record| ask(record, Intent::Stop));
    change(&mut store, vm, |record| ask(record, Intent::ForceStop));
    change(&mut store, vm, |record| {
        record.apply(&Event::StopGivenUp).unwrap();
        record.intent = None;
    });
    change(&mut store, vm, |record| ask(record, Intent::Restart));
    change(&mut store, vm, |record| record.end(Exit::Stopped).unwrap());
    change(&mut store, vm, |record| record.spec.name = name("www"));
    assert_eq!(
        lines(&store, vm)[2..],
        [
            "paused",
            "resumed",
            "stopping: asked to shut down",
            "stopping: power to be cut",
            "still running: the guest has not shut down in its time",
            "stopping: asked to shut down, to be started again",
            "stopped: stopped on request",
            "renamed: it was `web`",
        ]
    );
}

/// An end that is recorded together with what follows it is not lost between the two.
#[test]
fn an_end_and_the_next_run_in_one_change() {
    type Row = (&'static str, fn(&mut Record), fn(&mut Record), &'static [&'static str]);
    let rows: [Row; 5] = [
        (
            "found dead by the next supervisor",
            |record| (record.state, record.runtime) = (State::Running, run_by(1)),
            |record| {
                record.end(Exit::Lost).unwrap();
                record.apply(&Event::Start).unwrap();
                record.runtime = run_by(2);
            },
            &["crashed: ended while nobody watched (supervisor and hypervisor are gone)", "starting"],
        ),
        (
            "the same, while it was starting",
            |record| (record.state, record.runtime) = (State::Starting, run_by(1)),
            |record| {
                record.end(Exit::Lost).unwrap();
                record.apply(&Event::Start).unwrap();
                record.runtime = run_by(2);
            },
            &["crashed: ended while nobody watched (supervisor and hypervisor are gone)", "starting"],
        ),
        (
            "an end that the policy answers",
            |record| (record.state, record.runtime) = (State::Running, run_by(1)),
            |record| {
                record.end(Exit::OutOfMemory).unwrap();
                record.apply(&Event::Retry).unwrap();
            },
            &["restarting: hypervisor killed by the kernel: out of memory"],
        ),
        (
            "a wait that is over",
            |record| (record.state, record.exit) = (State::Restarting, Some(Exit::Killed { signal: 9 })),
            |record| record.apply(&Event::Start).unwrap(),
            &["starting"],
        ),
        (
            "a wait that somebody ends",
            |record| (record.state, record.exit) = (State::Restarting, Some(Exit::Killed { signal: 9 })),
            |record| record.apply(&Event::Stop).unwrap(),
            &["stopped: not to be started again"],
        ),
    ];
    for (what, before, after, expected) in rows {
        let (_dir, mut store) = store();
        let vm = add(&mut store, "web", Uuid::new_v4()).uuid;
        change(&mut store, vm, before);
        change(&mut store, vm, after);
        assert_eq!(lines(&store, vm)[2..], *expected, "{what}");
        for entry in store.history(Some(vm), 9).unwrap() {
            let lost = matches!(entry.happening, Happening::State { exit: Some(Exit::Lost), .. });
            assert_eq!(entry.actor == Actor::Unknown, lost, "{what}: whoever finds it has not caused it: {entry:?}");
        }
    }
}

#[test]
fn who_it_was() {
    let (_dir, store) = store();
    let path = store.path().to_owned();
    let mut store = store.acting_as(ANN);
    let spec = add(&mut store, "web", Uuid::new_v4());
    let mut supervisor = Store::open(&path).unwrap().acting_as(Actor::Supervisor);
    supervisor.tell(&spec, &Happening::Rebooted).unwrap();
    Store::open(&path).unwrap().tell(&spec, &Happening::Adopted).unwrap();
    let entries = store.history(None, 9).unwrap();
    let actors: Vec<_> = entries.iter().map(|entry| entry.actor.clone()).collect();
    assert_eq!(actors, [ANN, Actor::Supervisor, host::caller()]);
    assert!(entries.iter().all(|entry| entry.vm == spec.uuid.to_string() && entry.name == "web"));
    assert!(entries[0].time.parse::<host::Timestamp>().is_ok(), "{entries:?}");
}

#[test]
fn a_change_that_fails_is_not_noted() {
    let (_dir, mut store) = store();
    let vm = add(&mut store, "web", Uuid::new_v4()).uuid;
    store.update(vm, |record| record.apply(&Event::Pause).map_err(Into::into)).unwrap_err();
    reserve(&mut store, &[draft(Some("new"), &[]), draft(Some("web"), &[])]).unwrap_err();
    assert_eq!(lines(&store, vm), ["creating"]);
    assert_eq!(store.history(None, 9).unwrap().len(), 1);
}

#[test]
fn rows_that_cannot_be_read_are_lines_all_the_same() {
    let (_dir, mut store) = store();
    let spec = add(&mut store, "web", Uuid::new_v4());
    for _ in 0..4 {
        store.tell(&spec, &Happening::Rebooted).unwrap();
    }
    tamper(
        store.path(),
        r#"UPDATE history SET happening = '{"what":"teleported","to":"mars"}' WHERE id = 2;
           UPDATE history SET actor = '{"kind":"ghost"}' WHERE id = 3;
           UPDATE history SET time = 'yesterday', name = '?!', vm = 'nobody' WHERE id = 4;"#,
    );
    let entries = store.history(None, 9).unwrap();
    assert_eq!(entries.len(), 5);
    assert_eq!(entries[1].happening.cause().unwrap(), r#"{"what":"teleported","to":"mars"}"#);
    assert_eq!((&entries[2].actor, &entries[2].happening), (&Actor::Unknown, &Happening::Rebooted));
    assert_eq!((entries[3].time.as_str(), entries[3].vm.as_str()), ("yesterday", "nobody"));
    assert_eq!(entries[4].happening, Happening::Rebooted);
    for entry in &entries {
        serde_json::to_string(entry).unwrap();
    }
    store.tell(&spec, &entries[1].happening).unwrap_err();
}

#[test]
fn the_last_ones_of_one_and_of_all() {
    let (_dir, mut store) = store();
    let (a, b) = (add(&mut store, "a", Uuid::new_v4()), add(&mut store, "b", Uuid::new_v4()));
    for spec in [&a, &b, &a] {
        store.tell(spec, &Happening::Rebooted).unwrap();
    }
    let ids = |vm, last| store.history(vm, last).unwrap().iter().map(|entry| entry.id).collect::<Vec<_>>();
    assert_eq!(ids(None, 99), [1, 2, 3, 4, 5]);
    assert_eq!(ids(None, 2), [4, 5]);
    assert_eq!(ids(Some(a.uuid), 2), [3, 5]);
    assert_eq!(ids(Some(b.uuid), 99), [2, 4]);
    assert!(ids(None, 0).is_empty());
    assert_eq!(store.newest_event().unwrap(), 5);
    let after = |id, vm| store.events_after(id, vm).unwrap().iter().map(|entry| entry.id).collect::<Vec<_>>();
    assert_eq!(after(2, None), [3, 4, 5]);
    assert_eq!(after(2, Some(b.uuid)), [4]);
    assert!(after(5, None).is_empty());
}

#[test]
fn vms_are_remembered_by_every_name_they_had() {
    let (_dir, mut store) = store();
    let uuid = |first: &str| Uuid::parse_str(&format!("{first}-91a7-4d2c-9d52-0123456789ab")).unwrap();
    let (old, new) = (uuid("cafe0000"), uuid("cafe1111"));
    add(&mut store, "web", old);
    store.remove(old).unwrap();
    add(&mut store, "web", new);
    change(&mut store, new, |record| record.spec.name = name("www"));
    let found = |text: &str| {
        let found = store.remembered(text).unwrap();
        found.into_iter().map(|vm| (vm.vm, vm.name, vm.exists)).collect::<Vec<_>>()
    };
    let (new, old) = ((new, "www".to_owned(), true), (old, "web".to_owned(), false));
    assert_eq!(found("web"), [new.clone(), old.clone()], "the newest first");
    assert_eq!(found("www"), std::slice::from_ref(&new));
    assert_eq!(found("cafe"), [new.clone(), old.clone()]);
    assert_eq!(found(&old.0.to_string()), [old]);
    assert_eq!(found("nobody"), []);
    assert_eq!(found("1"), [], "numbers are not remembered");
}

/// As many lines as it takes, written behind the store's back.
fn fill(store: &Store, spec: &VmSpec, lines: u32) {
    tamper(
        store.path(),
        &format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {lines})
             INSERT INTO history (time, vm, name, actor, happening)
             SELECT '2025-01-01T00:00:00Z', '{}', '{}', '{{\"kind\":\"supervisor\"}}', '{{\"what\":\"rebooted\"}}' FROM n",
            spec.uuid, spec.name
        ),
    );
}

fn count(store: &Store) -> i64 {
    let connection = Connection::open(store.path()).unwrap();
    connection.query_row("SELECT count(*) FROM history", [], |row| row.get(0)).unwrap()
}

#[test]
fn of_one_vm_five_hundred_lines_are_kept_and_of_others_all() {
    let (_dir, mut store) = store();
    let (quiet, noisy) = (add(&mut store, "quiet", Uuid::new_v4()), add(&mut store, "noisy", Uuid::new_v4()));
    fill(&store, &noisy, 498);
    store.tell(&noisy, &Happening::Rebooted).unwrap();
    let kept = store.history(Some(noisy.uuid), 9999).unwrap();
    assert_eq!((kept.len(), kept[0].happening.words().as_str()), (500, "creating"), "none too early");
    for _ in 0..3 {
        store.tell(&noisy, &Happening::Adopted).unwrap();
    }
    let kept = store.history(Some(noisy.uuid), 9999).unwrap();
    assert_eq!(kept.len(), 500);
    assert_eq!(kept[0].happening, Happening::Rebooted, "the oldest went");
    assert_eq!(kept[499].happening, Happening::Adopted, "the newest stays");
    assert_eq!(lines(&store, quiet.uuid), ["creating"], "another's lines stay");
}

#[test]
fn of_all_twenty_thousand_are_kept_and_the_deleted_go_by_age_alone() {
    let (_dir, mut store) = store();
    let gone = add(&mut store, "gone", Uuid::new_v4());
    store.remove(gone.uuid).unwrap();
    for n in 0..50 {
        let spec = add(&mut store, &format!("vm-{n}"), Uuid::new_v4());
        fill(&store, &spec, 390);
    }
    assert_eq!(count(&store), 2 + 50 * 391);
    assert_eq!(lines(&store, gone.uuid), ["creating", "deleted"], "still there, after 19,550 others");
    let last = add(&mut store, "last", Uuid::new_v4());
    for _ in 0..499 {
        store.tell(&last, &Happening::Rebooted).unwrap();
        assert!(count(&store) <= 20_000);
    }
    assert!(count(&store) >= 19_900, "and not many fewer: {}", count(&store));
    assert_eq!(lines(&store, gone.uuid), Vec::<String>::new(), "pushed out");
    assert_eq!(store.history(Some(last.uuid), 9999).unwrap().len(), 500);
    store.check().unwrap();
}

/// Writers that come and go (each close folds the log into the file and removes it), one that
/// keeps the file open, and lines that are rolled back: each line comes once, in order.
#[test]
fn following_misses_nothing_and_repeats_nothing() {
    const WRITERS: usize = 4;
    const LINES: usize = 60;
    let (_dir, path) = place();
    let mut follow = Follow::after(&path, 0, None);
    assert_eq!(follow.read().unwrap(), [], "there is no database yet");
    assert!(!path.exists(), "and none is made");
    let running = AtomicUsize::new(WRITERS);
    let mut seen: Vec<Entry> = Vec::new();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (path, running) = (&path, &running);
            scope.spawn(move || {
                let mut spec = None;
                for line in 0..LINES {
                    let mut store = Store::open(path).unwrap();
                    match &spec {
                        None => spec = Some(add(&mut store, &format!("vm-{writer}"), Uuid::new_v4())),
                        Some(spec) => {
                            let port = format!("{writer}-{line}");
                            store.tell(spec, &Happening::PortLost { port }).unwrap();
                        }
                    }
                    // A number that is given and taken back.
                    let known = Draft { uuid: spec.as_ref().unwrap().uuid, ..draft(None, &[]) };
                    reserve(&mut store, &[draft(None, &[]), known]).unwrap_err();
                    if line % 7 == 0 {
                        tamper(path, "PRAGMA wal_checkpoint(TRUNCATE)");
                    }
                }
                running.fetch_sub(1, Ordering::SeqCst);
            });
        }
        loop {
            let done = running.load(Ordering::SeqCst) == 0;
            let new = follow.read().unwrap();
            if new.is_empty() && done {
                break;
            }
            seen.extend(new);
        }
    });
    let recorded = Store::open(&path).unwrap().history(None, 9999).unwrap();
    assert_eq!(recorded.len(), WRITERS * LINES);
    assert!(seen == recorded, "{} of {}", seen.len(), recorded.len());
}

#[test]
fn following_one_vm_and_another_file() {
    let (_dir, path) = place();
    let mut store = Store::open(&path).unwrap();
    let (a, b) = (add(&mut store, "a", Uuid::new_v4()), add(&mut store, "b", Uuid::new_v4()));
    let mut follow = Follow::after(&path, store.newest_event().unwrap(), Some(a.uuid));
    for spec in [&b, &a, &b] {
        store.tell(spec, &Happening::Rebooted).unwrap();
    }
    let ids = |follow: &mut Follow| follow.read().unwrap().iter().map(|entry| entry.id).collect::<Vec<_>>();
    assert_eq!(ids(&mut follow), [4]);
    drop(store);

    // A backup is put in its place, that ends before what was read.
    let copy = path.with_extension("copy");
    tamper(&path, &format!("VACUUM INTO '{}'", copy.display()));
    tamper(&copy, "PRAGMA journal_mode = WAL; DELETE FROM history WHERE id > 3; UPDATE sqlite_sequence SET seq = 3");
    fs::rename(&copy, &path).unwrap();
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{suffix}", path.display()));
    }
    assert!(ids(&mut follow).is_empty());
    Store::open(&path).unwrap().tell(&a, &Happening::Adopted).unwrap();
    assert_eq!(ids(&mut follow), [4], "new, though a line with that id was there before");

    // All is removed, and begins anew.
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
    assert!(ids(&mut follow).is_empty());
    let mut store = Store::open(&path).unwrap();
    add(&mut store, "a", a.uuid);
    assert_eq!(ids(&mut follow), [1]);
}
