"""A queue and a rule of one's own on the bus, for as long as one listens; both are gone afterwards, however it ends.

Delivers what arrives as it arrives: at least once, in no order. What a killed listener left is swept by the next one: a
listener marks its queue as alive every minute, and a queue long unmarked belongs to nobody.
"""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from pipeline.domain.canonical import Document, parse_document
from pipeline.domain.envelope import SOURCE
from pipeline.domain.errors import Rejected, Unavailable
from pipeline.stores.clients import Clients, translated

ALIVE_TAG: Final = "opx:listener-alive"
ALIVE_EVERY_S: Final = 60
DEAD_AFTER_S: Final = 900
# Shorter than the clients' read time-out.
WAIT_S: Final = 2
RETENTION_S: Final = 3600
TARGET_ID: Final = "listener"
UNREADABLE: Final = "unreadable"


@dataclass(frozen=True, slots=True)
class Arrival:
    """One event as it came over the bus; what can't be read is UNREADABLE, with the text in its detail."""

    detail_type: str
    detail: Document

    @property
    def is_readable(self) -> bool:
        return self.detail_type != UNREADABLE


class Subscription:
    """An open subscription."""

    def __init__(self, clients: Clients, name: str, queue_url: str) -> None:
        self.name = name
        self._sqs = clients.sqs
        self._queue_url = queue_url
        self._marked_at = time.monotonic()

    async def receive(self, wait_s: int = WAIT_S) -> tuple[Arrival, ...]:
        """Return what has arrived, waiting up to `wait_s` for the first; what is returned is not delivered again."""
        if time.monotonic() - self._marked_at > ALIVE_EVERY_S:
            await self._mark_alive()
        with translated("receiving events"):
            answer = await self._sqs.receive_message(
                QueueUrl=self._queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=min(wait_s, WAIT_S)
            )
        messages = answer.get("Messages", ())
        if not messages:
            return ()
        arrivals = tuple(arrival_of(message["Body"]) for message in messages)
        with translated("deleting received events"):
            await self._sqs.delete_message_batch(
                QueueUrl=self._queue_url,
                Entries=[
                    {"Id": str(index), "ReceiptHandle": message["ReceiptHandle"]} for index, message in enumerate(messages)
                ],
            )
        return arrivals

    async def _mark_alive(self) -> None:
        with translated("marking the subscription as alive"):
            await self._sqs.tag_queue(QueueUrl=self._queue_url, Tags={ALIVE_TAG: str(int(time.time()))})
        self._marked_at = time.monotonic()


def arrival_of(body: str) -> Arrival:
    """Return the event in a message's body."""
    try:
        envelope = parse_document(body)
    except Rejected:
        return Arrival(UNREADABLE, {UNREADABLE: body})
    detail_type, detail = envelope.get("detail-type"), envelope.get("detail")
    if not isinstance(detail_type, str) or not isinstance(detail, dict):
        return Arrival(UNREADABLE, {UNREADABLE: body})
    return Arrival(detail_type, detail)


def pattern_of(detail_types: Sequence[str] = (), services: Sequence[str] = ()) -> Document:
    """Return the rule's pattern: opx's events, narrowed to types and services where some are named."""
    pattern: Document = {"source": [SOURCE]}
    if detail_types:
        pattern["detail-type"] = list(detail_types)
    if services:
        pattern["detail"] = {"metadata": {"service": list(services)}}
    return pattern


@asynccontextmanager
async def subscribe(
    clients: Clients, bus: str, prefix: str, pattern: Mapping[str, Any] | None = None
) -> AsyncIterator[Subscription]:
    """Listen to `bus`: what is published after this returns is delivered. Rule and queue are removed at the end."""
    await sweep(clients, bus, prefix)
    name = f"{prefix}-tail-{time.strftime('%Y%m%d%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"
    made: list[Callable[[], Awaitable[Any]]] = []
    try:
        with translated("subscribing to the bus"):
            queue_url = await _make_queue(clients, name, made)
            await _make_rule(clients, name, bus, queue_url, pattern or pattern_of(), made)
        yield Subscription(clients, name, queue_url)
    finally:
        await _undo(made)


async def _make_queue(clients: Clients, name: str, made: list[Callable[[], Awaitable[Any]]]) -> str:
    answer = await clients.sqs.create_queue(
        QueueName=name,
        Attributes={"MessageRetentionPeriod": str(RETENTION_S), "SqsManagedSseEnabled": "true"},
        tags={ALIVE_TAG: str(int(time.time()))},
    )
    queue_url: str = answer["QueueUrl"]
    made.append(lambda: clients.sqs.delete_queue(QueueUrl=queue_url))
    return queue_url


async def _make_rule(
    clients: Clients,
    name: str,
    bus: str,
    queue_url: str,
    pattern: Mapping[str, Any],
    made: list[Callable[[], Awaitable[Any]]],
) -> None:
    answer = await clients.sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
    queue_arn = answer["Attributes"]["QueueArn"]
    rule = {"Name": name, "EventBusName": bus}
    # Before it is made: a call that is broken off may have made it, and removing what isn't there is fine.
    made.append(lambda: clients.events.delete_rule(**rule))
    rule_arn = (await clients.events.put_rule(**rule, EventPattern=json.dumps(pattern)))["RuleArn"]
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "OnlyThisRule",
                "Effect": "Allow",
                "Principal": {"Service": "events.amazonaws.com"},
                "Action": "sqs:SendMessage",
                "Resource": queue_arn,
                "Condition": {"ArnEquals": {"aws:SourceArn": rule_arn}},
            }
        ],
    }
    await clients.sqs.set_queue_attributes(QueueUrl=queue_url, Attributes={"Policy": json.dumps(policy)})
    made.append(lambda: clients.events.remove_targets(Rule=name, EventBusName=bus, Ids=[TARGET_ID]))
    put = await clients.events.put_targets(Rule=name, EventBusName=bus, Targets=[{"Id": TARGET_ID, "Arn": queue_arn}])
    if put.get("FailedEntryCount"):
        raise Unavailable(f"the rule did not take its queue: {put['FailedEntries'][0].get('ErrorMessage', 'unknown')}")


async def _undo(made: list[Callable[[], Awaitable[Any]]]) -> None:
    """Take back what was made, newest first; one that fails does not keep the others."""
    failures: list[Unavailable] = []
    for remove in reversed(made):
        try:
            with translated("removing the subscription"):
                await remove()
        except Unavailable as error:
            failures.append(error)
    if failures:
        raise failures[0]


async def sweep(clients: Clients, bus: str, prefix: str, dead_after_s: int = DEAD_AFTER_S) -> int:
    """Remove what listeners left that did not end in good order; return how many. Others' live ones stay."""
    swept = 0
    with translated("looking for dead subscriptions"):
        listed = await clients.sqs.list_queues(QueueNamePrefix=f"{prefix}-tail-", MaxResults=1000)
    for queue_url in listed.get("QueueUrls", ()):
        # Gone meanwhile, or not ours to touch: nothing that should keep anybody from listening.
        with suppress(Unavailable), translated("removing a dead subscription"):
            tags = (await clients.sqs.list_queue_tags(QueueUrl=queue_url)).get("Tags", {})
            if not _is_dead(tags.get(ALIVE_TAG), dead_after_s):
                continue
            await _remove_rule(clients, bus, queue_url.rsplit("/", 1)[1])
            await clients.sqs.delete_queue(QueueUrl=queue_url)
            swept += 1
    return swept


def _is_dead(alive: str | None, dead_after_s: int) -> bool:
    # Without the tag it may be another's queue that only has such a name.
    return alive is not None and alive.isdecimal() and time.time() - int(alive) > dead_after_s


async def _remove_rule(clients: Clients, bus: str, name: str) -> None:
    rules = await clients.events.list_rules(NamePrefix=name, EventBusName=bus)
    if any(rule["Name"] == name for rule in rules.get("Rules", ())):
        await clients.events.remove_targets(Rule=name, EventBusName=bus, Ids=[TARGET_ID])
        await clients.events.delete_rule(Name=name, EventBusName=bus)


async def drain(subscription: Subscription, until: Callable[[list[Arrival]], bool], within_s: float) -> list[Arrival]:
    """Collect what arrives until `until` says that it is enough, or the time is up."""
    arrived: list[Arrival] = []
    deadline = time.monotonic() + within_s
    while not until(arrived) and time.monotonic() < deadline:
        arrived += await subscription.receive(1)
        await asyncio.sleep(0)
    return arrived
