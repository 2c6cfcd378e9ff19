"""Load → decide → commit, and decide again when something moved. The only such loop in opx.

A write is never sent again as it is: after a conflict the decision is made anew from what is there now, with jitter,
until the request's deadline. Returns outcomes; logs nothing. Rules are in `domain.decisions`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from pipeline.domain.base import EVENT_BYTES_MAX
from pipeline.domain.decisions import GATE, UNCHANGED, Accepted, Decision, Nothing
from pipeline.domain.envelope import IncidentEvent, size_of
from pipeline.domain.errors import Code, Conflict, Corrupt, Refusal, Unavailable
from pipeline.domain.ids import incident_id as id_of
from pipeline.domain.incidents import Incident, advance
from pipeline.domain.receipts import Answer, IdempotencyRecord, Request, Result, result_of_change, result_of_refusal
from pipeline.domain.transitions import HOLDS_KEY, AuthorityType, EventType
from pipeline.services.ports import (
    Clock,
    Commit,
    Committed,
    IncidentStore,
    KeyHeld,
    Pointer,
    PointerMoved,
    ReceiptExists,
    RowUnmoved,
    VersionMoved,
)

# A moved row comes back with the refusal: there is nothing to wait for but the others, so waits are short and capped low.
RETRY_WAIT = wait_random_exponential(multiplier=0.01, max=0.2)


@dataclass(frozen=True, slots=True)
class Applied:
    """It took effect now: `incident` is the row after it, None where there was nothing to change."""

    receipt: IdempotencyRecord
    incident: Incident | None
    before: Incident | None = None
    attempts: int = 1
    events: tuple[IncidentEvent, ...] = ()

    @property
    def actor_type(self) -> AuthorityType | None:
        """The authority of whoever asked; the gate's own only where nobody else acted."""
        kinds = [event.actor.authority_type for event in self.events if event.actor != GATE]
        return kinds[0] if kinds else next((event.actor.authority_type for event in self.events), None)


@dataclass(frozen=True, slots=True)
class Replayed:
    """The same request was answered before; the receipt is the first answer (which may be a refusal)."""

    receipt: IdempotencyRecord


@dataclass(frozen=True, slots=True)
class Refused:
    """It was not done and will not be: the sender must change something."""

    refusal: Refusal


Outcome = Applied | Replayed | Refused


@dataclass(slots=True)
class View:
    """Rows seen while one batch is worked on, so that a batch reads each incident once.

    Only ever used to *attempt* a write (which is conditioned on the row's version) or read again before a refusal.
    """

    by_id: dict[str, Incident] = field(default_factory=dict)
    by_key: dict[tuple[str, str], str] = field(default_factory=dict)

    def keep(self, incident: Incident) -> None:
        self.by_id[incident.incident_id] = incident
        key = (incident.service, incident.metadata.dedup_key)
        known = self.by_id.get(self.by_key.get(key, ""))
        if known is None or known.metadata.occurrence <= incident.metadata.occurrence:
            self.by_key[key] = incident.incident_id

    def holder(self, service: str, dedup_key: str) -> Incident | None:
        return self.by_id.get(self.by_key.get((service, dedup_key), ""))


@dataclass(frozen=True, slots=True)
class Case:
    """One request to decide: how to decide it, how to read its incident, and the (service, dedupKey) under which an
    occurrence may begin (None for a command on an existing incident).
    """

    request: Request
    decide: Callable[[Incident | None], Decision]
    reload: Callable[[], Awaitable[Incident | None]]
    key: tuple[str, str] | None = None


@dataclass(slots=True)
class _Situation:
    """What one round decides on. `fresh`: read or returned by the store during this request, not taken from the view."""

    incident: Incident | None
    fresh: bool
    attempts: int = 0


class DecisionLoop:
    """Turns a case into exactly one effect on the store."""

    def __init__(self, store: IncidentStore, clock: Clock) -> None:
        self.store = store
        self.clock = clock

    async def run(self, case: Case, view: View, deadline: float, start: Incident | None, *, fresh: bool) -> Outcome:
        """Decide, commit, decide again on conflict; return the one outcome.

        `start` is the incident as far as known (`fresh` where just read). Raises `Unavailable` at the deadline (on the
        clock's monotonic scale) or when the store does; then nothing is known of the effect, and a redelivery finds out.
        """
        situation = _Situation(start, fresh)

        def out_of_time(state: RetryCallState) -> bool:
            return self.clock.monotonic() + state.upcoming_sleep >= deadline

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Conflict),
            wait=RETRY_WAIT,
            stop=out_of_time,
            sleep=self.clock.sleep,
            reraise=True,
        )
        try:
            outcome: Outcome = await retrying(self._round, case, situation, view)
        except Conflict as conflict:
            raise Unavailable(f"still contended after {situation.attempts} attempts: {conflict}") from conflict
        return outcome

    async def _round(self, case: Case, situation: _Situation, view: View) -> Outcome:
        situation.attempts += 1
        # A pointer in the way costs no wait: the next decision is on what it points to.
        while True:
            decision = case.decide(situation.incident)
            if not isinstance(decision, Accepted) and not situation.fresh:
                situation.incident, situation.fresh = await case.reload(), True
                decision = case.decide(situation.incident)
            now = self.clock.now()
            commit = _commit_of(case, decision, situation.incident, now)
            if isinstance(commit, Refusal):
                return await self._refuse(case.request, commit, now)
            result = await self.store.commit(commit)
            match result:
                case Committed():
                    if commit.incident is not None:
                        view.keep(commit.incident)
                    answered = (commit.receipts[0], commit.incident, situation.incident, situation.attempts)
                    return Applied(*answered, commit.events)
                case ReceiptExists(receipt):
                    return replayed(receipt, case.request)
                case PointerMoved(pointer, row):
                    if case.key is None:
                        return await self._refuse(case.request, _key_gone_on(situation.incident, pointer), now)
                    _see(situation, view, await self._pointed_at(pointer, row, situation.incident))
                case VersionMoved(row):
                    _see(situation, view, row)
                    raise Conflict("the incident moved meanwhile")

    async def _pointed_at(self, pointer: Pointer, row: Incident | None, known: Incident | None) -> Incident:
        """Return the row that a pointer in the way names. A pointer to nothing, or back in time, is corruption: deciding
        again would go round for ever.
        """
        if known is not None and pointer.occurrence <= known.metadata.occurrence:
            raise Corrupt("the key's pointer is behind an occurrence that exists", known.incident_id)
        if row is None or row.incident_id != pointer.incident_id:
            row = await self.store.load(pointer.incident_id)
        if row is None:
            raise Corrupt("the key's pointer names an incident that has no row", pointer.incident_id)
        return row

    async def _refuse(self, request: Request, refusal: Refusal, now: datetime) -> Outcome:
        """Answer a refusal, unless this very request took effect before (its process may have died before it said so)."""
        if refusal.remembered and request.keyed_by_caller:
            receipt = request.receipt(result_of_refusal(refusal), refusal.incident_id, now)
            result = await self.store.commit(Commit(receipts=(receipt,)))
            if isinstance(result, ReceiptExists):
                return replayed(result.receipt, request)
            return Refused(refusal)
        return await self.refuse_unless_replayed(request, refusal)

    async def refuse_unless_replayed(self, request: Request, refusal: Refusal) -> Outcome:
        """Answer a refusal that leaves no receipt; where one exists already, it is the answer."""
        receipt = await self.store.load_receipt(request.receipt_id)
        return Refused(refusal) if receipt is None else replayed(receipt, request)


def _key_gone_on(incident: Incident | None, pointer: Pointer) -> Refusal:
    """A pending incident that waited too long has lost its key: opening it now would make two open ones."""
    detail = f"The key went on to occurrence {pointer.occurrence}, incident {pointer.incident_id}."
    if incident is None:
        return Refusal(Code.TRANSITION_ILLEGAL, detail)
    return Refusal(Code.TRANSITION_ILLEGAL, detail, None, incident.incident_id, incident.state.value)


def _see(situation: _Situation, view: View, row: Incident | None) -> None:
    situation.incident, situation.fresh = row, True
    if row is not None:
        view.keep(row)


def replayed(receipt: IdempotencyRecord, request: Request) -> Outcome:
    """Compare a stored receipt with the request that met it: the first answer again, or a key used for something else."""
    if receipt.request_digest != request.request_digest:
        return Refused(
            Refusal(
                Code.KEY_REUSED, "The idempotency key was used for another request.", "idempotencyKey", receipt.incident_id
            )
        )
    return Replayed(receipt)


def _commit_of(case: Case, decision: Decision, incident: Incident | None, now: datetime) -> Commit | Refusal:
    request = case.request
    match decision:
        case Refusal():
            return decision
        case Nothing():
            answer = Answer.UNCHANGED if decision == UNCHANGED else Answer.NOTHING_OPEN
            receipt = request.receipt(Result(answer=answer), incident.incident_id if incident else None, now)
            return Commit(receipts=(receipt,))
        case Accepted(changes, occurrence):
            pass
    pointer = None
    if occurrence is not None and case.key is not None:
        service, dedup_key = case.key
        identity = id_of(service, dedup_key, occurrence)
        pointer = Pointer(service=service, dedup_key=dedup_key, occurrence=occurrence, incident_id=identity)
        events, after = advance(None, identity, changes, now)
        answer, before = Answer.CREATED, 0
    elif incident is not None:
        events, after = advance(incident, incident.incident_id, changes, now)
        answer, before = Answer.JOINED if case.key is not None else Answer.APPLIED, incident.version
    else:
        raise ValueError("a decision without an incident begins one")
    for event in events:
        if size_of(event) > EVENT_BYTES_MAX:
            return Refusal(Code.TOO_LARGE, f"The event would be larger than {EVENT_BYTES_MAX} bytes.", "evidence")
    receipt = request.receipt(result_of_change(answer, before, after), after.incident_id, now)
    guard = _guard_of(events, incident, after)
    return Commit(receipts=(receipt,), events=events, incident=after, pointer=pointer, guard=guard)


def _guard_of(events: tuple[IncidentEvent, ...], before: Incident | None, after: Incident) -> KeyHeld | RowUnmoved | None:
    """Return what must still be true for the key to have one open incident after this.

    Opening one that has waited: it still holds its key. Taking the key from one that holds it (it has expired): nothing has
    happened to that one meanwhile.
    """
    if before is None:
        return None
    if before.incident_id != after.incident_id:
        return RowUnmoved(before) if before.state in HOLDS_KEY else None
    opened = any(event.fact.event_type is EventType.INCIDENT_OPENED for event in events)
    if not opened or after.state not in HOLDS_KEY:
        return None
    metadata = after.metadata
    return KeyHeld(
        Pointer(
            service=after.service,
            dedup_key=metadata.dedup_key,
            occurrence=metadata.occurrence,
            incident_id=after.incident_id,
        )
    )
