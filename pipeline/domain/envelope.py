"""The one shape of an event: on disk, on the bus, in an export. A field added here appears everywhere, and nowhere else.

An event's item in the table *is* its document; its hash covers every attribute as stored except `hash` itself, and chains to
the event before it. What the fact inside means is in `events`; old schema versions are raised by `upcast`.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Self

from pydantic import Field, TypeAdapter

from pipeline.domain.authority import AuthorityContext
from pipeline.domain.base import Digest, Model, Sequence, Time, Uuid, read
from pipeline.domain.canonical import Document, canonical_bytes, digest
from pipeline.domain.errors import Code, Refusal, Rejected
from pipeline.domain.events import FACT, Fact
from pipeline.domain.ids import event_id
from pipeline.domain.transitions import State

SCHEMA_VERSION: Final = 1
GENESIS_HASH: Final = "0" * 64
SOURCE: Final = "opx.incidents"


class IncidentEvent(Model):
    """One stored event. `sequence` runs 1..n without gaps; `timestamp` never runs backwards within an incident."""

    incident_id: Uuid
    sequence: Sequence
    event_id: Uuid
    timestamp: Time
    # Only where the deciding host's clock was behind the history, so that `timestamp` is the previous event's.
    decided_at: Time | None = None
    actor: AuthorityContext
    previous_state: Annotated[State, Field(strict=False)]
    new_state: Annotated[State, Field(strict=False)]
    schema_version: Annotated[int, Field(ge=1, le=SCHEMA_VERSION)] = SCHEMA_VERSION
    previous_hash: Digest
    hash: Digest
    # On the wire the fact's two fields, eventType and metadata, stand beside these.
    fact: Annotated[Fact, Field(exclude=True)]

    def to_document(self) -> Document:
        """Return the event as stored and published."""
        return super().to_document() | self.fact.to_document()

    @classmethod
    def from_document(cls, document: Document) -> Self:
        """Read a stored event of any schema version; raise `Rejected` where it is not one."""
        raised = upcast(document)
        fact = read(FACT, {name: raised[name] for name in ("eventType", "metadata") if name in raised})
        rest = {name: value for name, value in raised.items() if name not in ("eventType", "metadata")}
        found: Self = read(_adapter(cls), rest | {"fact": fact})
        return found


def _adapter(model: type[Any]) -> TypeAdapter[Any]:
    found = _ADAPTERS.get(model)
    if found is None:
        found = _ADAPTERS[model] = TypeAdapter(model)
    return found


_ADAPTERS: Final[dict[type[Any], TypeAdapter[Any]]] = {}


def upcast(document: Document) -> Document:
    """Raise a stored document to today's schema version. There is one version so far; a future one is refused."""
    version = document.get("schemaVersion")
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= SCHEMA_VERSION:
        raise Rejected(
            Refusal(Code.UNSUPPORTED_SCHEMA_VERSION, f"Schema version {version!r} is not known.", "schemaVersion")
        )
    return document


def event_hash(document: Document) -> str:
    """Return the hash a stored event must carry: over its attributes as stored, minus `hash`, before any upcasting."""
    return digest({name: value for name, value in document.items() if name != "hash"})


def detail_of(document: Document, *, replayed: bool = False) -> str:
    """Return the bus's detail for a stored event: the document itself as canonical JSON, marked where it is sent again."""
    published = document | {"replayed": True} if replayed else document
    return canonical_bytes(published).decode()


@dataclass(frozen=True, slots=True)
class Change:
    """One step a decision takes: a fact, by whom, and the state it leads to."""

    fact: Fact
    actor: AuthorityContext
    new_state: State


@dataclass(frozen=True, slots=True)
class Tip:
    """The end of an incident's history so far: what the next event chains to."""

    sequence: int
    hash: str
    state: State
    timestamp: datetime | None


def seal(change: Change, incident: str, tip: Tip, now: datetime) -> IncidentEvent:
    """Turn a change into the incident's next event: number, time (never before the previous one's), id and hash."""
    timestamp = now if tip.timestamp is None else max(now, tip.timestamp)
    sequence = tip.sequence + 1
    event = IncidentEvent(
        incident_id=incident,
        sequence=sequence,
        event_id=event_id(incident, sequence),
        timestamp=timestamp,
        decided_at=now if now < timestamp else None,
        actor=change.actor,
        previous_state=tip.state,
        new_state=change.new_state,
        previous_hash=tip.hash,
        hash=GENESIS_HASH,
        fact=change.fact,
    )
    return event.model_copy(update={"hash": event_hash(event.to_document())})


def size_of(event: IncidentEvent) -> int:
    """Return the event's size in bytes as canonical JSON."""
    return len(canonical_bytes(event.to_document()))
