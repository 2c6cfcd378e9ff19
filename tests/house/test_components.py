"""Every test is of exactly one component, and the closing table counts what it says it counts."""

import json
import os
import subprocess
import sys
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

import pytest

from tests.support.components import COMPONENTS, REPEATED, components_of
from tests.support.sources import ROOT, functions, modules

SUITE = {
    "tests/unit/test_transitions.py": """
        import random
        import pytest

        @pytest.fixture
        def rng():
            return random.Random(1)

        @pytest.mark.parametrize("source", ["A", "B", "C", "A"])
        @pytest.mark.parametrize(("world", "seed"), [("memory", 1), ("memory", 2), ("ministack", 3)])
        def test_three_rows_two_stores_three_seeds(source, world, seed): ...

        @pytest.mark.parametrize("source", [object(), object()])
        def test_two_rows_without_a_text_of_their_own(source): ...

        @pytest.mark.parametrize("case", [1, 2, 3])
        def test_three_rows_at_random(case, rng): ...

        @pytest.mark.parametrize("case", [1, 2])
        def test_two_rows_of_a_property(case): ...

        test_two_rows_of_a_property.is_hypothesis_test = True
    """,
    "tests/unit/test_authority.py": """
        import pytest

        @pytest.fixture
        def broken():
            yield
            raise OSError("left behind")

        @pytest.mark.parametrize("world", ["memory", "ministack"])
        def test_one_row_that_fails_in_one_store(world):
            assert world != "memory"

        def test_what_fails_behind_the_test(broken): ...

        def test_what_passes(): ...
    """,
    "conftest.py": """
        from tests.support.closing_table import ClosingTable

        def pytest_configure(config):
            config.pluginmanager.register(ClosingTable(config))
    """,
    "tests/unit/test_new.py": "def test_of_no_component(): ...",
}


@cache
def every_test() -> frozenset[str]:
    """Return every test of the suite as `components` names it."""
    return frozenset(
        f"{name.removeprefix('tests/').removesuffix('.py')}::{function.name}"
        for name in modules("tests")
        if Path(name).name.startswith("test_")
        for function in functions(name)
        if function.name.startswith("test_")
    )


def test_every_test_is_of_exactly_one_component() -> None:
    found = {test: [one.name for one in components_of(test)] for test in sorted(every_test())}
    wrong = {test: names for test, names in found.items() if len(names) != 1}
    assert wrong == {}, "each belongs in one row of tests/support/components.py"


def test_no_pattern_of_a_component_is_left_over() -> None:
    patterns = [pattern for one in COMPONENTS for pattern in one.patterns]
    assert len(patterns) == len(set(patterns))
    assert [one for one in patterns if not any(fnmatchcase(test, one) for test in every_test())] == []


def test_a_parameter_that_repeats_is_one_of_some_test() -> None:
    named = "\n".join((ROOT / name).read_text("utf-8") for name in modules("tests") if "components" not in name)
    assert [one for one in sorted(REPEATED) if f'"{one}"' not in named and f"def {one}(" not in named] == []


RUNS = {
    "whole": [],
    "in two processes": ["-p", "xdist", "-n2", "--dist=loadscope"],
    "all passing": ["--ignore=tests/unit/test_authority.py"],
    "a path": ["tests/unit"],
    "a name": ["-k", "row"],
    "a mark": ["-m", "not engine"],
    "what failed last": ["--lf"],
    "stopped": ["-x"],
}
DRIVER = """
import json, sys, pytest
for name, arguments in json.loads(sys.argv[1]).items():
    print(f"#run {name}", flush=True)
    print("exit", int(pytest.main(["-q", "--import-mode=importlib", *arguments])), flush=True)
"""


class Run(NamedTuple):
    """What a run of the small suite printed, line by line; the table's rows stand under their names."""

    lines: list[str]

    @property
    def code(self) -> str:
        return self.lines[-1]

    @property
    def rows(self) -> dict[str, str]:
        return {line[:32].strip(): " ".join(line[32:].split()) for line in self.lines}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Run the small suite in each way, in one process of its own without the plugins that it does not need."""
    root = tmp_path_factory.mktemp("suite")
    for name, text in SUITE.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(dedent(text), encoding="utf-8")
    (root / "pytest.ini").write_text(f"[pytest]\ntestpaths = tests\npythonpath = {ROOT}\n", encoding="utf-8")
    environment = {"PATH": os.environ.get("PATH", os.defpath), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-c", DRIVER, json.dumps(RUNS)]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = [part.splitlines() for part in done.stdout.split("#run ")[1:]]
    return {lines[0]: Run(lines[1:]) for lines in parts}


@pytest.mark.parametrize("name", ["whole", "in two processes"])
def test_what_repeats_counts_once_and_what_failed_does_not_count(ran: dict[str, Run], name: str) -> None:
    found = ran[name]
    # The seed's figure, asserted, functions, all runs.
    assert found.rows["state machine"] == "115 7 4 19 below the seed's"
    assert found.rows["authority"] == "35 1 1 4 2 failed below the seed's"
    assert found.rows["of no component"] == "1 1 1"
    assert found.rows["together"] == "9 6 24"
    assert found.code == "exit 1"


def test_the_table_stands_behind_everything_else(ran: dict[str, Run]) -> None:
    lines = ran["whole"].lines
    closing = next(number for number, line in enumerate(lines) if line.startswith("1 failed, 23 passed"))
    assert lines[closing + 2].startswith("component")
    assert lines[-2].startswith("Fewer than the seed had: candidate generation, promotion gate, ")


def test_a_run_whose_tests_all_pass_fails_for_a_component_below_its_figure(ran: dict[str, Run]) -> None:
    found = ran["all passing"]
    assert found.rows["authority"] == "35 0 0 0 below the seed's"
    assert not any("failed" in line for line in found.lines)
    assert found.code == "exit 1"


@pytest.mark.parametrize("name", ["a path", "a name", "a mark", "what failed last", "stopped"])
def test_a_part_of_the_suite_ends_without_a_table(ran: dict[str, Run], name: str) -> None:
    assert any(" in " in line and ("passed" in line or "failed" in line) for line in ran[name].lines)
    assert "component" not in ran[name].rows
