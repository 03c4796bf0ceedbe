"""VMs as units of the host's own systemd: stopped by it, kept by it, and through the end of a host."""

import json
import os
import re
import shlex
import shutil
import signal
import tempfile
import time
from datetime import datetime
from pathlib import Path

from guest import create, delete, is_a_unit, is_the_guest_that_was_made, start, stop
from host import (
    BOOT, COMMAND, STATE, STOP, TEST, Later,
    equal, eventually, info, row, run, said, seconds, shown, unit, v,
)

LINES = "/home/tester/lines"
# Says a number only once it is on the guest's disk.
WRITER = f"n=0; while :; do n=$((n+1)); echo $n >>{LINES} && sync {LINES} && echo $n; done"
# Where the guest's root file system begins on its disk.
ROOT = 65 << 20
# What the first life of this host leaves for the second: what the guest said it had written.
LEFT = Path("/var/lib/nested")


def numbers(text):
    return [int(line) for line in re.findall(r"^(\d+)\n", text, re.M)]


class Writer:
    """A guest that writes, and a unit of this host's that hears what it says: until the guest hangs up, also
    while the host goes down, for a unit that starts before another is stopped after it."""

    def __init__(self, name, folder):
        folder.mkdir(parents=True, exist_ok=True)
        self.heard = folder / "heard"
        script = folder / "hear"
        script.write_text(f"exec v vm ssh {name} -- {shlex.quote(WRITER)}\n")
        self.unit = f"hear-{name}.service"
        run(
            "systemd-run", "--quiet", f"--unit={self.unit}", "--collect", f"--property=Before={unit(name)}",
            f"--property=StandardOutput=append:{self.heard}", "--setenv=HOME=/root", "--setenv=USER=tester",
            "sh", str(script),
        )
        eventually("the guest writes", lambda: len(self.said()) >= 20, 120)

    def said(self):
        return numbers(self.heard.read_text()) if self.heard.exists() else []

    def end(self):
        run("systemctl", "stop", self.unit, ok=False)


def nothing_is_lost(written, said):
    """What a guest has acknowledged, it has."""
    got = numbers(written)
    equal(got, list(range(1, len(got) + 1)), "what the guest wrote, with nothing torn or missing")
    assert said and len(got) >= said[-1], f"the guest said that {said[-1:]} is on its disk, and has {len(got)}"
    print(f"measured: lines acknowledged: {len(said)}, found: {len(got)}", flush=True)


def was_orderly(journal):
    assert "Power key pressed" in journal, f"it was not the power button:\n{journal[-2000:]}"
    assert "Reached target poweroff.target" in journal, f"the shutdown was not orderly:\n{journal[-2000:]}"


def disk(name):
    folder = STATE / "vm" / row(name)["uuid"]
    (found,) = [path for path in folder.iterdir() if path.stat().st_size == 2 << 30]
    return f"{found}?offset={ROOT}"


def a_stop_by_the_service_manager():
    """`systemctl stop`, in the middle of a guest's writes; then its disk is looked at from outside."""
    name = "asked"
    create(name, "direct")
    # By systemd alone, too.
    seconds(f"{name}: systemctl start", lambda: run("systemctl", "start", unit(name)))
    v("vm", "wait", name, "--timeout", str(BOOT), timeout=BOOT + COMMAND)
    is_a_unit(name)
    writer = Writer(name, Path(tempfile.mkdtemp()))
    seconds(f"{name}: systemctl stop", lambda: run("systemctl", "stop", unit(name), timeout=STOP + COMMAND))
    equal((row(name)["state"], row(name)["last_exit"]), ("stopped", {"reason": "stopped"}), "what is recorded")
    writer.end()

    checked = run("e2fsck", "-f", "-n", disk(name), ok=False)
    equal(checked.returncode, 0, f"the file system's check: {checked.stdout}{checked.stderr}; its status")
    nothing_is_lost(run("debugfs", "-R", f"cat {LINES}", disk(name)).stdout, writer.said())
    folder = tempfile.mkdtemp()
    run("debugfs", "-R", f"rdump /var/log/journal {folder}", disk(name))
    was_orderly(run("journalctl", "-q", "--no-pager", "-o", "cat", "-D", f"{folder}/journal").stdout)
    shutil.rmtree(folder)
    delete(name)


def adoptions(name):
    history = json.loads(v("vm", "history", name, "-o", "json").stdout)
    return sum(entry["what"] == "adopted" for entry in history)


def a_killed_supervisor_and_a_replaced_program():
    """What happens to supervisors is nothing to their guests."""
    name = "watched"
    create(name, "direct")
    start(name)
    before = info(name)
    boot = said(name, "cat /proc/sys/kernel/random/boot_id")

    def is_the_same():
        is_a_unit(name)
        equal(info(name)["hypervisor_pid"], before["hypervisor_pid"], "the hypervisor's process")
        equal(said(name, "cat /proc/sys/kernel/random/boot_id"), boot, "the guest's boot")

    def kill():
        os.kill(before["supervisor_pid"], signal.SIGKILL)
        eventually("it is adopted", lambda: adoptions(name) == 1 and not row(name)["unwatched"], 60)

    seconds(f"{name}: supervisor killed, to adopted", kill)
    is_the_same()
    equal(shown(unit(name), "NRestarts"), {"NRestarts": "1"}, "restarts that systemd counts")

    # As a package does it: a new file under the old name.
    shutil.copy(TEST / "bin/v", "/usr/bin/v.new")
    os.rename("/usr/bin/v.new", "/usr/bin/v")
    supervisor = info(name)["supervisor_pid"]
    program = lambda: os.readlink(f"/proc/{supervisor}/exe")
    equal(program(), "/usr/bin/v (deleted)", "what the supervisor runs")

    def hand_over():
        run("systemctl", "reload", unit(name))
        eventually("it is adopted by the new program", lambda: adoptions(name) == 2 and not row(name)["unwatched"], 60)

    seconds(f"{name}: systemctl reload, to adopted by the new program", hand_over)
    equal((info(name)["supervisor_pid"], program()), (supervisor, "/usr/bin/v"), "the supervisor")
    is_the_same()
    stop(name)
    delete(name)


def the_host_goes_down_and_comes_back():
    """A guest that writes while its host shuts down; in the host's next life it runs again."""
    name = "kept"
    if not LEFT.exists():
        create(name, "kept")
        start(name)
        is_a_unit(name)
        Writer(name, LEFT)
        raise Later

    history = json.loads(v("vm", "history", name, "-o", "json").stdout)
    ends = [entry for entry in history if entry.get("exit")]
    equal([end["exit"] for end in ends], [{"reason": "stopped"}], "how its runs ended")
    asked = next(entry for entry in history if entry["what"] == "state" and entry["to"] == "stopping")
    took = datetime.fromisoformat(ends[0]["time"]) - datetime.fromisoformat(asked["time"])
    print(f"measured: {name}: its host's shutdown to its own end: {took.total_seconds():.1f} s", flush=True)
    told = run("journalctl", "-q", "--no-pager", "-o", "cat", "-b", "-u", "virshle-autostart.service").stdout
    assert f"started `{name}`" in told, f"virshle-autostart.service said: {told}"
    wanted = {"ActiveState": "active", "Result": "success"}
    equal(shown("virshle-autostart.service", *wanted), wanted, "virshle-autostart.service")
    is_a_unit(name)
    v("vm", "wait", name, "--timeout", str(BOOT), timeout=BOOT + COMMAND)
    print(f"measured: {name}: boot of the host to ssh: {time.clock_gettime(time.CLOCK_BOOTTIME):.1f} s", flush=True)
    is_the_guest_that_was_made(name, row(name)["address"])
    was_orderly(said(name, "sudo journalctl -b -1 -o cat --no-pager"))
    nothing_is_lost(said(name, f"cat {LINES}") + "\n", numbers((LEFT / "heard").read_text()))
    stop(name)
    delete(name)
