use std::sync::Mutex;

use super::*;
use crate::config::{DeclaredVm, Running, Template};
use crate::host::{Dirs, Handle, Quiet};
use crate::plan::{Alter, Class, Field, Item, Need, Wishes, compare, look};
use crate::spec::{Declared, Disk, Event, HypervisorKind, OnRemove};
use crate::store::{Draft, Record, Store};
use uuid::Uuid;

pub(super) fn site() -> (tempfile::TempDir, Site, Store) {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(Dirs::find(Some(dir.path())).unwrap());
    let store = site.store().unwrap();
    (dir, site, store)
}

/// A VM that does not run.
pub(super) fn add(site: &Site, store: &mut Store, name: &str, declared: Option<Declared>) -> Record {
    let draft = Draft { uuid: Uuid::new_v4(), name: Some(name.parse().unwrap()), nics: Vec::new(), declared };
    let build = &mut |given: &crate::store::Reserved| {
        Ok(VmSpec { number: given.number, name: given.name.clone(), ..VmSpec::sample(given.uuid) })
    };
    let us = Handle::current().unwrap();
    let spec = store.reserve(&[draft], us, &mut || "any".parse().unwrap(), build).unwrap().remove(0);
    crate::vm::make_private(&site.dirs.vm(spec.uuid)).unwrap();
    let created = |record: &mut Record| {
        record.apply(&Event::Created)?;
        record.owner = None;
        Ok(())
    };
    store.update(spec.uuid, created).unwrap();
    store.get(spec.uuid).unwrap().unwrap()
}

pub(super) fn change(class: Class, field: Field, needs: Option<Need>) -> Change {
    Change { class, field, old: None, new: None, needs, why: None, hint: None }
}

pub(super) fn entry(name: &str) -> DeclaredVm {
    let template: Template = toml::from_str("name = 'xs'\nvcpu = 1\nvram = '64MiB'\nkernel = '/kernel'").unwrap();
    DeclaredVm {
        name: name.parse().unwrap(),
        template,
        running: Running::No,
        on_remove: OnRemove::Delete,
        user_data: vec!["/nowhere/user.toml".into()],
    }
}

pub(super) fn item(name: &str, changes: Vec<Change>, work: Work) -> Item {
    Item { vm: name.parse().unwrap(), changes, work }
}

/// With a label, and a disk that cannot be made.
fn alter(record: &Record, declared: Declared) -> Work {
    let mut target = record.spec.clone();
    target.labels.set("role=db".parse().unwrap()).unwrap();
    let source = Some("/nowhere/os.img".into());
    target.disks.push(Disk { name: "os".parse().unwrap(), source, size: None, readonly: false });
    let entry = entry(record.spec.name.as_str());
    Work::Alter(Box::new(Alter { spec: record.spec.clone(), target, entry, declared, runs: false, run: None }))
}

/// What became of each change, and all that was told.
fn run(site: &Site, plan: &Plan, cancel: &Cancel) -> (Vec<Vec<String>>, Vec<String>) {
    run_with(site, plan, cancel, &|| Err(Error::failed("nobody is asked")))
}

fn run_with(
    site: &Site,
    plan: &Plan,
    cancel: &Cancel,
    first_boot: &dyn Fn() -> Result<(UserData, Vec<Part>)>,
) -> (Vec<Vec<String>>, Vec<String>) {
    let told = Mutex::new(Vec::new());
    let hear = |what: Told<'_>| {
        told.lock().unwrap().push(match what {
            Told::Deleted(name) => format!("deleted {name}"),
            Told::Released(name) => format!("released {name}"),
            Told::Altered(name, fields) => format!("altered {name}: {}", fields.join(", ")),
            Told::Failed(error) => format!("failed: {}", error.message()),
            other => format!("{other:?}"),
        });
    };
    let apply = Apply { site, situation: &Situation::default(), first_boot, cancel, progress: &Quiet, told: &hear };
    let word = |fate: Fate| match fate {
        Fate::Left => "left".to_owned(),
        Fate::Done => "done".to_owned(),
        Fate::Failed(error) => error.message().to_owned(),
    };
    let fates = apply.run(plan).unwrap().into_iter().map(|fates| fates.into_iter().map(word).collect()).collect();
    (fates, told.into_inner().unwrap())
}

#[test]
fn what_goes_comes_first_and_what_fails_keeps_no_other() {
    let (_dir, site, mut store) = site();
    let declared = || Some(Declared::default());
    let [rests, other] = ["rests", "other"].map(|name| add(&site, &mut store, name, declared()));
    let deleted = Declared { on_remove: OnRemove::Delete, ..Declared::default() };
    let gone = add(&site, &mut store, "gone", Some(deleted));
    let label = Field::Label("role".to_owned());
    let plan = Plan {
        items: vec![
            item("new", vec![change(Class::Create, Field::Vm, None)], Work::Create(Box::new(entry("new")))),
            item("other", vec![change(Class::Live, label, None)], alter(&other, Declared::default())),
            item(
                "rests",
                vec![change(Class::Live, Field::Declared, None)],
                Work::Release { vm: rests.spec.uuid, stop: false },
            ),
            item("gone", vec![change(Class::Delete, Field::Vm, None)], Work::Delete(gone.spec.uuid)),
        ],
    };
    let (fates, told) = run(&site, &plan, &Cancel::default());
    let create = "cannot create `new`";
    assert_eq!(fates, [[create], ["done"], ["done"], ["done"]].map(|fates| fates.map(str::to_owned).to_vec()));
    let expected = [&format!("failed: {create}"), "released rests", "deleted gone", "altered other: labels.role"];
    assert_eq!(told, expected, "user data is read before anything goes");
    assert!(store.get(gone.spec.uuid).unwrap().is_none());
    assert!(store.get(rests.spec.uuid).unwrap().unwrap().declared.unwrap().removed);
    assert_eq!(store.get(other.spec.uuid).unwrap().unwrap().spec.labels.get("role"), Some("db"));
}

#[test]
fn what_waits_is_not_recorded_as_reached() {
    let (_dir, site, mut store) = site();
    let old = Declared { removed: true, start_again: true, ..Declared::default() };
    let record = add(&site, &mut store, "web", Some(old));
    // As the comparison makes it: what waits has its old value.
    let declared = Declared { on_remove: OnRemove::Delete, ..Declared::default() };
    let changes = vec![
        change(Class::Live, Field::Declared, None),
        change(Class::Live, Field::OnRemove, None),
        change(Class::Restart, Field::Hypervisor, Some(Need::Restart)),
    ];
    let plan = Plan { items: vec![item("web", changes, alter(&record, declared.clone()))] };
    let (fates, _) = run(&site, &plan, &Cancel::default());
    assert_eq!(fates, [["done", "done", "left"].map(str::to_owned).to_vec()]);
    let now = store.get(record.spec.uuid).unwrap().unwrap();
    assert_eq!(now.declared, Some(Declared { start_again: true, ..declared }), "until it was started");
    assert!(now.spec.labels.is_empty(), "nobody asked for it");
}

/// What fails on the way is said to be there no sooner than it is.
#[test]
fn what_fails_is_not_recorded_as_reached() {
    let (_dir, site, mut store) = site();
    let record = add(&site, &mut store, "web", Some(Declared::default()));
    let declared = Declared { hypervisor: Some(HypervisorKind::Qemu), ..Declared::default() };
    let changes =
        vec![change(Class::Live, Field::Label("role".to_owned()), None), change(Class::Live, Field::Hypervisor, None)];
    let plan = Plan { items: vec![item("web", changes, alter(&record, declared))] };
    let (fates, told) = run(&site, &plan, &Cancel::default());
    assert_eq!(fates, [["done", "cannot change `web`"].map(str::to_owned).to_vec()], "there is no such image");
    assert_eq!(told, ["failed: cannot change `web`", "altered web: labels.role"]);
    let now = store.get(record.spec.uuid).unwrap().unwrap();
    assert_eq!((now.declared.unwrap().hypervisor, now.spec.hypervisor), (None, record.spec.hypervisor));
}

/// It is renamed or let go while the apply waits for its answer.
#[test]
fn what_has_changed_since_the_look_stays() {
    type Planned = fn(Uuid) -> Work;
    type Meanwhile = fn(&mut Record);
    let renamed = |record: &mut Record| record.spec.name = "db".parse().unwrap();
    let let_go = |record: &mut Record| record.declared.as_mut().unwrap().removed = true;
    let kept = |record: &mut Record| record.declared.as_mut().unwrap().on_remove = OnRemove::Keep;
    let deletes: Planned = Work::Delete;
    let releases: Planned = |vm| Work::Release { vm, stop: true };
    let rows: [(Planned, Meanwhile); 5] =
        [(deletes, renamed), (deletes, let_go), (deletes, kept), (releases, renamed), (releases, let_go)];
    for (work, meanwhile) in rows {
        let (_dir, site, mut store) = site();
        let declared = Declared { on_remove: OnRemove::Delete, ..Declared::default() };
        let vm = add(&site, &mut store, "web", Some(declared)).spec.uuid;
        let plan = Plan { items: vec![item("web", vec![change(Class::Delete, Field::Vm, None)], work(vm))] };
        let now = store
            .update(vm, |record| {
                meanwhile(record);
                Ok(record.clone())
            })
            .unwrap();
        let (fates, told) = run(&site, &plan, &Cancel::default());
        let refused = "`web` has changed meanwhile";
        assert_eq!((fates, told), (vec![vec![refused.to_owned()]], vec![format!("failed: {refused}")]));
        let left = store.get(vm).unwrap().unwrap();
        assert_eq!((left.spec, left.declared), (now.spec, now.declared));
        assert!(site.dirs.vm(vm).exists());
    }
}

#[test]
fn a_renamed_one_does_not_make_way() {
    let (_dir, site, mut store) = site();
    let vm = add(&site, &mut store, "db", Some(Declared::default())).spec.uuid;
    let delete = |store: &mut Store, name: &str| {
        let name = name.parse().unwrap();
        go::delete(&site, store, vm, |record| go::check_name(&name, record))
    };
    let error = delete(&mut store, "web").unwrap_err();
    assert_eq!(error.message(), "`web` has changed meanwhile");
    assert!(store.get(vm).unwrap().is_some() && site.dirs.vm(vm).exists());
    delete(&mut store, "db").unwrap();
    assert!(store.get(vm).unwrap().is_none());
}

#[test]
fn an_interruption_leaves_the_rest() {
    let (_dir, site, mut store) = site();
    let record = add(&site, &mut store, "web", Some(Declared::default()));
    let plan =
        Plan { items: vec![item("web", vec![change(Class::Delete, Field::Vm, None)], Work::Delete(record.spec.uuid))] };
    let cancel = Cancel::default();
    cancel.set();
    let (fates, told) = run(&site, &plan, &cancel);
    assert_eq!((fates, told), (vec![vec!["interrupted".to_owned()]], vec!["failed: interrupted".to_owned()]));
    assert_eq!(store.get(record.spec.uuid).unwrap(), Some(record));
}

#[test]
fn an_interruption_is_told_once() {
    let (_dir, site, _store) = site();
    let cancel = Cancel::default();
    let entry = DeclaredVm { user_data: Vec::new(), ..entry("new") };
    let plan =
        Plan { items: vec![item("new", vec![change(Class::Create, Field::Vm, None)], Work::Create(Box::new(entry)))] };
    let (fates, told) = run_with(&site, &plan, &cancel, &|| {
        cancel.set();
        Err(cancel.check().unwrap_err())
    });
    let cut = vec![vec!["cannot create `new`".to_owned()]];
    assert_eq!((fates, told), (cut, vec!["failed: interrupted".to_owned()]));
}

#[test]
fn nothing_is_done_to_a_vm_made_by_hand() {
    let (_dir, site, mut store) = site();
    let record = add(&site, &mut store, "web", None);
    let config = crate::config::Config { vms: vec![entry("web")], ..Default::default() };
    let plan = compare(&look(&site, &config).unwrap(), &Wishes::default()).unwrap();
    assert_eq!(run(&site, &plan, &Cancel::default()), (vec![vec!["left".to_owned()]], Vec::new()));
    assert_eq!(store.get(record.spec.uuid).unwrap(), Some(record));
}
