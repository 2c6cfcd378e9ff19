"""The reading half of a load: clients of one signed read a second each, over HTTP as anybody would ask.

Of ten reads nine are of one incident and one is a listing of a service. What a client asks is due at its own moment of every
second; an answer's time counts from there.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import httpx
from botocore.credentials import Credentials

from pipeline.clients.signing import sign
from pipeline.local.environment import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY
from tests.bench.load_plan import SERVICES
from tests.bench.load_samples import Samples

GET, LIST = "GET incident", "GET list"
LISTS: Final = 0.1
PAGE: Final = 20
ANSWER_WITHIN_S: Final = 30
# What is asked beyond so many waits its turn here, its time counting: the HTTP library's own queue costs with its square.
AT_ONCE_MAX: Final = 64
CREDENTIALS: Final = Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY)


@dataclass
class Readers:
    """`incidents` grows while others write."""

    url: str
    rng: random.Random
    http: httpx.AsyncClient
    incidents: list[str] = field(default_factory=list)
    asked: int = 0
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE_MAX))

    async def one(self, due: float, samples: Samples, operation: str | None = None) -> None:
        """Ask once; its time counts from `due` (monotonic)."""
        kind = operation or (LIST if self.rng.random() < LISTS or not self.incidents else GET)
        if kind == GET:
            target = f"{self.url}/incidents/{self.rng.choice(self.incidents)}"
        else:
            target = f"{self.url}/incidents?service={self.rng.choice(SERVICES)}&limit={PAGE}"
        self.asked += 1
        async with self._turns:
            request = self.http.build_request("GET", target)
            sign(request, CREDENTIALS, REGION)
            try:
                answer = await self.http.send(request)
            except httpx.HTTPError as error:
                samples.failed(kind, type(error).__name__)
                return
        samples.took(kind, (time.monotonic() - due) * 1000)
        if answer.status_code != 200:
            samples.failed(kind, str(answer.status_code))

    async def open_loop(self, clients: int, seconds: float, samples: Samples) -> None:
        """Let `clients` ask once a second each, each at its own moment of the second, for so long."""
        moments = sorted(self.rng.random() for _ in range(clients))
        began = time.monotonic()
        asking: set[asyncio.Task[None]] = set()
        for second in range(max(1, round(seconds))):
            for moment in moments:
                due = began + second + moment
                if (left := due - time.monotonic()) > 0:
                    await asyncio.sleep(left)
                task = asyncio.create_task(self.one(due, samples))
                asking.add(task)
                task.add_done_callback(asking.discard)
        await asyncio.gather(*asking)

    async def closed_loop(self, at_once: int, seconds: float, samples: Samples, operation: str | None = None) -> float:
        """Let `at_once` clients ask again as soon as they are answered; return the answers a second."""
        began = time.monotonic()
        before = self.asked

        async def ask() -> None:
            while time.monotonic() < began + seconds:
                await self.one(time.monotonic(), samples, operation)

        await asyncio.gather(*(ask() for _ in range(at_once)))
        return (self.asked - before) / (time.monotonic() - began)

    async def most(self, steps: Sequence[int], seconds: float) -> float:
        """Return the most answers a second of any number at once: what this machine can do."""
        return max([await self.closed_loop(many, seconds, Samples()) for many in steps])


def client() -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=AT_ONCE_MAX, max_keepalive_connections=AT_ONCE_MAX)
    return httpx.AsyncClient(timeout=ANSWER_WITHIN_S, limits=limits, trust_env=False)
