"""Where the measurements are made: one temporary folder, removed at the end with all that runs from it."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from measure import need, run, skip, timed

PAYLOAD = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "payload.S"

NODE = '[node]\nhypervisor = "cloud-hypervisor"\naccel = "kvm"\n'


class Stage(contextlib.ExitStack):
    def __init__(self, program, place):
        super().__init__()
        self.program = program
        # Sockets lie below it, and their paths are limited: a short name.
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="v-", dir=place))
        self.callback(shutil.rmtree, self.dir, ignore_errors=True)

    def root(self, name, template, place=None, node=NODE):
        """A new root for `v` with one template in it."""
        root = Root(self.program, (place or self.dir) / name)
        root.config(node + template)
        self.callback(root.end)
        return root

    def payload(self):
        """The guest that stops at once: built as the tests build it."""
        elf = self.dir / "payload.elf"
        if not elf.exists():
            if os.uname().machine != "x86_64":
                skip("the payload is for x86-64")
            cc, ld = need("cc"), need("ld")
            object_file = self.dir / "payload.o"
            run([cc, "-c", "-DHALT", "-o", str(object_file), str(PAYLOAD)])
            run([ld, "-static", "-nostdlib", "-N", "--build-id=none", "-Ttext=0x100000", "-e", "_start", "-o",
                 str(elf), str(object_file)])
        return elf

    def needs_kvm(self):
        program = need("cloud-hypervisor")
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            skip("/dev/kvm cannot be opened")
        return program


class Root:
    """A private world for `v`."""

    def __init__(self, program, path):
        self.program, self.path = program, path
        home = path / "home"
        home.mkdir(parents=True)
        self.env = {"PATH": os.environ["PATH"], "HOME": str(home), "USER": "bench", "LANG": "C.UTF-8", "TZ": "UTC",
                    "VIRSHLE_ROOT": str(path)}

    def config(self, text):
        folder = self.path / "etc" / "virshle"
        folder.mkdir(parents=True)
        (folder / "config.toml").write_text(text)

    def v(self, *args, deadline=300):
        return run([self.program, *args], deadline, env=self.env)

    def timed(self, *args, deadline=300):
        return timed([self.program, *args], deadline, env=self.env)

    def json(self, *args):
        return json.loads(self.v(*args, "-o", "json"))

    def start(self, *names):
        return self.timed("vm", "start", *names)

    def stop(self, *names):
        self.v("vm", "stop", "--force", "--timeout", "0", *names)

    def end(self):
        """Nothing runs on; a `v` that fails here must not keep the rest from being removed."""
        try:
            live = [row["name"] for row in self.json("vm", "ls") if row["state"] not in ("stopped", "crashed")]
            if live:
                self.stop(*live)
        except (RuntimeError, ValueError, OSError, subprocess.TimeoutExpired) as error:
            print(f"stopping by hand what runs in {self.path}: {error}", file=sys.stderr)
        until = time.monotonic() + 10
        while ours := processes_of(self.path):
            for pid in ours:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > until:
                raise RuntimeError(f"the processes {ours} do not end")
            time.sleep(0.01)
        shutil.rmtree(self.path, ignore_errors=True)


def processes_of(path):
    """Supervisors have the root in their arguments, hypervisors write to a log below it; both names are ours alone."""
    mark, found = str(path), []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if mark.encode() in words or os.readlink(entry / "fd" / "1").startswith(mark + "/"):
                found.append(int(entry.name))
        except OSError:
            continue  # it ended meanwhile, or is another user's
    return found
