"""Which form a message on an intake queue has, told by its shape; the form's own reader does the rest. Pure and total.

Our own forms carry a `type`; a CloudWatch event carries `detail-type`, an Alertmanager notification `version` and
`groupKey`.
"""

from pipeline.domain.alertmanager import OWN_WORDS, AlertMapping, is_notification, read_notification
from pipeline.domain.candidates import Intake, Received, Signal, observed_in_future, read_candidate, read_detection
from pipeline.domain.canonical import Document
from pipeline.domain.cloudwatch import AlarmMapping, read_alarm
from pipeline.domain.commands import COMMAND_TYPES
from pipeline.domain.errors import Code, Refusal, Rejected


def read_intake(
    document: Document,
    received: Received,
    mappings: tuple[AlarmMapping, ...] = (),
    alert_mapping: AlertMapping = OWN_WORDS,
) -> Intake:
    """Return what a message reports; raise `Rejected` naming the field that is wrong where none of it can be read."""
    intake = _read(document, received, mappings, alert_mapping)
    good: list[Signal] = []
    refusals = list(intake.refusals)
    for signal in intake.signals:
        seen = signal.candidate.observation if signal.candidate is not None else signal.detection
        refusal = observed_in_future(seen.observed_at, received.sent_at) if seen is not None else None
        if refusal is None:
            good.append(signal)
        else:
            refusals.append(refusal)
    if not good and refusals:
        raise Rejected(refusals[0])
    return Intake(tuple(good), intake.claim, tuple(refusals))


def _read(document: Document, received: Received, mappings: tuple[AlarmMapping, ...], alert_mapping: AlertMapping) -> Intake:
    if "detail-type" in document:
        return read_alarm(document, received, mappings)
    if is_notification(document):
        return read_notification(document, received, alert_mapping)
    kind = document.get("type")
    if kind == "candidate":
        return read_candidate(document, received)
    if kind == "detection":
        return read_detection(document, received)
    hint = " It belongs on the commands queue." if isinstance(kind, str) and kind in COMMAND_TYPES else ""
    raise Rejected(Refusal(Code.UNKNOWN_TYPE, f"The `type` is missing or not known on this queue.{hint}", "type"))
