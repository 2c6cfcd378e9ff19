"""The network in front of the real HTTP door over the memory store: what clients and the command line are tried on."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from pipeline.clients.operator import Patience
from tests.support.http import Heard, HttpWorld

BASE: Final = "https://abc123.execute-api.us-east-1.amazonaws.com/v1"
QUICK: Final = Patience(within_s=5.0, attempt_s=5.0, pause_s=0.001, pause_s_max=0.002)


@dataclass
class Network:
    """Carries requests to a world's door; `troubles` come first, one a request: an answer of somebody in between or an
    error, before the door has heard the request or (`late`) after.
    """

    world: HttpWorld = field(default_factory=HttpWorld)
    troubles: list[httpx.Response | Exception] = field(default_factory=list)
    late: bool = False
    seen: list[httpx.Request] = field(default_factory=list)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        trouble = self.troubles.pop(0) if self.troubles else None
        if trouble is None or self.late:
            found = await self.carry(request)
        if isinstance(trouble, Exception):
            raise trouble
        return trouble or found

    async def carry(self, request: httpx.Request) -> httpx.Response:
        target = request.url.raw_path.decode().removeprefix("/v1")
        # API Gateway hands over parameters as they are meant, not as they are spelled.
        path, _, query = target.partition("?")
        meant = "&".join(f"{name}={value}" for name, value in httpx.QueryParams(query).items())
        headers: dict[str, Any] = {name.replace("-", "_"): text for name, text in request.headers.items()}
        heard = await self.world.call(request.method, f"{path}?{meant}", request.content.decode(), **headers)
        return response_of(heard)

    def keys(self) -> list[str | None]:
        return [request.headers.get("Idempotency-Key") for request in self.seen]

    def blocking(self, request: httpx.Request) -> httpx.Response:
        return asyncio.run(self(request))


def response_of(heard: Heard) -> httpx.Response:
    return httpx.Response(heard.status, headers=heard.headers | {"Content-Type": heard.content_type}, text=heard.text)
