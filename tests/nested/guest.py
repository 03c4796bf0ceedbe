"""A guest's life, and what every guest must show: the same in all tests."""

import subprocess
import time
from pathlib import Path

from host import (
    BOOT, COMMAND, RUNTIME, STATE, STOP,
    devices, equal, eventually, hypervisors, info, row, rows, run, said, seconds, shown, unit, v,
)

# What every guest must show.

def is_not_root(name):
    """The hypervisor has lost all that root gave it."""
    seen = info(name)
    equal(seen["hypervisor_user"], "virshle-vm", "whom its hypervisor runs as")
    status = Path(f"/proc/{seen['hypervisor_pid']}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    equal((fields["CapEff"], fields["CapBnd"], fields["NoNewPrivs"]), ("0" * 16, "0" * 16, "1"), "its privileges")


def is_a_unit(name):
    """systemd's process is the supervisor, and the hypervisor is in the unit's cgroup."""
    of, seen = unit(name), info(name)
    wanted = {"ActiveState": "active", "MainPID": str(seen["supervisor_pid"]), "StatusText": f"{name}: running"}
    equal(shown(of, *wanted), wanted, f"`{of}`")
    group = Path(f"/proc/{seen['hypervisor_pid']}/cgroup").read_text().strip()
    assert group.endswith(f"/virshle.slice/{of}"), f"the hypervisor's cgroup: {group}"


def create(name, template):
    created = seconds(f"{name}: create (copies the image)", lambda: v("vm", "create", "-t", template, "-n", name))
    equal(row(name)["state"], "stopped", "state after create")
    return created.stderr


def start(name, how=""):
    seconds(f"{name}: start{how} to running", lambda: v("vm", "start", name))
    begin = time.monotonic()
    equal(row(name)["state"], "running", "state after start")
    v("vm", "wait", name, "--timeout", str(BOOT), timeout=BOOT + COMMAND)
    print(f"measured: {name}: running{how} to ssh: {time.monotonic() - begin:.1f} s", flush=True)


def is_the_guest_that_was_made(name, address, virtualisation="kvm"):
    vm = row(name)
    equal(vm["address"], address, "address of the record")
    # In one go: each login takes seconds here.
    facts = {
        "hostname": ("hostname", name),
        "the caller's own name": ("id -un", "tester"),
        "sudo": ("sudo -n id -un", "root"),
        "what it runs on": ("systemd-detect-virt", virtualisation),
        "static address": ("ip -4 -o address show scope global | awk '{print $4}'", f"{address}/24"),
        "MAC": (f"ip -o link | grep -c {vm['nics'][0]['mac']}", "1"),
        "the gateway answers": ("ping -c 1 -W 5 $(ip route show default | cut -d' ' -f3) >/dev/null && echo yes", "yes"),
        "the root file system has grown over 1.5 GiB": ("test $(df --output=size / | tail -n 1) -gt 1572864 && echo yes", "yes"),
    }
    got = said(name, "; ".join(f"echo $({command})" for command, _ in facts.values())).split("\n")
    equal(dict(zip(facts, got)), {what: wanted for what, (_, wanted) in facts.items()}, "the guest")
    is_not_root(name)
    is_a_unit(name)


def is_reached_without_a_network(name):
    """Its NIC goes down, and ssh still gets in: over cloud-hypervisor's hybrid socket."""
    equal(info(name)["spec"]["vsock"] is not None, True, "its line to this host")
    address = row(name)["address"]
    nic = said(name, "basename $(dirname $(ls -d /sys/class/net/*/device))")
    said(name, f"sudo ip link set {nic} down")
    assert run("ping", "-c", "1", "-W", "2", address, ok=False).returncode != 0, "it answers with its NIC down"
    equal(said(name, f"cat /sys/class/net/{nic}/operstate; hostname"), f"down\n{name}", "`v vm ssh`")
    config = Path("/root/ssh_config")
    config.write_text(v("ssh-config").stdout)
    got = run("ssh", "-F", str(config), f"vm/{name}", f"cat /sys/class/net/{nic}/operstate; hostname").stdout.strip()
    equal(got, f"down\n{name}", "`ssh vm/<name>`")
    said(name, f"sudo ip link set {nic} up")
    eventually("it answers again", lambda: run("ping", "-c", "1", "-W", "2", address, ok=False).returncode == 0, 60)


def waits_for_its_switch(name):
    """A pause would hang until the switch is back; one that was in time is taken back."""
    paused = v("vm", "pause", name, ok=False)
    if paused.returncode == 0:
        v("vm", "resume", name)
        return False
    assert "waits for its switch" in paused.stderr, paused.stderr
    return True


def vhost_socket(name):
    return RUNTIME / "vm" / row(name)["uuid"] / "hv/n0.sock"


def reboot(name):
    """The guest reboots itself: for this host the VM runs on, with the same process and the same port."""
    before = said(name, "cat /proc/sys/kernel/random/boot_id")
    process = info(name)["hypervisor_pid"]
    log = len(v("vm", "log", name).stdout)

    def new_boot():
        try:
            now = v("vm", "ssh", name, "--", "cat /proc/sys/kernel/random/boot_id", timeout=30, ok=False).stdout.strip()
        except subprocess.TimeoutExpired:
            return False
        return now not in ("", before)

    def through():
        v("vm", "ssh", name, "--", "sudo systemctl reboot", ok=False)
        eventually("the guest has rebooted", new_boot, BOOT)

    seconds(f"{name}: reboot from inside, to ssh", through)
    equal(row(name)["state"], "running", "state after a reboot")
    equal(info(name)["hypervisor_pid"], process, "process after a reboot")
    assert len(v("vm", "log", name).stdout) > log, "its console is still kept"


def stop(name):
    seconds(
        f"{name}: stop by the power button",
        lambda: v("vm", "stop", name, "--timeout", str(STOP), timeout=STOP + COMMAND),
    )
    equal(row(name)["last_exit"], {"reason": "stopped"}, "the exit of a stop")
    equal(row(name)["state"], "stopped", "state after a stop")
    eventually("its unit has ended", lambda: shown(unit(name), "ActiveState")["ActiveState"] == "inactive")


def delete(name):
    port = row(name)["nics"][0]["port"]
    v("vm", "delete", name)
    equal(rows(), [], "VMs after delete")
    equal(hypervisors(), [], "hypervisors after delete")
    units = lambda: run("systemctl", "list-units", "--all", "--plain", "-q", "virshle-vm@*").stdout
    eventually("no unit is left", lambda: units() == "")
    assert port not in devices(), f"`{port}` is still there"
    for folder in (STATE / "vm", RUNTIME / "vm"):
        left = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
        equal(left, [], f"what is left in {folder}")
