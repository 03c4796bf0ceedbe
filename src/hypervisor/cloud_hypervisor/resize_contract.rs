//! More for a guest that runs: by the program's own account, and by what the kernel says of it.

use super::*;
use crate::spec::Name;

fn mib(mib: u64) -> Size {
    Size::mib(mib)
}

/// With room for two more vCPUs and nine more modules of memory. The payload takes every word from
/// the hypervisor for its button, so it is one that listens to none.
fn roomy(bench: &Bench) -> VmSpec {
    let spec = bench.spec(Variant::Halt);
    VmSpec { vcpu_max: Some(3), vram: mib(64), vram_max: Some(mib(64 + 9 * 128)), ..spec }
}

async fn booted(bench: &Bench, spec: &VmSpec) -> (Box<dyn Machine>, UnixStream) {
    let mut machine = bench.start(spec, SOON).await.unwrap();
    let mut console = UnixStream::connect(bench.run(spec).join("serial.sock")).await.unwrap();
    machine.boot().await.unwrap();
    assert_eq!(event(machine.as_mut()).await, MachineEvent::Booted);
    line(&mut console, payload::LINE).await;
    (machine, console)
}

/// What it says of itself: its memory and its vCPUs.
async fn has(run: &Path) -> (u64, u64) {
    let info = info(run).await;
    (info["memory_actual_size"].as_u64().unwrap() >> 20, info["config"]["cpus"]["boot_vcpus"].as_u64().unwrap())
}

pub(super) async fn memory_and_cpus(bench: &Bench) {
    let spec = roomy(bench);
    let run = bench.run(&spec);
    let (mut machine, _console) = booted(bench, &spec).await;
    assert_eq!(has(&run).await, (64, 1));
    machine.grow_memory(mib(64 + 128)).await.unwrap();
    machine.grow_memory(mib(64 + 128)).await.unwrap();
    machine.add_cpus(3).await.unwrap();
    machine.add_cpus(3).await.unwrap();
    assert_eq!(has(&run).await, (192, 3));

    let rows = [
        (machine.grow_memory(mib(200)).await, "The requested hotplug memory addition is not a valid size"),
        (machine.grow_memory(mib(64 + 10 * 128)).await, "Not enough space in the hotplug RAM region"),
        (machine.grow_memory(mib(64)).await, "it has 201326592, and 67108864 was asked for"),
        (machine.add_cpus(4).await, "Requested vCPUs exceed maximum"),
        (machine.add_cpus(1).await, "it has 3, and 1 was asked for"),
    ];
    for (refused, words) in rows {
        let error = refused.unwrap_err();
        assert!(error.message().starts_with("cloud-hypervisor could not give the guest more"), "{error}");
        assert_eq!(last(&error), words, "{:?}", error.chain());
    }
    assert_eq!(has(&run).await, (192, 3), "nothing of it was done, and nothing noted for a reboot");
    machine.kill().await.unwrap();
}

pub(super) async fn slots(bench: &Bench) {
    let spec = roomy(bench);
    let (mut machine, _console) = booted(bench, &spec).await;
    for module in 1..=8 {
        machine.grow_memory(mib(64 + module * 128)).await.unwrap();
    }
    let error = machine.grow_memory(mib(64 + 9 * 128)).await.unwrap_err();
    assert_eq!(last(&error), "No ACPI slot available", "{:?}", error.chain());
    assert_eq!(has(&bench.run(&spec)).await.0, 64 + 8 * 128);
    machine.kill().await.unwrap();
}

pub(super) async fn no_room(bench: &Bench) {
    let spec = bench.spec(Variant::Echo);
    let (mut machine, mut console) = booted(bench, &spec).await;
    machine.grow_memory(spec.vram).await.unwrap();
    machine.add_cpus(spec.vcpu).await.unwrap();
    machine.grow_memory(mib(64 + 128)).await.unwrap_err();
    machine.add_cpus(2).await.unwrap_err();
    assert_eq!(has(&bench.run(&spec)).await, (64, 1));
    console.write_all(b"hello").await.unwrap();
    line(&mut console, "hello").await;
    machine.kill().await.unwrap();
}

pub(super) async fn disks(bench: &Bench) {
    let mut spec = roomy(bench);
    let disk = Disk { name: "data".parse().unwrap(), source: None, size: None, readonly: false };
    let path = bench.dir.path().join(disk.file());
    fs::write(&path, [7; 1 << 16]).unwrap();
    spec.disks.push(disk.clone());
    let (mut machine, _console) = booted(bench, &spec).await;
    let length = || path.metadata().unwrap().len();
    for size in [mib(4), mib(4), mib(9)] {
        machine.grow_disk(0, &disk.name, size).await.unwrap();
        assert_eq!(length(), size.bytes());
    }
    let other: Name = "other".parse().unwrap();
    let rows = [
        (machine.grow_disk(0, &disk.name, Size::from_bytes(10_000_001)).await, "not a multiple of 512"),
        (machine.grow_disk(0, &other, mib(20)).await, "disk-other"),
    ];
    for (refused, words) in rows {
        let error = refused.unwrap_err();
        assert!(last(&error).contains(words), "{:?}", error.chain());
    }
    assert_eq!(length(), mib(9).bytes());
    machine.kill().await.unwrap();
    assert_eq!(fs::read(&path).unwrap()[..1 << 16], [7; 1 << 16], "what was on it is there");
}
