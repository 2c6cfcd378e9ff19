"""Compare the pointers of keys with the incidents that should have moved them: it names the newest, and none is left out.

A key's pointer and the creations that tell of it lie in a partition of their own. Knows nothing of what else an incident is.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.domain.canonical import INTEGER_MAX, Document
from pipeline.domain.divergences import Divergence, Kind, said
from pipeline.domain.errors import Corrupt
from pipeline.domain.ids import incident_id
from pipeline.replay.line_file import LineFile
from pipeline.replay.lines import exact_document_of
from pipeline.replay.partition import FOUND, Counts
from pipeline.replay.ranks import PointerRank
from pipeline.replay.spill import Entry, by_key, entry_of
from pipeline.replay.workers import Beat


def replay_pointers(part: str, files: tuple[Path, ...], folder: Path, unborn: frozenset[str], beat: Beat) -> Counts:
    """Compare the pointers of a partition with the creations that should have moved them.

    `unborn`: incidents whose creation is gone, with its row: that, and not their key's pointer, is what is wrong.
    """
    counts = Counts()
    with LineFile(folder / FOUND, f"pointers-{part}") as found:
        for key, group in by_key(files, folder / f"runs-p{part}"):
            for one in check_key(key.decode(), map(entry_of, group), counts, unborn):
                counts.tell(one)
                found.write(json.dumps(one.to_document()))
    beat(counts.pointers)
    for path in files:
        path.unlink()
    return counts


def check_key(
    key: str, group: Iterable[Entry], counts: Counts, unborn: frozenset[str] = frozenset()
) -> Iterator[Divergence]:
    """Yield what is wrong with a key: its occurrences run without a gap, and its pointer names the newest."""
    for one in _checked(key, group, counts):
        if one.incident_id not in unborn or one.kind not in (Kind.MISSING, Kind.POINTER):
            yield one


def _checked(key: str, group: Iterable[Entry], counts: Counts) -> Iterator[Divergence]:
    newest: Document | None = None
    pointers = 0
    for entry in sorted(group, key=lambda one: (one.rank, one.place)):
        if entry.rank == PointerRank.POINTER:
            pointers += 1
            yield from _check_pointer(key, newest, entry.line, pointers)
            continue
        document = exact_document_of(entry.line)
        after = 1 if newest is None else newest["occurrence"] + 1
        if document["occurrence"] > after:
            identity = incident_id(document["service"], document["dedupKey"], after)
            many = document["occurrence"] - after
            where = "every event" if many == 1 else f"every event, as of the {many - 1} incidents of its key after it"
            yield Divergence(identity, Kind.MISSING, where, f"occurrence {after} of its key", "absent")
        newest = document
    counts.pointers += pointers
    if not pointers:
        yield from compare_pointer(key, newest, None)


def _check_pointer(key: str, newest: Document | None, line: bytes, number: int) -> Iterator[Divergence]:
    identity = "" if newest is None else newest["incidentId"]
    try:
        pointer = exact_document_of(line)
    except Corrupt as error:
        yield Divergence(identity, Kind.UNREADABLE, f"pointer {key}", "readable", str(error))
        return
    if number > 1:
        yield Divergence(identity, Kind.DUPLICATED, f"pointer {key}", "one pointer", "another under the same key")
        return
    yield from compare_pointer(key, newest, pointer)


def compare_pointer(key: str, newest: Document | None, pointer: Document | None) -> Iterator[Divergence]:
    """Yield what is wrong with a key's pointer. `newest`: what its last incident was created with."""
    if newest is None:
        named = said((pointer or {}).get("incidentId", ""))
        yield Divergence(named, Kind.POINTER, f"pointer {key}", "an incident with events", "none")
        return
    identity = newest["incidentId"]
    if pointer is None:
        yield Divergence(identity, Kind.POINTER_MISSING, f"pointer {key}", f"occurrence {newest['occurrence']}", "absent")
        return
    named = incident_id(newest["service"], newest["dedupKey"], _occurrence(pointer))
    if _occurrence(pointer) > newest["occurrence"] and named == pointer.get("incidentId"):
        # It is whole: so there was an incident after the newest that is known.
        yield Divergence(named, Kind.MISSING, "every event", f"occurrence {_occurrence(pointer)} of its key", "absent")
        return
    for name in sorted({*newest, *pointer} - {"pk"}):
        if newest.get(name) != pointer.get(name) or isinstance(pointer.get(name), bool):
            yield Divergence(
                identity, Kind.POINTER, f"pointer {key}: {name}", said(repr(newest.get(name))), said(repr(pointer.get(name)))
            )


def _occurrence(pointer: Document) -> int:
    found = pointer.get("occurrence")
    return found if isinstance(found, int) and 0 < found <= INTEGER_MAX else 1
