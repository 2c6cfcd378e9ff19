"""What a subscriber did not receive is told exactly, and nothing that it need not have."""

import io
import json
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline.cli.gaps import Expected, Question, take_all, tell_gaps, verdict
from pipeline.cli.missing import Expectation, Where, missing_of
from pipeline.cli.received import Received, SubscribersQueue, of_lines
from pipeline.cli.republishing import Terms
from pipeline.cli.session import Invocation
from pipeline.cli.target import Selection
from pipeline.cli.terminal import CommandError, Meter, Screen
from pipeline.domain.canonical import format_time
from pipeline.services.stored_events import EventsOfTime
from pipeline.stores.event_scan import DynamoEventScan
from tests.support.clock import NOW
from tests.support.event_table import EventTable
from tests.support.streams import stored

INSIDE, BEHIND, NEVER_SEEN = Where


@pytest.mark.parametrize(
    ("received", "missing", "where"),
    [
        ({1, 2, 3, 4, 5, 6}, None, ()),
        ({1, 2, 4, 6}, "3, 5", (INSIDE,)),
        ({3, 4}, "1-2, 5-6", (INSIDE, BEHIND)),
        ({1, 2, 3}, "4-6", (BEHIND,)),
        (set(), "1-6", (NEVER_SEEN,)),
        ({1, 2, 3, 4, 5, 6, 7, 8}, None, ()),
    ],
)
def test_each_gap_is_told_with_where_it_is(received: set[int], missing: str | None, where: tuple[Where, ...]) -> None:
    found = missing_of({"one": set(range(1, 7))}, {"one": received} if received else {})
    assert [(one.told(), one.where) for one in found] == ([(missing, where)] if missing else [])


def test_the_incident_that_misses_most_is_told_first() -> None:
    found = missing_of({"a": {1}, "b": {1, 2}, "c": {1}}, {})
    assert [one.incident_id for one in found] == ["b", "a", "c"]
    assert found[0].to_document() == {
        "incidentId": "b",
        "missing": [[1, 2]],
        "count": 2,
        "newestReceived": 0,
        "where": ["never-seen"],
    }


def test_what_is_young_or_of_other_services_and_types_is_not_expected() -> None:
    document = stored()[0]
    service, kind = document["metadata"]["service"], document["eventType"]
    assert Expectation(NOW).concerns(document)
    assert Expectation(NOW, (service,), (kind,)).concerns(document)
    assert not Expectation(NOW, ("another",)).concerns(document)
    assert not Expectation(NOW, (), ("IncidentClosed",)).concerns(document)
    at = datetime(2026, 2, 1, tzinfo=UTC)
    aged = document | {"timestamp": format_time(at)}
    assert Expectation(at + timedelta(microseconds=1)).is_due(aged)
    assert not Expectation(at).is_due(aged)
    assert Expectation(at).is_due(document | {"timestamp": "yesterday"})


def forms() -> list[str]:
    """Return one event in each form that a subscriber may have logged it in."""
    detail = json.loads(json.dumps(stored()[0], default=float))
    envelope = {"source": "opx.incidents", "detail-type": detail["eventType"], "detail": detail | {"replayed": True}}
    return [json.dumps(form) for form in (detail, envelope, {"Body": json.dumps(envelope)}, detail | {"opxTail": "late"})]


@pytest.mark.parametrize("line", forms())
def test_an_event_is_read_in_every_form_that_subscribers_get(line: str) -> None:
    found = of_lines(["\n", line + "\n", '{"source": "aws.s3", "detail-type": "x"}\n', "no JSON\n"])
    assert dict(found.sequences) == {stored()[0]["incidentId"]: {1}}
    assert (found.messages, found.events, found.others) == (3, 1, 2)


class Sqs:
    """A queue as SQS answers: what is received is hidden until it is made visible again."""

    def __init__(self, bodies: list[str], **attributes: str) -> None:
        self.bodies = bodies
        self.attributes = attributes
        self.hidden: set[int] = set()
        self.others: set[int] = set()
        self.looks = 0

    async def get_queue_attributes(self, **_: Any) -> dict[str, Any]:
        depth = {"ApproximateNumberOfMessages": str(len(self.bodies) - len(self.others))}
        return {"Attributes": depth | {"ApproximateNumberOfMessagesNotVisible": str(len(self.others))} | self.attributes}

    async def receive_message(self, **_: Any) -> dict[str, Any]:
        self.looks += 1
        free = [number for number in range(len(self.bodies)) if number not in self.hidden | self.others][:10]
        self.hidden |= set(free)
        return {"Messages": [{"MessageId": f"m{n}", "ReceiptHandle": str(n), "Body": self.bodies[n]} for n in free]}

    async def change_message_visibility_batch(self, Entries: list[dict[str, Any]], **_: Any) -> dict[str, Any]:
        self.hidden -= {int(entry["ReceiptHandle"]) for entry in Entries if entry["VisibilityTimeout"] == 0}
        return {}


async def looked(sqs: Sqs) -> Received:
    return await SubscribersQueue(sqs, "queue").look(Meter())


async def test_everything_in_a_queue_is_looked_at_once_and_given_back() -> None:
    details = [json.dumps(document, default=float) for document in stored()] * 4
    sqs = Sqs(details)
    found = await looked(sqs)
    assert (found.messages, found.unseen) == (len(details), 0)
    assert found.events == len(stored())
    assert sqs.hidden == set(), "all of it is there for the subscriber again"


async def test_what_others_hold_is_counted_as_not_seen() -> None:
    sqs = Sqs([json.dumps(document, default=float) for document in stored()])
    sqs.others = {0, 1, 2}
    assert (await looked(sqs)).unseen == 3


@pytest.mark.parametrize(("tries", "may"), [(1, False), (2, False), (3, True), (5, True)])
async def test_a_queue_that_looking_would_empty_into_its_dlq_is_not_looked_at(tries: int, may: bool) -> None:
    sqs = Sqs(["{}"], RedrivePolicy=json.dumps({"deadLetterTargetArn": "arn", "maxReceiveCount": tries}))
    if may:
        assert (await looked(sqs)).messages == 1
        return
    with pytest.raises(CommandError, match=f"after {tries} tries"):
        await looked(sqs)
    assert sqs.looks == 0


async def test_an_event_that_cannot_be_read_is_neither_expected_nor_forgotten() -> None:
    """Whatever page it is on, and whatever came: nobody can say whether it is missing."""
    table = EventTable(stored(), page=2)
    table.items[3]["binary"] = {"B": b"no event of opx has one"}
    unread = stored()[3]
    ever = (NOW - timedelta(days=3650), NOW + timedelta(days=3650))
    expected = Expected(defaultdict(set))
    await take_all(expected, EventsOfTime(DynamoEventScan(table, "events"), (ever,), 3), Expectation(ever[1]))
    assert [(one.incident_id, one.sequence) for one in expected.lost] == [(unread["incidentId"], unread["sequence"])]
    found = {(incident, sequence) for incident, sequences in expected.sequences.items() for sequence in sequences}
    assert found == {(one["incidentId"], one["sequence"]) for one in stored() if one != unread}
    received = Received(sequences=expected.sequences)
    assert verdict(missing_of(expected.sequences, received.sequences), expected) == 1, "all that can be read came"
    shown = " ".join(told(received, expected, ever).split())
    assert "nothing of what can be read" in shown
    assert f"1 event can't be read, and may be missing: {unread['incidentId']}/{unread['sequence']}." in shown


def told(received: Received, expected: Expected, span: tuple[datetime, datetime]) -> str:
    """Return what a person sees who asked about a span of time."""
    file = io.StringIO()
    console = Console(file=file, width=120, markup=False, highlight=False, emoji=False)
    screen = Screen(False, console, console)
    question = Question(None, Path("log"), span, Expectation(span[1]), False, Terms())
    tell_gaps(Invocation(screen, Selection("OpxControlPlaneStack")), question, received, expected, [])
    return file.getvalue()


def test_where_a_span_was_asked_for_it_is_said_that_nothing_before_it_was() -> None:
    shown = told(Received(), Expected(defaultdict(set)), (NOW, NOW))
    assert "what is missing of before is not told" in " ".join(shown.split())
    assert verdict([], Expected(defaultdict(set))) == 0


def test_of_many_gaps_the_first_are_told_and_the_others_counted() -> None:
    (found,) = missing_of({"one": set(range(1, 100, 2))}, {})
    assert found.told() == "1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, … and 38 more gaps"
    assert len(found.to_document()["missing"]) == 50
