"""The table of `make bench`: one row per measurement, each with its goal."""

import argparse
import os
import platform
import sys
import traceback

import create
import fleet
import ls
import memory
import networks
import plan
import start
import startup
from measure import Skip, Stop, first_line, find, mount_of, stop_on_signals
from stage import Stage

PARTS = {"a": start.rows, "b": create.rows, "c": ls.rows, "d": memory.rows, "e": startup.rows,
         "f": fleet.rows_of_starts, "g": fleet.rows_of_a_stopped_one,
         "h": networks.rows, "i": plan.rows}


def options():
    parser = argparse.ArgumentParser(description=__doc__, prog="tests/bench/run")
    parser.add_argument("--only", default=",".join(PARTS), metavar="LIST", help="rows to measure, such as a,c")
    parser.add_argument("--runs", type=int, metavar="N", help="runs of each side, for every row")
    parser.add_argument("--dir", metavar="DIR", help="where to work; the file system that is measured")
    parser.add_argument("--program", required=True, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    chosen.only = [part.strip() for part in chosen.only.split(",") if part.strip()]
    unknown = [part for part in chosen.only if part not in PARTS]
    if unknown:
        parser.error(f"no row {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if chosen.runs is not None and chosen.runs < 1:
        parser.error("--runs is at least 1")
    return chosen


def work_dir(named):
    """A folder on a disk: figures from a file system in memory would say nothing."""
    if named:
        return os.path.abspath(named)
    places = [os.environ.get("TMPDIR"), "/tmp", "/var/tmp"]
    places = [place for place in places if place and os.path.isdir(place)]
    return next((place for place in places if mount_of(place)[1] not in ("tmpfs", "ramfs")), places[-1])


def machine(program, place):
    with open("/proc/meminfo") as file:
        memory_kib = int(next(line for line in file if line.startswith("MemTotal")).split()[1])
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "unknown")
    source, kind = mount_of(place)
    facts = [
        ("cores", f"{len(os.sched_getaffinity(0))} ({model})"),
        ("memory", f"{memory_kib / 2**20:.1f} GiB"),
        ("kernel", platform.release()),
        ("file system", f"{kind} on {source} ({place})"),
        ("load", "%.2f %.2f %.2f before the first row" % os.getloadavg()),
    ]
    for name, argv in [
        ("v", [program, "--version"]),
        ("cloud-hypervisor", ["cloud-hypervisor", "--version"]),
        ("virsh", ["virsh", "--version"]),
        ("qemu", ["qemu-system-x86_64", "--version"]),
        ("ovs", ["ovs-vsctl", "--version"]),
        ("dnsmasq", ["dnsmasq", "--version"]),
        ("cp", ["cp", "--version"]),
    ]:
        facts.append((name, first_line(argv) if find(argv[0]) else "not installed"))
    return facts


def print_table(header, rows):
    widths = [max(len(row[column]) for row in [header] + rows) for column in range(len(header))]
    for row in [header, ["-" * width for width in widths]] + rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def main():
    chosen = options()
    stop_on_signals()
    place = work_dir(chosen.dir)
    print("\n".join(f"{name + ':':18}{fact}" for name, fact in machine(chosen.program, place)), flush=True)
    table, notes, failed = [], [], False
    try:
        with Stage(chosen.program, place) as stage:
            for part in chosen.only:
                print(f"measuring {part} ...", file=sys.stderr, flush=True)
                try:
                    for row in PARTS[part](stage, chosen.runs):
                        table.append([part] + row.cells())
                        notes += [f"{part}: {note}" for note in row.notes]
                except Skip as reason:
                    table.append([part, f"skipped: {reason}", "", "", "", "", "", ""])
                except Exception as error:  # the other rows are still worth having
                    traceback.print_exc()
                    failed = True
                    table.append([part, f"failed: {error}", "", "", "", "", "", ""])
    except Stop as signal:
        print(f"interrupted by {signal}; everything made is removed", file=sys.stderr)
        return 130
    print()
    print_table(["", "what", "v", "the other", "v / other", "goal", "met", "runs"], table)
    print("\nmedian (least–most); the two sides take turns, after one run of each that does not count")
    print("\n".join(notes + ["load: %.2f %.2f %.2f after the last row" % os.getloadavg()]))
    missed = [row for row in table if row[6] == "NO"]
    print(f"{len(missed)} goal(s) missed" + "".join(f"; {row[0]}: {row[1]}" for row in missed) if missed
          else "no goal missed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
