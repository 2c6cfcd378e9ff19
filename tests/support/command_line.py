"""The command line in front of the real HTTP door over the memory store: what a person types, reads, and is left with."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from rich.console import Console
from typer.testing import CliRunner

from pipeline.cli.calling import Api
from pipeline.cli.main import app
from pipeline.cli.session import Around
from pipeline.cli.target import Selection
from pipeline.cli.terminal import Screen
from pipeline.clients.operator import AsyncOperator, Patience
from pipeline.domain.canonical import Document
from tests.support.http import Heard
from tests.support.network import BASE, Network
from tests.support.registry import OPERATOR, PORTAL

IMPATIENT: Final = Patience(within_s=2.0, attempt_s=2.0, pause_s=0.001, pause_s_max=0.002)


@dataclass(frozen=True)
class Ran:
    """What a run left: its exit code, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> Any:
        return json.loads(self.err.splitlines()[-1])

    @property
    def next(self) -> str:
        return str(self.error["next"])


@dataclass
class CommandLine:
    """Runs `opx` as a program does (JSON lines), or with `people` as a person of `width` columns sees it.

    `answer`: what the person says when asked; None where nobody sits there. `asked` are the questions.
    """

    network: Network = field(default_factory=Network)
    answer: bool | None = None
    is_local: bool = False
    asked: list[str] = field(default_factory=list)

    def __call__(self, *arguments: str, people: bool = False, width: int = 80) -> Ran:
        screen = Screen(False, console(width), console(width)) if people else None
        around = Around(self.reach, self.ask, screen)
        result = CliRunner().invoke(app, arguments, obj=around)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        if screen is not None:
            return Ran(result.exit_code, text_of(screen.out), text_of(screen.err))
        return Ran(result.exit_code, result.stdout, result.stderr)

    @asynccontextmanager
    async def reach(self, _: Selection) -> AsyncIterator[Api]:
        async with httpx.AsyncClient(transport=httpx.MockTransport(self.network)) as http:
            yield Api(AsyncOperator(BASE, patience=IMPATIENT, http=http), self.is_local)

    def ask(self, question: str) -> bool | None:
        self.asked.append(question)
        return self.answer

    def declared(self, **fields: str) -> str:
        """Return the id of an incident that a person declared; `fields` are options."""
        options = {"service": "checkout", "severity": "SEV2", "title": "Carts are empty"} | fields
        told = self("declare", *(part for name, text in options.items() for part in (f"--{name}", text)))
        return str(told.lines[0]["incidentId"])

    def pending(self, key: str, **fields: Any) -> str:
        """Return the id of an incident that waits at the gate."""
        return asyncio.run(self.network.world.opened(dedupKey=key, confidence=0.1, **fields))

    def by_portal(self) -> None:
        """From here on writes are a program's that may claim both authorities; what is read is the operator's."""
        call = self.network.world.call

        async def heard(method: str, target: str, body: Any = None, **headers: Any) -> Heard:
            reads = method == "GET" and target.startswith("/incidents")
            return await call(method, target, body, OPERATOR if reads else PORTAL, **headers)

        self.network.world.call = heard  # type: ignore[method-assign,assignment]

    def overtaken(self, incident: str, key: str, *states: str) -> None:
        """Let somebody else take an incident to `states` just before the write under `key` arrives."""
        carry = self.network.carry

        async def later(request: httpx.Request) -> httpx.Response:
            if request.headers.get("Idempotency-Key") == key and "dryRun" not in str(request.url):
                for state in states:
                    body = {"newState": state, "reason": "I was faster", "authority": "HUMAN"}
                    path = f"/incidents/{incident}/state"
                    await self.network.world.call("PATCH", path, body, Idempotency_Key=f"{incident}.{state}")
            return await carry(request)

        self.network.carry = later  # type: ignore[method-assign]

    def events(self, incident: str | None = None) -> list[Document]:
        """Return the stored events, of one incident or of all: what was done, whatever was said."""
        feed = self.network.world.store.feed
        return [event for event in feed if incident in (None, event["incidentId"])]

    def kinds(self, incident: str) -> list[str]:
        return [str(event["eventType"]) for event in self.events(incident)]


def console(width: int) -> Console:
    return Console(file=io.StringIO(), markup=False, emoji=False, highlight=False, width=width)


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
