"""Acts on incidents and reads them by opx's signed HTTP API: `Operator` blocks, `AsyncOperator` awaits; both do the same.

    operator = Operator(api_url, authority="HUMAN")
    operator.resolve(incident_id, "p99 back to normal")

Every write carries an idempotency key, and is tried again under it where no answer came: it takes effect once. Refusals
raise `ApiRefused`, silence until the deadline `ApiUnavailable`. A write's `options` are `calls.WriteOptions`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypedDict, TypeVar, Unpack

import httpx
from botocore.session import Session

from pipeline.clients import calls
from pipeline.clients.answers import ApiRefused, ApiUnavailable, Event, Incident, Outcome, Receipt
from pipeline.clients.calls import Authority, Call, Filters, Items, WriteOptions, declared, filtered
from pipeline.clients.exchange import UNANSWERED, Failed, Keyed, given_up, judged, request_of, unanswered
from pipeline.clients.punctual import answered, awaited
from pipeline.clients.retries import Attempts, Patience
from pipeline.clients.signing import SigV4, region_of
from pipeline.domain.errors import HttpCode
from pipeline.domain.transitions import State

__all__ = ["ApiRefused", "ApiUnavailable", "AsyncOperator", "Operator", "Patience", "Settings"]

T = TypeVar("T")


class Settings(TypedDict, total=False):
    """What both operators take. `authority`: what to claim where a write says nothing else; `session`: botocore's, for
    credentials that neither the environment nor a `profile` has; `region`: where the API's host name doesn't tell it.
    """

    authority: Authority
    profile: str
    region: str
    session: Session
    patience: Patience


class _Client:
    """What both kinds share: where the API is, who asks, how patiently."""

    def __init__(self, base_url: str, **settings: Unpack[Settings]) -> None:
        session = settings.get("session") or Session(profile=settings.get("profile"))
        self.base_url = base_url
        self.authority = settings.get("authority")
        self._patience = settings.get("patience") or Patience()
        self._auth = SigV4(region_of(base_url, settings.get("region"), session), session)

    def _options(self, options: WriteOptions) -> WriteOptions:
        return options if self.authority is None else {"authority": self.authority, **options}

    def _write(self, incident_id: str, what: str, options: WriteOptions, **fields: Any) -> Call[Outcome]:
        return calls.on_incident(incident_id, what, fields, self._options(options))

    def _state(self, incident_id: str, new_state: str, reason: str | None, options: WriteOptions) -> Call[Outcome]:
        fields = {"newState": new_state, "reason": reason}
        return calls.on_incident(incident_id, "state", fields, self._options(options), method="PATCH")


class Operator(_Client):
    """The API, one call at a time. Safe to share between threads."""

    def __init__(self, base_url: str, *, http: httpx.Client | None = None, **settings: Unpack[Settings]) -> None:
        """See `Settings`. `http`: an httpx client of your own (proxies, transports), used in threads; yours to close."""
        super().__init__(base_url, **settings)
        self._own = http is None
        self._http = http or httpx.Client()

    def declare(
        self,
        service: str,
        severity: str,
        title: str,
        *,
        description: str | None = None,
        dedup_key: str | None = None,
        evidence: Items | None = None,
        links: Items | None = None,
        metadata: Mapping[str, Any] | None = None,
        reason: str | None = None,
        **options: Unpack[WriteOptions],
    ) -> Outcome:
        """Declare an incident, or join the open one of its `dedup_key`."""
        fields = declared(service, severity, title, description, dedup_key, evidence, links, metadata, reason)
        return self._send(calls.declare(fields, self._options(options)))

    def change_state(
        self, incident_id: str, new_state: str, *, reason: str | None = None, **options: Unpack[WriteOptions]
    ) -> Outcome:
        """Take an incident to its next state. A person who decides gives a reason."""
        return self._send(self._state(incident_id, new_state, reason, options))

    def mitigate(self, incident_id: str, reason: str | None = None, **options: Unpack[WriteOptions]) -> Outcome:
        return self._send(self._state(incident_id, State.MITIGATING, reason, options))

    def resolve(self, incident_id: str, reason: str, **options: Unpack[WriteOptions]) -> Outcome:
        return self._send(self._state(incident_id, State.RESOLVED, reason, options))

    def close_incident(self, incident_id: str, reason: str, **options: Unpack[WriteOptions]) -> Outcome:
        return self._send(self._state(incident_id, State.CLOSED, reason, options))

    def cancel(self, incident_id: str, reason: str, **options: Unpack[WriteOptions]) -> Outcome:
        return self._send(self._state(incident_id, State.CANCELLED, reason, options))

    def attach_evidence(
        self, incident_id: str, evidence: Items, *, reason: str | None = None, **options: Unpack[WriteOptions]
    ) -> Outcome:
        """Attach evidence (`{"kind", "ref", "observedAt"?, "note"?}` each), in every state."""
        return self._send(self._write(incident_id, "evidence", options, evidence=evidence, reason=reason))

    def add_note(
        self, incident_id: str, note: str, *, reason: str | None = None, **options: Unpack[WriteOptions]
    ) -> Outcome:
        return self._send(self._write(incident_id, "notes", options, note=note, reason=reason))

    def change_severity(
        self, incident_id: str, severity: str, *, reason: str | None = None, **options: Unpack[WriteOptions]
    ) -> Outcome:
        """Change the severity; until resolved."""
        return self._send(self._write(incident_id, "severity", options, severity=severity, reason=reason))

    def request_promotion(self, incident_id: str, reason: str, **options: Unpack[WriteOptions]) -> Outcome:
        """Ask the gate to open a pending incident; waives what its policy lets a person waive."""
        return self._send(self._write(incident_id, "promotion", options, reason=reason))

    def dismiss(self, incident_id: str, reason: str, **options: Unpack[WriteOptions]) -> Outcome:
        """Dismiss a pending incident as a false positive."""
        return self._send(self._write(incident_id, "dismissal", options, reason=reason))

    def link(
        self, incident_id: str, relation: str, target: str, *, reason: str | None = None, **options: Unpack[WriteOptions]
    ) -> Outcome:
        """Say that an incident is a `duplicate-of` or was `caused-by` another."""
        return self._send(self._write(incident_id, "links", options, relation=relation, target=target, reason=reason))

    def incident(self, incident_id: str, *, version: int | None = None, at: datetime | str | None = None) -> Incident:
        """Read an incident: as it stands, or as it was at a version or time."""
        return self._send(calls.incident(incident_id, version, at))

    def incidents(self, *, page: int | None = None, **filters: Unpack[Filters]) -> Iterator[Incident]:
        """Iterate over incidents, the newest first; `page` is how many a request."""
        cursor: str | None = None
        while True:
            found = self._send(calls.incidents(filtered(filters), page, cursor))
            yield from found.items
            if (cursor := found.next_cursor) is None:
                return

    def events(self, incident_id: str, *, after: int = 0, page: int | None = None) -> Iterator[Event]:
        """Iterate over an incident's events behind sequence `after`, in order."""
        cursor: str | None = None
        while True:
            found = self._send(calls.events(incident_id, after, page, cursor))
            yield from found.items
            if (cursor := found.next_cursor) is None:
                return

    def receipt(self, key: str, *, principal: str | None = None) -> Receipt | None:
        """Ask what became of a command of yours (or another's, for auditors); None: nothing was decided under this key."""
        try:
            return self._send(calls.receipt(key, principal))
        except ApiRefused as refused:
            if refused.problem.code != HttpCode.RECEIPT_UNKNOWN:
                raise
            return None

    def close(self) -> None:
        """Close the connections, of a client that was made here."""
        if self._own:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, call: Call[T]) -> T:
        attempts = Attempts(self._patience)
        while True:
            within_s = attempts.begin()
            request = request_of(call, self.base_url, self._http, within_s)
            with Keyed(call, attempts):
                try:
                    found = judged(call, answered(self._http, request, self._auth, within_s), attempts.made)
                except UNANSWERED as error:
                    found = unanswered(error)
            if not isinstance(found, Failed):
                return found
            pause_s = attempts.pause_s(found.retry_after_s)
            if pause_s is None:
                raise given_up(call, found.why, attempts.made)
            time.sleep(pause_s)


class AsyncOperator(_Client):
    """The API, awaited. Belongs to one event loop."""

    def __init__(self, base_url: str, *, http: httpx.AsyncClient | None = None, **settings: Unpack[Settings]) -> None:
        """See `Settings`. `http`: an httpx client of your own (proxies, transports); it is yours to close."""
        super().__init__(base_url, **settings)
        self._own = http is None
        self._http = http or httpx.AsyncClient()

    async def declare(
        self,
        service: str,
        severity: str,
        title: str,
        *,
        description: str | None = None,
        dedup_key: str | None = None,
        evidence: Items | None = None,
        links: Items | None = None,
        metadata: Mapping[str, Any] | None = None,
        reason: str | None = None,
        **options: Unpack[WriteOptions],
    ) -> Outcome:
        """Declare an incident, or join the open one of its `dedup_key`."""
        fields = declared(service, severity, title, description, dedup_key, evidence, links, metadata, reason)
        return await self._send(calls.declare(fields, self._options(options)))

    async def change_state(
        self, incident_id: str, new_state: str, *, reason: str | None = None, **options: Unpack[WriteOptions]
    ) -> Outcome:
        """Take an incident to its next state. A person who decides gives a reason."""
        return await self._send(self._state(incident_id, new_state, reason, options))

    async def mitigate(self, incident_id: str, reason: str | None = None, **options: Unpack[WriteOptions]) -> Outcome:
        return await self._send(self._state(incident_id, State.MITIGATING, reason, options))

    async def resolve(self, incident_id: str, reason: str, **options: Unpack[WriteOptions]) -> Outcome:
        return await self._send(self._state(incident_id, State.RESOLVED, reason, options))

    async def close_incident(self, incident_id: str, reason: str, **options: Unpack[WriteOptions]) -> Outcome:
        return await self._send(self._state(incident_id, State.CLOSED, reason, options))

    async def cancel(self, incident_id: str, reason: str, **options: Unpack[WriteOptions]) -> Outcome:
        return await self._send(self._state(incident_id, State.CANCELLED, reason, options))

    async def attach_evidence(
        self, incident_id: str, evidence: Items, *, reason: str | None = None, **options: Unpack[WriteOptions]
    ) -> Outcome:
        """Attach evidence (`{"kind", "ref", "observedAt"?, "note"?}` each), in every state."""
        return await self._send(self._write(incident_id, "evidence", options, evidence=evidence, reason=reason))

    async def add_note(
        self, incident_id: str, note: str, *, reason: str | None = None, **options: Unpack[WriteOptions]
    ) -> Outcome:
        return await self._send(self._write(incident_id, "notes", options, note=note, reason=reason))

    async def change_severity(
        self, incident_id: str, severity: str, *, reason: str | None = None, **options: Unpack[WriteOptions]
    ) -> Outcome:
        """Change the severity; until resolved."""
        return await self._send(self._write(incident_id, "severity", options, severity=severity, reason=reason))

    async def request_promotion(self, incident_id: str, reason: str, **options: Unpack[WriteOptions]) -> Outcome:
        """Ask the gate to open a pending incident; waives what its policy lets a person waive."""
        return await self._send(self._write(incident_id, "promotion", options, reason=reason))

    async def dismiss(self, incident_id: str, reason: str, **options: Unpack[WriteOptions]) -> Outcome:
        """Dismiss a pending incident as a false positive."""
        return await self._send(self._write(incident_id, "dismissal", options, reason=reason))

    async def link(
        self, incident_id: str, relation: str, target: str, *, reason: str | None = None, **options: Unpack[WriteOptions]
    ) -> Outcome:
        """Say that an incident is a `duplicate-of` or was `caused-by` another."""
        return await self._send(self._write(incident_id, "links", options, relation=relation, target=target, reason=reason))

    async def incident(self, incident_id: str, *, version: int | None = None, at: datetime | str | None = None) -> Incident:
        """Read an incident: as it stands, or as it was at a version or time."""
        return await self._send(calls.incident(incident_id, version, at))

    async def incidents(self, *, page: int | None = None, **filters: Unpack[Filters]) -> AsyncIterator[Incident]:
        """Iterate over incidents, the newest first; `page` is how many a request."""
        cursor: str | None = None
        while True:
            found = await self._send(calls.incidents(filtered(filters), page, cursor))
            for item in found.items:
                yield item
            if (cursor := found.next_cursor) is None:
                return

    async def events(self, incident_id: str, *, after: int = 0, page: int | None = None) -> AsyncIterator[Event]:
        """Iterate over an incident's events behind sequence `after`, in order."""
        cursor: str | None = None
        while True:
            found = await self._send(calls.events(incident_id, after, page, cursor))
            for item in found.items:
                yield item
            if (cursor := found.next_cursor) is None:
                return

    async def receipt(self, key: str, *, principal: str | None = None) -> Receipt | None:
        """Ask what became of a command of yours (or another's, for auditors); None: nothing was decided under this key."""
        try:
            return await self._send(calls.receipt(key, principal))
        except ApiRefused as refused:
            if refused.problem.code != HttpCode.RECEIPT_UNKNOWN:
                raise
            return None

    async def close(self) -> None:
        """Close the connections, of a client that was made here."""
        if self._own:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _send(self, call: Call[T]) -> T:
        attempts = Attempts(self._patience)
        while True:
            within_s = attempts.begin()
            request = request_of(call, self.base_url, self._http, within_s)
            with Keyed(call, attempts):
                try:
                    found = judged(call, await awaited(self._http, request, self._auth, within_s), attempts.made)
                except UNANSWERED as error:
                    found = unanswered(error)
            if not isinstance(found, Failed):
                return found
            pause_s = attempts.pause_s(found.retry_after_s)
            if pause_s is None:
                raise given_up(call, found.why, attempts.made)
            await asyncio.sleep(pause_s)
