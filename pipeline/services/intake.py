"""From messages on the candidates, alarms and alertmanager queues to their effect: read, authorize, decide, commit.

A batch is taken as a whole: what is about one incident is decided together, what is about different ones side by side.
Nothing here takes its neighbours along: each part of each message has its own receipt and its own answer.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from pipeline.domain.alertmanager import OWN_WORDS, AlertMapping
from pipeline.domain.authority import AuthorityContext, Registry, Sender, authorize
from pipeline.domain.base import INTAKE_BYTES_MAX
from pipeline.domain.candidates import OPERATION, Candidate, Detection, Intake, Key, Received, Signal
from pipeline.domain.canonical import parse_document
from pipeline.domain.cloudwatch import AlarmMapping
from pipeline.domain.controls import PinnedControls
from pipeline.domain.correlation import Span, recovery_candidate, span_of
from pipeline.domain.decisions import Gate
from pipeline.domain.errors import Code, Corrupt, OpxError, Refusal, Rejected
from pipeline.domain.events import REPORTS_TROUBLE
from pipeline.domain.incidents import Incident
from pipeline.domain.intake import read_intake
from pipeline.domain.promotion import Policies
from pipeline.domain.receipts import Request
from pipeline.domain.rules import NO_RULES, PinnedRule, Rules
from pipeline.domain.transitions import HOLDS_KEY
from pipeline.services.cases import KeyCase, WindowCase
from pipeline.services.decision import Answered, Applied, DecisionLoop, Outcome, Refused, Replayed, View, replayed
from pipeline.services.ports import ControlsSource, IncidentStore

DETECTION: str = "detection"


@dataclass(frozen=True, slots=True)
class IntakeWork:
    """A readable message: what it says and who sent it."""

    intake: Intake
    sender: Sender

    @property
    def operation(self) -> str:
        return OPERATION


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that a message asks for: a candidate, or a detection to be counted in a rule's window."""

    request: Request
    actor: AuthorityContext
    candidate: Candidate | None = None
    detection: Detection | None = None
    span: Span | None = None

    @property
    def key(self) -> tuple[str, str]:
        """The (service, dedupKey) of the incident it is about."""
        if self.span is not None:
            return self.span.service, self.span.dedup_key
        if self.candidate is None:
            raise ValueError("a part is a candidate or a detection")
        return self.candidate.service, self.candidate.dedup_key


@dataclass(slots=True)
class Placed:
    """Where the answer to a part belongs: the message's place in the batch, and the part's among the message's."""

    part: Part
    message: int
    number: int


class IntakeService:
    """Candidate intake for any door."""

    def __init__(
        self,
        loop: DecisionLoop,
        policies: Policies,
        registry: Registry,
        controls: ControlsSource,
        rules: Rules = NO_RULES,
        mappings: tuple[AlarmMapping, ...] = (),
        alert_mapping: AlertMapping = OWN_WORDS,
    ) -> None:
        self.loop = loop
        self.policies = policies
        self.registry = registry
        self.controls = controls
        self.rules = rules
        self.mappings = mappings
        self.alert_mapping = alert_mapping

    def read(self, body: str, received: Received) -> IntakeWork:
        """Return what a message says, or raise `Rejected`."""
        size = check_size(body)
        try:
            document = parse_document(body)
        except Rejected as error:
            if error.refusal.code is Code.MALFORMED_JSON and size == INTAKE_BYTES_MAX:
                detail = "The message ends at 256 KB: its sender cut it off. Send smaller groups (group_by)."
                raise Rejected(Refusal(Code.TOO_LARGE, detail, "body")) from None
            raise
        return IntakeWork(read_intake(document, received, self.mappings, self.alert_mapping), received.sender)

    async def take_all(self, works: Sequence[IntakeWork], view: View, deadline: float) -> tuple[tuple[Answered, ...], ...]:
        """Apply a batch of messages, each part of each exactly once; return per message what became of its parts.

        An exception in place of an outcome means that it could not be told whether the part took effect: deliver the message
        again. A message always has at least one answer.
        """
        try:
            gate = Gate(self.policies, await self.controls.current())
        except OpxError as error:
            return tuple((error,) for _ in works)
        answers: list[dict[int, Answered]] = [{} for _ in works]
        lanes: dict[tuple[str, str], list[Placed]] = {}
        for message, work in enumerate(works):
            await self._place(work, message, gate.controls, deadline, lanes, answers[message])
        async with asyncio.TaskGroup() as side_by_side:
            for lane in lanes.values():
                side_by_side.create_task(self._lane(lane, gate, view, deadline, answers))
        return tuple(tuple(found[number] for number in sorted(found)) for found in answers)

    async def _place(
        self,
        work: IntakeWork,
        message: int,
        controls: PinnedControls,
        deadline: float,
        lanes: dict[tuple[str, str], list[Placed]],
        answers: dict[int, Answered],
    ) -> None:
        """Put each part of a message into its lane; answer at once what needs no lane."""
        for number, part in enumerate(self.parts(work, controls)):
            if isinstance(part, Part):
                lanes.setdefault(part.key, []).append(Placed(part, message, number))
                continue
            request, refusal = part
            if request is None:
                answers[number] = Refused(refusal)
                continue
            try:
                self.loop.check_time(deadline)
                answers[number] = await self.loop.refuse_unless_replayed(request, refusal)
            except OpxError as error:
                answers[number] = error

    def parts(self, work: IntakeWork, controls: PinnedControls) -> list[Part | tuple[Request | None, Refusal]]:
        """Return what a message asks for, part by part, or why a part is refused."""
        found: list[Part | tuple[Request | None, Refusal]] = [(None, refusal) for refusal in work.intake.refusals]
        for signal in work.intake.signals:
            found += self._parts_of(signal, work, controls)
        return found

    def _parts_of(
        self, signal: Signal, work: IntakeWork, controls: PinnedControls
    ) -> list[Part | tuple[Request | None, Refusal]]:
        candidate, detection, claim = signal.candidate, signal.detection, work.intake.claim
        request = _request(work.sender, signal, None)
        service = candidate.service if candidate is not None else detection.service if detection is not None else None
        actor = authorize(self.registry, work.sender, claim, OPERATION, service)
        if isinstance(actor, Refusal):
            return [(request, actor)]
        rules = self.rules.matching(detection) if detection is not None else ()
        if not rules and candidate is not None:
            return [Part(request, actor, candidate=candidate)]
        if not rules or detection is None:
            detail = "No correlation rule counts detections like this one."
            return [(request, Refusal(Code.RULE_UNKNOWN, detail, "signalType"))]
        return [self._counted(detection, signal, rule, work, controls, actor) for rule in rules]

    def _counted(
        self,
        detection: Detection,
        signal: Signal,
        pinned: PinnedRule,
        work: IntakeWork,
        controls: PinnedControls,
        claimed: AuthorityContext,
    ) -> Part | tuple[Request | None, Refusal]:
        request = _request(work.sender, signal, pinned)
        span = span_of(pinned, detection)
        if isinstance(span, Refusal):
            return request, span
        if detection.kind not in REPORTS_TROUBLE:
            return Part(request, claimed, candidate=recovery_candidate(span, detection))
        # Of the service it was seen at, or of the one whose incident it would be.
        at = detection.observed_at
        window = controls.maintenance(detection.service, at) or controls.maintenance(span.service, at)
        seen = replace(detection, maintenance=window.id if window is not None else None)
        return Part(request, claimed, detection=seen, span=span)

    # --- one key -----------------------------------------------------------------------------------------------------

    async def _lane(
        self, lane: list[Placed], gate: Gate, view: View, deadline: float, answers: list[dict[int, Answered]]
    ) -> None:
        """Settle all that is about one key: candidates together, then the detections of each window together."""
        groups: dict[str, list[Placed]] = {}
        for placed in lane:
            groups.setdefault(placed.part.span.id if placed.part.span is not None else "", []).append(placed)
        failure: Exception | None = None
        for group in groups.values():
            if failure is None:
                failure = await self._group(group, gate, view, deadline, answers)
            else:
                # Its incident can't be reached now: what is behind waits with it.
                _tell(group, [None] * len(group), failure, answers)

    async def _group(
        self, group: list[Placed], gate: Gate, view: View, deadline: float, answers: list[dict[int, Answered]]
    ) -> Exception | None:
        found, error = await self._settle(group, gate, view, deadline)
        down = isinstance(error, OpxError) and not isinstance(error, Rejected)
        if error is None or down or len(group) == 1:
            _tell(group, found, error, answers)
            return error if down else None
        # What one of them brings out, a defect or a refusal, must not take the others along: each by itself.
        for placed, outcome in zip(group, found, strict=True):
            if outcome is None:
                (outcome,), error = await self._settle([placed], gate, view, deadline)
            _tell([placed], [outcome], error, answers)
        return None

    async def _settle(
        self, group: list[Placed], gate: Gate, view: View, deadline: float
    ) -> tuple[list[Outcome | None], Exception | None]:
        """Return each one's outcome, as far as there is one, and what kept the others from having theirs.

        Of several with one receipt the first is settled, and the others are answered from its receipt.
        """
        firsts: dict[str, Placed] = {}
        for placed in group:
            firsts.setdefault(placed.part.request.receipt_id, placed)
        outcomes: dict[str, Outcome] = {}
        parts = tuple(placed.part for placed in firsts.values())
        (error,) = await asyncio.gather(self._run(parts, gate, view, deadline, outcomes), return_exceptions=True)
        if error is not None and not isinstance(error, Exception):
            raise error
        found = [_answer(placed, firsts, outcomes) for placed in group]
        for number, placed in enumerate(group):
            if error is None and found[number] is None:
                # Another request under a key whose first one left no receipt.
                (found[number],), error = await self._settle([placed], gate, view, deadline)
        return found, error

    async def _run(
        self, parts: tuple[Part, ...], gate: Gate, view: View, deadline: float, outcomes: dict[str, Outcome]
    ) -> None:
        self.loop.check_time(deadline)
        key, span = parts[0].key, parts[0].span
        requests = tuple(part.request for part in parts)
        if span is None:
            told = {part.request.receipt_id: (part.candidate, part.actor) for part in parts if part.candidate is not None}
            case = KeyCase(requests, told, key, gate, holder_reader(self.loop.store, *key))
            await apply_candidates(self.loop, case, view, deadline, outcomes)
            return
        seen = {part.request.receipt_id: (part.detection, part.actor) for part in parts if part.detection is not None}
        counting = WindowCase(requests, seen, span, gate, self.loop.store)
        await self.loop.turn(counting.place, deadline)
        await self.loop.run(counting, view, deadline, await counting.reload(), outcomes, fresh=True)


def _answer(placed: Placed, firsts: dict[str, Placed], outcomes: dict[str, Outcome]) -> Outcome | None:
    request = placed.part.request
    outcome = outcomes.get(request.receipt_id)
    if firsts[request.receipt_id] is placed or outcome is None:
        return outcome
    match outcome:
        case Applied(receipt) | Replayed(receipt):
            return replayed(receipt, request)
        case Refused():
            same = firsts[request.receipt_id].part.request.request_digest == request.request_digest
            return outcome if same else None


def _request(sender: Sender, signal: Signal, pinned: PinnedRule | None) -> Request:
    if pinned is None:
        operation = OPERATION if signal.candidate is not None else DETECTION
        return Request.of(sender.principal, signal.key, operation, signal.request_digest)
    # Per detection, rule and version: what one rule has counted does not answer for another.
    kind = f"{signal.key.kind}/{pinned.rule.rule_id}.v{pinned.rule.version}"
    return Request.of(sender.principal, Key(kind, signal.key.value), DETECTION, signal.request_digest)


def _tell(
    group: list[Placed], found: list[Outcome | None], error: Exception | None, answers: list[dict[int, Answered]]
) -> None:
    for placed, outcome in zip(group, found, strict=True):
        if outcome is None and isinstance(error, Rejected):
            # Whatever finds it: what is refused is never tried again.
            outcome = Refused(error.refusal)
        answer = outcome if outcome is not None else error
        if answer is None:
            raise ValueError("a part was neither settled nor failed")
        answers[placed.message][placed.number] = answer


async def apply_candidates(
    loop: DecisionLoop, case: KeyCase, view: View, deadline: float, outcomes: dict[str, Outcome]
) -> None:
    """Bring candidates (or a declaration) to their key's incident, without a read where they are the key's first.

    Of an incident that this process knows, but that no longer holds its key, it can't know whether the next has begun: what
    would begin one is tried for at once, since the store says what is in the way; what may be a backlog asks the pointer.
    """
    if case.place is not None:
        await loop.turn(case.place, deadline)
    start = view.holder(*case.key)
    known = loop.known.of(case.key)
    if start is None and known is not None:
        # Read, not tried for: in a storm the row is there, and a read costs less than a refused transaction.
        row = await loop.store.load(known)
        if row is not None:
            view.by_id[row.incident_id] = row
            start = row if row.state in HOLDS_KEY or not case.is_late(row) else None
    await loop.run(case, view, deadline, start, outcomes, fresh=False)


def holder_reader(store: IncidentStore, service: str, dedup_key: str) -> Callable[[], Awaitable[Incident | None]]:
    """Return a reader of the incident that a key points to."""

    async def read() -> Incident | None:
        pointer = await store.load_pointer(service, dedup_key)
        if pointer is None:
            return None
        row = await store.load(pointer.incident_id)
        if row is None:
            raise Corrupt("the key's pointer names an incident that has no row", pointer.incident_id)
        return row

    return read


def check_size(body: str) -> int:
    """Return a message's size in bytes; raise `Rejected` where it is over the intake limit. Measured before it is parsed."""
    size = len(body.encode("utf-8", "surrogatepass"))
    if size > INTAKE_BYTES_MAX:
        raise Rejected(Refusal(Code.TOO_LARGE, f"The body has {size} bytes; {INTAKE_BYTES_MAX} are allowed.", "body"))
    return size
