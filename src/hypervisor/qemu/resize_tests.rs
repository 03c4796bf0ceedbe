//! More for a guest that runs, by QEMU's own account and by the host's.

use std::net::{TcpListener, TcpStream};

use serde_json::Value;

use super::*;
use crate::hypervisor::qemu::qmp::Qmp;
use crate::hypervisor::qemu::resize::ask;
use crate::spec::{Forward, Nic};

fn mib(mib: u64) -> Size {
    Size::mib(mib)
}

/// 64 MiB and 2 vCPUs, with room for nine modules of memory and two more vCPUs.
fn roomy(bench: &Bench) -> VmSpec {
    VmSpec { vcpu_max: Some(4), vram_max: Some(mib(64 + 9 * 128)), ..bench.spec(Then::Halt) }
}

async fn booted(bench: &Bench, spec: &VmSpec) -> Box<dyn Machine> {
    let mut machine = bench.launch(spec).await.unwrap();
    machine.boot().await.unwrap();
    assert_eq!(next(&mut machine).await, MachineEvent::Booted);
    machine
}

/// What a client says that comes after the machine's own.
async fn another_client(bench: &Bench, query: &str) -> Value {
    let mut qmp = Qmp::new(UnixStream::connect(bench.path("r,n/api.sock")).await.unwrap());
    qmp.handshake(PATIENCE).await.unwrap();
    ask(&mut qmp, query, None).await.unwrap()
}

fn words(refused: Result<(), Error>) -> String {
    let error = refused.unwrap_err();
    error.chain().into_iter().chain(error.hint_text().map(str::to_owned)).collect::<Vec<_>>().join(": ")
}

#[tokio::test(flavor = "current_thread")]
async fn memory_and_cpus_are_added_also_after_an_adoption() {
    let Some(bench) = Bench::new() else { return };
    let spec = roomy(&bench);
    let mut machine = booted(&bench, &spec).await;
    for size in [64, 64 + 128, 64 + 128, 64 + 3 * 128] {
        machine.grow_memory(mib(size)).await.unwrap();
    }
    machine.add_cpus(3).await.unwrap();
    let process = machine.handle();
    machine.leave();
    let summary = another_client(&bench, "query-memory-size-summary").await;
    assert_eq!((&summary["base-memory"], &summary["plugged-memory"]), (&(64 << 20).into(), &(384 << 20).into()));

    let (run, log) = (bench.path("r,n"), bench.path("launch.log"));
    let mut machine = Qemu.adopt(bench.plan(&spec, &run, &log), process).await.unwrap();
    machine.grow_memory(mib(64 + 4 * 128)).await.unwrap();
    machine.add_cpus(4).await.unwrap();
    let rows = [
        (
            machine.add_cpus(5).await,
            "QEMU could not give the guest more vCPUs: it has 4 vCPUs, and no place for another",
        ),
        (machine.add_cpus(3).await, "it has 4, and 3 was asked for"),
        (machine.grow_memory(mib(64)).await, "it has 603979776, and 67108864 was asked for"),
        (machine.grow_memory(mib(64 + 40 * 128)).await, "not enough space"),
    ];
    for (refused, expected) in rows {
        let said = words(refused);
        assert!(said.contains(expected), "{said}");
    }
    // What was refused is not left half done.
    machine.grow_memory(mib(64 + 5 * 128)).await.unwrap();
    machine.leave();
    assert_eq!(another_client(&bench, "query-cpus-fast").await.as_array().map(Vec::len), Some(4));
    assert_eq!(another_client(&bench, "query-memory-devices").await.as_array().map(Vec::len), Some(4));
    let mut machine = Qemu.adopt(bench.plan(&spec, &run, &log), process).await.unwrap();
    machine.kill().await.unwrap();
    assert_eq!(bench.processes(), [0; 0]);
}

#[tokio::test(flavor = "current_thread")]
async fn memory_is_added_eight_times() {
    let Some(bench) = Bench::new() else { return };
    let spec = roomy(&bench);
    let mut machine = booted(&bench, &spec).await;
    for module in 1..=8 {
        machine.grow_memory(mib(64 + module * 128)).await.unwrap();
    }
    let said = words(machine.grow_memory(mib(64 + 9 * 128)).await);
    assert!(said.contains("slots"), "{said}");
    machine.kill().await.unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn a_guest_without_room_goes_on_as_it_is() {
    let Some(bench) = Bench::new() else { return };
    let spec = bench.spec(Then::Halt);
    let mut machine = booted(&bench, &spec).await;
    machine.grow_memory(spec.vram).await.unwrap();
    machine.add_cpus(spec.vcpu).await.unwrap();
    for refused in [machine.grow_memory(mib(64 + 128)).await, machine.add_cpus(3).await] {
        let said = words(refused);
        assert!(said.starts_with("QEMU could not give the guest more"), "{said}");
    }
    machine.pause().await.unwrap();
    machine.resume().await.unwrap();
    machine.kill().await.unwrap();
}

/// A switch maps the guest's memory: what is added must be shared as well.
#[tokio::test(flavor = "current_thread")]
async fn memory_that_is_added_is_shared_where_the_rest_is() {
    let Some(bench) = Bench::new() else { return };
    let mut spec = roomy(&bench);
    spec.nics = vec![sample::nic(spec.uuid, 0, sample::vhost())];
    let socket = bench.path("r,n/n0.sock");
    let switch = std::thread::spawn(move || backend(&socket));
    let mut machine = booted(&bench, &spec).await;
    machine.grow_memory(mib(64 + 128)).await.unwrap();
    let process = machine.handle();
    machine.leave();
    let backends = another_client(&bench, "query-memdev").await;
    for id in ["mem", "dimm0-mem"] {
        let found = backends.as_array().unwrap().iter().find(|found| found["id"] == id);
        assert_eq!(found.map(|found| &found["share"]), Some(&true.into()), "{id}: {backends}");
    }
    let (run, log) = (bench.path("r,n"), bench.path("launch.log"));
    let mut machine = Qemu.adopt(bench.plan(&spec, &run, &log), process).await.unwrap();
    machine.kill().await.unwrap();
    switch.join().unwrap().join().unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn a_disk_grows() {
    let Some(bench) = Bench::new() else { return };
    let mut spec = bench.spec(Then::Halt);
    spec.disks = vec![sample::disk("os", false), sample::disk("data", false)];
    for disk in &spec.disks {
        std::fs::write(bench.path(&disk.file()), vec![7; 1 << 20]).unwrap();
    }
    let mut machine = booted(&bench, &spec).await;
    let length = |disk: usize| bench.path(&spec.disks[disk].file()).metadata().unwrap().len();
    for size in [mib(4), mib(4), mib(9)] {
        machine.grow_disk(1, &spec.disks[1].name, size).await.unwrap();
        assert_eq!((length(0), length(1)), (1 << 20, size.bytes()));
    }
    let said = words(machine.grow_disk(2, &spec.disks[1].name, mib(9)).await);
    assert!(said.contains("disk2"), "{said}");
    machine.kill().await.unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn forwarded_ports_come_and_go() {
    let Some(mut bench) = Bench::new() else { return };
    let mut spec = bench.spec(Then::Halt);
    let nic = |index, port: u16| Nic {
        forwards: vec![format!("127.0.0.1:{port}:80").parse().unwrap()],
        ..sample::nic(spec.uuid, index, Link::User)
    };
    let [ssh, first, second, third] = [(); 4].map(|()| free_port());
    spec.nics = vec![nic(0, first), nic(1, second)];
    bench.ssh = Some(SocketAddrV4::new(Ipv4Addr::LOCALHOST, ssh));
    let mut machine = booted(&bench, &spec).await;
    let open = |port| TcpStream::connect(("127.0.0.1", port)).is_ok();
    assert!(open(ssh) && open(first) && open(second) && !open(third));

    let wanted = |texts: &[String]| -> Vec<Forward> { texts.iter().map(|text| text.parse().unwrap()).collect() };
    let kept = format!("127.0.0.1:{ssh}:22");
    let lists = [
        vec![kept.clone(), format!("127.0.0.1:{third}:80"), format!("{}:53/udp", free_port())],
        vec![kept.clone()],
        vec![kept.clone(), format!("{third}:8080")],
    ];
    for (list, expected) in lists.iter().zip([(false, true), (false, false), (false, true)]) {
        for time in ["once", "again"] {
            machine.forward(&spec.nics[0], &wanted(list)).await.unwrap();
            assert_eq!((open(first), open(third)), expected, "{list:?} {time}");
            assert!(open(ssh) && open(second), "the others stay");
        }
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = format!("127.0.0.1:{}:80", taken.local_addr().unwrap().port());
    let said = words(machine.forward(&spec.nics[0], &wanted(&[kept, format!("{first}:80"), other])).await);
    assert_eq!((open(first), open(third), open(ssh)), (false, true, true), "they are what they were");
    assert!(
        said.starts_with("QEMU could not change the forwarded ports: QEMU said of `hostfwd_add net0 tcp:"),
        "{said}"
    );
    assert!(said.ends_with("a forwarded port is taken by another program"), "{said}");
    machine.kill().await.unwrap();
}
