"""The examples as they stand, and what importing the clients costs those who use them."""

import json
import runpy
import subprocess
import sys
import tomllib
from typing import Any

import pytest

from tests.support.sources import ROOT

EXAMPLES = ROOT / "examples"
BATCH: dict[str, Any] = json.loads((EXAMPLES / "subscriber" / "event.json").read_text("utf-8"))


def code_lines(name: str) -> int:
    """Return how many lines of an example are code."""
    _, _, code = (EXAMPLES / name).read_text("utf-8").split('"""', 2)
    return len([line for line in code.splitlines() if line.strip()])


def test_the_subscriber_pages_once_and_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    handler = runpy.run_path(str(EXAMPLES / "subscriber" / "handler.py"))["handler"]
    sequences = [json.loads(record["body"])["detail"]["sequence"] for record in BATCH["Records"]]
    assert sequences != sorted(sequences)
    assert len(set(sequences)) < len(sequences)
    assert handler(BATCH, None) == {"batchItemFailures": []}
    told = capsys.readouterr().out
    assert told.startswith("page on call: SEV2 5xx above 5 %")
    assert told.count("page on call") == 1


def test_the_examples_are_ten_lines() -> None:
    assert code_lines("detector.py") <= 10
    assert code_lines("subscriber/handler.py") <= 10


MODULES = {
    "pipeline.clients.detector": {"httpx"},
    "pipeline.clients.operator": set(),
    "pipeline.clients.subscriber": {"httpx", "botocore"},
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
