"""Where a listing goes on: opaque to whoever carries it, and refused when it was changed or meant for another listing.

A cursor holds a position and a digest over it and over what was asked. The digest is no secret, and need not be: whoever
makes one up by this recipe gets what asking with that position would give, and is authorized anew each time.
"""

import base64
import binascii
from typing import Final, TypeVar

from pydantic import TypeAdapter

from pipeline.domain.base import read
from pipeline.domain.canonical import Document, canonical_bytes, digest, parse_document
from pipeline.domain.errors import Code, Refusal, Rejected

CURSOR_CHARACTERS_MAX: Final = 1024
P = TypeVar("P")
_VERSION: Final = "cursor/1"


def cursor_of(position: tuple[str | int, ...], asked: Document) -> str:
    """Return the cursor of a position in the listing that `asked` describes (its filters, not its limit)."""
    document = {"at": position, "of": digest([_VERSION, position, asked])}
    return base64.urlsafe_b64encode(canonical_bytes(document)).decode().rstrip("=")


def position_of(cursor: str, asked: Document, shape: TypeAdapter[P]) -> P:
    """Return the position, of the `shape` given, that a cursor holds. Raises `Rejected` where it is none of this very
    listing.
    """
    try:
        if len(cursor) > CURSOR_CHARACTERS_MAX or not cursor.isascii():
            raise ValueError("no cursor of ours")
        document = parse_document(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        position = document["at"]
        # Made again it must be the same text: not changed, of this very listing, and spelled as it was.
        if cursor_of(position, asked) != cursor:
            raise ValueError("changed, or of another listing")
        return read(shape, position)
    except (ValueError, KeyError, binascii.Error, Rejected):
        detail = "This cursor is not one that this listing gave: send nextCursor as it was, with the same filters."
        raise Rejected(Refusal(Code.INVALID_FIELD, detail, "cursor")) from None
