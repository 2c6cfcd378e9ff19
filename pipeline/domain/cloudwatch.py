"""CloudWatch alarms, metric and composite, as candidates and detections. Pure and total: a signal or a refusal.

Service and severity come from the alarm's own description or from a shipped pattern, and are never guessed. What is not
needed of the event is not looked at.
"""

import re
from datetime import datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Annotated, Final, Literal

from pydantic import Field, TypeAdapter

from pipeline.domain.base import Line, Model, Native, Service, cleaned, read
from pipeline.domain.candidates import Candidate, Detection, Intake, Key, Received, Signal, age_s, observed_in_future
from pipeline.domain.canonical import Document, digest, parse_document, parse_time
from pipeline.domain.errors import Code, Refusal, Rejected
from pipeline.domain.events import Evidence, Observation, ObservationKind
from pipeline.domain.promotion import LaxSeverity

SIGNAL_TYPE: Final = "cloudwatch-alarm"


class AlarmMapping(Model):
    """Service and severity of the alarms whose name matches a pattern (`*` and `?`)."""

    alarm_name: Line
    service: Service
    severity: LaxSeverity


class _AlarmState(Native):
    """`actionsSuppressedBy`: a composite alarm's suppressor, or the time it waits for that one, holds its actions back."""

    value: Literal["ALARM", "OK", "INSUFFICIENT_DATA"]
    timestamp: str | None = None
    reason: str = ""
    actions_suppressed_by: str = ""


class _AlarmConfiguration(Native):
    description: str | None = None


class _AlarmDetail(Native):
    alarm_name: Line
    state: _AlarmState
    configuration: _AlarmConfiguration = _AlarmConfiguration()


class _AlarmEvent(Native):
    id: Annotated[Line, Field(max_length=128)]
    time: str
    account: Annotated[str, Field(pattern=r"^[0-9A-Za-z-]{0,32}$")] = ""
    region: Annotated[str, Field(pattern=r"^[0-9A-Za-z-]{0,32}$")] = ""
    detail: _AlarmDetail


class _InDescription(Native):
    service: Service
    severity: LaxSeverity


_ALARM: Final = TypeAdapter(_AlarmEvent)
_IN_DESCRIPTION: Final = TypeAdapter(_InDescription)
_ALARM_DETAIL_TYPE: Final = "CloudWatch Alarm State Change"
_OBSERVED: Final = {
    "ALARM": ObservationKind.FIRING,
    "OK": ObservationKind.RECOVERY,
    "INSUFFICIENT_DATA": ObservationKind.NO_DATA,
}


def read_alarm(document: Document, received: Received, mappings: tuple[AlarmMapping, ...]) -> Intake:
    """Return the signal in an alarm's state change; raise `Rejected` naming the field that is wrong."""
    if document["detail-type"] != _ALARM_DETAIL_TYPE:
        raise Rejected(Refusal(Code.UNKNOWN_TYPE, "Only CloudWatch alarm state changes are read.", "detail-type"))
    event = read(_ALARM, document)
    name = event.detail.alarm_name
    named = _mapping(event.detail, mappings)
    observed_at = _alarm_time(event, received)
    suppressed_by = cleaned(event.detail.state.actions_suppressed_by, 256)
    kind = _OBSERVED[event.detail.state.value]
    source, old = f"cloudwatch:{name}"[:256], age_s(received.sent_at, observed_at)
    note = event.detail.state.value + (f", actions suppressed by {suppressed_by}" if suppressed_by else "")
    candidate = Candidate(
        service=named.service,
        dedup_key=_alarm_key(event),
        severity=named.severity,
        title=name,
        description=cleaned(event.detail.state.reason, 4096),
        observation=Observation(kind=kind, source=source, observed_at=observed_at, confidence=Decimal(1), age_s=old or None),
        evidence=(Evidence(kind=SIGNAL_TYPE, ref=event.id, observed_at=observed_at, note=note),),
    )
    detection = Detection(
        id=event.id,
        service=named.service,
        source=source,
        signal_type=SIGNAL_TYPE,
        severity=named.severity,
        observed_at=observed_at,
        age_s=old,
        kind=kind,
        dedup_key=candidate.dedup_key,
        attributes={"account": event.account, "region": event.region, "alarmName": name}
        | ({"actionsSuppressedBy": suppressed_by} if suppressed_by else {}),
    )
    return Intake((Signal(Key("cloudwatch", event.id), digest(document), candidate, detection),))


def _mapping(detail: _AlarmDetail, mappings: tuple[AlarmMapping, ...]) -> _InDescription | AlarmMapping:
    try:
        return read(_IN_DESCRIPTION, parse_document(detail.configuration.description or ""))
    except Rejected as unread:
        if (mapping := mapped(detail.alarm_name, mappings)) is not None:
            return mapping
        where = "detail.configuration.description"
        raise Rejected(
            Refusal(Code.MAPPING_MISSING, f"No service and severity can be read ({unread.refusal.detail})", where)
        ) from None


def mapped(alarm_name: str, mappings: tuple[AlarmMapping, ...]) -> AlarmMapping | None:
    """Return the first mapping whose pattern an alarm's name matches."""
    return next((mapping for mapping in mappings if fnmatchcase(alarm_name, mapping.alarm_name)), None)


def _alarm_time(event: _AlarmEvent, received: Received) -> datetime:
    # CloudWatch writes the state's time with an offset of four digits, the event's own in RFC 3339.
    stamp = event.detail.state.timestamp
    text = re.sub(r"([+-]\d\d)(\d\d)$", r"\1:\2", stamp) if stamp else event.time
    field = "detail.state.timestamp" if stamp else "time"
    try:
        observed_at = parse_time(text)
    except ValueError as error:
        raise Rejected(Refusal(Code.INVALID_FIELD, f"{error}.", field)) from None
    if (refusal := observed_in_future(observed_at, received.sent_at, field)) is not None:
        raise Rejected(refusal)
    return observed_at


def _alarm_key(event: _AlarmEvent) -> str:
    key = f"cloudwatch:{event.account}:{event.region}:{event.detail.alarm_name}"
    if len(key.encode()) > 512:
        key = "cloudwatch:" + digest([event.account, event.region, event.detail.alarm_name])
    return key
