"""The incident controller: a command from any door to its effect. One consistent read, one transaction.

The operation is authorized before the incident is read (a stranger learns nothing of what exists), its service after.
Rules are in `domain.decisions`; the loop is in `decision`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from pipeline.domain.authority import Registry, authorize
from pipeline.domain.base import read
from pipeline.domain.candidates import Candidate, Key, Received
from pipeline.domain.canonical import Document, digest, parse_document
from pipeline.domain.commands import COMMAND, COMMAND_TYPES, Command, Declare, OnIncident, RequestPromotion
from pipeline.domain.decisions import Decision, Gate, decide_command
from pipeline.domain.errors import Code, OpxError, Refusal, Rejected
from pipeline.domain.events import Observation, ObservationKind
from pipeline.domain.ids import declared_key
from pipeline.domain.incidents import Incident
from pipeline.domain.promotion import DECLARED_POLICY, Policies
from pipeline.domain.receipts import Request
from pipeline.domain.transitions import AuthorityType
from pipeline.services.cases import CommandCase, KeyCase
from pipeline.services.decision import Answered, DecisionLoop, Outcome, Refused, View
from pipeline.services.intake import apply_candidates, check_size, holder_reader
from pipeline.services.ports import ControlsSource
from pipeline.services.rehearsal import RehearsalStore


@dataclass(frozen=True, slots=True)
class CommandWork:
    """A readable command: what it asks, who signed it, and its key.

    `row_version`: it is meant for the incident as it was at this version, and refused where anything has happened since. No
    body can say it; its expectedVersion is the controlVersion, which evidence and notes don't move.
    """

    command: Command
    received: Received
    key: Key
    request_digest: str
    row_version: int | None = None

    @property
    def operation(self) -> str:
        return self.command.type


class ControllerService:
    """All commands of people and automation, for any door."""

    def __init__(self, loop: DecisionLoop, policies: Policies, registry: Registry, controls: ControlsSource) -> None:
        self.loop = loop
        self.policies = policies
        self.registry = registry
        self.controls = controls

    def rehearsing(self) -> "ControllerService":
        """Return a controller that decides like this one and writes nothing: for telling what a command would do."""
        loop = DecisionLoop(RehearsalStore(self.loop.store), self.loop.clock, self.loop.schema_version)
        return ControllerService(loop, self.policies, self.registry, self.controls)

    def read(self, body: str, received: Received) -> CommandWork:
        """Return the command in a message, or raise `Rejected`."""
        check_size(body)
        document = parse_document(body)
        if document.get("type") == "candidate" or "detail-type" in document:
            raise Rejected(Refusal(Code.UNKNOWN_TYPE, "Candidates and alarms belong on the candidates queue.", "type"))
        kind = document.get("type")
        if not isinstance(kind, str) or kind not in COMMAND_TYPES:
            raise Rejected(Refusal(Code.UNKNOWN_TYPE, "The `type` is missing or not a command.", "type"))
        return self.work_of(document, received, Key("message", received.message_id))

    def work_of(self, document: Document, received: Received, derived: Key) -> CommandWork:
        """Return the command that a document is, under the caller's own key or else the `derived` one; or raise `Rejected`.

        The same document is the same request at every door: its digest is what a later copy is compared by.
        """
        command = read(COMMAND, document)
        chosen = command.idempotency_key
        key = derived if chosen is None else Key("caller", chosen)
        return CommandWork(command, received, key, digest(document))

    async def take(self, work: CommandWork, view: View, deadline: float) -> Outcome:
        """Apply one command exactly once. Raises `Unavailable` where it could not be told whether it took effect."""
        sender, command = work.received.sender, work.command
        request = Request.of(sender.principal, work.key, command.type, work.request_digest)
        if isinstance(command, Declare):
            return await self._declare(command, work, request, view, deadline)
        actor = authorize(self.registry, sender, command.authority, command.type, None)
        if isinstance(actor, Refusal) and actor.code is not Code.AUTHORITY_UNCLEAR:
            return await self.loop.refuse_unless_replayed(request, actor)
        return await self._on_incident(command, work, request, view, deadline)

    async def take_all(self, works: Sequence[CommandWork], view: View, deadline: float) -> tuple[tuple[Answered, ...], ...]:
        """Apply commands one after the other, in the order they stand in; return what became of each."""
        answers: list[tuple[Answered, ...]] = []
        for work in works:
            try:
                self.loop.check_time(deadline)
                answers.append((await self.take(work, view, deadline),))
            except Rejected as error:
                # Whatever finds it: what is refused is never tried again.
                answers.append((Refused(error.refusal),))
            except OpxError as error:
                answers.append((error,))
        return tuple(answers)

    async def _on_incident(
        self, command: OnIncident, work: CommandWork, request: Request, view: View, deadline: float
    ) -> Outcome:
        sender = work.received.sender
        # The live controls are asked by the gate alone: nobody must wait for them to resolve an incident.
        asks = isinstance(command, RequestPromotion)
        gate = Gate(self.policies, await self.controls.current()) if asks else Gate(self.policies)

        def decide(incident: Incident | None) -> Decision:
            if incident is None:
                detail = f"There is no incident {command.incident_id}."
                return Refusal(Code.INCIDENT_UNKNOWN, detail, "incidentId", command.incident_id)
            actor = authorize(self.registry, sender, command.authority, command.type, incident.service)
            if isinstance(actor, Refusal):
                return actor
            if work.row_version not in (None, incident.version):
                return _moved_on(incident)
            return decide_command(command, incident, actor, gate)

        async def reload() -> Incident | None:
            incident = await self.loop.store.load(command.incident_id)
            if incident is not None:
                view.keep(incident)
            return incident

        known = view.by_id.get(command.incident_id)
        case = CommandCase((request,), decide, reload)
        if known is not None:
            return await self.loop.run_one(case, view, deadline, known, fresh=False)
        return await self.loop.run_one(case, view, deadline, await reload(), fresh=True)

    async def _declare(self, command: Declare, work: CommandWork, request: Request, view: View, deadline: float) -> Outcome:
        sender = work.received.sender
        actor = authorize(self.registry, sender, command.authority, command.type, command.service)
        if isinstance(actor, Refusal):
            return await self.loop.refuse_unless_replayed(request, actor)
        if actor.justification is None and command.reason is not None:
            actor = actor.model_copy(update={"justification": command.reason})
        candidate = Candidate(
            service=command.service,
            dedup_key=command.dedup_key or declared_key(sender.principal, work.key.value),
            severity=command.severity,
            title=command.title,
            description=command.description,
            observation=Observation(
                kind=ObservationKind.DECLARATION,
                source=actor.actor_id,
                observed_at=work.received.sent_at,
                # What a program declares is no surer for it: the policy `declared` takes a person's word alone.
                confidence=Decimal(actor.authority_type is AuthorityType.HUMAN),
            ),
            evidence=command.evidence,
            links=command.links,
            tags=command.metadata,
            policy_id=DECLARED_POLICY,
        )
        key = (candidate.service, candidate.dedup_key)
        gate = Gate(self.policies, await self.controls.current())
        reported = {request.receipt_id: (candidate, actor)}
        case = KeyCase((request,), reported, key, gate, holder_reader(self.loop.store, *key), waits=False)
        outcomes: dict[str, Outcome] = {}
        await apply_candidates(self.loop, case, view, deadline, outcomes)
        return outcomes[request.receipt_id]


def _moved_on(incident: Incident) -> Refusal:
    detail = f"Something has happened to it since: it is at version {incident.version}."
    return Refusal(Code.VERSION_STALE, detail, None, incident.incident_id, incident.state.value)
