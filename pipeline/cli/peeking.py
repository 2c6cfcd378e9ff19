"""Looks into queues that nobody works off (the rejected, the dead, the fan-out's failures) and leaves everything there.

What was looked at is given back at once where the caller may do that; else it is hidden for a few seconds. Queues that opx
works off are never looked into: that would hide their messages from it, and count as a try. Of those only depths are told.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from pipeline.cli.counting import DEAD, INTAKE, Depth, depths, url_of
from pipeline.cli.operating import explanation_of
from pipeline.cli.session import Session
from pipeline.domain.canonical import Document, parse_document
from pipeline.domain.errors import Rejected, Unavailable
from pipeline.stores.clients import translated

WITHIN_S: Final = 15.0
# Long enough to read the most that is read at once without seeing one twice.
HIDDEN_S: Final = 15
READ_MAX: Final = 1000
# Depths are approximate, and others may hold messages: after so many looks at nothing there is nothing to see.
EMPTY_MAX: Final = 3
_BATCH: Final = 10


@dataclass(frozen=True, slots=True)
class Copy:
    """A message in a queue, and as SQS gave it. `explanation` is what opx says beside a rejected one."""

    queue: str
    message_id: str
    body: str
    explanation: Document
    raw: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Look:
    """What a look into a queue showed: `seen` of about `depth` messages. `unread` says why it could not be looked into."""

    queue: str
    copies: tuple[Copy, ...] = ()
    seen: int = 0
    depth: int = 0
    unread: str | None = None

    @property
    def is_whole(self) -> bool:
        return self.unread is None and self.seen >= self.depth

    @property
    def is_hidden(self) -> bool:
        """True where messages lie there, and none showed itself: somebody holds them."""
        return self.unread is None and self.depth > 0 and not self.seen

    def doubt(self) -> str | None:
        """Return what this look can't tell, or None where it saw everything."""
        if self.unread is not None:
            return f"the queue {self.queue} can't be looked into: {self.unread}"
        return None if self.is_whole else f"only {self.seen} of {self.depth} messages in {self.queue} could be looked at"


class Queues:
    """The queues of a target."""

    def __init__(self, session: Session) -> None:
        self.session = session

    async def waiting(self) -> dict[str, Depth] | str:
        """Return how many messages wait in the intake queues, or why that can't be told."""
        try:
            return await depths(self.session, INTAKE)
        except Unavailable as error:
            return str(error)

    async def look(self, queue: str, is_it: Callable[[Copy], bool], *, first: bool = False) -> Look:
        """Return the messages of a queue that are looked for; with `first` no further than to the first of them."""
        seen: dict[str, Copy] = {}
        handles: dict[str, str] = {}
        depth = empty = 0
        try:
            depth = (await depths(self.session, (queue,)))[queue].total
            deadline = time.monotonic() + WITHIN_S
            while len(seen) < min(depth, READ_MAX) and empty < EMPTY_MAX and time.monotonic() < deadline:
                messages = await self._receive(queue)
                empty = 0 if messages else empty + 1
                handles |= {message["MessageId"]: message["ReceiptHandle"] for message in messages}
                seen |= {message["MessageId"]: _copy(queue, message) for message in messages}
                if first and any(is_it(copy) for copy in seen.values()):
                    depth = len(seen)
        except Unavailable as error:
            return Look(queue, depth=depth, unread=str(error))
        finally:
            await give_back(self.session, queue, list(handles.values()))
        return Look(queue, tuple(copy for copy in seen.values() if is_it(copy)), len(seen), depth)

    async def dead(self, is_it: Callable[[Copy], bool]) -> list[Look]:
        """Look into the dead-letter queues, one after the other, up to the first that holds it."""
        found: list[Look] = []
        for queue in DEAD:
            found.append(await self.look(queue, is_it, first=True))
            if found[-1].copies:
                break
        return found

    async def _receive(self, queue: str) -> list[Any]:
        with translated(f"looking into the queue {queue}"):
            answer = await self.session.clients.sqs.receive_message(
                QueueUrl=url_of(self.session, queue),
                MaxNumberOfMessages=_BATCH,
                WaitTimeSeconds=1,
                VisibilityTimeout=HIDDEN_S,
                AttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
        return list(answer.get("Messages", ()))


async def give_back(session: Session, queue: str, handles: list[str]) -> None:
    """Make what was looked at visible to others again, at once where the caller may do that."""
    for start in range(0, len(handles), _BATCH):
        entries: list[dict[str, Any]] = [
            {"Id": str(index), "ReceiptHandle": handle, "VisibilityTimeout": 0}
            for index, handle in enumerate(handles[start : start + _BATCH])
        ]
        # Whoever may look need not be allowed to do this; then they show again when they would by themselves.
        with suppress(Unavailable), translated("giving back what was looked at"):
            await session.clients.sqs.change_message_visibility_batch(QueueUrl=url_of(session, queue), Entries=entries)


def _copy(queue: str, message: Any) -> Copy:
    return Copy(queue, message["MessageId"], message["Body"], explanation_of(message), message)


# --- the fan-out's failures ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Unpublished:
    """What the fan-out's failure queue says of events: why one never goes out; and what is unsure about that."""

    reasons: dict[tuple[str, int], str]
    unnamed: int = 0
    doubt: str | None = None

    def fate(self, incident_id: str, sequence: int) -> str:
        """Return what is known of an event's publication: only what failed leaves a trace."""
        failed = self.reasons.get((incident_id, sequence))
        if failed is not None:
            return f"FAILED: {failed}"
        return "not among the failed" if self.doubt is None else "not known"


async def unpublished(queues: Queues) -> Unpublished:
    """Read the fan-out's failure queue, and leave it as it is."""
    look = await queues.look("fanout-failures", lambda copy: True)
    reasons: dict[tuple[str, int], str] = {}
    unnamed = 0
    for copy in look.copies:
        try:
            told = parse_document(copy.body)
        except Rejected:
            told = {}
        incident, sequence = told.get("incidentId"), told.get("sequence")
        if isinstance(incident, str) and isinstance(sequence, int):
            reasons[incident, sequence] = ": ".join(str(told[name]) for name in ("error", "detail") if name in told)
        else:
            # A batch that the stream gave up on names its records, not their events.
            unnamed += 1
    return Unpublished(reasons, unnamed, look.doubt())
