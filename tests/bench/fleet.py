"""(f) Fifty VMs started at once, beside fifty bare cloud-hypervisors. (g) `v vm ls` while a hypervisor is stopped."""

import contextlib
import copy
import os
import pathlib
import signal
import statistics
import time

import start
from measure import Row, alternate, ms

FLEET = 50
RUNNING = 20
LISTS = 200


def rows_of_starts(stage, runs):
    program = stage.needs_kvm()
    root = stage.root("fleet", start.template(stage))
    root.v("vm", "create", "-t", "halt", "-n", "vm", "--count", str(FLEET))
    script = root.json("vm", "show-launch", "vm-1")
    config = next(call["body"] for call in script["calls"] if call["request"].endswith("vm.create"))
    fleet = [start.Bare(stage, program, copy.deepcopy(config), f"bare-{index}") for index in range(FLEET)]

    def v():
        took = root.timed("vm", "start", "--all")
        root.v("vm", "stop", "--all", "--force", "--timeout", "0")
        return took

    def bare():
        begin = time.perf_counter()
        try:
            for one in fleet:
                one.spawn()
            for one in fleet:
                one.in_process(begin + start.DEADLINE)
            return time.perf_counter() - begin
        finally:
            for one in fleet:
                one.end()

    by_v, by_hand = alternate(runs or 5, v, bare)
    note = (f"{FLEET} at once: {1000 * statistics.median(by_v) / FLEET:.1f} ms for each VM by `v`,"
            f" {1000 * statistics.median(by_hand) / FLEET:.1f} ms bare")
    yield Row.ratio(f"`v vm start --all` of {FLEET} VMs, over as many bare, spawned together, two calls each in process",
                    by_v, by_hand, notes=[note])
    root.end()


def percentile(figures, share):
    figures = sorted(figures)
    return figures[min(len(figures) - 1, int(len(figures) * share))]


def rows_of_a_stopped_one(stage, runs):
    stage.needs_kvm()
    root = stage.root("stopped", start.template(stage))
    root.v("vm", "create", "-t", "halt", "-n", "vm", "--count", str(RUNNING))
    root.v("vm", "start", "--all")
    hypervisor = root.json("vm", "info", "vm-1")[0]["hypervisor_pid"]

    @contextlib.contextmanager
    def stopped():
        os.kill(hypervisor, signal.SIGSTOP)
        try:
            until = time.monotonic() + 5
            while "State:\tT" not in pathlib.Path(f"/proc/{hypervisor}/status").read_text():
                if time.monotonic() > until:
                    raise RuntimeError(f"process {hypervisor} does not stop")
                time.sleep(0.001)
            yield
        finally:
            os.kill(hypervisor, signal.SIGCONT)

    def ls():
        return root.timed("vm", "ls")

    def ls_beside_a_stopped_one():
        with stopped():
            return ls()

    beside, usual = alternate(runs or LISTS, ls_beside_a_stopped_one, ls)
    late, early = (percentile(figures, 0.99) for figures in (beside, usual))
    what = f"`v vm ls` of {RUNNING} running VMs, one hypervisor stopped by SIGSTOP, over none stopped"
    yield Row.ratio(f"{what}: median", beside, usual, 1.1)
    yield Row(f"{what}: 99th percentile", f"{1000 * late:.1f} ms", f"{1000 * early:.1f} ms", late / early,
              f"{late / early:.2f}", 1.5, "", len(beside))
    root.end()
