"""`opx` against the deployed stack, as a program calls it: exit code, and JSON lines of both outputs."""

import json
import time
from collections.abc import Callable
from typing import Any

from typer.testing import CliRunner

from pipeline.cli.main import app
from tests.support.stack import Stack

WITHIN_S = 30.0
Opx = Callable[..., tuple[int, list[dict[str, Any]], list[dict[str, Any]]]]


def calling(stack: Stack) -> Opx:
    """Return what calls `opx` on a stack."""

    def call(*arguments: str, stdin: str | None = None) -> tuple[int, list[dict[str, Any]], list[dict[str, Any]]]:
        shared = ["--json", "--state-dir", str(stack.engine.state_dir)]
        result = CliRunner().invoke(app, [*shared, *arguments], input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        out, err = ([json.loads(line) for line in text.splitlines()] for text in (result.stdout, result.stderr))
        return result.exit_code, out, err

    return call


def candidate(service: str, number: int = 0, **fields: Any) -> str:
    document = {
        "type": "candidate",
        "service": service,
        "severity": "SEV2",
        "title": f"{service} is slow",
        "dedupKey": "slow",
    }
    return json.dumps(document | {"idempotencyKey": f"{service}:{number}"} | fields)


def incident_of(opx: Opx, service: str) -> dict[str, Any]:
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        code, found, _ = opx("list", "--service", service)
        assert code == 0
        if found:
            return found[0]
        time.sleep(0.2)
    raise AssertionError(f"no incident of {service} within {WITHIN_S} s")


def declared(opx: Opx, service: str) -> str:
    code, out, _ = opx("declare", "--service", service, "--severity", "sev2", "--title", "down")
    assert code == 0
    identity: str = out[0]["incidentId"]
    return identity
