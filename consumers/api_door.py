"""The door of the HTTP API: one signed request in, one answer out. No rules: what a route does is said by its table.

Whatever goes wrong has an answer that says what to do next; a defect of ours is told by its place, never by its text.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from pipeline.api import answers, requests
from pipeline.api.cursors import position_of
from pipeline.api.problems import HttpAnswer, Problem, problem_of
from pipeline.api.requests import HttpRequest, Write
from pipeline.api.routes import Read
from pipeline.domain.authority import identified
from pipeline.domain.errors import Code, Refusal, Rejected
from pipeline.runtime.telemetry import Answered
from pipeline.services.controller import ControllerService
from pipeline.services.decision import Outcome, View
from pipeline.services.ports import Clock, Listing
from pipeline.services.reading import ReadingService

REQUEST_ID: str = "Opx-Request-Id"


class ApiDoor:
    """All routes. `report` is told each request's fate."""

    def __init__(
        self, controller: ControllerService, reading: ReadingService, clock: Clock, report: Callable[[Answered], None]
    ) -> None:
        self.controller = controller
        self.reading = reading
        self.clock = clock
        self.report = report

    async def answer(self, request: HttpRequest, deadline: float) -> HttpAnswer:
        """Return the answer to a request. Never raises."""
        started = self.clock.monotonic()
        outcome: Outcome | None = None
        error: Exception | None = None
        write: Write | None = None
        try:
            identified(request.sender)
            if isinstance(request.route.does, Read):
                async with asyncio.timeout(max(0.0, deadline - started)):
                    answer = await self._read(request, request.route.does)
            else:
                write = requests.write_of(request)
                outcome, answer = await self._write(request, write, deadline)
        except Rejected as rejected:
            answer = problem_of(rejected.refusal)
        except Problem as problem:
            answer = problem.answer
        except Exception as failed:  # noqa: BLE001 - the sender gets an answer, whatever it is
            error, answer = failed, answers.failure_answer(failed, write)
        took = self.clock.monotonic() - started
        answer = replace(answer, headers=answer.headers | {REQUEST_ID: request.request_id, "Cache-Control": "no-store"})
        self.report(Answered(request, answer.status, answer.code, outcome, error, took))
        return answer

    async def _write(self, request: HttpRequest, write: Write, deadline: float) -> tuple[Outcome | None, HttpAnswer]:
        controller = self.controller.rehearsing() if write.dry_run else self.controller
        work = controller.work_of(write.document, request.received, write.derived)
        outcome = await controller.take(work, View(), deadline)
        # What was only tried out is no effect to be counted.
        return None if write.dry_run else outcome, answers.answer_of(outcome, dry_run=write.dry_run)

    async def _read(self, request: HttpRequest, read: Read) -> HttpAnswer:
        requests.known_query(request)
        match read:
            case Read.LIST:
                return await self._list(request)
            case Read.INCIDENT:
                return await self._incident(request)
            case Read.EVENTS:
                return await self._events(request)
            case Read.RECEIPT:
                key, principal = requests.receipt_key(request), requests.principal_of(request)
                return answers.receipts_answer(await self.reading.receipts(request.sender, key, principal))

    async def _list(self, request: HttpRequest) -> HttpAnswer:
        filters = requests.Filters.of(request)
        listing = Listing(
            state=filters.state,
            service=filters.service,
            severity=filters.severity,
            since=filters.since,
            until=filters.until,
            limit=requests.limit_of(request),
            before=filters.before(requests.parameter(request, "cursor")),
        )
        return answers.page_answer(await self.reading.page(request.sender, listing), filters.asked)

    async def _incident(self, request: HttpRequest) -> HttpAnswer:
        identity = requests.incident_of(request)
        version, at = requests.number(request, "version", 1), requests.moment(request, "at")
        requests.at_most_one(request, "version", "at")
        if at is not None and at > self.clock.now():
            raise Rejected(Refusal(Code.INVALID_FIELD, "What will be is not known yet.", "at"))
        if version is None and at is None:
            return answers.incident_answer(*await self.reading.incident(request.sender, identity))
        return answers.past_answer(await self.reading.as_of(request.sender, identity, version, at))

    async def _events(self, request: HttpRequest) -> HttpAnswer:
        identity = requests.incident_of(request)
        requests.at_most_one(request, "after", "cursor")
        after, cursor = requests.number(request, "after", 0) or 0, requests.parameter(request, "cursor")
        asked = {"incidentId": identity}
        if cursor is not None:
            (after,) = position_of(cursor, asked, requests.EVENT)
        page = await self.reading.events(request.sender, identity, after, requests.limit_of(request))
        return answers.events_answer(page, asked)
