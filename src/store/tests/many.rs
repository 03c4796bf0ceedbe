//! Many at once: threads with a connection each that meet on a database that is not there yet.
//! The whole-program suite does the same with processes.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Barrier;

use super::fixture::{self, draft, place, reserve, subnet};
use crate::error::{Error, Kind};
use crate::spec::{Event, State};
use crate::store::Store;

const MANY: usize = 50;

fn assert_all_distinct(path: &Path, expected: usize) {
    let store = Store::open(path).unwrap();
    let records = store.list().unwrap();
    assert_eq!(records.len(), expected);
    let distinct = |of: fn(&crate::store::Record) -> String| records.iter().map(of).collect::<HashSet<_>>().len();
    assert_eq!(distinct(|record| record.spec.name.to_string()), expected, "names");
    assert_eq!(distinct(|record| record.spec.address().unwrap().to_string()), expected, "addresses");
    let numbers: Vec<u32> = records.iter().map(|record| record.spec.number).collect();
    assert_eq!(numbers, (1..=expected as u32).collect::<Vec<_>>(), "numbers without a gap");
    store.check().unwrap();
}

#[test]
fn fifty_threads_make_the_database_and_reserve_in_it() {
    let (_dir, path) = place();
    let barrier = Barrier::new(MANY);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..MANY)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    let mut store = Store::open(&path).unwrap();
                    reserve(&mut store, &[draft(None, &[subnet("main", "10.44.0.0/24")])]).unwrap();
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    });
    assert_all_distinct(&path, MANY);
}

/// Whoever looks while it is made sees none or a whole one, and never a lost one. There are many,
/// so that some are held up between two looks.
#[test]
fn a_database_that_is_being_made_is_not_taken_for_lost() {
    for round in 0..10 {
        let (_dir, path) = place();
        let barrier = Barrier::new(17);
        std::thread::scope(|scope| {
            let look = || {
                barrier.wait();
                loop {
                    match Store::open_read_only(&path) {
                        Ok(None) => {}
                        found => break found.map(drop),
                    }
                }
            };
            let readers: Vec<_> = (0..16).map(|_| scope.spawn(look)).collect();
            barrier.wait();
            let mut store = Store::open(&path).unwrap();
            reserve(&mut store, &[draft(None, &[])]).unwrap();
            for reader in readers {
                let found = reader.join().unwrap();
                found.unwrap_or_else(|error| panic!("round {round}: {}", error.chain().join(": ")));
            }
        });
    }
}

#[test]
fn of_two_that_start_a_vm_exactly_one_does() {
    let (_dir, mut store) = fixture::store();
    let vm = reserve(&mut store, &[draft(Some("web"), &[])]).unwrap().remove(0).uuid;
    store
        .update(vm, |record| record.apply(&Event::Created).map_err(|refusal| Error::refused("").source(refusal)))
        .unwrap();
    for round in 0..10 {
        let barrier = Barrier::new(8);
        let path = store.path();
        let start = || {
            let mut store = Store::open(path).unwrap();
            barrier.wait();
            store.update(vm, |record| {
                record.apply(&Event::Start).map_err(|refusal| Error::refused("cannot start `web`").source(refusal))
            })
        };
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "round {round}");
        for error in results.into_iter().filter_map(Result::err) {
            assert_eq!(error.chain(), ["cannot start `web`", "it is already starting"]);
            assert_eq!(error.kind(), Kind::Refused);
        }
        assert_eq!(store.get(vm).unwrap().unwrap().state, State::Starting);
        store
            .update(vm, |record| {
                record.state = State::Stopped;
                Ok(())
            })
            .unwrap();
    }
}

/// The last to leave folds the log into the file and removes it, while others come in.
#[test]
fn coming_and_going_loses_nothing() {
    let (_dir, path) = place();
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let path = &path;
            scope.spawn(move || {
                for round in 0..20 {
                    let name = format!("vm-{worker}-{round}");
                    let mut store = Store::open(path).unwrap();
                    reserve(&mut store, &[draft(Some(&name), &[subnet("main", "10.44.0.0/20")])]).unwrap();
                    drop(store);
                    Store::open_read_only(path).unwrap().unwrap().find(&name).unwrap();
                }
            });
        }
    });
    assert_all_distinct(&path, 160);
}
