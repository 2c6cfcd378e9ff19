"""What `opx why` looks for: a key or a message's id as it was said, or the parts of messages and the keys of their receipts.

Keys are computed by the domain's own readers, the very ones that the doors use. Pure but for the lines that are handed in.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from pipeline.cli.messages import NEVER_SENT, SOMEBODY, Mappings
from pipeline.cli.outbox import Line, Unsendable
from pipeline.cli.rebase import rebased
from pipeline.domain.base import read
from pipeline.domain.candidates import Detection, Received, Signal
from pipeline.domain.canonical import Document, digest, parse_document
from pipeline.domain.commands import COMMAND, COMMAND_TYPES
from pipeline.domain.correlation import Span, span_of
from pipeline.domain.errors import Refusal, Rejected
from pipeline.domain.events import REPORTS_TROUBLE
from pipeline.domain.intake import read_intake
from pipeline.domain.rules import Rules
from pipeline.services.rejection import PROVEN

# Stands for the id of a message that was not told; no key is made of it.
_UNTOLD: Final = "untold"
# Where events of AWS's own services come in, the queue is the sender: of which kinds of keys.
_BY_QUEUE: Final[Mapping[str, str]] = {"cloudwatch": "alarms", "alertmanager": "alertmanager"}


@dataclass(frozen=True, slots=True)
class Asked:
    """One thing that is looked for. `key` is None where only its message's id, which was not told, or nothing names it.

    `names` are what a copy of it in a queue may be told by. `principals`: under whose receipts it may be besides the asker's
    own. `request_digest`, `spans` and `refusal` are known of a message that was given: of what request a receipt must be, in
    which windows it counts, and why a part of it can't be read.
    """

    key: str | None
    what: str
    names: frozenset[str]
    principals: tuple[str, ...] = ()
    kind: str | None = None
    number: int | None = None
    request_digest: str | None = None
    spans: tuple[Span, ...] = ()
    refusal: Refusal | str | None = None

    @property
    def needs_message_id(self) -> bool:
        """True where the message has no key of its own, and the id that the queue gave it was not said."""
        return self.key is None and self.refusal is None


def asked_as_said(text: str) -> Asked:
    """Return what is looked for where nothing is known but a key or a message's id."""
    return Asked(text, "", frozenset({text}), tuple(PROVEN[name].principal for name in _BY_QUEUE.values()))


def asked_by(
    lines: Iterable[Line | Unsendable], mappings: Mappings, rules: Rules, message_id: str | None, days: int = 0
) -> list[Asked]:
    """Return the parts of messages, in order. `message_id`: of a message that has no key of its own."""
    found: list[Asked] = []
    for line in lines:
        if isinstance(line, Unsendable):
            found.append(Asked(None, "no message", frozenset(), number=line.number, refusal=f"{line.why}."))
            continue
        body = rebased(line.body, days)
        try:
            document = parse_document(body)
        except Rejected as error:
            names = frozenset({body, *_said(message_id)})
            found.append(Asked(None, "no JSON object", names, number=line.number, refusal=error.refusal))
            continue
        found += _parts(line.number, body, document, mappings, rules, message_id)
    return found


def _parts(
    number: int, body: str, document: Document, mappings: Mappings, rules: Rules, message_id: str | None
) -> list[Asked]:
    names = frozenset({body, digest(document), *_said(message_id)})
    kind = document.get("type")
    try:
        if isinstance(kind, str) and kind in COMMAND_TYPES:
            command = read(COMMAND, document)
            key = command.idempotency_key or message_id
            of = "caller" if command.idempotency_key else "message"
            about = getattr(command, "incident_id", None) or getattr(command, "service", "")
            told = frozenset({*names, *_said(key)})
            return [Asked(key, f"{kind} {about}", told, kind=of, number=number, request_digest=digest(document))]
        received = Received(SOMEBODY, message_id or _UNTOLD, NEVER_SENT)
        intake = read_intake(document, received, mappings.alarms, mappings.alerts)
    except Rejected as error:
        own = document.get("idempotencyKey")
        told = frozenset({*names, own}) if isinstance(own, str) else names
        return [Asked(None, str(kind or "message"), told, number=number, refusal=error.refusal)]
    parts = [Asked(None, "a part of it", names, number=number, refusal=refusal) for refusal in intake.refusals]
    return parts + [_of_signal(number, signal, names, rules) for signal in intake.signals]


def _of_signal(number: int, signal: Signal, names: frozenset[str], rules: Rules) -> Asked:
    candidate, detection = signal.candidate, signal.detection
    key = None if signal.key.value == _UNTOLD else signal.key.value
    if candidate is not None:
        what = f"candidate {candidate.service}: {candidate.title}"
    else:
        what = "detection" if detection is None else f"detection {detection.service}: {detection.signal_type}"
    queue = _BY_QUEUE.get(signal.key.kind)
    return Asked(
        key,
        what,
        frozenset({*names, *_said(key)}),
        () if queue is None else (PROVEN[queue].principal,),
        signal.key.kind,
        number,
        signal.request_digest,
        _spans(detection, rules),
    )


def _spans(detection: Detection | None, rules: Rules) -> tuple[Span, ...]:
    """Return the windows in which rules in force count a detection; none where it doesn't say when it was seen."""
    if detection is None or detection.observed_at >= NEVER_SENT or detection.kind not in REPORTS_TROUBLE:
        return ()
    spans = (span_of(pinned, detection) for pinned in rules.matching(detection))
    return tuple(span for span in spans if not isinstance(span, Refusal))


def _said(text: str | None) -> tuple[str, ...]:
    return () if text is None else (text,)


def names_of(body: str, message_id: str) -> frozenset[str]:
    """Return what a copy in a queue is told by: its first message's id, its body, and the keys that stand in that."""
    names = {body, message_id}
    try:
        document = parse_document(body)
    except Rejected:
        return frozenset(names)
    own = document.get("id" if "detail-type" in document else "idempotencyKey")
    return frozenset(names | {digest(document)} | ({own} if isinstance(own, str) else set()))
