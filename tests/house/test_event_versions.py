"""Every schema version ever stored: its shape is kept, its events are kept, and what is written as it still has that shape.

`tests/golden/shapes/vN.json` are the closed schemas of version N as it was released; they let this code be held to what the
code of that time reads.
"""

import json
from functools import cache
from typing import Any

import jsonschema_rs
import pytest

from pipeline.domain.canonical import Document, canonical_bytes, digest, normalise, parse_document
from pipeline.domain.envelope import SCHEMA_VERSION, IncidentEvent, detail_of, downcast, event_hash, upcast
from pipeline.domain.incidents import evolve
from pipeline.domain.transitions import EventType
from tests.house.frozen import event_shape
from tests.support.histories import ROOT, whole_life
from tests.support.later_histories import later_life

GOLDEN = ROOT / "tests" / "golden"
VERSIONS = range(1, SCHEMA_VERSION + 1)
# A released shape is never changed and never removed; a new version is a new file and a new line.
SHAPE_DIGESTS = {1: "de072b155aaa6671b82cc29ecd832b42e70258548efeb5e832818964a95452fc"}
EVENTS = {path.stem: parse_document(path.read_bytes()) for path in sorted((GOLDEN / "events").glob("*.json"))}
WRITTEN = [event.to_document() for history in (*whole_life(), later_life()) for event in history]


def shape(version: int) -> Any:
    return json.loads((GOLDEN / "shapes" / f"v{version}.json").read_bytes())


@cache
def validators(version: int) -> tuple[Any, Any]:
    kept = shape(version)
    return tuple(jsonschema_rs.Draft202012Validator(kept[part]) for part in ("envelope", "fact"))  # type: ignore[return-value]


def check(document: Document, version: int) -> None:
    """Assert that the code of `version` reads the event: nothing in it is unknown there, and nothing is missing."""
    told = json.loads(detail_of(document))
    fact = {name: told.pop(name) for name in ("eventType", "metadata") if name in told}
    envelope, facts = validators(version)
    envelope.validate(told)
    facts.validate(fact)


def test_the_shape_of_every_version_is_kept_as_it_was_released() -> None:
    found = {
        int(path.stem[1:]): digest(normalise(parse_document(path.read_bytes()))) for path in GOLDEN.glob("shapes/v*.json")
    }
    assert found == SHAPE_DIGESTS, "a released shape was changed or removed, or a new one is not listed"
    assert sorted(found) == list(VERSIONS), "every version that is read has its shape, and no other"


def test_todays_shape_is_that_of_the_newest_version() -> None:
    assert canonical_bytes(normalise(event_shape())) == canonical_bytes(normalise(shape(SCHEMA_VERSION))), (
        f"Events have another shape than version {SCHEMA_VERSION} was released with, so code that runs now could not read "
        "them. Make it another version: a step in `STEPS` (pipeline/domain/envelope.py), its shape in tests/golden/shapes, "
        "golden events and a golden row of it, EventSchemaVersion's AllowedValues, a line in CHANGELOG.md. How, and why the "
        'order matters: "Another version of what is stored" in ARCHITECTURE.md.'
    )


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", EventType)
def test_every_event_type_of_every_version_lies_in_a_golden_file(kind: EventType, version: int) -> None:
    found = {(document["eventType"], document["schemaVersion"]) for document in EVENTS.values()}
    assert (kind, version) in found


@pytest.mark.parametrize("name", EVENTS)
def test_a_golden_event_has_the_shape_of_its_version_verifies_and_comes_back_the_same(name: str) -> None:
    document = EVENTS[name]
    check(document, document["schemaVersion"])
    assert event_hash(document) == document["hash"]
    assert downcast(upcast(document), document["schemaVersion"]) == document
    event = IncidentEvent.from_document(document)
    assert event.schema_version == document["schemaVersion"]


@pytest.mark.parametrize("version", VERSIONS)
def test_golden_histories_of_every_version_fold(version: int) -> None:
    histories: dict[tuple[str, str], list[Document]] = {}
    for name, document in EVENTS.items():
        if document["schemaVersion"] == version:
            histories.setdefault((name.rpartition(".")[2], document["incidentId"]), []).append(document)
    assert histories
    for history in histories.values():
        history.sort(key=lambda document: document["sequence"])
        if history[0]["sequence"] != 1:
            continue
        incident = None
        for document in history:
            incident = evolve(incident, IncidentEvent.from_document(document))
        assert incident is not None
        assert incident.schema_version == (None if version == 1 else version)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_written_as_a_version_is_what_the_code_of_that_version_reads(version: int) -> None:
    for document in WRITTEN:
        check(downcast(document, version) | {"schemaVersion": version}, version)


def test_a_shape_is_closed() -> None:
    for wrong in ({"region": "eu"}, {"metadata": WRITTEN[0]["metadata"] | {"region": "eu"}}, {"schemaVersion": 99}):
        with pytest.raises(jsonschema_rs.ValidationError):
            check(WRITTEN[0] | wrong, 1)
