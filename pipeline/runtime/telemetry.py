"""Logs and metrics: one canonical line per message, request, record and transition; metrics in EMF by way of Powertools.

Must never write a body, a reason or the environment: no personal data beyond actorId. The one dimension is `service`, a
function each; what came of messages is told by metrics of their own (Applied, IdempotencyHits, Refused), never by ids.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from pipeline.api.requests import HttpRequest
from pipeline.domain.envelope import IncidentEvent
from pipeline.domain.errors import Conflict, Corrupt, OpxError, Unavailable
from pipeline.domain.transitions import State
from pipeline.services.decision import Applied, Outcome, Refused, Replayed
from pipeline.services.fanout import Published
from pipeline.services.ports import Message


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one message. `outcome` None with `error` set: it will be delivered again."""

    message: Message
    operation: str
    outcome: Outcome | None
    error: Exception | None
    duration_s: float
    principal: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of one HTTP request. `outcome` is a write's; `error`: what kept it from being answered well."""

    request: HttpRequest
    status: int
    code: str | None
    outcome: Outcome | None
    error: Exception | None
    duration_s: float


_AUTHORITY_STATUS = 403


class Telemetry:
    """One per execution environment; `flush` at the end of every invocation."""

    def __init__(self, door: str) -> None:
        self.door = door
        self.log = Logger(service=f"opx-{door}", log_uncaught_exceptions=False)
        self.metrics = Metrics(namespace="opx", service=f"opx-{door}")
        self.request_id = ""

    def begin(self, request_id: str) -> None:
        self.request_id = request_id

    def flush(self) -> None:
        if self.metrics.metric_set:
            self.metrics.flush_metrics()

    def _count(self, name: str, value: float = 1) -> None:
        self.metrics.add_metric(name=name, unit=MetricUnit.Count, value=value)

    def controls_unread(self, failure: str | None) -> None:
        """Warn and count where the live controls in force are older than they should be. `failure` None: they are not."""
        if failure is not None:
            self._count("ControlsUnread")
            self.log.warning("controls", extra={"outcome": "unread", "reason": failure, "request_id": self.request_id})

    # --- queues ----------------------------------------------------------------------------------------------------------

    def settled(self, report: Report) -> None:
        """Log and count one message."""
        line: dict[str, Any] = {
            "operation": report.operation,
            "message_id": report.message.message_id,
            "source": report.message.source,
            "receive_count": report.message.receive_count,
            "duration_ms": round(report.duration_s * 1000, 3),
            "request_id": self.request_id,
        }
        refused = False
        match report.outcome:
            case None:
                pass
            case Applied():
                line |= self._applied(report.outcome, report.message.sent_at)
            case Replayed(receipt):
                line |= {"outcome": "replayed", "incident_id": receipt.incident_id, "answer": receipt.result.answer}
                self._count("IdempotencyHits")
                refused = receipt.refusal() is not None
            case Refused(refusal):
                line |= {"outcome": "refused", "code": refusal.code, "incident_id": refusal.incident_id}
                line |= {"field": refusal.field, "principal": report.principal or report.message.sender_id.partition(":")[0]}
                self._count("Refused")
                refused = True
                if refusal.status == _AUTHORITY_STATUS:
                    self._count("AuthorityRefusals")
        if report.error is not None:
            line |= self._failed(report.error)
        elif refused:
            self._count("RejectedMessages")
        level = self.log.error if report.error is not None else self.log.info
        level("message", extra=line)

    def _applied(self, applied: Applied, sent_at: datetime) -> dict[str, Any]:
        self._count("Applied")
        if applied.first and applied.attempts > 1:
            self._count("Conflicts", applied.attempts - 1)
        incident, before = applied.incident, applied.before
        answer = applied.receipt.result.answer
        line: dict[str, Any] = {"outcome": "applied", "answer": answer, "attempts": applied.attempts}
        if incident is None:
            return line
        began = before is None or before.incident_id != incident.incident_id
        origin = State.PENDING if began or before is None else before.state
        line |= {"incident_id": incident.incident_id, "from": origin, "to": incident.state, "version": incident.version}
        line["actor_type"] = applied.actor_type
        if answer == "created":
            self._count("IncidentsCreated")
        for event in applied.events if applied.first else ():
            if event.new_state is not event.previous_state:
                self._transition(event, line, sent_at)
        return line

    def _transition(self, event: IncidentEvent, line: dict[str, Any], sent_at: datetime) -> None:
        self._count("Transitions")
        # From the sender's queue to the committed transaction: what a person waits for.
        latency_ms = (event.timestamp - sent_at).total_seconds() * 1000
        self.metrics.add_metric(name="TransitionLatency", unit=MetricUnit.Milliseconds, value=max(0.0, latency_ms))
        step = {"from": event.previous_state, "to": event.new_state, "version": event.sequence}
        step |= {"actor_type": event.actor.authority_type, "request_id": self.request_id}
        self.log.info("transition", extra=line | step)

    def _failed(self, error: Exception) -> dict[str, Any]:
        kind = type(error).__name__
        match error:
            case Corrupt():
                self._count("Corruption")
            case Unavailable() | Conflict():
                self._count("Unavailable")
            case _:
                self._count("Crashes")
        line: dict[str, Any] = {
            "outcome": "failed",
            "error": kind,
            "detail": str(error)[:512] if isinstance(error, OpxError) else kind,
        }
        if not isinstance(error, OpxError):
            # A defect of ours: the stack tells where, the exception's text might hold a body.
            line["stack"] = _frames(error)
        return line

    # --- the HTTP API ------------------------------------------------------------------------------------------------------

    def answered(self, answered: Answered) -> None:
        """Log and count one request."""
        request, outcome = answered.request, answered.outcome
        self._count("ApiRequests")
        self._count("ApiFailures", float(answered.status >= 500))
        self.metrics.add_metric(name="ApiLatency", unit=MetricUnit.Milliseconds, value=answered.duration_s * 1000)
        line: dict[str, Any] = {
            "operation": request.route.name,
            "status": answered.status,
            "code": answered.code,
            "principal": request.sender.principal,
            "duration_ms": round(answered.duration_s * 1000, 3),
            "request_id": self.request_id,
        }
        if "id" in request.path:
            line["incident_id"] = request.path["id"][:36]
        if isinstance(outcome, Applied):
            line |= self._applied(outcome, request.received_at)
        elif isinstance(outcome, Replayed):
            line |= {"outcome": "replayed", "incident_id": outcome.receipt.incident_id}
            self._count("IdempotencyHits")
        elif answered.error is not None:
            line |= self._failed(answered.error)
        elif answered.code is not None:
            line["outcome"] = "refused"
            self._count("Refused")
            if answered.status == _AUTHORITY_STATUS:
                self._count("AuthorityRefusals")
        else:
            line["outcome"] = "read"
        level = self.log.error if answered.error is not None else self.log.info
        level("request", extra=line)

    # --- fan-out ---------------------------------------------------------------------------------------------------------

    def relayed(self, published: Published) -> None:
        """Log and count one batch of stream records."""
        self._count("EventsPublished", len(published.published))
        self._count("EventsFailed", len(published.failed))
        if published.corrupt:
            self._count("Corruption", published.corrupt)
        for document, lag_s in zip(published.published, published.lags_s, strict=True):
            self.metrics.add_metric(name="FanoutLag", unit=MetricUnit.Milliseconds, value=max(0.0, lag_s * 1000))
            self.log.info(
                "event",
                extra={
                    "outcome": "published",
                    "incident_id": document["incidentId"],
                    "sequence": document["sequence"],
                    "event_type": document["eventType"],
                    "request_id": self.request_id,
                },
            )
        for failure in published.failed:
            self.log.error(
                "event",
                extra={
                    "outcome": "failed",
                    "incident_id": failure.incident_id,
                    "sequence": failure.sequence,
                    "error": failure.error,
                    "request_id": self.request_id,
                },
            )

    def relay_failed(self, error: Exception) -> None:
        """Log and count a batch that the stream will deliver again."""
        self._count("FanoutUnavailable")
        self.log.error("batch", extra={"outcome": "retry", "request_id": self.request_id} | self._failed(error))


def _frames(error: Exception) -> list[str]:
    frames, trace = [], error.__traceback__
    while trace is not None:
        frames.append(f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return frames[-8:]
