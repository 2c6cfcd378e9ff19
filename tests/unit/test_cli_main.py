"""The command line itself: shared options anywhere, exit codes, and errors that say what to do next."""

import json
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from pipeline.cli.main import app, hoisted
from pipeline.cli.session import Invocation, execute, explain, guarded, run
from pipeline.cli.target import Selection, Target
from pipeline.cli.terminal import DONE, FAILED, INTERRUPTED, REFUSED, CommandError, Screen
from pipeline.domain.errors import Code, Corrupt, Refusal, Rejected, Unavailable
from pipeline.domain.transitions import TRANSITIONS
from pipeline.local.engine import EngineError

COMMANDS = {
    "demo",
    "up",
    "down",
    "status",
    "send",
    "queue",
    "list",
    "open",
    "declare",
    "mitigate",
    "resolve",
    "close",
    "cancel",
    "dismiss",
    "promote",
    "severity",
    "note",
    "evidence",
    "link",
    "receipt",
    "tail",
    "transitions",
}


def opx(*arguments: str, state: Path | None = None) -> tuple[int, str, str]:
    shared = [] if state is None else ["--state-dir", str(state)]
    result = CliRunner().invoke(app, [*arguments, *shared])
    return result.exit_code, result.stdout, result.stderr


def test_every_command_is_there_and_says_what_it_does() -> None:
    known = {command.name for command in typer.main.get_command(app).commands.values()}  # type: ignore[attr-defined]
    assert known >= COMMANDS
    for name in known:
        code, out, _ = opx(name, "--help")
        assert code == DONE
        assert "Usage:" in out


def test_transitions_are_the_table() -> None:
    code, out, _ = opx("transitions")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == DONE
    assert [(row["from"], row["to"], set(row["authority"])) for row in rows] == [
        (row.source, row.target, set(row.authorities)) for row in TRANSITIONS
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["open", "1aa0"],
        ["receipt", "key"],
        ["status"],
        ["queue", "list"],
        ["queue", "show", "rejected"],
        ["queue", "redrive", "rejected", "--all"],
        ["send", "--json-body", "{}"],
        ["tail"],
        ["note", "1aa0", "text"],
        ["declare", "--service", "s", "--severity", "sev1", "--title", "t"],
        ["mitigate", "--service", "s", "--all-matching"],
    ],
)
def test_without_an_engine_the_next_command_starts_one(arguments: list[str], tmp_path: Path) -> None:
    code, out, err = opx(*arguments, state=tmp_path)
    assert (code, out) == (FAILED, "")
    assert json.loads(err)["next"] == "opx up"


@pytest.mark.parametrize("arguments", [["up"], ["down"]])
def test_a_stack_in_an_account_is_neither_started_nor_stopped_here(arguments: list[str]) -> None:
    code, _, err = opx("--stack", "mine", *arguments)
    assert code == REFUSED
    assert "sam deploy" in json.loads(err)["next"]


def test_stopping_nothing_is_done(tmp_path: Path) -> None:
    assert opx("down", state=tmp_path) == (DONE, '{"stopped":false}\n', "")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["send", "no-such-file"], "can't be read"),
        (["send", "file", "--json-body", "{}"], "Both"),
        (["send", "empty"], "nothing to send"),
    ],
)
def test_input_that_is_none_is_said_so(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").write_text("\n\n", encoding="utf-8")
    code, out, err = opx(*arguments, state=tmp_path)
    assert code in (REFUSED, FAILED)
    assert (out, told in json.loads(err)["error"], json.loads(err)["next"]) == ("", True, "opx send --help")


def test_a_wrong_option_is_a_usage_error() -> None:
    code, _, err = opx("list", "--state", "ASLEEP")
    assert code == FAILED
    assert "--help" in err


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        (["list", "--json"], ["--json", "list"]),
        (["open", "x", "--stack", "s", "--region=eu-west-1"], ["--stack", "s", "--region=eu-west-1", "open", "x"]),
        (["note", "x", "--", "--json"], ["note", "x", "--", "--json"]),
        (["tail", "--region"], ["--region", "tail"]),
        (
            ["severity", "x", "SEV1", "--profile", "p", "--reason", "r"],
            ["--profile", "p", "severity", "x", "SEV1", "--reason", "r"],
        ),
    ],
)
def test_shared_options_may_stand_behind_the_command(given_: list[str], expected: list[str]) -> None:
    assert hoisted(given_) == expected


@given(st.lists(st.sampled_from(["--json", "--stack", "a", "--", "--reason", "--region=x"])))
def test_hoisting_loses_and_adds_nothing(arguments: list[str]) -> None:
    assert sorted(hoisted(arguments)) == sorted(arguments)
    assert hoisted(hoisted(arguments)) == hoisted(arguments)


def test_the_environment_names_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPX_STACK", "mine")
    assert opx("up")[0] == REFUSED


@pytest.mark.parametrize(
    ("selection", "flags"),
    [
        (Selection(), ""),
        (Selection(state_dir=Path("/tmp/x")), " --state-dir /tmp/x"),
        (Selection("s"), " --stack s"),
        (Selection("s", "p", "eu-west-1"), " --stack s --profile p --region eu-west-1"),
    ],
)
def test_the_next_command_goes_to_the_same_target(selection: Selection, flags: str) -> None:
    assert Invocation(Screen(True), selection).opx == f"opx{flags}"


@pytest.mark.parametrize(
    ("error", "code", "then"),
    [
        (CommandError("x", "opx up"), FAILED, "opx up"),
        (Rejected(Refusal(Code.INVALID_FIELD, "x")), REFUSED, "opx --help"),
        (EngineError("It ended.\nNext: opx down"), FAILED, "opx down"),
        (EngineError("It ended."), FAILED, "opx up"),
        (Corrupt("x"), FAILED, "opx status"),
        (Unavailable("down"), FAILED, "opx up"),
    ],
)
def test_every_error_has_a_next_command(error: Exception, code: int, then: str) -> None:
    explained = explain(error, Invocation(Screen(True), Selection()))
    assert (explained.exit_code, explained.then) == (code, then)
    assert explained.message


def test_a_denied_call_to_a_stack_asks_who_is_calling() -> None:
    invocation = Invocation(Screen(True), Selection("s", "p"))
    denied = explain(Unavailable("reading: AccessDeniedException: no"), invocation)
    assert denied.then == "aws sts get-caller-identity --profile p"
    assert explain(Unavailable("reading: InternalError"), invocation).then == "opx --stack s --profile p status"


def test_an_interrupt_is_no_error() -> None:
    with pytest.raises(typer.Exit) as left, guarded(Invocation(Screen(True), Selection())):
        raise KeyboardInterrupt
    assert left.value.exit_code == INTERRUPTED


def test_a_defect_is_not_dressed_up_as_something_else() -> None:
    with pytest.raises(ZeroDivisionError), guarded(Invocation(Screen(True), Selection())):
        raise ZeroDivisionError


def test_the_exit_code_is_the_works() -> None:
    async def refused() -> int:
        return REFUSED

    assert execute(refused()) == REFUSED


def test_a_stack_without_an_output_is_said_to_be_none_of_ours(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no output BusName"):
        Target("other", "us-east-1", tmp_path).prefix  # noqa: B018


def test_run_takes_the_invocation_from_the_context() -> None:
    seen: list[str] = []

    async def work(invocation: Invocation) -> int:
        seen.append(invocation.opx)
        return DONE

    context = typer.Context(typer.main.get_command(app))
    context.obj = Invocation(Screen(True), Selection("s"))
    with pytest.raises(typer.Exit) as left:
        run(context, work)
    assert (seen, left.value.exit_code) == (["opx --stack s"], DONE)
