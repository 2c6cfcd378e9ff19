"""What the stream lost reaches subscribers from the event table, by the command line as it is, on the deployed stack."""

import asyncio
import json
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.cli.roles import open_as
from pipeline.cli.target import Selection, resolve
from pipeline.clients.answers import Event
from pipeline.domain.canonical import Document, canonical_bytes, format_time
from pipeline.domain.envelope import detail_of
from pipeline.domain.incidents import Incident
from pipeline.local.deploy import STACK
from pipeline.runtime.clock import SystemClock
from pipeline.services.ports import Commit, Committed
from pipeline.stores.clients import open_clients
from pipeline.stores.dynamodb import DynamoIncidentStore, Tables
from pipeline.stores.items import from_item
from tests.support.engine_cli import calling
from tests.support.listening import Copy, Listener, folded, listening
from tests.support.noting import a_life, noted
from tests.support.sources import ROOT
from tests.support.stack import Stack, wait_until

pytestmark = pytest.mark.engine

INCIDENTS, EVENTS_EACH = 100, 50


def write(stack: Stack, *commits: Commit) -> None:
    """Write through the real store, each commit in one transaction."""

    async def work() -> None:
        async with open_clients(("dynamodb",), endpoint_url=stack.endpoint_url) as clients:
            output = stack.outputs
            tables = Tables(output["IncidentsTableName"], output["EventsTableName"], output["IdempotencyTableName"])
            store = DynamoIncidentStore(clients.dynamodb, tables, SystemClock())
            for commit in commits:
                assert await store.commit(commit) == Committed()

    asyncio.run(work())


@contextmanager
def fanout_off(stack: Stack, sentinel: str) -> Iterator[Any]:
    """Stop the fan-out; yield what discards all that came meanwhile, but for the events of one service, and starts it."""
    functions = stack.client("lambda")
    (mapping,) = functions.list_event_source_mappings(EventSourceArn=stack.outputs["EventsStreamArn"])["EventSourceMappings"]

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
        # Half the calls: of thousands none needs to be removed one by one.
        for event in listener.receive(remove=False):
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
            write(stack, *(a_life(name, f"key-{number}", EVENTS_EACH, datetime.now(UTC)) for number in range(INCIDENTS)))
            until = datetime.now(UTC)
            wrote = time.monotonic()
            write(stack, a_life(sentinel, "sentinel", 1, datetime.now(UTC)))
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


# --- the failure queue ---------------------------------------------------------------------------------------------------

LONG_AGO = datetime(2001, 3, 1, 12, 0, tzinfo=UTC)
Failures = Callable[..., dict[str, str]]


@pytest.fixture
def fail(stack: Stack) -> Iterator[Failures]:
    """Put messages into the fan-out's failure queue, by name; what is left of them is removed afterwards."""
    sqs, url = stack.client("sqs"), stack.outputs["FanoutFailuresQueueUrl"]
    ids: set[str] = set()

    def put(**documents: Any) -> dict[str, str]:
        sent = {
            name: sqs.send_message(QueueUrl=url, MessageBody=json.dumps(document))["MessageId"]
            for name, document in documents.items()
        }
        ids.update(sent.values())
        return sent

    yield put
    remaining = lying(stack)
    for message_id in ids & remaining.keys():
        sqs.delete_message(QueueUrl=url, ReceiptHandle=remaining[message_id])


def lying(stack: Stack) -> dict[str, str]:
    """Return the messages in the failure queue, with their handles; they stay there."""
    sqs, url = stack.client("sqs"), stack.outputs["FanoutFailuresQueueUrl"]
    found: dict[str, str] = {}
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=30).get("Messages"):
        found |= {message["MessageId"]: message["ReceiptHandle"] for message in messages}
    for handle in found.values():
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=0)
    return found


def discarded(first: datetime, last: datetime) -> dict[str, Any]:
    """Return what Lambda says of a batch that it gave up: when its records arrived, to the second."""
    told = {"shardId": "shardId-1", "startSequenceNumber": "1", "endSequenceNumber": "2", "batchSize": 2}
    told |= {"approximateArrivalOfFirstRecord": f"{first:%Y-%m-%dT%H:%M:%SZ}"}
    return {"version": "1.0", "DDBStreamBatchInfo": told | {"approximateArrivalOfLastRecord": f"{last:%Y-%m-%dT%H:%M:%SZ}"}}


def test_a_failure_record_leaves_its_queue_only_when_its_events_are_on_the_bus(
    stack: Stack, rng: random.Random, fail: Failures
) -> None:
    name = f"failed-{rng.getrandbits(48):012x}"
    day = LONG_AGO + timedelta(days=rng.randrange(3000))
    named, given_up, elsewhere = (a_life(name, f"key-{number}", 4, day + timedelta(hours=number)) for number in range(3))
    assert named.incident is not None
    # Decided by a host whose clock is an hour behind: its time is the event's before it, its arrival isn't.
    assert given_up.incident is not None
    late = noted(given_up.incident, f"{name}-late", day)
    one, other = named.incident.incident_id, given_up.incident.incident_id
    with fanout_off(stack, name):
        write(stack, named, given_up, elsewhere, late)
        ids = fail(
            event={"incidentId": one, "sequence": 2, "error": "EntryTooLarge", "detail": "why"},
            again={"incidentId": one, "sequence": 2, "error": "EntryTooLarge", "detail": "why"},
            corrupt={"incidentId": one, "sequence": 3, "error": "corruption", "detail": "MODIFY"},
            gone={"incidentId": one, "sequence": 9, "error": "EntryTooLarge", "detail": "why"},
            batch=discarded(day + timedelta(minutes=59), day + timedelta(minutes=61)),
            early=discarded(day, day + timedelta(seconds=1)),
            junk={"something": "else"},
        )
        opx = calling(stack)
        with listening(stack, name, name) as listener:
            code, out, _ = opx("republish", "--failures", "--dry-run")
            assert (code, out[0]["notPublished"]["sequence"]) == (1, 9)
            assert set(ids.values()) <= lying(stack).keys(), "a dry run settles nothing"
            assert listener.receive() == []
            code, out, _ = opx("republish", "--failures", "--rate", "1000")
            came = {(event.incident_id, event.sequence) for event in drained(listener)}
    assert code == 1
    # The early batch arrived when all of the first incident was written.
    assert came == {*((one, number) for number in range(1, 5)), *((other, number) for number in range(1, 6))}
    left = lying(stack)
    settled = {key for key, value in ids.items() if value not in left}
    assert settled == {"event", "again", "batch", "early"}
    why = {line["messageId"]: line["why"] for line in out[-1]["kept"]}
    assert {key: why.get(value) for key, value in ids.items() if key not in settled} == {
        "corrupt": "it tells of corruption",
        "gone": "its event is not on the bus",
        "junk": "it names neither an event nor when its batch arrived",
    }


def drained(listener: Listener) -> list[Event]:
    """Return what has come, once nothing more comes."""
    found: list[Event] = []
    while came := listener.receive():
        found += came
    return found


# --- broken off ----------------------------------------------------------------------------------------------------------


def test_killed_in_the_middle_the_same_command_goes_on_and_nothing_is_lost(stack: Stack, rng: random.Random) -> None:
    name = f"killed-{rng.getrandbits(48):012x}"
    commits = [a_life(name, f"key-{number}", 20, LONG_AGO) for number in range(12)]
    ids = [commit.incident.incident_id for commit in commits if commit.incident is not None]
    marks = stack.engine.state_dir.parent / "republications"
    before = set(marks.glob("*.json"))
    with fanout_off(stack, name):
        write(stack, *commits)
        with listening(stack, name, name) as listener:
            command = ["--state-dir", str(stack.engine.state_dir), "--json", "republish", *ids, "--rate", "60"]
            child = subprocess.Popen([sys.executable, "-m", "pipeline.cli.main", *command], cwd=ROOT)
            wait_until(lambda: bool(set(marks.glob("*.json")) - before), within_s=30)
            child.kill()
            assert child.wait() == -signal.SIGKILL
            code, out, _ = calling(stack)("republish", *ids, "--rate", "1000")
            assert (code, out[-1]["publishedBefore"] > 0, out[-1]["published"] < 240) == (0, True, True)
            copy, came = Copy.empty(), drained(listener)
    for event in came:
        copy.take(event)
    assert {identity: incident.version for identity, incident in copy.incidents.items()} == dict.fromkeys(ids, 20)
    assert set(marks.glob("*.json")) == before, "what is done needs no marks"


# --- under the role ------------------------------------------------------------------------------------------------------


def test_on_aws_the_role_is_assumed_and_publishes(stack: Stack, rng: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"role-{rng.getrandbits(48):012x}"
    life = a_life(name, "key", 3, LONG_AGO)
    assert life.incident is not None
    # As a stack of that name in an account, which is this engine.
    monkeypatch.setenv("AWS_ENDPOINT_URL", stack.endpoint_url)

    async def who() -> str:
        target = await resolve(Selection(stack=STACK))
        async with open_as(target, "RepublishRoleArn", ("sts",)) as clients:
            return str((await clients.of("sts").get_caller_identity())["Arn"])

    assert asyncio.run(who()).endswith(":assumed-role/opx-republish/opx")
    with fanout_off(stack, name):
        write(stack, life)
        with listening(stack, name, name) as listener:
            result = CliRunner().invoke(app, ["--stack", STACK, "--json", "republish", life.incident.incident_id])
            assert result.exit_code == 0, result.output
            assert [(event.sequence, event.replayed) for event in drained(listener)] == [(1, True), (2, True), (3, True)]


def test_what_a_queue_lacks_is_told_and_sent_again(stack: Stack, rng: random.Random) -> None:
    name = f"gaps-{rng.getrandbits(48):012x}"
    at = LONG_AGO + timedelta(days=3000 + rng.randrange(3000))
    seen, unseen = (a_life(name, f"key-{number}", 10, at) for number in range(2))
    sqs = stack.client("sqs")
    with fanout_off(stack, name):
        write(stack, seen, unseen)
        with listening(stack, name, name) as listener:
            for event in seen.events:
                if event.sequence in (1, 2, 4, 5, 8):
                    sqs.send_message(QueueUrl=listener.queue_url, MessageBody=detail_of(event.to_document()))
            sqs.send_message(QueueUrl=listener.queue_url, MessageBody="no event")
            opx = calling(stack)
            code, out, err = opx("gaps", listener.queue_url)
            assert (code, out[0]["missing"], out[0]["where"]) == (1, [[3, 3], [6, 7], [9, 10]], ["inside", "behind"])
            assert (out[1]["messages"], out[1]["missing"], out[1]["notEvents"], out[1]["notSeen"]) == (6, 5, 1, 0)
            assert "Only what lies in the queue now was seen" in err[0]["notice"]
            span = ("--from", format_time(at), "--to", format_time(at + timedelta(seconds=1)), "--service", name)
            code, out, _ = opx("gaps", listener.queue_url, *span)
            assert (code, out[-1]["missing"], out[-1]["ofIncidents"]) == (1, 15, 2)
            assert out[0]["where"] == ["never-seen"]
            code, _, err = opx("gaps", listener.queue_url, *span, "--republish")
            assert (code, err[-1]["error"]) == (1, "Nothing was published.")
            code, out, _ = opx("gaps", listener.queue_url, *span, "--republish", "--yes")
            assert (code, out[-1]["published"]) == (0, 15)
            code, out, err = opx("gaps", listener.queue_url, *span)
            assert (code, out[-1]["missing"], out[-1]["events"], out[-1]["unreadable"]) == (0, 0, 20, [])
            assert [line["notice"] for line in err if "before is not told" in line.get("notice", "")] != []
