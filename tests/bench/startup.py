"""(e) The start-up of the program itself."""

from measure import Row, alternate, timed


def rows(stage, runs):
    v, true = alternate(runs or 50, lambda: timed([stage.program, "--version"]), lambda: timed(["/bin/true"]))
    yield Row.ratio("`v --version`, beside `/bin/true`", v, true)
