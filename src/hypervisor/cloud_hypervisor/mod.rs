//! The cloud-hypervisor driver: one process per VM, driven over the REST API on a unix socket.
//!
//! ```text
//! spawn (API socket already listening: fd 3, events: fd 4)
//!   └► vmm.ping (version) ─► vm.create ─► vm.add-net + tap, for each ─► a Machine ─► vm.boot
//! ```
//!
//! The API answers one call at a time and `vm.boot` blocks without an end of its own while a
//! vhost-user socket waits for its switch, so every call has a deadline here. What fails before the
//! guest runs has its process killed and waited for; the error carries the API's own chain of
//! causes and, when the process ended by itself, the last lines it wrote. `vm.boot` is never tried
//! twice: a failed one has already taken devices out of the server's copy of the configuration.
//!
//! The process ends by itself, with exit code 0, when the guest powers off. When the guest reboots
//! it stays, but its serial socket is made anew and the connection to the old one ends. A vCPU that
//! fails looks like a power-off, but for a line in the log: it is told as an end with exit code 1.

mod client;
mod config;
#[cfg(test)]
mod contract;
mod descriptor;
mod events;
mod firmware;
mod hotplug;
mod process;
mod resize;
mod version;

pub use firmware::firmware;
pub use version::{Version, version};

use async_trait::async_trait;

use super::{Call, Capabilities, Driver, Launch, Machine, Resize, Script, Spawned, UserNetworks};
use crate::error::{OrFailed, Result};
use crate::host::Handle;
use crate::spec::{HypervisorKind, Link};
use client::Request;
use config::{Net, VmConfig};

#[derive(Debug)]
pub struct CloudHypervisor;

#[async_trait(?Send)]
impl Driver for CloudHypervisor {
    fn kind(&self) -> HypervisorKind {
        HypervisorKind::CloudHypervisor
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            vhost: true,
            tap: true,
            user: UserNetworks::Passt,
            firmware: true,
            efi_vars: false,
            kernel: true,
            tcg: false,
            // passt takes its ports when it starts, and no more after.
            resize: Resize { memory: true, cpus: cfg!(target_arch = "x86_64"), forwards: false },
        }
    }

    fn script(&self, launch: &Launch<'_>) -> Result<Script> {
        let call = |request: &Request, note: Option<&str>| Call {
            request: format!("{} {}", request.method, request.path()),
            body: request.body.clone(),
            note: note.map(str::to_owned),
        };
        let plan = Plan::of(launch, Version::CURRENT)?;
        let mut calls =
            vec![call(&Request::get("vmm.ping"), Some("version 52 or later")), call(&plan.create, Some(CREATE_NOTE))];
        calls.extend(
            plan.add_nets.iter().map(|(_, request)| call(request, Some("with the tap's descriptor (SCM_RIGHTS)"))),
        );
        calls.push(call(&boot(), None));
        let program = launch.program.display().to_string();
        let mut argv = vec![program.clone()];
        argv.extend(ARGS.map(str::to_owned));
        let socket = launch.api_socket();
        let by_hand = vec![program, ARGS[0].to_owned(), format!("path={}", socket.display())];
        Ok(Script { helpers: Vec::new(), argv, by_hand, socket, calls })
    }

    async fn launch(&self, launch: Launch<'_>, spawned: &Spawned<'_>) -> Result<Box<dyn Machine>> {
        Ok(Box::new(process::launch(launch, spawned).await?))
    }

    async fn adopt(&self, launch: Launch<'_>, process: Handle) -> Result<Box<dyn Machine>> {
        Ok(Box::new(process::adopt(&launch, process).await?))
    }
}

/// What differs from host to host, so that a script is the same on all.
const CREATE_NOTE: &str = "for version 52, `platform` has the names `uuid` and `serial_number`; \
                           without `landlock_…` where the kernel has none (`v doctor`)";

/// The descriptors' numbers in the process, and what tells it of them.
const API_FD: i32 = 3;
const EVENTS_FD: i32 = 4;
const ARGS: [&str; 4] = ["--api-socket", "fd=3", "--event-monitor", "fd=4"];

/// The calls that describe the VM: what a script shows is what a launch sends.
#[derive(Debug)]
struct Plan {
    create: Request,
    /// By NIC index; each goes with its tap's descriptor.
    add_nets: Vec<(u8, Request)>,
}

impl Plan {
    fn of(launch: &Launch<'_>, version: Version) -> Result<Self> {
        let unwritable = || "cannot write the VM's configuration as JSON".to_owned();
        let create = Request::put_json("vm.create", &VmConfig::of(launch, version)?).or_failed(unwritable)?;
        let mut add_nets = Vec::new();
        for nic in &launch.spec.nics {
            if let Link::Tap { .. } = nic.link {
                let net = Net::tap(nic, launch.offload(nic));
                let request = Request::put_json("vm.add-net", &net).or_failed(unwritable)?;
                add_nets.push((nic.index, request));
            }
        }
        Ok(Self { create, add_nets })
    }
}

fn boot() -> Request {
    Request::put("vm.boot")
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::error::Kind;
    use crate::host::Gate;
    use crate::hypervisor::Vsock;
    use crate::spec::{Accel, Boot, Disk, Nic, Size, Switch, VmSpec};

    fn spec(links: Vec<Link>) -> VmSpec {
        let uuid = "6f1b0a1e-91a7-4d2c-9d52-0123456789ab".parse().unwrap();
        let disk = |name: &str, readonly| Disk { name: name.parse().unwrap(), source: None, size: None, readonly };
        let nics = (0..).zip(links).map(|(index, link)| Nic::new(uuid, index, "main".parse().unwrap(), link));
        VmSpec {
            number: 7,
            vcpu: 2,
            vram: Size::gib(2),
            boot: Boot::Firmware { code: "/fw/CLOUDHV.fd".into(), vars: None },
            disks: vec![disk("os", false), disk("tools", true)],
            nics: nics.collect(),
            seed: true,
            ..VmSpec::sample(uuid)
        }
    }

    fn vhost() -> Link {
        Link::Vhost { bridge: "vsbr0".into(), create: false }
    }

    fn tap() -> Link {
        Link::Tap { bridge: "br0".into(), switch: Switch::Bridge, create: false }
    }

    fn script(spec: &VmSpec) -> Result<Script> {
        CloudHypervisor.script(&launch(spec, Path::new("/vm")))
    }

    fn launch<'a>(spec: &'a VmSpec, dir: &'a Path) -> Launch<'a> {
        Launch {
            spec,
            program: Path::new("/bin/cloud-hypervisor"),
            dir,
            run: Path::new("/run/vm"),
            gate: Gate { program: PathBuf::new(), runner: None },
            landlock: true,
            taps: Vec::new(),
            ssh: None,
            vsock: spec.vsock.map(|_| Vsock::Own),
            log: Path::new("/vm/launch.log"),
            deadline: Duration::from_secs(1),
        }
    }

    #[test]
    fn the_whole_script() {
        let script = script(&spec(vec![vhost(), tap()])).unwrap();
        assert_eq!(script.argv, ["/bin/cloud-hypervisor", "--api-socket", "fd=3", "--event-monitor", "fd=4"]);
        let requests: Vec<_> = script.calls.iter().map(|call| call.request.as_str()).collect();
        assert_eq!(
            requests,
            ["GET /api/v1/vmm.ping", "PUT /api/v1/vm.create", "PUT /api/v1/vm.add-net", "PUT /api/v1/vm.boot"]
        );
        assert_eq!(
            script.calls[1].body,
            Some(json!({
                "cpus": { "boot_vcpus": 2, "max_vcpus": 2 },
                "memory": { "size": 2_u64 << 30, "shared": true },
                "payload": { "firmware": "/fw/CLOUDHV.fd" },
                "disks": [
                    { "id": "disk-os", "path": "/vm/os.raw", "readonly": false, "image_type": "Raw", "num_queues": 2 },
                    { "id": "disk-tools", "path": "/vm/tools.raw", "readonly": true, "image_type": "Raw", "num_queues": 2 },
                    { "id": "seed", "path": "/vm/seed.img", "readonly": true, "image_type": "Raw", "num_queues": 1 },
                ],
                "net": [{
                    "id": "net0", "mac": "6e:1b:0a:1e:91:a7", "num_queues": 2,
                    "vhost_user": true, "vhost_mode": "Server", "vhost_socket": "/run/vm/n0.sock",
                }],
                "rng": { "src": "/dev/urandom" },
                "serial": { "mode": "Socket", "socket": "/run/vm/serial.sock" },
                "console": { "mode": "Off" },
                "platform": {
                    "system_uuid": "6f1b0a1e-91a7-4d2c-9d52-0123456789ab",
                    "system_serial_number": "6f1b0a1e-91a7-4d2c-9d52-0123456789ab",
                },
                "landlock_enable": true,
                "landlock_rules": [{ "path": "/run/vm", "access": "rw" }],
            }))
        );
        assert_eq!(script.calls[2].body, Some(json!({ "id": "net1", "mac": "6e:1b:0a:1e:91:a8", "num_queues": 2 })));
        assert!(script.calls[2].note.as_deref().unwrap().contains("descriptor"));
        assert_eq!((&script.calls[0].body, &script.calls[3].body), (&None, &None));
    }

    #[test]
    fn memory_is_shared_for_vhost_only_and_a_kernel_comes_with_its_words() {
        let mut spec = spec(vec![tap()]);
        spec.boot = Boot::Kernel { kernel: "/k".into(), initramfs: Some("/i".into()), cmdline: "quiet \"x\"".into() };
        spec.vcpu = 64;
        let body = script(&spec).unwrap().calls[1].body.clone().unwrap();
        assert_eq!(body["memory"]["shared"], json!(false));
        assert_eq!(body["payload"], json!({ "kernel": "/k", "cmdline": "quiet \"x\"", "initramfs": "/i" }));
        assert_eq!(body["disks"][0]["num_queues"], json!(4));
        assert_eq!(body["net"], json!(null));
    }

    #[test]
    fn room_for_more_is_made_where_there_is_to_be_some() {
        let mut spec = spec(vec![]);
        let body = |spec: &VmSpec| script(spec).unwrap().calls[1].body.clone().unwrap();
        let without = body(&spec);
        (spec.vcpu_max, spec.vram_max) = (Some(2), Some(Size::gib(2)));
        assert_eq!(body(&spec), without, "no more than it begins with");
        (spec.vcpu_max, spec.vram_max) = (Some(8), Some(Size::gib(3)));
        let roomy = body(&spec);
        assert_eq!(roomy["cpus"], json!({ "boot_vcpus": 2, "max_vcpus": 8 }));
        let memory = json!({
            "size": 2_u64 << 30, "shared": false, "hotplug_method": "Acpi", "hotplug_size": 1_u64 << 30,
        });
        assert_eq!(roomy["memory"], memory);
        assert_eq!(roomy["disks"], without["disks"], "no disk has more queues than there are vCPUs at first");
    }

    #[test]
    fn a_user_network_is_passt_which_maps_the_memory() {
        let body = script(&spec(vec![tap(), Link::User])).unwrap().calls[1].body.clone().unwrap();
        assert_eq!(body["memory"]["shared"], json!(true));
        assert_eq!(
            body["net"],
            json!([{
                "id": "net1", "mac": "6e:1b:0a:1e:91:a8", "num_queues": 2,
                "vhost_user": true, "vhost_mode": "Client", "vhost_socket": "/run/vm/n1.sock",
            }])
        );
    }

    #[test]
    fn a_line_is_there_for_a_vm_that_has_a_number() {
        let mut spec = spec(vec![tap()]);
        spec.vsock = Some(1_073_741_900);
        let body = script(&spec).unwrap().calls[1].body.clone().unwrap();
        assert_eq!(body["vsock"], json!({ "id": "vsock", "cid": 1_073_741_900, "socket": "/run/vm/vsock.sock" }));
        assert_eq!(body["memory"]["shared"], json!(false), "nobody else maps it");
        let mut older = launch(&spec, Path::new("/vm"));
        older.vsock = None;
        assert_eq!(CloudHypervisor.script(&older).unwrap().calls[1].body.as_ref().unwrap().get("vsock"), None);
    }

    #[test]
    fn version_52_reads_the_older_names() {
        let spec = spec(vec![]);
        let plan = Plan::of(&launch(&spec, Path::new("/vm")), Version { major: 52, minor: 1, patch: 0 }).unwrap();
        let platform = &plan.create.body.unwrap()["platform"];
        assert_eq!(platform["uuid"], json!("6f1b0a1e-91a7-4d2c-9d52-0123456789ab"));
        assert_eq!(platform.as_object().unwrap().len(), 2);
    }

    #[test]
    fn what_it_cannot_do_is_bad_usage_that_names_who_can() {
        let mut tcg = spec(vec![]);
        tcg.accel = Accel::Tcg;
        let error = script(&tcg).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.hint_text().unwrap().contains("qemu"));
    }

    #[test]
    fn a_path_that_json_cannot_hold() {
        use std::os::unix::ffi::OsStrExt;
        let spec = spec(vec![]);
        let dir = PathBuf::from(std::ffi::OsStr::from_bytes(b"/vm\xff"));
        let error = CloudHypervisor.script(&launch(&spec, &dir)).unwrap_err();
        assert!(error.message().contains("not UTF-8"), "{error}");
    }
}
