"""Schemas made from models say what the models' validators do: neither more nor less, and by themselves for a new field."""

import json
import re
from typing import Annotated, Any

import jsonschema_rs
import pytest
from pydantic import AfterValidator, TypeAdapter

from infra.schemas.model_schemas import ONE_LINE, messages, taken, told
from infra.schemas.openapi import document
from pipeline.domain.base import Data, Description, Href, Line, Model, Note, Service, Time, read
from pipeline.domain.canonical import normalise
from pipeline.domain.commands import COMMAND
from pipeline.domain.errors import Rejected
from pipeline.domain.incidents import Incident
from tests.support.bodies import SMALLEST_CANDIDATE, candidate_body
from tests.support.histories import INCIDENT_ID
from tests.support.http import HttpWorld


def valid(schema: dict[str, Any], value: Any) -> bool:
    return jsonschema_rs.Draft202012Validator(schema, validate_formats=True).is_valid(value)


def taken_by(adapter: TypeAdapter[Any], value: Any) -> bool:
    try:
        read(adapter, normalise(value))
    except Rejected:
        return False
    return True


@pytest.mark.parametrize("model", [Line, Description, Note], ids=["line", "free text", "meaningful"])
def test_a_pattern_allows_the_characters_that_the_model_takes(model: Any) -> None:
    """Every character but surrogates, which no UTF-8 holds: alone, where a blank one is refused, and between letters."""
    adapter = TypeAdapter(model)
    found = re.compile(taken(adapter)["pattern"].replace("$", r"\Z"))
    signs = [chr(point) for point in (*range(0x3100), *range(0xE000, 0x10000), 0x10000, 0x1F600, 0x10FFFF)]
    texts = [text for sign in signs for text in (sign, f"a{sign}b")]
    assert [text for text in texts if bool(found.search(text)) != taken_by(adapter, text)] == []


def test_a_pattern_reads_the_same_where_the_document_is_validated() -> None:
    schema = {"type": "string", "pattern": ONE_LINE}
    for text in ("a", " a ", "\u3000", "a\u0085", "a\n", "\U0001f600", "a\ufffe", "", " "):
        assert valid(schema, text) == taken_by(TypeAdapter(Line), text), ascii(text)


TIMES = {
    "2026-01-31T03:00:00Z": True,
    "2026-01-31t03:00:00.123456789z": True,
    "2026-01-31 03:00:00+05:30": True,
    "2100-12-31T23:59:59Z": True,
    "1999-12-31T23:59:59Z": False,
    "2101-01-01T00:00:00Z": False,
    "2026-01-31T03:00:00": False,
    "2026-01-31T24:00:00Z": False,
    "2026-01-31T03:00:60Z": False,
    "2026-13-31T03:00:00Z": False,
    "2026-01-31T03:00:00.1234567890Z": False,
    "2026-01-31T03:00:00+24:00": False,
}


@pytest.mark.parametrize(("text", "expected"), TIMES.items())
def test_a_time_is_valid_where_it_is_read(text: str, expected: bool) -> None:
    pattern = taken(TypeAdapter(Time))["pattern"]
    assert (bool(re.search(pattern, text)), taken_by(TypeAdapter(Time), text)) == (expected, expected)


@pytest.mark.parametrize(
    ("model", "value", "expected"),
    [
        (Href, "https://example.com/a b", True),
        (Href, "ftp://example.com", False),
        (Href, "https://example.com/\n", False),
        (Data, {"a": {"b": [1, "x", None, True, 1.5]}}, True),
        (Data, {"": 1}, False),
        (Data, {"a": 2**53}, False),
        (Data, {"a": "\x00"}, False),
        (Data, {"a": ["\ufffe"]}, False),
        (Data, [], False),
        (Service, "x" * 256, True),
        (Service, "x" * 257, False),
    ],
)
def test_what_a_schema_allows_is_what_the_model_takes(model: Any, value: Any, expected: bool) -> None:
    adapter = TypeAdapter(model)
    assert (valid(taken(adapter), value), taken_by(adapter, value)) == (expected, expected)


def test_a_field_added_to_a_model_shows_up_by_itself() -> None:
    class Longer(Incident):
        mood: Line
        later: Time | None = None

    assert set(taken(Longer)["properties"]) - set(taken(Incident)["properties"]) == {"mood", "later"}
    assert set(told(Longer)["required"]) - set(told(Incident)["required"]) == {"mood"}


def test_a_validator_that_no_rule_spells_out_stops_the_generation() -> None:
    class Odd(Model):
        number: Annotated[int, AfterValidator(lambda value: value)]

    with pytest.raises(KeyError):
        taken(Odd)


def test_requests_are_closed_and_answers_open() -> None:
    assert taken(Incident)["additionalProperties"] is False
    assert '"additionalProperties": false' not in json.dumps(told(Incident))


def test_the_schemas_of_messages_take_what_the_queues_take() -> None:
    made = messages()
    assert valid(made["candidate"], SMALLEST_CANDIDATE)
    assert not valid(made["candidate"], candidate_body(severity="SEV9"))
    assert not valid(made["candidate"], candidate_body(principal="me"))
    order = {"type": "change-state", "incidentId": INCIDENT_ID, "newState": "MITIGATING", "authority": "HUMAN"}
    assert valid(made["command"], order)
    assert not valid(made["command"], order | {"note": "of another command"})
    assert taken_by(COMMAND, order)


async def test_stored_events_are_valid_by_their_schema() -> None:
    world = HttpWorld()
    identity = await world.opened(metadata={"rack": 7.5})
    await world.walk(identity, "MITIGATING", "RESOLVED", "CLOSED")
    heard = await world.call("GET", f"/incidents/{identity}/events")
    check = jsonschema_rs.Draft202012Validator(messages()["event"], validate_formats=True)
    assert len(heard.body["events"]) >= 5
    for event in heard.body["events"]:
        check.validate(event | {"replayed": True})


def test_the_document_is_the_same_each_time() -> None:
    assert json.dumps(document()) == json.dumps(document())
