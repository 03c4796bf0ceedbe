"""The nested host: its programs, what `v` says of its VMs, and how they are looked at from here."""

import json
import os
import subprocess
import time
from pathlib import Path

TEST = Path("/test")
GUEST = TEST / "guest"
FIRMWARE = TEST / "firmware/CLOUDHV.fd"
CONFIG = Path("/etc/virshle/config.toml")
STATE = Path("/var/lib/virshle")
RUNTIME = Path("/run/virshle")

# An emulated processor runs another one's virtualisation here: only a hang can miss these.
COMMAND = 120
BOOT = 400
STOP = 180


class Skip(Exception):
    pass


class Later(Exception):
    """What is left of the test belongs to this host's next life."""


def run(*argv, timeout=COMMAND, ok=True):
    """Runs a program to its end under a deadline, and returns what it printed."""
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout
    )
    if ok and done.returncode != 0:
        raise AssertionError(f"`{' '.join(argv)}` ended with {done.returncode}: {done.stderr.strip()}")
    return done


def v(*args, timeout=COMMAND, ok=True):
    return run("v", *args, timeout=timeout, ok=ok)


def seconds(what, work):
    """Does the work and prints how long it took."""
    start = time.monotonic()
    result = work()
    print(f"measured: {what}: {time.monotonic() - start:.1f} s", flush=True)
    return result


def equal(got, wanted, what):
    assert got == wanted, f"{what}: {got!r}, not {wanted!r}"


def eventually(what, holds, timeout=30):
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.2)


def rows():
    return json.loads(v("vm", "ls", "-o", "json").stdout)


def row(name):
    return next(row for row in rows() if row["name"] == name)


def info(name):
    return json.loads(v("vm", "info", name, "-o", "json").stdout)[0]


def said(name, command):
    return v("vm", "ssh", name, "--", command).stdout.strip()


def devices():
    return {link["ifname"] for link in json.loads(run("ip", "-json", "link").stdout)}


def unit(name):
    return f"virshle-vm@{row(name)['uuid']}.service"


def shown(unit, *properties):
    """What systemd says of a unit."""
    lines = run("systemctl", "show", "--property", ",".join(properties), unit).stdout.splitlines()
    return dict(line.split("=", 1) for line in lines)


def hypervisors():
    """The hypervisors' processes, by what they execute; one that has ended but is not yet reaped has no `exe`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            program = os.readlink(process / "exe")
        except OSError:
            continue
        if "cloud-hypervisor" in program or "qemu-system" in program:
            found.append(f"{process.name} {program}")
    return found


def clean_up():
    for left in rows():
        v("vm", "delete", "--force", left["name"], ok=False)


def evidence():
    """What helps to understand a failure: the VMs, the ends of their logs, the host kernel's words."""
    for left in rows():
        print(f"--- {left['name']}: {left['state']}, {left['last_exit']}")
    for log in sorted([*STATE.glob("vm/*/*.log"), *Path("/var/log/openvswitch").glob("*.log")]):
        print(f"--- the end of {log}")
        print(log.read_text(errors="replace")[-4000:])
    columns = "--columns=name,type,ofport,error,link_state,status"
    ports = run("ovs-vsctl", "--timeout=5", columns, "list", "Interface", ok=False).stdout
    if ports:
        print(f"--- the switch's ports\n{ports}")
    print("--- the end of what the VMs' units said")
    print(run("journalctl", "-q", "--no-pager", "-n", "60", "-u", "virshle*", ok=False).stdout)
    print("--- the end of this host's kernel log")
    print("\n".join(run("dmesg").stdout.splitlines()[-20:]))
