"""What a person reads when opx says no: once, with the command that helps; what could not be written is no traceback."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.api.answers import step_document
from pipeline.cli import demo
from pipeline.cli.calling import after_refusal
from pipeline.cli.main import app
from pipeline.cli.subscription import Arrival, Subscription
from pipeline.cli.tail import _is_gone, _watch
from pipeline.cli.target import Target
from pipeline.cli.telling import incident_facts, refusal_line, steps_of
from pipeline.cli.terminal import Screen
from pipeline.clients.answers import Incident as Answered
from pipeline.clients.answers import Problem
from pipeline.domain.errors import Code, HttpCode, Refusal, Unavailable
from pipeline.domain.transitions import State
from pipeline.services.reading import steps_from
from tests.support.histories import incident_in

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("refusal", "line"),
    [
        (Refusal(Code.REASON_MISSING, "It needs a reason.", "reason"), "reason-missing: It needs a reason."),
        (Refusal(Code.INVALID_FIELD, "Blank text.", "note"), "invalid-field: Blank text (note)."),
        (Refusal(Code.INVALID_FIELD, "Blank text.", "evidence.0.kind"), "invalid-field: Blank text (evidence.0.kind)."),
        (Refusal(Code.VERSION_STALE, "controlVersion is 13, not 1."), "version-stale: controlVersion is 13, not 1."),
    ],
)
def test_a_refusal_is_said_once_and_without_advice_for_senders(refusal: Refusal, line: str) -> None:
    assert refusal_line(refusal.code, refusal.sentence()) == line


def test_a_code_of_a_later_version_is_told_as_it_is() -> None:
    assert refusal_line("not-yet-known", "Something new.") == "not-yet-known: Something new."


@pytest.mark.parametrize(
    ("code", "reason", "then"),
    [
        (Code.REASON_MISSING, "", "the same command with --reason TEXT"),
        (Code.TRANSITION_AUTHORITY, "A → B needs HUMAN authority.", "the same command with --as HUMAN"),
        (Code.AUTHORITY_UNCLEAR, "", "the same command with --as HUMAN or SYSTEM"),
        (Code.KEY_REUSED, "", "the same command without --key"),
        (Code.VERSION_STALE, "", "opx open 1aa01e67"),
        (Code.TRANSITION_ILLEGAL, "", "opx open 1aa01e67"),
        (Code.INCIDENT_UNKNOWN, "", "opx list"),
        (HttpCode.INTERNAL, "", "opx status"),
        ("not-signed", "", "aws sts get-caller-identity"),
        ("of-a-later-version", "", "opx note --help"),
    ],
)
def test_a_refusal_names_the_command_that_helps(code: str, reason: str, then: str) -> None:
    problem = Problem(409, code, reason, {}, incident_id="1aa01e67-0000")
    assert after_refusal(problem, "opx", "note") == then


def test_an_incident_names_the_commands_that_act_on_it() -> None:
    for state, expected in (
        (State.PENDING, ["promote ID --reason TEXT", "dismiss ID --reason TEXT"]),
        (State.OPEN, ["mitigate ID", "cancel ID --reason TEXT"]),
        (State.MITIGATING, ["resolve ID --reason TEXT"]),
        (State.RESOLVED, ["close ID --reason TEXT"]),
        (State.CLOSED, []),
        (State.ARCHIVED, []),
    ):
        rows = [step_document(step) | {"youMay": True} for step in steps_from(state)]
        incident = incident_in(state)
        found = steps_of(Answered.of(incident.to_document() | {"allowedTransitions": rows}))
        assert [step.replace(incident.incident_id[:8], "ID") for step in found] == expected


def test_a_cancelled_incident_is_not_said_to_be_promoted() -> None:
    assert "PROMOTE" in dict(incident_facts(incident_in(State.OPEN)))["promotion"]
    assert "PROMOTE" not in dict(incident_facts(incident_in(State.CANCELLED)))["promotion"]


def test_the_version_is_that_of_the_project() -> None:
    shown = CliRunner().invoke(app, ["--version"])
    assert (shown.exit_code, shown.stdout) == (0, "opx 1.0.0\n")


def test_a_wrong_value_is_said_without_the_parsers_own_words() -> None:
    for arguments in (["severity", "1aa0", "sev9"], ["list", "--state", "asleep"]):
        shown = CliRunner().invoke(app, arguments)
        assert shown.exit_code == 2
        assert "is not one of" in shown.stderr
        assert "Value error" not in shown.stderr


@pytest.mark.parametrize(("redirect", "code"), [(">/dev/full", 2), (">&-", 0)])
@pytest.mark.parametrize("command", ["transitions", "--help"])
def test_output_that_can_not_be_written_is_no_traceback(command: str, redirect: str, code: int) -> None:
    line = f"{sys.executable} -m pipeline.cli.main {command} {redirect}"
    done = subprocess.run(["/bin/sh", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert ("No space left" in done.stderr) is (code == 2)


def test_the_demonstration_names_the_path_that_works_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert demo.called() == ".venv/bin/opx"
    (tmp_path / "opx").write_text("#!/bin/sh\n", encoding="utf-8")
    (tmp_path / "opx").chmod(0o755)
    assert demo.called() == "opx"


class Broken(Subscription):
    """A subscription whose queue can't be reached."""

    def __init__(self) -> None:
        self.calls = 0

    async def receive(self, wait_s: int = 1) -> tuple[Arrival, ...]:
        self.calls += 1
        raise Unavailable("receiving events: EndpointConnectionError")


async def test_a_tail_gives_up_at_its_first_failure_where_the_engine_was_stopped(tmp_path: Path) -> None:
    subscription = Broken()
    gone = Target("local engine", "us-east-1", tmp_path, endpoint_url="http://127.0.0.1:1")
    with pytest.raises(Unavailable):
        await _watch(Screen(as_json=True), subscription, None, gone)
    assert subscription.calls == 1


async def test_a_stopped_engine_is_noticed_and_a_stack_never_is_one(tmp_path: Path) -> None:
    assert await _is_gone(Target("local engine", "us-east-1", tmp_path, endpoint_url="http://127.0.0.1:1"))
    assert not await _is_gone(Target("stack", "us-east-1", tmp_path))
