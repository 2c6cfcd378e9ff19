"""Deterministic ids: the same facts give the same id on every machine, in every year.

Each id hashes a canonical JSON array with a name and version in front, never joined strings, so no two kinds and no two
splits of the same text can collide. Nothing here is random.
"""

from datetime import datetime
from functools import lru_cache
from hashlib import sha1
from typing import Final
from uuid import UUID, uuid5

from pipeline.domain.canonical import Document, canonical_bytes, digest, format_time

# Fixed for ever: uuid5 of the DNS namespace and "opx.incidents".
NAMESPACE: Final = UUID("407e5554-6739-53e3-8ad8-d96d390bbc91")

_HEX: Final = "0123456789abcdef"

STATE_SHARDS: Final = 8
SERVICE_SHARDS: Final = 4
CREATED_SHARDS: Final = 4


def incident_id(service: str, dedup_key: str, occurrence: int) -> str:
    """Return the id of the `occurrence`-th incident (from 1) of one trouble of one service."""
    return str(uuid5(NAMESPACE, canonical_bytes(["incident/1", service, dedup_key, occurrence]).decode()))


def event_id(incident: str, sequence: int) -> str:
    """Return the id of an incident's event: uuid5(incidentId, sequence)."""
    # As uuid5 does it, without the object between: replay asks for one an event.
    made = sha1(_namespace_of(incident) + b"%d" % sequence, usedforsecurity=False).hexdigest()
    variant = _HEX[int(made[16], 16) & 3 | 8]
    return f"{made[:8]}-{made[8:12]}-5{made[13:16]}-{variant}{made[17:20]}-{made[20:32]}"


@lru_cache(maxsize=64)
def _namespace_of(incident: str) -> bytes:
    return UUID(incident).bytes


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
    return str(uuid5(NAMESPACE, canonical_bytes(["candidate/1", rule_id, version, group, format_time(starts_at)]).decode()))


def declared_key(principal: str, key: str) -> str:
    """Return the dedupKey of a declaration that names none."""
    return "declared:" + digest(["declared/1", principal, key])[:32]


def shard(incident: str, shards: int) -> int:
    """Return which of `shards` index partitions an incident is listed in."""
    return int(UUID(incident)) % shards
