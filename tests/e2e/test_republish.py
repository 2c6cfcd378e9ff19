"""What the stream lost reaches subscribers from the event table, by the command line as it is, on the deployed stack."""

import asyncio
import json
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from pipeline.domain.canonical import Document, canonical_bytes, format_time
from pipeline.domain.incidents import Incident
from pipeline.runtime.clock import SystemClock
from pipeline.services.ports import Committed
from pipeline.stores.clients import open_clients
from pipeline.stores.dynamodb import DynamoIncidentStore, Tables
from pipeline.stores.items import from_item
from tests.support.engine_cli import calling
from tests.support.listening import Copy, Listener, folded, listening
from tests.support.noting import a_life
from tests.support.stack import Stack

pytestmark = pytest.mark.engine

INCIDENTS, EVENTS_EACH = 100, 50


def write(stack: Stack, service: str, incidents: int, events_each: int) -> None:
    """Write incidents through the real store, each with all its events in one transaction."""

    async def work() -> None:
        async with open_clients(("dynamodb",), endpoint_url=stack.endpoint_url) as clients:
            output = stack.outputs
            tables = Tables(output["IncidentsTableName"], output["EventsTableName"], output["IdempotencyTableName"])
            store = DynamoIncidentStore(clients.dynamodb, tables, SystemClock())
            for number in range(incidents):
                commit = a_life(service, f"key-{number}", events_each, datetime.now(UTC))
                assert await store.commit(commit) == Committed()

    asyncio.run(work())


@contextmanager
def fanout_off(stack: Stack, sentinel: str) -> Iterator[Any]:
    """Stop the fan-out; yield what discards all that came meanwhile, but for the events of one service, and starts it."""
    functions = stack.client("lambda")
    (mapping,) = functions.list_event_source_mappings(EventSourceArn=stack.outputs["EventsStreamArn"])[
        "EventSourceMappings"
    ]

    def update(**settings: Any) -> None:
        functions.update_event_source_mapping(UUID=mapping["UUID"], **settings)

    def discard_all_but_the_sentinel() -> None:
        image = {"metadata": {"M": {"service": {"S": [sentinel]}}}}
        pattern = json.dumps({"dynamodb": {"NewImage": image}})
        update(Enabled=True, FilterCriteria={"Filters": [{"Pattern": pattern}]})

    update(Enabled=False)
    try:
        yield discard_all_but_the_sentinel
    finally:
        update(Enabled=True, FilterCriteria={"Filters": []})


def of_table(stack: Stack, service: str) -> dict[str, Incident]:
    """Return what one that saw everything would have: the fold of the event table."""
    histories: dict[str, list[Document]] = defaultdict(list)
    for row in stack.rows("EventsTableName"):
        document = from_item(row)
        if document["metadata"]["service"] == service:
            histories[document["incidentId"]].append(document)
    found = {}
    for identity, history in histories.items():
        incident: Incident | None = None
        for document in sorted(history, key=lambda document: int(document["sequence"])):
            incident = folded(incident, document)
        assert incident is not None
        found[identity] = incident
    return found


def bytes_of(incidents: dict[str, Incident]) -> dict[str, bytes]:
    return {identity: canonical_bytes(incident.to_document()) for identity, incident in incidents.items()}


def taken(listener: Listener, copy: Copy, count: int) -> int:
    """Hand a subscriber what comes until `count` events came; return how many of them were marked as replayed."""
    replayed = came = 0
    newest = time.monotonic()
    while came < count:
        assert time.monotonic() < newest + 20, f"{came} of {count} events came"
        for event in listener.receive():
            copy.take(event)
            came += 1
            replayed += event.replayed
            newest = time.monotonic()
    return replayed


def test_five_thousand_events_that_the_stream_lost_are_brought_back_by_one_command(stack: Stack, rng: random.Random) -> None:
    name = f"lost-{rng.getrandbits(48):012x}"
    sentinel, total = f"{name}-sentinel", INCIDENTS * EVENTS_EACH
    copy = Copy.empty()
    with listening(stack, name, name, sentinel) as listener:
        began = time.monotonic()
        with fanout_off(stack, sentinel) as discard:
            since = datetime.now(UTC)
            write(stack, name, INCIDENTS, EVENTS_EACH)
            until = datetime.now(UTC)
            wrote = time.monotonic()
            write(stack, sentinel, 1, 1)
            discard()
            arrived = listener.until(lambda event: event.metadata["service"] == sentinel)
        assert [event.metadata["service"] for event in arrived] == [sentinel], "the rest was lost on the way to the bus"
        lost = time.monotonic()
        opx = calling(stack)
        span = ("--from", format_time(since), "--to", format_time(until))
        code, out, err = opx("republish", *span, "--rate", "5000")
        assert (code, [line.get("error") for line in err]) == (0, [None] * len(err))
        sent = time.monotonic()
        assert (out[-1]["published"], out[-1]["notPublished"]) == (total, 0)
        assert taken(listener, copy, total) == total
        print(
            f"written in {wrote - began:.1f} s, lost in {lost - wrote:.1f} s, out again in {sent - lost:.1f} s, "
            f"received in {time.monotonic() - sent:.1f} s"
        )
    assert copy.ordered.gaps() == ()
    expected = bytes_of(of_table(stack, name))
    assert len(expected) == INCIDENTS
    assert bytes_of(copy.incidents) == expected
