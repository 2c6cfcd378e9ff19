"""The help of every command: an example that would be taken as it stands, and JSON for programs."""

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from pipeline.cli.main import app, hoisted
from pipeline.cli.terminal import DONE

ROOT: Any = typer.main.get_command(app)


def commands(group: Any = ROOT, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command with its path, of groups those in them."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


EVERY = list(commands())
NAMES = [" ".join(path) for path, _ in EVERY]


def examples(command: Any) -> list[list[str]]:
    """Return the examples in a command's help, each as its words behind `opx`."""
    paragraph = str(command.help).partition("\nExample: ")[2].replace("\n", " ")
    found = [shlex.split(text.partition(" > ")[0]) for text in paragraph.split(", or: ") if text.strip()]
    assert all(words[0] == "opx" for words in found)
    return [words[1:] for words in found]


def test_there_are_as_many_commands_as_one_can_remember() -> None:
    assert len(EVERY) > 25
    assert len({path[0] for path, _ in EVERY}) < 40


@pytest.mark.parametrize(("path", "command"), EVERY, ids=NAMES)
def test_every_command_has_an_example_that_it_would_take(path: tuple[str, ...], command: Any) -> None:
    found = examples(command)
    assert found, f"opx {' '.join(path)} has no example in its help"
    for words in found:
        front = hoisted(words)
        rest = front[front.index(path[0]) :]
        ROOT.make_context("opx", [*front[: front.index(path[0])], path[0]])
        assert tuple(rest[: len(path)]) == path
        command.make_context(path[-1], rest[len(path) :])


@pytest.mark.parametrize("name", NAMES)
def test_every_command_takes_json_before_and_behind_it(name: str) -> None:
    for arguments in (["--json", *name.split(), "--help"], [*name.split(), "--json", "--help"]):
        shown = CliRunner().invoke(app, arguments)
        assert (shown.exit_code, "Example: opx " in shown.stdout) == (DONE, True)
