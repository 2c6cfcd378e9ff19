"""The HTTP door in memory behind a session of `requests`: what API Gateway would make of a request, and of its answer."""

import asyncio
import json
from io import BytesIO
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3 import HTTPResponse

from consumers.api_door import ApiDoor
from pipeline.domain.authority import Sender
from pipeline.domain.canonical import canonical_bytes
from pipeline.runtime.records import http_request_of
from pipeline.services.reading import ReadingService
from tests.support.http import route_of
from tests.support.registry import COMMANDS, entry, registry
from tests.support.world import DEADLINE, World

BASE_URL: Final = "http://memory"
# As the local engine signs: its one account, which may be a person or a program.
ROOT: Final = Sender("000000000000")
KNOWN: Final = registry(
    entry(
        "local",
        ROOT.principal,
        kinds="HUMAN SYSTEM",
        operations=(*COMMANDS, "read", "audit"),
        assertsForOthers=True,
        principalIsPerson=True,
    )
)


class MemoryTransport(BaseAdapter):
    """Answers every request by the door over a memory store."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(known=KNOWN)
        reading = ReadingService(self.world.store, KNOWN, self.world.intake.rules)
        self.door = ApiDoor(self.world.controller, reading, self.world.clock, lambda answered: None)
        self.requests = 0
        self._runner = asyncio.Runner()

    def send(self, request: requests.PreparedRequest, *unused: Any, **ignored: Any) -> requests.Response:
        self.requests += 1
        url = urlsplit(str(request.url))
        try:
            route, path = route_of(str(request.method), url.path)
        except AssertionError:
            return _answered(request, 403, NO_ROUTE, {"Content-Type": "application/problem+json", "Opx-Request-Id": "r"})
        query: dict[str, list[str]] = {}
        for name, value in parse_qsl(url.query, keep_blank_values=True):
            query.setdefault(name, []).append(value)
        body = request.body or ""
        assert isinstance(body, str | bytes)
        event = {
            "pathParameters": path or None,
            "multiValueHeaders": {name: [text] for name, text in request.headers.items()},
            "multiValueQueryStringParameters": query or None,
            "body": body if isinstance(body, str) else body.decode(errors="replace"),
            "requestContext": {
                "requestId": f"request-{self.requests}",
                "requestTimeEpoch": int(self.world.clock.now().timestamp() * 1000),
                "identity": {"caller": ROOT.signed_id},
            },
        }
        answer = self._runner.run(self.door.answer(http_request_of(event, route), DEADLINE))
        headers = answer.headers | {"Content-Type": answer.content_type}
        return _answered(request, answer.status, canonical_bytes(answer.body), headers)

    def close(self) -> None:
        self._runner.close()


# What API Gateway says of a path that is none of its own.
NO_ROUTE: Final = json.dumps(
    {
        "type": "urn:opx:problem:not-signed",
        "title": "Not signed",
        "status": 403,
        "detail": "There is no such route.",
        "code": "not-signed",
        "next": "Sign it.",
    }
).encode()


def _answered(request: requests.PreparedRequest, status: int, body: bytes, headers: dict[str, str]) -> requests.Response:
    raw = HTTPResponse(BytesIO(body), headers=headers, status=status, preload_content=False)
    return HTTPAdapter().build_response(request, raw)
