"""Replay what was spread into a folder, over as many processes as are asked for, and hand back what came of it.

Synchronous and at home in a thread; knows neither tables nor command line. Whether a divergence counts is for the caller.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pipeline.domain.divergences import Divergence, Kind
from pipeline.domain.promotion import Policies
from pipeline.replay.exports import Export, Folders, Spread, spread_files
from pipeline.replay.partition import EVENTS, FOUND, POINTERS, SEALS, Counts, Wanted, replay_partition
from pipeline.replay.pointers import replay_pointers
from pipeline.replay.ranks import Rank
from pipeline.replay.seals import Sealed
from pipeline.replay.spill import SpillWriter, digits_for, partitions
from pipeline.replay.workers import Beat, Progress, Workers
from pipeline.runtime import shipped

PORTIONS: Final = 4


@dataclass(frozen=True, slots=True)
class Place:
    """Where a replay works, and by which configuration decisions are judged again."""

    folder: Path
    config: Path | None = None
    workers: Workers = field(default_factory=Workers)

    def folders(self, lines: int) -> Folders:
        """Return where entries go, where there are about so many lines."""
        return Folders(self.folder / EVENTS, self.folder / POINTERS, digits_for(lines))


def spread_exports(place: Place, exports: Iterable[Export], only: frozenset[bytes] | None, progress: Progress) -> Spread:
    """Spread every file of every export; `progress` is told how many items are done."""
    exports = tuple(exports)
    folders = place.folders(sum(export.items for export in exports))
    files = [(export.table, file) for export in exports for file in export.files]
    items = sum(file.items for _, file in files)
    # Opening files is dear: each process takes a few of them together, yet so that progress is seen.
    processes = place.workers.worth(items)
    together = max(1, len(files) // (processes * PORTIONS if processes > 1 else 1))
    portions = [tuple(files[start : start + together]) for start in range(0, len(files), together)]
    tasks = [(portion, folders, f"export-{number}", only) for number, portion in enumerate(portions)]
    total = Spread()
    for spread in place.workers.run(spread_files, tasks, items, progress):
        total.add(spread)
    return total


def spread_seal(place: Place, lines: Iterable[str], only: frozenset[bytes] | None) -> int:
    """Put what was sealed beside the events, spread before, that it must agree with; return how many incidents that is."""
    number = 0
    folder = place.folder / EVENTS
    digits = len(next(iter(partitions(folder)), "00"))
    with SpillWriter(folder, "seal", digits) as writer:
        for line in lines:
            sealed = Sealed.read(line)
            key = sealed.incident_id.encode()
            if only is None or key in only:
                writer.put(key, sealed.version, Rank.SEAL, sealed.line().encode())
                number += 1
    return number


def replay(place: Place, wanted: Wanted, items: int, progress: Progress) -> Counts:
    """Replay what was spread; `progress` is told how many events are done."""
    total = Counts()
    tasks = [(part, files, place.folder, wanted, place.config) for part, files in partitions(place.folder / EVENTS).items()]
    for counts in place.workers.run(_replay_partition, tasks, items, progress):
        total.add(counts)
    # A part of the incidents, by their time or name, says nothing of a key's other occurrences.
    if wanted.rows and wanted.is_everything:
        unborn = frozenset(total.unborn)
        keyed = [(part, files, place.folder, unborn) for part, files in partitions(place.folder / POINTERS).items()]
        for counts in place.workers.run(replay_pointers, keyed, items, _unseen):
            total.add(counts)
    return total


def _unseen(_: int) -> None:
    """Tell nobody how far it is: what comes after the events is little."""


_POLICIES: dict[Path | None, Policies] = {}


def _replay_partition(
    part: str, files: tuple[Path, ...], folder: Path, wanted: Wanted, config: Path | None, beat: Beat
) -> Counts:
    policies = _POLICIES.get(config)
    if policies is None:
        policies = _POLICIES[config] = shipped.policies(config)
    return replay_partition(part, files, folder, wanted, policies, beat)


def divergences(place: Place) -> Iterator[Divergence]:
    """Yield all that was found, incident by incident."""
    folder = place.folder / FOUND
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                told = json.loads(line)
                yield Divergence(told["incidentId"], Kind(told["kind"]), told["where"], told["expected"], told["found"])


def seal_lines(place: Place) -> Iterator[str]:
    """Yield the lines of a seal, in the order of incident ids."""
    folder = place.folder / SEALS
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        with path.open(encoding="utf-8") as lines:
            yield from lines
