"""A history with every field that came after the first release: what rules, folding, live controls and the wider gate add.

Written out fact by fact, like `histories`, and kept in the golden files named `.v2`. Its fields never change.
"""

from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from pipeline.domain.envelope import Change, IncidentEvent
from pipeline.domain.events import (
    Attachment,
    Correlation,
    Creation,
    Evidence,
    EvidenceAttached,
    IncidentCreated,
    IncidentOpened,
    Judgement,
    PromotionDecided,
    Report,
)
from pipeline.domain.ids import candidate_id
from pipeline.domain.incidents import advance
from pipeline.domain.promotion import GateInputs, Outcome, judge
from pipeline.domain.transitions import AuthorityType, Severity, State
from tests.support.clock import NOW
from tests.support.histories import DEDUP_KEY, GATE, HUMAN, INCIDENT_ID, OTHER_ID, POLICIES, SERVICE, SYSTEM, observation

MINUTE: Final = timedelta(minutes=1)
CONTROLS_DIGEST: Final = "c" * 64
_SUMMARY: Final[dict[str, Any]] = {"service": SERVICE, "severity": Severity.SEV2, "title": "5xx above 5 %"}
_ENDED: Final = NOW - timedelta(hours=2)


def _correlation(detections: int) -> Correlation:
    return Correlation(
        rule_id="bursts",
        rule_version=3,
        rule_digest="d" * 64,
        candidate_id=candidate_id("bursts", 3, {"service": SERVICE}, NOW - timedelta(hours=1)),
        window_start=NOW - timedelta(hours=1),
        window_end=NOW,
        detections=detections,
    )


def _created() -> Change:
    seen = observation(
        source="edge-2",
        observed_at=NOW - 2 * MINUTE,
        confidence=Decimal("0.75"),
        detections=3,
        first_observed_at=NOW - 40 * MINUTE,
        more_sources=("edge-1", "edge-3"),
        age_s=125,
        maintenance="deploy-1",
    )
    creation = Creation(
        **_SUMMARY,
        description="",
        dedup_key=DEDUP_KEY,
        occurrence=2,
        predecessor=OTHER_ID,
        policy_id="default",
        observation=seen,
        correlation=_correlation(3),
        key_ended_at=_ENDED,
    )
    return Change(IncidentCreated(metadata=creation), SYSTEM, State.PENDING)


def _suppressed() -> Change:
    inputs = GateInputs(
        confidence=Decimal(0),
        severity=Severity.SEV2,
        detections=0,
        newest_observed_at=NOW - 2 * MINUTE,
        authority_type=AuthorityType.HUMAN,
        requested_by_human=True,
        authority_types=(AuthorityType.HUMAN, AuthorityType.SYSTEM),
        key_ended_at=_ENDED,
        maintenance="deploy-1",
        paused="check*",
        controls=CONTROLS_DIGEST,
    )
    decision, _ = judge(POLICIES.pinned["default", 2], inputs)
    judgement = Judgement(**_SUMMARY, decision=decision, requested_by=HUMAN)
    return Change(PromotionDecided(metadata=judgement), GATE, State.PENDING)


def _folded() -> Change:
    seen = observation(
        source="edge-9",
        observed_at=NOW - MINUTE,
        confidence=Decimal("0.875"),
        detections=4,
        first_observed_at=NOW - 3 * MINUTE,
        more_sources=("edge-1", "edge-2"),
        age_s=7,
    )
    attachment = Attachment(
        **_SUMMARY,
        observation=seen,
        evidence=(Evidence(kind="log", ref="logs/7"), Evidence(kind="log", ref="logs/8")),
        report=Report(severity=Severity.SEV1, description="seen from the edge"),
        more_reports=(Report(title="carts are empty"), Report(tags={"region": "eu"})),
        policies=("careful", "declared"),
        correlation=_correlation(7),
    )
    return Change(EvidenceAttached(metadata=attachment), HUMAN, State.PENDING)


def _opened() -> Change:
    inputs = GateInputs(
        confidence=Decimal("0.875"),
        severity=Severity.SEV2,
        detections=4,
        newest_observed_at=NOW - MINUTE,
        authority_type=AuthorityType.SYSTEM,
        authority_types=(AuthorityType.HUMAN, AuthorityType.SYSTEM),
        age_s=7,
        key_ended_at=_ENDED,
        controls=CONTROLS_DIGEST,
    )
    decision, _ = judge(POLICIES.pinned["default", 2], inputs)
    if decision.outcome is not Outcome.PROMOTE:
        raise ValueError("a shipped policy judges otherwise than it did")
    return Change(IncidentOpened(metadata=Judgement(**_SUMMARY, decision=decision)), GATE, State.OPEN)


def later_life() -> tuple[IncidentEvent, ...]:
    """Return a history of the later fields: begun by a rule during maintenance, paused, joined by a folded batch, opened."""
    return advance(None, INCIDENT_ID, [_created(), _suppressed(), _folded(), _opened()], NOW)[0]
