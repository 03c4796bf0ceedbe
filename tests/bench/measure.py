"""Runs programs, times them, and puts two sides beside each other."""

import os
import select
import shutil
import signal
import statistics
import subprocess
import time


class Skip(Exception):
    """A program or a privilege that is missing: the row is not measured, and says why."""


class Stop(BaseException):
    """A signal asked for the end: everything made is undone on the way out."""


def stop_on_signals():
    def stop(number, _frame):
        # One more must not cut the cleaning short.
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        raise Stop(signal.Signals(number).name)

    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, stop)


def find(name):
    return shutil.which(name)


def need(name):
    return find(name) or skip(f"`{name}` is not installed")


def skip(reason):
    raise Skip(reason)


def wait(process, deadline):
    """Waits on a pidfd: `Popen.wait` with a timeout sleeps in steps, which would be measured."""
    pidfd = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(deadline * 1000):
            process.kill()
            process.wait()
            raise RuntimeError(f"`{' '.join(process.args)}` did not end in {deadline} s")
    finally:
        os.close(pidfd)
    return process.wait()


def run(argv, deadline=120, input=None, **more):
    """Runs it to its end and gives back what it wrote; a failure carries its last words."""
    done = subprocess.run(argv, input=input, stdin=None if input is not None else subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=deadline, **more)
    if done.returncode != 0:
        raise RuntimeError(f"`{' '.join(argv)}` ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


def first_line(argv):
    return (run(argv, 30).splitlines() or [""])[0]


def timed(argv, deadline=300, env=None, accept=(0,), **more):
    """The seconds from its spawn to its end."""
    with open(os.devnull, "wb") as nothing:
        begin = time.perf_counter()
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=nothing, stderr=nothing, env=env, **more)
        try:
            code = wait(process, deadline)
        except BaseException:
            process.kill()
            process.wait()
            raise
        took = time.perf_counter() - begin
    if code not in accept:
        raise RuntimeError(f"`{' '.join(argv)}` ended with {code}")
    return took


def alternate(runs, *sides):
    """A B A B …, so that what else the machine does meets both; the first run of each does not count."""
    for side in sides:
        side()
    taken = [[] for _ in sides]
    for _ in range(runs):
        for figures, side in zip(taken, sides):
            figures.append(side())
    return taken


def ms(figures):
    figures = [1000 * figure for figure in figures]
    digits = 1 if statistics.median(figures) < 100 else 0
    return f"{statistics.median(figures):.{digits}f} ms ({min(figures):.{digits}f}–{max(figures):.{digits}f})"


def mib(figures):
    middle = f"{statistics.median(figures):.2f} MiB"
    return middle if len(figures) == 1 else f"{middle} ({min(figures):.2f}–{max(figures):.2f})"


def mbit(figures):
    middle, *ends = (f"{figure / 1e6:.0f}" for figure in (statistics.median(figures), min(figures), max(figures)))
    return f"{middle} Mbit/s ({ends[0]}–{ends[1]})"


class Row:
    """What was measured, and what became of its goal. A goal is an upper bound of `value`, but of rates a lower one."""

    def __init__(self, what, v, other, value, shown, goal=None, unit="", runs=1, notes=()):
        self.what, self.v, self.other, self.shown, self.runs, self.notes = what, v, other, shown, runs, list(notes)
        self.goal = "" if goal is None else f"≤ {goal:g}{unit}"
        self.met = "" if goal is None else "yes" if value <= goal else "NO"

    @classmethod
    def ratio(cls, what, v, other, goal=None, notes=()):
        value = statistics.median(v) / statistics.median(other)
        return cls(what, ms(v), ms(other), value, f"{value:.2f}", goal, "", len(v), notes)

    @classmethod
    def rates(cls, what, v, other, goal):
        """In bits a second."""
        value = statistics.median(v) / statistics.median(other)
        row = cls(what, mbit(v), mbit(other), value, f"{value:.2f}", runs=len(v))
        row.goal, row.met = f"≥ {goal:g}", "yes" if value >= goal else "NO"
        return row

    @classmethod
    def difference(cls, what, v, other, goal_ms, notes=()):
        value = 1000 * (statistics.median(v) - statistics.median(other))
        return cls(what, ms(v), ms(other), value, f"{value:+.1f} ms", goal_ms, " ms", len(v), notes)

    @classmethod
    def skipped(cls, what, reason):
        return cls(f"{what}: skipped: {reason}", "", "", 0, "", runs=0)

    def cells(self):
        return [self.what, self.v, self.other, self.shown, self.goal, self.met, str(self.runs or "")]


def mount_of(path):
    """The device and the kind of the file system that holds `path`."""
    path = os.path.realpath(path)
    best = ("", "unknown", "unknown")
    with open("/proc/self/mounts") as file:
        for line in file:
            source, point, kind = line.split()[:3]
            point = point.encode().decode("unicode_escape")
            inside = path == point or path.startswith(point.rstrip("/") + "/")
            # The last one mounted there covers those before it.
            if inside and len(point) >= len(best[0]):
                best = (point, source, kind)
    return best[1], best[2]
