//! Plans as they are printed: `tests/golden/plans/*.toml` say what there was and what is asked for,
//! the files beside them what was agreed. `GOLDEN=write` writes those anew, for a person to read.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{exit_code, rows, table, talk};
use crate::cli::ui::{Format, rendered};
use crate::config::{Config, of_text};
use crate::plan::model::Model;
use crate::plan::{Change, Class, DiskField, Field, NicField, Wishes, compare};
use crate::spec::{HypervisorKind, Name, Size, State};

/// What stands before and after alike, where a file says nothing else.
const COMMON: &str = r#"
[[image]]
name = "debian-12"
path = "/srv/images/debian-12.qcow2"

[[network]]
name = "main"
type = "bridge"
bridge = "vbr0"
subnet = "10.44.0.0/24"

[[template.vm]]
name = "xs"
vcpu = 1
vram = 2
disk = [{ name = "os", image = "debian-12", size = 20 }]
net = [{ name = "main" }]
"#;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Case {
    common: Option<String>,
    /// What was applied before.
    before: String,
    /// What the config says by now; without it, the same.
    after: Option<String>,
    #[serde(default)]
    wishes: Wished,
    /// What has become of VMs since, or how they came to be.
    #[serde(default)]
    vm: BTreeMap<String, Facts>,
    /// What `auto` came to.
    auto: Option<HypervisorKind>,
    /// Networks on bridges that somebody else had made.
    #[serde(default)]
    foreign: HashSet<Name>,
    /// User data that was changed since.
    #[serde(default)]
    rewritten: HashSet<String>,
    #[serde(default)]
    unreadable: HashSet<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wished {
    restart: bool,
    replace: BTreeSet<Name>,
    adopt: BTreeSet<Name>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Facts {
    state: Option<State>,
    /// A living process is at work on it.
    #[serde(default)]
    busy: bool,
    #[serde(default)]
    by_hand: bool,
    #[serde(default)]
    removed: bool,
    /// By hand, since.
    #[serde(default)]
    protected: bool,
    #[serde(default)]
    start_again: bool,
    /// Disks whose files are missing, and `seed`.
    #[serde(default)]
    missing: Vec<String>,
    /// The files' sizes.
    #[serde(default)]
    disks: BTreeMap<Name, Size>,
}

impl Case {
    fn config(&self, text: &str) -> Config {
        of_text(&format!("{text}\n{}", self.common.as_deref().unwrap_or(COMMON))).expect("a config")
    }

    /// Nothing of a VM is missing, and none is made anew.
    pub(super) fn is_of_whole_vms(&self) -> bool {
        self.wishes.replace.is_empty() && self.vm.values().all(|facts| facts.missing.is_empty())
    }

    pub(super) fn wishes(&self) -> Wishes {
        let Wished { restart, replace, adopt } = &self.wishes;
        Wishes { restart: *restart, replace: replace.clone(), adopt: adopt.clone() }
    }

    fn command(&self) -> String {
        let mut line = "$ v plan".to_owned();
        if self.wishes.restart {
            line += " --restart";
        }
        for (option, names) in [("--replace", &self.wishes.replace), ("--adopt", &self.wishes.adopt)] {
            names.iter().for_each(|name| line += &format!(" {option} {name}"));
        }
        line
    }

    pub(super) fn model(&self) -> Model {
        let mut model = Model::new(self.config(&self.before));
        model.auto = self.auto.unwrap_or(model.auto);
        model.foreign = self.foreign.clone();
        model.apply(&model.plan(&Wishes::default()));
        for (name, facts) in &self.vm {
            let seen = model.seen(name);
            seen.busy = facts.busy;
            if let Some(state) = facts.state {
                (seen.state, seen.record.state) = (state, state);
            }
            for missing in &facts.missing {
                if missing == "seed" {
                    seen.seed = false;
                } else {
                    *seen.disks.get_mut(&missing.parse::<Name>().unwrap()).expect("a disk") = None;
                }
            }
            seen.disks.extend(facts.disks.iter().map(|(name, size)| (name.clone(), Some(*size))));
            seen.record.spec.policy.protect |= facts.protected;
            let declared = seen.record.declared.as_mut().unwrap();
            (declared.removed, declared.start_again) = (facts.removed, facts.start_again);
            if facts.by_hand {
                seen.record.declared = None;
            }
        }
        model.rewritten = self.rewritten.clone();
        model.unreadable = self.unreadable.clone();
        model.configure(self.config(self.after.as_deref().unwrap_or(&self.before)));
        model
    }
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/plans")
}

pub(super) fn cases() -> Vec<(PathBuf, Case)> {
    let paths = fs::read_dir(here()).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let case = toml::from_str(&fs::read_to_string(&path).unwrap());
        (path.clone(), case.unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    };
    paths.into_iter().map(read).collect()
}

/// What `v plan` prints, as text and as JSON.
fn printed(case: &Case) -> (String, String) {
    let plan = match compare(&case.model().situation, &case.wishes()) {
        Ok(plan) => plan,
        Err(error) => {
            let hint = error.hint_text().map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
            let text =
                format!("error: {}\n{hint}--- exit code {}\n", error.chain().join(": "), error.kind().exit_code());
            return (format!("{}\n--- stdout\n--- stderr\n{text}", case.command()), String::new());
        }
    };
    let mut stdout = String::new();
    if !plan.items.is_empty() {
        stdout = rendered(Format::Table, &rows(&plan), |rows| table(rows, false), false).unwrap() + "\n";
    }
    let stderr: String = talk(&plan).iter().map(|line| format!("{line}\n")).collect();
    let text =
        format!("{}\n--- stdout\n{stdout}--- stderr\n{stderr}--- exit code {}\n", case.command(), exit_code(&plan));
    (text, rendered(Format::Json, &rows(&plan), |rows| table(rows, false), false).unwrap() + "\n")
}

#[test]
fn every_plan_is_as_agreed() {
    let cases = cases();
    assert!(cases.len() >= 25, "{} plans", cases.len());
    let write = std::env::var_os("GOLDEN").is_some_and(|value| value == "write");
    let (mut wrong, mut expected) = (Vec::new(), Vec::new());
    for (path, case) in &cases {
        let (text, json) = printed(case);
        for (extension, text) in [("txt", text), ("json", json)] {
            let file = path.with_extension(extension);
            if write {
                fs::write(&file, &text).unwrap();
            }
            if fs::read_to_string(&file).unwrap_or_default() != text {
                wrong.push(format!("{}:\n{text}", file.display()));
            }
            expected.push(file);
        }
        expected.push(path.clone());
    }
    assert!(wrong.is_empty(), "not as agreed (`GOLDEN=write` accepts it):\n{}", wrong.join("\n"));
    for entry in fs::read_dir(here()).unwrap() {
        let path = entry.unwrap().path();
        assert!(expected.contains(&path), "{} belongs to no plan", path.display());
    }
}

/// What is done need not be done again; what waits or is refused is told again.
#[test]
fn a_plan_that_was_done_leaves_what_waits() {
    for (path, case) in cases() {
        let mut model = case.model();
        let Ok(plan) = compare(&model.situation, &case.wishes()) else { continue };
        model.apply(&plan);
        let mut wishes = case.wishes();
        wishes.replace.retain(|name| plan.refusals().any(|(vm, _)| vm == name));
        let again = model.plan(&wishes);
        let is_due = |change: &Change| change.needs.is_none() && change.class != Class::Refused;
        let due: Vec<_> = again.lines().filter(|(_, change)| is_due(change)).collect();
        assert!(due.is_empty(), "{}: {due:#?}", path.display());
        let waiting = |plan: &crate::plan::Plan| plan.lines().filter(|(_, change)| change.needs.is_some()).count();
        assert_eq!(waiting(&again), waiting(&plan), "{}", path.display());
    }
}

/// Every kind of line is in one of the plans.
#[test]
fn every_field_and_class_is_shown() {
    let mut classes = HashSet::new();
    let mut fields = BTreeSet::new();
    for (_, case) in cases() {
        let Ok(plan) = compare(&case.model().situation, &case.wishes()) else { continue };
        for (_, change) in plan.lines() {
            classes.insert(change.class);
            fields.insert(kind(&change.field));
        }
    }
    use {DiskField as D, NicField as N};
    let (disk, nic) = (|field| Field::Disk("d".parse().unwrap(), field), |field| Field::Nic(0, field));
    let all = [
        Field::Vm,
        Field::Declared,
        Field::Running,
        Field::Template,
        Field::Hypervisor,
        Field::Accel,
        Field::Vcpu,
        Field::VcpuMax,
        Field::Vram,
        Field::VramMax,
        Field::Kernel,
        Field::Initramfs,
        Field::Cmdline,
        Field::Firmware,
        Field::Restart,
        Field::Watchdog,
        Field::Autostart,
        Field::LimitCpus,
        Field::LimitMemory,
        Field::StopTimeout,
        Field::Protect,
        Field::OnRemove,
        Field::UserData,
        Field::Label("l".to_owned()),
        Field::Disks,
    ];
    let disks = [D::Whole, D::Source, D::Size, D::Readonly].map(disk);
    let nics = [
        N::Whole,
        N::Network,
        N::Type,
        N::Bridge,
        N::Address,
        N::Mac,
        N::Mtu,
        N::Vlan,
        N::Ports,
        N::Allow,
        N::Deny,
        N::Rate,
        N::Spoof,
    ]
    .map(nic);
    for field in all.into_iter().chain(disks).chain(nics) {
        assert!(fields.contains(&kind(&field)), "no plan shows `{field}`");
    }
    for class in [
        Class::Create,
        Class::Start,
        Class::Live,
        Class::Restart,
        Class::Replace,
        Class::Stop,
        Class::Delete,
        Class::Refused,
    ] {
        assert!(classes.contains(&class), "no plan shows `{class}`");
    }
}

/// The field, whichever label, disk or NIC it is of.
pub(super) fn kind(field: &Field) -> Field {
    match field {
        Field::Label(_) => Field::Label("l".to_owned()),
        Field::Disk(_, field) => Field::Disk("d".parse().unwrap(), *field),
        Field::Nic(_, field) => Field::Nic(0, *field),
        other => other.clone(),
    }
}
