"""(h) Networks: TCP throughput of guests that `v` runs beside the same ones started by hand on a bare bridge; how
long a network takes to come up; and what the thousandth address costs."""

import contextlib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import time

from bare_guest import BareGuest
from measure import Row, Skip, alternate, need, run, skip, timed
from namespace import Namespace, Switch

HERE = pathlib.Path(__file__).resolve().parent
NODE = '[node]\nhypervisor = "qemu"\naccel = "tcg"\nuser = "nobody"\n'
PORT = 5000
SECONDS = 2
RUNS = 7
COUNT = 1000
BOOT = 120


def rows(stage, runs):
    for part in (throughput, bring_up, allocation):
        try:
            yield from part(stage, runs)
        except Skip as reason:
            yield Row.skipped(part.__doc__.splitlines()[0].rstrip("."), reason)


@contextlib.contextmanager
def alone(stage):
    """In a network of its own. Its name server and its QEMU do not run as root: they pass through our folder."""
    space = Namespace()
    stage.dir.chmod(0o711)
    try:
        with contextlib.ExitStack() as undo:
            yield undo
    finally:
        space.leave()


class Small:
    """The guest without a disk: a kernel, a NIC, and the program that moves bytes."""

    def __init__(self, stage):
        need("qemu-system-x86_64")
        guest = pathlib.Path(run([str(HERE.parent / "guest" / "build")], 1800).strip())
        folder = stage.dir / "small"
        folder.mkdir(exist_ok=True)
        self.program, self.kernel, self.initrd = folder / "throughput", folder / "vmlinuz", folder / "initrd"
        if not self.initrd.exists():
            run([need("cc"), "-static", "-O2", "-o", str(self.program), str(HERE / "throughput.c")])
            shutil.copy(guest / "vmlinuz", self.kernel)
            tree = folder / "tree" / "bin"
            tree.mkdir(parents=True)
            shutil.copy(self.program, tree / "program")
            archive = subprocess.run([need("cpio"), "-o", "-H", "newc", "--quiet"], input=b"bin\nbin/program\n",
                                     cwd=tree.parent, stdout=subprocess.PIPE, check=True).stdout
            # The kernel unpacks one archive after the other; each begins at a multiple of four.
            first = (guest / "initrd-net").read_bytes()
            self.initrd.write_bytes(first + b"\0" * (-len(first) % 4) + archive)

    def template(self, name, append, net):
        return (f'[[template.vm]]\nname = "{name}"\nvcpu = 1\nvram = "192MiB"\nkernel = "{self.kernel}"\n'
                f'initramfs = "{self.initrd}"\ncmdline = "{append}"\n[[template.vm.net]]\n{net}')

    @staticmethod
    def append(address):
        return f"console=ttyS0 quiet mitigations=off guest.address={address}/24"


def ask(where, line):
    with socket.create_connection(where, timeout=60) as stream:
        stream.sendall(line.encode() + b"\n")
        answer = stream.makefile().readline()
    if not (found := re.fullmatch(r"(\d+) (\d+)\n", answer)):
        raise RuntimeError(f"{where} to `{line}`: {answer!r}")
    return int(found[1]) * 8e9 / int(found[2])


def answers(where, deadline=BOOT):
    """Until the guest's program does: a connection that takes one line, and no bytes."""
    until = time.monotonic() + deadline
    while True:
        try:
            with socket.create_connection(where, timeout=2) as stream:
                stream.sendall(b"sink\n")
                stream.shutdown(socket.SHUT_WR)
                if stream.makefile().readline() == "0 0\n":
                    return
        except OSError:
            pass
        if time.monotonic() > until:
            raise RuntimeError(f"the guest at {where[0]}:{where[1]} does not answer")
        time.sleep(0.1)


def throughput(stage, runs):
    """TCP throughput."""
    for kind in ("tap", "user", "vhost"):
        try:
            yield from throughput_of(kind, stage, runs)
        except Skip as reason:
            yield Row.skipped(f"TCP throughput, {kind}", reason)


def throughput_of(kind, stage, runs):
    small = Small(stage)
    with alone(stage) as undo:
        undo.callback(end, subprocess.Popen([str(small.program), str(PORT)], stdin=subprocess.DEVNULL))
        switch = None
        node = NODE
        if kind == "vhost":
            switch = Switch()
            undo.callback(switch.end)
            node += f'ovs-db = "{switch.db}"\n'
        ours, theirs = ([f"{net}.11", f"{net}.12"] for net in ("10.80.0", "10.81.0"))
        if kind == "user":
            ours = theirs = ["10.0.2.15"] * 2
            network = ""
            nets = [f'name = "slirp"\ntype = "user"\nports = ["127.0.0.1:{5101 + at}:{PORT}"]\n' for at in (0, 1)]
        else:
            of = {"tap": "bridge", "vhost": "ovs"}[kind]
            network = f'[[network]]\nname = "ours"\ntype = "{of}"\nbridge = "ours0"\nsubnet = "10.80.0.0/24"\n'
            nets = [f'name = "ours"\naddress = "{address}"\n' for address in ours]
        templates = [small.template(name, small.append(address), net)
                     for name, address, net in zip("ab", ours, nets)]
        root = stage.root(f"net-{kind}", network + "".join(templates), node=node)
        undo.callback(root.end)
        if kind != "user":
            undo.callback(down, root)
        for name in "ab":
            root.v("vm", "create", "-t", name, "-n", name)
        root.v("vm", "start", "a", "b")
        undo.callback(root.v, "vm", "stop", "--all", "--force", "--timeout", "0")

        if kind == "tap":
            run(["ip", "link", "add", "bare0", "type", "bridge"])
        elif kind == "vhost":
            switch.bridge("bare0")
        if kind != "user":
            run(["ip", "address", "add", "10.81.0.1/24", "dev", "bare0"])
            run(["ip", "link", "set", "bare0", "up"])
        for at, name in enumerate("ab"):
            bare = BareGuest(root, name, stage.dir / f"bare-{kind}-{name}", small.append(theirs[at]), at + 1,
                             forward=5103 + at, bridge="bare0", switch=switch)
            undo.callback(bare.end)

        if kind == "user":
            asked = [("127.0.0.1", 5101), ("127.0.0.1", 5103)]
            sinks = ["10.0.2.2"] * 2
            peers = [("10.0.2.2", 5102), ("10.0.2.2", 5104)]
            for port in (5102, 5104):
                answers(("127.0.0.1", port))
        else:
            asked = [(ours[0], PORT), (theirs[0], PORT)]
            sinks = ["10.80.0.1", "10.81.0.1"]
            peers = [(ours[1], PORT), (theirs[1], PORT)]
            answers(peers[0])
            answers(peers[1])
        for where in asked:
            answers(where)
        through = " (through the other's forwarded port)" if kind == "user" else ""
        for what, to in ((f"guest to host, {kind}", [(sink, PORT) for sink in sinks]),
                         (f"guest to guest, {kind}{through}", peers)):
            sides = [lambda at=at: ask(asked[at], f"send {to[at][0]} {to[at][1]} {SECONDS}") for at in (0, 1)]
            by_v, by_hand = alternate(runs or RUNS, *sides)
            yield Row.rates(f"TCP throughput {what}, over the same guest by hand", by_v, by_hand, 0.95)


def end(process):
    process.kill()
    process.wait()


def down(root):
    root.v("network", "down", "--all")


def bring_up(stage, runs):
    """A served network comes up."""
    for program in ("nft", "dnsmasq"):
        need(program)
    with alone(stage) as undo:
        network = '[[network]]\nname = "ours"\ntype = "bridge"\nbridge = "ours0"\nsubnet = "10.80.0.0/24"\n'
        root = stage.root("net-up", network, node=NODE)
        undo.callback(root.end)
        undo.callback(down, root)
        root.v("network", "up", "ours")
        by_hand = commands_of("ours0", root, stage.dir / "net-by-hand")
        down(root)

        def v():
            took = root.timed("network", "up", "ours")
            down(root)
            return took

        def hand():
            took = sum(timed(argv) for argv in by_hand)
            subprocess.run(["nft", "delete", "table", "inet", "by_hand"], check=False, stderr=subprocess.DEVNULL)
            subprocess.run(["nft", "delete", "table", "bridge", "by_hand"], check=False, stderr=subprocess.DEVNULL)
            server = stage.dir / "net-by-hand" / "pid"
            os.kill(int(server.read_text()), 9)
            run(["ip", "link", "delete", "ours0"])
            return took

        taken, others = alternate(runs or 21, v, hand)
        note = "a network by hand: " + ", ".join(" ".join(argv[:4]) for argv in by_hand)
        yield Row.ratio("`v network up` of a served network, over the same commands by hand", taken, others,
                        notes=[note])


def commands_of(bridge, root, folder):
    """What would make by hand what `v` has made: read back from what is there."""
    folder.mkdir()
    lines = [["ip", "link", "add", bridge, "type", "bridge"]]
    for line in run(["ip", "-o", "address", "show", "dev", bridge]).splitlines():
        family, address = line.split()[2:4]
        if not address.startswith("fe80"):
            lines.append(["ip", "-4" if family == "inet" else "-6", "address", "add", address, "dev", bridge]
                         + (["nodad"] if family == "inet6" else []))
    lines.append(["ip", "link", "set", bridge, "up"])
    lines.append(["sysctl", "-q", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])
    rules = run(["nft", "list", "ruleset"])
    (folder / "rules").write_text(re.sub(r"\bvirshle\w*", "by_hand", rules))
    lines.append(["nft", "-f", str(folder / "rules")])
    argv = server_of(root)
    runtime = root.path / "run" / "virshle" / "net"
    shutil.copytree(runtime, folder / "net", ignore=lambda place, names: [
        name for name in names if not (pathlib.Path(place, name).is_file() or pathlib.Path(place, name).is_dir())])
    argv = [word.replace(str(runtime), str(folder / "net")) for word in argv
            if word not in ("--keep-in-foreground", "-k") and not word.startswith("--pid-file")]
    for file in (folder / "net").rglob("*"):
        if file.is_file():
            with contextlib.suppress(UnicodeDecodeError):
                text = file.read_text().replace(str(runtime), str(folder / "net")).replace("keep-in-foreground\n", "")
                file.write_text("".join(line for line in text.splitlines(True) if not line.startswith("pid-file")))
    lines.append(argv + [f"--pid-file={folder / 'pid'}"])
    return lines


def server_of(root):
    mark = str(root.path)
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
                if words and words[0].endswith("dnsmasq") and any(mark in word for word in words):
                    return words
    skip("no dnsmasq serves the network")


def allocation(stage, runs):
    """An address among a thousand."""
    template = ('[[network]]\nname = "ours"\ntype = "bridge"\nbridge = "ours0"\nsubnet = "10.80.0.0/16"\n'
                f'[[template.vm]]\nname = "one"\nvcpu = 1\nvram = "64MiB"\nkernel = "{stage.payload()}"\n'
                '[[template.vm.net]]\nname = "ours"\n')
    need("qemu-system-x86_64")
    roots = [stage.root("net-full", template, node=NODE), stage.root("net-empty", template, node=NODE)]
    took = roots[0].timed("vm", "create", "-t", "one", "-n", "vm", "--count", str(COUNT), deadline=600)

    def side(root):
        def create():
            took = root.timed("vm", "create", "-t", "one", "-n", "next")
            root.v("vm", "delete", "next")
            return took
        return create

    full, empty = alternate(runs or 21, *map(side, roots))
    notes = [f"{COUNT} VMs with addresses, made by one command: {1000 * took / COUNT:.1f} ms each"]
    yield Row.ratio(f"`v vm create` with an address on a network of {COUNT:,} VMs, over an empty one", full, empty,
                    notes=notes)
    for root in roots:
        root.end()
