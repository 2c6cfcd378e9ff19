"""What can go wrong, drawn once. Nothing else in opx invents an error code.

    OpxError
    ├── Rejected     the caller is wrong: never retried, answered with a code and what to do next
    ├── Conflict     what was decided on has moved: decide again, until the request's deadline
    ├── Unavailable  a dependency is down: the message is delivered again later
    └── Corrupt      storage contradicts itself: stop and alarm, never repair by itself

Inside the core a refusal is a value (`Refusal`); `Rejected` carries it over the edges that need an exception.
"""

from dataclasses import dataclass
from enum import StrEnum


class Code(StrEnum):
    """Stable names of refusals: senders and runbooks match on them, so none is ever renamed."""

    MALFORMED_JSON = "malformed-json"
    TOO_LARGE = "too-large"
    INVALID_FIELD = "invalid-field"
    UNKNOWN_FIELD = "unknown-field"
    UNKNOWN_TYPE = "unknown-type"
    UNSUPPORTED_SCHEMA_VERSION = "unsupported-schema-version"
    OBSERVED_IN_FUTURE = "observed-in-future"
    MAPPING_MISSING = "mapping-missing"
    REASON_MISSING = "reason-missing"
    LINK_TO_ITSELF = "link-to-itself"
    AUTHORITY_UNCLEAR = "authority-unclear"
    PRINCIPAL_UNKNOWN = "principal-unknown"
    OPERATION_NOT_GRANTED = "operation-not-granted"
    AUTHORITY_NOT_GRANTED = "authority-not-granted"
    ACTOR_NOT_ASSERTABLE = "actor-not-assertable"
    TRANSITION_AUTHORITY = "transition-authority"
    INCIDENT_UNKNOWN = "incident-unknown"
    POLICY_UNKNOWN = "policy-unknown"
    RULE_UNKNOWN = "rule-unknown"
    TRANSITION_ILLEGAL = "transition-illegal"
    SEVERITY_FROZEN = "severity-frozen"
    VERSION_STALE = "version-stale"
    KEY_REUSED = "key-reused"


class HttpCode(StrEnum):
    """What the HTTP door alone answers: no receipt ever holds one of these, so they are no part of a stored schema."""

    KEY_MISSING = "key-missing"
    RECEIPT_UNKNOWN = "receipt-unknown"
    UNAVAILABLE = "unavailable"
    CORRUPT = "corrupt"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a code stands for: its HTTP status, whether its receipt is kept, and the next step for the sender."""

    status: int
    advice: str
    remembered: bool = False


MEANINGS: dict[Code, Meaning] = {
    Code.MALFORMED_JSON: Meaning(400, "Send one UTF-8 JSON object (RFC 8259) without duplicate names."),
    Code.TOO_LARGE: Meaning(400, "Shorten it; keep bulk data elsewhere and send a reference as evidence."),
    Code.INVALID_FIELD: Meaning(400, "Correct the named field and send again."),
    Code.UNKNOWN_FIELD: Meaning(400, "Remove the named field; put data of your own under `metadata`."),
    Code.UNKNOWN_TYPE: Meaning(400, "Use a documented `type`, or a native CloudWatch or Alertmanager body."),
    Code.UNSUPPORTED_SCHEMA_VERSION: Meaning(400, "Send `schemaVersion` 1, or upgrade this stack first."),
    Code.OBSERVED_IN_FUTURE: Meaning(400, "Correct the sender's clock; observedAt may lead by 10 minutes at most."),
    Code.MAPPING_MISSING: Meaning(
        400,
        'Put {"service": "…", "severity": "SEV2"} into the alarm\'s description, or give the alert both as labels; '
        "nothing is guessed.",
    ),
    Code.REASON_MISSING: Meaning(400, "Give a `reason` (1-2048 characters) or `authority.justification`."),
    Code.LINK_TO_ITSELF: Meaning(400, "Name another incident as the target."),
    Code.AUTHORITY_UNCLEAR: Meaning(400, "Say `authority`: HUMAN or SYSTEM; this principal may use both."),
    Code.PRINCIPAL_UNKNOWN: Meaning(403, "Have the principal's unique id added to the authority registry."),
    Code.OPERATION_NOT_GRANTED: Meaning(403, "Have the registry entry grant this operation on this service."),
    Code.AUTHORITY_NOT_GRANTED: Meaning(403, "Claim an authority type that the registry grants to this principal."),
    Code.ACTOR_NOT_ASSERTABLE: Meaning(403, "Leave out `actorId`: only registered principals act for others."),
    Code.TRANSITION_AUTHORITY: Meaning(403, "Have somebody with the named authority send it."),
    Code.INCIDENT_UNKNOWN: Meaning(404, "Check the incidentId: `opx list` lists them."),
    Code.POLICY_UNKNOWN: Meaning(404, "Name a shipped policy, or leave `policyId` out for the default."),
    Code.RULE_UNKNOWN: Meaning(
        404, "Add a rule that matches it and redrive, or send it as a candidate; `opx lint` shows which rules match."
    ),
    Code.TRANSITION_ILLEGAL: Meaning(
        409, "Take one of the allowed transitions. To try again, send a new idempotency key.", remembered=True
    ),
    Code.SEVERITY_FROZEN: Meaning(
        409, "Severity is settled once resolved. To try again, send a new idempotency key.", remembered=True
    ),
    Code.VERSION_STALE: Meaning(
        412,
        "Read the incident again, then send its controlVersion with a new idempotency key.",
        remembered=True,
    ),
    Code.KEY_REUSED: Meaning(422, "This key already stands for another request: send a new idempotency key."),
}

HTTP_MEANINGS: dict[HttpCode, Meaning] = {
    HttpCode.KEY_MISSING: Meaning(400, "Send a header Idempotency-Key of your own, and the same one with every retry."),
    HttpCode.RECEIPT_UNKNOWN: Meaning(
        404, "It is not decided yet, was refused without a receipt (see the rejected queue), or was sent by somebody else."
    ),
    HttpCode.UNAVAILABLE: Meaning(
        503, "Send the same request again; a write under the same key, since it may have taken effect."
    ),
    HttpCode.CORRUPT: Meaning(500, "Storage contradicts itself: an operator has to look, nothing is repaired by itself."),
    HttpCode.INTERNAL: Meaning(
        500, "A defect of opx: report the request's id. A write may have taken effect; the same key makes another try safe."
    ),
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something was not done. A value: `decide` returns it, doors translate it.

    `field` names the offending input (dotted path) where there is one; `state` and `allowed` describe the incident
    as it stood when the decision was made.
    """

    code: Code
    detail: str
    field: str | None = None
    incident_id: str | None = None
    state: str | None = None
    allowed: tuple[str, ...] = ()

    @property
    def status(self) -> int:
        return MEANINGS[self.code].status

    @property
    def remembered(self) -> bool:
        """True where the refusal is about an existing incident's state and its receipt is kept (409, 412)."""
        return MEANINGS[self.code].remembered

    @property
    def advice(self) -> str:
        return MEANINGS[self.code].advice

    def sentence(self) -> str:
        """One line for logs, the rejected queue and the terminal: what, where, what to do next."""
        where = f"{self.field}: " if self.field else ""
        return f"{where}{self.detail} {self.advice}"


class OpxError(Exception):
    """Root of everything opx raises on purpose."""


class Rejected(OpxError):
    """The caller is wrong; the same input would be refused again."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.sentence())
        self.refusal = refusal


class Conflict(OpxError):
    """Somebody else's transaction was in the way; nothing was written, decide again."""


class Unavailable(OpxError):
    """A dependency did not answer, or not in time; whether the write took effect may be unknown."""


class Corrupt(OpxError):
    """Storage contradicts itself (or code wrote what storage refuses); a person must look."""

    def __init__(self, detail: str, incident_id: str | None = None) -> None:
        super().__init__(f"{incident_id}: {detail}" if incident_id else detail)
        self.incident_id = incident_id
