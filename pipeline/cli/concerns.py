"""What of a stack's health needs somebody, in one sentence each, and the next command. Pure: decided from what was read."""

from dataclasses import dataclass
from typing import Final

from pipeline.cli.counting import DEAD, WEBHOOK_DLQ, Depth
from pipeline.cli.session import Session
from pipeline.cli.vitals import NOT_MEASURED, OLDER_STACK, Unread, Vitals
from pipeline.services.health import RUNS
from pipeline.stores.meters import DELETED

RUNBOOKS: Final = "infra/runbooks"
# The parts that CloudWatch or an older stack may not tell: that is no fault.
EXPECTED: Final = (NOT_MEASURED, OLDER_STACK)


@dataclass(frozen=True, slots=True)
class Concern:
    what: str
    then: str


def concerns_of(session: Session, seen: Vitals, opx: str) -> list[Concern]:
    """Return what needs somebody, the worst first; nothing where all is well as far as it can be told."""
    found = [*_of_fanout(session, seen), *_of_queues(seen, opx)]
    if not isinstance(seen.verified, Unread) and seen.verified.divergences:
        what = f"The last verification found divergences: {seen.verified.divergences}."
        found.insert(0, Concern(what, f"see {RUNBOOKS}/corruption.md"))
    if not isinstance(seen.alarms, Unread):
        found += [Concern(f"{one.name} is raised.", f"see {RUNBOOKS}/{one.name}.md") for one in seen.alarms]
    return [*found, *_of_unread(seen, opx)]


def _of_fanout(session: Session, seen: Vitals) -> list[Concern]:
    if isinstance(seen.mapping, Unread) or seen.mapping in RUNS:
        return []
    if seen.mapping == DELETED:
        return [Concern("The fan-out's mapping is deleted: nothing is published.", f"see {RUNBOOKS}/fanout-stopped.md")]
    identity, target = session.target.output("FanoutMappingId"), session.target
    where = f" --endpoint-url {target.endpoint_url}" if target.endpoint_url else f" --region {target.region}"
    profile = f" --profile {target.profile}" if target.profile else ""
    then = f"aws lambda update-event-source-mapping --uuid {identity} --enabled{where}{profile}"
    return [Concern(f"The fan-out is {seen.mapping}: nothing is published.", then)]


def _of_queues(seen: Vitals, opx: str) -> list[Concern]:
    def waiting(queue: str) -> int:
        depth = seen.queues.get(queue)
        return depth.total if isinstance(depth, Depth) else 0

    found = []
    dead = [f"{waiting(queue)} in {queue}" for queue in DEAD if waiting(queue)]
    if dead:
        found.append(Concern(f"Messages are dead: {', '.join(dead)}.", f"{opx} queue list"))
    failed, missed, refused = (waiting(queue) for queue in ("fanout-failures", WEBHOOK_DLQ, "rejected"))
    if failed:
        what = f"Events were not published: {failed} in fanout-failures."
        found.append(Concern(what, f"{opx} queue show fanout-failures"))
    if missed:
        what = f"The webhook did not take events: {missed} in {WEBHOOK_DLQ}."
        found.append(Concern(what, f"{opx} queue show {WEBHOOK_DLQ}"))
    if refused:
        found.append(Concern(f"Messages were refused: {refused} in rejected.", f"{opx} queue show rejected"))
    return found


def _of_unread(seen: Vitals, opx: str) -> list[Concern]:
    parts = {
        **{f"the queue {name}": depth for name, depth in seen.queues.items()},
        "whether the fan-out runs": seen.mapping,
        "how long messages wait": seen.ages,
        "which alarms are raised": seen.alarms,
        "what was last verified": seen.verified,
    }
    unread = {name: part.why for name, part in parts.items() if isinstance(part, Unread) and part.why not in EXPECTED}
    if not unread:
        return []
    # One of them tells the reason of most.
    name, why = next(iter(unread.items()))
    more = f" (and {len(unread) - 1} more)" if len(unread) > 1 else ""
    denied = any(sign in why for sign in ("AccessDenied", "not authorized"))
    then = "attach the policy of the output ReaderPolicyArn to yourself" if denied else f"{opx} status"
    return [Concern(f"Not to be read: {name}{more}: {why}", then)]
