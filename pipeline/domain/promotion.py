"""The promotion gate: a policy and an incident's accumulation in, a decision with its full trace out. Pure.

All conditions are evaluated; the first that fails decides. An event stores the decision's inputs and the policy's digest, so
anyone can judge again and must get the same outcome and trace. A released policy file is never changed or removed.

Every input but the controls is a maximum, a minimum, a sum or a union over what was reported, so the order in which reports
arrive does not matter to a policy that more of everything can only satisfy (`order_dependence`).
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Final

from pydantic import AfterValidator, Field, TypeAdapter

from pipeline.domain.base import Count, Digest, Line, Model, Sequence, Share, Slug, Time, read
from pipeline.domain.canonical import Document, digest, parse_time
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
    """What the gate looks at, in the order in which it does."""

    KILL_SWITCH = "kill-switch"
    AUTHORITY = "authority"
    MAINTENANCE = "maintenance"
    COOLDOWN = "cooldown"
    AGE = "age"
    SEVERITY = "severity"
    CONFIDENCE = "confidence"
    DETECTIONS = "detections"


class Verdict(StrEnum):
    PASSED = "PASSED"
    FAILED = "FAILED"
    WAIVED = "WAIVED"


# What a failed condition leads to: SUPPRESS where somebody or something holds it back for a while, REJECT where what was
# reported is not fit, DEFER where more of the same would do. Whatever it is, the key's next candidate is judged again.
_ON_FAILURE: Final = {
    Condition.KILL_SWITCH: Outcome.SUPPRESS,
    Condition.AUTHORITY: Outcome.REJECT,
    Condition.MAINTENANCE: Outcome.SUPPRESS,
    Condition.COOLDOWN: Outcome.SUPPRESS,
    Condition.AGE: Outcome.REJECT,
    Condition.SEVERITY: Outcome.DEFER,
    Condition.CONFIDENCE: Outcome.DEFER,
    Condition.DETECTIONS: Outcome.DEFER,
}
_NEVER_WAIVED: Final = frozenset({Condition.KILL_SWITCH, Condition.AUTHORITY})

LaxSeverity = Annotated[Severity, Field(strict=False)]
LaxAuthorityType = Annotated[AuthorityType, Field(strict=False)]


def _waivable(condition: Condition) -> Condition:
    if condition in _NEVER_WAIVED:
        raise ValueError(f"nobody may waive {condition.value}")
    return condition


Seconds = Annotated[int, Field(ge=1, le=366 * 24 * 3600)]
Waivable = Annotated[Condition, Field(strict=False), AfterValidator(_waivable)]
AuthorityTypes = Annotated[tuple[LaxAuthorityType, ...], Field(min_length=1)]


class Policy(Model):
    """One policy file. Durations in seconds; `humanMayWaive` names conditions a requesting person overrides.

    `maximumAgeS` is how old the freshest observation may have been when it was sent; `cooldownS` how long after the key's
    last ending nothing observed promotes; `severityAuthorityTypes` replaces `allowedAuthorityTypes` at a severity.
    """

    policy_id: Slug
    version: Sequence
    description: str = ""
    minimum_confidence: Share = Decimal(0)
    allowed_severities: Annotated[tuple[LaxSeverity, ...], Field(min_length=1)] = tuple(Severity)
    minimum_detections: Sequence = 1
    maximum_age_s: Seconds | None = None
    cooldown_s: Seconds | None = None
    allowed_authority_types: AuthorityTypes = tuple(AuthorityType)
    severity_authority_types: dict[LaxSeverity, AuthorityTypes] | None = None
    human_may_waive: tuple[Waivable, ...] = ()
    pending_expires_s: Annotated[Seconds, Field(ge=60)] = 7 * 24 * 3600

    @property
    def pending_expires(self) -> timedelta:
        return timedelta(seconds=self.pending_expires_s)

    def authority_types(self, severity: Severity) -> tuple[AuthorityType, ...]:
        """Return the authority types that may promote an incident of this severity."""
        return (self.severity_authority_types or {}).get(severity, self.allowed_authority_types)

    @property
    def order_dependence(self) -> str | None:
        """Return why the order of arrival can change what this policy promotes, or None where it can't.

        Severity only ever rises: a policy that refuses a severity, or asks for more authority at it, than at a milder one
        can promote what came mild first and hold back what came severe first.
        """
        for milder, worse in pairwise(sorted(Severity, reverse=True)):
            if milder not in self.allowed_severities:
                continue
            if worse not in self.allowed_severities:
                return f"{worse} is not allowed, but the milder {milder} is"
            if not set(self.authority_types(milder)) <= set(self.authority_types(worse)):
                return f"{worse} asks for more authority than the milder {milder}"
        return None


class GateInputs(Model):
    """All the gate looks at: the incident's accumulation, who asks, and what the live controls said then.

    `authorityType` is who asks, `authorityTypes` all who reported (where that is more). `ageS` is the age of the freshest
    observation when it was sent (absent: none). `keyEndedAt`: when the key's last incident ended. `maintenance` is the
    window that held everything observed so far. `controls` is the digest of the controls, absent where they were not asked.
    """

    confidence: Share
    severity: LaxSeverity
    detections: Count
    newest_observed_at: Time
    authority_type: LaxAuthorityType
    requested_by_human: bool = False
    authority_types: AuthorityTypes | None = None
    age_s: Count | None = None
    key_ended_at: Time | None = None
    maintenance: Slug | None = None
    paused: Line | None = None
    controls: Digest | None = None


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
    for condition, (passed, wanted, saw) in _measured(policy, inputs).items():
        waived = inputs.requested_by_human and condition in policy.human_may_waive
        verdict = Verdict.PASSED if passed else Verdict.WAIVED if waived else Verdict.FAILED
        yield Check(condition, verdict, wanted, saw)


def _measured(policy: Policy, inputs: GateInputs) -> dict[Condition, tuple[bool, str, str]]:
    """Return per condition whether it holds, what it wants and what it saw."""
    allowed = policy.authority_types(inputs.severity)
    behind = sorted({inputs.authority_type, *(inputs.authority_types or ())})
    age_s = inputs.age_s or 0
    since_s = None if inputs.key_ended_at is None else (inputs.newest_observed_at - inputs.key_ended_at).total_seconds()
    return {
        Condition.KILL_SWITCH: (
            inputs.paused is None,
            "not paused",
            f"paused: {inputs.paused}" if inputs.paused else "not paused",
        ),
        Condition.AUTHORITY: (any(kind in allowed for kind in behind), " or ".join(allowed), " and ".join(behind)),
        Condition.MAINTENANCE: (
            inputs.maintenance is None or inputs.detections > 0,
            "something observed outside maintenance",
            f"only during {inputs.maintenance}" if inputs.maintenance and not inputs.detections else "something",
        ),
        Condition.COOLDOWN: (
            policy.cooldown_s is None or since_s is None or since_s >= policy.cooldown_s,
            "any time" if policy.cooldown_s is None else f"observed at least {policy.cooldown_s} s after the last ending",
            "no earlier ending" if since_s is None else f"{since_s:.0f} s after it",
        ),
        Condition.AGE: (
            policy.maximum_age_s is None or age_s <= policy.maximum_age_s,
            "any age" if policy.maximum_age_s is None else f"at most {policy.maximum_age_s} s old when sent",
            f"{age_s} s",
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


def what_decides(recorded: Document) -> Hashable:
    """Return all of a recorded decision that its outcome depends on: of its two times, how far they are apart.

    Raises KeyError, TypeError or ValueError for what is no decision.
    """
    inputs = recorded["inputs"]
    # Read in any case: what is no time is no decision of ours.
    newest = parse_time(inputs["newestObservedAt"])
    apart = newest - parse_time(inputs["keyEndedAt"]) if "keyEndedAt" in inputs else None
    rest = {name: value for name, value in inputs.items() if name not in _TIMES}
    outcome = (recorded["outcome"], recorded.get("rule"), recorded["policyId"], recorded["policyVersion"])
    return (*outcome, recorded["policyDigest"], apart, frozenset(rest.items()))


_TIMES: Final = ("newestObservedAt", "keyEndedAt")
