"""`opx up` looks at a configuration before it starts anything, and says which file to correct."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.cli.terminal import REFUSED
from pipeline.runtime import overlay
from tests.unit.test_overlay import POLICY, folder


def up(state: Path, *arguments: str, **environ: str) -> tuple[int, Any]:
    result = CliRunner().invoke(app, ["--state-dir", str(state), "up", *arguments], env=environ)
    return result.exit_code, json.loads(result.stderr.splitlines()[-1])


def refused_in(state: Path, told: tuple[int, Any], name: str) -> None:
    code, error = told
    assert code == REFUSED
    assert name in error["error"]
    assert not state.exists(), "nothing was started for it"


def test_a_wrong_configuration_is_refused_before_anything_starts(tmp_path: Path) -> None:
    config = folder(tmp_path / "own", {"policies/flap-damped.v1.json": POLICY | {"cooldown": 1}})
    told = up(tmp_path / "state", "--config", str(config))
    refused_in(tmp_path / "state", told, "policies/flap-damped.v1.json: cooldown: This field is not known.")
    assert told[1]["next"] == f"opx up --config {config}"


def test_the_environment_names_the_configuration_too(tmp_path: Path) -> None:
    told = up(tmp_path / "state", **{overlay.VARIABLE: str(tmp_path / "misspelt")})
    refused_in(tmp_path / "state", told, str(tmp_path / "misspelt"))


@pytest.mark.parametrize("relative", ["own", "./own"])
def test_a_configuration_may_be_named_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relative: str) -> None:
    folder(tmp_path / "own", {"policies/misspelt.json": {}})
    monkeypatch.chdir(tmp_path)
    refused_in(tmp_path / "state", up(tmp_path / "state", "--config", relative), "policies/misspelt.json")
