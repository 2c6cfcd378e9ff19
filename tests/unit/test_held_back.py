"""What is held back: observed during maintenance, or of a service that somebody paused. Nothing of it is lost."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from pipeline.domain.commands import Dismiss, RequestPromotion
from pipeline.domain.controls import PinnedControls
from pipeline.domain.decisions import Gate, decide_command
from pipeline.domain.events import Correlation, Judgement, ObservationKind
from pipeline.domain.ids import candidate_id
from pipeline.domain.incidents import Incident
from pipeline.domain.occurrences import Reported, decide_candidates, join
from pipeline.domain.promotion import Condition, Outcome
from pipeline.domain.transitions import Severity, State
from tests.support.clock import NOW
from tests.support.histories import HUMAN, INCIDENT_ID, POLICIES, SERVICE, incident_in
from tests.support.reports import OWN_POLICIES, Key, attachments, controls, facts, line, reported

FIRING, RECOVERY, NO_DATA, DECLARATION = ObservationKind
SEV1 = Severity.SEV1
E, P, S, UP = "EvidenceAttached", "PromotionDecided", "SeverityChanged", "IncidentOpened"
HOUR = timedelta(hours=1)
GATE = Gate(OWN_POLICIES)


def judgement(holder: Incident | None, *batch: Reported, gate: Gate = GATE) -> tuple[Outcome, Condition | None]:
    """Return what the gate says of a batch: the outcome and the condition that decided."""
    last = facts(decide_candidates(batch, holder, gate))[-1].metadata
    assert isinstance(last, Judgement), last
    return last.decision.outcome, last.decision.rule


# --- maintenance --------------------------------------------------------------------------------------------------------

DEPLOY = controls(maintenance=[("checkout", NOW, NOW + HOUR)])
DURING, AFTER = 60.0, 3600.0


def correlation() -> Correlation:
    return Correlation(
        rule_id="bursts",
        rule_version=1,
        rule_digest="d" * 64,
        candidate_id=candidate_id("bursts", 1, {"service": SERVICE}, NOW),
        window_start=NOW,
        window_end=NOW + HOUR,
        detections=3,
    )


MARKED: list[tuple[ObservationKind, float, dict[str, Any], PinnedControls, str | None]] = [
    (FIRING, 0, {}, DEPLOY, "w-0"),
    (FIRING, 3599.999999, {}, DEPLOY, "w-0"),
    (FIRING, 3600, {}, DEPLOY, None),
    (FIRING, -0.000001, {}, DEPLOY, None),
    (FIRING, DURING, {}, controls(maintenance=[("search", NOW, NOW + HOUR)]), None),
    (FIRING, DURING, {}, controls(maintenance=[("check*", NOW, NOW + HOUR)]), "w-0"),
    (FIRING, DURING, {"correlation": correlation()}, DEPLOY, None),
    (FIRING, DURING, {"correlation": correlation(), "maintenance": "w-9"}, DEPLOY, "w-9"),
    (RECOVERY, DURING, {}, DEPLOY, None),
    (NO_DATA, DURING, {}, DEPLOY, None),
    (DECLARATION, DURING, {}, DEPLOY, None),
]


@pytest.mark.parametrize(("kind", "at", "fields", "live", "mark"), MARKED)
def test_what_is_observed_in_a_window_is_marked_by_when_it_was_seen(
    kind: Any, at: float, fields: Any, live: PinnedControls, mark: str | None
) -> None:
    one = reported("a", kind, at=at, **fields)
    for ruling in (
        decide_candidates([one], incident_in(State.OPEN), Gate(POLICIES, live)),
        join([one], incident_in(State.OPEN), Gate(POLICIES, live)),
    ):
        (found,) = attachments(ruling)
        assert found.observation is not None
        assert found.observation.maintenance == mark


def test_what_is_seen_during_maintenance_waits_and_one_observation_outside_opens_it() -> None:
    key = Key(None, Gate(POLICIES, DEPLOY))
    key.take(reported("a", at=DURING, detections=5), reported("b", at=DURING + 1))
    assert key.lines == [f"IncidentCreated {E} {P} #1"]
    assert key.holder is not None
    promotion = key.holder.metadata.promotion
    assert (promotion.detections, promotion.confidence, promotion.maintenance) == (0, Decimal(0), "w-0")
    assert (promotion.outcome, promotion.newest_observed_at) == (Outcome.SUPPRESS, NOW + timedelta(seconds=DURING + 1))
    key.take(reported("c", at=AFTER))
    assert key.lines[1:] == [f"{E} {UP}"]
    assert key.holder.metadata.promotion.detections == 1
    assert key.holder.metadata.promotion.maintenance is None


def test_the_gate_names_maintenance_only_where_nothing_was_seen_outside() -> None:
    gate = Gate(OWN_POLICIES, DEPLOY)
    held, free = reported("a", at=DURING), reported("b", at=AFTER, confidence=Decimal("0.1"))
    assert judgement(None, held, gate=gate) == (Outcome.SUPPRESS, Condition.MAINTENANCE)
    assert judgement(None, held, free, gate=gate) == (Outcome.DEFER, Condition.CONFIDENCE)
    assert judgement(None, free, gate=gate) == (Outcome.DEFER, Condition.CONFIDENCE)


def test_a_declaration_is_heard_during_maintenance() -> None:
    declared = reported("a", DECLARATION, at=DURING, by=HUMAN, policy_id="declared")
    assert judgement(None, declared, gate=Gate(OWN_POLICIES, DEPLOY)) == (Outcome.PROMOTE, None)


def test_what_joins_an_open_incident_during_maintenance_is_evidence_and_is_not_counted() -> None:
    key = Key(incident_in(State.OPEN), Gate(POLICIES, DEPLOY))
    key.take(reported("a", at=DURING, detections=7), reported("b", at=DURING + 5))
    assert key.lines == [E]
    assert key.holder is not None
    promotion = key.holder.metadata.promotion
    assert (promotion.detections, promotion.maintenance) == (1, None)
    assert promotion.newest_observed_at < NOW + timedelta(seconds=DURING)
    assert key.holder.state is State.OPEN


def test_a_person_may_ask_for_what_is_held_by_maintenance() -> None:
    held = Key(None, Gate(POLICIES, DEPLOY)).take(reported("a", at=DURING)).holder
    assert held is not None
    asked = RequestPromotion(type="request-promotion", incident_id=held.incident_id, reason="not the deploy's")
    decision = decide_command(asked, held, HUMAN, Gate(POLICIES, DEPLOY))
    assert decision.changes[-1].new_state is State.OPEN  # type: ignore[union-attr]


# --- kill switches ------------------------------------------------------------------------------------------------------

PAUSED = [controls(paused=[name]) for name in ("*", "checkout", "check*")]


@pytest.mark.parametrize("live", PAUSED, ids=["everything", "the service", "a pattern"])
def test_a_paused_service_is_not_promoted_and_nothing_is_lost(live: PinnedControls) -> None:
    gate = Gate(POLICIES, live)
    assert judgement(None, reported("a"), gate=gate) == (Outcome.SUPPRESS, Condition.KILL_SWITCH)
    assert judgement(incident_in(State.PENDING), reported("a"), gate=gate) == (Outcome.SUPPRESS, Condition.KILL_SWITCH)
    key = Key(None, gate).take(reported("a"))
    key.gate = Gate(POLICIES)
    assert key.take(reported("b", at=1)).lines[-1] == f"{E} {UP}", "resumed: the next one is judged again"


def test_a_pause_of_another_service_pauses_nobody_else() -> None:
    assert judgement(None, reported("a"), gate=Gate(POLICIES, controls(paused=["search"]))) == (Outcome.PROMOTE, None)


def test_what_is_open_stays_open_and_is_joined_under_a_pause() -> None:
    ruling = decide_candidates([reported("a", severity=SEV1)], incident_in(State.OPEN), Gate(POLICIES, PAUSED[0]))
    assert line(ruling) == f"{E} {S}"


def test_a_declaration_waits_for_the_end_of_a_pause() -> None:
    declared = reported("a", DECLARATION, by=HUMAN, policy_id="declared")
    assert judgement(None, declared, gate=Gate(OWN_POLICIES, PAUSED[0])) == (Outcome.SUPPRESS, Condition.KILL_SWITCH)


def test_a_pause_is_waived_by_nobody_but_keeps_nobody_from_dismissing() -> None:
    holder, gate = incident_in(State.PENDING), Gate(POLICIES, PAUSED[0])
    asked = RequestPromotion(type="request-promotion", incident_id=INCIDENT_ID, reason="now")
    (decided,) = decide_command(asked, holder, HUMAN, gate).changes  # type: ignore[union-attr]
    assert decided.fact.metadata.decision.rule is Condition.KILL_SWITCH  # type: ignore[union-attr]
    dismissed = Dismiss(type="dismiss", incident_id=INCIDENT_ID, reason="a test")
    opened, cancelled = decide_command(dismissed, holder, HUMAN, gate).changes  # type: ignore[union-attr]
    assert (opened.new_state, cancelled.new_state) == (State.OPEN, State.CANCELLED)
    seen = opened.fact.metadata.decision.inputs  # type: ignore[union-attr]
    assert (seen.paused, seen.controls) == (None, None), "not asked"


def test_a_decision_names_the_switch_and_the_very_controls_it_was_made_under() -> None:
    for live, named in (*zip(PAUSED, ("*", "checkout", "check*"), strict=True), (DEPLOY, None)):
        last = facts(decide_candidates([reported("a", at=AFTER)], None, Gate(POLICIES, live)))[-1].metadata
        assert isinstance(last, Judgement)
        assert (last.decision.inputs.paused, last.decision.inputs.controls) == (named, live.digest)
