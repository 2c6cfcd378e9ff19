"""An incident's life through the deployed stack, by its API and its queues: the ways it may take, and those it may not."""

from datetime import UTC, datetime, timedelta

import pytest

from pipeline.domain.ids import incident_id
from tests.support.bodies import alarm_body
from tests.support.caller import CREATED, OPENED, WITHIN_S, Caller, refusal
from tests.support.stack import wait_until

pytestmark = pytest.mark.engine


@pytest.mark.parametrize(
    ("state", "target", "allowed"),
    [
        ("OPEN", "RESOLVED", ["CANCELLED", "MITIGATING"]),
        ("OPEN", "CLOSED", ["CANCELLED", "MITIGATING"]),
        ("MITIGATING", "OPEN", ["RESOLVED"]),
        ("MITIGATING", "CANCELLED", ["RESOLVED"]),
        ("RESOLVED", "OPEN", ["CLOSED"]),
        ("CLOSED", "MITIGATING", ["ARCHIVED"]),
        ("CANCELLED", "OPEN", []),
        ("ARCHIVED", "CLOSED", []),
    ],
)
def test_a_way_that_there_is_not_is_refused_and_the_ways_there_are_told(
    caller: Caller, state: str, target: str, allowed: list[str]
) -> None:
    incident = caller.declared(state)
    before = caller.types(incident)
    with refusal() as told:
        caller.api.change_state(incident, target, reason="because")
    assert (told[0].status, told[0].code, told[0].state) == (409, "transition-illegal", state)
    assert sorted(told[0].allowed_transitions) == allowed
    assert (caller.api.incident(incident).state, caller.types(incident)) == (state, before)


@pytest.mark.parametrize(("state", "target"), [("MITIGATING", "RESOLVED"), ("RESOLVED", "CLOSED"), ("OPEN", "CANCELLED")])
def test_what_a_person_decides_no_program_does(caller: Caller, state: str, target: str) -> None:
    incident = caller.declared(state)
    with refusal() as told:
        caller.api.change_state(incident, target, reason="because", authority="SYSTEM")
    assert (told[0].status, told[0].code) == (403, "transition-authority")
    assert caller.api.incident(incident).state == state


def test_a_closed_incident_is_archived_by_a_program_and_by_no_person(caller: Caller) -> None:
    incident = caller.declared("CLOSED")
    with refusal() as told:
        caller.api.change_state(incident, "ARCHIVED", reason="because")
    assert (told[0].status, told[0].code) == (403, "transition-authority")
    assert caller.api.change_state(incident, "ARCHIVED", authority="SYSTEM").state == "ARCHIVED"
    assert caller.types(incident)[-2:] == ["IncidentClosed", "IncidentArchived"]


def test_what_is_reported_joins_what_is_open_and_raises_its_severity_and_never_lowers_it(caller: Caller) -> None:
    incident = caller.report(severity="SEV2")
    caller.waits_for(incident, CREATED, OPENED)
    caller.report(severity="SEV1")
    raised = [CREATED, OPENED, "EvidenceAttached", "SeverityChanged"]
    wait_until(lambda: sorted(caller.types(incident)) == sorted(raised), WITHIN_S)
    caller.report(severity="SEV4")
    wait_until(lambda: caller.types(incident).count("EvidenceAttached") == 2, WITHIN_S)
    assert caller.api.incident(incident).severity == "SEV1"
    assert len(caller.types(incident)) == 5


def test_what_comes_after_the_end_is_the_next_occurrence_and_names_the_one_before(caller: Caller) -> None:
    first, second = (incident_id(caller.service, "slow", number) for number in (1, 2))
    caller.report()
    caller.waits_for(first, CREATED, OPENED)
    caller.api.mitigate(first)
    caller.api.resolve(first, "rolled back")
    caller.report()
    caller.waits_for(second, CREATED, OPENED)
    assert caller.api.incident(second).document["metadata"]["predecessor"] == first
    assert caller.api.incident(first).state == "RESOLVED"


def test_what_was_seen_before_the_end_is_evidence_on_what_has_ended(caller: Caller) -> None:
    incident = caller.report()
    caller.waits_for(incident, CREATED, OPENED)
    caller.api.cancel(incident, "false alarm")
    caller.report(observedAt=(datetime.now(UTC) - timedelta(minutes=5)).isoformat())
    caller.waits_for(incident, CREATED, OPENED, "IncidentCancelled", "EvidenceAttached")
    assert caller.types(incident_id(caller.service, "slow", 2)) == []


def test_a_recovery_is_evidence_and_ends_nothing(caller: Caller) -> None:
    now = datetime.now(UTC)
    name, mapping = f"{caller.service}-errors", f'{{"service": "{caller.service}", "severity": "SEV2"}}'
    for value, age_s in (("ALARM", 60), ("OK", 30)):
        at = (now - timedelta(seconds=age_s)).isoformat(timespec="milliseconds").replace("+00:00", "+0000")
        event_id = f"{caller.service}-{value}"
        caller.put("CandidatesQueueUrl", alarm_body(value, event_id=event_id, name=name, timestamp=at, description=mapping))
        wait_until(lambda: bool(list(caller.api.incidents(service=caller.service))), WITHIN_S)
    (found,) = caller.api.incidents(service=caller.service)
    caller.waits_for(found.incident_id, CREATED, OPENED, "EvidenceAttached")
    assert caller.api.incident(found.incident_id).state == "OPEN"


def test_after_the_end_severity_is_frozen_and_facts_are_still_added(caller: Caller) -> None:
    incident = caller.declared("RESOLVED")
    with refusal() as told:
        caller.api.change_severity(incident, "SEV1")
    assert (told[0].status, told[0].code) == (409, "severity-frozen")
    caller.api.add_note(incident, "p99 was 4 s")
    caller.api.attach_evidence(incident, [{"kind": "log", "ref": "line-1"}])
    caller.api.link(incident, "caused-by", caller.declared())
    assert caller.types(incident)[-3:] == ["NoteAdded", "EvidenceAttached", "IncidentLinked"]
    assert caller.api.incident(incident).severity == "SEV2"


def test_an_incident_is_read_as_it_was_at_each_version_of_its_life(caller: Caller) -> None:
    incident = caller.declared("CLOSED")
    versions = [caller.api.incident(incident, version=number) for number in range(1, 6)]
    assert [one.state for one in versions] == ["PENDING", "OPEN", "MITIGATING", "RESOLVED", "CLOSED"]
    assert caller.api.incident(incident, at=versions[2].updated_at).state == "MITIGATING"


def test_queue_and_api_lead_one_incident_in_turn(caller: Caller) -> None:
    incident = caller.declared()
    caller.order(incident, "change-state", newState="MITIGATING")
    caller.waits_for(incident, CREATED, OPENED, "MitigationStarted")
    caller.api.resolve(incident, "rolled back")
    caller.order(incident, "change-state", newState="CLOSED", reason="reviewed")
    caller.waits_for(incident, CREATED, OPENED, "MitigationStarted", "IncidentResolved", "IncidentClosed")


def test_what_was_decided_on_a_version_that_has_moved_is_refused(caller: Caller) -> None:
    incident = caller.declared()
    seen = caller.api.incident(incident).control_version
    caller.api.add_note(incident, "a note moves nothing")
    caller.api.change_severity(incident, "SEV1", if_match=seen)
    with refusal() as told:
        caller.api.mitigate(incident, if_match=seen)
    assert (told[0].status, told[0].code) == (412, "version-stale")
    assert caller.api.mitigate(incident, if_match=seen + 2).state == "MITIGATING"
