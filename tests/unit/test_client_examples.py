"""How long the examples are, and what importing the clients costs those who use them. They run in tests/integration."""

import subprocess
import sys
import tomllib

import pytest

from tests.support.sources import ROOT

EXAMPLES = ROOT / "examples"


def code_lines(name: str) -> int:
    """Return how many lines of an example are code."""
    _, _, code = (EXAMPLES / name).read_text("utf-8").split('"""', 2)
    return len([line for line in code.splitlines() if line.strip()])


def test_the_examples_are_ten_lines() -> None:
    assert code_lines("detector.py") <= 10
    assert code_lines("subscriber/handler.py") <= 10


MODULES = {
    "pipeline.clients.detector": {"httpx"},
    "pipeline.clients.operator": set(),
    "pipeline.clients.subscriber": {"httpx", "botocore"},
    "pipeline.clients.table": {"httpx"},
}


@pytest.mark.parametrize("module", MODULES)
def test_a_client_imports_only_what_the_extra_installs(module: str) -> None:
    code = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    found = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    # Not rich: httpx takes it along for a command line of its own, where it is installed.
    never = {"aiobotocore", "aiohttp", "typer", "boto3", "tenacity", "aws_lambda_powertools", "yaml", "consumers"}
    assert found & (never | MODULES[module]) == set()


def test_the_extra_names_what_the_clients_import() -> None:
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]["clients"]
    assert [one.split(">=")[0] for one in extra] == ["botocore", "httpx", "pydantic"]
    assert (ROOT / "pipeline" / "py.typed").exists()
