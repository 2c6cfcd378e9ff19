"""Follows what was sent to what became of it: its receipt, or its copy in a queue; the incident, the events, the decision.

Reads only. What the asker may not read is left out and said; nothing is concluded from it. Words are in `story`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from pipeline.cli.asked import Asked, names_of
from pipeline.cli.counting import Depth
from pipeline.cli.finding import identity_of
from pipeline.cli.peeking import Copy, Look, Queues, Unpublished, unpublished
from pipeline.cli.telling import read_event
from pipeline.cli.terminal import CommandError
from pipeline.clients.answers import ApiRefused, Incident, Receipt
from pipeline.clients.operator import AsyncOperator
from pipeline.domain.canonical import Document, normalise
from pipeline.domain.correlation import Span, Window
from pipeline.domain.errors import Unavailable
from pipeline.domain.explanation import Recorded, recorded
from pipeline.domain.promotion import Policies
from pipeline.domain.receipts import Answer
from pipeline.domain.rules import PinnedRule, Rules
from pipeline.services.ports import IncidentStore

FORBIDDEN: Final = 403
PAGE: Final = 100
YOURSELF: Final = "yourself"
# An incident's id, or as much of its beginning as nobody types by chance.
_AN_INCIDENTS: Final = re.compile(r"[0-9a-f][0-9a-f-]{3,35}")


class Ending(StrEnum):
    """What became of something. Of `waiting` is known only that messages wait, and that it is nowhere else."""

    APPLIED = "applied"
    COUNTED = "counted"
    REFUSED = "refused"
    REJECTED = "rejected"
    DEAD = "dead-letter"
    UNREADABLE = "unreadable"
    WAITING = "waiting"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Chapter:
    """One receipt and what it led to. `unread` says what of that the asker may not read.

    `rule`, `span` and `window`: the rule that counted it, in force here; and where, if the message was given.
    """

    receipt: Receipt
    incident: Incident | None = None
    events: tuple[Document, ...] = ()
    decisions: tuple[Recorded, ...] = ()
    unread: str | None = None
    rule: PinnedRule | None = None
    span: Span | None = None
    window: Window | None = None

    @property
    def is_refused(self) -> bool:
        return "code" in self.receipt.result

    @property
    def is_counted(self) -> bool:
        """True where a rule counted it, and that was all."""
        return self.receipt.result.get("answer") == Answer.COUNTED


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one thing. `reused`: the receipts under its key are of another request."""

    asked: Asked
    chapters: tuple[Chapter, ...] = ()
    reused: bool = False
    rejected: Copy | None = None
    dead: Copy | None = None
    may_wait: bool = False

    @property
    def ending(self) -> Ending:
        if self.chapters and not self.reused:
            if all(chapter.is_refused for chapter in self.chapters):
                return Ending.REFUSED
            counted = all(chapter.is_counted or chapter.is_refused for chapter in self.chapters)
            return Ending.COUNTED if counted else Ending.APPLIED
        if self.rejected is not None:
            return Ending.REJECTED
        if self.dead is not None:
            return Ending.DEAD
        if self.asked.refusal is not None:
            return Ending.UNREADABLE
        return Ending.WAITING if self.may_wait else Ending.UNKNOWN

    @property
    def is_found(self) -> bool:
        return self.ending in (Ending.APPLIED, Ending.COUNTED)


@dataclass(frozen=True, slots=True)
class Findings:
    """All that was found. `looks` are those into queues, `waiting` the intake queues' depths; both only where needed.

    `named`: the incident whose id, or the beginning of it, was said in place of a key.
    """

    fates: tuple[Fate, ...]
    whose: tuple[str, ...]
    closed: tuple[str, ...] = ()
    looks: tuple[Look, ...] = ()
    waiting: dict[str, Depth] | str = field(default_factory=dict)
    unpublished: Unpublished | None = None
    named: Incident | None = None


class Follower:
    """Follows what is asked for through one target."""

    def __init__(
        self,
        operator: AsyncOperator,
        queues: Queues,
        store: IncidentStore,
        policies: Policies,
        rules: Rules,
        principal: str | None = None,
    ) -> None:
        self.operator = operator
        self.queues = queues
        self.store = store
        self.policies = policies
        self.rules = rules
        self.principal = principal
        # Principals whose receipts the asker may not see.
        self.closed: dict[str, None] = {}

    async def follow(self, parts: Sequence[Asked]) -> Findings:
        """Return what became of each part."""
        fates = [await self._by_receipt(part) for part in parts]
        looks: list[Look] = []
        lost = [fate for fate in fates if not fate.chapters or fate.reused]
        waiting: dict[str, Depth] | str = {}
        if lost:
            looks = [await self.queues.look("rejected", _is_one_of(lost), first=len(lost) == 1)]
            fates = [_with_copy(fate, looks[0].copies) for fate in fates]
        nowhere = [fate for fate in fates if fate.ending in (Ending.UNREADABLE, Ending.UNKNOWN) and not fate.reused]
        if nowhere:
            looks += await self.queues.dead(_is_one_of(nowhere))
            fates = [_with_copy(fate, [copy for look in looks[1:] for copy in look.copies]) for fate in fates]
            waiting = await self.queues.waiting()
            fates = [_perhaps_waiting(fate, waiting) for fate in fates]
        named = await self._named(parts[0].key) if nowhere and len(parts) == 1 and not parts[0].what else None
        caused = any(chapter.events for fate in fates for chapter in fate.chapters)
        failed = await unpublished(self.queues) if caused else None
        whose = dict.fromkeys(
            name for part in parts for name in ((self.principal,) if self.principal else (YOURSELF, *part.principals))
        )
        return Findings(tuple(fates), tuple(whose), tuple(self.closed), tuple(looks), waiting, failed, named)

    async def _named(self, said: str | None) -> Incident | None:
        """Return the incident that was named where a key was asked for; None where that can't be told, or of several."""
        if said is None or _AN_INCIDENTS.fullmatch(said.lower()) is None:
            return None
        try:
            return await self.operator.incident(await identity_of(self.operator, said, "opx"))
        except (ApiRefused, CommandError):
            return None

    # --- by receipt ------------------------------------------------------------------------------------------------------

    async def _by_receipt(self, part: Asked) -> Fate:
        if part.key is None:
            return Fate(part)
        receipts = await self._receipts(part.key, part.principals)
        chapters = tuple([await self._chapter(receipt, part) for receipt in receipts])
        ours = [
            chapter for chapter in chapters if part.request_digest in (None, chapter.receipt.document.get("requestDigest"))
        ]
        return Fate(part, tuple(ours) or chapters, reused=bool(chapters) and not ours)

    async def _receipts(self, key: str, principals: tuple[str, ...]) -> list[Receipt]:
        whose: list[str | None] = [self.principal] if self.principal else [None, *principals]
        for principal in whose:
            try:
                found = await self.operator.receipt(key, principal=principal)
            except ApiRefused as refused:
                # Nobody asked for the queues' receipts by name: whoever may not see them is only told so.
                if refused.problem.status != FORBIDDEN or principal in (None, self.principal):
                    raise
                self.closed[str(principal)] = None
                continue
            if found is not None:
                return [found, *(Receipt.of(other) for other in found.document.get("others", ()))]
        return []

    async def _chapter(self, receipt: Receipt, part: Asked) -> Chapter:
        rule = self._rule_of(receipt)
        span = next((span for span in part.spans if span.pinned is rule), None) if rule is not None else None
        window, unread = await self._window(span)
        identity, result = receipt.incident_id, receipt.result
        if identity is None and window is not None:
            identity = window.incident_id
        if identity is None:
            return Chapter(receipt, unread=unread, rule=rule, span=span, window=window)
        try:
            incident = await self.operator.incident(identity)
            events = await self._events(identity, result.get("firstSequence"), result.get("lastSequence"))
        except ApiRefused as refused:
            return Chapter(receipt, unread=refused.problem.sentence(), rule=rule, span=span, window=window)
        facts = [event for event in (read_event(normalise(event)) for event in events) if event is not None]
        if len(facts) < len(events):
            unread = "this version of opx can't read each of the events: what the gate said may be missing here"
        decisions = tuple(recorded(facts, self.policies))
        return Chapter(receipt, incident, tuple(events), decisions, unread, rule, span, window)

    async def _events(self, identity: str, first: int | None, last: int | None) -> list[Document]:
        if first is None or last is None:
            return []
        found: list[Document] = []
        async for event in self.operator.events(identity, after=first - 1, page=min(PAGE, last - first + 1)):
            found.append(event.document)
            if event.sequence >= last:
                break
        return found

    def _rule_of(self, receipt: Receipt) -> PinnedRule | None:
        """Return the rule that counted: its id and version stand in the kind of the key."""
        _, separator, named = receipt.key_kind.partition("/")
        name, _, version = named.rpartition(".v")
        return self.rules.pinned.get((name, int(version))) if separator and version.isdigit() else None

    async def _window(self, span: Span | None) -> tuple[Window | None, str | None]:
        if span is None:
            return None, None
        try:
            return await self.store.load_window(span.id), None
        except Unavailable as error:
            # Whoever may read incidents need not be allowed to read what rules count.
            return None, f"what the rule has counted can't be read: {error} (AuditorPolicyArn allows it)"


# --- by a copy in a queue --------------------------------------------------------------------------------------------


def _is_copy(copy: Copy, part: Asked) -> bool:
    first_id = str(copy.explanation.get("originalMessageId") or copy.message_id)
    return bool(names_of(copy.body, first_id) & part.names)


def _is_one_of(fates: Sequence[Fate]) -> Callable[[Copy], bool]:
    parts = [fate.asked for fate in fates]
    return lambda copy: any(_is_copy(copy, part) for part in parts)


def _with_copy(fate: Fate, copies: Sequence[Copy]) -> Fate:
    if (fate.chapters and not fate.reused) or fate.rejected is not None:
        return fate
    mine = [copy for copy in copies if _is_copy(copy, fate.asked)]
    if not mine:
        return fate
    newest = max(mine, key=lambda copy: str(copy.explanation.get("originalSentAt", "")))
    return replace(fate, rejected=newest) if newest.queue == "rejected" else replace(fate, dead=newest)


def _perhaps_waiting(fate: Fate, waiting: dict[str, Depth] | str) -> Fate:
    if isinstance(waiting, str) or not any(depth.total for depth in waiting.values()):
        return fate
    return replace(fate, may_wait=True)
