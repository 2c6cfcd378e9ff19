"""What a scan of tables in use found wrong, asked again: each incident by itself, until it holds still.

A scan sees no single moment. So what it found is a suspicion, and what is wrong is what is still wrong when the incident is
read whole, twice, at one version. In memory are the suspected incidents' ids, and what is wrong with one of them.
"""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Final

from pipeline.domain.divergences import Divergence, Kind
from pipeline.domain.errors import Corrupt
from pipeline.domain.ids import pointer_id
from pipeline.replay.lines import exact_document_of, is_id, line_of
from pipeline.replay.live import Known, LiveReplay
from pipeline.replay.partition import EVENTS
from pipeline.replay.ranks import Rank
from pipeline.replay.spill import by_key, entry_of, partitions
from pipeline.replay.verifying import Place, divergences

_NAMES: Final = ("service", "dedupKey", "occurrence")
_OF_POINTERS: Final = frozenset({Kind.POINTER, Kind.POINTER_MISSING})


@dataclass(slots=True)
class Settled:
    """What is really wrong, and which incidents changed all the time."""

    found: list[Divergence] = field(default_factory=list)
    unsettled: list[str] = field(default_factory=list)


async def settle(place: Place, live: LiveReplay) -> AsyncIterator[Settled]:
    """Ask again for every incident that a replay of `place` found something wrong with; yield what each comes to."""
    suspects: dict[str, list[Divergence]] = {}
    for divergence in divergences(place):
        of_incident = suspects.setdefault(divergence.incident_id, [])
        # Of the rest it is enough to know that there was something: all of it is asked again.
        if _may_stand(divergence):
            of_incident.append(divergence)
    files = partitions(place.folder / EVENTS)
    digits = len(next(iter(files), ""))
    for part, ids in groupby(sorted(suspects), key=lambda identity: identity[:digits]):
        of_part = list(ids)
        known = _known(place, files.get(part, ()), set(of_part))
        for identity in of_part:
            yield await _asked_again(identity, suspects[identity], known.get(identity, Known()), live)


def _known(place: Place, files: Iterable[Path], wanted: set[str]) -> dict[str, Known]:
    found: dict[str, Known] = {}
    for key, group in by_key(files, place.folder / "runs-again"):
        identity = key.decode()
        if identity not in wanted:
            continue
        known = found[identity] = Known()
        for entry in map(entry_of, group):
            if entry.rank == Rank.RECEIPT:
                known.receipts.append(entry.line)
            elif entry.rank == Rank.EVENT:
                known.version = max(known.version, entry.place)
    return found


async def _asked_again(identity: str, suspected: list[Divergence], known: Known, live: LiveReplay) -> Settled:
    settled = Settled()
    verified = await live.verify(identity, known) if identity else None
    if verified is not None and not verified.settled:
        settled.unsettled.append(identity)
        return settled
    if verified is not None:
        settled.found += verified.found
    told = {(one.kind, one.where) for one in settled.found}
    for one in suspected:
        if (one.kind, one.where) in told:
            continue
        if one.kind in _OF_POINTERS:
            stands = await _pointer_is_wrong(one, live)
        else:
            stands = one.kind is not Kind.MISSING or (verified is not None and not verified.exists)
        if stands:
            settled.found.append(one)
    return settled


def _may_stand(one: Divergence) -> bool:
    """Return whether something can be wrong that its incident, read again, does not show.

    That is its key's pointer, and what nothing that comes after can make right: a whole incident that its key's later ones
    tell of, what was sealed, a receipt that can't be read or lies under another key than its own.
    """
    if one.kind is Kind.UNREADABLE:
        return not one.incident_id or one.where.startswith("receipt ")
    misplaced = one.kind is Kind.RECEIPT and one.where.endswith(": key")
    return misplaced or one.kind in _OF_POINTERS or one.kind in (Kind.MISSING, Kind.SEAL)


async def _pointer_is_wrong(one: Divergence, live: LiveReplay) -> bool:
    """Return whether a pointer still does not name an incident of its key, by its number."""
    key = one.where.split()[1].rstrip(":")
    item = await live.stored.row(key)
    if item is None:
        return False
    try:
        pointer = exact_document_of(line_of(item))
        if key != pointer_id(str(pointer.get("service", "")), str(pointer.get("dedupKey", ""))):
            return True
        named = str(pointer.get("incidentId", ""))
        if not is_id(named.encode()):
            return True
        async for event in live.stored.history(named):
            born = exact_document_of(line_of(event))
            metadata = born.get("metadata")
            expected = {name: metadata.get(name) for name in _NAMES} if isinstance(metadata, dict) else {}
            expected |= {"pk": key, "incidentId": born.get("incidentId")}
            return expected != pointer
    except Corrupt:
        return True
    return True
