"""The stored event: every released version is still read, still verifies, and is never written otherwise than it was."""

import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from pipeline.domain.base import read
from pipeline.domain.canonical import canonical_bytes, parse_document
from pipeline.domain.correlation import WINDOW
from pipeline.domain.envelope import SCHEMA_VERSION, IncidentEvent, detail_of, event_hash, size_of, upcast
from pipeline.domain.errors import Code, Rejected
from pipeline.domain.events import FACT
from pipeline.domain.incidents import INCIDENT
from pipeline.domain.receipts import RECEIPT
from pipeline.domain.transitions import EventType
from tests.support.audit import audit_history, fold
from tests.support.histories import ROOT, whole_life
from tests.support.later_histories import later_life

GOLDEN = sorted((ROOT / "tests" / "golden" / "events").glob("*.json"))
EVENTS = [event for history in (*whole_life(), later_life()) for event in history]
SHARED = {"incidentId", "sequence", "eventId", "timestamp", "actor", "previousState", "newState", "schemaVersion"} | {
    "previousHash",
    "hash",
    "eventType",
    "metadata",
}


def golden(name: str) -> Any:
    return parse_document((ROOT / "tests" / "golden" / "events" / f"{name}.json").read_bytes())


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_stored_event_of_every_version_is_read_verified_and_kept_byte_for_byte(path: Any) -> None:
    stored = path.read_bytes()
    document = parse_document(stored)
    assert canonical_bytes(document) + b"\n" == stored
    assert event_hash(document) == document["hash"]
    event = IncidentEvent.from_document(document)
    # A field added since has a default: the stored ones must still be the same, and come first in every comparison.
    again = event.to_document()
    assert {name: again[name] for name in document} == document
    assert path.stem.split(".")[0] == event.fact.event_type == document["eventType"]


@pytest.mark.parametrize("kind", EventType)
def test_each_event_type_has_a_golden_file_of_todays_shape(kind: EventType) -> None:
    newest = max(
        (path for path in GOLDEN if path.stem.split(".")[0] == kind), key=lambda path: int(path.stem.split(".v")[1])
    )
    again = IncidentEvent.from_document(parse_document(newest.read_bytes())).to_document()
    assert canonical_bytes(again) + b"\n" == newest.read_bytes(), (
        f"{kind} is written otherwise than in {newest.name}. If a field was added: add the next golden file beside it "
        "(never change a released one), generate the schemas again and add a line to CHANGELOG.md."
    )


@pytest.mark.parametrize(("generation", "folded"), [("v1", 11), ("v2", 3)])
def test_the_golden_files_of_one_incident_are_one_intact_history(generation: str, folded: int) -> None:
    """The row is kept as it is after so many events: of the later ones while the incident still waits for the gate."""
    documents = [golden(path.stem) for path in GOLDEN if path.stem.endswith(generation) and "Cancelled" not in path.stem]
    documents.sort(key=lambda document: document["sequence"])
    audit_history(documents)
    stored = (ROOT / "tests" / "golden" / "rows" / f"Incident.{generation}.json").read_bytes()
    assert fold(documents[:folded]).to_document() == parse_document(stored)
    assert canonical_bytes(read(INCIDENT, parse_document(stored)).to_document()) + b"\n" == stored


def fields_in(schema: Any) -> set[str]:
    """Return the name of every property in a JSON schema."""
    if isinstance(schema, dict):
        return set(schema.get("properties", ())) | {name for part in schema.values() for name in fields_in(part)}
    return {name for part in schema for name in fields_in(part)} if isinstance(schema, list) else set()


def names_in(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {name for part in value.values() for name in names_in(part)}
    return {name for part in value for name in names_in(part)} if isinstance(value, list | tuple) else set()


def test_every_field_that_can_be_stored_lies_in_a_golden_file() -> None:
    paths = [path for folder in ("events", "rows") for path in (ROOT / "tests" / "golden" / folder).glob("*.json")]
    stored = {name for path in paths for name in names_in(parse_document(path.read_bytes()))}
    schemas = [adapter.json_schema() for adapter in (FACT, INCIDENT, RECEIPT, WINDOW, TypeAdapter(IncidentEvent))]
    # `fact` is spelled eventType and metadata there; decidedAt has its test beside the clock that runs behind.
    assert fields_in(schemas) - stored == {"fact", "decidedAt"}


def test_a_stored_window_is_still_read_and_written_byte_for_byte() -> None:
    stored = (ROOT / "tests" / "golden" / "rows" / "Window.v1.json").read_bytes()
    assert canonical_bytes(read(WINDOW, parse_document(stored)).to_document()) + b"\n" == stored


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: f"{event.fact.event_type}-{event.hash[:8]}")
def test_an_event_survives_storage_and_bus(event: IncidentEvent) -> None:
    document = event.to_document()
    assert set(document) == SHARED
    assert IncidentEvent.from_document(document) == event
    on_the_bus = parse_document(detail_of(document))
    assert on_the_bus == document
    assert IncidentEvent.from_document(on_the_bus) == event


def test_the_bus_is_told_when_an_event_is_sent_again() -> None:
    document = EVENTS[0].to_document()
    again = json.loads(detail_of(document, replayed=True))
    assert again.pop("replayed") is True
    assert again == json.loads(detail_of(document))
    assert "replayed" not in document


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: f"{event.fact.event_type}-{event.hash[:8]}")
def test_every_event_carries_the_summary_subscribers_filter_on(event: IncidentEvent) -> None:
    metadata = event.to_document()["metadata"]
    summary = event.fact.metadata
    assert (summary.service, summary.severity, summary.title) == (
        metadata["service"],
        metadata["severity"],
        metadata["title"],
    )


def test_a_changed_attribute_does_not_verify() -> None:
    document = EVENTS[0].to_document()
    for name in SHARED - {"hash"}:
        tampered = {key: value for key, value in document.items() if key != name}
        assert event_hash(tampered) != document["hash"], f"{name} is not covered"
    assert event_hash(document | {"replayed": True}) != document["hash"]
    assert event_hash(document | {"note": None}) != document["hash"]
    assert event_hash(document | {"hash": "f" * 64}) == document["hash"]


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1, "1", None, True, 1.5], ids=repr)
def test_an_unknown_schema_version_is_refused_and_never_read_as_todays(version: Any) -> None:
    document = EVENTS[0].to_document() | {"schemaVersion": version}
    for reader in (upcast, IncidentEvent.from_document):
        with pytest.raises(Rejected) as caught:
            reader(document)
        assert caught.value.refusal.code is Code.UNSUPPORTED_SCHEMA_VERSION


BROKEN: dict[str, dict[str, Any]] = {
    "no fact": {"eventType": ...},
    "an unknown event": {"eventType": "IncidentReopened"},
    "no metadata": {"metadata": ...},
    "another event's metadata": {"eventType": "NoteAdded"},
    "sequence zero": {"sequence": 0},
    "an unknown state": {"newState": "REOPENED"},
    "no actor": {"actor": ...},
    "an unknown field": {"colour": "red"},
    "a short hash": {"hash": "00"},
    "a time without zone": {"timestamp": "2026-01-31T03:00:00"},
}


@pytest.mark.parametrize("fields", BROKEN.values(), ids=BROKEN.keys())
def test_what_is_not_an_event_is_not_read_as_one(fields: dict[str, Any]) -> None:
    document = {name: value for name, value in (EVENTS[0].to_document() | fields).items() if value is not ...}
    with pytest.raises(Rejected):
        IncidentEvent.from_document(document)


def test_the_size_of_an_event_is_that_of_its_canonical_json() -> None:
    for event in EVENTS:
        assert size_of(event) == len(canonical_bytes(event.to_document())) == len(detail_of(event.to_document()).encode())
