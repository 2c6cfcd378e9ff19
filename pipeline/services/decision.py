"""Load → decide → commit, and decide again when something moved. The only such loop in opx.

A write is never sent again as it is: after a conflict the decision is made anew from what is there now, with jitter,
until the request's deadline. Returns outcomes; logs nothing. Rules are in `domain.decisions`.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from pipeline.domain.correlation import Window
from pipeline.domain.decisions import GATE, Accepted
from pipeline.domain.envelope import SCHEMA_VERSION, IncidentEvent
from pipeline.domain.errors import Code, Conflict, Corrupt, Refusal, Unavailable
from pipeline.domain.incidents import Incident
from pipeline.domain.occurrences import TOGETHER_MAX
from pipeline.domain.receipts import IdempotencyRecord, Request, result_of_refusal
from pipeline.domain.transitions import AuthorityType
from pipeline.services.commits import Ruling, commit_of
from pipeline.services.ports import (
    Clock,
    Commit,
    Committed,
    IncidentStore,
    Pointer,
    PointerMoved,
    ReceiptExists,
    VersionMoved,
    WindowMoved,
)
from pipeline.services.turns import Turns

KNOWN_KEYS_MAX: Final = 10_000
# For commands: somebody waits for the answer, so they press on where intake makes way (see `turns`).
RETRY_WAIT = wait_random_exponential(multiplier=0.01, max=0.2)


@dataclass(frozen=True, slots=True)
class Applied:
    """It took effect now: `incident` is the row after it, None where there was nothing to change.

    Requests that were decided together have one effect, and one of them is the `first`: it tells what happened.
    """

    receipt: IdempotencyRecord
    incident: Incident | None
    before: Incident | None = None
    attempts: int = 1
    events: tuple[IncidentEvent, ...] = ()
    first: bool = True

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
# What became of one thing that was asked for: its outcome, or why it must be asked again.
Answered = Outcome | Exception


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


class KnownKeys:
    """Which incident a key's newest was, for the keys this process has met lately: where to look before trying to begin.

    Never decided on: the row is read again. It saves a storm the transaction that finds out that the key has an incident.
    """

    def __init__(self, keys_max: int = KNOWN_KEYS_MAX) -> None:
        self.keys_max = keys_max
        self.ids: OrderedDict[tuple[str, str], str] = OrderedDict()

    def keep(self, incident: Incident) -> None:
        key = (incident.service, incident.metadata.dedup_key)
        self.ids[key] = incident.incident_id
        self.ids.move_to_end(key)
        if len(self.ids) > self.keys_max:
            self.ids.popitem(last=False)

    def of(self, key: tuple[str, str]) -> str | None:
        return self.ids.get(key)


class Case(Protocol):
    """Requests that are decided together: how to decide them, and how to read what they are decided on.

    `key` is the (service, dedupKey) under which an occurrence may begin; None where it may not. `place` is where it may meet
    others who write to the same, and takes turns with them; None where it does not wait for them.
    """

    requests: tuple[Request, ...]

    @property
    def place(self) -> Hashable | None: ...

    @property
    def key(self) -> tuple[str, str] | None: ...

    def rule(self, incident: Incident | None, pending: tuple[Request, ...]) -> Ruling:
        """Decide on some of `pending` (at least one), given the incident as far as known."""
        ...

    async def reload(self) -> Incident | None:
        """Return the incident to decide on, read consistently, with the correlation window where there is one."""
        ...

    def committed(self, window: Window | None) -> None:
        """Go on from what was just written; `window` as it stands now."""
        ...

    def key_lost(self, incident: Incident | None, pointer: Pointer) -> Refusal | None:
        """Say what it means that an incident can't be opened because its key went on: a refusal, or None to rule again."""
        ...


@dataclass(slots=True)
class _Situation:
    """What one round decides on. `fresh`: read or returned by the store during this request, not taken from the view."""

    incident: Incident | None
    fresh: bool
    pending: tuple[Request, ...]
    together: int = TOGETHER_MAX
    attempts: int = 0


class DecisionLoop:
    """Turns a case into exactly one effect on the store for each of its requests.

    `schema_version`: what its events are written as.
    """

    def __init__(self, store: IncidentStore, clock: Clock, schema_version: int = SCHEMA_VERSION) -> None:
        self.store = store
        self.clock = clock
        self.schema_version = schema_version
        self.known = KnownKeys()
        self.turns = Turns(clock)

    async def turn(self, place: Hashable, deadline: float) -> None:
        """Wait before reading what others write to, too; return at once where nobody was met there lately."""
        wait_s = self.turns.wait_s(place)
        if 0 < wait_s < deadline - self.clock.monotonic():
            await self.clock.sleep(wait_s)

    async def run(
        self, case: Case, view: View, deadline: float, start: Incident | None, outcomes: dict[str, Outcome], *, fresh: bool
    ) -> None:
        """Decide, commit, decide again on conflict, until every request has its outcome, by receipt id in `outcomes`.

        `start` is the incident as far as known (`fresh` where just read). Raises `Unavailable` at the deadline (on the
        clock's monotonic scale) or when the store does; then nothing is known of what has no outcome yet, and a redelivery
        finds out. No two requests of a case have one key.
        """
        situation = _Situation(start, fresh, case.requests)
        while situation.pending:
            self.check_time(deadline)
            await self._once(case, situation, view, deadline, outcomes)

    def check_time(self, deadline: float) -> None:
        """Raise `Unavailable` where the deadline has come: what has not begun comes again."""
        if self.clock.monotonic() >= deadline:
            raise Unavailable("no time was left in this invocation")

    async def run_one(self, case: Case, view: View, deadline: float, start: Incident | None, *, fresh: bool) -> Outcome:
        """Run a case of one request; return its outcome."""
        outcomes: dict[str, Outcome] = {}
        await self.run(case, view, deadline, start, outcomes, fresh=fresh)
        return outcomes[case.requests[0].receipt_id]

    async def _once(
        self, case: Case, situation: _Situation, view: View, deadline: float, outcomes: dict[str, Outcome]
    ) -> None:
        """Settle at least one of the pending requests."""
        situation.attempts, situation.together = 0, TOGETHER_MAX

        def out_of_time(state: RetryCallState) -> bool:
            return self.clock.monotonic() + state.upcoming_sleep >= deadline

        def wait(state: RetryCallState) -> float:
            if case.place is None:
                return RETRY_WAIT(state)
            self.turns.lost(case.place)
            return self.turns.wait_s(case.place)

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Conflict),
            wait=wait,
            stop=out_of_time,
            sleep=self.clock.sleep,
            reraise=True,
        )
        try:
            settled: dict[str, Outcome] = await retrying(self._round, case, situation, view)
        except Conflict as conflict:
            raise Unavailable(f"still contended after {situation.attempts} attempts: {conflict}") from conflict
        outcomes |= settled
        situation.pending = tuple(request for request in situation.pending if request.receipt_id not in outcomes)

    async def _round(self, case: Case, situation: _Situation, view: View) -> dict[str, Outcome]:
        situation.attempts += 1
        if situation.attempts > 1:
            # What came back with the refusal is as old as the wait since: a read costs less than another refusal.
            _see(situation, view, await case.reload())
        # A pointer in the way costs no wait: the next decision is on what it points to.
        while True:
            offered = situation.pending[: situation.together]
            ruling = case.rule(situation.incident, offered)
            if not isinstance(ruling.decision, Accepted) and not situation.fresh:
                situation.incident, situation.fresh = await case.reload(), True
                ruling = case.rule(situation.incident, offered)
            now = self.clock.now()
            commit = commit_of(case.key, ruling, situation.incident, now, self.schema_version)
            if isinstance(commit, Refusal):
                if commit.code is Code.TOO_LARGE and len(ruling.requests) > 1:
                    situation.together = len(ruling.requests) // 2
                    continue
                return await self._refuse_all(ruling.requests, commit, now)
            result = await self.store.commit(commit)
            match result:
                case Committed():
                    case.committed(commit.window)
                    if case.place is not None:
                        self.turns.won(case.place)
                    return self._applied(commit, ruling, situation, view)
                case ReceiptExists(receipts):
                    met = {receipt.id: receipt for receipt in receipts}
                    asked = {request.receipt_id: request for request in ruling.requests}
                    return {known: replayed(met[known], asked[known]) for known in met}
                case PointerMoved(pointer, row):
                    if case.key is None:
                        refusal = case.key_lost(situation.incident, pointer)
                        if refusal is None:
                            continue
                        return await self._refuse_all(ruling.requests, refusal, now)
                    if row is None or row.incident_id != pointer.incident_id:
                        row = view.by_id.get(pointer.incident_id)
                    _see(situation, view, await self._pointed_at(pointer, row, situation.incident))
                case VersionMoved(row):
                    if commit.pointer is not None and row is not None and row.incident_id == commit.pointer.incident_id:
                        # Deciding again would go round for ever.
                        raise Corrupt("the key's pointer is behind an occurrence that exists", row.incident_id)
                    raise Conflict("the incident moved meanwhile")
                case WindowMoved():
                    raise Conflict("the window moved meanwhile")

    def _applied(self, commit: Commit, ruling: Ruling, situation: _Situation, view: View) -> dict[str, Outcome]:
        """Return the outcome of each request of a commit, and remember what it led to."""
        settled: dict[str, Outcome] = {
            receipt.id: Applied(
                receipt, commit.incident, situation.incident, situation.attempts, commit.events, first=number == 0
            )
            for number, receipt in enumerate(commit.receipts)
        }
        if commit.incident is not None:
            situation.incident, situation.fresh = commit.incident, True
            view.keep(commit.incident)
            self.known.keep(commit.incident)
        return settled

    async def _refuse_all(self, requests: tuple[Request, ...], refusal: Refusal, now: datetime) -> dict[str, Outcome]:
        return {request.receipt_id: await self._refuse(request, refusal, now) for request in requests}

    async def _pointed_at(self, pointer: Pointer, row: Incident | None, known: Incident | None) -> Incident:
        """Return the row that a pointer in the way names. A pointer to nothing, or back in time, is corruption: deciding
        again would go round for ever.
        """
        if known is not None and pointer.occurrence <= known.metadata.occurrence:
            raise Corrupt("the key's pointer is behind an occurrence that exists", known.incident_id)
        if row is None:
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
                return replayed(result.receipts[0], request)
            return Refused(refusal)
        return await self.refuse_unless_replayed(request, refusal)

    async def refuse_unless_replayed(self, request: Request, refusal: Refusal) -> Outcome:
        """Answer a refusal that leaves no receipt; where one exists already, it is the answer."""
        receipt = await self.store.load_receipt(request.receipt_id)
        return Refused(refusal) if receipt is None else replayed(receipt, request)


def key_gone_on(incident: Incident | None, pointer: Pointer) -> Refusal:
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
