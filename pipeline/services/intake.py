"""From a message on the candidates or alarms queue to its effect: read, authorize, decide, commit.

`read` is pure and says which key a message is about, so that a door can work on different keys at once; `take` does
the rest.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pipeline.domain.authority import AuthorityContext, Registry, Sender, authorize
from pipeline.domain.base import INTAKE_BYTES_MAX
from pipeline.domain.candidates import OPERATION, AlarmMapping, Candidate, Intake, Received, read_intake
from pipeline.domain.canonical import parse_document
from pipeline.domain.decisions import Decision, decide_candidate
from pipeline.domain.errors import Code, Corrupt, Refusal, Rejected
from pipeline.domain.incidents import Incident
from pipeline.domain.promotion import Policies
from pipeline.domain.receipts import Request
from pipeline.services.decision import Case, DecisionLoop, Outcome, View
from pipeline.services.ports import IncidentStore


@dataclass(frozen=True, slots=True)
class IntakeWork:
    """A readable message: what it says and who sent it."""

    intake: Intake
    sender: Sender

    @property
    def order_key(self) -> str:
        """Messages with equal order keys are worked on one after the other."""
        return f"{self.intake.candidate.service}\0{self.intake.candidate.dedup_key}"

    @property
    def operation(self) -> str:
        return OPERATION


class IntakeService:
    """Candidate intake for any door."""

    def __init__(
        self, loop: DecisionLoop, policies: Policies, registry: Registry, mappings: tuple[AlarmMapping, ...] = ()
    ) -> None:
        self.loop = loop
        self.policies = policies
        self.registry = registry
        self.mappings = mappings

    def read(self, body: str, received: Received) -> IntakeWork:
        """Return what a message says, or raise `Rejected`."""
        check_size(body)
        return IntakeWork(read_intake(parse_document(body), received, self.mappings), received.sender)

    async def take(self, work: IntakeWork, view: View, deadline: float) -> Outcome:
        """Apply one candidate exactly once. Raises `Unavailable` where it could not be told whether it took effect."""
        intake, candidate = work.intake, work.intake.candidate
        request = Request.of(work.sender.principal, intake.key, OPERATION, intake.request_digest)
        actor = authorize(self.registry, work.sender, intake.claim, OPERATION, candidate.service)
        if isinstance(actor, Refusal):
            return await self.loop.refuse_unless_replayed(request, actor)
        return await apply_candidate(self.loop, request, candidate, actor, self.policies, view, deadline)


async def apply_candidate(
    loop: DecisionLoop,
    request: Request,
    candidate: Candidate,
    actor: AuthorityContext,
    policies: Policies,
    view: View,
    deadline: float,
) -> Outcome:
    """Bring one candidate (or declaration) to its key's incident, without a read where it is the key's first."""

    def decide(holder: Incident | None) -> Decision:
        return decide_candidate(candidate, holder, actor, policies)

    key = (candidate.service, candidate.dedup_key)
    case = Case(request, decide, holder_reader(loop.store, *key), key)
    return await loop.run(case, view, deadline, view.holder(*key), fresh=False)


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


def check_size(body: str) -> None:
    """Raise `Rejected` where a message's body is over the intake limit; measured before it is parsed."""
    size = len(body.encode("utf-8", "surrogatepass"))
    if size > INTAKE_BYTES_MAX:
        raise Rejected(Refusal(Code.TOO_LARGE, f"The body has {size} bytes; {INTAKE_BYTES_MAX} are allowed.", "body"))
