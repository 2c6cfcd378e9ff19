"""What every incident store promises. The stores differ in nothing that a test here can see."""

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from pipeline.domain.canonical import Document
from pipeline.domain.envelope import IncidentEvent, event_hash
from pipeline.domain.errors import Corrupt
from pipeline.domain.ids import pointer_id
from pipeline.domain.incidents import Incident
from pipeline.domain.transitions import State
from pipeline.services.listing import list_incidents
from pipeline.services.ports import (
    Commit,
    CommitResult,
    Committed,
    IncidentStore,
    Listing,
    PointerMoved,
    ReceiptExists,
    VersionMoved,
)
from tests.contract.commits import NOW, attaching, beginning, moving, receipt
from tests.contract.worlds import World, raced


async def apply(store: IncidentStore, commit: Commit) -> Incident:
    """Commit what must succeed; return the incident after it."""
    assert await store.commit(commit) == Committed()
    assert commit.incident is not None
    return commit.incident


async def collect(documents: AsyncIterator[Document]) -> list[Document]:
    return [document async for document in documents]


async def refused(world: World, commit: Commit) -> CommitResult:
    """Commit what must be refused; nothing at all may have been written."""
    before = await world.everything()
    result = await world.store.commit(commit)
    assert result != Committed()
    assert await world.everything() == before
    return result


# --- writing ---------------------------------------------------------------------------------------------------------


async def test_a_first_commit_stores_event_row_pointer_and_receipt(world: World) -> None:
    commit = beginning("k1")
    incident = await apply(world.store, commit)
    assert await world.store.load(incident.incident_id) == incident
    assert await world.store.load_pointer("checkout", "checkout-5xx") == commit.pointer
    assert await world.store.load_receipt(commit.receipts[0].id) == commit.receipts[0]
    assert await collect(world.store.history(incident.incident_id)) == [commit.events[0].to_document()]


async def test_nothing_is_there_before_it_is_written(world: World) -> None:
    incident = beginning("k1").incident
    assert incident is not None
    assert await world.store.load(incident.incident_id) is None
    assert await world.store.load_pointer("checkout", "checkout-5xx") is None
    assert await world.store.load_receipt(receipt("k1").id) is None
    assert await collect(world.store.history(incident.incident_id)) == []
    assert await collect(world.store.scan_events()) == []
    assert await list_incidents(world.store, Listing()) == ()


async def test_what_was_stored_verifies_after_the_read(world: World) -> None:
    first = await apply(world.store, beginning("k1"))
    await apply(world.store, attaching(first, "k2"))
    documents = await collect(world.store.history(first.incident_id))
    assert [event_hash(document) for document in documents] == [document["hash"] for document in documents]
    assert [IncidentEvent.from_document(document).to_document() for document in documents] == documents


async def test_a_second_copy_is_answered_with_the_first_receipt_and_writes_nothing(world: World) -> None:
    commit = beginning("k1")
    await apply(world.store, commit)
    assert await refused(world, commit) == ReceiptExists((commit.receipts[0],))


async def test_a_reused_key_is_answered_with_the_receipt_of_its_first_use(world: World) -> None:
    first = beginning("k1")
    await apply(world.store, first)
    other = beginning("k1", dedup_key="another")
    other = replace(other, receipts=(receipt("k1", body="f"),))
    result = await refused(world, other)
    assert result == ReceiptExists((first.receipts[0],))


async def test_a_receipt_that_exists_answers_before_a_moved_version(world: World) -> None:
    first = await apply(world.store, beginning("k1"))
    await apply(world.store, attaching(first, "k2"))
    assert isinstance(await refused(world, attaching(first, "k2")), ReceiptExists)


async def test_another_first_occurrence_is_told_the_pointer_and_the_row_in_the_way(world: World) -> None:
    commit = beginning("k1")
    incident = await apply(world.store, commit)
    assert commit.pointer is not None
    assert await refused(world, beginning("k2")) == PointerMoved(commit.pointer, incident)


async def test_a_later_occurrence_follows_the_one_before(world: World) -> None:
    first = await apply(world.store, beginning("k1"))
    later = beginning("k2", occurrence=2)
    second = await apply(world.store, later)
    assert await world.store.load_pointer("checkout", "checkout-5xx") == later.pointer
    assert await world.store.load(first.incident_id) == first
    assert await world.store.load(second.incident_id) == second


async def test_a_later_occurrence_that_began_elsewhere_is_in_the_way(world: World) -> None:
    await apply(world.store, beginning("k1"))
    later = beginning("k2", occurrence=2)
    second = await apply(world.store, later)
    assert later.pointer is not None
    assert await refused(world, beginning("k3", occurrence=2)) == PointerMoved(later.pointer, second)


async def test_a_first_occurrence_meets_the_pointer_of_a_later_one(world: World) -> None:
    first = await apply(world.store, beginning("k1"))
    later = beginning("k2", occurrence=2)
    await apply(world.store, later)
    assert later.pointer is not None
    assert await refused(world, beginning("k3")) == PointerMoved(later.pointer, first)


async def test_a_later_occurrence_without_any_pointer_is_corruption(world: World) -> None:
    await apply(world.store, beginning("k1"))
    await world.drop_pointer(pointer_id("checkout", "checkout-5xx"))
    before = await world.everything()
    with pytest.raises(Corrupt, match="no pointer"):
        await world.store.commit(beginning("k2", occurrence=2))
    assert await world.everything() == before


async def test_a_moved_version_is_told_with_the_row_as_it_is_now(world: World) -> None:
    first = await apply(world.store, beginning("k1"))
    second = await apply(world.store, attaching(first, "k2"))
    assert await refused(world, attaching(first, "k3")) == VersionMoved(second)


async def test_an_unknown_incident_is_told_as_no_row(world: World) -> None:
    first = beginning("k1").incident
    assert first is not None
    assert await refused(world, attaching(first, "k2")) == VersionMoved(None)


async def test_an_event_that_the_row_does_not_know_is_corruption(world: World) -> None:
    first = await apply(world.store, beginning("k1"))
    following = attaching(first, "k2")
    await world.put_event(following.events[0].to_document())
    before = await world.everything()
    with pytest.raises(Corrupt, match="does not know"):
        await world.store.commit(following)
    assert await world.everything() == before


async def test_an_existing_receipt_refuses_all_and_all_that_exist_are_told_in_their_order(world: World) -> None:
    first = await apply(world.store, beginning("k1"))
    joined = attaching(first, "k2", "k3")
    await apply(world.store, joined)
    by_key = {record.idempotency_key: record for record in joined.receipts}
    result = await refused(world, attaching(first, "k4", "k3", "k5", "k2", "k6"))
    assert result == ReceiptExists((by_key["k3"], by_key["k2"]))
    for key in ("k4", "k5", "k6"):
        assert await world.store.load_receipt(receipt(key).id) is None


async def test_receipts_alone_can_be_committed_once(world: World) -> None:
    alone = Commit((receipt("k1"), receipt("k2")))
    assert await world.store.commit(alone) == Committed()
    assert await refused(world, Commit((receipt("k2"),))) == ReceiptExists((receipt("k2"),))


async def test_several_events_of_one_commit_are_stored_together(world: World) -> None:
    first = await apply(world.store, beginning("k1"))
    one = attaching(first, "k2")
    assert one.incident is not None
    two = attaching(one.incident)
    both = Commit(one.receipts, one.events + two.events, two.incident)
    after = await apply(world.store, both)
    assert after.version == 3
    assert [event["sequence"] for event in await collect(world.store.history(first.incident_id))] == [1, 2, 3]


# --- reading ---------------------------------------------------------------------------------------------------------


async def test_a_history_comes_in_order_over_every_page(world: World) -> None:
    incident = await apply(world.store, beginning("k1"))
    # Thirty events of about 50 KB: more than the 1 MB that one page holds.
    for number in range(30):
        incident = await apply(world.store, attaching(incident, f"e{number}", note_bytes=500, items=95))
    identity = incident.incident_id
    documents = await collect(world.store.history(identity))
    assert [document["sequence"] for document in documents] == list(range(1, 32))
    assert [document["sequence"] for document in await collect(world.store.history(identity, after=28))] == [29, 30, 31]
    assert await collect(world.store.history(identity, after=31)) == []
    for limit in (1, 24, 25, 100):
        assert await collect(world.store.history(identity, 6, limit)) == documents[6 : 6 + limit]
    scanned = await collect(world.store.scan_events())
    assert sorted(scanned, key=lambda document: document["sequence"]) == documents


async def test_a_history_is_of_one_incident_and_a_scan_of_all(world: World) -> None:
    one = await apply(world.store, beginning("k1", dedup_key="one"))
    two = await apply(world.store, beginning("k2", dedup_key="two"))
    await apply(world.store, attaching(two, "k3"))
    assert len(await collect(world.store.history(one.incident_id))) == 1
    assert len(await collect(world.store.scan_events())) == 3


def listed(incidents: tuple[Incident, ...]) -> list[str]:
    return [incident.metadata.dedup_key for incident in incidents]


async def several(store: IncidentStore, count: int) -> None:
    """Store incidents that alternate between two services and two states, the last one newest."""
    for number in range(count):
        key, service = f"d{number:03}", ("checkout", "search")[number % 2]
        commit = beginning(key, service=service, dedup_key=key, now=NOW + timedelta(seconds=number))
        incident = await apply(store, commit)
        if number % 4 < 2:
            await apply(store, moving(incident, State.OPEN, f"{key}-open"))


async def test_a_listing_is_newest_first_and_filters(world: World) -> None:
    await several(world.store, 12)
    found = await list_incidents(world.store, Listing())
    assert listed(found) == [f"d{number:03}" for number in reversed(range(12))]
    by_state = await list_incidents(world.store, Listing(state=State.OPEN))
    assert listed(by_state) == ["d009", "d008", "d005", "d004", "d001", "d000"]
    by_service = await list_incidents(world.store, Listing(service="search"))
    assert listed(by_service) == ["d011", "d009", "d007", "d005", "d003", "d001"]
    both = await list_incidents(world.store, Listing(state=State.OPEN, service="search"))
    assert listed(both) == ["d009", "d005", "d001"]
    assert await list_incidents(world.store, Listing(state=State.CLOSED)) == ()
    assert await list_incidents(world.store, Listing(service="nobody")) == ()


async def test_a_listing_ends_at_its_limit(world: World) -> None:
    await several(world.store, 12)
    for limit in (1, 2, 5, 12, 50):
        newest = [f"d{number:03}" for number in reversed(range(12))][:limit]
        assert listed(await list_incidents(world.store, Listing(limit=limit))) == newest
    both = Listing(state=State.OPEN, service="search", limit=2)
    assert listed(await list_incidents(world.store, both)) == ["d009", "d005"]


async def test_a_listing_of_many_is_longer_than_one_batch_and_shorter_than_one_partition(world: World) -> None:
    for number in range(120):
        await apply(world.store, beginning(f"k{number}", dedup_key=f"d{number:03}", now=NOW + timedelta(seconds=number)))
    newest = [f"d{number:03}" for number in reversed(range(120))]
    for limit in (1, 4, 110):
        assert listed(await list_incidents(world.store, Listing(limit=limit))) == newest[:limit]
        assert listed(await list_incidents(world.store, Listing(service="checkout", limit=limit))) == newest[:limit]


async def test_a_listing_finds_the_one_match_behind_many_newer_incidents(world: World) -> None:
    oldest = await apply(world.store, beginning("k", dedup_key="oldest"))
    opened = await apply(world.store, moving(oldest, State.OPEN, "k-open"))
    for number in range(40):
        await apply(world.store, beginning(f"k{number}", dedup_key=f"d{number}", now=NOW + timedelta(seconds=1 + number)))
    assert await list_incidents(world.store, Listing(state=State.OPEN, service="checkout", limit=1)) == (opened,)


# --- races -----------------------------------------------------------------------------------------------------------


async def test_of_32_commits_on_one_version_exactly_one_takes_effect(world: World, rng: random.Random) -> None:
    first = await apply(world.store, beginning("k1"))
    commits = [attaching(first, f"r{number}") for number in range(32)]
    rng.shuffle(commits)

    results = await raced(world, commits)
    assert [type(result) for result in results].count(Committed) == 1
    assert [type(result) for result in results].count(VersionMoved) == 31
    winner = commits[results.index(Committed())]
    assert await world.store.load(first.incident_id) == winner.incident
    assert len(await collect(world.store.history(first.incident_id))) == 2
    kept = [await world.store.load_receipt(receipt(f"r{number}").id) for number in range(32)]
    assert [record for record in kept if record is not None] == list(winner.receipts)
