"""Prometheus Alertmanager's notifications as candidates and detections. Pure and total: signals and refusals, one per alert.

Read is the webhook's body (version 4); the SNS receiver, which sends whatever its template says, is given a template that
writes the same (README). Service and severity are labels of the alert, under a mapping that is given, and are never guessed.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import Field, TypeAdapter

from pipeline.domain.base import METADATA_BYTES_MAX, Count, Line, Model, Native, Service, Slug, Time, cleaned, read
from pipeline.domain.candidates import Candidate, Detection, Intake, Key, Received, Signal, age_s, observed_in_future
from pipeline.domain.canonical import Document, canonical_bytes, digest, format_time
from pipeline.domain.errors import Code, Refusal, Rejected
from pipeline.domain.events import Evidence, Link, Observation, ObservationKind
from pipeline.domain.promotion import LaxSeverity
from pipeline.domain.transitions import Severity

SIGNAL_TYPE: Final = "alertmanager"
# Where the labels are more than metadata holds: how many are not there.
LABELS_LEFT_OUT: Final = "labelsLeftOut"

T = TypeVar("T")


class AlertMapping(Model):
    """Which labels name an alert's service and severity, and which severity each value of the latter stands for."""

    service_label: Line = "service"
    severity_label: Line = "severity"
    severities: dict[str, LaxSeverity] = Field(default_factory=lambda: {one.value: one for one in Severity})


OWN_WORDS: Final = AlertMapping()


class _Notification(Native):
    version: Literal["4"]
    group_key: Any
    alerts: tuple[Any, ...]
    truncated_alerts: Count = 0


class _Alert(Native):
    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    annotations: dict[str, str] = Field(default_factory=dict)
    starts_at: Time
    ends_at: Any = None
    generator_url: Annotated[str, Field(alias="generatorURL")] = ""
    fingerprint: Slug


_NOTIFICATION: Final = TypeAdapter(_Notification)
_ALERT: Final = TypeAdapter(_Alert)
_SERVICE: Final = TypeAdapter(Service)
_TIME: Final[TypeAdapter[datetime]] = TypeAdapter(Time)
_LINK: Final = TypeAdapter(Link)
_LINKED_ANNOTATIONS: Final = (("runbook", "runbook_url"), ("dashboard", "dashboard"))
_OBSERVED: Final = {"firing": ObservationKind.FIRING, "resolved": ObservationKind.RECOVERY}


def is_notification(document: Document) -> bool:
    """True where a document can only be meant as a notification; whether it is a whole one is for its reader to say."""
    return "type" not in document and ("groupKey" in document or "alerts" in document)


def read_notification(document: Document, received: Received, mapping: AlertMapping = OWN_WORDS) -> Intake:
    """Return a signal for each alert that can be read and a refusal for each that can't; raise `Rejected` where none can.

    What Alertmanager left out of the notification is a refusal too.
    """
    notification = read(_NOTIFICATION, document)
    signals: list[Signal] = []
    refusals: list[Refusal] = []
    for index, alert in enumerate(notification.alerts):
        try:
            signals.append(_signal(read(_ALERT, alert), received, mapping))
        except Rejected as rejected:
            field = f"alerts.{index}.{rejected.refusal.field or ''}".removesuffix(".")
            refusals.append(replace(rejected.refusal, field=field[:200]))
    if notification.truncated_alerts:
        said = f"Alertmanager left out {notification.truncated_alerts} alerts: send smaller groups (group_by, max_alerts)."
        refusals.append(Refusal(Code.TOO_LARGE, said, "truncatedAlerts"))
    if not signals:
        raise Rejected(refusals[0] if refusals else Refusal(Code.INVALID_FIELD, "There is no alert in it.", "alerts"))
    return Intake(tuple(signals), refusals=tuple(refusals))


def _signal(alert: _Alert, received: Received, mapping: AlertMapping) -> Signal:
    service, severity = _service(alert, mapping), _severity(alert, mapping)
    observed_at = _observed_at(alert, received)
    started = format_time(alert.starts_at)
    # Alertmanager repeats an alert while it lasts, in other groups and with other annotations: it is still the same one.
    identity = digest([alert.fingerprint, started, alert.status])
    name, labels = alert.labels.get("alertname", ""), _labels(alert)
    old, source = age_s(received.sent_at, observed_at), cleaned(f"{SIGNAL_TYPE}:{name}".removesuffix(":"), 256)
    candidate = Candidate(
        service=service,
        dedup_key=f"{SIGNAL_TYPE}:{alert.fingerprint}",
        severity=severity,
        title=_title(alert, name),
        description=cleaned(alert.annotations.get("description", ""), 4096),
        observation=Observation(
            kind=_OBSERVED[alert.status], source=source, observed_at=observed_at, confidence=Decimal(1), age_s=old or None
        ),
        evidence=(
            Evidence(kind=SIGNAL_TYPE, ref=f"{alert.fingerprint}@{started}", observed_at=observed_at, note=alert.status),
        ),
        links=_links(alert),
        tags=_tags(labels, len(alert.labels)),
    )
    detection = Detection(
        id=identity,
        service=service,
        source=source,
        signal_type=SIGNAL_TYPE,
        severity=severity,
        observed_at=observed_at,
        age_s=old,
        kind=_OBSERVED[alert.status],
        dedup_key=candidate.dedup_key,
        resource=cleaned(alert.labels.get("instance", ""), 256) or None,
        attributes=labels,
    )
    return Signal(Key("alertmanager", identity), identity, candidate, detection)


def _service(alert: _Alert, mapping: AlertMapping) -> str:
    label = mapping.service_label
    if label not in alert.labels:
        raise Rejected(Refusal(Code.MAPPING_MISSING, "The alert has no such label.", f"labels.{label}"))
    return _under(f"labels.{label}", lambda: read(_SERVICE, alert.labels[label]))


def _severity(alert: _Alert, mapping: AlertMapping) -> Severity:
    label = mapping.severity_label
    if label not in alert.labels:
        raise Rejected(Refusal(Code.MAPPING_MISSING, "The alert has no such label.", f"labels.{label}"))
    value = alert.labels[label]
    if value not in mapping.severities:
        known = ", ".join(sorted(mapping.severities))[:200]
        said = f"{ascii(value)[:80]} is mapped to no severity, only these are: {known}."
        raise Rejected(Refusal(Code.MAPPING_MISSING, said, f"labels.{label}"))
    return mapping.severities[value]


def _observed_at(alert: _Alert, received: Received) -> datetime:
    """Return when a firing began or, of a resolved alert, when it ended; while it fires `endsAt` is Go's zero time."""
    if alert.status == "firing":
        field, observed_at = "startsAt", alert.starts_at
    else:
        field, observed_at = "endsAt", _under("endsAt", lambda: read(_TIME, alert.ends_at))
    if (refusal := observed_in_future(observed_at, received.sent_at, field)) is not None:
        raise Rejected(refusal)
    return observed_at


def _under(field: str, value: Callable[[], T]) -> T:
    """Return the value, or raise its refusal naming the field it stands in."""
    try:
        return value()
    except Rejected as rejected:
        raise Rejected(replace(rejected.refusal, field=field)) from None


def _title(alert: _Alert, name: str) -> str:
    title = cleaned(alert.annotations.get("summary", ""), 512) or cleaned(name, 512)
    if not title:
        raise Rejected(
            Refusal(Code.INVALID_FIELD, "There is neither this label nor an annotation `summary`.", "labels.alertname")
        )
    return title


def _links(alert: _Alert) -> tuple[Link, ...]:
    """Return the alert's links that a browser may follow; others are left out, as nothing rests on them."""
    found = [("source", alert.generator_url)]
    found += [(rel, alert.annotations.get(annotation, "")) for rel, annotation in _LINKED_ANNOTATIONS]
    links = []
    for rel, href in found:
        try:
            links.append(read(_LINK, {"rel": rel, "href": href}))
        except Rejected:
            continue
    return tuple(links)


def _labels(alert: _Alert) -> Document:
    """Return the labels as one-line texts. Of names that differ in control characters only, the first one stands."""
    labels: Document = {}
    for name, value in sorted(alert.labels.items()):
        if plain := cleaned(name, len(name)):
            labels.setdefault(plain, cleaned(value, len(value)))
    return labels


def _tags(labels: Document, count: int) -> Document:
    """Return what metadata holds of the labels: all, or the shortest that fit, and how many of `count` do not."""
    if len(labels) == count and len(canonical_bytes(labels)) <= METADATA_BYTES_MAX:
        return labels
    kept: Document = {}
    size = len(canonical_bytes({LABELS_LEFT_OUT: count}))
    for more, name in sorted((len(canonical_bytes({name: labels[name]})) - 1, name) for name in labels):
        if name != LABELS_LEFT_OUT and size + more <= METADATA_BYTES_MAX:
            kept[name] = labels[name]
            size += more
    return kept | {LABELS_LEFT_OUT: count - len(kept)}
