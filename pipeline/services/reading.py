"""What the HTTP API reads: incidents as they are and as they were, their events, listings, receipts. Never writes.

Who may read is the registry's word: the operation is authorized before anything is read, the incident's service after. A
listing holds only what the reader may read. Rows are read consistently; only which rows a listing has comes from an index.
"""

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from pipeline.domain.authority import (
    AUDIT_OPERATION,
    READ_OPERATION,
    Claim,
    Grant,
    Registry,
    Sender,
    covers_service,
    grant,
    granting,
    known,
)
from pipeline.domain.candidates import KEY_KINDS
from pipeline.domain.canonical import Document
from pipeline.domain.envelope import IncidentEvent
from pipeline.domain.errors import Code, Refusal, Rejected
from pipeline.domain.ids import receipt_id
from pipeline.domain.incidents import Incident, evolve
from pipeline.domain.receipts import IdempotencyRecord
from pipeline.domain.rules import Rules
from pipeline.domain.transitions import AuthorityType, EventType, Transition, transitions_from
from pipeline.services.ports import IncidentStore, Listing, Page

# As many events as one answer folds; what is longer is read by `opx replay`, page by page.
FOLDED_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Step:
    """A transition that leaves an incident's state, the command that takes it, and whether the reader may send that."""

    row: Transition
    command: str
    may: bool


@dataclass(frozen=True, slots=True)
class EventsPage:
    """Stored events in order; `more` where there are further ones behind them."""

    events: tuple[Document, ...]
    more: bool


class ReadingService:
    """All reads of the HTTP API."""

    def __init__(self, store: IncidentStore, registry: Registry, rules: Rules) -> None:
        self.store = store
        self.registry = registry
        self.rules = rules

    async def incident(self, sender: Sender, incident_id: str) -> tuple[Incident, tuple[Step, ...]]:
        """Return an incident as it is now, and what may come next."""
        incident = await self._readable(sender, incident_id)
        return incident, tuple(self._step(sender, incident, row) for row in transitions_from(incident.state))

    async def as_of(self, sender: Sender, incident_id: str, version: int | None, at: datetime | None) -> Incident:
        """Return an incident as it was after event `version`, or at a time (what happened at that very time included)."""
        now = await self._readable(sender, incident_id)
        if version is not None and version > now.version:
            detail = f"There is no version {version} yet; the newest is {now.version}."
            raise Rejected(Refusal(Code.INVALID_FIELD, detail, "version", incident_id))
        then: Incident | None = None
        async for document in self.store.history(incident_id):
            event = IncidentEvent.from_document(document)
            if at is not None and event.timestamp > at:
                break
            if event.sequence > FOLDED_MAX:
                detail = f"More than {FOLDED_MAX} events would be read."
                raise Rejected(Refusal(Code.TOO_LARGE, detail, "version" if at is None else "at", incident_id))
            then = evolve(then, event)
            if event.sequence == version:
                break
        if then is None:
            detail = f"There was no incident {incident_id} yet."
            raise Rejected(Refusal(Code.INCIDENT_UNKNOWN, detail, "at", incident_id))
        return then

    async def events(self, sender: Sender, incident_id: str, after: int, limit: int) -> EventsPage:
        """Return up to `limit` events behind sequence `after`."""
        await self._readable(sender, incident_id)
        found: list[Document] = []
        async for document in self.store.history(incident_id, after, limit + 1):
            found.append(document)
        return EventsPage(tuple(found[:limit]), len(found) > limit)

    async def page(self, sender: Sender, listing: Listing) -> Page:
        """Return a page of what `sender` may read; it may hold less than asked for, and yet not be the last."""
        entries = granting(self.registry, sender, READ_OPERATION, listing.service)
        if isinstance(entries, Refusal):
            raise Rejected(entries)
        page = await self.store.page(listing)
        readable = (row for row in page.incidents if any(covers_service(entry, row.service) for entry in entries))
        return replace(page, incidents=tuple(readable))

    async def receipts(self, sender: Sender, key: str, principal: str | None) -> tuple[IdempotencyRecord, ...]:
        """Return what became of whatever was asked under `key`: several receipts where rules counted one message.

        A sender finds its own; another's only who may audit. Nothing tells a stranger's key from one that nobody used.
        """
        entries = known(self.registry, sender)
        if principal not in (None, sender.principal):
            entries = granting(self.registry, sender, AUDIT_OPERATION, None)
        if isinstance(entries, Refusal):
            raise Rejected(entries)
        whose = principal or sender.principal
        rules = [f"{pinned.rule.rule_id}.v{pinned.rule.version}" for pinned in self.rules.pinned.values()]
        kinds = [*KEY_KINDS, *(f"{kind}/{rule}" for kind in KEY_KINDS for rule in rules)]
        wanted = [receipt_id(whose, kind, key) for kind in kinds]
        found = await asyncio.gather(*(self.store.load_receipt(identity) for identity in wanted))
        return tuple(receipt for receipt in found if receipt is not None)

    # --- who may ---------------------------------------------------------------------------------------------------------

    async def _readable(self, sender: Sender, incident_id: str) -> Incident:
        self._check(sender, None)
        incident = await self.store.load(incident_id)
        if incident is None:
            detail = f"There is no incident {incident_id}."
            raise Rejected(Refusal(Code.INCIDENT_UNKNOWN, detail, "incidentId", incident_id))
        self._check(sender, incident.service)
        return incident

    def _check(self, sender: Sender, service: str | None) -> None:
        entries = granting(self.registry, sender, READ_OPERATION, service)
        if isinstance(entries, Refusal):
            raise Rejected(entries)

    def _step(self, sender: Sender, incident: Incident, row: Transition) -> Step:
        # The gate alone opens; a person can ask it to.
        opens = row.event_type is EventType.INCIDENT_OPENED
        command = "request-promotion" if opens else "change-state"
        kinds = (AuthorityType.HUMAN,) if opens else sorted(row.authorities)
        return Step(row, command, any(self._may(sender, kind, command, incident.service) for kind in kinds))

    def _may(self, sender: Sender, kind: AuthorityType, command: str, service: str) -> bool:
        # Whoever speaks for others may by naming one.
        claims = (Claim(authority_type=kind), Claim(authority_type=kind, actor_id="somebody"))
        return any(isinstance(grant(self.registry, sender, claim, command, service), Grant) for claim in claims)
