//! How long things take with 1,000 VMs. The bounds are generous: they catch an algorithm that
//! went wrong, on a busy machine and in an unoptimised build; `--nocapture` shows the numbers.

use std::time::{Duration, Instant};

use super::fixture::{draft, place, reserve, subnet};
use crate::spec::State;
use crate::store::Store;

const VMS: usize = 1000;

fn timed<T>(what: &str, at_most: Duration, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let done = work();
    let took = started.elapsed();
    println!("{what:<50} {:>9.3} ms", took.as_secs_f64() * 1e3);
    assert!(took < at_most, "{what} took {took:?}");
    done
}

#[test]
fn a_thousand_vms() {
    let (_dir, path) = place();
    let net = [subnet("main", "10.44.0.0/20")];
    let second = Duration::from_secs(1);
    let mut store = timed("make the database", 5 * second, || Store::open(&path).unwrap());
    let drafts: Vec<_> = (0..VMS).map(|n| draft(Some(&format!("vm-{n}")), &net)).collect();
    let specs = timed("reserve 1,000 in one transaction", 10 * second, || reserve(&mut store, &drafts).unwrap());
    drop(store);

    for _ in 0..3 {
        let reader = timed("open, read only", second, || Store::open_read_only(&path).unwrap().unwrap());
        let listed = timed("list 1,000", second, || reader.list().unwrap());
        assert_eq!(listed.len(), VMS);
        timed("find one by name", second, || reader.find("vm-500").unwrap());
        timed("close", second, || drop(reader));
        let mut store = timed("open", second, || Store::open(&path).unwrap());
        timed("update one", second, || {
            store.update(specs[500].uuid, |record| {
                record.state = if record.state == State::Stopped { State::Starting } else { State::Stopped };
                Ok(())
            })
        })
        .unwrap();
        timed("reserve one", second, || reserve(&mut store, &[draft(None, &net)]).map(|specs| specs[0].uuid))
            .and_then(|vm| timed("remove one", second, || store.remove(vm)))
            .unwrap();
        timed("close, being the last", second, || drop(store));
    }
    let store = Store::open(&path).unwrap();
    timed("check", 10 * second, || store.check().unwrap());
}
