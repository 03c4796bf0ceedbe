"""A guest with the argv that `v` would use, started by hand: with the same device on a bare port."""

import fcntl
import os
import pathlib
import shutil
import struct
import subprocess
import time

from measure import run

TUNSETIFF, TUNSETVNETHDRSZ = 0x400454CA, 0x400454D8
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000


def tap(name, bridge):
    """As `v` opens one."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    fcntl.ioctl(descriptor, TUNSETVNETHDRSZ, struct.pack("i", 12))
    run(["ip", "link", "set", name, "master", bridge, "up"])
    return descriptor


def options(argv):
    """`-name value` and `-flag`, in order."""
    found, words = [], iter(argv)
    for word in words:
        if found and not word.startswith("-"):
            found[-1].append(word)
        else:
            found.append([word])
    return found


class BareGuest:
    """Ended by `end`. What belongs to `v` alone is left out: its control socket, its console, its line (vsock)."""

    def __init__(self, root, name, folder, append, number, forward=None, bridge=None, switch=None):
        folder.mkdir()
        self.log = folder / "console.log"
        row = next(row for row in root.json("vm", "ls") if row["name"] == name)
        mac = root.json("vm", "info", name)[0]["spec"]["nics"][0]["mac"]
        argv, keep = [], []
        for option in options(root.json("vm", "show-launch", name)["argv"]):
            text = " ".join(option)
            if option[0] in ("-S", "-mon", "-uuid", "-name", "-serial") or "vsock" in text or "id=qmp" in text or "id=serial" in text:
                continue
            text = option[-1]
            if option[0] == "-append":
                text = append
            elif option[0] == "-blockdev":
                seed = next((root.path / "var/lib/virshle/vm" / row["uuid"]).glob("seed.img"))
                shutil.copy(seed, folder / "seed.img")
                text = text.replace(str(seed), str(folder / "seed.img"))
            elif option[0] == "-netdev" and text.startswith("tap"):
                # The number does not matter to QEMU.
                keep.append(tap(f"hand{number}", bridge))
                text = f"tap,id=net0,fd={keep[-1]}"
            elif option[0] == "-netdev" and text.startswith("user"):
                text = f"user,id=net0,hostfwd=tcp:127.0.0.1:{forward}-:5000"
            elif option[0] == "-chardev" and "id=net0-socket" in text:
                text = f"socket,id=net0-socket,path={folder}/n0.sock,server=on,wait=off"
            elif mac in text:
                text = text.replace(mac, f"52:54:00:00:00:{number:02x}")
            argv += [option[0], text] if len(option) > 1 else option
        argv += ["-serial", f"file:{self.log}"]
        with open(folder / "qemu.log", "wb") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=keep)
        for descriptor in keep:
            os.close(descriptor)
        if switch:
            socket, until = folder / "n0.sock", time.monotonic() + 20
            while not socket.exists():
                if self.process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"QEMU does not listen: {pathlib.Path(folder / 'qemu.log').read_text()}")
                time.sleep(0.02)
            switch.vhost_port(bridge, f"hand{number}", socket)

    def end(self):
        self.process.kill()
        self.process.wait()
