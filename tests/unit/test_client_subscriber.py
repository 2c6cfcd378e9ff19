"""A subscriber's Lambda function: every form an event comes in, partial batches, and what must come again."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.clients.answers import Event
from pipeline.clients.progress import MemoryProgress
from pipeline.clients.subscriber import Behind, NotAnEvent, Subscriber, read_event, subscriber
from pipeline.domain.envelope import detail_of
from pipeline.domain.errors import Unavailable
from tests.support.histories import whole_life

HISTORY = [json.loads(detail_of(event.to_document())) for event in whole_life()[0]]
OTHER = [json.loads(detail_of(event.to_document())) for event in whole_life()[1]]
INCIDENT = HISTORY[0]["incidentId"]


def envelope(document: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "version": "0",
        "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
        "detail-type": document["eventType"],
        "source": "opx.incidents",
        "account": "123456789012",
        "time": "2026-01-31T03:00:00Z",
        "region": "us-east-1",
        "resources": ["opx/incident/x"],
        "detail": document,
    } | fields


def batch(*documents: Any) -> dict[str, Any]:
    """Return what Lambda hands over from a rule's queue; each message is named by its place."""
    records = [
        {"messageId": str(number), "body": one if isinstance(one, str) else json.dumps(envelope(one))}
        for number, one in enumerate(documents)
    ]
    return {"Records": records}


def failures(answer: dict[str, Any] | None) -> list[str]:
    assert answer is not None
    return sorted(item["itemIdentifier"] for item in answer["batchItemFailures"])


class Kept(MemoryProgress):
    """A place outside of the process, as far as a subscriber can tell."""

    forgets = False


class Handler:
    """Keeps what it was given; fails for the sequences named."""

    def __init__(self, *failing: int) -> None:
        self.seen: list[int] = []
        self.failing = set(failing)

    def __call__(self, event: Event) -> None:
        if event.sequence in self.failing:
            raise OSError("the pager is down")
        self.seen.append(event.sequence)


class Api:
    """A history as the API answers it, or does not."""

    def __init__(self, documents: list[dict[str, Any]], error: Exception | None = None) -> None:
        self.documents, self.error = documents, error

    def events(self, incident_id: str, *, after: int = 0) -> Iterator[Event]:
        if self.error is not None:
            raise self.error
        yield from (Event.of(document) for document in self.documents[after:])


@pytest.mark.parametrize(
    "message",
    [
        HISTORY[0],
        envelope(HISTORY[0]),
        json.dumps(envelope(HISTORY[0])),
        json.dumps(HISTORY[0]).encode(),
        {"messageId": "1", "body": json.dumps(envelope(HISTORY[0]))},
        {"MessageId": "1", "Body": json.dumps(envelope(HISTORY[0]))},
        {"MessageId": "1", "Body": json.dumps(HISTORY[0])},
    ],
    ids=["detail", "envelope", "text", "bytes", "lambda-record", "received-message", "raw-detail"],
)
def test_an_event_is_read_in_every_form_it_comes_in(message: Any) -> None:
    event = read_event(message)
    assert (event.incident_id, event.sequence, event.event_type) == (INCIDENT, 1, "IncidentCreated")
    assert event.document == HISTORY[0]
    assert event.schema_known


def test_a_newer_event_is_read_as_far_as_it_is_the_same_and_told(caplog: pytest.LogCaptureFixture) -> None:
    newer = HISTORY[0] | {"schemaVersion": 2, "region": "mars", "metadata": {"else": 1}}
    event = read_event(envelope(newer))
    assert not event.schema_known
    assert event.document["region"] == "mars"
    assert "newer schema 2" in caplog.text


@pytest.mark.parametrize(
    "message",
    ["", "no json", "[]", "null", {}, {"body": "{}"}, envelope(HISTORY[0], source="aws.ec2"), HISTORY[0] | {"sequence": 0}],
)
def test_what_is_no_event_is_refused_by_name(message: Any) -> None:
    with pytest.raises(NotAnEvent):
        read_event(message)


def test_a_batch_in_any_order_is_handled_in_order_and_once() -> None:
    handler = Handler()
    lambda_ = Subscriber(handler, Kept())
    shuffled = [HISTORY[index] for index in (2, 0, 1, 2, 0)]
    assert failures(lambda_(batch(*shuffled), None)) == []
    assert handler.seen == [1, 2, 3]
    assert failures(lambda_(batch(*shuffled))) == []
    assert handler.seen == [1, 2, 3]


def test_what_is_behind_a_gap_goes_back_to_its_queue_and_is_handled_later() -> None:
    handler = Handler()
    lambda_ = Subscriber(handler, Kept())
    assert failures(lambda_(batch(HISTORY[0], HISTORY[2], HISTORY[3]))) == ["1", "2"]
    assert failures(lambda_(batch(HISTORY[2], HISTORY[1]))) == []
    assert failures(lambda_(batch(HISTORY[3]))) == []
    assert handler.seen == [1, 2, 3, 4]


def test_progress_that_forgets_without_a_history_is_refused_where_it_is_made() -> None:
    with pytest.raises(ValueError, match=r"MemoryProgress forgets .* Say progress=TableProgress\(table\), or history="):
        Subscriber(Handler(), MemoryProgress())
    with pytest.raises(ValueError, match="forgets"):
        subscriber(progress=MemoryProgress())(Handler())


def test_an_environment_that_knows_nothing_hands_all_of_the_history_over_again() -> None:
    handler = Handler()
    for known in (1, 2, 3):
        assert failures(Subscriber(handler, MemoryProgress(), Api(HISTORY))(batch(HISTORY[known - 1]))) == []
    assert handler.seen == [1, 1, 2, 1, 2, 3]


def test_what_is_missing_is_read_from_the_history() -> None:
    handler = Handler()
    lambda_ = Subscriber(handler, MemoryProgress(), Api(HISTORY))
    assert failures(lambda_(batch(HISTORY[5], HISTORY[2]))) == []
    assert handler.seen == [1, 2, 3, 4, 5, 6]


def test_where_the_history_does_not_answer_the_message_comes_again() -> None:
    handler = Handler()
    lambda_ = Subscriber(handler, MemoryProgress(), Api(HISTORY, Unavailable("down")))
    assert failures(lambda_(batch(HISTORY[1], HISTORY[0], HISTORY[4]))) == ["2"]
    assert handler.seen == [1, 2]


def test_a_handler_that_fails_holds_up_its_own_incident_only(caplog: pytest.LogCaptureFixture) -> None:
    handler = Handler(2)
    lambda_ = Subscriber(handler, Kept())
    with caplog.at_level(logging.ERROR):
        assert failures(lambda_(batch(HISTORY[0], HISTORY[1], HISTORY[2], OTHER[0]))) == ["1", "2"]
    assert handler.seen == [1, 1]
    assert "the pager is down" in caplog.text
    handler.failing.clear()
    assert failures(lambda_(batch(HISTORY[1], HISTORY[2]))) == []
    assert handler.seen == [1, 1, 2, 3]


def test_an_error_not_named_as_one_incidents_own_fails_the_invocation_and_loses_nothing() -> None:
    handler = Handler(2)
    progress = Kept()
    lambda_ = Subscriber(handler, progress, alone=(KeyError,))
    with pytest.raises(OSError, match="pager"):
        lambda_(batch(HISTORY[0], HISTORY[1]))
    assert progress.position(INCIDENT) == 1
    assert handler.seen == [1]


def test_a_message_that_is_no_event_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    handler = Handler()
    assert failures(Subscriber(handler, Kept())(batch("no json", HISTORY[0]))) == ["0"]
    assert handler.seen == [1]
    assert "message 0: not JSON" in caplog.text


def test_records_of_another_source_are_refused() -> None:
    with pytest.raises(NotAnEvent, match="another source"):
        Subscriber(Handler(), Kept())({"Records": [{"EventSource": "aws:sns", "Sns": {}}]})


def test_a_rule_that_invokes_directly_gets_an_error_until_the_event_is_handled() -> None:
    handler = Handler()

    @subscriber(progress=Kept())
    def lambda_(event: Event) -> None:
        handler(event)

    with pytest.raises(Behind, match=r"event 2 is still to be handled \(1-1 missing\)"):
        lambda_(envelope(HISTORY[1]))
    assert lambda_(envelope(HISTORY[0])) is None
    assert lambda_(envelope(HISTORY[1])) is None
    assert handler.seen == [1, 2]
    handler.failing = {3}
    with pytest.raises(Behind, match="its handler failed"):
        lambda_(envelope(HISTORY[2]))
