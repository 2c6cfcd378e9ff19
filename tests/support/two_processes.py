"""How `make test` shares the suite between two processes: what needs the local engine in one, the rest in the other.

The fuzzer's minutes would make the first much longer than the second, so it goes first in the second, with an engine of
its own; then comes what is long, so that both end at about the same time. Every test of a file, and every test of the
first process, runs in the order of a run in one process.
"""

from typing import Any, Final

import pytest
from xdist.scheduler import LoadScopeScheduling

ENGINE: Final = ("tests/contract/", "tests/integration/", "tests/e2e/")
ALONE: Final = "tests/e2e/test_api_fuzz"
LONG: Final = ("tests/simulation/", "tests/property/")


def group_of(nodeid: str) -> str:
    """Return the name of the tests that stay together with this one."""
    path = nodeid.split("::")[0]
    return "engine" if path.startswith(ENGINE) and not path.startswith(ALONE) else path


def place_of(item: pytest.Item) -> int:
    """Return which of the groups come first."""
    group = group_of(item.nodeid)
    if group == "engine":
        return 0
    return 1 if group.startswith(ALONE) else 2 if group.startswith(LONG) else 3


class InGroups(LoadScopeScheduling):  # type: ignore[misc]  # xdist publishes no types
    """xdist's own scheduler, with our groups."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def shares(config: pytest.Config) -> bool:
    """Tell whether this is one of several processes of a run."""
    return hasattr(config, "workerinput")


class TwoProcesses:
    """Hooks that do nothing in a run in one process."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> InGroups:
        return InGroups(config, log)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        if shares(config):
            items.sort(key=place_of)
