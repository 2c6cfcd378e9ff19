"""Lambda's event shapes read into the services' values, the event files of tests/events among them."""

import json
from datetime import UTC, datetime
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain.envelope import IncidentEvent
from pipeline.domain.ids import incident_id
from pipeline.runtime.records import messages_of, scheduled_at, stream_records_of
from pipeline.services.fanout import FanoutService
from pipeline.services.ports import Message
from tests.simulation.world import Bus, Failures, VirtualClock
from tests.support.audit import audit
from tests.support.doors import Doors
from tests.support.streams import read, record, stored

EVENTS = Path(__file__).parents[1] / "events"
ALARMS_ARN = "arn:aws:sqs:us-east-1:000000000000:opx-alarms"
QUEUES = {"candidates": "opx-candidates", "alarms": "opx-alarms", "commands": "opx-commands.fifo"}


def event(name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))
    return read


def messages(name: str) -> tuple[Message, ...]:
    return messages_of(event(name), {ALARMS_ARN: "alarms"}, "commands" if name == "commands" else "candidates")


# --- messages -----------------------------------------------------------------------------------------------------------


def test_a_message_is_read_whole() -> None:
    (found,) = messages("candidates")
    raw = event("candidates")["Records"][0]
    assert found == Message(
        message_id=raw["messageId"],
        body=raw["body"],
        sender_id="000000000000",
        sent_at=datetime(2026, 1, 31, 3, 0, tzinfo=UTC),
        receive_count=1,
        receipt_handle=raw["receiptHandle"],
        source="candidates",
        group=None,
        attributes={},
    )


def test_a_group_is_read_from_a_fifo_queue() -> None:
    assert [found.group for found in messages("commands")] == [
        json.loads(found.body)["incidentId"] for found in messages("commands")
    ]


def test_only_the_alarms_queues_own_arn_names_it() -> None:
    given = event("alarms")
    assert messages("alarms")[0].source == "alarms"
    given["Records"][0]["eventSourceARN"] = ALARMS_ARN.replace("000000000000", "111111111111")
    assert messages_of(given, {ALARMS_ARN: "alarms"}, "candidates")[0].source == "candidates"


def test_attributes_are_the_senders_own_without_what_lambda_adds() -> None:
    given = event("candidates")
    empty: dict[str, list[Any]] = {"stringListValues": [], "binaryListValues": []}
    given["Records"][0]["messageAttributes"] = {
        "trace": {"stringValue": "t-1", "dataType": "String"} | empty,
        "digest": {"binaryValue": "AAEC", "dataType": "Binary"} | empty,
    }
    assert messages_of(given, {}, "candidates")[0].attributes == {
        "trace": {"stringValue": "t-1", "dataType": "String"},
        "digest": {"binaryValue": "AAEC", "dataType": "Binary"},
    }


def test_milliseconds_are_kept() -> None:
    given = event("candidates")
    given["Records"][0]["attributes"]["SentTimestamp"] = "1769828400123"
    assert messages_of(given, {}, "candidates")[0].sent_at == datetime(2026, 1, 31, 3, 0, 0, 123000, tzinfo=UTC)


# --- stream records -----------------------------------------------------------------------------------------------------


def test_a_stored_event_comes_back_from_the_stream_as_it_was() -> None:
    documents = stored()
    found = read(*[record(document) for document in documents])
    assert [one.document for one in found] == documents
    assert {one.change for one in found} == {"INSERT"}
    assert [(one.incident_id, one.sequence) for one in found] == [(d["incidentId"], d["sequence"]) for d in documents]


@pytest.mark.parametrize("key", [{"N": "1.5"}, {"N": "-1"}, {"S": "1"}, {"N": "²"}, {}], ids=repr)
def test_a_key_that_is_no_sequence_is_none(key: dict[str, str]) -> None:
    given = record(stored()[0])
    given["dynamodb"]["Keys"]["sequence"] = key
    assert read(given)[0].sequence is None


def test_a_record_that_cannot_be_read_says_so_and_stops_no_other() -> None:
    good, bad = record(stored()[0]), record(stored()[1], title={"B": "AAEC"})
    broken, sound = read(bad, good)
    assert broken.document is None
    assert broken.error is not None
    assert sound.document is not None


# --- the event files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", QUEUES)
def test_a_queues_event_file_has_the_shape_that_aws_sends(name: str) -> None:
    for found in event(name)["Records"]:
        wanted = {"messageId", "receiptHandle", "body", "attributes", "messageAttributes", "md5OfBody", "eventSource"}
        assert set(found) == wanted | {"eventSourceARN", "awsRegion"}
        assert found["md5OfBody"] == md5(found["body"].encode(), usedforsecurity=False).hexdigest()
        assert found["eventSourceARN"].endswith(f":{QUEUES[name]}")
        system = {"ApproximateReceiveCount", "SentTimestamp", "SenderId", "ApproximateFirstReceiveTimestamp"}
        fifo = {"SequenceNumber", "MessageGroupId", "MessageDeduplicationId"} if name == "commands" else set()
        assert set(found["attributes"]) == system | fifo
        assert all(isinstance(value, str) for value in found["attributes"].values())


@pytest.mark.parametrize("name", ["retention", "health"])
def test_a_scheduled_event_file_has_the_shape_that_aws_sends(name: str) -> None:
    found = event(name)
    assert (found["source"], found["detail-type"], found["detail"]) == ("aws.events", "Scheduled Event", {})
    assert found["resources"] == [f"arn:aws:events:us-east-1:000000000000:rule/opx-{name}"]
    assert scheduled_at(found) == datetime(2026, 1, 31, 3, 0, tzinfo=UTC)


def test_whoever_invokes_by_hand_needs_no_time_but_a_wrong_one_is_an_error() -> None:
    assert scheduled_at({}) is None
    for time in ("soon", "2026-01-31", 1769828400, None):
        with pytest.raises((ValueError, TypeError)):
            scheduled_at({"time": time})


async def test_the_queues_event_files_are_valid_at_the_doors() -> None:
    doors = Doors()
    assert await doors.offer(*messages("candidates"), *messages("alarms")) == ()
    assert await doors.order(*messages("commands")) == ()
    assert doors.services == {"payments"}
    payments = doors.memory.incidents[incident_id("payments", "payments-5xx", 1)]
    assert (payments["state"], payments["severity"]) == ("MITIGATING", "SEV2")
    assert len(doors.memory.incidents) == 2
    assert doors.rejected.codes() == ["incident-unknown"], "the second command shows what a refusal looks like"
    audit(doors.memory)


async def test_the_streams_event_file_is_published_whole() -> None:
    given = event("fanout")
    bus, failures = Bus(), Failures()
    published = await FanoutService(bus, failures, VirtualClock()).relay(stream_records_of(given))
    assert len(published.published) == len(given["Records"]) == 2
    assert failures.kept == []
    for document in published.published:
        IncidentEvent.from_document(document)
    for found in given["Records"]:
        wanted = {"eventID", "eventName", "eventVersion", "eventSource", "awsRegion", "dynamodb", "eventSourceARN"}
        assert set(found) == wanted
        assert found["dynamodb"]["StreamViewType"] == "NEW_IMAGE"
