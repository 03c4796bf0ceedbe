//! A host in memory for tests: it does what a plan says, without a file or a process.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv6Net};
use uuid::Uuid;

use super::{Class, Field, Item, Need, Plan, Seen, Situation, Wishes, Work, compare};
use crate::config::{Config, DeclaredVm, Running, Template};
use crate::host;
use crate::spec::{Accel, Address, Boot, HypervisorKind, Name, Size, State, VmSpec, ip6_of};
use crate::store::Record;
use crate::template::{self, Identity, Overrides, PlannedNic, Resolved, Settled};

/// How large the file is of a disk that has its source's size.
const OF_ITS_SOURCE: Size = Size::gib(2);

#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) situation: Situation,
    /// What `auto` comes to.
    pub(crate) auto: HypervisorKind,
    /// Networks whose bridges are somebody else's.
    pub(crate) foreign: HashSet<Name>,
    /// User data that is told in other words by now.
    pub(crate) rewritten: HashSet<String>,
    pub(crate) unreadable: HashSet<String>,
    numbers: u32,
}

impl Model {
    /// One on which nothing is yet.
    pub(crate) fn new(config: Config) -> Self {
        let mut model = Self {
            situation: Situation { ipv6: true, ..Situation::default() },
            auto: HypervisorKind::CloudHypervisor,
            foreign: HashSet::new(),
            rewritten: HashSet::new(),
            unreadable: HashSet::new(),
            numbers: 0,
        };
        model.configure(config);
        model
    }

    /// From now on this is the config.
    pub(crate) fn configure(&mut self, config: Config) {
        let digest = |vm: &DeclaredVm| {
            let files: Vec<String> = vm.user_data.iter().map(|file| file.display().to_string()).collect();
            if let Some(file) = files.iter().find(|file| self.unreadable.contains(*file)) {
                return Err(format!("cannot read the user data `{file}`: No such file or directory (os error 2)"));
            }
            let told =
                files.iter().map(|file| if self.rewritten.contains(file) { "new " } else { "" }.to_owned() + file);
            Ok(told.reduce(|all, file| all + &file).map(|text| super::digest::hex(text.as_bytes())))
        };
        self.situation.user_data = config.vms.iter().map(|vm| (vm.name.clone(), digest(vm))).collect();
        self.situation.config = config;
    }

    pub(crate) fn plan(&self, wishes: &Wishes) -> Plan {
        compare(&self.situation, wishes).unwrap()
    }

    pub(crate) fn apply(&mut self, plan: &Plan) {
        plan.items.iter().filter(|item| item.is_due()).for_each(|item| self.work(item));
    }

    pub(crate) fn seen(&mut self, name: &str) -> &mut Seen {
        self.situation.seen.iter_mut().find(|seen| seen.record.spec.name.as_str() == name).unwrap()
    }

    fn work(&mut self, item: &Item) {
        let starts = item.changes.iter().any(|change| change.class == Class::Start);
        match &item.work {
            Work::Refused => {}
            Work::Create(entry) => {
                self.forget(|seen| seen.record.spec.name == entry.name);
                self.make(entry, starts);
            }
            Work::Replace(uuid, entry) => {
                let lived = self.seen(entry.name.as_str()).state.is_live();
                self.forget(|seen| seen.record.spec.uuid == *uuid);
                self.make(entry, starts || lived && entry.running != Running::No);
            }
            Work::Delete(uuid) => self.forget(|seen| seen.record.spec.uuid == *uuid),
            Work::Release { vm, stop } => {
                let seen = self.situation.seen.iter_mut().find(|seen| seen.record.spec.uuid == *vm).unwrap();
                seen.record.declared.as_mut().unwrap().removed = true;
                if *stop {
                    seen.state = State::Stopped;
                }
            }
            Work::Alter(alter) => {
                let mut spec = alter.target.clone();
                let due =
                    |field: &Field| item.changes.iter().any(|change| change.needs.is_none() && change.field == *field);
                let anew = due(&Field::Hypervisor);
                let template = alter.template(anew);
                self.make_up_prefixes(&template);
                if anew {
                    let kind = self.hypervisor(&template);
                    (spec.hypervisor, spec.accel) = (kind, self.accel(kind));
                }
                if anew || due(&Field::Firmware) || due(&Field::Kernel) {
                    spec.boot = self.boot(&template, spec.hypervisor);
                }
                let waits = item.changes.iter().any(|change| change.needs == Some(Need::Restart));
                for (nic, planned) in spec.nics.iter_mut().zip(self.nics(&template)).filter(|_| !waits) {
                    if nic.address.is_none() {
                        nic.address = self.address(spec.number, nic.index, &planned);
                    }
                }
                let seen = self.seen(item.vm.as_str());
                seen.disks.retain(|name, _| spec.disks.iter().any(|disk| disk.name == *name));
                for disk in &spec.disks {
                    let file = seen.disks.entry(disk.name.clone()).or_insert(Some(OF_ITS_SOURCE));
                    *file = file.and(disk.size.or(*file));
                }
                seen.state = match alter.run {
                    Some(true) => State::Running,
                    Some(false) => State::Stopped,
                    None => seen.state,
                };
                seen.record.spec = spec;
                seen.record.declared = Some(alter.declared.clone());
            }
        }
    }

    fn forget(&mut self, gone: impl Fn(&Seen) -> bool) {
        self.situation.seen.retain(|seen| !gone(seen));
    }

    fn nics(&self, template: &Template) -> Vec<PlannedNic> {
        template::nics(&self.situation.config, template, &mut |network| {
            let kept = Settled::by_config(network).kept && !self.foreign.contains(&network.name);
            let net6 = self.situation.prefixes.get(&network.name).copied();
            Ok(Settled { kept, ipv6: self.situation.ipv6, net6 })
        })
        .unwrap()
    }

    /// A VM that is made or changed is given what there is by then.
    fn make_up_prefixes(&mut self, template: &Template) {
        for net in &template.nets {
            let network = self.situation.config.network(&net.name);
            if network.is_some_and(|network| network.needs_prefix6() && Settled::by_config(network).kept) {
                let number = net.name.as_str().bytes().map(u16::from).sum();
                let prefix = Ipv6Net::new_assert([0xfd44, 0, 0, number, 0, 0, 0, 0].into(), 64);
                self.situation.prefixes.insert(net.name.clone(), prefix);
            }
        }
    }

    /// What the store would give; the same VM is given the same at the same place.
    fn address(&self, number: u32, nic: u8, planned: &PlannedNic) -> Option<Address> {
        let subnet = planned.subnet.as_ref()?;
        let nth = usize::try_from(number).unwrap() + 64 * usize::from(nic);
        let others = self.situation.seen.iter().map(|seen| &seen.record.spec).filter(|spec| spec.number != number);
        let addresses = others.flat_map(|spec| &spec.nics).filter_map(|nic| nic.address.as_ref());
        let taken: HashSet<Ipv4Addr> = addresses.map(|address| address.ip.addr()).collect();
        // None is given that another has, or is to have; of those so far up none is named.
        let is_free =
            |ip: &Ipv4Addr| !taken.contains(ip) && !self.situation.config.names_address(&planned.network, *ip);
        let mut free = [nth, nth + 128].into_iter().filter_map(|nth| subnet.net.hosts().nth(nth)).filter(is_free);
        let ip = planned.address.or_else(|| free.next())?;
        Some(Address {
            ip6: subnet.net6.map(|net6| ip6_of(subnet.net, ip, net6)),
            gateway6: subnet.gateway6,
            domain: subnet.domain.clone(),
            ..Address::new(Ipv4Net::new_assert(ip, subnet.net.prefix_len()), subnet.gateway, subnet.dns.clone())
        })
    }

    fn hypervisor(&self, template: &Template) -> HypervisorKind {
        match self.situation.named_accel() {
            Some(Accel::Tcg) => HypervisorKind::Qemu,
            _ => self.situation.named_hypervisor(template).unwrap_or(self.auto),
        }
    }

    fn accel(&self, kind: HypervisorKind) -> Accel {
        let usual = if kind == HypervisorKind::Qemu { Accel::Tcg } else { Accel::Kvm };
        self.situation.named_accel().unwrap_or(usual)
    }

    fn boot(&self, template: &Template, kind: HypervisorKind) -> Boot {
        if let Some(kernel) = template.kernel.clone() {
            let cmdline = template.cmdline.clone().unwrap_or_default();
            return Boot::Kernel { kernel, initramfs: template.initramfs.clone(), cmdline };
        }
        let usual = match kind {
            HypervisorKind::CloudHypervisor => "/usr/share/cloud-hypervisor/CLOUDHV.fd",
            HypervisorKind::Qemu => "/usr/share/OVMF/OVMF_CODE_4M.fd",
        };
        let named = self.situation.named_firmware(template, kind);
        let vars = self.situation.named_variables(kind).filter(|_| named.is_some());
        Boot::Firmware { code: named.map_or_else(|| usual.into(), Into::into), vars: vars.map(Into::into) }
    }

    fn make(&mut self, entry: &DeclaredVm, runs: bool) {
        self.numbers += 1;
        // Their MACs differ too.
        let number = u128::from(self.numbers);
        let uuid = Uuid::from_u128(0x8f2f_8a3e_0000_4000_8000_0000_0000_0000 + (number << 80) + number);
        let identity = Identity { uuid, number: self.numbers, name: entry.name.clone() };
        let kind = self.hypervisor(&entry.template);
        self.make_up_prefixes(&entry.template);
        let resolved = Resolved { hypervisor: kind, accel: self.accel(kind), boot: self.boot(&entry.template, kind) };
        let planned = self.nics(&entry.template);
        let addresses: Vec<_> =
            (0..).zip(&planned).map(|(index, planned)| self.address(identity.number, index, planned)).collect();
        let config = &self.situation.config;
        let overrides = Overrides::default();
        let spec =
            template::instantiate(config, &entry.template, &identity, &resolved, &planned, &addresses, &overrides);
        let spec: VmSpec = spec.unwrap();
        let disks = spec.disks.iter().map(|disk| (disk.name.clone(), Some(disk.size.unwrap_or(OF_ITS_SOURCE))));
        let state = if runs { State::Running } else { State::Stopped };
        self.situation.seen.push(Seen {
            state,
            busy: false,
            disks: disks.collect(),
            seed: true,
            record: Record {
                state,
                intent: None,
                exit: None,
                runtime: None,
                owner: None,
                progress: None,
                declared: Some(self.situation.declared(entry)),
                retries: None,
                created_at: host::now(),
                updated_at: host::now(),
                started_at: None,
                spec,
            },
        });
    }
}
