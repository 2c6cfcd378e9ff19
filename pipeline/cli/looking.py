"""One look at all incidents that are not over, after another: what stands there, and what has changed since the last look.

Reads through the API, so many pages at most; an incident is missing only where it was read again and has ended. How a board
is shown is in `board_view`.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import product
from typing import Any, Final, TypeVar

from pipeline.cli.lifeline import Signal, signal
from pipeline.clients.answers import ApiRefused, Incident
from pipeline.clients.calls import Filters
from pipeline.clients.operator import AsyncOperator
from pipeline.domain.canonical import Document, format_time, parse_time
from pipeline.domain.errors import Code, Unavailable
from pipeline.domain.events import REPORTS_TROUBLE
from pipeline.domain.transitions import HOLDS_KEY, UNPROMOTED, Severity, State

T = TypeVar("T")
R = TypeVar("R")

PAGE: Final = 100
# Of each state, and of each severity that was asked for.
LISTED_MAX: Final = 200
# Incidents that are read one by one in a look; what is left waits for the next.
LOOKUPS_MAX: Final = 20
AT_ONCE: Final = 8
LOOK_S_MAX: Final = 20.0
# Of an incident's events: the newest ones, among which its newest observation is looked for; the most its states are looked
# for in.
TAIL: Final = 200
EVENTS_MAX: Final = 500
LATELY: Final = timedelta(hours=1)
LINGERS: Final = timedelta(seconds=30)

NEW, STATE, SEVERITY, EVIDENCE = "new", "state", "severity", "evidence"


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest observation of an incident: its kind, and when that was observed, as far as known.

    `certain`: that it is the newest is known from the whole history, not guessed from a part of it.
    """

    kind: str
    at: datetime | None
    certain: bool


@dataclass(frozen=True, slots=True)
class Reading:
    """What an incident's events up to `version` say; `whole` where none before them was left out."""

    version: int
    signal: Signal | None
    whole: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """An incident on the board. `since`: in its state; `changed`: what has, and when a look first saw it so."""

    incident: Incident
    since: datetime | None = None
    seen: Seen | None = None
    changed: dict[str, datetime] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        return self.incident.state not in HOLDS_KEY

    @property
    def evidence(self) -> int:
        return int(_of(self.incident, "metadata", "evidence").get("count", 0))

    @property
    def detections(self) -> int:
        return _detections(self.incident)

    @property
    def actor(self) -> str:
        """Return who last moved it."""
        by = _of(self.incident, "authority")
        return f"{by.get('authorityType', '?')} {by.get('actorId', '?')}"


@dataclass(frozen=True, slots=True)
class Board:
    """What one look showed, the most severe first. `more`: incidents exist that no look gets to. `ended`: seen to be over.

    `stale`: why there has been no look since.
    """

    at: datetime
    standings: tuple[Standing, ...] = ()
    ended: tuple[tuple[datetime, Incident], ...] = ()
    more: bool = False
    stale: str | None = None

    def counts(self, of: Callable[[Incident], str]) -> dict[str, int]:
        """Return how many of what is not over there are of each kind."""
        found: dict[str, int] = {}
        for one in self.standings:
            if not one.is_over:
                found[of(one.incident)] = found.get(of(one.incident), 0) + 1
        known = [*State, *Severity]
        return dict(sorted(found.items(), key=lambda item: known.index(item[0]) if item[0] in known else len(known)))

    def to_document(self) -> Document:
        changed = {one.incident.incident_id: [k for k, at in one.changed.items() if at == self.at] for one in self.standings}
        document: Document = {
            "at": format_time(self.at),
            "incidents": [_document(one, changed[one.incident.incident_id]) for one in self.standings],
            "states": self.counts(lambda incident: incident.state),
            "severities": self.counts(lambda incident: incident.severity),
            "ended": [{"incidentId": one.incident_id, "state": one.state} for at, one in self.ended if at == self.at],
            "more": self.more,
        }
        return document | ({"staleSince": format_time(self.at), "why": self.stale} if self.stale is not None else {})


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be watched. `lately`: also what ended within the last hour."""

    service: str | None = None
    severities: tuple[str, ...] = ()
    lately: bool = False

    def listings(self) -> list[Filters]:
        states = [state for state in State if self.lately or state in HOLDS_KEY]
        found: list[Filters] = []
        for state, severity in product(states, self.severities or (None,)):
            filters: Filters = {"state": state.value}
            if self.service is not None:
                filters["service"] = self.service
            if severity is not None:
                filters["severity"] = severity
            found.append(filters)
        return found

    def takes(self, incident: Incident, now: datetime) -> bool:
        """True where an incident, as it is, belongs on the board."""
        if self.severities and incident.severity not in self.severities:
            return False
        if incident.state in HOLDS_KEY:
            return True
        ended = _of(incident, "metadata", "resolution").get("at")
        return self.lately and isinstance(ended, str) and parse_time(ended) > now - LATELY


class Watcher:
    """Looks again and again. What it learned of an incident it asks no second time."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self._since: dict[str, tuple[str, datetime]] = {}
        self._read: dict[str, Reading] = {}

    async def look(self, operator: AsyncOperator, before: Board | None, now: datetime) -> Board:
        """Return what stands there now. Raises `Unavailable` where that can't be told in time."""
        try:
            async with asyncio.timeout(LOOK_S_MAX):
                return await self._look(operator, before, now)
        except TimeoutError:
            raise Unavailable(f"a look took longer than {LOOK_S_MAX:.0f} s") from None

    async def _look(self, operator: AsyncOperator, before: Board | None, now: datetime) -> Board:
        pages = await _each(self.wanted.listings(), lambda filters: _listed(operator, filters))
        found: dict[str, Incident] = {}
        for incident in (incident for listed, _ in pages for incident in listed):
            # One that changed its state meanwhile is in two listings.
            known = found.get(incident.incident_id)
            if (known is None or known.version < incident.version) and self.wanted.takes(incident, now):
                found[incident.incident_id] = incident
        gone = await self._gone(operator, before, found, now)
        ended = tuple(one for one in (before.ended if before is not None else ()) if one[0] > now - LINGERS)
        rows = sorted(found.values(), key=lambda one: one.created_at, reverse=True)
        rows.sort(key=lambda one: (one.state not in HOLDS_KEY, one.severity))
        await self._learn(operator, rows)
        standings = tuple(_standing(one, self._told(one), before, now) for one in rows)
        return Board(now, standings, (*ended, *((now, one) for one in gone)), any(more for _, more in pages))

    async def _gone(
        self, operator: AsyncOperator, before: Board | None, found: dict[str, Incident], now: datetime
    ) -> list[Incident]:
        """Return what has ended. What is missing is read again: an index lags, and it may have moved between listings."""
        stood = [one.incident for one in before.standings if not one.is_over] if before is not None else []
        missing = [one for one in stood if one.incident_id not in found]
        again: list[Incident | None] = await _each(missing[:LOOKUPS_MAX], lambda one: _read(operator, one.incident_id))
        # What there was no time to read again stays as it was, and is read in one of the next looks.
        again += missing[LOOKUPS_MAX:]
        found |= {one.incident_id: one for one in again if one is not None and self.wanted.takes(one, now)}
        return [one for one in again if one is not None and one.state not in HOLDS_KEY]

    # --- what a row doesn't say ------------------------------------------------------------------------------------------

    async def _learn(self, operator: AsyncOperator, rows: list[Incident]) -> None:
        """Ask for what is not known yet, of the most severe first."""
        ids = {one.incident_id for one in rows}
        self._since = {key: value for key, value in self._since.items() if key in ids}
        self._read = {key: value for key, value in self._read.items() if key in ids}

        async def since(incident: Incident) -> None:
            moment = await _in_state_since(operator, incident)
            if moment is not None:
                self._since[incident.incident_id] = (incident.state, moment)

        async def seen(incident: Incident) -> None:
            known = self._read.get(incident.incident_id)
            self._read[incident.incident_id] = await _read_on(operator, incident, known)

        asked: list[tuple[Callable[[Incident], Coroutine[Any, Any, None]], Incident]] = [
            (since, one) for one in rows if self._state_since(one) is None
        ]
        asked += [(seen, one) for one in rows if not (_is_as_created(one) or self._is_read(one))]
        await _each(asked[:LOOKUPS_MAX], lambda pair: pair[0](pair[1]))

    def _state_since(self, incident: Incident) -> datetime | None:
        if incident.state in UNPROMOTED:
            return incident.created_at
        state, since = self._since.get(incident.incident_id, ("", None))
        return since if state == incident.state else None

    def _is_read(self, incident: Incident) -> bool:
        known = self._read.get(incident.incident_id)
        return known is not None and known.version >= incident.version

    def _told(self, incident: Incident) -> Standing:
        return Standing(incident, self._state_since(incident), _seen(incident, self._read.get(incident.incident_id)))


def _standing(incident: Incident, told: Standing, before: Board | None, now: datetime) -> Standing:
    """Return a standing with what has changed since the board before; on the first one nothing has."""
    if before is None:
        return told
    old = next((one for one in before.standings if one.incident.incident_id == incident.incident_id), None)
    if old is None:
        return replace(told, changed={NEW: now})
    moved = {
        STATE: old.incident.state != incident.state,
        SEVERITY: old.incident.severity != incident.severity,
        EVIDENCE: (old.evidence, old.detections, _row_seen(old.incident))
        != (told.evidence, told.detections, _row_seen(incident)),
    }
    return replace(told, changed=old.changed | {name: now for name, is_so in moved.items() if is_so})


def _of(incident: Incident, *names: str) -> Document:
    """Return a part of an incident's document; an empty one where a newer opx has none there."""
    found: Any = incident.document
    for name in names:
        found = found.get(name)
        if not isinstance(found, dict):
            return {}
    return dict(found)


def _document(one: Standing, changed: list[str]) -> Document:
    incident = one.incident
    told: Document = {
        "incidentId": incident.incident_id,
        "severity": incident.severity,
        "state": incident.state,
        "service": incident.service,
        "title": incident.title,
        "createdAt": format_time(incident.created_at),
        "evidenceCount": one.evidence,
        "detections": one.detections,
        "actor": _of(incident, "authority"),
        "changed": changed,
    }
    told |= {"stateSince": format_time(one.since)} if one.since is not None else {}
    if one.seen is not None:
        at = {"at": format_time(one.seen.at)} if one.seen.at else {}
        told["lastEvidence"] = {"kind": one.seen.kind, "certain": one.seen.certain} | at
    return told


# --- reads -----------------------------------------------------------------------------------------------------------


async def _listed(operator: AsyncOperator, filters: Filters) -> tuple[list[Incident], bool]:
    found: list[Incident] = []
    async for incident in operator.incidents(page=PAGE, **filters):
        if len(found) == LISTED_MAX:
            return found, True
        found.append(incident)
    return found, False


async def _read(operator: AsyncOperator, incident_id: str) -> Incident | None:
    try:
        return await operator.incident(incident_id)
    except ApiRefused as refused:
        # It was there to be read a moment ago: the reader's rights, or the stack, are others now.
        if refused.problem.code not in (Code.INCIDENT_UNKNOWN, Code.OPERATION_NOT_GRANTED):
            raise
        return None


async def _each(items: Iterable[T], ask: Callable[[T], Coroutine[Any, Any, R]]) -> list[R]:
    """Return the answers, in order, a few asked for at once. Where one raises the others are not waited for, but ended."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(item: T) -> R:
        async with gate:
            return await ask(item)

    asked = [asyncio.create_task(one(item)) for item in items]
    try:
        return await asyncio.gather(*asked)
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


def _detections(incident: Incident) -> int:
    return int(_of(incident, "metadata", "promotion").get("detections", 0))


def _row_seen(incident: Incident) -> Seen:
    """Return the observation that was applied last, as far as the row says: of trouble also when the newest was seen."""
    kind = str(_of(incident, "metadata", "evidence").get("lastObservation", ""))
    newest = _of(incident, "metadata", "promotion").get("newestObservedAt")
    at = parse_time(newest) if kind in REPORTS_TROUBLE and isinstance(newest, str) else None
    return Seen(kind, at, _is_as_created(incident))


def _is_as_created(incident: Incident) -> bool:
    """True where nothing was reported since it was created, so that the row says it all."""
    return incident.version == incident.control_version <= 2


def _seen(incident: Incident, known: Reading | None) -> Seen:
    """Return the newest observation by what was read; of what was not, the row knows when the newest trouble was seen."""
    row = _row_seen(incident)
    if row.certain or known is None or known.signal is None:
        return row
    read = known.signal
    if row.at is not None and row.at > read.observed_at:
        return row
    return Seen(read.kind, read.observed_at, known.whole and known.version >= incident.version)


async def _read_on(operator: AsyncOperator, incident: Incident, known: Reading | None) -> Reading:
    """Return what the events say after those that are known; where there are too many of them, the newest ones."""
    behind, first = known.version if known is not None else 0, max(0, incident.version - TAIL)
    after = max(behind, first)
    documents: list[Document] = []
    version = after
    async for event in operator.events(incident.incident_id, after=after, page=PAGE):
        documents.append(event.document)
        version = event.sequence
        if version >= incident.version:
            break
    whole = after == behind and (known is None or known.whole)
    return Reading(version, signal(documents, known.signal if known is not None else None), whole)


async def _in_state_since(operator: AsyncOperator, incident: Incident) -> datetime | None:
    """Return when an incident came to its state: mostly with the event that last moved control; else it is looked for."""
    since: datetime | None = None
    for after in (incident.control_version - 1, 0):
        page = 1 if after else PAGE
        async for event in operator.events(incident.incident_id, after=after, page=page):
            if event.new_state == incident.state and event.previous_state != event.new_state:
                since = event.timestamp
                break
            if after or event.sequence >= min(EVENTS_MAX, incident.version):
                break
        if since is not None or after == 0:
            break
    return since
