"""Commands: given an incident, when this is asked by whom, then exactly these events, or this refusal."""

from decimal import Decimal
from typing import Any

import pytest

from pipeline.domain.base import read
from pipeline.domain.canonical import normalise
from pipeline.domain.commands import COMMAND, Declare
from pipeline.domain.decisions import UNCHANGED, Accepted, Gate, decide_command
from pipeline.domain.errors import Refusal
from pipeline.domain.events import (
    EvidenceAttached,
    IncidentCancelled,
    IncidentLinked,
    IncidentOpened,
    NoteAdded,
    SeverityChanged,
)
from pipeline.domain.incidents import Incident, advance
from pipeline.domain.promotion import Policies
from pipeline.domain.transitions import Severity, State
from tests.support.bodies import command_body
from tests.support.clock import NOW
from tests.support.histories import GATE, HUMAN, INCIDENT_ID, OTHER_ID, POLICIES, SYSTEM, incident_in

PENDING, OPEN, MITIGATING, RESOLVED, CLOSED, CANCELLED, ARCHIVED = State
BEFORE_THE_END = (PENDING, OPEN, MITIGATING)
AFTER_THE_END = (RESOLVED, CLOSED, CANCELLED, ARCHIVED)
EVIDENCE: dict[str, Any] = {"evidence": [{"kind": "log", "ref": "logs/1"}]}
LINK: dict[str, Any] = {"relation": "duplicate-of", "target": OTHER_ID}
WHY: dict[str, Any] = {"reason": "because"}
JUSTIFIED: dict[str, Any] = {"authority": {"justification": "because"}}


def decide(given: Incident, kind: str, actor: Any = HUMAN, policies: Policies = POLICIES, **fields: Any) -> Any:
    command = read(COMMAND, normalise(command_body(kind, INCIDENT_ID, **fields)))
    assert not isinstance(command, Declare)
    return decide_command(command, given, actor, Gate(policies))


def line(decision: Any) -> str:
    match decision:
        case Accepted(changes, None):
            return " ".join(f"{change.fact.event_type.value}→{change.new_state.value}" for change in changes)
        case Refusal():
            return decision.code.value
    return str(decision.code)


Row = tuple[State, str, Any, dict[str, Any], str]
TABLE: list[Row] = [
    # state changes: reasons
    (OPEN, "change-state", SYSTEM, {"newState": "MITIGATING"}, "MitigationStarted→MITIGATING"),
    (OPEN, "change-state", HUMAN, {"newState": "CANCELLED"}, "reason-missing"),
    (OPEN, "change-state", HUMAN, {"newState": "CANCELLED"} | WHY, "IncidentCancelled→CANCELLED"),
    (OPEN, "change-state", HUMAN, {"newState": "CANCELLED"} | JUSTIFIED, "IncidentCancelled→CANCELLED"),
    (MITIGATING, "change-state", HUMAN, {"newState": "RESOLVED"}, "reason-missing"),
    (MITIGATING, "change-state", HUMAN, {"newState": "RESOLVED"} | JUSTIFIED, "IncidentResolved→RESOLVED"),
    (MITIGATING, "change-state", SYSTEM, {"newState": "RESOLVED"}, "transition-authority"),
    (RESOLVED, "change-state", HUMAN, {"newState": "CLOSED"}, "reason-missing"),
    (RESOLVED, "change-state", HUMAN, {"newState": "CLOSED"} | WHY, "IncidentClosed→CLOSED"),
    (CLOSED, "change-state", SYSTEM, {"newState": "ARCHIVED"}, "IncidentArchived→ARCHIVED"),
    (PENDING, "change-state", SYSTEM, {"newState": "OPEN"}, "transition-authority"),
    (PENDING, "change-state", HUMAN, {"newState": "CANCELLED"} | WHY, "transition-illegal"),
    (RESOLVED, "change-state", HUMAN, {"newState": "OPEN"} | WHY, "transition-illegal"),
    # promotion on request
    (PENDING, "request-promotion", HUMAN, {}, "reason-missing"),
    (PENDING, "request-promotion", HUMAN, WHY, "IncidentOpened→OPEN"),
    (PENDING, "request-promotion", HUMAN, JUSTIFIED, "IncidentOpened→OPEN"),
    (PENDING, "request-promotion", SYSTEM, WHY, "transition-authority"),
    (OPEN, "request-promotion", HUMAN, WHY, "transition-illegal"),
    (ARCHIVED, "request-promotion", HUMAN, WHY, "transition-illegal"),
    # dismissal
    (PENDING, "dismiss", HUMAN, {}, "reason-missing"),
    (PENDING, "dismiss", HUMAN, WHY, "IncidentOpened→OPEN IncidentCancelled→CANCELLED"),
    (PENDING, "dismiss", HUMAN, JUSTIFIED, "IncidentOpened→OPEN IncidentCancelled→CANCELLED"),
    (PENDING, "dismiss", SYSTEM, WHY, "transition-authority"),
    (OPEN, "dismiss", HUMAN, WHY, "transition-illegal"),
    (CANCELLED, "dismiss", HUMAN, WHY, "transition-illegal"),
    # severity
    (OPEN, "change-severity", HUMAN, {"severity": "SEV2"}, "UNCHANGED"),
    (RESOLVED, "change-severity", HUMAN, {"severity": "SEV2"}, "severity-frozen"),
    # links
    (OPEN, "link", HUMAN, {"relation": "caused-by", "target": INCIDENT_ID}, "link-to-itself"),
]
TABLE += [
    (state, kind, actor, fields, f"{event}→{state.value}")
    for state in State
    for actor in (HUMAN, SYSTEM)
    for kind, fields, event in (
        ("attach-evidence", EVIDENCE, "EvidenceAttached"),
        ("add-note", {"note": "n"}, "NoteAdded"),
        ("link", LINK, "IncidentLinked"),
    )
]
TABLE += [
    (state, "change-severity", actor, {"severity": severity}, f"SeverityChanged→{state.value}")
    for state in BEFORE_THE_END
    for actor in (HUMAN, SYSTEM)
    for severity in ("SEV1", "SEV4")
]
TABLE += [(state, "change-severity", HUMAN, {"severity": "SEV1"}, "severity-frozen") for state in AFTER_THE_END]


@pytest.mark.parametrize(
    ("given", "when", "by", "fields", "then"), TABLE, ids=lambda value: getattr(value, "actor_id", None)
)
def test_given_a_state_when_a_command_comes_then(given: State, when: str, by: Any, fields: Any, then: str) -> None:
    assert line(decide(incident_in(given), when, by, **fields)) == then


REQUESTS: dict[str, dict[str, Any]] = {
    "change-state": {"newState": "MITIGATING"},
    "attach-evidence": EVIDENCE,
    "change-severity": {"severity": "SEV1"},
    "add-note": {"note": "n"},
    "link": LINK,
}


@pytest.mark.parametrize(("kind", "fields"), REQUESTS.items())
def test_an_expected_version_is_compared_with_the_control_version(kind: str, fields: Any) -> None:
    given = incident_in(OPEN)
    stormed = advance(given, INCIDENT_ID, decide(given, "attach-evidence", **EVIDENCE).changes * 50, NOW)[1]
    assert (stormed.version, stormed.control_version) == (52, 2)
    assert isinstance(decide(stormed, kind, expectedVersion=2, **fields), Accepted)
    for stale in (1, 3, 52):
        refusal = decide(stormed, kind, expectedVersion=stale, **fields)
        assert (line(refusal), refusal.status) == ("version-stale", 412)
        assert "2" in refusal.detail
        assert (refusal.state, set(refusal.allowed)) == ("OPEN", {"MITIGATING", "CANCELLED"})


def test_a_stale_version_is_said_before_anything_else() -> None:
    assert line(decide(incident_in(ARCHIVED), "dismiss", SYSTEM, expectedVersion=1)) == "version-stale"


def test_reasons_and_justifications_are_stored_where_they_were_decided() -> None:
    step = decide(incident_in(OPEN), "change-state", newState="CANCELLED", **WHY).changes[0]
    assert step.fact.metadata.reason == "because"
    assert step.actor == HUMAN
    shift = decide(incident_in(OPEN), "change-severity", severity="SEV1", **WHY).changes[0]
    assert isinstance(shift.fact, SeverityChanged)
    assert (shift.fact.metadata.previous_severity, shift.fact.metadata.reason) == (Severity.SEV2, "because")


@pytest.mark.parametrize(
    ("kind", "fields"),
    [("add-note", {"note": "n"}), ("attach-evidence", {"evidence": [{"kind": "log", "ref": "r"}]}), ("link", LINK)],
)
def test_a_reason_given_with_a_fact_that_has_no_place_for_it_stands_beside_its_giver(kind: str, fields: Any) -> None:
    (change,) = decide(incident_in(OPEN), kind, **fields, **WHY).changes
    assert change.actor == HUMAN.model_copy(update={"justification": "because"})


def test_a_requested_promotion_waives_what_the_policy_lets_a_person_waive() -> None:
    (opened,) = decide(incident_in(PENDING, severity=Severity.SEV4), "request-promotion", **WHY).changes
    assert isinstance(opened.fact, IncidentOpened)
    judged = opened.fact.metadata
    assert judged.decision.inputs.requested_by_human
    assert judged.decision.inputs.confidence == Decimal("0.5")
    assert (opened.actor, judged.requested_by) == (GATE, HUMAN.model_copy(update={"justification": "because"}))


def test_a_requested_promotion_stays_deferred_where_nothing_may_be_waived() -> None:
    strict = {"policyId": "default", "version": 2, "minimumConfidence": Decimal("0.9")}
    (deferred,) = decide(incident_in(PENDING), "request-promotion", HUMAN, Policies.load([strict]), **WHY).changes
    assert (deferred.fact.event_type.value, deferred.new_state) == ("PromotionDecided", PENDING)
    assert deferred.fact.metadata.requested_by.justification == "because"


def test_a_promotion_under_a_policy_that_is_gone_is_refused() -> None:
    assert line(decide(incident_in(PENDING), "request-promotion", HUMAN, Policies.load([]), **WHY)) == "policy-unknown"
    assert line(decide(incident_in(PENDING), "dismiss", HUMAN, Policies.load([]), **WHY)) == "policy-unknown"


def test_a_dismissal_takes_the_two_legal_steps() -> None:
    given = incident_in(PENDING)
    opened, cancelled = decide(given, "dismiss", **WHY).changes
    assert isinstance(opened.fact, IncidentOpened)
    assert opened.fact.metadata.decision.policy_id == "dismissed"
    assert opened.fact.metadata.requested_by == HUMAN
    assert isinstance(cancelled.fact, IncidentCancelled)
    assert cancelled.fact.metadata.reason == "because"
    events, after = advance(given, INCIDENT_ID, (opened, cancelled), NOW)
    assert [(event.previous_state, event.new_state) for event in events] == [(PENDING, OPEN), (OPEN, CANCELLED)]
    assert (after.control_version, after.version) == (given.version + 2, given.version + 2)


def test_evidence_notes_and_links_carry_what_was_sent() -> None:
    given = incident_in(ARCHIVED)
    attached = decide(given, "attach-evidence", **EVIDENCE).changes[0].fact
    noted = decide(given, "add-note", note="Größe\nline").changes[0].fact
    linked = decide(given, "link", **LINK).changes[0].fact
    assert isinstance(attached, EvidenceAttached)
    assert attached.metadata.evidence[0].ref == "logs/1"  # type: ignore[index]
    assert attached.metadata.observation is None
    assert isinstance(noted, NoteAdded)
    assert noted.metadata.note == "Größe\nline"
    assert isinstance(linked, IncidentLinked)
    assert (linked.metadata.relation.value, linked.metadata.target) == ("duplicate-of", OTHER_ID)


def test_every_event_carries_the_summary_after_it() -> None:
    given = incident_in(OPEN, severity=Severity.SEV3)
    for kind, fields in REQUESTS.items():
        (change,) = decide(given, kind, **fields).changes
        summary = change.fact.metadata
        after = advance(given, INCIDENT_ID, (change,), NOW)[1]
        assert (summary.service, summary.title, summary.severity) == (after.service, after.title, after.severity)


def test_deciding_a_state_change_again_on_its_result_yields_no_further_event() -> None:
    for state, target in ((OPEN, "MITIGATING"), (MITIGATING, "RESOLVED"), (RESOLVED, "CLOSED"), (OPEN, "CANCELLED")):
        given = incident_in(state)
        decision = decide(given, "change-state", newState=target, **WHY)
        after = advance(given, INCIDENT_ID, decision.changes, NOW)[1]
        assert line(decide(after, "change-state", newState=target, **WHY)) == "transition-illegal"


def test_the_same_severity_again_changes_nothing() -> None:
    assert decide(incident_in(OPEN), "change-severity", severity="SEV2") is UNCHANGED
