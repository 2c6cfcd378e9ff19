"""Logs and metrics: one canonical line per message, request, record and transition; metrics in EMF by way of Powertools.

Must never write a body, a reason or the environment: no personal data beyond actorId. Which metrics there are is said in
`metrics`; what came of messages is told by metrics of their own (Applied, IdempotencyHits, Refused), never by dimensions.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aws_lambda_powertools import Logger, Metrics

from pipeline.api.requests import HttpRequest
from pipeline.api.routes import DRY_RUN
from pipeline.domain.candidates import OPERATION as CANDIDATE
from pipeline.domain.commands import ChangeState, Dismiss, RequestPromotion
from pipeline.domain.envelope import IncidentEvent
from pipeline.domain.errors import Conflict, Corrupt, OpxError, Unavailable
from pipeline.domain.events import IncidentOpened, PromotionDecided
from pipeline.domain.promotion import Outcome as Verdict
from pipeline.domain.receipts import Answer
from pipeline.domain.transitions import State
from pipeline.runtime.metrics import MEASURES, NAMESPACE, Metric
from pipeline.services.decision import Applied, Outcome, Refused, Replayed
from pipeline.services.fanout import Published
from pipeline.services.intake import DETECTION
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
# Commands that would change a state.
_MOVING = {command.model_fields["type"].default for command in (ChangeState, Dismiss, RequestPromotion)}
_OF_VERDICT = {
    Verdict.PROMOTE: Metric.CANDIDATES_PROMOTED,
    Verdict.DEFER: Metric.CANDIDATES_DEFERRED,
    Verdict.REJECT: Metric.CANDIDATES_REJECTED,
    Verdict.SUPPRESS: Metric.CANDIDATES_SUPPRESSED,
}


class Telemetry:
    """One per execution environment; `flush` at the end of every invocation.

    `service`: the function's name, which begins with the stack's prefix, so that another stack's figures are not this one's.
    """

    def __init__(self, service: str) -> None:
        self.log = Logger(service=service, log_uncaught_exceptions=False)
        self.metrics = Metrics(namespace=NAMESPACE, service=service)
        self.request_id = ""

    def begin(self, request_id: str) -> None:
        self.request_id = request_id

    def flush(self) -> None:
        if self.metrics.metric_set:
            self.metrics.flush_metrics()

    def _count(self, metric: Metric, value: float = 1) -> None:
        self.metrics.add_metric(name=metric, unit=MEASURES[metric].unit, value=value)

    def controls_unread(self, failure: str | None) -> None:
        """Warn and count where the live controls in force are older than they should be. `failure` None: they are not."""
        if failure is not None:
            self._count(Metric.CONTROLS_UNREAD)
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
                self._judged(report.outcome)
            case Replayed(receipt):
                line |= {"outcome": "replayed", "incident_id": receipt.incident_id, "answer": receipt.result.answer}
                self._count(Metric.IDEMPOTENCY_HITS)
                refused = receipt.refusal() is not None
            case Refused(refusal):
                line |= {"outcome": "refused", "code": refusal.code, "incident_id": refusal.incident_id}
                line |= {"field": refusal.field, "principal": report.principal or report.message.sender_id.partition(":")[0]}
                self._count(Metric.REFUSED)
                refused = True
                if refusal.status == _AUTHORITY_STATUS:
                    self._count(Metric.AUTHORITY_REFUSALS)
        if report.error is not None:
            line |= self._failed(report.error)
        elif refused:
            self._count(Metric.REJECTED_MESSAGES)
        if report.operation in _MOVING and (report.error is not None or isinstance(report.outcome, Refused)):
            self._count(Metric.TRANSITION_FAILURES)
        level = self.log.error if report.error is not None else self.log.info
        level("message", extra=line)

    def _applied(self, applied: Applied, sent_at: datetime) -> dict[str, Any]:
        self._count(Metric.APPLIED)
        if applied.first and applied.attempts > 1:
            self._count(Metric.CONFLICTS, applied.attempts - 1)
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
            self._count(Metric.INCIDENTS_CREATED)
        for event in applied.events if applied.first else ():
            if event.new_state is not event.previous_state:
                self._transition(event, line, sent_at)
        return line

    def _judged(self, applied: Applied) -> None:
        """Count what came of a candidate or a detection: each under one name."""
        answer = applied.receipt.result.answer
        if answer is Answer.COUNTED:
            self._count(Metric.DETECTIONS_COUNTED)
        elif answer is Answer.NOTHING_OPEN:
            self._count(Metric.CANDIDATES_WITHOUT_EFFECT)
        elif applied.receipt.operation in (CANDIDATE, DETECTION):
            # What was decided together is one decision, and it is the first's.
            verdict = _verdict_of(applied) if applied.first else None
            self._count(Metric.CANDIDATES_JOINED if verdict is None else _OF_VERDICT[verdict])

    def _transition(self, event: IncidentEvent, line: dict[str, Any], sent_at: datetime) -> None:
        self._count(Metric.TRANSITIONS)
        # From the sender's queue to the committed transaction: what a person waits for.
        latency_ms = (event.timestamp - sent_at).total_seconds() * 1000
        self._count(Metric.TRANSITION_LATENCY, max(0.0, latency_ms))
        step = {"from": event.previous_state, "to": event.new_state, "version": event.sequence}
        step |= {"actor_type": event.actor.authority_type, "request_id": self.request_id}
        self.log.info("transition", extra=line | step)

    def _failed(self, error: Exception) -> dict[str, Any]:
        kind = type(error).__name__
        match error:
            case Corrupt():
                self._count(Metric.CORRUPTION)
            case Unavailable() | Conflict():
                self._count(Metric.UNAVAILABLE)
            case _:
                self._count(Metric.CRASHES)
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
        self._count(Metric.API_REQUESTS)
        self._count(Metric.API_FAILURES, float(answered.status >= 500))
        self._count(Metric.API_LATENCY, answered.duration_s * 1000)
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
            self._count(Metric.IDEMPOTENCY_HITS)
        elif answered.error is not None:
            line |= self._failed(answered.error)
        elif answered.code is not None:
            line["outcome"] = "refused"
            self._count(Metric.REFUSED)
            if answered.status == _AUTHORITY_STATUS:
                self._count(Metric.AUTHORITY_REFUSALS)
        else:
            line["outcome"] = "read"
        done = isinstance(outcome, Applied | Replayed) or answered.code is None
        if request.route.operation in _MOVING and not done and request.query.get(DRY_RUN) != ("true",):
            self._count(Metric.TRANSITION_FAILURES)
        level = self.log.error if answered.error is not None else self.log.info
        level("request", extra=line)

    # --- fan-out ---------------------------------------------------------------------------------------------------------

    def relayed(self, published: Published) -> None:
        """Log and count one batch of stream records."""
        self._count(Metric.EVENTS_PUBLISHED, len(published.published))
        self._count(Metric.EVENTS_FAILED, len(published.failed))
        if published.corrupt:
            self._count(Metric.CORRUPTION, published.corrupt)
        for document, lag_s in zip(published.published, published.lags_s, strict=True):
            self._count(Metric.FANOUT_LAG, max(0.0, lag_s * 1000))
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

    def relay_failed(self, error: Exception, oldest_s: float | None = None) -> None:
        """Log and count a batch that the stream will deliver again. `oldest_s`: its oldest event's age, if one was read."""
        self._count(Metric.FANOUT_UNAVAILABLE)
        if oldest_s is not None:
            self._count(Metric.FANOUT_LAG, max(0.0, oldest_s * 1000))
        self.log.error("batch", extra={"outcome": "retry", "request_id": self.request_id} | self._failed(error))


def _verdict_of(applied: Applied) -> Verdict | None:
    """Return what the gate said, None where it was not asked."""
    facts = [event.fact for event in applied.events if isinstance(event.fact, IncidentOpened | PromotionDecided)]
    return facts[0].metadata.decision.outcome if facts else None


def _frames(error: Exception) -> list[str]:
    frames, trace = [], error.__traceback__
    while trace is not None:
        frames.append(f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return frames[-8:]
