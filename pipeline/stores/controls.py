"""The controls document in an SSM parameter: read by the functions, edited by people.

What can't be read never lifts a pause: the last document that could be read stays in force. SSM has no conditional put, so
an edit finds out afterwards whether it wrote over somebody's, and then brings theirs back. What the document says is next
door, in `domain/controls`.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from pipeline.domain.canonical import parse_document
from pipeline.domain.controls import NO_CONTROLS, Controls, PinnedControls, merged, same, text_of, written
from pipeline.domain.errors import Conflict, Corrupt, Rejected, Unavailable
from pipeline.services.ports import Clock
from pipeline.stores.clients import translated

FRESH_S: Final = 30.0
# While SSM is down and a document is at hand, this is how often somebody waits for it in vain, and for how long.
RETRY_S: Final = 5.0
READ_WITHIN_S: Final = 3.0
EDITS_MAX: Final = 8
LOOKS_MAX: Final = 5
# Longer than any edit takes between its reading and its writing, the transport's retries included.
EDIT_WITHIN: Final = timedelta(seconds=60)
WAIT_S: Final = 0.2
WAIT_S_MAX: Final = 2.0
HISTORY_PAGE: Final = 50


class FixedControls:
    """Implements `ControlsSource`: the controls it was given."""

    def __init__(self, controls: PinnedControls = NO_CONTROLS) -> None:
        self.controls = controls
        self.failure: str | None = None

    async def current(self) -> PinnedControls:
        return self.controls


class SsmControls:
    """Implements `ControlsSource` on an open client. The first read is the first use's."""

    def __init__(self, client: Any, parameter: str, clock: Clock, *, within_s: float = READ_WITHIN_S) -> None:
        self.parameter = ControlsParameter(client, parameter)
        self.clock = clock
        self.within_s = within_s
        self._cached: PinnedControls | None = None
        # Why the last read failed; None after a good one. What is in force is then older than it should be.
        self.failure: str | None = None
        self._reads = 0
        self._read_at: tuple[float, datetime] | None = None
        self._good_for_s = 0.0
        self._one_at_a_time = asyncio.Lock()

    async def current(self) -> PinnedControls:
        reads = self._reads
        if self._cached is not None and self._is_fresh():
            return self._cached
        # Whoever comes while a read is under way takes what it finds, good or bad. An older document is no answer for
        # them: an environment that has slept for an hour would open what was paused meanwhile.
        async with self._one_at_a_time:
            if self._reads == reads:
                await self._read()
        if self._cached is None:
            raise Unavailable(self.failure or "The controls can't be read.")
        return self._cached

    def _is_fresh(self) -> bool:
        if self._read_at is None:
            return False
        # By both clocks: one may stand still while the environment is frozen, the other may be set back.
        ticks, moment = self._read_at
        passed = (self.clock.monotonic() - ticks, (self.clock.now() - moment).total_seconds())
        return all(0 <= seconds < self._good_for_s for seconds in passed)

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(self.within_s):
                self._cached = (await self.parameter.read()).pinned
            self._good_for_s, self.failure = FRESH_S, None
        except (Unavailable, Corrupt, TimeoutError) as error:
            self._good_for_s = RETRY_S
            self.failure = f"The controls can't be read: {str(error) or 'no answer in time'}"
        self._read_at = (self.clock.monotonic(), self.clock.now())
        self._reads += 1


@dataclass(frozen=True, slots=True)
class Stored:
    """The parameter's newest version, the document in force, and the version that holds this document."""

    version: int
    pinned: PinnedControls
    stands_in: int


@dataclass(frozen=True, slots=True)
class Edited:
    """What an edit came to. `changed`: it wrote; `others`: how many edits of others it brought back."""

    controls: Controls
    changed: bool
    others: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """What somebody's document was made from, and the document."""

    version: int
    before: Controls
    after: Controls


@dataclass(frozen=True, slots=True)
class Version:
    """One version of the parameter, as SSM keeps it."""

    text: str
    at: datetime


class ControlsParameter:
    """The parameter itself: reads it, and edits it without losing anybody's edit."""

    def __init__(self, client: Any, name: str) -> None:
        self.client = client
        self.name = name
        # What was in force before the template's document was put back as this version: history does not change.
        self._put_back: Stored | None = None

    async def read(self) -> Stored:
        """Return the document in force. Raises `Unavailable`, or `Corrupt` where what stands there is none.

        The template's own document counts in a new stack alone. CloudFormation puts it back whenever it updates the
        parameter, if only by a tag of the stack; what people had written before that stays in force.
        """
        with translated(f"reading the parameter {self.name}"):
            answer = await self.client.get_parameter(Name=self.name)
        version, found = _version(answer.get("Parameter", {}))
        pinned = self._load(version, found)
        if version == 1 or not _is_the_templates(pinned):
            return Stored(version, pinned, version)
        if self._put_back is None or self._put_back.version != version:
            self._put_back = Stored(version, *self._in_force(await self._history(), version))
        return self._put_back

    async def edit(self, change: Callable[[Controls], Controls], clock: Clock) -> Edited:
        """Apply `change` to the newest document and write it where it differs; `change` must allow being applied again.

        A document says which version it was made from. One that was made from an older version than the one before it
        hides what was written meanwhile; whoever reads it here brings that back, and whoever wrote it does so at once.
        So each document holds all that was in force at the version it was made from, and the last holds everything.
        Raises `Conflict` where the writing doesn't end, `Rejected` where the document doesn't fit, and what `read` raises.
        """
        ours: list[Controls] = []
        theirs: set[int] = set()
        for attempt in range(EDITS_MAX):
            found = await self.read()
            base = before = found.pinned.controls
            for hidden in await self._hidden(found, clock, written_here=before in ours):
                base = merged(hidden.before, hidden.after, base)
                theirs |= {hidden.version} if hidden.after not in ours else set()
            wanted = change(base)
            if same(wanted, before):
                return Edited(before, changed=attempt > 0, others=len(theirs))
            document = written(wanted, found.version, clock.now())
            version = await self._put(document)
            if version == found.version + 1:
                return Edited(document, changed=True, others=len(theirs))
            ours.append(document)
            await clock.sleep(random.uniform(0, min(WAIT_S_MAX, WAIT_S * 2**attempt)))
        raise Conflict(f"{self.name}: others kept writing, and some of what was written may be undone.")

    async def _put(self, document: Controls) -> int:
        with translated(f"writing the parameter {self.name}"):
            answer = await self.client.put_parameter(Name=self.name, Value=text_of(document), Type="String", Overwrite=True)
        version: int = answer["Version"]
        return version

    async def _hidden(self, found: Stored, clock: Clock, *, written_here: bool) -> list[Change]:
        """Return the changes that the document in force hides, since it was made from an older version than theirs."""
        first, last = found.pinned.controls.revision + 1, found.stands_in - 1
        if first > last:
            return []
        for look in range(LOOKS_MAX):
            # The history may lag a moment behind the answer to a put.
            await clock.sleep(WAIT_S if look else 0)
            history = await self._history()
            if found.stands_in in history:
                break
        else:
            raise Unavailable(f"The history of the parameter {self.name} can't be read up to version {found.stands_in}.")
        changes = []
        for version in range(first, last + 1):
            known = history.get(version)
            # SSM keeps a hundred. And somebody else's document that comes long after what it hides was put back by hand,
            # on purpose; ours only came late.
            if known is None or (not written_here and history[found.stands_in].at - known.at > EDIT_WITHIN):
                continue
            theirs = self._load(version, known)
            if not _is_the_templates(theirs):
                # Not what changed since the version before, which may lack what its own writer brings back later.
                before, _ = self._in_force(history, min(theirs.controls.revision, version - 1))
                changes.append(Change(version, before.controls, theirs.controls))
        return changes

    def _in_force(self, history: dict[int, Version], version: int) -> tuple[PinnedControls, int]:
        """Return what was in force at a version, the newest document until then that is not the template's, and where."""
        for number in sorted(history, reverse=True):
            if number <= version and not _is_the_templates(pinned := self._load(number, history[number])):
                return pinned, number
        return NO_CONTROLS, 0

    def _load(self, version: int, found: Version) -> PinnedControls:
        try:
            return PinnedControls.load(parse_document(found.text))
        except Rejected as error:
            where = f"Version {version} of the parameter {self.name}"
            raise Corrupt(f"{where} holds no controls: {error.refusal.sentence()}") from None

    async def _history(self) -> dict[int, Version]:
        """Return the documents that SSM still keeps (the last hundred), by version."""
        found: dict[int, Version] = {}
        page: dict[str, Any] = {}
        while True:
            with translated(f"reading the history of the parameter {self.name}"):
                answer = await self.client.get_parameter_history(Name=self.name, MaxResults=HISTORY_PAGE, **page)
            found |= dict(_version(item) for item in answer.get("Parameters", ()))
            if not answer.get("NextToken"):
                return found
            page = {"NextToken": answer["NextToken"]}


def _version(parameter: dict[str, Any]) -> tuple[int, Version]:
    try:
        return parameter["Version"], Version(parameter["Value"], parameter["LastModifiedDate"])
    except KeyError:
        # What stands in SSM's place on the way answered something else.
        raise Unavailable("reading the parameter: the answer holds none") from None


def _is_the_templates(found: PinnedControls) -> bool:
    return found.digest == NO_CONTROLS.digest
