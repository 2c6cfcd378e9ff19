"""Every kind of wrong message, once: what is sent, on which queue, and the refusal it must meet. Data only.

The same table runs in memory (tests/unit/test_bad_input.py) and on the local engine (tests/e2e/test_bad_input.py). Each case
has a good neighbour of its own, which must be applied whatever stands before it.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from pipeline.domain.base import INTAKE_BYTES_MAX
from pipeline.domain.errors import Code
from pipeline.domain.ids import incident_id
from tests.support.notifications import alert, notification, resolved

CANDIDATES: Final = "candidates"
COMMANDS: Final = "commands"
# What the local engine and the local stage of the registry know as everybody.
SENDER: Final = "000000000000"
STRANGER: Final = "AROASTRANGER:nobody@example.com"

# The incident that wrong commands are about: OPEN, because one good candidate came first.
TARGET_SERVICE: Final = "bad-input-target"
TARGET: Final = incident_id(TARGET_SERVICE, "target", 1)
UNKNOWN: Final = incident_id(TARGET_SERVICE, "never-seen", 1)

Attributes = dict[str, dict[str, str]]


@dataclass(frozen=True, slots=True)
class BadInput:
    """One wrong message. `refused_field` is the input that the refusal must name, None where it is about the whole."""

    name: str
    queue: str
    body: str
    code: Code
    refused_field: str | None
    attributes: Attributes = field(default_factory=dict)
    sender: str = SENDER
    # False where only a test that chooses the sender can send it.
    sendable: bool = True

    @property
    def neighbour_service(self) -> str:
        return f"neighbour-of-{self.name}"

    @property
    def neighbour_id(self) -> str:
        """The incident that the neighbour makes."""
        return incident_id(self.neighbour_service, "neighbour", 1)

    @property
    def neighbour(self) -> str:
        """A good message for the same queue."""
        fields = {"service": self.neighbour_service, "dedupKey": "neighbour"}
        return candidate(**fields) if self.queue == CANDIDATES else declaration(**fields)


def candidate(**fields: Any) -> str:
    """Return a good candidate with `fields` over it; `...` leaves a field out."""
    good = {"type": "candidate", "service": "bad", "severity": "SEV2", "title": "Carts are empty", "dedupKey": "bad"}
    return _text(good | fields)


def detection(**fields: Any) -> str:
    return _text({"type": "detection", "service": "bad", "severity": "SEV2", "signalType": "log-pattern"} | fields)


def notice(*alerts: Any, **fields: Any) -> str:
    """Return an Alertmanager notification of which no alert can be read."""
    return _text(notification(*alerts, **fields))


def declaration(**fields: Any) -> str:
    good = {"type": "declare", "service": "bad", "severity": "SEV2", "title": "Carts are empty", "authority": "HUMAN"}
    return _text(good | fields)


def command(**fields: Any) -> str:
    """Return a good command on the target: mitigation started by a person."""
    good = {"type": "change-state", "incidentId": TARGET, "newState": "MITIGATING", "authority": "HUMAN"}
    return _text(good | fields)


def note(text: str, **fields: Any) -> str:
    return _text({"type": "add-note", "incidentId": TARGET, "note": text, "authority": "HUMAN"} | fields)


def _text(document: dict[str, Any]) -> str:
    return json.dumps({name: value for name, value in document.items() if value is not ...})


def spelled(make: Callable[..., str], name: str, literal: str) -> str:
    """Return a message in which one field's value is spelled as no JSON writer would."""
    return make(**{name: "@spelled@"}).replace('"@spelled@"', literal)


def nested(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {}
    for _ in range(depth - 1):
        inner = {"a": inner}
    return inner


def too_long(make: Callable[..., str]) -> str:
    """Return a message one byte over the limit."""
    return make(description="x" * (INTAKE_BYTES_MAX + 1 - len(make(description="").encode())))


TEN_ATTRIBUTES: Final[Attributes] = {
    f"attribute-{number}": {"stringValue": f"Größe {number}", "dataType": "String"} for number in range(8)
} | {
    "count": {"stringValue": "12", "dataType": "Number"},
    "digest": {"binaryValue": "AAEC/w==", "dataType": "Binary"},
}

# Sent and settled before anything else: they make the target, and use a key on each queue.
FIRST_CANDIDATES: Final = (
    candidate(service=TARGET_SERVICE, dedupKey="target"),
    candidate(service=TARGET_SERVICE, dedupKey="target", idempotencyKey="candidate-key"),
)
FIRST_COMMANDS: Final = (note("first", idempotencyKey="command-key"),)


def _on_candidates() -> tuple[BadInput, ...]:
    def case(name: str, body: str, code: Code, refused_field: str | None = None, **more: Any) -> BadInput:
        return BadInput(name, CANDIDATES, body, code, refused_field, **more)

    invalid, malformed = Code.INVALID_FIELD, Code.MALFORMED_JSON
    return (
        case("not-json", "Checkout is down!", malformed),
        case("cut-off-json", candidate()[:-9], malformed),
        case("not-an-object", f"[{candidate()}]", malformed),
        case("a-name-twice", candidate()[:-1] + ', "service": "other"}', malformed),
        case("wrong-type-of-a-field", candidate(title=5), invalid, "title"),
        case("unknown-type", candidate(type="incident"), Code.UNKNOWN_TYPE, "type"),
        case("type-is-an-object", candidate(type={}), Code.UNKNOWN_TYPE, "type"),
        case("type-is-a-list", candidate(type=[{}]), Code.UNKNOWN_TYPE, "type"),
        case("command-on-this-queue", command(), Code.UNKNOWN_TYPE, "type"),
        case("unknown-native-event", json.dumps({"detail-type": "EC2 Instance Launch"}), Code.UNKNOWN_TYPE, "detail-type"),
        case("unknown-field", candidate(colour="red"), Code.UNKNOWN_FIELD, "colour"),
        case("body-over-the-limit", too_long(candidate), Code.TOO_LARGE, "body"),
        case("missing-service", candidate(service=...), invalid, "service"),
        case("sev9", candidate(severity="SEV9"), invalid, "severity"),
        case("future-schema-version", candidate(schemaVersion=2), Code.UNSUPPORTED_SCHEMA_VERSION, "schemaVersion"),
        case("unknown-principal", candidate(), Code.PRINCIPAL_UNKNOWN, sender=STRANGER, sendable=False),
        case("principal-in-the-body", candidate(principal="AROAOPERATOR"), Code.UNKNOWN_FIELD, "principal"),
        case("human-claimed-by-system", candidate(authority="HUMAN"), Code.AUTHORITY_NOT_GRANTED, "authority"),
        case("key-of-another-body", candidate(idempotencyKey="candidate-key"), Code.KEY_REUSED, "idempotencyKey"),
        case("unknown-policy", candidate(policyId="hopeful"), Code.POLICY_UNKNOWN, "policyId"),
        case("lone-surrogate", spelled(candidate, "title", r'"half \ud83d"'), invalid, "title"),
        case("nul", spelled(candidate, "description", r'"a\u0000b"'), invalid, "description"),
        case("control-character", spelled(candidate, "dedupKey", r'"a\u0007b"'), invalid, "dedupKey"),
        case("what-no-queue-takes", spelled(candidate, "title", r'"a\uffff"'), invalid, "title"),
        case("what-no-queue-takes-in-data", candidate(metadata={"a": ["\ufffe"]}), invalid, "metadata"),
        case("raw-line-end-in-text", spelled(candidate, "title", '"a\nb"'), malformed),
        case("1e400", spelled(candidate, "confidence", "1e400"), invalid, "confidence"),
        case("nan", spelled(candidate, "confidence", "NaN"), malformed),
        case("number-for-a-time", candidate(observedAt=1767225600), invalid, "observedAt"),
        case("time-without-zone", candidate(observedAt="2026-01-31T03:00:00"), invalid, "observedAt"),
        case("year-0001", candidate(observedAt="0001-01-01T00:00:00Z"), invalid, "observedAt"),
        case("nesting-40-deep", candidate(metadata=nested(40)), invalid, "metadata" + ".a" * 15),
        case("metadata-deeper-than-is-stored", candidate(metadata=nested(13)), invalid, "metadata"),
        case("ten-attributes", candidate(colour="red"), Code.UNKNOWN_FIELD, "colour", attributes=TEN_ATTRIBUTES),
        case("key-of-3-kb", candidate(idempotencyKey="k" * 3072), invalid, "idempotencyKey"),
        case("dedup-key-of-3-kb", candidate(dedupKey="k" * 3072), invalid, "dedupKey"),
    )


def _in_other_forms() -> tuple[BadInput, ...]:
    def case(name: str, body: str, code: Code, refused_field: str | None = None, **more: Any) -> BadInput:
        return BadInput(name, CANDIDATES, body, code, refused_field, **more)

    invalid, unmapped, future = Code.INVALID_FIELD, Code.MAPPING_MISSING, "2099-12-31T00:00:00Z"
    unlabelled = alert(labels={"service": ...})
    return (
        case("candidate-from-the-future", candidate(observedAt=future), Code.OBSERVED_IN_FUTURE, "observedAt"),
        case("detection-without-service", detection(service=...), invalid, "service"),
        case("detection-without-signal-type", detection(signalType=...), invalid, "signalType"),
        case("detection-signal-type-with-blanks", detection(signalType="log pattern"), invalid, "signalType"),
        case("detection-sev0", detection(severity="SEV0"), invalid, "severity"),
        case("detection-with-a-title", detection(title="Carts are empty"), Code.UNKNOWN_FIELD, "title"),
        case("detection-with-a-policy", detection(policyId="default"), Code.UNKNOWN_FIELD, "policyId"),
        case("detection-principal", detection(principal="AROAOPERATOR"), Code.UNKNOWN_FIELD, "principal"),
        case("detection-future-version", detection(schemaVersion=2), Code.UNSUPPORTED_SCHEMA_VERSION, "schemaVersion"),
        case("detection-from-the-future", detection(observedAt=future), Code.OBSERVED_IN_FUTURE, "observedAt"),
        case("detection-nested-attributes", detection(attributes={"host": {"name": "a"}}), invalid, "attributes"),
        case("detection-null-attribute", detection(attributes={"host": None}), invalid, "attributes"),
        case("detection-no-rule-counts", detection(signalType="nobody-counts-this"), Code.RULE_UNKNOWN, "signalType"),
        case("detection-attributes-of-5-kb", detection(attributes={"a": "x" * 5000}), invalid, "attributes"),
        case("notification-of-version-5", notice(version="5"), invalid, "version"),
        case("notification-without-version", notice(version=...), invalid, "version"),
        case("notification-without-group-key", notice(groupKey=...), invalid, "groupKey"),
        case("notification-without-alerts", notice(alerts=...), invalid, "alerts"),
        case("notification-of-no-alert", notice(alerts=[]), invalid, "alerts"),
        case("notification-all-left-out", notice(alerts=[], truncatedAlerts=3), Code.TOO_LARGE, "truncatedAlerts"),
        case("notification-cut-off", notice()[:-99], Code.MALFORMED_JSON),
        case("alert-without-service", notice(unlabelled, unlabelled), unmapped, "alerts.0.labels.service"),
        case("alert-that-is-critical", notice(alert(labels={"severity": "critical"})), unmapped, "alerts.0.labels.severity"),
        case("alert-without-fingerprint", notice(alert(fingerprint=...)), invalid, "alerts.0.fingerprint"),
        case("alert-from-the-future", notice(alert(startsAt=future)), Code.OBSERVED_IN_FUTURE, "alerts.0.startsAt"),
        case("alert-resolved-at-no-time", notice(resolved(endsAt=...)), invalid, "alerts.0.endsAt"),
        case("alert-that-is-text", notice("HighErrorRate"), invalid, "alerts.0"),
    )


def _on_commands() -> tuple[BadInput, ...]:
    def case(name: str, body: str, code: Code, refused_field: str | None = None, **more: Any) -> BadInput:
        return BadInput(name, COMMANDS, body, code, refused_field, **more)

    invalid = Code.INVALID_FIELD
    return (
        case("command-not-json", "close it", Code.MALFORMED_JSON),
        case("candidate-on-this-queue", candidate(), Code.UNKNOWN_TYPE, "type"),
        case("command-type-is-an-object", command(type={}), Code.UNKNOWN_TYPE, "type"),
        case("command-type-is-a-list", command(type=[{}]), Code.UNKNOWN_TYPE, "type"),
        case("declaration-nested-too-deep", declaration(metadata=nested(14)), invalid, "metadata"),
        case("command-without-type", command(type=...), Code.UNKNOWN_TYPE, "type"),
        case("command-over-the-limit", too_long(declaration), Code.TOO_LARGE, "body"),
        case("command-unknown-field", command(force=True), Code.UNKNOWN_FIELD, "force"),
        case("command-future-version", command(schemaVersion=2), Code.UNSUPPORTED_SCHEMA_VERSION, "schemaVersion"),
        case("command-principal", command(principal="AROAOPERATOR"), Code.UNKNOWN_FIELD, "principal"),
        case("unknown-state", command(newState="REOPENED"), invalid, "newState"),
        case("illegal-transition", command(newState="CLOSED", reason="done"), Code.TRANSITION_ILLEGAL),
        case(
            "remembered-illegal-transition",
            command(newState="ARCHIVED", authority="SYSTEM", idempotencyKey="illegal"),
            Code.TRANSITION_ILLEGAL,
        ),
        case("authority-unclear", command(authority=...), Code.AUTHORITY_UNCLEAR, "authority"),
        case("system-may-not-cancel", command(newState="CANCELLED", authority="SYSTEM"), Code.TRANSITION_AUTHORITY),
        case("no-reason", command(newState="CANCELLED"), Code.REASON_MISSING, "reason"),
        case("stale-version", command(expectedVersion=1), Code.VERSION_STALE),
        case("command-key-of-another-body", note("second", idempotencyKey="command-key"), Code.KEY_REUSED, "idempotencyKey"),
        case("key-of-a-candidate", note("third", idempotencyKey="candidate-key"), Code.KEY_REUSED, "idempotencyKey"),
        case("unknown-incident", command(incidentId=UNKNOWN), Code.INCIDENT_UNKNOWN, "incidentId"),
        case("not-an-incident-id", command(incidentId="INC-1"), invalid, "incidentId"),
        case("command-stranger", command(), Code.PRINCIPAL_UNKNOWN, sender=STRANGER, sendable=False),
        case("command-lone-surrogate", spelled(note, "text", r'"half \udc00"'), invalid, "note"),
        case("command-ten-attributes", command(force=True), Code.UNKNOWN_FIELD, "force", attributes=TEN_ATTRIBUTES),
        case("command-key-of-3-kb", command(idempotencyKey="k" * 3072), invalid, "idempotencyKey"),
    )


CASES: Final = (*_on_candidates(), *_in_other_forms(), *_on_commands())
