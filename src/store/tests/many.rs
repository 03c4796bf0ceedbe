//! Many at once: threads with a connection each, and processes that meet on a database that is
//! not there yet.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use super::fixture::{self, draft, place, reserve, subnet};
use crate::error::{Error, Kind};
use crate::host::{self, Spawn};
use crate::spec::{Event, State};
use crate::store::Store;

const MANY: usize = 50;
/// Where a child finds the database, and the moment (in ms since 1970) at which all begin.
const DATABASE: &str = "VIRSHLE_TEST_DATABASE";
const MOMENT: &str = "VIRSHLE_TEST_MOMENT";

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

/// The same with processes, which sqlite's locks treat otherwise than threads.
#[test]
fn fifty_processes_make_the_database_and_reserve_in_it() {
    let (dir, path) = place();
    let program = std::env::current_exe().unwrap();
    let moment = host::now().as_millisecond() + 500;
    let children: Vec<_> = (0..MANY)
        .map(|index| {
            let log = dir.path().join(format!("{index}.log"));
            let child = Spawn::new(&program)
                .args([
                    "--ignored",
                    "--exact",
                    "store::tests::many::one_process_of_fifty",
                    "--test-threads=1",
                    "--nocapture",
                ])
                .env(DATABASE, &path)
                .env(MOMENT, moment.to_string())
                .log(std::fs::File::create(&log).unwrap())
                .start()
                .unwrap();
            (child, log)
        })
        .collect();
    let deadline = Instant::now() + Duration::from_secs(60);
    for (child, log) in children {
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > deadline => {
                    child.signal(rustix::process::Signal::KILL).unwrap();
                    panic!("a process did not end in time");
                }
                None => host::pause(Duration::from_millis(10)),
            }
        };
        let words = std::fs::read_to_string(&log).unwrap();
        assert_eq!(status, host::ExitStatus::Code(0), "{words}");
    }
    assert_all_distinct(&path, MANY);
}

#[test]
#[ignore = "one of the processes that the test above starts"]
fn one_process_of_fifty() {
    let path = std::env::var_os(DATABASE).expect("the test above names the database");
    let moment: i64 = std::env::var(MOMENT).unwrap().parse().unwrap();
    let left = moment - host::now().as_millisecond();
    host::pause(Duration::from_millis(left.max(0).cast_unsigned()));
    let mut store = Store::open(Path::new(&path)).unwrap();
    reserve(&mut store, &[draft(None, &[subnet("main", "10.44.0.0/24")])]).unwrap();
    assert!(!Store::open_read_only(Path::new(&path)).unwrap().unwrap().list().unwrap().is_empty());
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
