"""(c) `v vm ls` with 1,000 VMs beside `virsh list --all` with 1,000 domains."""

import os
import pathlib
import subprocess
import time

import start
from measure import Row, Skip, alternate, ms, need, run, timed

COUNT = 1000
NOBODY = 65534


class Libvirt:
    """A libvirtd of our own in session mode. Root has no session, so it runs as nobody then."""

    def __init__(self, stage):
        self.virsh, daemon = need("virsh"), need("libvirtd")
        need("qemu-system-x86_64")
        self.dir = stage.dir / "libvirt"
        self.env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(self.dir)}
        folders = {"XDG_RUNTIME_DIR": "run", "XDG_CONFIG_HOME": "config", "XDG_CACHE_HOME": "cache",
                   "XDG_DATA_HOME": "data"}
        for name, folder in folders.items():
            (self.dir / folder).mkdir(parents=True)
            self.env[name] = str(self.dir / folder)
        self.user = {}
        if os.geteuid() == 0:
            self.user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
            for folder in (self.dir, *self.dir.iterdir()):
                os.chown(folder, NOBODY, NOBODY)
            # Nobody must be able to reach it.
            stage.dir.chmod(0o711)
        self.log = self.dir / "log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([daemon], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env,
                                            cwd="/", start_new_session=True, **self.user)
        stage.callback(self.end)
        self.wait(pathlib.Path(self.env["XDG_RUNTIME_DIR"]) / "libvirt" / "libvirt-sock")

    def wait(self, socket):
        until = time.monotonic() + 30
        while not socket.exists():
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"libvirtd does not listen: {self.log.read_text(errors='replace')[-500:]}")
            time.sleep(0.01)

    def argv(self, *args):
        return [self.virsh, "-c", "qemu:///session", *args]

    def run(self, *args, **more):
        return run(self.argv(*args), 600, env=self.env, cwd="/", **self.user, **more)

    def define(self, count):
        commands = []
        for index in range(count):
            file = self.dir / f"vm-{index}.xml"
            file.write_text(f"<domain type='qemu'><name>vm-{index}</name><memory unit='MiB'>64</memory>"
                            "<vcpu>1</vcpu><os><type arch='x86_64'>hvm</type></os></domain>")
            file.chmod(0o644)
            commands.append(f"define {file}\n")
        self.run(input="".join(commands))
        defined = len(self.run("list", "--all", "--name").split())
        if defined != count:
            raise RuntimeError(f"libvirt has {defined} domains and should have {count}")

    def end(self):
        # Its domains never ran and are files in our folder.
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def rows(stage, runs):
    stage.needs_kvm()
    root = stage.root("ls", start.template(stage))
    made = root.timed("vm", "create", "-t", "halt", "-n", "vm", "--count", str(COUNT), deadline=600)
    found = len(root.json("vm", "ls"))
    if found != COUNT:
        raise RuntimeError(f"`v vm ls` has {found} VMs and should have {COUNT}")
    note = f"making the {COUNT} VMs took {made:.1f} s"
    what = f"`v vm ls` with {COUNT:,} VMs"
    ls = lambda: root.timed("vm", "ls")
    try:
        libvirt = Libvirt(stage)
        libvirt.define(COUNT)
    except Skip as reason:
        [alone] = alternate(runs or 21, ls)
        yield Row(what, ms(alone), f"skipped: {reason}", 0, "", runs=len(alone), notes=[note])
        root.end()
        return
    virsh = lambda: timed(libvirt.argv("list", "--all"), env=libvirt.env, cwd="/", **libvirt.user)
    by_v, by_virsh = alternate(runs or 21, ls, virsh)
    yield Row.ratio(f"{what}, over `virsh list --all` with as many domains", by_v, by_virsh, 0.2, [note])
    libvirt.end()
    root.end()
