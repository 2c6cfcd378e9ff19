"""What is decided together, in its three kinds: a command, the candidates of one key, the detections of one window.

Each says how to decide and where to read what it decides on; `decision` runs it. Rules are in the domain.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from pipeline.domain.authority import AuthorityContext
from pipeline.domain.candidates import Candidate, Detection
from pipeline.domain.correlation import Span, Window, count, first_candidate, later_candidate, reached, that_count
from pipeline.domain.decisions import COUNTED, Decision, Gate
from pipeline.domain.errors import Corrupt, Refusal
from pipeline.domain.incidents import Incident
from pipeline.domain.occurrences import TOGETHER_MAX, Reported, attach, decide_candidates, is_backlog, join
from pipeline.domain.receipts import Request
from pipeline.services.commits import Ruling
from pipeline.services.decision import key_gone_on
from pipeline.services.ports import IncidentStore, Pointer

Reader = Callable[[], Awaitable[Incident | None]]


@dataclass(slots=True)
class CommandCase:
    """One command on one existing incident."""

    requests: tuple[Request, ...]
    decide: Callable[[Incident | None], Decision]
    reader: Reader

    @property
    def key(self) -> tuple[str, str] | None:
        return None

    @property
    def place(self) -> None:
        return None

    def rule(self, incident: Incident | None, pending: tuple[Request, ...]) -> Ruling:
        return Ruling(self.decide(incident), pending)

    async def reload(self) -> Incident | None:
        return await self.reader()

    def committed(self, window: Window | None) -> None:
        pass

    def key_lost(self, incident: Incident | None, pointer: Pointer) -> Refusal | None:
        return key_gone_on(incident, pointer)


@dataclass(slots=True)
class KeyCase:
    """Candidates of one key, each with who reported it, by receipt id."""

    requests: tuple[Request, ...]
    candidates: Mapping[str, tuple[Candidate, AuthorityContext]]
    key: tuple[str, str]
    gate: Gate
    reader: Reader
    # A person's declaration waits for no storm.
    waits: bool = True

    @property
    def place(self) -> tuple[str, str] | None:
        return self.key if self.waits else None

    def is_late(self, incident: Incident) -> bool:
        """True where some of it was seen before an incident's end, and so may be evidence on it."""
        ending = incident.metadata.resolution
        seen = (candidate.observation.observed_at for candidate, _ in self.candidates.values())
        return ending is not None and any(moment <= ending.at for moment in seen)

    def rule(self, incident: Incident | None, pending: tuple[Request, ...]) -> Ruling:
        reported = [Reported(*self.candidates[request.receipt_id], request.receipt_id) for request in pending]
        ruling = decide_candidates(reported, incident, self.gate)
        return Ruling(ruling.decision, _requests(ruling.about, pending))

    async def reload(self) -> Incident | None:
        return await self.reader()

    def committed(self, window: Window | None) -> None:
        pass

    def key_lost(self, incident: Incident | None, pointer: Pointer) -> Refusal | None:
        raise Corrupt("a key's candidates go on with the key", pointer.incident_id)


@dataclass(slots=True)
class WindowCase:
    """Detections of one window, each with who reported it, by receipt id.

    Until the window reaches its threshold they are counted, and nothing else; with the one that does, all that was counted
    becomes a candidate for the key's incident. Everything later of the window goes to that same incident. A window in which
    all was seen before the key's last incident ended is evidence, and may still become a candidate for what comes after it.
    """

    requests: tuple[Request, ...]
    detections: Mapping[str, tuple[Detection, AuthorityContext]]
    span: Span
    gate: Gate
    store: IncidentStore
    window: Window | None = None
    # The window's incident is read again after another has taken its key: then it takes evidence alone.
    evidence_only: bool = False

    @property
    def key(self) -> tuple[str, str] | None:
        fired = self.window is not None and self.window.incident_id is not None
        return None if fired else self.place

    @property
    def place(self) -> tuple[str, str]:
        return self.span.service, self.span.dedup_key

    def rule(self, incident: Incident | None, pending: tuple[Request, ...]) -> Ruling:
        # One reporter's at a time: an event has one actor.
        first = self.detections[pending[0].receipt_id][1]
        taken = tuple(item for item in pending if self.detections[item.receipt_id][1] == first)[: TOGETHER_MAX - 1]
        seen = tuple(self.detections[request.receipt_id][0] for request in taken)
        counted = count(self.span, self.window, seen)
        counting = that_count(seen)
        if not counting:
            return Ruling(COUNTED, taken, counted)
        if self.window is not None and self.window.incident_id is not None:
            if incident is None:
                raise Corrupt("a window names an incident that has no row", self.window.incident_id)
            reported = (Reported(later_candidate(self.span, counted, counting), first, taken[0].receipt_id),)
            ruling = attach(reported, incident) if self.evidence_only else join(reported, incident, self.gate)
            return Ruling(ruling.decision, taken, counted)
        if not reached(self.span.pinned.rule, counted):
            return Ruling(COUNTED, taken, counted)
        candidate = first_candidate(self.span, counted)
        over = is_backlog(candidate, incident)
        if over and self.window is not None and reached(self.span.pinned.rule, self.window):
            # What was counted before is evidence already.
            candidate = later_candidate(self.span, counted, counting)
        reported = (Reported(candidate, first, taken[0].receipt_id),)
        return Ruling(decide_candidates(reported, incident, self.gate).decision, taken, counted, fires=not over)

    async def reload(self) -> Incident | None:
        """Read the window and the incident it went to. Before it has one, none is read: beginning it finds what there is."""
        self.window = window = await self.store.load_window(self.span.id)
        if window is None or window.incident_id is None:
            return None
        row = await self.store.load(window.incident_id)
        if row is None:
            raise Corrupt("a window names an incident that has no row", window.incident_id)
        return row

    def key_lost(self, incident: Incident | None, pointer: Pointer) -> Refusal | None:
        self.evidence_only = True
        return None

    def committed(self, window: Window | None) -> None:
        self.window = window


def _requests(about: tuple[Reported, ...], pending: tuple[Request, ...]) -> tuple[Request, ...]:
    by_id = {request.receipt_id: request for request in pending}
    return tuple(by_id[one.id] for one in about)
