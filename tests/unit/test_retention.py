"""Retention at the store in memory: what is due, who archives it, and that nothing stops it but time and its bound."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from pipeline.domain.authority import Registry, Sender
from pipeline.domain.candidates import Key
from pipeline.domain.errors import Code, Corrupt, Unavailable
from pipeline.domain.ids import receipt_id
from pipeline.domain.receipts import Answer, Request, Result
from pipeline.domain.rules import NO_RULES
from pipeline.domain.transitions import State
from pipeline.services import retention
from pipeline.services.decision import Applied, Refused, Replayed
from pipeline.services.ports import Commit, CommitResult, Listing, Page
from pipeline.services.reading import ReadingService
from pipeline.services.retention import Archival, RetentionService, Run, spans
from pipeline.stores.memory import MemoryStore
from tests.support.bodies import candidate_body, command_body
from tests.support.clock import NOW
from tests.support.registry import AUTOMATION, ENTRIES, entry, registry
from tests.support.world import DEADLINE, InterleavedStore, World, applied

DAY = timedelta(days=1)
QUIET = 90 * DAY
ROLE = Sender("AROARETENTION", "opx-retention")
KNOWN = registry(*ENTRIES, entry("retention-role", "AROARETENTION", operations=("change-state",)))


class Archive:
    """A world of incidents, and retention beside it."""

    def __init__(self, store: MemoryStore | None = None, known: Registry = KNOWN, **options: Any) -> None:
        self.world = World(store, known)
        self.clock = self.world.clock
        self.store = self.world.store
        self.told: list[Archival] = []
        self.service = RetentionService(self.world.controller, ROLE, options.pop("after", QUIET), **options)

    async def closed(self, key: str, *, days_ago: float = 100, open_for: timedelta = timedelta()) -> str:
        """Return an incident that was opened and closed in the past."""
        self.clock.time = NOW - days_ago * DAY - open_for
        incident = applied(await self.world.offer(candidate_body(dedupKey=key))).incident_id
        self.clock.time += open_for
        await self.world.walk(incident, "MITIGATING", "RESOLVED", "CLOSED")
        self.clock.time = NOW
        return incident

    async def run(self, asked_at: datetime | None = None, deadline: float = DEADLINE) -> Run:
        self.told = []
        return await self.service.run(asked_at, deadline, self.told.append)

    def state(self, incident: str) -> Any:
        return self.world.row(incident)["state"]

    def archived(self) -> list[str]:
        """Return what was archived, in the order of it."""
        return [document["incidentId"] for document in self.store.feed if document["eventType"] == "IncidentArchived"]


async def test_what_was_closed_and_left_alone_is_archived_as_the_system() -> None:
    archive = Archive()
    incident = await archive.closed("one")
    run = await archive.run()
    assert (run.archived, run.refused, run.failed, run.waiting, run.whole) == (1, 0, 0, set(), True)
    event = archive.store.feed[-1]
    assert (event["eventType"], event["previousState"], event["newState"]) == ("IncidentArchived", "CLOSED", "ARCHIVED")
    assert event["actor"] == {"authorityType": "SYSTEM", "principal": "AROARETENTION", "actorId": "opx-retention"}
    assert event["metadata"]["reason"] == retention.REASON
    receipt = archive.store.receipts[receipt_id("AROARETENTION", "retention", incident)]
    assert (receipt["incidentId"], receipt["operation"]) == (incident, "change-state")


async def test_an_auditor_finds_the_receipt_by_the_incidents_id() -> None:
    archive = Archive()
    incident = await archive.closed("one")
    await archive.run()
    reading = ReadingService(archive.store, registry(entry("auditor", "AROAAUDITOR", operations=("audit",))), NO_RULES)
    (receipt,) = await reading.receipts(Sender("AROAAUDITOR"), incident, ROLE.principal)
    assert (receipt.incident_id, receipt.key_kind, receipt.result.state) == (incident, "retention", State.ARCHIVED)


async def test_a_second_run_finds_nothing_to_do() -> None:
    archive = Archive()
    await archive.closed("one")
    await archive.run()
    before = (list(archive.store.feed), dict(archive.store.receipts), dict(archive.store.incidents))
    run = await archive.run()
    assert (run.archived, run.whole, archive.told) == (0, True, [])
    assert (archive.store.feed, archive.store.receipts, archive.store.incidents) == before


async def test_it_is_archived_only_after_longer_than_the_parameter() -> None:
    archive = Archive()
    incident = await archive.closed("one", days_ago=90, open_for=DAY)
    await archive.run()
    assert archive.state(incident) == "CLOSED"
    archive.clock.jump(timedelta(microseconds=1))
    await archive.run()
    assert archive.state(incident) == "ARCHIVED"


@pytest.mark.parametrize(
    ("kind", "fields"),
    [("add-note", {"note": "the post-mortem is out"}), ("attach-evidence", {"evidence": [{"kind": "log", "ref": "r"}]})],
)
async def test_whatever_happens_after_the_closing_begins_the_wait_anew(kind: str, fields: dict[str, Any]) -> None:
    archive = Archive()
    incident = await archive.closed("one", days_ago=100)
    archive.clock.time = NOW - 10 * DAY
    applied(await archive.world.order(command_body(kind, incident, **fields), AUTOMATION))
    archive.clock.time = NOW
    await archive.run()
    assert archive.state(incident) == "CLOSED"
    archive.clock.jump(81 * DAY)
    await archive.run()
    assert archive.state(incident) == "ARCHIVED"


async def test_only_what_is_closed_is_ever_archived() -> None:
    archive = Archive()
    archive.clock.time = NOW - 1000 * DAY
    path = ("MITIGATING", "RESOLVED", "CLOSED")
    found = {}
    for steps in range(3):
        incident = applied(await archive.world.offer(candidate_body(dedupKey=f"key-{steps}"))).incident_id
        await archive.world.walk(incident, *path[:steps])
        found[incident] = archive.state(incident)
    cancelled = applied(await archive.world.offer(candidate_body(dedupKey="cancelled"))).incident_id
    await archive.world.walk(cancelled, "CANCELLED")
    pending = applied(await archive.world.offer(candidate_body(dedupKey="pending", confidence=0.1))).incident_id
    archive.clock.time = NOW
    assert (await archive.run()).archived == 0
    assert {incident: archive.state(incident) for incident in found} == found
    assert (archive.state(cancelled), archive.state(pending)) == ("CANCELLED", "PENDING")


@pytest.mark.parametrize("after", [timedelta(), 36_500 * DAY], ids=["off", "longer than there were incidents"])
async def test_no_time_and_an_endless_one_archive_nothing(after: timedelta) -> None:
    archive = Archive(after=after)
    incident = await archive.closed("one", days_ago=5000)
    assert (await archive.run()).archived == 0
    assert archive.state(incident) == "CLOSED"


# --- bounds ----------------------------------------------------------------------------------------------------------


async def test_a_run_takes_as_many_as_its_bound_and_the_next_ones_go_on() -> None:
    archive = Archive(archived_max=3)
    for number in range(7):
        await archive.closed(f"key-{number}", days_ago=100 + number)
    went = []
    for _ in range(4):
        run = await archive.run()
        went.append((run.archived, len(run.waiting)))
    assert went == [(3, 4), (3, 1), (1, 0), (0, 0)]


async def test_what_has_waited_longest_is_never_kept_from_its_turn_by_younger_ones() -> None:
    archive = Archive(archived_max=2)
    old = [await archive.closed(f"old-{age}", days_ago=age) for age in (4000, 1500, 600)]
    for day in range(6):
        # More become due with every run than a run takes.
        for number in range(4):
            await archive.closed(f"young-{day}-{number}", days_ago=91)
        await archive.run()
    assert archive.archived()[:3] == old


async def test_what_is_counted_as_waiting_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "WAITING_MAX", 4)
    archive = Archive(MemoryStore(examined_max=2), archived_max=1)
    for number in range(12):
        await archive.closed(f"key-{number}", days_ago=100 + number)
    run = await archive.run()
    assert (run.archived, run.whole) == (1, False)
    assert 4 <= len(run.waiting) < 11


async def test_nothing_is_begun_after_the_deadline_and_the_rest_is_told_as_waiting() -> None:
    class Slow(MemoryStore):
        async def commit(self, commit: Commit) -> CommitResult:
            archive.clock.elapsed_s += 1
            return await super().commit(commit)

    archive = Archive(Slow())
    for number in range(30):
        await archive.closed(f"key-{number}")
    archive.clock.elapsed_s = 0
    run = await archive.run(deadline=10)
    assert (run.archived + len(run.waiting), run.failed, run.whole) == (30, 0, False)
    assert 8 <= run.archived <= 16
    assert (await archive.run()).archived == 30 - run.archived


def test_the_spans_are_all_the_time_there_is_without_a_gap_and_oldest_first() -> None:
    for first in (timedelta(seconds=1), 90 * DAY, 3650 * DAY):
        found = spans(NOW, first)
        assert (found[0][0], found[-1][1]) == (datetime(2000, 1, 1, tzinfo=UTC), NOW)
        assert all(one[1] == other[0] for one, other in pairwise(found))
        assert len(found) < 20


# --- what fails ------------------------------------------------------------------------------------------------------


class Failing(MemoryStore):
    """Fails when an incident of `errors` is to be archived."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.errors: dict[str, Exception] = {}

    async def commit(self, commit: Commit) -> CommitResult:
        if commit.incident is not None and commit.incident.incident_id in self.errors:
            raise self.errors[commit.incident.incident_id]
        return await super().commit(commit)


async def test_one_that_fails_however_it_does_stops_no_other() -> None:
    store = Failing()
    archive = Archive(store)
    names = [await archive.closed(f"key-{number}", days_ago=200 - number) for number in range(12)]
    store.errors = {names[0]: Corrupt("a contradiction", names[0]), names[5]: Unavailable("down"), names[7]: KeyError("x")}
    used = Request.of(ROLE.principal, Key("retention", names[3]), "change-state", "f" * 64)
    await store.commit(Commit(receipts=(used.receipt(Result(answer=Answer.UNCHANGED), None, NOW),)))
    run = await archive.run()
    assert (run.archived, run.refused, run.failed, run.whole) == (8, 1, 3, True)
    wrong = {one.incident_id: one for one in archive.told if one.error is not None or one.refused}
    assert wrong.keys() == {names[0], names[3], names[5], names[7]}
    outcome = wrong[names[3]].outcome
    assert isinstance(outcome, Refused)
    assert outcome.refusal.code is Code.KEY_REUSED
    store.errors = {}
    assert (await archive.run()).archived == 3, "the next run takes up what failed"


class Unreadable(Failing):
    """Holds a row that no page with it can be read for, as a table does."""

    bad = ""

    async def page(self, listing: Listing) -> Page:
        page = await super().page(listing)
        if any(row.incident_id == self.bad for row in page.incidents):
            raise Corrupt("a stored incident cannot be read", self.bad)
        return page


@pytest.mark.parametrize("examined_max", [3, 1000])
async def test_a_row_that_cannot_be_read_hides_no_other(examined_max: int) -> None:
    store = Unreadable(examined_max=examined_max)
    archive = Archive(store)
    names = [await archive.closed(f"key-{number}", days_ago=200 - number) for number in range(9)]
    store.bad, store.errors = names[4], {names[8]: Unavailable("down")}
    run = await archive.run()
    assert (run.archived, run.failed, run.whole) == (7, 2, True)
    assert {name for name in names if archive.state(name) == "CLOSED"} == {names[4], names[8]}
    told = {one.incident_id: type(one.error) for one in archive.told if one.error is not None}
    assert told == {names[4]: Corrupt, names[8]: Unavailable}
    assert len(archive.told) == 9, "each once, also where a page was read twice"


async def test_a_table_that_cannot_be_read_ends_the_run() -> None:
    class Down(MemoryStore):
        async def page(self, listing: Listing) -> Page:
            raise Unavailable("Query: throttled")

    archive = Archive(Down())
    await archive.closed("one")
    run = await archive.run()
    assert (run.archived, run.failed, run.whole, len(archive.told)) == (0, 1, False, 1)


async def test_a_table_that_takes_no_writes_is_left_alone_after_a_few() -> None:
    store = Failing()
    archive = Archive(store)
    names = [await archive.closed(f"key-{number}") for number in range(40)]
    store.errors = dict.fromkeys(names, Unavailable("TransactWriteItems: 503"))
    run = await archive.run()
    assert (run.failed, run.whole, len(run.waiting)) == (8, False, 32)


async def test_where_the_registry_does_not_know_the_role_nothing_is_archived_and_little_is_tried() -> None:
    archive = Archive(known=registry())
    for number in range(40):
        await archive.closed(f"key-{number}")
    run = await archive.run()
    assert (run.archived, run.refused, len(run.waiting), run.whole) == (0, 8, 32, False)
    assert {outcome.refusal.code for one in archive.told if isinstance(outcome := one.outcome, Refused)} == {
        Code.PRINCIPAL_UNKNOWN
    }


# --- races and clocks ------------------------------------------------------------------------------------------------


async def test_evidence_that_comes_in_between_keeps_the_incident_closed() -> None:
    class Racing(MemoryStore):
        async def page(self, listing: Listing) -> Page:
            page = await super().page(listing)
            for row in page.incidents:
                late = command_body("attach-evidence", row.incident_id, evidence=[{"kind": "log", "ref": "late"}])
                applied(await archive.world.order(late, AUTOMATION))
            return page

    archive = Archive(Racing())
    incident = await archive.closed("one")
    run = await archive.run()
    assert (run.archived, run.refused, run.failed) == (0, 0, 0)
    assert [one.moved for one in archive.told] == [True]
    assert (archive.state(incident), archive.world.types(incident)[-1]) == ("CLOSED", "EvidenceAttached")
    # Nothing of it is remembered that could keep it from being archived later.
    assert receipt_id(ROLE.principal, "retention", incident) not in archive.store.receipts


async def test_two_runs_at_once_have_one_effect_and_one_receipt() -> None:
    archive = Archive(InterleavedStore())
    names = [await archive.closed(f"key-{number}") for number in range(20)]
    runs = await asyncio.gather(archive.run(), archive.run())
    assert sum(run.archived for run in runs) == 20
    assert (sum(run.refused for run in runs), sum(run.failed for run in runs)) == (0, 0)
    assert sorted(archive.archived()) == sorted(names)
    assert sum(receipt["keyKind"] == "retention" for receipt in archive.store.receipts.values()) == 20


async def test_the_one_who_comes_second_gets_the_first_answer() -> None:
    archive = Archive()
    incident = await archive.closed("one")
    seen = await archive.store.load(incident)
    assert seen is not None
    first, second = [await archive.service.archive(seen, DEADLINE) for _ in range(2)]
    assert isinstance(first, Applied)
    assert isinstance(second, Replayed)
    assert second.receipt == first.receipt


@pytest.mark.parametrize(("own", "asked"), [(365, 0), (0, 365), (-365, 0), (0, -365)])
async def test_a_clock_that_has_jumped_archives_nothing_too_early(own: int, asked: int) -> None:
    archive = Archive()
    incident = await archive.closed("one", days_ago=10)
    archive.clock.jump(own * DAY)
    await archive.run(NOW + asked * DAY)
    assert archive.state(incident) == "CLOSED"


async def test_both_clocks_are_right_and_it_is_archived() -> None:
    archive = Archive()
    incident = await archive.closed("one")
    await archive.run(NOW - timedelta(seconds=2))
    assert archive.state(incident) == "ARCHIVED"
