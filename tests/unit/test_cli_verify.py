"""What `opx replay verify` says of what it could not compare: no seal, no export of receipts; and by which exit code."""

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pipeline.cli.main import app
from pipeline.cli.session import Around
from pipeline.cli.terminal import Screen
from tests.support.command_line import console, text_of
from tests.support.damages import lived
from tests.support.exporting import tables_of, write_export

TABLES = ("incident-events", "incidents", "idempotency")


@pytest.fixture
def export(tmp_path: Path) -> Path:
    tables = tables_of(asyncio.run(lived()))
    for name in TABLES:
        write_export(tmp_path / "export" / name, name, (tables[name],))
    return tmp_path / "export"


def opx(state: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--json", "--state-dir", str(state), "replay", *arguments])


def told_to_people(state: Path, *arguments: str) -> str:
    screen = Screen(False, console(200), console(200))
    CliRunner().invoke(app, ["--state-dir", str(state), "replay", *arguments], obj=Around(screen=screen))
    return " ".join(text_of(screen.out).split())


UNUSABLE: dict[str, Callable[[str], str | None]] = {
    "missing": lambda text: None,
    "empty": lambda text: "",
    "truncated": lambda text: text[: len(text) * 2 // 3],
    "a line less": lambda text: "".join(text.splitlines(keepends=True)[:-1]),
    "changed": lambda text: re.sub("[0-9](?=\n$)", "x", text) + "0",
    "of another version": lambda text: text.replace("opx-seal/1", "opx-seal/0"),
}


@pytest.mark.parametrize("made", UNUSABLE.values(), ids=UNUSABLE)
def test_a_seal_that_can_not_be_used_is_no_divergence(
    made: Callable[[str], str | None], export: Path, tmp_path: Path
) -> None:
    seal = tmp_path / "seal.txt"
    assert opx(tmp_path, "seal", "--export", str(export), "--out", str(seal)).exit_code == 0
    verify = ("verify", "--export", str(export), "--processes", "1", "--seal", str(seal))
    assert opx(tmp_path, *verify).exit_code == 0
    text = made(seal.read_text())
    if text is None:
        seal.unlink()
    else:
        seal.write_text(text)
    found = opx(tmp_path, *verify)
    assert (found.exit_code, found.stdout, "seal.txt" in found.stderr) == (2, "", True)


LEFT_OUT = {
    "nothing": ((), TABLES, [], ""),
    "receipts": ((), TABLES[:2], ["receipts"], "receipts (their export is not there)"),
    "rows": ((), (TABLES[0], TABLES[2]), ["rows", "pointers"], "rows, pointers (their export is not there)"),
    "all": (("--events-only",), TABLES, ["rows", "pointers", "receipts"], "rows, pointers, receipts (--events-only)"),
    "pointers": (("--from", "2020-01-01T00:00Z"), TABLES, ["pointers"], "pointers (only when everything is verified)"),
}


@pytest.mark.parametrize(("asked", "there", "names", "words"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_was_not_compared_is_said_to_people_and_programs(
    asked: tuple[str, ...], there: tuple[str, ...], names: list[str], words: str, export: Path, tmp_path: Path
) -> None:
    exports = [text for name in there for text in ("--export", str(export / name))]
    verify = ("verify", *exports, "--processes", "1", *asked)
    found = opx(tmp_path, *verify)
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["notCompared"] == names
    told = told_to_people(tmp_path, *verify)
    assert ("not compared" in told, words in told, "clean as far as" in told) == (bool(names), True, bool(names))
