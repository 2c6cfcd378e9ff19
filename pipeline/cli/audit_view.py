"""What an audit shows: each deed as a row for people or the stored event for programs, and a count by actor and event type.

Keeps no more than the newest rows and a bounded number of actors, however many events there are.
"""

import heapq
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from rich.text import Text

from pipeline.cli.audit_question import at
from pipeline.cli.telling import short
from pipeline.cli.terminal import STATE_STYLES, Column, Screen, cell
from pipeline.domain.canonical import Document

SHOWN: Final = 50
ACTORS_SHOWN: Final = 20
ACTORS_MAX: Final = 10_000
# A role's unique id, and the longest event types: what is cut there can't be looked for.
PRINCIPAL_CHARACTERS: Final = 21
TYPE_CHARACTERS: Final = 17
WORDS_CHARACTERS_MIN: Final = 12
SERVICE_CHARACTERS_MIN: Final = 10
SERVICE_CHARACTERS_MAX: Final = 24


@dataclass(frozen=True, slots=True, order=True)
class Actor:
    """Who did something, under which authority, and for whom."""

    authority_type: str
    actor_id: str
    principal: str
    asserted_by: str = ""
    requested_by: str = ""

    @property
    def told(self) -> str:
        via = f" via {self.asserted_by}" if self.asserted_by else ""
        return f"{self.actor_id}{via}" + (f", asked by {self.requested_by}" if self.requested_by else "")

    def to_document(self) -> Document:
        names = {"authorityType": self.authority_type, "actorId": self.actor_id, "principal": self.principal}
        more = {"assertedBy": self.asserted_by, "requestedBy": self.requested_by}
        return names | {name: text for name, text in more.items() if text}


def actor_of(event: Document) -> Actor | None:
    """Return who did it; None where this is no event as opx stores them."""
    names = [at(event, ("actor", name)) for name in ("authorityType", "actorId", "principal")]
    kept = [event.get(name) for name in ("incidentId", "timestamp", "eventType", "previousState", "newState")]
    if not all(isinstance(text, str) for text in (*names, *kept)) or not isinstance(event.get("sequence"), int):
        return None
    spoke, asked = at(event, ("actor", "assertedBy")), at(event, ("metadata", "requestedBy", "actorId"))
    return Actor(*names, *(text if isinstance(text, str) else "" for text in (spoke, asked)))


class Newest:
    """The newest so many events, whatever order they come in."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._kept: list[tuple[str, str, int, int, Document]] = []
        self._taken = 0

    def take(self, event: Document) -> None:
        self._taken += 1
        # The last number tells events apart that are stored twice, as an export may be made to have them.
        entry = (event["timestamp"], event["incidentId"], event["sequence"], self._taken, event)
        if len(self._kept) < self.limit:
            heapq.heappush(self._kept, entry)
        else:
            heapq.heappushpop(self._kept, entry)

    def in_order(self) -> list[Document]:
        """Return what is kept, oldest first."""
        return [entry[-1] for entry in sorted(self._kept, key=lambda entry: entry[:-1])]


class Tally:
    """How many events of each type each actor caused. `others`: events of those who are too many to be counted apart."""

    def __init__(self, actors_max: int = ACTORS_MAX) -> None:
        self.by: dict[Actor, Counter[str]] = {}
        self.events = 0
        self.others = 0
        self._actors_max = actors_max

    def take(self, actor: Actor, event_type: str) -> None:
        self.events += 1
        counts = self.by.get(actor)
        if counts is None:
            if len(self.by) >= self._actors_max:
                self.others += 1
                return
            counts = self.by[actor] = Counter()
        counts[event_type] += 1

    def ranked(self) -> list[tuple[Actor, Counter[str]]]:
        """Return the actors, the busiest first."""
        return sorted(self.by.items(), key=lambda one: (-one[1].total(), one[0]))

    def to_document(self) -> Document:
        actors = [actor.to_document() | {"events": dict(sorted(counts.items()))} for actor, counts in self.ranked()]
        return {"events": self.events, "actors": actors} | ({"others": self.others} if self.others else {})


# --- for people -------------------------------------------------------------------------------------------------------


def deeds_table(screen: Screen, events: list[Document]) -> None:
    """Show who did what when, under which authority, and why: a row for each event."""
    wide = screen.is_wide
    columns = [
        Column("when (UTC)"),
        Column("who", wrap=True, floor=WORDS_CHARACTERS_MIN),
        *([Column("principal", floor=PRINCIPAL_CHARACTERS)] if wide else []),
        Column("as"),
        Column("what", wrap=True, floor=TYPE_CHARACTERS),
        Column("incident"),
        *([Column("service", floor=SERVICE_CHARACTERS_MIN, cap=SERVICE_CHARACTERS_MAX)] if wide else []),
        Column("why", wrap=True, floor=WORDS_CHARACTERS_MIN),
    ]
    screen.table(columns, [_row(event, wide=wide) for event in events])


def _row(event: Document, *, wide: bool) -> list[Text]:
    actor = actor_of(event)
    assert actor is not None, "only what has an actor is kept"
    moment = event["timestamp"].replace("T", " ")
    return [
        cell(moment[:19] if wide else moment[5:19], "dim"),
        cell(actor.told),
        *([cell(actor.principal, "dim")] if wide else []),
        cell(actor.authority_type),
        Text.assemble(cell(event["eventType"]), *_step(event)),
        cell(short(event["incidentId"]), "cyan"),
        *([cell(at(event, ("metadata", "service")) or "")] if wide else []),
        cell(why(event)),
    ]


def _step(event: Document) -> tuple[Text, ...]:
    """Return from what to what the event led, behind a space; nothing where it moved neither state nor severity."""
    before, after = event["previousState"], event["newState"]
    if before == after:
        before, after = at(event, ("metadata", "previousSeverity")), at(event, ("metadata", "severity"))
    if before is None or before == after:
        return ()
    return cell(f" {before} → "), cell(after, STATE_STYLES.get(str(after), ""))


def why(event: Document) -> str:
    """Return the reasons that stand in an event: its own, those of who acted and who asked, and the gate's decision."""
    places = (("metadata", "reason"), ("actor", "justification"), ("metadata", "requestedBy", "justification"))
    told = [at(event, place) for place in places] + [_decided(at(event, ("metadata", "decision")))]
    return " · ".join(dict.fromkeys(str(text) for text in told if text))


def _decided(decision: Any) -> str:
    if not isinstance(decision, dict):
        return ""
    return f"{decision.get('outcome')} by policy {decision.get('policyId')} v{decision.get('policyVersion')}"


def tally_table(screen: Screen, tally: Tally) -> None:
    """Show how many events of which type each actor caused, the busiest first."""
    ranked = tally.ranked()
    columns = [
        Column("by", wrap=True, floor=WORDS_CHARACTERS_MIN),
        Column("principal", floor=PRINCIPAL_CHARACTERS),
        Column("as"),
        Column("events", right=True),
        Column("of which", wrap=True, floor=TYPE_CHARACTERS),
    ]
    screen.table(columns, [_tally_row(actor, counts) for actor, counts in ranked[:ACTORS_SHOWN]])
    if len(ranked) > ACTORS_SHOWN or tally.others:
        more = f"{'more than ' if tally.others else ''}{len(ranked) - ACTORS_SHOWN} more actors"
        screen.notice(f"The busiest {ACTORS_SHOWN} are shown; {more} did something; --json counts them too.")


def _tally_row(actor: Actor, counts: Counter[str]) -> list[Text]:
    told = ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items(), key=lambda one: (-one[1], one[0])))
    total = cell(counts.total())
    return [cell(actor.told), cell(actor.principal, "dim"), cell(actor.authority_type), total, cell(told)]
