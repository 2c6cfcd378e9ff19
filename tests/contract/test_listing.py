"""Listings, page by page, on every store: nothing that matched throughout is missed or shown twice, whoever else writes."""

import asyncio
import itertools
import random
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from pipeline.domain.ids import STATE_SHARDS, incident_id, shard
from pipeline.domain.incidents import Incident
from pipeline.domain.transitions import Severity, State
from pipeline.services.listing import list_incidents
from pipeline.services.ports import IncidentStore, Listing, Page, Position, position
from pipeline.stores.dynamodb import DynamoIncidentStore
from pipeline.stores.memory import MemoryStore
from tests.contract.commits import NOW, attaching, beginning, moving, regrading
from tests.contract.test_incident_store import apply
from tests.contract.worlds import World

SERVICES = ("checkout", "search", "checkout#1")
PATH = (State.OPEN, State.MITIGATING, State.RESOLVED)
SEVERITIES = (Severity.SEV1, Severity.SEV2, Severity.SEV3)
SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)


async def stored(store: IncidentStore, rng: random.Random, number: int, now: datetime, steps: int | None = None) -> Incident:
    """Store an incident of a random service and severity, some steps on its way."""
    key = f"d{number:03}"
    commit = beginning(key, service=rng.choice(SERVICES), dedup_key=key, severity=rng.choice(SEVERITIES), now=now)
    incident = await apply(store, commit)
    for state in PATH[: rng.randrange(len(PATH) + 1) if steps is None else steps]:
        incident = await apply(store, moving(incident, state, f"{key}-{state}"))
    return incident


async def pages(store: IncidentStore, listing: Listing) -> list[Page]:
    """Read a listing to its end, each page of `listing.limit`; every page goes on further down than the one before."""
    found = [await store.page(listing)]
    while (place := found[-1].next) is not None:
        assert listing.before is None or place < listing.before
        listing = replace(listing, before=place)
        found.append(await store.page(listing))
    assert all(len(page.incidents) <= listing.limit for page in found)
    return found


def joined(found: list[Page]) -> list[Incident]:
    return [incident for page in found for incident in page.incidents]


def bound(store: IncidentStore, examined_max: int) -> None:
    """Let a store examine as few entries for one page as makes short pages."""
    assert isinstance(store, MemoryStore | DynamoIncidentStore)
    store.examined_max = examined_max


def newest_first(incidents: list[Incident]) -> list[Incident]:
    return sorted(incidents, key=lambda incident: (incident.created_at, incident.incident_id), reverse=True)


# --- what is found ---------------------------------------------------------------------------------------------------


async def test_every_combination_of_filters_finds_what_a_look_at_every_incident_finds(
    world: World, rng: random.Random
) -> None:
    # A few at each time, so that times decide nothing alone.
    every = [await stored(world.store, rng, number, NOW + rng.randrange(12) * SECOND) for number in range(40)]
    times = (None, NOW + 3 * SECOND, NOW + 9 * SECOND)
    filters = itertools.product((None, State.OPEN, State.CLOSED), (None, *SERVICES[1:]), (None, Severity.SEV1), times, times)
    for state, service, severity, since, until in filters:
        expected = [
            incident
            for incident in newest_first(every)
            if state in (None, incident.state)
            and service in (None, incident.service)
            and severity in (None, incident.severity)
            and not (since and incident.created_at < since)
            and not (until and incident.created_at >= until)
        ]
        size = rng.choice((2, 5, 15, 100))
        bound(world.store, rng.choice((8, 24, 1000)))
        listing = Listing(state=state, service=service, severity=severity, since=since, until=until, limit=size)
        assert joined(await pages(world.store, listing)) == expected, listing
        assert await list_incidents(world.store, listing) == tuple(expected[:size]), listing


async def test_pages_of_every_size_hold_each_incident_once_in_order(world: World, rng: random.Random) -> None:
    every = [await stored(world.store, rng, number, NOW + rng.randrange(6) * SECOND) for number in range(17)]
    for size in range(1, 19):
        for listing in (Listing(limit=size), Listing(service="search", limit=size), Listing(state=State.OPEN, limit=size)):
            matching = [incident for incident in newest_first(every) if listing.matches(incident)]
            assert joined(await pages(world.store, listing)) == matching, listing


@pytest.mark.parametrize("examined_max", [1, 12, 1000])
async def test_incidents_that_share_a_key_of_the_index_are_neither_lost_nor_repeated(
    world: World, rng: random.Random, examined_max: int
) -> None:
    bound(world.store, examined_max)
    every = []
    for number in range(24):
        # Of one microsecond; of two beginnings and, by the last digits, of two partitions of each index.
        made_up = uuid.UUID(int=rng.getrandbits(128)).hex
        digits = "abcdef0" + "12"[number % 2] + made_up[8:-2] + ("00", "01")[number // 2 % 2]
        commit = beginning(f"k{number}", dedup_key=f"d{number}", identity=str(uuid.UUID(digits)))
        every.append(await apply(world.store, commit))
    around = [
        await stored(world.store, rng, 100 + n, NOW + moment, 0) for n, moment in enumerate((MICROSECOND, -MICROSECOND))
    ]
    assert len({shard(one.incident_id, STATE_SHARDS) for one in every}) == 2
    for size in (1, 2, 5, 23, 30):
        for listing in (
            Listing(limit=size),
            Listing(service="checkout", limit=size),
            Listing(state=State.PENDING, limit=size),
        ):
            matching = [incident for incident in newest_first(every + around) if listing.matches(incident)]
            assert joined(await pages(world.store, listing)) == matching, listing


async def test_a_listing_begins_with_its_first_moment_and_ends_before_its_last(world: World) -> None:
    moments = [NOW + number * MICROSECOND for number in range(4)]
    every = [await apply(world.store, beginning(f"k{n}", dedup_key=f"d{n}", now=now)) for n, now in enumerate(moments)]
    for first, last in itertools.product(range(4), repeat=2):
        listing = Listing(since=moments[first], until=moments[last])
        assert joined(await pages(world.store, listing)) == every[first:last][::-1]
    assert joined(await pages(world.store, Listing(since=moments[2]))) == [every[3], every[2]]
    assert joined(await pages(world.store, Listing(until=moments[2]))) == [every[1], every[0]]


async def test_a_listing_goes_on_behind_a_place_that_no_incident_has(world: World) -> None:
    every = [await apply(world.store, beginning(f"k{n}", dedup_key=f"d{n}", now=NOW + n * SECOND)) for n in range(4)]
    for moment, identity, behind in (
        (NOW + SECOND, "ffffffff-ffff-ffff-ffff-ffffffffffff", every[1::-1]),
        (NOW + SECOND, "00000000-0000-0000-0000-000000000000", every[:1]),
        (NOW + SECOND, every[1].incident_id, every[:1]),
        (NOW + SECOND, "", every[:1]),
        (NOW + 9 * SECOND, "", every[::-1]),
        (NOW, "", []),
    ):
        listing = Listing(before=Position(moment, identity), limit=2)
        assert joined(await pages(world.store, listing)) == behind
    listing = Listing(before=position(every[3]), until=NOW + 2 * SECOND, since=NOW + SECOND)
    assert joined(await pages(world.store, listing)) == [every[1]]


async def test_a_rare_match_is_found_by_short_pages_of_bounded_work(world: World) -> None:
    oldest = await apply(world.store, beginning("k", dedup_key="oldest", severity=Severity.SEV1))
    for number in range(60):
        await apply(world.store, beginning(f"k{number}", dedup_key=f"d{number}", now=NOW + (1 + number) * SECOND))
    bound(world.store, 20)
    for listing in (
        Listing(severity=Severity.SEV1),
        Listing(service="checkout", severity=Severity.SEV1),
        Listing(state=State.PENDING, severity=Severity.SEV1),
    ):
        found = await pages(world.store, listing)
        assert joined(found) == [oldest]
        # None walks them all; and none is for nothing.
        assert 61 / 24 <= len(found) <= 61
        assert found[0] == Page((), found[0].next)
        assert await list_incidents(world.store, listing) == (oldest,)
    bound(world.store, 1000)
    assert await world.store.page(Listing(severity=Severity.SEV1)) == Page((oldest,), None)


async def test_a_listing_of_nothing_ends_at_once_and_a_full_page_with_the_last_match(world: World) -> None:
    only = await apply(world.store, beginning("k"))
    for limit in (1, 2):
        assert await world.store.page(Listing(limit=limit)) == Page((only,), None)
    for listing in (
        Listing(service="nobody"),
        Listing(state=State.CLOSED),
        Listing(until=NOW),
        Listing(since=NOW, until=NOW),
    ):
        assert await world.store.page(listing) == Page((), None)
    with pytest.raises(ValueError, match="at least 1"):
        Listing(limit=0)


# --- while others write ----------------------------------------------------------------------------------------------

LISTINGS = (
    Listing(),
    Listing(service="checkout"),
    Listing(state=State.OPEN),
    Listing(severity=Severity.SEV1),
    Listing(service="checkout", state=State.OPEN, severity=Severity.SEV1),
)


class Others:
    """What others do meanwhile: half of the incidents move and change severity, the other half only gathers evidence."""

    def __init__(self, store: IncidentStore, rng: random.Random) -> None:
        self.store = store
        self.rng = rng
        self.settled: list[Incident] = []
        self.moving: list[Incident] = []
        self.writes = 0

    async def begin(self, count: int) -> None:
        for number in range(count):
            now = NOW + self.rng.randrange(count // 2) * SECOND
            commit = beginning(f"k{number}", dedup_key=f"d{number}", severity=Severity.SEV1, now=now)
            opened = moving(await apply(self.store, commit), State.OPEN, f"k{number}-open")
            (self.settled, self.moving)[number % 2].append(await apply(self.store, opened))

    async def write(self) -> None:
        self.writes += 1
        key = f"w{self.writes}"
        deeds = [self.create(key), self.gather(key)]
        deeds += [self.move(f"{key}-{number}", self.moving.pop(0)) for number in range(min(2, len(self.moving)))]
        await asyncio.gather(*deeds)

    async def create(self, key: str) -> None:
        # In front of what is listed, behind it, and amid it: hosts' clocks differ.
        now = NOW + self.rng.randrange(-10, 60) * SECOND
        incident = await apply(self.store, beginning(key, dedup_key=key, severity=Severity.SEV1, now=now))
        await apply(self.store, moving(incident, State.OPEN, f"{key}-open"))

    async def gather(self, key: str) -> None:
        number = self.rng.randrange(len(self.settled))
        self.settled[number] = await apply(self.store, attaching(self.settled[number], f"{key}-evidence"))

    async def move(self, key: str, incident: Incident) -> None:
        if self.rng.random() < 0.5:
            incident = await apply(self.store, regrading(incident, Severity.SEV4, f"{key}-severity"))
        else:
            incident = await apply(self.store, moving(incident, State.MITIGATING, f"{key}-state"))
        await apply(self.store, attaching(incident, f"{key}-more"))


async def at_once(read: Awaitable[Page], write: Callable[[], Awaitable[Any]]) -> Page:
    page, _ = await asyncio.gather(read, write())
    return page


@pytest.mark.parametrize("listing", LISTINGS)
async def test_a_listing_while_others_write_misses_and_repeats_nothing(
    world: World, rng: random.Random, listing: Listing
) -> None:
    others = Others(world.store, rng)
    await others.begin(50)
    listing = replace(listing, limit=6)
    bound(world.store, 40)
    found = [await at_once(world.store.page(listing), others.write)]
    while (place := found[-1].next) is not None:
        await others.write()
        found.append(await at_once(world.store.page(replace(listing, before=place)), others.write))
    assert len(found) >= 5
    identities = [incident.incident_id for incident in joined(found)]
    assert len(set(identities)) == len(identities)
    assert joined(found) == newest_first(joined(found))
    assert {incident.incident_id for incident in others.settled} <= set(identities)
    if (listing.state, listing.severity) == (None, None):
        # Nothing that was there at the start can stop matching: what has moved is listed as well.
        assert {incident_id("checkout", f"d{number}", 1) for number in range(50)} <= set(identities)
