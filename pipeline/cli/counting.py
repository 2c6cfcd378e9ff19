"""Counts a stack from outside: queue depths, incidents by state, receipts. Never through the code that made them.

Reads only, page by page. Queue depths are approximate on AWS by SQS's own account.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from pipeline.cli.session import Session
from pipeline.domain.ids import STATE_SHARDS
from pipeline.domain.transitions import State
from pipeline.stores.clients import translated
from pipeline.stores.items import STATE_SHARD, state_shard

# What is waiting, what was refused, what needs somebody: in this order.
QUEUES: Final = {
    "candidates": "CandidatesQueueUrl",
    "alarms": "AlarmsQueueUrl",
    "alertmanager": "AlertmanagerQueueUrl",
    "commands": "CommandsQueueUrl",
    "rejected": "RejectedQueueUrl",
    "candidates-dlq": "CandidatesDlqUrl",
    "alarms-dlq": "AlarmsDlqUrl",
    "alertmanager-dlq": "AlertmanagerDlqUrl",
    "commands-dlq": "CommandsDlqUrl",
    "fanout-failures": "FanoutFailuresQueueUrl",
}
INTAKE: Final = ("candidates", "alarms", "alertmanager", "commands")
DEAD: Final = ("candidates-dlq", "alarms-dlq", "alertmanager-dlq", "commands-dlq")
# Only in a stack that has a webhook.
WEBHOOK_DLQ: Final = "webhook-dlq"
_WEBHOOK_DLQ_OUTPUT: Final = "WebhookDlqUrl"
_DEPTHS: Final = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)


@dataclass(frozen=True, slots=True)
class Depth:
    """Messages of one queue: waiting, being worked on (or waiting for another try), and delayed."""

    waiting: int
    in_flight: int
    delayed: int

    @property
    def total(self) -> int:
        return self.waiting + self.in_flight + self.delayed


def url_of(session: Session, queue: str) -> str:
    return session.target.output(_WEBHOOK_DLQ_OUTPUT if queue == WEBHOOK_DLQ else QUEUES[queue])


def looked_into(session: Session) -> tuple[str, ...]:
    """Return the queues that nobody works off: what lies there waits for somebody to look."""
    webhook = (WEBHOOK_DLQ,) if _WEBHOOK_DLQ_OUTPUT in session.target.outputs else ()
    return ("rejected", *DEAD, "fanout-failures", *webhook)


async def depth_of(session: Session, queue: str) -> Depth:
    with translated(f"counting the queue {queue}"):
        answer = await session.clients.sqs.get_queue_attributes(
            QueueUrl=url_of(session, queue), AttributeNames=list(_DEPTHS)
        )
    return Depth(*(int(answer["Attributes"].get(name, 0)) for name in _DEPTHS))


async def depths(session: Session, queues: tuple[str, ...] = tuple(QUEUES)) -> dict[str, Depth]:
    found = await asyncio.gather(*(depth_of(session, queue) for queue in queues))
    return dict(zip(queues, found, strict=True))


@dataclass(frozen=True, slots=True)
class StateCount:
    """How many incidents are in a state; `more` where the index has further pages, which are not counted."""

    state: State
    count: int
    more: bool

    def __str__(self) -> str:
        return f"more than {self.count}" if self.more else str(self.count)


async def incidents_by_state(session: Session) -> list[StateCount]:
    """Count incidents by state from the first page of each index partition: bounded, whatever the table holds."""
    return list(await asyncio.gather(*(_count_state(session, state) for state in State)))


async def _count_state(session: Session, state: State) -> StateCount:
    async def page(number: int) -> Any:
        with translated("counting incidents"):
            return await session.clients.dynamodb.query(
                TableName=session.target.output("IncidentsTableName"),
                IndexName="by-state",
                Select="COUNT",
                KeyConditionExpression="#shard = :shard",
                ExpressionAttributeNames={"#shard": STATE_SHARD},
                ExpressionAttributeValues={":shard": {"S": state_shard(state, number)}},
            )

    pages = await asyncio.gather(*(page(number) for number in range(STATE_SHARDS)))
    return StateCount(
        state, sum(answer["Count"] for answer in pages), any(answer.get("LastEvaluatedKey") for answer in pages)
    )


async def count_items(session: Session, table_output: str) -> int:
    """Count a table's items by scanning all of it, strongly consistent: for trials and demonstrations."""
    request: dict[str, Any] = {
        "TableName": session.target.output(table_output),
        "Select": "COUNT",
        "ConsistentRead": True,
    }
    counted: int = 0
    while True:
        with translated("counting a table"):
            answer = await session.clients.dynamodb.scan(**request)
        counted += int(answer["Count"])
        if not answer.get("LastEvaluatedKey"):
            return counted
        request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


async def wait_until_drained(session: Session, within_s: float, on_waiting: Any = None) -> bool:
    """Wait until the intake queues hold nothing, twice in a row; return whether that came in time."""
    deadline = asyncio.get_running_loop().time() + within_s
    empty = 0
    while asyncio.get_running_loop().time() < deadline:
        left = sum(depth.total for depth in (await depths(session, INTAKE)).values())
        empty = empty + 1 if left == 0 else 0
        if empty == 2:
            return True
        if on_waiting is not None:
            on_waiting(left)
        await asyncio.sleep(0.1)
    return False
