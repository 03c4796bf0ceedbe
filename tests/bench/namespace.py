"""A network namespace of the measurement's own, and a private Open vSwitch with DPDK in it."""

import ctypes
import os
import pathlib
import shutil
import signal
import tempfile
import time

from measure import need, run, skip

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
SWITCH = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk"
HUGEPAGES = pathlib.Path("/proc/sys/vm/nr_hugepages")
PAGES = 256


class Namespace:
    """This process lives in it until it leaves; what is started meanwhile stays there."""

    def __init__(self):
        if os.geteuid() != 0:
            skip("a network namespace needs root")
        need("ip")
        self.before = [os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("net", "mnt")]
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.check(self.libc.unshare(CLONE_NEWNET | CLONE_NEWNS))
        run(["mount", "--make-rprivate", "/"])
        # /sys shows the network of whoever has mounted it.
        run(["mount", "-t", "sysfs", "sysfs", "/sys"])
        run(["ip", "link", "set", "lo", "up"])

    def check(self, result):
        if result != 0:
            raise OSError(ctypes.get_errno(), "a namespace")

    def leave(self):
        for descriptor, kind in zip(self.before, (CLONE_NEWNET, CLONE_NEWNS)):
            self.check(self.libc.setns(descriptor, kind))
            os.close(descriptor)


class Switch:
    """Its files lie in a folder of their own; nothing of a system-wide switch is read or changed."""

    def __init__(self):
        for program in ("ovsdb-tool", "ovsdb-server", "ovs-vsctl", "ovs-appctl"):
            need(program)
        if not os.path.exists(SWITCH):
            skip("Open vSwitch with DPDK is not installed")
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="virshle-ovs-"))
        self.db = f"unix:{self.dir}/db.sock"
        self.env = os.environ | {name: str(self.dir) for name in ("OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR")}
        self.pages = HUGEPAGES.read_text()
        HUGEPAGES.write_text(str(int(self.pages) + PAGES))
        log = ["-vconsole:off", "-vsyslog:off", "--detach", f"--log-file={self.dir}/log"]
        pid = lambda name: f"--pidfile={self.dir}/{name}.pid"
        try:
            self.run("ovsdb-tool", "create", f"{self.dir}/conf.db", SCHEMA)
            self.run("ovsdb-server", f"{self.dir}/conf.db", f"--remote=p{self.db}", pid("ovsdb"), *log)
            # An idle switch does not take a core from the guests.
            self.vsctl("--no-wait", "init", "--", "set", "Open_vSwitch", ".", "other_config:dpdk-init=true",
                       'other_config:dpdk-extra="--no-pci --in-memory"', "other_config:pmd-maxsleep=50")
            self.run(SWITCH, self.db, pid("switch"), f"--unixctl={self.dir}/ctl", *log)
            self.vsctl("show")
        except BaseException:
            self.end()
            raise

    def run(self, *argv):
        return run(list(argv), 30, env=self.env)

    def vsctl(self, *args):
        return self.run("ovs-vsctl", f"--db={self.db}", "--timeout=20", *args)

    def bridge(self, name):
        self.vsctl("add-br", name, "--", "set", "Bridge", name, "datapath_type=netdev")

    def vhost_port(self, bridge, name, socket):
        self.vsctl("add-port", bridge, name, "--", "set", "Interface", name, "type=dpdkvhostuserclient",
                   f"options:vhost-server-path={socket}")

    def end(self):
        try:
            for bridge in self.vsctl("list-br").split():
                self.vsctl("del-br", bridge)
            self.run("ovs-appctl", f"--target={self.dir}/ctl", "--timeout=5", "exit", "--cleanup")
        except RuntimeError:
            pass  # it has not come up, and is ended below
        for name in ("switch", "ovsdb"):
            self.kill(self.dir / f"{name}.pid")
        HUGEPAGES.write_text(self.pages)
        shutil.rmtree(self.dir, ignore_errors=True)

    def kill(self, file):
        """Its pid file is in our own folder, and goes with the process."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            until = time.monotonic() + 5
            while file.exists() and time.monotonic() < until:
                try:
                    pid = int(file.read_text())
                    if str(self.dir) not in pathlib.Path(f"/proc/{pid}/cmdline").read_text():
                        return
                    os.kill(pid, number)
                except (OSError, ValueError):
                    return
                time.sleep(0.05)
