"""What is told of incidents and events: every event type in words, ids by their beginning, all of it harmless to print."""

import json
from dataclasses import replace

import pytest

from pipeline.cli.demo_steps import Stored, Storm, delivered, sample, walk
from pipeline.cli.finding import find_incident, full_id, is_full_id
from pipeline.cli.operating import explanation_of
from pipeline.cli.subscription import UNREADABLE, Arrival, arrival_of, pattern_of
from pipeline.cli.tail import Seen, show_arrival
from pipeline.cli.telling import incident_facts, matches, read_event, read_incident, short, told
from pipeline.cli.terminal import REFUSED, CommandError, Screen
from pipeline.clients.answers import Incident as Answered
from pipeline.domain.base import METADATA_DEPTH_MAX, read
from pipeline.domain.canonical import canonical_bytes, normalise, parse_document
from pipeline.domain.commands import COMMAND
from pipeline.domain.errors import Rejected
from pipeline.domain.incidents import Incident, advance
from pipeline.domain.transitions import EventType, State
from pipeline.stores.memory import MemoryStore
from tests.support.clock import NOW
from tests.support.histories import INCIDENT_ID, change, incident_in, whole_life


def life() -> list[dict[str, object]]:
    return [event.to_document() for history in whole_life() for event in history]


def test_every_event_type_is_told_in_one_line() -> None:
    kinds = set()
    for document in life():
        event = read_event(document)
        assert event is not None
        kinds.add(event.fact.event_type)
        assert told(event).strip()
    assert kinds == set(EventType)


def test_an_event_of_a_later_version_is_not_guessed_at() -> None:
    assert read_event(life()[0] | {"schemaVersion": 99}) is None
    assert read_event({}) is None


@pytest.mark.parametrize("state", list(State))
def test_an_incident_is_told_in_facts_none_of_them_empty(state: State) -> None:
    incident = incident_in(state)
    facts = dict(incident_facts(incident))
    assert facts["service"] == incident.service
    assert f"occurrence {incident.metadata.occurrence}" in facts["key"]
    assert all(facts.values())


async def store_with(*incidents: Incident) -> MemoryStore:
    store = MemoryStore()
    for incident in incidents:
        store.incidents[incident.incident_id] = incident.to_document()
    return store


async def test_an_incident_is_found_by_its_id_or_the_beginning_of_it() -> None:
    one = incident_in(State.OPEN)
    store = await store_with(one)
    for text in (one.incident_id, short(one.incident_id), one.incident_id[:3].upper(), f" {one.incident_id} "):
        assert await find_incident(store, text) == one


@pytest.mark.parametrize("text", ["", " ", "zz", "ffffffff-ffff-ffff-ffff-ffffffffffff"])
async def test_an_unknown_id_is_refused_with_the_list_as_next_command(text: str) -> None:
    with pytest.raises(CommandError) as raised:
        await find_incident(await store_with(incident_in(State.OPEN)), text)
    assert (raised.value.exit_code, raised.value.then) == (REFUSED, "opx list")


async def test_an_ambiguous_beginning_is_refused() -> None:
    one = incident_in(State.OPEN)
    other = one.model_copy(update={"incident_id": one.incident_id[:-1] + ("0" if one.incident_id[-1] != "0" else "1")})
    assert len(matches([one, other], short(one.incident_id))) == 2
    with pytest.raises(CommandError, match="2 incidents begin with") as raised:
        await find_incident(await store_with(one, other), short(one.incident_id))
    assert raised.value.then == "opx list"
    for found in (one, other):
        assert f"{found.incident_id}  {found.service}  {found.state}" in raised.value.message


def test_an_incident_that_the_api_told_is_the_stored_one() -> None:
    stored = incident_in(State.OPEN)
    heard = json.loads(canonical_bytes(stored.to_document())) | {"allowedTransitions": [], "asOf": {"version": 3}}
    assert read_incident(Answered.of(heard)) == stored
    with pytest.raises(CommandError, match="a form this opx doesn't know") as raised:
        read_incident(Answered.of(heard | {"mood": "tense"}))
    assert raised.value.then == "the same command with --json"


def test_only_a_whole_id_is_taken_unread() -> None:
    assert is_full_id(incident_in(State.OPEN).incident_id.upper())
    assert not is_full_id("1aa01e67")


def test_an_export_is_asked_for_whole_ids_only() -> None:
    assert full_id(f" {INCIDENT_ID.upper()}") == INCIDENT_ID
    with pytest.raises(CommandError, match="1aa01e67 is not a whole id; in an export ids must be") as raised:
        full_id("1aa01e67")
    assert (raised.value.exit_code, raised.value.then) == (REFUSED, "opx list --json")


def arrival(sequence: int, incident: str = "i", event: str | None = None) -> Arrival:
    detail = {"incidentId": incident, "sequence": sequence, "eventId": event or f"{incident}/{sequence}"}
    return Arrival("NoteAdded", detail)


def test_a_tail_marks_repetitions_and_late_events_and_hides_none() -> None:
    seen = Seen()
    marks = [seen.mark(arrival(*item)) for item in ((1,), (3,), (2,), (2,), (3,), (4,), (1, "j"))]
    assert marks == ["", "", "late", "again", "again", "", ""]


@pytest.mark.parametrize("body", ["not JSON", "{}", '{"detail-type": "NoteAdded"}', '{"detail-type": 5, "detail": {}}'])
def test_what_can_not_be_read_arrives_all_the_same(body: str) -> None:
    found = arrival_of(body)
    assert (found.is_readable, found.detail) == (False, {UNREADABLE: body})


def test_the_deepest_event_can_be_read_in_its_envelope() -> None:
    tags: object = "deep"
    for _ in range(METADATA_DEPTH_MAX):
        tags = {"a": tags}
    detail = {"metadata": {"report": {"tags": tags}}}
    assert arrival_of(json.dumps({"detail-type": "EvidenceAttached", "detail": detail})).is_readable


def test_a_tail_says_what_it_could_not_read(capsys: pytest.CaptureFixture[str]) -> None:
    torn = arrival_of("torn \x1b[2J")
    show_arrival(Screen(as_json=True), torn, "")
    assert json.loads(capsys.readouterr().out) == {UNREADABLE: "torn \x1b[2J"}
    show_arrival(Screen(as_json=False), torn, "")
    assert "can't be read" in capsys.readouterr().out


def test_a_rule_asks_for_opxs_own_events_only() -> None:
    assert pattern_of() == {"source": ["opx.incidents"]}
    narrow = pattern_of(["NoteAdded"], ["checkout"])
    assert narrow["detail"] == {"metadata": {"service": ["checkout"]}}
    assert narrow["detail-type"] == ["NoteAdded"]


def test_a_rejected_messages_reason_is_text_again() -> None:
    value = json.dumps({"code": "reason-missing", "reason": r"MITIGATING \u2192 RESOLVED needs 5 \xb5s \d"})
    found = explanation_of({"MessageAttributes": {"opx": {"StringValue": value}}})
    assert found == {"code": "reason-missing", "reason": "MITIGATING → RESOLVED needs 5 µs \\d"}
    assert explanation_of({}) == {}
    assert explanation_of({"MessageAttributes": {"opx": {"StringValue": "torn"}}}) == {}


# --- the demonstration's own honesty -----------------------------------------------------------------------------------


def test_the_sample_is_what_the_demonstration_says_it_is() -> None:
    bodies = sample().decode().splitlines()
    unreadable = [body for body in bodies if not _is_json(body)]
    assert len(bodies) - len(set(bodies)) == 10
    assert len(unreadable) == 1
    assert sum("SEV9" in body for body in bodies) == 1
    assert sum('"principal"' in body for body in bodies) == 1
    assert sum('"HUMAN"' in body for body in bodies) == 1
    assert sum("detail-type" in body for body in bodies) == 15


def _is_json(body: str) -> bool:
    try:
        parse_document(body)
    except Rejected:
        return False
    return True


def test_the_walks_commands_are_commands() -> None:
    for order in walk():
        read(COMMAND, normalise(order.document))
    assert [order.refused_as for order in walk()].count(None) == 4


def test_the_demonstration_notices_a_missing_late_or_repeated_event() -> None:
    wanted = {("i", 1), ("i", 2), ("i", 3)}
    whole = delivered([arrival(1), arrival(3), arrival(2), arrival(2)], wanted)
    assert (whole.arrivals, whole.distinct, whole.late, whole.missing, whole.gapless) == (4, 3, 1, (), True)
    torn = delivered([arrival(1), arrival_of("torn"), arrival(3)], wanted)
    assert (torn.missing, torn.gapless) == ((("i", 2),), False)


def test_the_demonstration_notices_a_row_that_is_not_its_history() -> None:
    events, incident = advance(None, INCIDENT_ID, [change("created"), change("opened")], NOW)
    history = tuple(event.to_document() for event in events)
    honest = Stored((incident,), {incident.incident_id: history})
    assert honest.divergences() == []
    wrong = incident.model_copy(update={"title": "another"})
    assert Stored((wrong,), {incident.incident_id: history}).divergences() != []
    assert Stored((incident,), {incident.incident_id: history[:-1]}).divergences() != []
    assert Stored((), {incident.incident_id: history}).divergences() != []
    assert Stored((incident,), {}).divergences() != []


def test_a_storm_adds_up_or_not() -> None:
    settled = Storm(113, 10, 98, 5, 0, 0.1, 1.0, drained=True)
    assert settled.adds_up
    for wrong in (replace(settled, receipts=97), replace(settled, dead=1), replace(settled, drained=False)):
        assert not wrong.adds_up
