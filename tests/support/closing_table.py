"""The table that a whole run ends with: how much of each component was asserted, beside the seed's figures.

An assertion is a test function with one row of its table. What only repeats one is taken off: the parameters named in
`components.REPEATED` (stores, seeds, rounds, hosts, sizes), equal rows, and every row of a test that draws at random,
from `rng` or by Hypothesis. Only what ran and passed in this run counts, and one failed row fails its assertion.
A component below its figure fails the run. A run of a part of the suite prints nothing.
"""

import inspect
import re
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from typing import Any, Final

import pytest

from tests.support.components import COMPONENTS, REPEATED, Component, components_of

PROPERTY: Final = "assertion"
WHOLE: Final = ("", "not full")
NOTE: Final = """\
Asserted: tests, a row of a test's table each. What only repeats an assertion is counted once: stores, seeds, rounds,
hosts, sizes, equal rows, all rows of a test that draws at random. Functions: each test counted once, whatever its rows."""


def named(nodeid: str) -> str:
    """Return `folder/file::function`, which is how `components` names a test."""
    path, _, rest = nodeid.partition("::")
    name = re.split(r"[\[@]", rest)[0]
    return f"{path.removeprefix('tests/').removesuffix('.py')}::{name}"


def row_of(item: pytest.Item) -> str:
    """Return what tells the rows of a test apart where they assert something different, and nothing else."""
    function: Any = getattr(item, "obj", None)
    if "rng" in inspect.signature(function).parameters or getattr(function, "is_hypothesis_test", False):
        return ""
    spec: Any = getattr(item, "callspec", None)
    told = [(name, _told(spec, name)) for name in sorted(spec.params) if name not in REPEATED] if spec else []
    return sha256(repr(told).encode()).hexdigest()[:16] if told else ""


def _told(spec: Any, name: str) -> str:
    text = repr(spec.params[name])
    # What has no text of its own is told by its place in the table.
    return str(spec.indices[name]) if " at 0x" in text else text


@cache
def component_of(test: str) -> Component | None:
    return next(iter(components_of(test)), None)


class ClosingTable:
    """Counts the tests of a run, in whichever process they ran, and prints the table behind everything else."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.runs: dict[str, bool] = {}
        self.assertions: dict[tuple[str, str], bool] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[Any]:
        report: Any = yield
        report.user_properties.append((PROPERTY, row_of(item)))
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped or (report.passed and report.when != "call"):
            return
        key = named(report.nodeid), str(dict(report.user_properties)[PROPERTY])
        self.runs[report.nodeid] = report.passed and self.runs.get(report.nodeid, True)
        self.assertions[key] = report.passed and self.assertions.get(key, True)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Iterator[Any]:
        # The outermost wrapper: what it prints stands behind pytest's own closing line.
        result = yield
        reporter: Any = self.config.pluginmanager.get_plugin("terminalreporter")
        stopped = session.shouldfail or session.shouldstop
        if reporter is not None and self.runs and not stopped and is_whole(self.config):
            below = self._print(reporter)
            if below and session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return result

    def _print(self, reporter: Any) -> list[str]:
        """Print the table; return the names of the components below their figures."""
        below = []
        reporter.section("what this run asserted", sep="-")
        reporter.line(_line("component", "seed", "asserted", "functions", "all runs"))
        for component in (*COMPONENTS, None):
            mine = {key: passed for key, passed in self.assertions.items() if component_of(key[0]) is component}
            if component is None and not mine:
                continue
            asserted = sum(mine.values())
            functions = len({test for (test, _), passed in mine.items() if passed})
            runs = sum(component_of(named(nodeid)) is component for nodeid in self.runs)
            name, figure = (component.name, component.figure) if component else ("of no component", None)
            line = _line(name, figure or "", asserted, functions, runs)
            if len(mine) > asserted:
                line += f"  {len(mine) - asserted} failed"
            if asserted < (figure or 0):
                below.append(name)
                line += "  below the seed's"
            reporter.line(line, red=len(mine) > asserted or name in below)
        passed_functions = len({test for (test, _), passed in self.assertions.items() if passed})
        reporter.line(_line("together", "", sum(self.assertions.values()), passed_functions, len(self.runs)))
        reporter.line(NOTE)
        if below:
            reporter.line(f"Fewer than the seed had: {', '.join(below)}.", red=True, bold=True)
        return below


def _line(name: str, *columns: object) -> str:
    return f"{name:<32}" + "".join(f"{column:>11}" for column in columns)


def is_whole(config: pytest.Config) -> bool:
    """Tell whether a run is of every test but the loads for an hour: no paths, names or other marks were given."""
    parts = ("keyword", "lf", "deselect", "collectonly")
    return (
        config.args_source is pytest.Config.ArgsSource.TESTPATHS
        and config.getoption("markexpr") in WHOLE
        and not any(config.getoption(name, None) for name in parts)
    )
