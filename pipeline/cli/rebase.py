"""Move an old recording to today by whole days, so that what was in one window stays in one window. Pure.

Only dates change: hours, zone and spelling of each time stay as recorded. Ids change with the number of days: the same
recording moved twice by as many days is a duplicate, moved on another day it is new. Unreadable lines stay as they are.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, timedelta
from typing import Any, Final
from uuid import uuid5

from pipeline.domain.canonical import Document, canonical_bytes, digest, parse_document, parse_time
from pipeline.domain.errors import Rejected
from pipeline.domain.ids import NAMESPACE

DAY: Final = timedelta(days=1)
KEY_CHARACTERS_MAX: Final = 128
_LEADING_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d(?=[Tt ]\d\d:\d\d)", re.ASCII)
_OFFSET_OF_FOUR_DIGITS: Final = re.compile(r"([+-]\d\d)(\d\d)$", re.ASCII)


def days_to_now(newest: datetime, now: datetime) -> int:
    """Return by how many days to move a recording so that its newest time lies in the 24 hours before `now`."""
    return (now - newest) // DAY


def newest_time(bodies: Iterable[str], now: datetime) -> datetime | None:
    """Return the newest time in a recording that is not after `now`, or None where it holds none that can be read.

    One message from a clock that was decades ahead must not move all others decades back. Only where every time lies in
    the future does the newest of them count.
    """
    past: datetime | None = None
    future: datetime | None = None
    for document in filter(None, map(_readable, bodies)):
        for moment in _moments(document):
            if moment <= now:
                past = moment if past is None else max(past, moment)
            else:
                future = moment if future is None else max(future, moment)
    return past or future


def rebased(body: str, days: int) -> str:
    """Return a message's body moved by `days`; by 0 days, or where it can't be read, the very same text."""
    document = _readable(body) if days else None
    if document is None:
        return body
    moved = _alarm(document, days) if "detail-type" in document else _candidate(document, days)
    return canonical_bytes(moved).decode()


def shifted(text: str, days: int) -> str:
    """Return `text` with the date of every time in it moved by `days`; a date that leaves the calendar stays."""

    def move(found: re.Match[str]) -> str:
        try:
            return (date.fromisoformat(found[0]) + timedelta(days=days)).isoformat()
        except (ValueError, OverflowError):
            return found[0]

    return _LEADING_DATE.sub(move, text)


def _readable(body: str) -> Document | None:
    try:
        return parse_document(body)
    except Rejected:
        return None


def _moments(document: Document) -> Iterator[datetime]:
    detail = document.get("detail")
    state = detail.get("state") if isinstance(detail, dict) else None
    times = [document.get("observedAt"), document.get("time"), state.get("timestamp") if isinstance(state, dict) else None]
    times += [item.get("observedAt") for item in _objects(document.get("evidence"))]
    for text in times:
        if not isinstance(text, str):
            continue
        try:
            yield parse_time(_OFFSET_OF_FOUR_DIGITS.sub(r"\1:\2", text))
        except ValueError:
            continue


def _objects(value: Any) -> list[Document]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, tuple) else []


def _candidate(document: Document, days: int) -> Document:
    moved = _with_text(document, "observedAt", lambda text: shifted(text, days))
    moved = _with_text(moved, "idempotencyKey", lambda key: _moved_key(key, days))
    if isinstance(evidence := document.get("evidence"), tuple):
        moved["evidence"] = tuple(
            _with_text(item, "observedAt", lambda text: shifted(text, days)) if isinstance(item, dict) else item
            for item in evidence
        )
    return moved


def _moved_key(key: str, days: int) -> str:
    moved = f"{key}.{days:+d}d".replace("+", "")
    return moved if len(moved) <= KEY_CHARACTERS_MAX else digest(["rebase/1", key, days])


def _alarm(document: Document, days: int) -> Document:
    moved = _with_text(document, "time", lambda text: shifted(text, days))
    moved = _with_text(moved, "id", lambda known: str(uuid5(NAMESPACE, canonical_bytes(["rebase/1", known, days]).decode())))
    if not isinstance(detail := document.get("detail"), dict):
        return moved
    states = {
        name: _with_text(
            _with_text(detail[name], "timestamp", lambda text: shifted(text, days)),
            "reasonData",
            lambda text: shifted(text, days),
        )
        for name in ("state", "previousState")
        if isinstance(detail.get(name), dict)
    }
    return moved | {"detail": detail | states}


def _with_text(document: Document, name: str, change: Callable[[str], str]) -> Document:
    value = document.get(name)
    return document | {name: change(value)} if isinstance(value, str) else dict(document)
