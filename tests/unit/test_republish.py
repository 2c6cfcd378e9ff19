"""Republished is what is stored, all of it, in order, at its rate; what can't be is named; what ends a run loses none."""

import asyncio
import contextlib
import json
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from pipeline.cli.checkpoint import Checkpoint
from pipeline.cli.republish_marks import MARKS
from pipeline.domain.canonical import Document, canonical_bytes, parse_document
from pipeline.domain.errors import Corrupt, Unavailable
from pipeline.services.ports import FailedRecord
from pipeline.services.republish import CHUNK_MAX, UNMARKED_MAX, Marks, Pace, Republisher, StoredEvents
from pipeline.services.stored_events import EventsOfTime, NamedEvents, Wanted, overlapping, ranges_of
from pipeline.stores.event_scan import DynamoEventScan
from pipeline.stores.eventbridge import EventBridgeBus
from pipeline.stores.memory import MemoryStore
from tests.simulation.world import VirtualClock
from tests.support.clock import NOW
from tests.support.event_table import EventTable
from tests.support.noting import a_life
from tests.support.streams import sealed

EACH = 25
SPAN = (NOW, NOW + timedelta(days=1))


class Killed(BaseException):
    """The process dies here."""


@dataclass
class Bus:
    """EventBridge as its API answers. `verdict`: an event's error code, or None; `dies_at`: a call that never returns."""

    clock: VirtualClock
    verdict: Callable[[Document], str | None] = lambda document: None
    down: Callable[[int], bool] = lambda call: False
    dies_at: int | None = None
    calls: int = 0
    taken: list[tuple[float, Document]] = field(default_factory=list)

    async def put_events(self, Entries: list[dict[str, Any]]) -> dict[str, Any]:
        self.calls += 1
        number = self.calls
        await asyncio.sleep(0)
        if self.down(number):
            raise EndpointConnectionError(endpoint_url="https://events.us-east-1.amazonaws.com")
        details = [parse_document(entry["Detail"]) for entry in Entries]
        codes = [self.verdict(detail) for detail in details]
        self.taken += [(self.clock.seconds, detail) for detail, code in zip(details, codes, strict=True) if code is None]
        if number == self.dies_at:
            raise Killed
        return {"Entries": [{"EventId": "e"} if code is None else {"ErrorCode": code} for code in codes]}

    def places(self) -> list[tuple[str, int]]:
        return [(detail["incidentId"], detail["sequence"]) for _, detail in self.taken]


@dataclass
class Eyes:
    """Who looks on. Implements `Watch`."""

    failures: list[FailedRecord] = field(default_factory=list)
    waited: list[str] = field(default_factory=list)

    def read(self, examined: int) -> None: ...

    def published(self, documents: Sequence[Document]) -> None: ...

    def named(self, failure: FailedRecord) -> None:
        self.failures.append(failure)

    def waits(self, error: Unavailable, seconds: float) -> None:
        self.waited.append(str(error))

    def told(self) -> list[tuple[str | None, int | None, str]]:
        return [(failure.incident_id, failure.sequence, failure.error) for failure in self.failures]


@dataclass
class Run:
    """One republication and what it left."""

    bus: Bus
    eyes: Eyes
    marks: Marks


def lives(incidents: int = 6, each: int = EACH) -> MemoryStore:
    store = MemoryStore()
    for number in range(incidents):
        when = NOW + timedelta(hours=number)
        asyncio.run(store.commit(a_life("checkout", f"key-{number}", each, when)))
    return store


def documents_of(store: MemoryStore) -> list[Document]:
    return [document for history in store.events.values() for document in history.values()]


def keys_of(documents: Sequence[Document]) -> set[tuple[str, int]]:
    return {(document["incidentId"], document["sequence"]) for document in documents}


def by_time(source: MemoryStore | EventTable, *spans: tuple[datetime, datetime], segments: int = 3) -> EventsOfTime:
    table = source if isinstance(source, EventTable) else EventTable(documents_of(source))
    return EventsOfTime(DynamoEventScan(table, "opx-incident-events"), spans or (SPAN,), segments)


def republish(
    events: StoredEvents,
    *,
    rate: float = 1e6,
    marks: Marks | None = None,
    keep: Callable[[Marks], None] = lambda marks: None,
    **bus: Any,
) -> Run:
    clock = VirtualClock()
    found = Run(Bus(clock, **bus), Eyes(), marks or Marks())
    service = Republisher(EventBridgeBus(found.bus, "opx-bus", clock), clock, Pace(rate, clock), found.eyes)
    asyncio.run(service.run(events, found.marks, keep))
    return found


# --- all of it, as stored, in order -------------------------------------------------------------------------------------


def test_every_event_of_a_span_goes_out_as_stored_and_marked_as_replayed() -> None:
    store = lives()
    found = republish(by_time(store))
    stored = documents_of(store)
    sent = sorted(canonical_bytes(detail) for _, detail in found.bus.taken)
    assert sent == sorted(canonical_bytes(document | {"replayed": True}) for document in stored)
    assert (found.marks.published, found.marks.failed, found.eyes.failures) == (len(stored), 0, [])


def test_each_incidents_events_go_out_in_order_whatever_the_order_in_the_table() -> None:
    orders: dict[str, list[int]] = defaultdict(list)
    for incident, sequence in republish(by_time(lives())).bus.places():
        orders[incident].append(sequence)
    assert len(orders) == 6
    assert all(order == list(range(1, EACH + 1)) for order in orders.values())


def test_of_a_span_only_what_happened_or_was_decided_in_it_goes_out() -> None:
    store = lives()
    span = (NOW + timedelta(hours=1), NOW + timedelta(hours=3))
    stored = documents_of(store)
    late = next(document for document in stored if document["timestamp"].startswith("2026-01-31T08"))
    changed = sealed(late | {"decidedAt": "2026-01-31T04:30:00.000000Z"})
    found = republish(by_time(EventTable([document for document in stored if document is not late] + [changed]), span))
    counted = Counter(detail["timestamp"][11:13] for _, detail in found.bus.taken)
    assert counted == {"04": EACH, "05": EACH, "08": 1}
    assert found.marks.failed == 0


def test_of_several_spans_what_lies_between_them_stays() -> None:
    hours = [(NOW + timedelta(hours=number), NOW + timedelta(hours=number, minutes=1)) for number in (0, 4)]
    found = republish(by_time(lives(), *hours))
    assert {detail["timestamp"][11:13] for _, detail in found.bus.taken} == {"03", "07"}


def test_of_named_incidents_the_named_sequences_go_out() -> None:
    store = lives()
    first, second, *_ = store.events
    events = NamedEvents(store, {first: Wanted(((20, None),), exact=False), second: Wanted(((2, 3), (7, 7)))})
    assert sorted(republish(events).bus.places()) == sorted(
        [*((first, number) for number in range(20, EACH + 1)), (second, 2), (second, 3), (second, 7)]
    )


def test_a_history_longer_than_a_page_goes_out_whole() -> None:
    store = MemoryStore()
    for start in range(3):
        asyncio.run(store.commit(a_life("checkout", f"key-{start}", 90, NOW)))
    one = next(iter(store.events))
    # A longer history than one transaction makes, of the same incident.
    store.events[one] = {number: store.events[one][1 + (number - 1) % 90] | {"sequence": number} for number in range(1, 251)}
    found = republish(NamedEvents(store, {one: Wanted(((1, None),), exact=False)}))
    assert found.marks.examined == 250


def test_ranges_and_spans_are_put_together() -> None:
    assert ranges_of([5, 3, 4, 9, 4]) == ((3, 5), (9, 9))
    minutes = [NOW + timedelta(minutes=number) for number in range(5)]
    assert overlapping([(minutes[3], minutes[4]), (minutes[0], minutes[2]), (minutes[1], minutes[2])]) == (
        (minutes[0], minutes[2]),
        (minutes[3], minutes[4]),
    )


# --- what can't go out is named, and the rest goes on -------------------------------------------------------------------


def test_an_event_without_its_own_hash_is_named_and_the_others_go_out() -> None:
    store = lives()
    damaged = documents_of(store)[30]
    damaged["metadata"] = dict(damaged["metadata"]) | {"note": "something else"}
    found = republish(by_time(store))
    assert found.eyes.told() == [(damaged["incidentId"], damaged["sequence"], "corruption")]
    assert set(found.bus.places()) == keys_of(documents_of(store)) - keys_of([damaged])
    assert (found.marks.published, found.marks.failed) == (6 * EACH - 1, 1)


def test_an_item_that_can_not_be_read_is_named_and_the_others_go_out() -> None:
    table = EventTable(documents_of(lives()))
    table.items[30]["binary"] = {"B": b"no event of opx has one"}
    found = republish(by_time(table))
    assert found.eyes.told() == [(table.items[30]["incidentId"]["S"], int(table.items[30]["sequence"]["N"]), "unreadable")]
    assert len(set(found.bus.places())) == 6 * EACH - 1


class Unreadable(MemoryStore):
    """A store one of whose events can't be read."""

    bad = 0

    async def history(self, incident_id: str, after: int = 0, limit: int | None = None) -> AsyncIterator[Document]:
        async for document in super().history(incident_id, after, limit):
            if document["sequence"] == self.bad:
                raise Corrupt("a stored attribute is of type B")
            yield document


@pytest.mark.parametrize("bad", [1, 12, EACH])
def test_of_a_named_incident_only_what_can_not_be_read_is_left_out(bad: int) -> None:
    store = Unreadable()
    store.events |= lives(1).events
    store.bad = bad
    (one,) = store.events
    found = republish(NamedEvents(store, {one: Wanted(((1, None),), exact=False)}))
    assert found.eyes.told() == [(one, bad, "unreadable")]
    assert found.bus.places() == [(one, number) for number in range(1, EACH + 1) if number != bad]


def test_a_gap_in_the_table_is_named_and_what_is_behind_it_goes_out() -> None:
    store = lives(1)
    (one,) = store.events
    for number in (4, 5, 6, EACH):
        del store.events[one][number]
    found = republish(NamedEvents(store, {one: Wanted(((1, None),), exact=False)}))
    assert [(failure.sequence, failure.detail) for failure in found.eyes.failures] == [
        (4, "events 4 to 6 are not in the event table")
    ]
    assert len(found.bus.taken) == EACH - 4
    # What is known to exist is missed at the end of a history, too, and where the incident is unknown.
    exact = NamedEvents(store, {one: Wanted(((5, 7), (EACH - 1, EACH + 1))), "gone": Wanted(((1, 2),))})
    again = republish(exact)
    assert sorted((str(where), number) for where, number, _ in again.eyes.told()) == sorted(
        [(one, 5), (one, EACH), ("gone", 1)]
    )
    assert again.bus.places() == [(one, 7), (one, EACH - 1)]


def test_what_the_bus_refuses_for_good_is_named_and_counted() -> None:
    found = republish(by_time(lives()), verdict=lambda detail: "MalformedDetail" if detail["sequence"] == 9 else None)
    assert {(sequence, error) for _, sequence, error in found.eyes.told()} == {(9, "MalformedDetail")}
    assert (found.marks.published, found.marks.failed) == (6 * (EACH - 1), 6)


# --- a bounded rate -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.5, 3.0, 40.0, 100.0])
def test_no_second_sees_more_events_than_the_rate(rate: float) -> None:
    found = republish(by_time(lives(3)), rate=rate)
    times = [when for when, _ in found.bus.taken]
    chunk = max(1, min(10, int(rate)))
    for start in times:
        within = sum(start <= when < start + 60 for when in times)
        assert within <= 60 * rate + chunk
    # And it is used: with nothing in the way the whole takes what the rate says.
    assert times[-1] == pytest.approx((len(times) - chunk) / rate, rel=0.2)


def test_time_that_a_bus_was_down_is_not_made_up_for() -> None:
    found = republish(by_time(lives(6, 90)), rate=10.0, down=lambda call: 2 <= call <= 6)
    assert len(found.eyes.waited) == 5
    times = [when for when, _ in found.bus.taken]
    assert all(sum(start <= when < start + 10 for when in times) <= 10 * 10 + 4 * 10 for start in times)


# --- outages and death --------------------------------------------------------------------------------------------------


def test_a_bus_or_a_table_that_comes_back_costs_waiting_alone() -> None:
    store = lives()
    found = republish(by_time(EventTable(documents_of(store), down_at=(2, 3, 9))), down=lambda call: 5 < call < 9)
    assert set(found.bus.places()) == keys_of(documents_of(store))
    assert len(found.eyes.waited) >= 3
    assert found.marks.failed == 0


def test_a_bus_that_stays_down_is_given_up_and_the_marks_go_on_from_there() -> None:
    store = lives()
    marks = Marks()
    with pytest.raises(Unavailable, match="EndpointConnectionError"):
        republish(by_time(store), marks=marks, down=lambda call: call > 8)
    assert 0 < marks.published < 6 * EACH
    found = republish(by_time(store), marks=marks)
    assert marks.published == 6 * EACH
    assert len(found.bus.taken) < 6 * EACH


def test_whenever_it_dies_the_next_run_loses_nothing(tmp_path: Path, rng: random.Random) -> None:
    store = lives()
    everything = keys_of(documents_of(store))
    for start in range(1, 18):
        at = Checkpoint.of(MARKS, tmp_path / str(start), ["target", "question"])
        out: set[tuple[str, int]] = set()
        deaths, sent = 0, 0
        while True:
            bus = Bus(VirtualClock(), dies_at=start if deaths == 0 else rng.randrange(1, 12))
            service = Republisher(
                EventBridgeBus(bus, "opx-bus", bus.clock), bus.clock, Pace(1e6, bus.clock), Eyes(), patience_s=0
            )
            try:
                asyncio.run(service.run(by_time(store), at.read() or Marks(), at.write, lanes=rng.choice((1, 4))))
            except Killed:
                deaths += 1
                continue
            finally:
                out |= set(bus.places())
                sent += len(bus.taken)
            break
        assert out == everything, f"killed at call {start}"
        if deaths == 1:
            assert sent <= len(everything) + 4 * 7 * 2, "it began from the start again"


@pytest.mark.parametrize("rate", [5.0, 200.0, 1e6])
def test_killed_within_one_page_the_next_run_goes_on_where_it_was(tmp_path: Path, rate: float) -> None:
    store = lives(4, 100)
    everything = keys_of(documents_of(store))
    at = Checkpoint.of(MARKS, tmp_path, ["target", "question"])
    sent: list[tuple[str, int]] = []
    for dies_at in (12, 12, None):
        bus = Bus(VirtualClock(), dies_at=dies_at)
        before = at.read() or Marks()
        claimed = {place for part in before.settled.values() for place in part}
        assert claimed <= set(sent), "it claims what no bus has taken"
        assert len(sent) - before.published <= UNMARKED_MAX + CHUNK_MAX

        def keep(marks: Marks, bus: Bus = bus) -> None:
            # Whoever is killed writes nothing any more.
            if bus.calls != bus.dies_at:
                at.write(marks)

        service = Republisher(EventBridgeBus(bus, "opx-bus", bus.clock), bus.clock, Pace(rate, bus.clock), Eyes())
        with contextlib.suppress(Killed):
            one_page = by_time(EventTable(documents_of(store), page=1000), segments=1)
            asyncio.run(service.run(one_page, before, keep))
        sent += bus.places()
    assert set(sent) == everything
    assert len(sent) <= len(everything) + 2 * (UNMARKED_MAX + CHUNK_MAX)


def test_what_was_named_in_a_page_that_was_broken_off_counts_once() -> None:
    store = lives(1, 100)
    (one,) = store.events
    store.events[one][3] = store.events[one][3] | {"reason": "forged"}
    table = EventTable(documents_of(store), page=1000)
    marks = Marks()
    with pytest.raises(Unavailable):
        republish(by_time(table), marks=marks, verdict=refuses_the_ninth, down=lambda call: call > 4)
    assert (marks.published, marks.failed) == (39, 1)
    found = republish(by_time(table), marks=marks, verdict=refuses_the_ninth)
    assert (marks.published, marks.failed, len(found.bus.taken)) == (98, 2, 59)


def refuses_the_ninth(detail: Document) -> str | None:
    return "MalformedDetail" if detail["sequence"] == 9 else None


@pytest.mark.parametrize("settled", [[], {"0/1": 3}, {"0/1": {"one": [[1]]}}, {"0/1": {"one": [["1", 2]]}}])
def test_a_torn_checkpoint_is_none(tmp_path: Path, settled: Any) -> None:
    at = Checkpoint.of(MARKS, tmp_path, ["target", "question"])
    at.write(marks := Marks(settled={"0/1": {("one", 1), ("one", 2), ("one", 7)}}, published=3))
    assert at.read() == marks
    said = json.loads(at.path.read_text())
    at.path.write_text(json.dumps(said | {"settled": settled}))
    assert at.read() is None
