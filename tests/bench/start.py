"""(a) `v vm start` beside bare cloud-hypervisor, spawned, created and booted through its socket."""

import http.client
import json
import os
import socket
import subprocess
import time

from measure import Row, alternate, find, need, timed, wait

DEADLINE = 30


class Bare:
    """The same program with the same VM, and nobody who owns it."""

    def __init__(self, stage, program, config, name="bare"):
        self.dir = stage.dir / name
        self.dir.mkdir()
        self.program, self.socket = program, self.dir / "api.sock"
        serial = self.dir / "serial.sock"
        config["serial"]["socket"] = str(serial)
        line = self.dir / "vsock.sock"
        config["vsock"]["socket"] = str(line)
        # What it makes lies here, and not in the folder of the VM that the config was made for.
        for rule in config.get("landlock_rules", []):
            rule["path"] = str(self.dir)
        self.body = json.dumps(config)
        self.file = self.dir / "vm.json"
        self.file.write_text(self.body)
        self.sockets = [self.socket, serial, line]
        self.process = None
        stage.callback(self.end)

    def end(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        for path in self.sockets:
            path.unlink(missing_ok=True)

    def spawn(self):
        self.end()
        with open(self.dir / "log", "wb") as log:
            self.process = subprocess.Popen([self.program, "--api-socket", str(self.socket)],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def measure(self, calls):
        begin = time.perf_counter()
        try:
            self.spawn()
            calls(self, begin + DEADLINE)
            return time.perf_counter() - begin
        finally:
            self.end()

    def wait(self, until):
        while not self.socket.exists():
            if time.perf_counter() > until or self.process.poll() is not None:
                raise RuntimeError(f"cloud-hypervisor made no socket: {(self.dir / 'log').read_text()}")
            time.sleep(0.0002)

    def by_curl(self, until):
        self.wait(until)
        curl = ["curl", "--silent", "--show-error", "--fail", "--unix-socket", str(self.socket), "-X", "PUT"]
        url = "http://localhost/api/v1/"
        create = [*curl, "-H", "Content-Type: application/json", "-d", f"@{self.file}", url + "vm.create"]
        for argv in (create, [*curl, url + "vm.boot"]):
            # Bound is not yet listening: curl's code for that is 7.
            while True:
                process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
                code = wait(process, DEADLINE)
                if code == 0:
                    break
                if code != 7 or time.perf_counter() > until:
                    raise RuntimeError(f"`{' '.join(argv)}` ended with {code}")

    def in_process(self, until):
        self.wait(until)
        for route, body in (("vm.create", self.body), ("vm.boot", None)):
            connection = http.client.HTTPConnection("localhost")
            connection.sock = self.connect(until)
            connection.request("PUT", f"/api/v1/{route}", body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            text = answer.read()
            connection.close()
            if answer.status >= 300:
                raise RuntimeError(f"{route}: {answer.status} {text!r}")

    def connect(self, until):
        while True:
            stream = socket.socket(socket.AF_UNIX)
            stream.settimeout(DEADLINE)
            try:
                stream.connect(str(self.socket))
                return stream
            except ConnectionRefusedError:
                stream.close()
                if time.perf_counter() > until:
                    raise


def rows(stage, runs):
    program = stage.needs_kvm()
    root = stage.root("start", template(stage))
    root.v("vm", "create", "-t", "halt", "-n", "one")
    script = root.json("vm", "show-launch", "one")
    config = next(call["body"] for call in script["calls"] if call["request"].endswith("vm.create"))
    bare = Bare(stage, program, config)

    def v():
        took = root.start("one")
        root.stop("one")
        return took

    sides = [v, lambda: bare.measure(Bare.in_process)]
    if find("curl"):
        sides.append(lambda: bare.measure(Bare.by_curl))
    by_v, lean, *curl = alternate(runs or 21, *sides)
    what = "`v vm start` to Running, over cloud-hypervisor"
    if curl:
        yield Row.ratio(f"{what} with two curl calls", by_v, curl[0], 1.5)
    else:
        yield Row.skipped(what, "`curl` is not installed")
    yield Row.ratio(f"{what} with two calls made in process", by_v, lean)
    root.end()


def template(stage):
    return f'[[template.vm]]\nname = "halt"\nvcpu = 1\nvram = "64MiB"\nkernel = "{stage.payload()}"\n'
