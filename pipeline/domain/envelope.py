"""The one shape of an event: on disk, on the bus, in an export. A field added here appears everywhere, and nowhere else.

An event's item in the table *is* its document; its hash covers every attribute as stored except `hash` itself, and chains to
the event before it. What the fact inside means is in `events`. Every schema version ever stored is read, by way of `STEPS`;
which one is written is the deployment's to say, and never newer than what is read.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Self, TypeVar

from pydantic import Field, TypeAdapter

from pipeline.domain.authority import AuthorityContext
from pipeline.domain.base import Digest, Model, Sequence, Time, Uuid, read
from pipeline.domain.canonical import Document, canonical_bytes, digest
from pipeline.domain.errors import Code, Corrupt, Refusal, Rejected, Unavailable
from pipeline.domain.events import FACT, Fact
from pipeline.domain.ids import event_id
from pipeline.domain.transitions import State

GENESIS_HASH: Final = "0" * 64
SOURCE: Final = "opx.incidents"
M = TypeVar("M")


# --- schema versions -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """What leads from one schema version to the next. Pure; neither touches `schemaVersion`.

    `up` makes an older document what newer code reads. `down` writes as the older version what newer code made, without what
    that has no word for; it undoes `up`: `down(up(document)) == document` for everything ever stored.
    """

    up: Callable[[Document], Document]
    down: Callable[[Document], Document]


# From version 1 to 2, from 2 to 3, and so on: there is one version so far. Before another is made, read "Another version of
# what is stored" in ARCHITECTURE.md.
STEPS: Final[tuple[Step, ...]] = ()
# The newest version that this code reads, and the newest that it may be told to write.
SCHEMA_VERSION: Final = len(STEPS) + 1


def upcast(document: Document, steps: tuple[Step, ...] = STEPS) -> Document:
    """Raise a stored document to the newest version. Raises `Rejected` for a version that is not known here."""
    version = document.get("schemaVersion")
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= len(steps) + 1:
        raise Rejected(
            Refusal(Code.UNSUPPORTED_SCHEMA_VERSION, f"Schema version {version!r} is not known.", "schemaVersion")
        )
    for step in steps[version - 1 :]:
        document = step.up(document)
    return document


def downcast(document: Document, version: int, steps: tuple[Step, ...] = STEPS) -> Document:
    """Return a document of the newest version as `version` writes it."""
    for step in reversed(steps[version - 1 :]):
        document = step.down(document)
    return document


def check_readable(document: Document, kind: str, readable: int = SCHEMA_VERSION) -> None:
    """Raise `Unavailable` where newer code than this wrote the document: it is right, and for others to work on.

    A row says its version only where that is not 1. Whatever this code was about to do comes again later.
    """
    version = document.get("schemaVersion", 1)
    if isinstance(version, int) and version > readable:
        raise Unavailable(
            f"a stored {kind} is of schema version {version}; this code reads up to {readable}: run newer code"
        )


def read_stored(adapter: TypeAdapter[M], document: Document, kind: str) -> M:
    """Read a row of our own. Raises `Unavailable` where newer code wrote it, `Corrupt` where it is none."""
    check_readable(document, kind)
    try:
        return read(adapter, document)
    except Rejected as error:
        identity = document.get("incidentId")
        raise Corrupt(f"a stored {kind} cannot be read: {error}", identity if isinstance(identity, str) else None) from error


# --- the event -------------------------------------------------------------------------------------------------------


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
    # As it is stored, whatever newer form the code works with.
    schema_version: Annotated[int, Field(ge=1, le=SCHEMA_VERSION)] = SCHEMA_VERSION
    previous_hash: Digest
    hash: Digest
    # On the wire the fact's two fields, eventType and metadata, stand beside these.
    fact: Annotated[Fact, Field(exclude=True)]

    def to_document(self) -> Document:
        """Return the event as stored and published, in the version that it names."""
        return downcast(super().to_document() | self.fact.to_document(), self.schema_version)

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


def read_stored_event(document: Document) -> IncidentEvent:
    """Read an event of our own table. Raises `Unavailable` where newer code wrote it, `Corrupt` where it is none."""
    check_readable(document, "event")
    try:
        return IncidentEvent.from_document(document)
    except Rejected as error:
        identity = document.get("incidentId")
        raise Corrupt(f"a stored event cannot be read: {error}", identity if isinstance(identity, str) else None) from error


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


def seal(change: Change, incident: str, tip: Tip, now: datetime, version: int = SCHEMA_VERSION) -> IncidentEvent:
    """Turn a change into the incident's next event: number, time (never before the previous one's), id and hash.

    `version`: to be written as. The event says no more than what is stored of it, so that folding it and reading it again
    come to the same.
    """
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
        schema_version=version,
        previous_hash=tip.hash,
        hash=GENESIS_HASH,
        fact=change.fact,
    )
    document = event.to_document()
    sealed = {"hash": event_hash(document)}
    if version == SCHEMA_VERSION:
        return event.model_copy(update=sealed)
    return IncidentEvent.from_document(document | sealed)


def size_of(event: IncidentEvent) -> int:
    """Return the event's size in bytes as canonical JSON."""
    return len(canonical_bytes(event.to_document()))
