"""What the HTTP API reads: incidents as they are and as they were, their events, listings, receipts. Never writes.

Who may read is the registry's word: the operation is authorized before anything is read, the incident's service after. A
listing holds only what the reader may read. Rows are read consistently; only which rows a listing has comes from an index.
"""

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from pipeline.domain.authority import (
    AUDIT_OPERATION,
    CANDIDATE_OPERATION,
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
from pipeline.domain.envelope import read_stored_event
from pipeline.domain.errors import Code, Refusal, Rejected
from pipeline.domain.ids import receipt_id
from pipeline.domain.incidents import Incident, evolve
from pipeline.domain.receipts import IdempotencyRecord
from pipeline.domain.rules import Rules
from pipeline.domain.transitions import AuthorityType, EventType, State, Transition, transitions_from
from pipeline.services.ports import IncidentStore, Listing, Page, Position, position

# As many events as one answer folds.
FOLDED_MAX: Final = 10_000
NO_ID: Final = str(UUID(int=0))


@dataclass(frozen=True, slots=True)
class Step:
    """What may come next: the state it leads to, the command for it, who may send that and whether for a reason.

    The gate alone opens: there the command is a person's request for it. `may`: whether the reader may.
    """

    target: State
    command: str
    authorities: frozenset[AuthorityType]
    needs_reason: bool
    may: bool = False


def steps_from(state: State) -> tuple[Step, ...]:
    """Return what may come next in a state, by the table."""
    return tuple(_step(row) for row in transitions_from(state))


def _step(row: Transition) -> Step:
    if row.event_type is EventType.INCIDENT_OPENED:
        return Step(row.target, "request-promotion", frozenset({AuthorityType.HUMAN}), needs_reason=True)
    return Step(row.target, "change-state", row.authorities, row.needs_reason)


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
        steps = steps_from(incident.state)
        return incident, tuple(replace(step, may=self._may_take(sender, step, incident.service)) for step in steps)

    async def as_of(self, sender: Sender, incident_id: str, version: int | None, at: datetime | None) -> Incident:
        """Return an incident as it was after event `version`, or at a time (what happened at that very time included)."""
        now = await self._readable(sender, incident_id)
        if version is not None and version > now.version:
            detail = f"There is no version {version} yet; the newest is {now.version}."
            raise Rejected(Refusal(Code.INVALID_FIELD, detail, "version", incident_id))
        if version is not None and version > FOLDED_MAX:
            raise _too_long("version", incident_id)
        then: Incident | None = None
        async for document in self.store.history(incident_id, 0, version or FOLDED_MAX + 1):
            event = read_stored_event(document)
            if at is not None and event.timestamp > at:
                break
            if event.sequence > FOLDED_MAX:
                raise _too_long("at", incident_id)
            then = evolve(then, event)
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
        readable = tuple(row for row in page.incidents if any(covers_service(entry, row.service) for entry in entries))
        if len(readable) == len(page.incidents):
            return page
        return Page(readable, _behind(page, readable))

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
        found = await self._receipts([receipt_id(whose, kind, key) for kind in KEY_KINDS])
        counts = whose != sender.principal or any(CANDIDATE_OPERATION in entry.operations for entry in entries)
        if not found and counts:
            # What rules counted has a receipt for each; only who reports can have any.
            rules = [f"{pinned.rule.rule_id}.v{pinned.rule.version}" for pinned in self.rules.pinned.values()]
            found = await self._receipts([receipt_id(whose, f"{kind}/{rule}", key) for kind in KEY_KINDS for rule in rules])
        return found

    async def _receipts(self, identities: list[str]) -> tuple[IdempotencyRecord, ...]:
        # All are waited for, whatever one of them meets: nothing may go on in the next invocation.
        found = await asyncio.gather(*(self.store.load_receipt(one) for one in identities), return_exceptions=True)
        for answer in found:
            if isinstance(answer, BaseException):
                raise answer
        return tuple(answer for answer in found if isinstance(answer, IdempotencyRecord))

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

    def _may_take(self, sender: Sender, step: Step, service: str) -> bool:
        return any(self._may(sender, kind, step.command, service) for kind in sorted(step.authorities))

    def _may(self, sender: Sender, kind: AuthorityType, command: str, service: str) -> bool:
        # Whoever speaks for others may by naming one.
        claims = (Claim(authority_type=kind), Claim(authority_type=kind, actor_id="somebody"))
        return any(isinstance(grant(self.registry, sender, claim, command, service), Grant) for claim in claims)


def _too_long(field: str, incident_id: str) -> Rejected:
    detail = f"More than {FOLDED_MAX} events would be read; read the incident's events page by page."
    return Rejected(Refusal(Code.INVALID_FIELD, detail, field, incident_id))


def _behind(page: Page, readable: tuple[Incident, ...]) -> Position | None:
    """Return where a listing goes on: behind the last row that its reader may know of.

    Where a page has none, behind the last that was looked at, with no more of its id than tells two of one moment apart.
    """
    if page.next is None or readable:
        return page.next and position(readable[-1])
    return replace(page.next, incident_id=page.next.incident_id[:8] + NO_ID[8:])
