"""(i) `v plan` with 1,000 declared VMs beside `v vm ls` of the same ones and `v config check` of the same file; and how
many processes it starts."""

import json
import os
import pathlib
import subprocess

from measure import Row, Skip, alternate, need, run, skip, timed
from stage import NODE

COUNT = 1000
BEGOTTEN = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "begotten.sh"


def config(stage, vcpu=1):
    """Each VM says something of its own, and has what a VM has: a disk, a NIC with an address, labels."""
    lines = ['[[network]]\nname = "lan"\ntype = "bridge"\nbridge = "vb0"\nsubnet = "10.80.0.0/16"\n'
             f'[[template.vm]]\nname = "small"\nvcpu = {vcpu}\nvram = "64MiB"\nkernel = "{stage.payload()}"\n'
             'labels.team = "a"\nnet = [{ name = "lan" }]\ndisk = [{ name = "data", size = "1MiB" }]\n']
    lines += [f'[[template.vm]]\nname = "alone"\nvcpu = 1\nvram = "64MiB"\nkernel = "{stage.payload()}"\n']
    lines += [f'[[vm]]\nname = "vm-{at}"\ntemplate = "small"\nrunning = false\nlabels.rack = "r{at % 40}"\n'
              for at in range(COUNT)]
    return "".join(lines)


def rows(stage, runs):
    stage.needs_kvm()
    root = stage.root("plan", config(stage))
    plan = [root.program, "plan"]
    made = root.timed("apply", "--yes", deadline=1200)
    found = len(root.json("vm", "ls"))
    if found != COUNT:
        raise RuntimeError(f"`v vm ls` has {found} VMs and should have {COUNT}")
    if said := root.v("plan"):
        raise RuntimeError(f"`v plan` has something to do after `v apply`: {said[:500]}")
    notes = [f"`v apply` made the {COUNT} VMs in {made:.1f} s"]
    ls, check = (lambda: root.timed("vm", "ls")), (lambda: root.timed("config", "check"))
    what = f"`v plan` with {COUNT:,} declared VMs and nothing to do"
    planned, listed, checked = alternate(runs or 21, lambda: timed(plan, env=root.env), ls, check)
    yield Row.ratio(f"{what}, over `v vm ls` of them", planned, listed, notes=notes)
    yield Row.ratio(f"{what}, over `v config check`", planned, checked)

    (root.path / "etc" / "virshle" / "config.toml").write_text(NODE + config(stage, vcpu=2))
    changes = subprocess.run([*plan, "-o", "json"], env=root.env, stdout=subprocess.PIPE, timeout=120, check=False)
    if (changes.returncode, len(json.loads(changes.stdout))) != (10, COUNT):
        raise RuntimeError(f"`v plan` does not tell {COUNT} changes: {changes.stdout[:500]}")
    planned, listed = alternate(runs or 21, lambda: timed(plan, env=root.env, accept=(10,)), ls)
    yield Row.ratio(f"`v plan` with {COUNT:,} declared VMs that all change, over `v vm ls` of them", planned, listed)
    yield processes(root)
    root.end()


def processes(root):
    """Counted where every process and thread has a number of its own."""
    what = "processes and threads that `v plan` starts, beside those of `v vm start`"
    try:
        need("unshare")
        need("bash")
        if os.geteuid() != 0 or not os.path.exists("/proc/sys/kernel/ns_last_pid"):
            skip("a process-id namespace that tells its last number is needed")
    except Skip as reason:
        return Row.skipped(what, reason)
    # One without a NIC: the network of the others is brought up for nobody.
    root.v("vm", "create", "-t", "alone", "-n", "alone")
    lines = "\n".join(["plan", "vm start alone", "vm stop --force --timeout 0 alone"])
    counts = run(["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", str(BEGOTTEN), root.program,
                  lines], 120, env=root.env).splitlines()
    (plan, code), (start, started) = (map(int, line.split()) for line in counts[:2])
    if (code, started) != (10, 0) or start < 2:
        raise RuntimeError(f"the count is wrong: {counts}")
    return Row(what, str(plan), str(start), plan, str(plan), 0)
