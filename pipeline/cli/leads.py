"""How to ask after messages that were just sent: which `opx why` leads to what became of each.

SQS's id names a message that has nothing else; one with a key of its own, or a native alarm, has its receipt under that.
"""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.cli.asked import Asked, asked_by
from pipeline.cli.messages import Mappings
from pipeline.cli.outbox import Line, Queue
from pipeline.cli.sending import Acknowledged
from pipeline.domain.rules import NO_RULES

_NATIVE = (Queue.ALARMS, Queue.ALERTMANAGER)


@dataclass(frozen=True, slots=True)
class Source:
    """Where messages came from and went to. `file`: None where it can't be read again; `days`: by how many it was moved."""

    queue: Queue
    file: str | None = None
    days: int = 0


def leads(sent: Iterable[Acknowledged], source: Source, mappings: Mappings, opx: str) -> list[str]:
    """Return the commands that ask after them: the first by an id or a key, and the one by the file; each where it helps."""
    found = [_lead(one, source, mappings) for one in sent]
    by_name = [f"{opx} why {shlex.quote(name)}" for name in found if name is not None]
    by_file = [_by_file(source, opx)] if None in found else []
    return by_name[:1] + by_file


def _lead(one: Acknowledged, source: Source, mappings: Mappings) -> str | None:
    """Return the id or key under which a message is found; None where its file is what to ask with."""
    parts = asked_by([Line(one.number, one.body)], mappings, NO_RULES, one.message_id)
    if source.queue not in _NATIVE:
        if any(part.key is None for part in parts):
            # Refused as it is written: its copy is known by the id.
            return one.message_id
        if any(part.kind == "caller" or part.key == one.message_id for part in parts):
            return parts[0].key
    return None if source.file is not None else _key_of(parts, one)


def _key_of(parts: Sequence[Asked], one: Acknowledged) -> str:
    return next((part.key for part in parts if part.key is not None), one.message_id)


def _by_file(source: Source, opx: str) -> str:
    moved = f" --moved-by {source.days}" if source.days else ""
    return f"{opx} why --message {shlex.quote(str(source.file))}{moved}"
