"""Schema versions: what was ever stored is read, and what newer code wrote is left to newer code, at every door.

Nothing is refused, dropped or written over because this code is the older one; its messages come again. Old and new code on
one table, at once, are in tests/integration/test_two_versions.py.
"""

import copy
from typing import Any

import pytest

from pipeline.domain.canonical import Document
from pipeline.domain.correlation import WINDOW
from pipeline.domain.envelope import (
    SCHEMA_VERSION,
    Step,
    check_readable,
    downcast,
    event_hash,
    read_stored,
    read_stored_event,
    upcast,
)
from pipeline.domain.errors import Corrupt, Rejected, Unavailable
from pipeline.domain.incidents import INCIDENT
from pipeline.domain.receipts import RECEIPT
from pipeline.domain.transitions import State
from pipeline.runtime import bootstrap
from pipeline.runtime.settings import ApiSettings, CandidatesSettings, CommandsSettings, RetentionSettings
from pipeline.runtime.telemetry import Telemetry
from pipeline.services.ports import Pointer
from pipeline.stores.items import (
    incident_item,
    pointer_item,
    read_incident,
    read_pointer,
    read_receipt,
    read_window,
    to_item,
)
from pipeline.stores.memory import MemoryStore
from tests.support.bodies import candidate_body, command_body
from tests.support.doors import Doors, command_message, message
from tests.support.histories import incident_in, whole_life
from tests.support.http import HttpWorld
from tests.support.streams import stored
from tests.unit.test_envelope import golden
from tests.unit.test_settings import complete

NEWER = SCHEMA_VERSION + 1


def renamed(old: str, new: str) -> Step:
    """Return a step that renames an attribute of the envelope."""

    def rename(document: Document, before: str, after: str) -> Document:
        return {after if name == before else name: value for name, value in document.items()}

    return Step(lambda document: rename(document, old, new), lambda document: rename(document, new, old))


# Two versions that nobody has made: the second names the actor otherwise, the third has an attribute that the others lack.
STEPS = (
    renamed("actor", "decidedBy"),
    Step(
        lambda document: document | {"region": "unknown"},
        lambda document: {name: value for name, value in document.items() if name != "region"},
    ),
)


@pytest.mark.parametrize("document", stored(), ids=lambda document: f"{document['eventType']}-{document['hash'][:8]}")
def test_a_stored_event_is_raised_step_by_step_and_goes_back_the_same_way(document: Document) -> None:
    kept = copy.deepcopy(document)
    raised = upcast(document, STEPS)
    assert (raised["decidedBy"], raised["region"]) == (document["actor"], "unknown")
    assert "actor" not in raised
    assert raised["schemaVersion"] == 1, "it goes on saying how it is stored"
    assert downcast(raised, 1, STEPS) == document == kept, "and what was stored is not touched"
    assert event_hash(document) == document["hash"]


def test_only_the_steps_above_its_version_raise_an_event() -> None:
    second = renamed("actor", "decidedBy").up(stored()[0]) | {"schemaVersion": 2}
    raised = upcast(second, STEPS)
    assert raised == second | {"region": "unknown"}
    assert downcast(raised, 2, STEPS) == second
    third = raised | {"schemaVersion": 3, "region": "eu"}
    assert upcast(third, STEPS) == third == downcast(third, 3, STEPS)


def test_what_an_older_version_has_no_word_for_is_not_written_as_one() -> None:
    made = upcast(stored()[0], STEPS) | {"region": "eu"}
    assert downcast(made, 1, STEPS) == stored()[0]


@pytest.mark.parametrize("version", [0, len(STEPS) + 2, "2", True, None])
def test_a_version_without_steps_is_no_event_here(version: Any) -> None:
    with pytest.raises(Rejected, match="schemaVersion"):
        upcast(stored()[0] | {"schemaVersion": version}, STEPS)


@pytest.mark.parametrize("history", whole_life(), ids=lambda history: history[0].incident_id[:8])
def test_the_steps_there_are_lose_nothing_of_what_is_stored(history: Any) -> None:
    for event in history:
        document = event.to_document()
        assert downcast(upcast(document), document["schemaVersion"]) == document


# --- rows ------------------------------------------------------------------------------------------------------------


POINTER = Pointer(service="checkout", dedup_key="k", occurrence=1, incident_id=incident_in(State.OPEN).incident_id)
ROWS: dict[str, tuple[Any, Any]] = {
    "incident": (read_incident, incident_item(incident_in(State.OPEN))),
    "pointer": (read_pointer, pointer_item(POINTER)),
    "receipt": (read_receipt, None),
    "window": (read_window, None),
}


def row(kind: str) -> tuple[Any, Any]:
    reader, item = ROWS[kind]
    if item is None:
        name = {"receipt": "IdempotencyRecord.applied.v1", "window": "Window.v1"}[kind]
        item = to_item(golden(f"../rows/{name}"))
    return reader, item


@pytest.mark.parametrize("kind", ROWS)
def test_a_row_that_newer_code_wrote_is_for_newer_code(kind: str) -> None:
    reader, item = row(kind)
    newer = item | to_item({"schemaVersion": NEWER, "somethingNew": {"a": 1}})
    with pytest.raises(Unavailable, match=f"stored {kind} is of schema version {NEWER}; this code reads up to"):
        reader(newer)


@pytest.mark.parametrize("kind", ROWS)
def test_a_row_that_says_no_newer_version_and_cannot_be_read_is_corrupt(kind: str) -> None:
    reader, item = row(kind)
    reader(item)
    for damage in ({"somethingNew": 1}, {"schemaVersion": str(NEWER)}, {"schemaVersion": 0}):
        with pytest.raises(Corrupt, match=f"a stored {kind} cannot be read"):
            reader(item | to_item(damage))


@pytest.mark.parametrize("version", [None, SCHEMA_VERSION, True, str(NEWER), 0], ids=repr)
def test_only_a_newer_version_is_newer(version: Any) -> None:
    check_readable({} if version is None else {"schemaVersion": version}, "row")


def test_an_event_that_newer_code_wrote_is_for_newer_code_and_another_is_corrupt() -> None:
    document = stored()[0]
    assert read_stored_event(document).to_document() == document
    with pytest.raises(Unavailable):
        read_stored_event(document | {"schemaVersion": NEWER, "region": "eu"})
    with pytest.raises(Corrupt, match=document["incidentId"]):
        read_stored_event(document | {"region": "eu"})


def test_an_incident_says_its_newest_events_version_where_that_is_not_the_first() -> None:
    assert "schemaVersion" not in incident_in(State.OPEN).to_document()
    newer = incident_in(State.OPEN).model_copy(update={"schema_version": NEWER}).to_document()
    assert newer["schemaVersion"] == NEWER
    with pytest.raises(Unavailable):
        read_stored(INCIDENT, newer, "incident")


# --- the doors -------------------------------------------------------------------------------------------------------


def made_newer(held: dict[str, Document]) -> None:
    """Change rows as newer code might have: another version, and a field that this code does not know."""
    for key, document in held.items():
        held[key] = document | {"schemaVersion": NEWER, "region": "eu"}


def everything(store: MemoryStore) -> Any:
    return copy.deepcopy((store.incidents, store.pointers, store.receipts, store.windows, store.events, store.feed))


async def doors_after_newer_code(what: str) -> tuple[Doors, str]:
    """Return doors with one open incident, of which newer code has written `what` since."""
    doors = Doors(report=TELEMETRY.settled)
    assert await doors.offer(message("first", candidate_body())) == ()
    made_newer(getattr(doors.memory, what))
    return doors, next(iter(doors.memory.incidents))


TELEMETRY = Telemetry("candidates")


@pytest.fixture(autouse=True)
def counted() -> Any:
    TELEMETRY.metrics.clear_metrics()
    yield TELEMETRY.metrics.metric_set
    TELEMETRY.metrics.clear_metrics()


async def test_a_candidate_for_a_newer_incident_comes_again_and_changes_nothing(counted: Any) -> None:
    doors, _ = await doors_after_newer_code("incidents")
    before = everything(doors.memory)
    counted.clear()
    other = candidate_body(service="elsewhere", dedupKey="other")
    assert await doors.offer(message("joins", candidate_body()), message("another", other)) == ("joins",)
    assert doors.rejected.messages == []
    assert "Unavailable" in counted
    assert not {"Corruption", "Crashes", "RejectedMessages", "Refused"} & set(counted), "it is neither damage nor poison"
    assert doors.visibility["candidates"].waits == {"joins": 10}
    after = everything(doors.memory)
    (incident,) = before[0]
    assert after[0][incident] == before[0][incident]
    assert after[4][incident] == before[4][incident]
    assert "elsewhere" in doors.services, "what old code can do it goes on doing"


@pytest.mark.parametrize("kind", ["change-state", "add-note"])
async def test_a_command_on_a_newer_incident_comes_again_with_its_group(kind: str, counted: Any) -> None:
    doors, incident = await doors_after_newer_code("incidents")
    before = everything(doors.memory)
    counted.clear()
    fields = {"newState": "MITIGATING"} if kind == "change-state" else {"note": "seen"}
    keys = ("c1", "c2")
    bodies = {key: command_body(kind, incident, idempotencyKey=key, reason="because", **fields) for key in keys}
    orders = [command_message(key, body, incident) for key, body in bodies.items()]
    assert await doors.order(*orders) == ("c1", "c2")
    assert doors.rejected.messages == []
    assert not {"Corruption", "Crashes", "RejectedMessages", "Refused"} & set(counted)
    assert everything(doors.memory) == before


async def test_a_redelivery_whose_receipt_is_newer_comes_again(counted: Any) -> None:
    doors, _ = await doors_after_newer_code("receipts")
    before = everything(doors.memory)
    counted.clear()
    assert await doors.offer(message("first", candidate_body())) == ("first",)
    assert doors.rejected.messages == []
    assert not {"Corruption", "Crashes", "RejectedMessages", "IdempotencyHits"} & set(counted)
    assert everything(doors.memory) == before


async def test_a_row_that_nobody_of_ours_writes_is_told_as_corruption_and_its_message_comes_again(counted: Any) -> None:
    doors, incident = await doors_after_newer_code("incidents")
    del doors.memory.incidents[incident]["schemaVersion"]
    counted.clear()
    assert await doors.offer(message("joins", candidate_body())) == ("joins",)
    assert doors.rejected.messages == []
    assert "Corruption" in counted


@pytest.mark.parametrize("path", ["/incidents/{id}", "/incidents", "/incidents/{id}?version=1"])
async def test_the_api_asks_to_try_again_where_newer_code_wrote(path: str) -> None:
    world = HttpWorld()
    identity = await world.opened()
    if "version" in path:
        world.store.events[identity][1] |= {"schemaVersion": NEWER, "region": "eu"}
    else:
        made_newer(world.store.incidents)
    told = await world.call("GET", path.replace("{id}", identity))
    assert (told.status, told.code) == (503, "unavailable")
    assert "Retry-After" in told.headers


async def test_the_api_calls_a_history_that_no_code_wrote_corrupt_and_not_the_callers_fault() -> None:
    world = HttpWorld()
    identity = await world.opened()
    world.store.events[identity][1] |= {"region": "eu"}
    told = await world.call("GET", f"/incidents/{identity}?version=1")
    assert (told.status, told.code) == (500, "corrupt")


async def test_the_api_writes_nothing_on_what_newer_code_wrote() -> None:
    world = HttpWorld()
    identity = await world.opened()
    made_newer(world.store.incidents)
    before = everything(world.store)
    body = {"newState": "MITIGATING", "authority": "HUMAN"}
    told = await world.call("PATCH", f"/incidents/{identity}/state", body)
    assert (told.status, told.code) == (503, "unavailable")
    assert everything(world.store) == before


@pytest.mark.parametrize("adapter", [WINDOW, RECEIPT], ids=["window", "receipt"])
def test_no_row_but_the_incidents_says_a_version_yet(adapter: Any) -> None:
    assert "schemaVersion" not in adapter.json_schema()["properties"]


# --- the deployment's word -------------------------------------------------------------------------------------------


async def test_every_function_that_writes_events_writes_the_version_that_its_deployment_names() -> None:
    # A version that nobody makes: no default comes to it.
    told = {"event_schema_version": 7}
    api = ApiSettings.read(complete(CommandsSettings)).model_copy(update=told)
    candidates = CandidatesSettings.read(complete(CandidatesSettings)).model_copy(update=told)
    commands = CommandsSettings.read(complete(CommandsSettings)).model_copy(update=told)
    retention = RetentionSettings.read(complete(RetentionSettings)).model_copy(update=told)
    async with bootstrap.api(api) as parts:
        assert parts.controller.loop.schema_version == 7
        assert parts.controller.rehearsing().loop.schema_version == 7, "a dry run tells what would be written"
    async with bootstrap.candidates(candidates) as queue:
        assert queue.service.loop.schema_version == 7
    async with bootstrap.commands(commands) as queue:
        assert queue.service.loop.schema_version == 7
    async with bootstrap.retention(retention) as archiving:
        assert archiving.service.controller.loop.schema_version == 7
