"""What an auditor asks of events: which match, and as much of that as DynamoDB can filter by itself. Pure.

Asks by the names that events are stored under, whatever their schema version: those of actors, times and types are frozen.
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pipeline.domain.base import covers
from pipeline.domain.canonical import Document, format_time

# Whoever decided, and the person for whom the gate did.
AUTHORITIES: Final = (("actor",), ("metadata", "requestedBy"))
NAMES: Final = ("actorId", "principal", "assertedBy")
Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """All that is given must hold. `actor`, `principal` and `service` are whole, or patterns with `*`."""

    actor: str | None = None
    principal: str | None = None
    service: str | None = None
    incident: str | None = None
    types: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None

    def patterns(self) -> Iterator[tuple[str, tuple[Path, ...]]]:
        """Yield each pattern with the places of which one must match it."""
        if self.actor is not None:
            yield self.actor, tuple((*where, name) for where in AUTHORITIES for name in NAMES)
        if self.principal is not None:
            yield self.principal, tuple((*where, "principal") for where in AUTHORITIES)
        if self.service is not None:
            yield self.service, (("metadata", "service"),)

    @property
    def span(self) -> tuple[str, str]:
        """Return the first time, and the one before which all are, as times are stored."""
        return (
            "" if self.since is None else format_time(self.since),
            "9" if self.until is None else format_time(self.until),
        )

    def matches(self, event: Document) -> bool:
        """True where the event, as it is stored, is one of those asked for."""
        if self.incident is not None and event.get("incidentId") != self.incident:
            return False
        if self.types and event.get("eventType") not in self.types:
            return False
        if self.since is not None or self.until is not None:
            moment, (since, until) = event.get("timestamp"), self.span
            if not isinstance(moment, str) or not since <= moment < until:
                return False
        return all(any(_covers(pattern, at(event, path)) for path in paths) for pattern, paths in self.patterns())

    def filters(self) -> dict[str, Any]:
        """Return the parameters of a scan that leave out what can't match; what is left must be asked again here."""
        made = _Expression()
        if self.types:
            made.add(f"{made.name('eventType')} IN ({', '.join(made.value(kind) for kind in self.types)})")
        since, until = self.span
        if self.since is not None:
            made.add(f"{made.name('timestamp')} >= {made.value(since)}")
        if self.until is not None:
            made.add(f"{made.name('timestamp')} < {made.value(until)}")
        for pattern, paths in self.patterns():
            function, text = _asked(pattern)
            if text:
                value = made.value(text)
                told = [function.format(path=".".join(map(made.name, path)), value=value) for path in paths]
                made.add(f"({' OR '.join(told)})")
        return made.parameters()

    @property
    def arguments(self) -> str:
        """Return the options that ask the same again, each with a space in front."""
        given = {
            "actor": self.actor,
            "principal": self.principal,
            "service": self.service,
            "incident": self.incident,
            "from": None if self.since is None else format_time(self.since),
            "to": None if self.until is None else format_time(self.until),
        }
        told = [(name, text) for name, text in given.items() if text is not None]
        told += [("type", kind) for kind in self.types]
        return "".join(f" --{name} {shlex.quote(text)}" for name, text in told)


def at(document: Document, path: Path) -> Any:
    """Return what stands at a place of a document, or None."""
    found: Any = document
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _covers(pattern: str, text: object) -> bool:
    return isinstance(text, str) and covers(pattern, text)


def _asked(pattern: str) -> tuple[str, str]:
    """Return what DynamoDB can be asked of a pattern, and about which text: nothing, where all of it is stars."""
    first, *pieces = pattern.split("*")
    if not pieces:
        return "{path} = {value}", first
    if first:
        return "begins_with({path}, {value})", first
    return "contains({path}, {value})", max(pieces, key=len)


class _Expression:
    """A filter being put together: conditions, and what stands for their names and values."""

    def __init__(self) -> None:
        self._conditions: list[str] = []
        self._names: dict[str, str] = {}
        self._values: dict[str, Any] = {}

    def name(self, attribute: str) -> str:
        self._names[f"#{attribute}"] = attribute
        return f"#{attribute}"

    def value(self, text: str) -> str:
        placeholder = f":v{len(self._values)}"
        self._values[placeholder] = {"S": text}
        return placeholder

    def add(self, condition: str) -> None:
        self._conditions.append(condition)

    def parameters(self) -> dict[str, Any]:
        if not self._conditions:
            return {}
        return {
            "FilterExpression": " AND ".join(self._conditions),
            "ExpressionAttributeNames": self._names,
            "ExpressionAttributeValues": self._values,
        }
