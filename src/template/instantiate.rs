//! From a template to the spec of one VM. What must be asked of the machine (which hypervisor,
//! which firmware, which addresses are free) comes in as arguments, decided by the caller.

use std::fmt::Display;
use std::net::Ipv4Addr;

use uuid::Uuid;

use super::PlannedNic;
use crate::config::{Config, Template, check_vcpu, check_vcpu_max, check_vram, check_vram_max, or_one_of};
use crate::error::{Error, Result, nearest};
use crate::spec::{Accel, Address, Boot, Disk, Forward, HypervisorKind, Label, Name, SPEC_VERSION, Size, VmSpec};

/// Who the VM is; the store gives number and name so that no two VMs share them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub uuid: Uuid,
    pub number: u32,
    pub name: Name,
}

/// What a person asks for in place of the template's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    pub vcpu: Option<u32>,
    pub vram: Option<Size>,
    /// For the first NIC whose network's subnet it is in.
    pub address: Option<Ipv4Addr>,
    /// Beside the template's own, for the first NIC that can have them.
    pub ports: Vec<Forward>,
    /// Beside the template's own, and in place of those of the same name.
    pub labels: Vec<Label>,
}

/// What `auto` and the usual places came to on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    pub hypervisor: HypervisorKind,
    pub accel: Accel,
    pub boot: Boot,
}

/// The template of a name.
pub fn find<'a>(config: &'a Config, name: &str) -> Result<&'a Template> {
    if let Some(template) = config.templates.iter().find(|template| template.name.as_str() == name) {
        return Ok(template);
    }
    let names: Vec<&str> = config.templates.iter().map(|template| template.name.as_str()).collect();
    let hint = match nearest(name, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if names.is_empty() => "the config has no template; add a `[[template.vm]]`".to_owned(),
        None => format!("choose {}", or_one_of(&names)),
    };
    Err(Error::not_found(format!("no template `{}`", name.escape_debug())).hint(hint))
}

/// Everything decided about one VM. `addresses` holds one place for each of the planned NICs, in order.
pub fn instantiate(
    config: &Config,
    template: &Template,
    identity: &Identity,
    resolved: &Resolved,
    planned: &[PlannedNic],
    addresses: &[Option<Address>],
    overrides: &Overrides,
) -> Result<VmSpec> {
    let vcpu = overrides.vcpu.unwrap_or(template.vcpu);
    check_vcpu(vcpu).map_err(|what| out_of_range("vcpu", what))?;
    let vram = overrides.vram.unwrap_or(template.vram);
    check_vram(vram).map_err(|what| out_of_range("vram", what))?;
    let beyond = |key: &str, what: String| {
        Error::usage(format!("the `{key}-max` of the template `{}` {what}", template.name))
            .hint(format!("ask for another `{key}`, or give the template another `{key}-max`"))
    };
    if let Some(max) = template.vcpu_max {
        check_vcpu_max(vcpu, max).map_err(|what| beyond("vcpu", what))?;
    }
    if let Some(max) = template.vram_max {
        check_vram_max(vram, max).map_err(|what| beyond("vram", what))?;
    }
    if planned.len() != addresses.len() {
        return Err(Error::failed(format!(
            "the template `{}` has {} NICs, and {} addresses were given for them",
            template.name,
            planned.len(),
            addresses.len()
        )));
    }
    let nics = (0..=u8::MAX)
        .zip(planned)
        .zip(addresses)
        .map(|((index, planned), address)| planned.nic(identity.uuid, index, address.clone()));
    let mut labels = template.labels.clone();
    for label in &overrides.labels {
        labels.set(label.clone()).map_err(|error| Error::usage(error.to_string()))?;
    }
    Ok(VmSpec {
        version: SPEC_VERSION,
        uuid: identity.uuid,
        number: identity.number,
        name: identity.name.clone(),
        template: template.name.clone(),
        hypervisor: resolved.hypervisor,
        accel: resolved.accel,
        vcpu,
        vram,
        vcpu_max: template.vcpu_max,
        vram_max: template.vram_max,
        boot: resolved.boot.clone(),
        disks: disks(config, template)?,
        nics: nics.collect(),
        seed: true,
        login: None,
        policy: template.policy(),
        labels,
        vsock: Some(VmSpec::cid(identity.uuid)),
    })
}

/// The disks in the template's order, each with the file it is cloned from.
pub fn disks(config: &Config, template: &Template) -> Result<Vec<Disk>> {
    template
        .disks
        .iter()
        .map(|disk| {
            let source = match (&disk.path, &disk.image) {
                (Some(path), _) => Some(path.clone()),
                (None, Some(image)) => {
                    let found = config.image(image).ok_or_else(|| {
                        Error::not_found(format!("no image `{image}` for the disk `{}`", disk.name))
                            .hint("add an `[[image]]` of that name")
                    })?;
                    Some(found.path.clone())
                }
                (None, None) => None,
            };
            Ok(Disk { name: disk.name.clone(), source, size: disk.size, readonly: disk.readonly })
        })
        .collect()
}

fn out_of_range(key: &str, what: impl Display) -> Error {
    Error::usage(format!("`{key}` {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DiskEntry, ImageEntry, LinkEntry, NetEntry, Network, NetworkKind};
    use crate::error::Kind;
    use crate::spec::Mac;
    use crate::template::{Settled, nics};
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn net(network: &str, link: Option<LinkEntry>) -> NetEntry {
        NetEntry { link, ..toml::from_str(&format!("name = '{network}'")).unwrap() }
    }

    fn network(label: &str, kind: NetworkKind) -> Network {
        let own = match kind {
            NetworkKind::Ovs => format!("bridge = 'br-{label}'\nsubnet = '10.44.0.0/24'"),
            NetworkKind::Bridge => format!("bridge = 'br-{label}'\ncreate = true"),
            NetworkKind::User => String::new(),
        };
        let kind = kind.as_str();
        toml::from_str(&format!("name = '{label}'\ntype = '{kind}'\ndns = ['10.44.0.53']\n{own}")).unwrap()
    }

    fn template(nets: Vec<NetEntry>) -> Template {
        let disk = |label: &str, image: Option<&str>, size: Option<Size>| DiskEntry {
            name: name(label),
            path: None,
            image: image.map(name),
            size,
            readonly: false,
        };
        Template {
            vcpu: 2,
            vram: Size::gib(2),
            disks: vec![disk("os", Some("debian-12"), None), disk("data", None, Some(Size::gib(1)))],
            nets,
            ..Template::blank(name("xs"))
        }
    }

    fn config() -> Config {
        Config {
            networks: vec![
                network("main", NetworkKind::Ovs),
                network("lan", NetworkKind::Bridge),
                network("slirp", NetworkKind::User),
            ],
            images: vec![ImageEntry { name: name("debian-12"), path: "/srv/debian-12.qcow2".into() }],
            templates: vec![template(vec![]), Template { name: name("big"), ..template(vec![]) }],
            ..Config::default()
        }
    }

    fn resolved() -> Resolved {
        let boot = Boot::Firmware { code: "/fw/CLOUDHV.fd".into(), vars: None };
        Resolved { hypervisor: HypervisorKind::CloudHypervisor, accel: Accel::Kvm, boot }
    }

    fn planned(template: &Template) -> Vec<PlannedNic> {
        nics(&config(), template, &mut |network| Ok(Settled::by_config(network))).unwrap()
    }

    fn identity(number: u32) -> Identity {
        Identity { uuid: Uuid::from_u128(0x6f1b0a1e_91a7_4d2c_9d52_0123456789ab), number, name: name("web-1") }
    }

    #[test]
    fn templates_are_found_by_name_or_the_nearest_is_told() {
        assert_eq!(find(&config(), "xs").unwrap().name, name("xs"));
        let rows = [("sx", "did you mean `xs`?"), ("XS", "did you mean `xs`?"), ("gigantic", "choose `xs` or `big`")];
        for (wanted, hint) in rows {
            let error = find(&config(), wanted).unwrap_err();
            assert_eq!((error.kind(), error.hint_text()), (Kind::NotFound, Some(hint)), "{wanted}");
            assert!(error.message().contains(wanted), "{error}");
        }
        let error = find(&Config::default(), "xs").unwrap_err();
        assert!(error.hint_text().unwrap().contains("[[template.vm]]"), "{error:?}");
    }

    #[test]
    fn a_spec_has_its_sources_and_overrides() {
        let address = Address::new("10.44.0.2/24".parse().unwrap(), None, vec![]);
        let overrides = Overrides { vcpu: Some(4), vram: Some(Size::mib(512)), ..Overrides::default() };
        let template = template(vec![net("main", None), net("main", None)]);
        let addresses = [Some(address.clone()), None];
        let spec =
            instantiate(&config(), &template, &identity(7), &resolved(), &planned(&template), &addresses, &overrides)
                .unwrap();
        assert_eq!((spec.vcpu, spec.vram, spec.seed), (4, Size::mib(512), true));
        assert_eq!(spec.disks[0].source.as_deref(), Some(std::path::Path::new("/srv/debian-12.qcow2")));
        assert_eq!((&spec.disks[1].source, spec.disks[1].size), (&None, Some(Size::gib(1))));
        assert_eq!(spec.nics[0].address, Some(address));
        assert_eq!(spec.nics[1].port(spec.number), "v7n1");
        assert_eq!(spec.boot, resolved().boot);
        assert_eq!(spec.vsock, Some(VmSpec::cid(spec.uuid)));
    }

    #[test]
    fn overrides_have_the_templates_limits() {
        let vcpu = |vcpu| Overrides { vcpu: Some(vcpu), ..Overrides::default() };
        let rows = [
            (vcpu(0), "`vcpu` must be from 1 to 255, not `0`"),
            (vcpu(256), "`vcpu` must be from 1 to 255, not `256`"),
            (
                Overrides { vram: Some(Size::mib(15)), ..Overrides::default() },
                "`vram` must be from 16MiB to 16TiB, not `15MiB`",
            ),
        ];
        let template = template(vec![]);
        for (overrides, message) in rows {
            let spec =
                instantiate(&config(), &template, &identity(1), &resolved(), &planned(&template), &[], &overrides);
            let error = spec.unwrap_err();
            assert_eq!((error.kind(), error.message()), (Kind::Usage, message));
        }
    }

    #[test]
    fn overrides_leave_room_to_grow() {
        let template = Template { vcpu_max: Some(4), vram_max: Some(Size::gib(4)), ..template(vec![]) };
        let rows = [
            (Some(4), None, None),
            (Some(5), None, Some("the `vcpu-max` of the template `xs` is 4, less than the `vcpu` of 5")),
            (None, Some(Size::mib(3968)), None),
            (None, Some(Size::gib(4)), None),
            (
                None,
                Some(Size::mib(1000)),
                Some(
                    "the `vram-max` of the template `xs` is 4GiB, and must be the `vram` of 1000MiB, or more by a multiple of 128MiB",
                ),
            ),
        ];
        for (vcpu, vram, message) in rows {
            let overrides = Overrides { vcpu, vram, ..Overrides::default() };
            let spec =
                instantiate(&config(), &template, &identity(1), &resolved(), &planned(&template), &[], &overrides);
            match spec {
                Ok(spec) => assert_eq!((spec.vcpu_max, spec.vram_max, message), (Some(4), Some(Size::gib(4)), None)),
                Err(error) => {
                    assert_eq!((error.kind(), Some(error.message())), (Kind::Usage, message));
                    assert!(error.hint_text().unwrap().starts_with("ask for another `v"), "{error:?}");
                }
            }
        }
    }

    #[test]
    fn each_nic_needs_its_address_place() {
        let template = template(vec![net("main", None)]);
        let spec = instantiate(
            &config(),
            &template,
            &identity(1),
            &resolved(),
            &planned(&template),
            &[],
            &Overrides::default(),
        );
        assert!(spec.unwrap_err().message().contains("1 NICs, and 0 addresses"));
    }

    proptest! {
        #[test]
        fn any_vm_has_distinct_macs_short_ports_and_survives_json(
            uuid: u128,
            number: u32,
            nics in 0..=crate::config::MAX_NICS,
            label in "[a-z]([a-z0-9-]{0,61}[a-z0-9])?",
            mib in 16u64..1 << 20,
            vcpu in 1u32..=255,
        ) {
            let identity = Identity { uuid: Uuid::from_u128(uuid), number, name: name(&label) };
            let overrides = Overrides { vcpu: Some(vcpu), vram: Some(Size::mib(mib)), ..Overrides::default() };
            let template = template(vec![net("main", None); nics]);
            let addresses = vec![None; nics];
            let spec = instantiate(&config(), &template, &identity, &resolved(), &planned(&template), &addresses, &overrides).unwrap();
            let macs: HashSet<Mac> = spec.nics.iter().map(|nic| nic.mac).collect();
            prop_assert_eq!(macs.len(), nics);
            let ports: HashSet<String> = spec.nics.iter().map(|nic| nic.port(number)).collect();
            prop_assert_eq!(ports.len(), nics);
            for port in ports {
                prop_assert!(port.len() <= 15, "{}", port);
            }
            let json = serde_json::to_string(&spec).unwrap();
            prop_assert_eq!(serde_json::from_str::<VmSpec>(&json).unwrap(), spec);
        }
    }
}
