"""A subscriber as a Lambda function: your function gets each event in order; a queue gets told what must come again.

    @subscriber(progress=TableProgress("pager-progress"), history=Operator(api_url))
    def handler(event: Event) -> None: ...

Behind an SQS queue (a rule's target) it answers partial batches: turn `ReportBatchItemFailures` on. Nothing is held back
in memory: what can't be handled yet goes back to its queue. That an event was handled is stored after the function
returned: a crash in between hands it over again. Two environments at once may both hand one over, and the slower one then
behind a later event: tell repetitions by `event_id`.
Without a `history` the rule must let every event through from each incident's first on, or a gap never closes.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from pipeline.clients.answers import Event
from pipeline.clients.ordering import Gap, History, Ordered
from pipeline.clients.progress import Progress
from pipeline.domain.envelope import SOURCE
from pipeline.domain.errors import OpxError

__all__ = ["Behind", "Event", "NotAnEvent", "Subscriber", "read_event", "subscriber"]

_log: Final = logging.getLogger("opx.subscriber")

Handle = Callable[[Event], object]


class NotAnEvent(OpxError):
    """A message that is no event of opx, or of a form that is not known here."""


class Behind(OpxError):
    """An event could not be handled yet: it has to come again."""

    def __init__(self, event: Event, gaps: Sequence[Gap]) -> None:
        missing = ", ".join(f"{gap.first}-{gap.last}" for gap in gaps)
        why = f"{missing} missing" if missing else "its handler failed"
        super().__init__(f"{event.incident_id}: event {event.sequence} is still to be handled ({why})")
        self.event = event


def read_event(message: Any) -> Event:
    """Read an event from what delivers it: an EventBridge envelope, an SQS message or body that holds one, or the detail.

    Fields that are not known are ignored, an event of a newer schema is read as far as it is the same (`schema_known`).
    Raises `NotAnEvent`.
    """
    document = _object(message)
    for name in ("body", "Body"):
        if isinstance(document.get(name), str):
            document = _object(document[name])
    if "detail-type" in document:
        if document.get("source") != SOURCE:
            raise NotAnEvent(f"not from {SOURCE}: {str(document.get('source'))[:80]!r}")
        document = _object(document.get("detail"))
    try:
        event = Event.of(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise NotAnEvent(f"{where}: {first['msg']} (schemaVersion {document.get('schemaVersion')})") from None
    if not event.schema_known:
        _log.warning("%s: event %d has the newer schema %d", event.incident_id, event.sequence, event.schema_version)
    return event


class Subscriber:
    """Calls `handle` for the events of each incident in order, each until it returned once; callable as a Lambda handler.

    `history`: where missing events are read (an `Operator`): those before the subscription began, and all of an incident
    that `progress` forgot. Without it they are waited for, so a `progress` that forgets is refused (`ValueError`).
    `alone`: what of `handle`'s errors concerns one incident only, so that others go on; any other error fails the whole
    invocation, and all comes again.
    """

    def __init__(
        self,
        handle: Handle,
        progress: Progress,
        history: History | None = None,
        alone: tuple[type[Exception], ...] = (Exception,),
    ) -> None:
        if history is None and getattr(progress, "forgets", False):
            raise ValueError(
                f"{type(progress).__name__} forgets with its process, and what was handled is delivered no more: "
                "later events would wait for good. Say progress=TableProgress(table), or history=Operator(api_url), which "
                "hands all over again."
            )
        self.handle = handle
        self._progress = progress
        self._history = history
        self._alone = alone

    def __call__(self, message: Mapping[str, Any], context: object = None) -> dict[str, Any] | None:
        """Handle what Lambda was invoked with: a queue's batch (answers which messages must come again) or one event.

        One event that can't be handled yet raises, so that Lambda tries it again.
        """
        if "Records" in message:
            return {"batchItemFailures": [{"itemIdentifier": name} for name in self.batch(message["Records"])]}
        event = read_event(message)
        ordered = self._handled([event])
        if not self._is_done(event):
            raise Behind(event, ordered.gaps(event.incident_id))
        return None

    def batch(self, records: Sequence[Mapping[str, Any]]) -> list[str]:
        """Handle a batch of SQS records; return the ids of those that must come again."""
        events: dict[str, Event] = {}
        failed: list[str] = []
        for record in records:
            if "messageId" not in record:
                raise NotAnEvent("records of another source than SQS")
            try:
                events[record["messageId"]] = read_event(record)
            except NotAnEvent as error:
                # It will not get better: the queue's own dead-letter queue is where it is found.
                _log.error("message %s: %s", record["messageId"], error)
                failed.append(record["messageId"])
        self._handled(list(events.values()))
        return failed + [name for name, event in events.items() if not self._is_done(event)]

    def _is_done(self, event: Event) -> bool:
        return event.sequence <= self._progress.position(event.incident_id)

    def _handled(self, events: Sequence[Event]) -> Ordered:
        """Handle what can be handled of `events`, incident by incident; return what is held back."""
        ordered = Ordered(self._progress, held_max_each=len(events), held_max=len(events))
        for event in events:
            ordered.offer(event)
        for incident in dict.fromkeys(event.incident_id for event in events):
            try:
                self._handle_one(ordered, incident)
            except self._alone:
                _log.exception("%s: not handled, it comes again", incident)
        return ordered

    def _handle_one(self, ordered: Ordered, incident: str) -> None:
        for event in ordered.drain(incident):
            self.handle(event)
        for gap in ordered.gaps(incident):
            if self._history is None:
                _log.info("%s: waiting for %d-%d", incident, gap.first, gap.last)
                return
            for event in ordered.fill(gap, self._history):
                self.handle(event)


def subscriber(
    *,
    progress: Progress,
    history: History | None = None,
    alone: tuple[type[Exception], ...] = (Exception,),
) -> Callable[[Handle], Subscriber]:
    """Turn a function of one event into a Lambda handler. See `Subscriber`."""

    def wrap(handle: Handle) -> Subscriber:
        return Subscriber(handle, progress, history, alone)

    return wrap


def _object(value: Any) -> dict[str, Any]:
    try:
        found = json.loads(value) if isinstance(value, str | bytes) else value
    except ValueError:
        raise NotAnEvent("not JSON") from None
    if not isinstance(found, Mapping):
        raise NotAnEvent("not a JSON object")
    return dict(found)
