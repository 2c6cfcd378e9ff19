"""What `opx up` and `opx status` say about where things are: what to type first, and where messages are sent to."""

from pathlib import Path

import pytest

from pipeline.cli.engine import _say_where
from pipeline.cli.session import Invocation, Session
from pipeline.cli.status import Held, _record, _show
from pipeline.cli.target import Selection, Target
from pipeline.cli.terminal import Screen
from pipeline.cli.vitals import Unread, Verified, Vitals
from pipeline.domain.controls import Controls
from pipeline.stores.clients import Clients

URLS = {name: f"http://127.0.0.1:1/000000000000/{name}" for name in ("candidates", "commands", "rejected")}
API = {"ApiId": "a1", "ApiStageName": "v1"}
WELL = Vitals({}, Unread("not measured here"), "Enabled", (), Verified(None))
OUTPUTS = API | {f"{name.title()}QueueUrl": url for name, url in URLS.items()} | {"BusName": "opx-bus"}


def target_of(outputs: dict[str, str]) -> Target:
    return Target("local engine", "us-east-1", Path("state"), "http://127.0.0.1:1", outputs=outputs)


def invocation() -> Invocation:
    return Invocation(Screen(False), Selection())


def test_a_status_says_where_messages_and_commands_are_sent_to(capsys: pytest.CaptureFixture[str]) -> None:
    session = Session(target_of(OUTPUTS), Clients({}))
    _show(invocation(), session, WELL, [], Held(Controls()))
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["candidates", URLS["candidates"]] in shown
    assert ["commands", URLS["commands"]] in shown
    told = _record(session, WELL, [], Held(Controls()), [])
    assert (told["candidatesQueueUrl"], told["commandsQueueUrl"]) == (URLS["candidates"], URLS["commands"])


def test_a_stack_without_the_urls_still_has_a_status(capsys: pytest.CaptureFixture[str]) -> None:
    session = Session(target_of(API), Clients({}))
    _show(invocation(), session, WELL, [], Held(Controls()))
    assert "candidates" not in capsys.readouterr().out
    assert _record(session, WELL, [], Held(Controls()), [])["commandsQueueUrl"] is None


@pytest.mark.parametrize("is_found", [False, True])
def test_where_opx_is_not_on_the_path_the_way_to_it_comes_first(
    is_found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if is_found:
        (tmp_path / "opx").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    _say_where(invocation(), target_of(OUTPUTS), False, None, 1.0)
    steps = capsys.readouterr().out.partition("Next: ")[2].splitlines()
    assert (steps[0] == "source .venv/bin/activate") is not is_found
    assert steps[-1].strip() == "opx down"
