"""Every stored event goes out at least once and as stored; what never can is settled; only an outage stops the stream."""

import json
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from pipeline.domain.canonical import Document, canonical_bytes, parse_document
from pipeline.domain.errors import Unavailable
from pipeline.runtime.telemetry import Telemetry
from pipeline.services.fanout import FanoutService, entry_of
from pipeline.services.ports import FailedRecord
from pipeline.stores.eventbridge import EventBridgeBus
from pipeline.stores.queues import SqsFailureQueue
from tests.simulation.world import VirtualClock
from tests.support.streams import read, read_all, record, sealed, stored


class Aws:
    """AWS's side of the bus and of the failure queue. `verdict`: an error code for a detail in a request, or None."""

    def __init__(self, verdict: Callable[[str, int], str | None] = lambda detail, call: None) -> None:
        self.verdict = verdict
        self.down = self.queue_down = False
        self.calls = 0
        self.details: list[str] = []
        self.kept: list[dict[str, Any]] = []

    async def put_events(self, Entries: list[dict[str, Any]]) -> dict[str, Any]:
        if self.down:
            raise EndpointConnectionError(endpoint_url="https://events.us-east-1.amazonaws.com")
        self.calls += 1
        codes = [self.verdict(entry["Detail"], self.calls) for entry in Entries]
        self.details += [entry["Detail"] for entry, code in zip(Entries, codes, strict=True) if code is None]
        answers = [{"EventId": "e"} if code is None else {"ErrorCode": code, "ErrorMessage": "why"} for code in codes]
        return {"FailedEntryCount": sum(code is not None for code in codes), "Entries": answers}

    async def send_message_batch(self, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:
        if self.queue_down:
            raise EndpointConnectionError(endpoint_url=QueueUrl)
        self.kept += [json.loads(entry["MessageBody"]) for entry in Entries]
        return {"Successful": [{"Id": entry["Id"]} for entry in Entries]}

    def published(self) -> set[tuple[str, int]]:
        documents = [json.loads(detail) for detail in self.details]
        return {(document["incidentId"], document["sequence"]) for document in documents}

    def failed(self) -> list[tuple[Any, Any, Any]]:
        return [(one.get("incidentId"), one.get("sequence"), one["error"]) for one in self.kept]


def service(aws: Aws) -> FanoutService:
    clock = VirtualClock()
    queue = SqsFailureQueue(aws, "https://sqs.us-east-1.amazonaws.com/123456789012/opx-fanout-failures", clock)
    return FanoutService(EventBridgeBus(aws, "opx-bus", clock), queue, clock)


def keys(documents: list[Document]) -> set[tuple[str, int]]:
    return {(document["incidentId"], document["sequence"]) for document in documents}


# --- at least once, as stored -------------------------------------------------------------------------------------------


async def test_every_event_goes_out_with_the_bytes_it_is_stored_with() -> None:
    aws, documents = Aws(), stored()
    published = await service(aws).relay(read_all(documents))
    assert aws.details == [canonical_bytes(document).decode() for document in documents]
    assert published.published == tuple(documents)
    assert (published.failed, published.corrupt, aws.kept) == ((), 0, [])


async def test_an_entry_is_addressed_by_its_type_and_incident() -> None:
    document = stored()[0]
    entry = entry_of(document)
    assert (entry.detail_type, entry.resource) == ("IncidentCreated", document["incidentId"])
    assert parse_document(entry.detail) == document
    assert parse_document(entry_of(document, replayed=True).detail) == document | {"replayed": True}


async def test_shuffled_and_duplicated_records_still_bring_every_event_gapless(rng: random.Random) -> None:
    aws, documents = Aws(), stored()
    records = list(read_all(documents + rng.choices(documents, k=10)))
    rng.shuffle(records)
    fanout = service(aws)
    for start in range(0, len(records), 7):
        await fanout.relay(records[start : start + 7])
    assert aws.published() == keys(documents)
    assert len({json.loads(detail)["eventId"] for detail in aws.details}) == len(documents), "a duplicate has its eventId"
    for incident in {document["incidentId"] for document in documents}:
        numbers = sorted(number for known, number in aws.published() if known == incident)
        assert numbers == list(range(1, len(numbers) + 1))


async def test_entries_that_the_bus_fails_now_and_then_all_arrive(rng: random.Random) -> None:
    aws = Aws(lambda detail, call: "InternalFailure" if call < 20 and rng.random() < 0.4 else None)
    fanout, documents = service(aws), stored()
    records = list(read_all(documents))
    rng.shuffle(records)
    for _ in range(20):
        try:
            await fanout.relay(records)
        except Unavailable:
            continue  # the stream delivers the batch again
        break
    assert aws.published() == keys(documents)
    assert aws.kept == []


@pytest.mark.parametrize("version", [0, 2, 99])
async def test_other_schema_versions_are_published_all_the_same(version: int) -> None:
    """An event written by newer code, or by older, is still a fact; reading it is the subscriber's business."""
    newer = sealed(stored()[0] | {"schemaVersion": version, "somethingNew": {"a": 1}})
    aws = Aws()
    assert (await service(aws).relay(read_all([newer]))).published == (newer,)
    assert parse_document(aws.details[0]) == newer


async def test_a_lag_is_from_the_events_time_to_now() -> None:
    aws, document = Aws(), stored()[0]
    fanout = service(aws)
    fanout.clock.skew = entry_of(document).time - fanout.clock.now() + timedelta(seconds=2.5)  # type: ignore[attr-defined]
    assert (await fanout.relay(read_all([document]))).lags_s == (2.5,)


async def test_nothing_to_do_is_no_call() -> None:
    aws = Aws()
    assert (await service(aws).relay(())).published == ()
    assert aws.calls == 0


# --- poison -------------------------------------------------------------------------------------------------------------

FIRST, SECOND = stored()[:2]
KEY = (FIRST["incidentId"], FIRST["sequence"])
NUMBER_KEYS = record(FIRST, incidentId={"N": "5"})
NUMBER_KEYS["dynamodb"]["Keys"] = {"incidentId": {"N": "5"}, "sequence": {"S": "one"}}
NO_KEYS = record(FIRST)
del NO_KEYS["dynamodb"]["Keys"]
NO_IMAGE = record(FIRST)
del NO_IMAGE["dynamodb"]["NewImage"]
EMPTY = {"eventName": "INSERT"}

POISON = {
    "an attribute opx never writes": (record(FIRST, title={"B": "AAEC"}), (*KEY, "unreadable")),
    "an attribute of no kind": (record(FIRST, title={}), (*KEY, "unreadable")),
    "a number that is none": (record(FIRST, title={"N": "many"}), (*KEY, "unreadable")),
    "no hash": (record(FIRST, hash=...), (*KEY, "unreadable")),
    "a wrong hash": (record(FIRST, hash={"S": "0" * 64}), (*KEY, "corruption")),
    "a changed attribute": (record(FIRST, timestamp={"S": "2026-01-31T03:00:01.000000Z"}), (*KEY, "corruption")),
    "an added attribute": (record(FIRST, extra={"S": "x"}), (*KEY, "corruption")),
    "no type": (record(sealed({k: v for k, v in FIRST.items() if k != "eventType"})), (*KEY, "unreadable")),
    "a number for a type": (record(sealed(FIRST | {"eventType": 5})), (*KEY, "unreadable")),
    "a number for a time": (record(sealed(FIRST | {"timestamp": 5})), (*KEY, "unreadable")),
    "no time": (record(FIRST, timestamp=...), (*KEY, "unreadable")),
    "a time without zone": (record(sealed(FIRST | {"timestamp": "2026-01-31T03:00:00"})), (*KEY, "unreadable")),
    "the image of another key": (record(FIRST, sequence={"N": "7"}), (*KEY, "unreadable")),
    "number keys": (NUMBER_KEYS, (None, None, "unreadable")),
    "no keys": (NO_KEYS, (None, None, "unreadable")),
    "no image": (NO_IMAGE, (*KEY, "unreadable")),
    "nothing at all": (EMPTY, (None, None, "unreadable")),
}


@pytest.mark.parametrize(("poison", "settled"), POISON.values(), ids=POISON.keys())
async def test_poison_is_settled_and_the_records_behind_it_flow_on(poison: dict[str, Any], settled: tuple[Any, ...]) -> None:
    aws = Aws()
    published = await service(aws).relay(read(poison, record(SECOND), poison))
    assert published.published == (SECOND,)
    assert aws.published() == keys([SECOND])
    assert aws.failed() == [settled] * 2
    assert all(one["detail"] for one in aws.kept), "and says why"


@pytest.mark.parametrize("change", ["MODIFY", "REMOVE", "None", "TRUNCATE"])
async def test_a_change_that_is_no_insert_is_never_published_and_counts_as_corruption(change: str) -> None:
    aws = Aws()
    published = await service(aws).relay(read(record(FIRST, change), record(SECOND)))
    assert aws.published() == keys([SECOND])
    assert published.corrupt == 1
    assert aws.failed() == [(*KEY, "corruption")]
    assert change in aws.kept[0]["detail"]


async def test_corruption_is_a_metric(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry = Telemetry("fanout-corruption")
    relayed = await service(Aws()).relay(read(record(FIRST, "MODIFY"), record(FIRST, "REMOVE"), record(SECOND)))
    telemetry.relayed(relayed)
    telemetry.flush()
    metrics = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"_aws"' in line]
    assert [line["Corruption"] for line in metrics] == [[2.0]]
    assert [line["EventsPublished"] for line in metrics] == [[1.0]]
    assert [line["EventsFailed"] for line in metrics] == [[2.0]]


async def test_what_the_bus_will_never_take_is_settled_with_its_code() -> None:
    aws = Aws(lambda detail, call: "MalformedDetail" if FIRST["eventId"] in detail else None)
    published = await service(aws).relay(read_all([FIRST, SECOND]))
    assert published.failed == (FailedRecord(*KEY, "MalformedDetail", "why"),)
    assert aws.failed() == [(*KEY, "MalformedDetail")]
    assert aws.published() == keys([SECOND])


# --- outages ------------------------------------------------------------------------------------------------------------


async def test_a_bus_that_is_down_raises_and_the_batch_loses_nothing() -> None:
    aws = Aws()
    fanout, batch = service(aws), read(record(FIRST, "MODIFY"), record(SECOND))
    aws.down = True
    with pytest.raises(Unavailable, match="PutEvents"):
        await fanout.relay(batch)
    aws.down = False
    await fanout.relay(batch)
    assert aws.published() == keys([SECOND])
    assert aws.failed() == [(*KEY, "corruption")]


async def test_a_failure_queue_that_is_down_raises_and_the_batch_loses_nothing() -> None:
    aws = Aws()
    fanout, batch = service(aws), read(record(FIRST, "MODIFY"), record(SECOND))
    aws.queue_down = True
    with pytest.raises(Unavailable, match="failure queue"):
        await fanout.relay(batch)
    aws.queue_down = False
    await fanout.relay(batch)
    assert aws.failed() == [(*KEY, "corruption")]
    assert aws.published() == keys([SECOND]), "once more, under the same eventId"


async def test_a_failure_queue_that_is_down_stops_nothing_that_is_sound() -> None:
    aws = Aws()
    aws.queue_down = True
    assert (await service(aws).relay(read_all([FIRST, SECOND]))).published == (FIRST, SECOND)
