"""A registry file with an entry of every sort, and `opx authority` asked of it as a program would."""

import json
from typing import Any

from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.domain.canonical import normalise
from tests.support.registry import ACCOUNT, entry

ROLE = f"arn:aws:iam::{ACCOUNT}:role/teams/checkout-monitor"
USER = f"arn:aws:iam::{ACCOUNT}:user/lee"
SIGNED = f"arn:aws:sts::{ACCOUNT}:assumed-role/checkout-monitor"
ENTRIES = (
    entry("monitor", "AROAMONITOR", services=("checkout",), stages=["prod"]),
    entry("people", "AROAPEOPLE", kinds="HUMAN", operations=["dismiss", "add-note"], sessionIsPerson=True),
    entry("lee", "AIDALEE", kinds="HUMAN", operations=["dismiss"], principalIsPerson=True),
    entry("bot", "AROABOT", kinds="HUMAN SYSTEM", operations=["dismiss"], assertsForOthers=True),
    entry("pattern", f"{SIGNED}/*", operations=["add-note"]),
    entry("root", ACCOUNT, operations=["audit"]),
    entry("redrive", "$redriveRole", operations=["redrive"], speaksForSenders=True),
    entry("robots", "AROAROBOT", operations=["dismiss"], services=("search",)),
    entry("alarms", "queue:alarms"),
)
DOCUMENT = normalise({"version": 1, "entries": ENTRIES})


def opx(*arguments: str) -> tuple[int, list[Any], Any]:
    """Run a command as a program would; return its exit code, its records, and its last line on standard error."""
    result = CliRunner().invoke(app, ["authority", *arguments])
    errors = [line for line in result.stderr.splitlines() if line]
    told = json.loads(errors[-1]) if errors and errors[-1].startswith("{") else result.stderr
    return result.exit_code, [json.loads(line) for line in result.stdout.splitlines()], told
