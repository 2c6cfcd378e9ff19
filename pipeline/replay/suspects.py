"""What a scan of tables in use found wrong, asked again: each incident by itself, until it holds still.

A scan sees no single moment. So what it found is a suspicion, and what is wrong is what is still wrong when the incident is
read whole, twice, at one version.
"""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Final

from pipeline.domain.divergences import Divergence, Kind
from pipeline.domain.errors import Corrupt
from pipeline.domain.ids import pointer_id
from pipeline.replay.lines import document_of, line_of
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
        suspects.setdefault(divergence.incident_id, []).append(divergence)
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
        of_pointer = one.kind in _OF_POINTERS and await _pointer_is_wrong(one, live)
        # A whole incident that its key's later ones tell of, what was sealed, a receipt under another key than its own:
        # nothing that comes after can make these right.
        gone = one.kind is Kind.MISSING and verified is not None and not verified.exists
        misplaced = one.kind is Kind.RECEIPT and one.where.endswith(": key")
        misplaced = misplaced or (one.kind is Kind.UNREADABLE and one.where.startswith("receipt "))
        if of_pointer or gone or misplaced or one.kind is Kind.SEAL or (not identity and one.kind is Kind.UNREADABLE):
            settled.found.append(one)
    return settled


async def _pointer_is_wrong(one: Divergence, live: LiveReplay) -> bool:
    """Return whether a pointer still does not name an incident of its key, by its number."""
    key = one.where.split()[1].rstrip(":")
    item = await live.stored.row(key)
    if item is None:
        return False
    try:
        pointer = document_of(line_of(item))
        if key != pointer_id(str(pointer.get("service", "")), str(pointer.get("dedupKey", ""))):
            return True
        async for event in live.stored.history(str(pointer.get("incidentId", ""))):
            born = document_of(line_of(event))
            metadata = born.get("metadata")
            expected = {name: metadata.get(name) for name in _NAMES} if isinstance(metadata, dict) else {}
            expected |= {"pk": key, "incidentId": born.get("incidentId")}
            return expected != pointer
    except Corrupt:
        return True
    return True
