"""The file of a seal: a head that says when and how much, a line for each incident, and a digest over these lines.

The digest is what an auditor writes down elsewhere: whoever has it can tell that a file is the one that was sealed.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from pipeline.cli.terminal import FAILED, CommandError
from pipeline.domain.canonical import Document

FORMAT: Final = "opx-seal/1"


@dataclass(frozen=True, slots=True)
class SealFile:
    """What was written: where, how many incidents and events, and the digest to write down."""

    path: Path
    incidents: int
    events: int
    digest: str


def write_seal(path: Path, lines: Iterable[str], about: Document) -> SealFile:
    """Write a seal beside `path`, then put it there whole. `lines` are sorted, each with its end."""
    digest, incidents, events = sha256(), 0, 0
    body = path.with_name(f"{path.name}.lines")
    with body.open("w", encoding="ascii") as file:
        for line in lines:
            digest.update(line.encode("ascii"))
            incidents += 1
            events += int(line.split()[1])
            file.write(line)
    head = {"format": FORMAT, **about, "incidents": incidents, "events": events, "digest": digest.hexdigest()}
    whole = path.with_name(f"{path.name}.part")
    with whole.open("w", encoding="ascii") as file, body.open(encoding="ascii") as lines_again:
        file.write(json.dumps(head, sort_keys=True) + "\n")
        for line in lines_again:
            file.write(line)
    body.unlink()
    whole.replace(path)
    return SealFile(path, incidents, events, digest.hexdigest())


def read_seal(path: Path) -> Iterator[str]:
    """Return the lines of a seal; raise where it is none, or not as it was written: then nothing can be told by it."""
    then = "opx replay verify --help"
    try:
        with path.open(encoding="ascii") as file:
            head = json.loads(file.readline())
            if not isinstance(head, dict) or head.get("format") != FORMAT:
                raise CommandError(f"{path} is no seal of this version ({FORMAT}).", then, FAILED)
            digest = sha256()
            for line in file:
                digest.update(line.encode("ascii"))
    except (OSError, ValueError, RecursionError) as error:
        raise CommandError(f"{path} can't be read as a seal: {error}", then, FAILED) from None
    if digest.hexdigest() != head.get("digest"):
        raise CommandError(f"{path} was changed: its lines are not those of its digest {head.get('digest')}.", then, FAILED)
    return _lines(path)


def digest_of(path: Path) -> str:
    """Return the digest that a seal names."""
    with path.open(encoding="ascii") as file:
        return str(json.loads(file.readline())["digest"])


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="ascii") as file:
        next(file)
        for line in file:
            yield line.rstrip("\n")
