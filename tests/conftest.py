"""What every test gets: a sealed AWS environment, no way out of this machine, a seed that repeats, and the local engine.

A test that reached a real account, read a person's profile or asked the instance's metadata service would fail here first.
"""

import os
import random
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from pipeline.local import engine as local_engine
from pipeline.local.engine import RunningEngine
from tests.support.closing_table import ClosingTable
from tests.support.two_processes import TwoProcesses

SEALED = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "no_proxy": "*",
}
SEED_VARIABLE = "OPX_TEST_SEED"


def pytest_configure(config: pytest.Config) -> None:
    """Seal the environment before any test module is imported."""
    for name in list(os.environ):
        theirs = name.startswith(("AWS_", "OPX_", "POWERTOOLS_")) or name.lower().endswith("_proxy")
        if theirs and name != SEED_VARIABLE:
            del os.environ[name]
    os.environ.update(SEALED)
    # One seed for the whole run, drawn once; every test derives its own from it and from its name.
    told = getattr(config, "workerinput", {}).get(SEED_VARIABLE)
    config.stash[SEED] = told or os.environ.get(SEED_VARIABLE) or str(random.SystemRandom().randrange(10**9))
    config.pluginmanager.register(ClosingTable(config))
    config.pluginmanager.register(TwoProcesses())


SEED = pytest.StashKey[str]()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process of this run the run's seed."""
    node.workerinput[SEED_VARIABLE] = node.config.stash[SEED]


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {SEED_VARIABLE}={config.stash[SEED]}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report: pytest.TestReport = yield
    if report.failed and "rng" in getattr(item, "fixturenames", ()):
        report.sections.append(("seed", f"{SEED_VARIABLE}={item.config.stash[SEED]} repeats this run's random choices"))
    return report


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Random choices that depend on the run's seed and the test's name alone."""
    return random.Random(f"{request.config.stash[SEED]}:{request.node.nodeid}")


@pytest.fixture(autouse=True, scope="session")
def only_this_machine() -> Iterator[None]:
    """Refuse every connection that leaves the loopback interface."""
    patched = pytest.MonkeyPatch()
    for name in ("connect", "connect_ex"):
        patched.setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))
    yield
    patched.undo()


def _guarded(real: Any) -> Any:
    def connect(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = str(address[0])
            if host != "localhost" and not ip_address(host).is_loopback:
                raise AssertionError(f"a test tried to reach {host}:{address[1]}")
        return real(self, address)

    return connect


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    """The local engine, empty, on a free port; it ends with this process at the latest."""
    state: Path = tmp_path_factory.mktemp("engine")
    yield local_engine.start(state, leash=True)
    local_engine.stop(state)
