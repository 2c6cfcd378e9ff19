"""The HTTP door over the memory store: requests as API Gateway hands them over, answers as it gets them. No network."""

import json
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from consumers.api_door import ApiDoor
from pipeline.api.problems import HttpAnswer
from pipeline.api.routes import ROUTES, Route
from pipeline.domain.authority import Sender
from pipeline.domain.canonical import canonical_bytes
from pipeline.runtime.records import http_request_of
from pipeline.runtime.telemetry import Answered
from pipeline.services.reading import ReadingService
from tests.support.bodies import candidate_body
from tests.support.registry import ENTRIES, OPERATOR, entry, registry
from tests.support.world import DEADLINE, World

READER: Final = Sender("AROAREADER", "dashboard")
AUDITOR: Final = Sender("AROAAUDITOR", "auditor")
NARROW: Final = Sender("AROANARROW", "payments")
EVERYBODY: Final = registry(
    *ENTRIES,
    entry("operators-read", OPERATOR.principal, operations=("read",)),
    entry("readers", READER.principal, operations=("read",)),
    entry("auditors", AUDITOR.principal, operations=("read", "audit")),
    entry("narrow", NARROW.principal, operations=("read",), services=("payments*",)),
)


# The smallest body that people declare with.
SEED: Final = {
    "service": "checkout",
    "severity": "SEV2",
    "title": "Carts are empty",
    "description": "",
    "authority": "HUMAN",
}


@dataclass(frozen=True)
class Heard:
    """An answer as a client hears it. `text`: the body's bytes, which a replay must repeat."""

    status: int
    headers: dict[str, str]
    content_type: str
    text: str

    @property
    def body(self) -> Any:
        return json.loads(self.text)

    @property
    def code(self) -> str:
        return str(self.body["code"])


def heard(answer: HttpAnswer) -> Heard:
    return Heard(answer.status, answer.headers, answer.content_type, canonical_bytes(answer.body).decode())


def route_of(method: str, path: str) -> tuple[Route, dict[str, str]]:
    """Return the route that API Gateway would choose, and what its path's parameters are."""
    parts = path.split("/")
    for route in ROUTES:
        pattern = route.path.split("/")
        if route.method == method and len(pattern) == len(parts):
            pairs = list(zip(pattern, parts, strict=True))
            if all(name == part or name.startswith("{") for name, part in pairs):
                return route, {name[1:-1]: part for name, part in pairs if name.startswith("{")}
    raise AssertionError(f"there is no route {method} {path}")


class HttpWorld(World):
    """A world whose door is the HTTP API. Each request gets an id of its own."""

    def __init__(self, **more: Any) -> None:
        super().__init__(known=EVERYBODY, **more)
        self.reports: list[Answered] = []
        reading = ReadingService(self.store, EVERYBODY, self.intake.rules)
        self.door = ApiDoor(self.controller, reading, self.clock, self.reports.append)
        self._requests = 0

    async def call(
        self,
        method: str,
        target: str,
        body: Any = None,
        sender: Sender = OPERATOR,
        *,
        deadline: float = DEADLINE,
        **headers: str,
    ) -> Heard:
        """Send a request; `target` may have a query string. Headers are named with underscores: `if_match`."""
        self._requests += 1
        url = urlsplit(target)
        route, path = route_of(method, url.path)
        query: dict[str, list[str]] = {}
        for pair in filter(None, url.query.split("&")):
            name, _, value = pair.partition("=")
            query.setdefault(name, []).append(value)
        event = {
            "httpMethod": method,
            "resource": route.path,
            "pathParameters": path or None,
            "multiValueHeaders": {name.replace("_", "-").title(): [text] for name, text in headers.items()},
            "multiValueQueryStringParameters": query or None,
            "body": body if body is None or isinstance(body, str) else json.dumps(body),
            "isBase64Encoded": False,
            "requestContext": {
                "requestId": f"request-{self._requests}",
                "requestTimeEpoch": int(self.clock.now().timestamp() * 1000),
                "identity": {"caller": sender.signed_id, "userArn": sender.arn},
            },
        }
        return heard(await self.door.answer(http_request_of(event, route), deadline))

    async def opened(self, **fields: Any) -> str:
        """Return the id of an incident that a candidate opened."""
        await self.offer(candidate_body(**fields))
        return next(reversed(self.store.incidents))
