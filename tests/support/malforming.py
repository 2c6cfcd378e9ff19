"""Lines of an export as no table holds them: bytes flipped, JSON of another shape, and events forged with a right hash."""

import copy
import gzip
import json
import random
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from hashlib import md5
from pathlib import Path
from typing import Any

from pipeline.domain.canonical import Document
from pipeline.domain.divergences import Divergence
from pipeline.replay.exports import find_exports
from pipeline.replay.partition import Wanted
from pipeline.replay.verifying import Place, divergences, replay, spread_exports, spread_seal
from pipeline.stores.items import from_item, to_item
from tests.support.damages import lived
from tests.support.exporting import Tables, tables_of, write_export
from tests.support.streams import sealed

Lines = dict[str, list[bytes]]
_LIVED: list[Tables] = []


async def lived_once() -> Tables:
    """Return tables of one's own to damage: those of `lived`, which is asked once."""
    if not _LIVED:
        _LIVED.append(tables_of(await lived()))
    return copy.deepcopy(_LIVED[0])


def lines_in(tables: Tables) -> Lines:
    return {name: [_line(item) for item in items] for name, items in tables.items()}


def _line(item: Any) -> bytes:
    """Return an item as a line; nested deeper than what writes stored items goes, too."""
    return json.dumps({"Item": item}, separators=(",", ":")).encode()


def write_lines(lines: Lines, folder: Path) -> Path:
    """Write lines as they are, each table's into one file whose checksum and count are right; return the folder."""
    for name, of_table in lines.items():
        at = write_export(folder, name, [()])
        body = b"".join(line + b"\n" for line in of_table)
        repack(at, gzip.compress(body, compresslevel=1), body.count(b"\n"))
    return folder


def repack(at: Path, packed: bytes, items: int) -> None:
    """Put other bytes into an export's only file, and make its manifests agree with them."""
    (path,) = (at / "data").iterdir()
    path.write_bytes(packed)
    (told,) = (json.loads(line) for line in (at / "manifest-files.json").read_text().splitlines())
    told |= {"itemCount": items, "md5Checksum": b64encode(md5(packed, usedforsecurity=False).digest()).decode()}
    (at / "manifest-files.json").write_text(json.dumps(told) + "\n")
    summary = json.loads((at / "manifest-summary.json").read_text())
    (at / "manifest-summary.json").write_text(json.dumps(summary | {"itemCount": items}))


def nested(depth: int, kind: str = "M") -> Any:
    made: Any = {"S": "x"}
    for _ in range(depth):
        made = {"M": {"a": made}} if kind == "M" else {"L": [made]}
    return made


def nothing(_: int) -> None:
    pass


def verified(
    folder: Path,
    at: Path,
    wanted: Wanted = Wanted(),  # noqa: B008
    seal: list[str] | None = None,
) -> list[Divergence]:
    """Replay an export; check that what is counted is what is told."""
    place = Place(at)
    spread = spread_exports(place, find_exports([folder]).values(), None, nothing)
    if seal is not None:
        spread_seal(place, seal, None)
    counts = replay(place, wanted, spread.items, nothing)
    found = list(divergences(place))
    assert counts.divergences == len(found) == sum(counts.kinds.values())
    return [*spread.found, *found]


# What stands in the place of an attribute, or of what one says.
ODD: tuple[Any, ...] = (
    *(None, True, 0, 5, -1, 1.5, 10**30, float("inf"), "", "x", "\ud800", "\x00", "x" * 3000, [], {}, ["S"], {"a": "S"}),
    *({"S": 5}, {"S": None}, {"S": []}, {"S": "\ud800"}, {"S": ""}, {"S": "nonsense"}, {"S": "0" * 64}, {"S": "0" * 36}),
    *(
        {"N": 1},
        {"N": "NaN"},
        {"N": "1E400"},
        {"N": "-1"},
        {"N": "0"},
        {"N": "5.5"},
        {"N": "9" * 40},
        {"N": "1_0"},
        {"N": ""},
    ),
    *({"N": "9007199254740991"}, {"N": "\u0661"}, {"BOOL": True}, {"BOOL": "x"}, {"NULL": True}, {"NULL": 5}, {"B": "AA=="}),
    *({"SS": ["a"]}, {"M": []}, {"M": {}}, {"M": 5}, {"L": {}}, {"L": "x"}, {"L": []}, {"L": [5]}, {"S": "x", "N": "5"}),
    *(nested(40), nested(240), nested(400), nested(400, "L"), nested(100, "L")),
)
# The same for a document, which can be hashed.
OF_A_DOCUMENT: tuple[Any, ...] = (
    *(None, True, False, 0, 1, 2, -1, 2**53 - 1, Decimal("0.5"), "", "x", "0" * 64, "2026-01-31T03:00:00.000000Z", (), {}),
    *(("x",), ({},), (1,), {"a": 1}, {"kind": "firing"}, {"authorityType": "SYSTEM"}, "IncidentOpened", "NoteAdded", "OPEN"),
)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place in nested JSON, as what holds it and its name or number."""
    if isinstance(value, dict | list):
        for name in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, name
            yield from _places(value[name])


def _replace(rng: random.Random, held: Any) -> None:
    holder, name = rng.choice(list(_places(held)))
    holder[name] = rng.choice(ODD)


def _remove(rng: random.Random, held: Any) -> None:
    holder, name = rng.choice(list(_places(held)))
    del holder[name]


def _rename(rng: random.Random, held: Any) -> None:
    holder, name = rng.choice([place for place in _places(held) if isinstance(place[0], dict)])
    holder[rng.choice(("x", "", "pk", "incidentId", "\x00", "sequence", f"{name}x"))] = holder.pop(name)


def _add(rng: random.Random, held: Any) -> None:
    holder = rng.choice([holder for holder, _ in _places(held) if isinstance(holder, dict)])
    holder[rng.choice(("x", "S", "N", "M", "schemaVersion", "decidedAt"))] = rng.choice(ODD)


def _exchange(rng: random.Random, held: Any) -> None:
    (one, name), (other, another) = rng.choices([place for place in _places(held["Item"]) if place[0] is held["Item"]], k=2)
    one[name], other[another] = other[another], one[name]


_OF_JSON: tuple[Callable[[random.Random, Any], None], ...] = (_replace, _replace, _remove, _rename, _add, _exchange)


def _flip(rng: random.Random, line: bytearray) -> None:
    for _ in range(rng.choice((1, 1, 1, 5))):
        line[rng.randrange(len(line))] = rng.randrange(256)


def _cut(rng: random.Random, line: bytearray) -> None:
    at = rng.randrange(len(line))
    del line[at : at + rng.choice((1, 2, 20, 10_000))]


def _repeat(rng: random.Random, line: bytearray) -> None:
    at, length = rng.randrange(len(line)), rng.choice((1, 2, 30, 300))
    line[at:at] = line[at : at + length]


def _put_in(rng: random.Random, line: bytearray) -> None:
    odd = (b"[" * 100_000, b'"\\ud800"', b"\xff\xfe", b"\n", b"\r", b" ", b"1e999", b'{"Item":' * 2000, b"\x00")
    at = rng.randrange(len(line))
    line[at:at] = rng.choice(odd)


_OF_BYTES: tuple[Callable[[random.Random, bytearray], None], ...] = (_flip, _flip, _cut, _repeat, _put_in)


def malformed(line: bytes, rng: random.Random) -> bytes:
    """Return a line that something was done to."""
    if rng.random() < 0.3:
        raw = bytearray(line)
        rng.choice(_OF_BYTES)(rng, raw)
        return bytes(raw)
    held = json.loads(line)
    rng.choice(_OF_JSON)(rng, held)
    return json.dumps(held, separators=(",", ":")).encode()


def forged(events: Iterable[Document], rng: random.Random) -> list[Document]:
    """Return a history in which something of an event is another, and every hash is right again."""
    history = [from_item(to_item(event)) for event in events]
    chosen = rng.choice(history)
    places = [place for place in _places(chosen) if place[1] not in ("hash", "previousHash", "sequence", "eventId")]
    holder, name = rng.choice(places)
    if rng.random() < 0.3:
        del holder[name]
    else:
        holder[name] = rng.choice(OF_A_DOCUMENT)
    made: list[Document] = []
    for event in history:
        made.append(sealed(event | ({"previousHash": made[-1]["hash"]} if made else {})))
    return made
