"""Deterministic ids: known answers, so that no version of anything can move them, and no two facts that share one."""

from itertools import combinations
from uuid import UUID

from pipeline.domain.ids import (
    CREATED_SHARDS,
    NAMESPACE,
    SERVICE_SHARDS,
    STATE_SHARDS,
    declared_key,
    event_id,
    incident_id,
    pointer_id,
    receipt_id,
    shard,
)
from tests.support.histories import INCIDENT_ID


def test_the_ids_of_known_facts_never_change() -> None:
    assert str(NAMESPACE) == "407e5554-6739-53e3-8ad8-d96d390bbc91"
    assert incident_id("checkout", "checkout-5xx", 1) == "d8ae679e-3e8e-5fc7-b076-51ebb5571b4a"
    assert incident_id("größe", "ключ 😀", 2) == "c8b07a68-4de8-5265-a2c2-18e37813a003"
    assert event_id(INCIDENT_ID, 1) == "f1d191fc-b1a5-582e-8ce0-2222829734e0"
    assert pointer_id("checkout", "checkout-5xx") == "7edabece93dff8a4e88e7f1acaabd484207146bfb4ad42558617aef5fffe68a7"
    assert receipt_id("AROADETECTOR", "caller", "k-1") == "bd50583807266d259959e655186569d73ec273dddb4b9cdf074ae0139c4366f3"
    assert declared_key("AROAOPERATOR", "k-1") == "declared:a4d842e09cd919dfb6fee84d6bd0fedb"


def test_incident_and_event_ids_are_name_based_uuids() -> None:
    assert UUID(INCIDENT_ID).version == UUID(event_id(INCIDENT_ID, 7)).version == 5


def test_the_same_text_split_otherwise_is_another_id() -> None:
    splits = [
        ("a", "bc", 1),
        ("ab", "c", 1),
        ("abc", "", 1),
        ("a", 'b","c', 1),
        ("a", "bc", 11),
        ("A", "bc", 1),
        ("a", "bc ", 1),
    ]
    for one, other in combinations(splits, 2):
        assert incident_id(*one) != incident_id(*other)
        assert one[:2] == other[:2] or pointer_id(*one[:2]) != pointer_id(*other[:2])


def test_each_occurrence_and_each_event_has_its_own_id() -> None:
    assert len({incident_id("checkout", "k", n) for n in range(1, 200)}) == 199
    assert len({event_id(INCIDENT_ID, n) for n in range(1, 200)}) == 199


def test_a_receipt_is_scoped_to_its_principal_and_to_the_kind_of_its_key() -> None:
    ids = {receipt_id(who, kind, "k") for who in ("AROA1", "AROA2") for kind in ("caller", "body", "message", "cloudwatch")}
    assert len(ids) == 8


def test_shards_spread_incidents_evenly() -> None:
    for shards in (STATE_SHARDS, SERVICE_SHARDS, CREATED_SHARDS):
        counts = [0] * shards
        for number in range(4000):
            counts[shard(incident_id("checkout", f"key-{number}", 1), shards)] += 1
        assert min(counts) > 0.8 * 4000 / shards
