"""Deterministic ids: the same facts give the same id on every machine, in every year.

Each id hashes a canonical JSON array with a name and version in front, never joined strings, so no two kinds and no two
splits of the same text can collide. Nothing here is random.
"""

from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from hashlib import sha1
from typing import Final
from uuid import UUID

from pipeline.domain.canonical import Document, canonical_bytes, digest, format_time

# Fixed for ever: uuid5 of the DNS namespace and "opx.incidents".
NAMESPACE: Final = UUID("407e5554-6739-53e3-8ad8-d96d390bbc91")

# The digit of a uuid that tells its variant: two of its bits are fixed.
_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}

STATE_SHARDS: Final = 8
SERVICE_SHARDS: Final = 4
CREATED_SHARDS: Final = 4


def incident_id(service: str, dedup_key: str, occurrence: int) -> str:
    """Return the id of the `occurrence`-th incident (from 1) of one trouble of one service."""
    return _NAMED(canonical_bytes(["incident/1", service, dedup_key, occurrence]))


def event_id(incident: str, sequence: int) -> str:
    """Return the id of an incident's event: uuid5(incidentId, sequence)."""
    return event_ids(incident)(b"%d" % sequence)


@lru_cache(maxsize=64)
def event_ids(incident: str) -> Callable[[bytes], str]:
    """Return what makes the ids of an incident's events from the digits of their numbers, for those who ask for many."""
    return _uuid5_in(UUID(incident))


def _uuid5_in(namespace: UUID) -> Callable[[bytes], str]:
    """Return what makes a uuid5 of a name, as text: the namespace is hashed once, and no object stands between."""
    begun = sha1(namespace.bytes, usedforsecurity=False)

    def named(name: bytes) -> str:
        whole = begun.copy()
        whole.update(name)
        made = whole.hexdigest()
        return f"{made[:8]}-{made[8:12]}-5{made[13:16]}-{_VARIANT[made[16]]}{made[17:20]}-{made[20:32]}"

    return named


_NAMED: Final = _uuid5_in(NAMESPACE)


def pointer_id(service: str, dedup_key: str) -> str:
    """Return the digest under which the open incident of a key is looked up."""
    return digest(["pointer/1", service, dedup_key])


def receipt_id(principal: str, kind: str, key: str) -> str:
    """Return the digest of a receipt's key; `kind` keeps derived keys apart from those a caller chose."""
    return digest(["receipt/1", principal, kind, key])


def window_id(rule_id: str, version: int, group: Document, starts_at: datetime) -> str:
    """Return the digest under which a correlation window is stored."""
    return digest(["window/1", rule_id, version, group, format_time(starts_at)])


def candidate_id(rule_id: str, version: int, group: Document, starts_at: datetime) -> str:
    """Return the id of a rule's candidate: of its window, never of the detections in it, so that late ones join."""
    return _NAMED(canonical_bytes(["candidate/1", rule_id, version, group, format_time(starts_at)]))


def declared_key(principal: str, key: str) -> str:
    """Return the dedupKey of a declaration that names none."""
    return "declared:" + digest(["declared/1", principal, key])[:32]


def shard(incident: str, shards: int) -> int:
    """Return which of `shards` index partitions an incident is listed in."""
    return int(UUID(incident)) % shards
