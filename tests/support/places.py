"""A world with its API and its queues, asked about as one sender; and queues that remember who looked into them."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from pipeline.cli.asked import Asked, asked_by
from pipeline.cli.counting import QUEUES
from pipeline.cli.following import Findings, Follower
from pipeline.cli.messages import Mappings
from pipeline.cli.outbox import Line
from pipeline.cli.peeking import Queues
from pipeline.cli.session import Session
from pipeline.cli.target import Target
from pipeline.clients.operator import AsyncOperator
from pipeline.domain.alertmanager import OWN_WORDS
from pipeline.domain.authority import Sender
from pipeline.domain.errors import Unavailable
from pipeline.domain.rules import NO_RULES, Rules
from pipeline.stores.clients import Clients
from tests.support.histories import POLICIES
from tests.support.http import AUDITOR, HttpWorld
from tests.support.network import BASE, QUICK, Network, response_of


@dataclass
class As(Network):
    """The network as one sender signs it."""

    sender: Sender = AUDITOR

    async def carry(self, request: httpx.Request) -> httpx.Response:
        path, _, query = request.url.raw_path.decode().removeprefix("/v1").partition("?")
        meant = "&".join(f"{name}={value}" for name, value in httpx.QueryParams(query).items())
        return response_of(await self.world.call(request.method, f"{path}?{meant}", sender=self.sender))


@dataclass
class MemorySqs:
    """Queues as SQS has them, as far as somebody who only looks can tell: what was received is hidden until given back."""

    queues: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    closed: frozenset[str] = frozenset()
    hidden: set[str] = field(default_factory=set)
    received: list[str] = field(default_factory=list)

    def put(self, queue: str, body: Any, message_id: str, explanation: dict[str, Any] | None = None) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        message: dict[str, Any] = {"MessageId": message_id, "ReceiptHandle": f"h-{queue}-{message_id}", "Body": text}
        if explanation is not None:
            message["MessageAttributes"] = {"opx": {"StringValue": json.dumps(explanation)}}
        self.queues.setdefault(queue, []).append(message)

    async def get_queue_attributes(self, *, QueueUrl: str, **_: Any) -> Any:  # SQS's own name
        self._check(QueueUrl)
        return {"Attributes": {"ApproximateNumberOfMessages": str(len(self.queues.get(QueueUrl, ())))}}

    async def receive_message(self, *, QueueUrl: str, MaxNumberOfMessages: int, **_: Any) -> Any:
        self._check(QueueUrl)
        self.received.append(QueueUrl)
        visible = [one for one in self.queues.get(QueueUrl, ()) if one["ReceiptHandle"] not in self.hidden]
        self.hidden |= {one["ReceiptHandle"] for one in visible[:MaxNumberOfMessages]}
        return {"Messages": visible[:MaxNumberOfMessages]}

    async def change_message_visibility_batch(self, *, QueueUrl: str, Entries: list[dict[str, Any]]) -> Any:
        assert all(entry["VisibilityTimeout"] == 0 for entry in Entries)
        self.hidden -= {entry["ReceiptHandle"] for entry in Entries}
        return {}

    def _check(self, queue: str) -> None:
        if queue in self.closed:
            raise Unavailable("AccessDenied")


@dataclass
class Place:
    """A world with its API and its queues, asked about as one sender."""

    rules: Rules = NO_RULES
    sqs: MemorySqs = field(default_factory=MemorySqs)
    world: HttpWorld = field(init=False)

    def __post_init__(self) -> None:
        self.world = HttpWorld(rules=self.rules)

    async def follow(self, *parts: Asked, sender: Sender = AUDITOR, principal: str | None = None) -> Findings:
        http = httpx.AsyncClient(transport=httpx.MockTransport(As(self.world, sender=sender)))
        operator = AsyncOperator(BASE, patience=QUICK, http=http)
        queues = self.queues()
        return await Follower(operator, queues, self.world.store, POLICIES, self.rules, principal).follow(parts)

    def queues(self) -> Queues:
        outputs = {output: name for name, output in QUEUES.items()}
        return Queues(Session(Target("memory", "here", Path(), outputs=outputs), Clients({"sqs": self.sqs})))

    def asked(self, *bodies: Any, message_id: str | None = None) -> list[Asked]:
        lines = [Line(number, json.dumps(body)) for number, body in enumerate(bodies, 1)]
        return asked_by(lines, Mappings((), OWN_WORDS), self.rules, message_id)
