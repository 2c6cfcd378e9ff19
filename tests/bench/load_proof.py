"""What must stand in the tables after a load: everything that was sent, exactly once, and nothing else.

Reads the tables as anybody with permissions can, and folds every history again.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.domain.canonical import Document
from pipeline.domain.replay import verify
from pipeline.domain.transitions import State
from pipeline.stores.items import from_item, without_keys
from tests.bench.load_plan import Plan
from tests.support.stack import Stack

QUEUES = ("CandidatesQueueUrl", "AlarmsQueueUrl", "AlertmanagerQueueUrl", "CommandsQueueUrl")
DEAD = ("CandidatesDlqUrl", "AlarmsDlqUrl", "AlertmanagerDlqUrl", "CommandsDlqUrl")


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that must hold, and what was found."""

    says: str
    holds: bool
    found: str


@dataclass(frozen=True)
class Stored:
    """What is left of a load: the three tables, read once, and the messages in queues. `published`: events on the bus."""

    rows: dict[str, Document]
    histories: dict[str, tuple[Document, ...]]
    receipts: int
    heard: frozenset[str]
    published: int
    waiting: int = 0
    dead: int = 0
    rejected: int = 0
    set_aside: int = 0

    @property
    def events(self) -> int:
        return sum(map(len, self.histories.values()))


def stored(stack: Stack, heard: set[str], published: int) -> Stored:
    """Read all of it. `heard`: whose opening a subscriber got; `published`: by the fan-out's own lines."""
    rows = [without_keys(from_item(item)) for item in stack.rows("IncidentsTableName") if "state" in item]
    found: dict[str, list[Document]] = {}
    for item in stack.rows("EventsTableName"):
        event = from_item(item)
        found.setdefault(event["incidentId"], []).append(event)
    histories = {key: tuple(sorted(events, key=lambda one: one["sequence"])) for key, events in found.items()}
    return Stored(
        rows={row["incidentId"]: row for row in rows},
        histories=histories,
        receipts=len(stack.rows("IdempotencyTableName")),
        heard=frozenset(heard),
        published=published,
        waiting=sum(map(stack.depth, QUEUES)),
        dead=sum(map(stack.depth, DEAD)),
        rejected=stack.depth("RejectedQueueUrl"),
        set_aside=stack.depth("FanoutFailuresQueueUrl"),
    )


def claims(plan: Plan, found: Stored) -> Iterator[Claim]:
    """Check a load that has been worked off."""
    missing, alien = plan.detections.keys() - found.rows.keys(), found.rows.keys() - plan.detections.keys()
    yield Claim(
        "every incident that was sent exists exactly once, and no other",
        not missing and not alien,
        f"{len(found.rows):,} of {len(plan.detections):,}; missing {len(missing)}, unknown {len(alien)}",
    )
    counted = {key: row["metadata"]["promotion"]["detections"] for key, row in found.rows.items()}
    wrong = [key for key, many in plan.detections.items() if counted.get(key) != many]
    yield Claim("each counts its candidates once, copies not", not wrong, f"{len(wrong)} count otherwise")
    states = {key: State.RESOLVED if key in plan.acted else State.OPEN for key in plan.detections}
    wrong = [key for key, state in states.items() if found.rows.get(key, {}).get("state") != state]
    told = Counter(row["state"] for row in found.rows.values())
    yield Claim("each is in the state that was asked for", not wrong, ", ".join(f"{n:,} {s}" for s, n in told.items()))
    yield Claim(
        "receipts = messages without their copies",
        found.receipts == plan.receipts,
        f"{found.receipts:,} of {plan.receipts:,}",
    )
    differ = [one for key, history in found.histories.items() for one in verify(key, history, found.rows.get(key))]
    wrong = sorted(found.rows.keys() ^ found.histories.keys())
    yield Claim(
        "rows = fold of their events; hashes chain, no gap",
        not differ and not wrong,
        f"{found.events:,} events of {len(found.histories):,} histories, {len(differ) + len(wrong)} divergences",
    )
    deaf = plan.detections.keys() - found.heard
    yield Claim("a subscriber heard of every opening", not deaf, f"{len(found.heard):,} heard, {len(deaf)} not")
    enough = found.published >= found.events
    yield Claim("every event was published", enough, f"{found.published:,} for {found.events:,} events")
    yield Claim("nothing waits", found.waiting == 0, f"{found.waiting} messages")
    yield Claim("nothing is dead", found.dead == 0, f"{found.dead} messages")
    yield Claim("nothing was rejected", found.rejected == 0, f"{found.rejected} messages")
    yield Claim("the fan-out set nothing aside", found.set_aside == 0, f"{found.set_aside} messages")
