"""(d) What one supervisor takes of the machine's memory: its proportional set size (PSS)."""

import statistics
import time

import start
from measure import Row, mib

MANY = 20


def rollup(pid):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        fields = (line.split() for line in file.readlines()[1:])
        return {field[0].rstrip(":"): int(field[1]) / 1024 for field in fields}


def rows(stage, _runs):
    stage.needs_kvm()
    root = stage.root("memory", start.template(stage))
    root.v("vm", "create", "-t", "halt", "-n", "vm", "--count", str(MANY))
    names = [row["name"] for row in root.json("vm", "ls")]
    for names, what in ((names[:1], "one VM running"), (names, f"{MANY} VMs running")):
        root.start(*[name for name in names if root.json("vm", "info", name)[0]["state"] != "running"])
        time.sleep(1)  # what a start leaves behind is given back by then, or never
        sizes = [rollup(root.json("vm", "info", name)[0]["supervisor_pid"]) for name in names]
        pss = [size["Pss"] for size in sizes]
        middle = lambda field: statistics.median(size[field] for size in sizes)
        note = (f"{what}: of a supervisor's PSS {middle('Pss_Anon'):.2f} MiB are its own memory and"
                f" {middle('Pss_File'):.2f} MiB its share of files; dirty {middle('Private_Dirty'):.2f} MiB,"
                f" resident {middle('Rss'):.2f} MiB")
        value = statistics.median(pss)
        yield Row(f"memory of a supervisor (PSS), {what}", mib(pss), "", value, "", 5, " MiB", len(pss), [note])
    root.end()
