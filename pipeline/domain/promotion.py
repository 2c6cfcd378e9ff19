"""The promotion gate: a policy and an incident's accumulation in, a decision with its full trace out. Pure.

All conditions are evaluated; the first that fails decides. An event stores the decision's inputs and the policy's digest, so
anyone can judge again and must get the same outcome and trace. A released policy file is never changed or removed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field, TypeAdapter

from pipeline.domain.base import Count, Digest, Model, Sequence, Share, Slug, Time, read
from pipeline.domain.canonical import Document, digest
from pipeline.domain.errors import Code, Refusal
from pipeline.domain.transitions import AuthorityType, Severity

DEFAULT_POLICY: Final = "default"
DECLARED_POLICY: Final = "declared"
DISMISSED_POLICY: Final = "dismissed"


class Outcome(StrEnum):
    PROMOTE = "PROMOTE"
    DEFER = "DEFER"
    REJECT = "REJECT"
    SUPPRESS = "SUPPRESS"


class Condition(StrEnum):
    """The conditions a policy may set, in the order in which they are evaluated."""

    AUTHORITY = "authority"
    SEVERITY = "severity"
    CONFIDENCE = "confidence"
    DETECTIONS = "detections"


class Verdict(StrEnum):
    PASSED = "PASSED"
    FAILED = "FAILED"
    WAIVED = "WAIVED"


# What a failed condition leads to. Authority can't improve by waiting; the others may with the next candidate.
_ON_FAILURE: Final = {
    Condition.AUTHORITY: Outcome.REJECT,
    Condition.SEVERITY: Outcome.DEFER,
    Condition.CONFIDENCE: Outcome.DEFER,
    Condition.DETECTIONS: Outcome.DEFER,
}
_WAIVABLE: Final = frozenset({Condition.SEVERITY, Condition.CONFIDENCE, Condition.DETECTIONS})

LaxSeverity = Annotated[Severity, Field(strict=False)]
LaxAuthorityType = Annotated[AuthorityType, Field(strict=False)]


class Policy(Model):
    """One policy file. Durations in seconds; `humanMayWaive` names conditions a requesting person overrides."""

    policy_id: Slug
    version: Sequence
    description: str = ""
    minimum_confidence: Share = Decimal(0)
    allowed_severities: tuple[LaxSeverity, ...] = tuple(Severity)
    minimum_detections: Sequence = 1
    allowed_authority_types: tuple[LaxAuthorityType, ...] = tuple(AuthorityType)
    human_may_waive: tuple[Annotated[Condition, Field(strict=False)], ...] = ()
    pending_expires_s: Annotated[int, Field(ge=60)] = 7 * 24 * 3600

    @property
    def pending_expires(self) -> timedelta:
        return timedelta(seconds=self.pending_expires_s)


class GateInputs(Model):
    """All the gate looks at: the incident's accumulation, and who asks."""

    confidence: Share
    severity: LaxSeverity
    detections: Count
    newest_observed_at: Time
    authority_type: LaxAuthorityType
    requested_by_human: bool = False


class GateDecision(Model):
    """What the gate said, as stored in the event: enough to recompute the trace. `rule` is the condition that decided."""

    outcome: Annotated[Outcome, Field(strict=False)]
    rule: Annotated[Condition, Field(strict=False)] | None = None
    policy_id: Slug
    policy_version: Sequence
    policy_digest: Digest
    inputs: GateInputs


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the trace: what a condition wanted, what it saw."""

    condition: Condition
    verdict: Verdict
    wanted: str
    saw: str


@dataclass(frozen=True, slots=True)
class PinnedPolicy:
    """A policy with the digest of the file it was read from."""

    policy: Policy
    digest: str


_POLICY: Final = TypeAdapter(Policy)


@dataclass(frozen=True, slots=True)
class Policies:
    """The shipped policies, every released version of each."""

    pinned: dict[tuple[str, int], PinnedPolicy]

    @classmethod
    def load(cls, documents: Iterable[Document]) -> "Policies":
        found = [PinnedPolicy(read(_POLICY, document), digest(document)) for document in documents]
        pinned = {(item.policy.policy_id, item.policy.version): item for item in found}
        if len(pinned) != len(found):
            raise ValueError("two policy files have one policyId and version; a released version is never changed")
        return cls(pinned)

    def newest(self, policy_id: str) -> PinnedPolicy | Refusal:
        """Return the newest version of a policy; unknown ones are refused, never replaced by a default."""
        versions = [version for known, version in self.pinned if known == policy_id]
        if not versions:
            return Refusal(Code.POLICY_UNKNOWN, f"No policy {policy_id!r} is shipped.", "policyId")
        return self.pinned[policy_id, max(versions)]

    def recorded(self, decision: GateDecision) -> PinnedPolicy | None:
        """Return the very policy a recorded decision was made under, or None where its digest is not the shipped one."""
        found = self.pinned.get((decision.policy_id, decision.policy_version))
        return found if found is not None and found.digest == decision.policy_digest else None


def judge(pinned: PinnedPolicy, inputs: GateInputs) -> tuple[GateDecision, tuple[Check, ...]]:
    """Return the gate's decision and its trace, one check per condition, in the order of `Condition`."""
    trace = tuple(_checks(pinned.policy, inputs))
    failed = next((check.condition for check in trace if check.verdict is Verdict.FAILED), None)
    decision = GateDecision(
        outcome=Outcome.PROMOTE if failed is None else _ON_FAILURE[failed],
        rule=failed,
        policy_id=pinned.policy.policy_id,
        policy_version=pinned.policy.version,
        policy_digest=pinned.digest,
        inputs=inputs,
    )
    return decision, trace


def _checks(policy: Policy, inputs: GateInputs) -> Iterable[Check]:
    measured = {
        Condition.AUTHORITY: (
            inputs.authority_type in policy.allowed_authority_types,
            " or ".join(policy.allowed_authority_types),
            inputs.authority_type,
        ),
        Condition.SEVERITY: (
            inputs.severity in policy.allowed_severities,
            " or ".join(policy.allowed_severities),
            inputs.severity,
        ),
        Condition.CONFIDENCE: (
            inputs.confidence >= policy.minimum_confidence,
            f"at least {policy.minimum_confidence}",
            str(inputs.confidence),
        ),
        Condition.DETECTIONS: (
            inputs.detections >= policy.minimum_detections,
            f"at least {policy.minimum_detections}",
            str(inputs.detections),
        ),
    }
    for condition, (passed, wanted, saw) in measured.items():
        waived = inputs.requested_by_human and condition in policy.human_may_waive and condition in _WAIVABLE
        verdict = Verdict.PASSED if passed else Verdict.WAIVED if waived else Verdict.FAILED
        yield Check(condition, verdict, wanted, saw)
