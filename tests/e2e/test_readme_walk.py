"""README's way from nothing to a resolved incident, run as it stands: five commands, a shell, the deployed API."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from pipeline.local.paths import PROJECT_ROOT
from tests.support.stack import Stack

pytestmark = [pytest.mark.engine, pytest.mark.long]

README = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")


def walk() -> list[str]:
    section = README.split("\n## Act on incidents\n")[1].split("\n## ")[0]
    first = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)[0]
    return [str(line) for line in first.splitlines()]


def test_five_commands_lead_from_nothing_to_a_resolved_incident(stack: Stack) -> None:
    """`make up` is this test's engine, started and deployed by the very functions; the other commands are run by a shell."""
    made, *commands = walk()
    assert made == "make up && source .venv/bin/activate"
    environment = {
        "PATH": f"{PROJECT_ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(stack.engine.state_dir),
        "OPX_STATE_DIR": str(stack.engine.state_dir),
        "LANG": "C.UTF-8",
    }
    identity = ""
    said: list[str] = []
    for command in commands:
        command = command.replace(" ID", f" {identity[:8]}")
        done = subprocess.run(
            ["bash", "-c", command], env=environment, cwd=Path("/"), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        said.append(done.stdout)
        identity = identity or str(json.loads(said[0].splitlines()[0])["incidentId"])
    assert len(commands) == 4
    found = json.loads(said[-1].splitlines()[0])
    assert (found["state"], found["title"]) == ("RESOLVED", "5xx above 5 %")
