"""What an auditor keeps: of each incident how far its chain went, the hash it ended in, and a sum over its receipts.

Histories only grow, so what was sealed stays true for ever: the chain up to a sealed event ends in the sealed hash, and the
receipts of events up to it are the same. Receipts have no order, so they are summed; each by its whole content.
"""

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Self

from pipeline.domain.canonical import Document, canonical_bytes
from pipeline.domain.errors import Corrupt
from pipeline.replay.lines import is_id

_MODULUS: Final = 2**256
_NUMBERS: Final = re.compile("([0-9]{1,16}) ([0-9a-f]{64}) ([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Sealed:
    """One incident in a seal: `version` events, the hash of the last, and the sum over the receipts of these events."""

    incident_id: str
    version: int
    tip: str
    receipts: int

    def line(self) -> str:
        return f"{self.incident_id} {self.version} {self.tip} {self.receipts:064x}"

    @classmethod
    def read(cls, line: str) -> Self:
        """Read a line of a seal. Raises `Corrupt` where it is none."""
        incident, _, rest = line.rstrip("\n").partition(" ")
        numbers = _NUMBERS.fullmatch(rest)
        if not is_id(incident.encode()):
            raise Corrupt(f"a line of the seal can't be read: {incident[:60]!r} is no incident's id")
        if numbers is None or int(numbers[1]) < 1:
            raise Corrupt(f"a line of the seal can't be read: {rest[:60]!r} is not how far a chain went, its hash and a sum")
        return cls(incident, int(numbers[1]), numbers[2], int(numbers[3], 16))


def sum_with(summed: int, receipt: Document) -> int:
    """Add a stored receipt, every attribute of it, to a sum."""
    return (summed + int.from_bytes(sha256(canonical_bytes(receipt)).digest(), "big")) % _MODULUS
