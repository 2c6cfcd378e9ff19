"""What `opx demo` does, and what it must be able to prove: each step returns what was found, counted from outside.

No presentation, and no opinion of its own about incidents: whatever is claimed here is read back from queues and tables.
"""

import io
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from pipeline.cli.counting import DEAD, count_items, depths, wait_until_drained
from pipeline.cli.operating import Turned, outcome_of, post
from pipeline.cli.outbox import Queue
from pipeline.cli.send import QUEUE_OUTPUTS, Order, recording_of, send_recording
from pipeline.cli.sending import Progress, SqsOutbox
from pipeline.cli.session import Session
from pipeline.cli.subscription import Arrival, Subscription, drain
from pipeline.cli.terminal import Meter
from pipeline.domain.canonical import Document
from pipeline.domain.divergences import Divergence
from pipeline.domain.ids import incident_id
from pipeline.domain.incidents import Incident
from pipeline.domain.replay import verify
from pipeline.services.listing import list_incidents
from pipeline.services.ports import Listing

DRAIN_S: Final = 60.0
DELIVERY_S: Final = 30.0
PERSON: Final = "ada"
WALKED: Final = incident_id("payments", "payments-p99", 1)


@dataclass(frozen=True, slots=True)
class Storm:
    """The sample, sent and settled: every message is accounted for, or the sum doesn't hold."""

    sent: int
    copies: int
    receipts: int
    rejected: int
    dead: int
    sending_s: float
    settling_s: float
    drained: bool

    @property
    def adds_up(self) -> bool:
        return self.drained and self.sent == self.receipts + self.copies + self.rejected + self.dead


def sample() -> bytes:
    """Return the shipped recording."""
    return (resources.files("pipeline.cli") / "samples" / "storm.jsonl").read_bytes()


async def send_storm(session: Session, meter: Meter) -> Storm:
    """Send the sample, moved to now, and wait until nothing of it waits any more."""
    content = sample()
    recording = recording_of(io.BytesIO(content))
    bodies = [body for body in content.splitlines() if body.strip()]
    outbox = SqsOutbox(session.clients.sqs, session.target.output(QUEUE_OUTPUTS[Queue.CANDIDATES]))
    began = time.monotonic()
    sent = await send_recording(recording, Order(rebase=True), outbox, Progress(), None, meter)
    sending_s = time.monotonic() - began
    drained = await wait_until_drained(session, DRAIN_S)
    settling_s = time.monotonic() - began
    found = await depths(session, ("rejected", *DEAD))
    return Storm(
        sent=sent.progress.sent,
        copies=len(bodies) - len(set(bodies)),
        receipts=await count_items(session, "IdempotencyTableName"),
        rejected=found["rejected"].total,
        dead=sum(found[name].total for name in DEAD),
        sending_s=sending_s,
        settling_s=settling_s,
        drained=drained,
    )


@dataclass(frozen=True, slots=True)
class Try:
    """A command of the walk. `refused_as` is the code it must be refused with; None where it must take effect."""

    what: str
    document: Document
    refused_as: str | None = None


@dataclass(frozen=True, slots=True)
class Tried:
    attempt: Try
    outcome: str
    detail: str
    as_expected: bool
    seconds: float


def walk() -> tuple[Try, ...]:
    """Return the commands that take one incident from OPEN to CLOSED, with two that must fail on the way."""

    def change(number: int, what: str, state: str, authority: str, reason: str | None, code: str | None = None) -> Try:
        claim = {"authorityType": authority} | ({"actorId": PERSON} if authority == "HUMAN" else {})
        document = {"type": "change-state", "newState": state, "authority": claim, "idempotencyKey": f"demo-{number}"}
        document |= {"incidentId": WALKED} | ({"reason": reason} if reason else {})
        return Try(what, document, code)

    note: Document = {"type": "add-note", "note": "Connection pool of the card gateway was exhausted; doubled it."}
    note |= {"authority": {"authorityType": "HUMAN", "actorId": PERSON}, "incidentId": WALKED, "idempotencyKey": "demo-3"}
    return (
        change(1, "a person starts mitigation", "MITIGATING", "HUMAN", None),
        change(2, "a program claims it is resolved", "RESOLVED", "SYSTEM", "metrics look fine", "transition-authority"),
        Try("the person leaves a note", note),
        change(4, "the person resolves it", "RESOLVED", "HUMAN", "p99 is back under 400 ms for 15 minutes"),
        change(5, "somebody reopens it", "OPEN", "HUMAN", "it may come back", "transition-illegal"),
        change(6, "the person closes it", "CLOSED", "HUMAN", "post-mortem PM-118 is published"),
    )


async def attempt(session: Session, order: Try) -> Tried:
    """Send one command and wait for what becomes of it."""
    began = time.monotonic()
    found = await outcome_of(session, await post(session, order.document))
    seconds = time.monotonic() - began
    if found is None:
        return Tried(order, "no outcome", "neither a receipt nor a rejected message came", False, seconds)
    if isinstance(found, Turned):
        return Tried(order, found.code, found.reason, found.code == order.refused_as, seconds)
    refusal = found.refusal()
    if refusal is not None:
        return Tried(order, refusal.code.value, refusal.sentence(), refusal.code.value == order.refused_as, seconds)
    now = f"now {found.result.state}" if found.result.state else ""
    return Tried(order, found.result.answer.value, now, order.refused_as is None, seconds)


@dataclass(frozen=True, slots=True)
class Stored:
    """All that is stored: the incidents' rows, and their histories in order."""

    incidents: tuple[Incident, ...]
    histories: dict[str, tuple[Document, ...]]

    @property
    def events(self) -> int:
        return sum(len(history) for history in self.histories.values())

    def divergences(self) -> list[Divergence]:
        """Replay every history and compare: numbering, hash chain, and the row byte for byte."""
        rows = {incident.incident_id: incident.to_document() for incident in self.incidents}
        return [
            divergence
            for identity in sorted(rows.keys() | self.histories.keys())
            for divergence in verify(identity, self.histories.get(identity, ()), rows.get(identity))
        ]


async def read_stored(session: Session) -> Stored:
    """Read every incident and every event; the events by a scan of the whole table, so that none is overlooked."""
    incidents = await list_incidents(session.store, Listing(limit=1000))
    found: dict[str, list[Document]] = {}
    async for document in session.store.scan_events():
        found.setdefault(str(document["incidentId"]), []).append(document)
    histories = {identity: tuple(sorted(events, key=_sequence)) for identity, events in found.items()}
    return Stored(incidents, histories)


def _sequence(document: Document) -> int:
    return int(document["sequence"])


@dataclass(frozen=True, slots=True)
class Delivered:
    """What the subscriber got, against what is stored."""

    arrivals: int
    distinct: int
    late: int
    by_type: dict[str, int]
    missing: tuple[tuple[str, int], ...]
    gapless: bool


async def receive_all(subscription: Subscription, stored: Stored, on_count: Callable[[int], Any]) -> Delivered:
    """Receive until every stored event has arrived, or the time is up."""
    wanted = {(identity, _sequence(event)) for identity, history in stored.histories.items() for event in history}
    seen: set[tuple[str, int]] = set()

    def enough(arrived: list[Arrival]) -> bool:
        seen.update(_place(arrival) for arrival in arrived if arrival.is_readable)
        on_count(len(seen))
        return wanted <= seen

    return delivered(await drain(subscription, enough, DELIVERY_S), wanted)


def delivered(arrived: list[Arrival], wanted: set[tuple[str, int]]) -> Delivered:
    """Count arrivals: copies, late ones (behind a later one of the same incident), and what is missing."""
    seen: set[tuple[str, int]] = set()
    newest: dict[str, int] = {}
    late = 0
    for arrival in filter(lambda one: one.is_readable, arrived):
        identity, sequence = place = _place(arrival)
        if place not in seen and sequence < newest.get(identity, 0):
            late += 1
        seen.add(place)
        newest[identity] = max(newest.get(identity, 0), sequence)
    counts = Counter(identity for identity, _ in seen)
    return Delivered(
        arrivals=len(arrived),
        distinct=len(seen),
        late=late,
        by_type=dict(Counter(arrival.detail_type for arrival in arrived).most_common()),
        missing=tuple(sorted(wanted - seen)),
        gapless=all(newest[identity] == count for identity, count in counts.items()),
    )


def _place(arrival: Arrival) -> tuple[str, int]:
    return str(arrival.detail["incidentId"]), int(arrival.detail["sequence"])


def readable(body: str) -> Document:
    """Return a body's JSON object, or nothing where it is none."""
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def first_words(body: str) -> str:
    """Return a message's title, or how it begins where it has none."""
    return str(readable(body).get("title") or body)
