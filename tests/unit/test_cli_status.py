"""What `opx status` says of a stack's health: readable at 80 columns, and for whatever is wrong the next command."""

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline.cli.concerns import concerns_of
from pipeline.cli.counting import DEAD, INTAKE, QUEUES, WEBHOOK_DLQ, Depth
from pipeline.cli.session import Invocation, Session
from pipeline.cli.status import Held, _advise, _record, _show, lasted
from pipeline.cli.target import Selection, Target
from pipeline.cli.terminal import Screen
from pipeline.cli.vitals import NOT_MEASURED, OLDER_STACK, Ages, RaisedAlarm, Unread, Verified, Vitals, read_verified
from pipeline.domain.controls import Controls
from pipeline.stores.clients import Clients
from pipeline.stores.meters import DELETED

NOW = datetime.now(UTC)
OUTPUTS = {
    "FanoutMappingId": "3f0c4c1e-0d2b-4a52-9d2c-6f1f0f5a8a11",
    "ApiUrl": "https://a1.execute-api.eu-west-1.amazonaws.com/v1",
    "Version": "1.0.0",
    "EventSchemaVersion": "1",
    "ArchiveAfterDays": "90",
}
QUIET = {queue: Depth(0, 0, 0) for queue in (*QUEUES, WEBHOOK_DLQ)}
RUNBOOKS = Path(__file__).parents[2] / "infra" / "runbooks"


def session(**options: Any) -> Session:
    return Session(Target("OpxControlPlaneStack", "eu-west-1", Path("state"), outputs=OUTPUTS, **options), Clients({}))


def seen(**changes: Any) -> Vitals:
    well: dict[str, Any] = {
        "queues": QUIET,
        "ages": Ages({}, 0.4),
        "mapping": "Enabled",
        "alarms": (),
        "verified": Verified(NOW - timedelta(hours=3), 1200, 8400, 0),
    }
    return Vitals(**(well | changes))


def said(vitals: Vitals, width: int = 80) -> str:
    """Return what a person sees."""
    screen = Screen(False, Console(file=io.StringIO(), width=width, markup=False, highlight=False, emoji=False))
    invocation, at = Invocation(screen, Selection("OpxControlPlaneStack")), session()
    _show(invocation, at, vitals, [], Held(Controls()))
    _advise(invocation, concerns_of(at, vitals, invocation.opx), Held(Controls()), True)
    assert isinstance(screen.out.file, io.StringIO)
    return screen.out.file.getvalue()


def wrong(vitals: Vitals, **options: Any) -> list[tuple[str, str]]:
    return [(concern.what, concern.then) for concern in concerns_of(session(**options), vitals, "opx")]


def test_where_all_is_well_nobody_is_needed_and_every_part_says_so() -> None:
    shown = said(seen())
    assert "needs somebody" not in shown
    lines = {line.split()[0]: line for line in shown.splitlines() if line.strip()}
    assert "Enabled; behind: 0 s" in lines["fan-out"]
    assert "no alarm" in lines["raised"]
    assert "1200 incidents, 8400 events, 0 divergences" in lines["verified"]
    assert "90 days" in lines["archived"]
    assert set(lines) >= {*QUEUES, WEBHOOK_DLQ}


def test_all_of_it_fits_eighty_columns_whatever_is_wrong() -> None:
    bad = seen(
        queues={queue: Depth(123456, 789, 12) for queue in QUIET},
        ages=Ages(dict.fromkeys(QUIET, 4e6), 90000.0),
        mapping="Disabled",
        alarms=tuple(RaisedAlarm(path.stem, NOW) for path in sorted(RUNBOOKS.glob("*.md"))),
        verified=Verified(NOW, 10**7, 10**8, 3),
    )
    for line in said(bad).splitlines():
        assert len(line) <= 80 or "http" in line, line


@pytest.mark.parametrize(
    ("changes", "what", "then"),
    [
        ({"queues": QUIET | {"alarms-dlq": Depth(2, 0, 1)}}, "3 in alarms-dlq", "opx queue list"),
        ({"queues": QUIET | {"rejected": Depth(0, 4, 0)}}, "refused: 4 in rejected", "opx queue show rejected"),
        ({"queues": QUIET | {"fanout-failures": Depth(1, 0, 0)}}, "not published: 1 in", "opx queue show fanout-failures"),
        (
            {"queues": QUIET | {WEBHOOK_DLQ: Depth(5, 0, 0)}},
            "webhook did not take events: 5",
            f"opx queue show {WEBHOOK_DLQ}",
        ),
        ({"mapping": "Disabled"}, "nothing is published", "aws lambda update-event-source-mapping --uuid 3f0c"),
        ({"mapping": "what nobody knows"}, "nothing is published", "--enabled --region eu-west-1"),
        ({"mapping": DELETED}, "deleted: nothing is published", "see infra/runbooks/fanout-stopped.md"),
        ({"alarms": (RaisedAlarm("dead-messages", NOW),)}, "dead-messages is raised", "see infra/runbooks/dead-messages.md"),
        ({"verified": Verified(NOW, 9, 9, 2)}, "divergences: 2", "see infra/runbooks/corruption.md"),
        ({"queues": QUIET | {"rejected": Unread("down")}}, "Not to be read: the queue rejected: down", "opx status"),
        ({"alarms": Unread("x: AccessDenied: y")}, "which alarms are raised", "ReaderPolicyArn"),
        ({"mapping": Unread("x"), "ages": Unread("y")}, "whether the fan-out runs (and 1 more)", "opx status"),
        ({"verified": Unread("no record")}, "what was last verified", "opx status"),
    ],
)
def test_each_thing_that_needs_somebody_is_named_with_its_next_step(changes: Any, what: str, then: str) -> None:
    ((found, step),) = wrong(seen(**changes))
    assert what in found
    assert then in step
    shown = " ".join(said(seen(**changes)).split())
    assert "needs somebody" in shown


@pytest.mark.parametrize("queue", INTAKE)
def test_what_only_waits_needs_nobody(queue: str) -> None:
    assert wrong(seen(queues=QUIET | {queue: Depth(10_000, 50, 5)})) == []


@pytest.mark.parametrize("why", [NOT_MEASURED, OLDER_STACK])
def test_what_a_place_does_not_measure_is_said_and_is_no_fault(why: str) -> None:
    part = seen(ages=Unread(why), alarms=Unread(why), verified=Unread(why), mapping=Unread(why))
    assert wrong(part) == []
    assert why in said(part)
    assert "oldest" not in said(part)


def test_every_alarm_that_can_be_raised_leads_to_a_runbook() -> None:
    pages = sorted(path.stem for path in RUNBOOKS.glob("*.md") if path.stem not in ("README", "restore"))
    steps = [then for _, then in wrong(seen(alarms=tuple(RaisedAlarm(page, NOW) for page in pages)))]
    assert [(RUNBOOKS.parents[1] / step.removeprefix("see ")).is_file() for step in steps] == [True] * len(pages)


def test_the_worst_is_said_first() -> None:
    dead = {queue: Depth(1, 0, 0) for queue in DEAD}
    found = wrong(seen(verified=Verified(NOW, 1, 1, 1), queues=QUIET | dead, mapping="Disabled"))
    assert [what.split()[0:2] for what, _ in found] == [["The", "last"], ["The", "fan-out"], ["Messages", "are"]]


def test_the_engines_own_mapping_is_enabled_at_the_engine() -> None:
    ((_, then),) = wrong(seen(mapping="Disabled"), endpoint_url="http://127.0.0.1:4566")
    assert then.endswith("--endpoint-url http://127.0.0.1:4566")


def test_programs_are_told_the_same() -> None:
    vitals = seen(queues=QUIET | {"rejected": Unread("down")}, ages=Ages({"candidates": 42.0}, None), alarms=Unread("no"))
    told = _record(session(), vitals, [], Held(Controls()), concerns_of(session(), vitals, "opx"))
    assert told["queues"]["candidates"] == {"waiting": 0, "inFlight": 0, "delayed": 0, "oldestS": 42.0}
    assert told["queues"]["commands"]["oldestS"] is None
    assert told["queues"]["rejected"] == {"unread": "down"}
    assert told["fanout"] == {"mapping": "Enabled", "behindS": None}
    assert told["alarms"] == {"unread": "no"}
    assert (told["verified"]["incidents"], told["verified"]["divergences"]) == (1200, 0)
    assert [concern["next"] for concern in told["concerns"]] == ["opx status"]
    assert _record(session(), seen(verified=Verified(None)), [], Held(Controls()), [])["verified"] == {"at": None}


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (12_000, "3 h 20 min"), (187_200, "2 d 4 h")]
)
def test_a_duration_is_said_in_its_largest_units(seconds: float, text: str) -> None:
    assert lasted(seconds) == text


def test_an_age_of_what_is_empty_by_now_is_not_shown() -> None:
    ages = Ages({"candidates": 4000.0, "commands": 4000.0}, None)
    shown = said(seen(ages=ages, queues=QUIET | {"commands": Depth(1, 0, 0)}))
    rows = {line.split()[0]: line for line in shown.splitlines() if line.strip()}
    assert "1 h 6 min" in rows["commands"]
    assert "min" not in rows["candidates"]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"at": 5}', '{"at": "soon"}', '{"at": "2026-01-01T00:00:00Z"}', "null"])
def test_a_record_of_a_verification_that_is_none_says_so(text: str) -> None:
    assert isinstance(read_verified(text), Unread)


def test_what_replay_writes_down_is_read() -> None:
    text = (
        '{"at": "2026-01-01T00:00:00Z", "scope": "everything", "incidents": 3, "events": 9, "divergences": 1, "took_s": 2}'
    )
    assert read_verified(text) == Verified(datetime(2026, 1, 1, tzinfo=UTC), 3, 9, 1)
    assert read_verified('{"at": null}') == Verified(None)
