"""Every metric of opx: its name, unit, what it counts, and which functions write it. Nothing else is ever written.

Alarms, dashboard, runbooks and README are held against this table by tests/house/test_metrics.py. A name is an interface:
alarms of others watch it. The one dimension is `service`, the function's name; never an id, which nobody could pay for.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

NAMESPACE: Final = "opx"


class Unit(StrEnum):
    COUNT = "Count"
    MILLISECONDS = "Milliseconds"


class Metric(StrEnum):
    # What came of what was asked.
    APPLIED = "Applied"
    IDEMPOTENCY_HITS = "IdempotencyHits"
    REFUSED = "Refused"
    REJECTED_MESSAGES = "RejectedMessages"
    AUTHORITY_REFUSALS = "AuthorityRefusals"
    CONFLICTS = "Conflicts"
    # What came of candidates.
    CANDIDATES_PROMOTED = "CandidatesPromoted"
    CANDIDATES_DEFERRED = "CandidatesDeferred"
    CANDIDATES_REJECTED = "CandidatesRejected"
    CANDIDATES_SUPPRESSED = "CandidatesSuppressed"
    CANDIDATES_JOINED = "CandidatesJoined"
    CANDIDATES_WITHOUT_EFFECT = "CandidatesWithoutEffect"
    DETECTIONS_COUNTED = "DetectionsCounted"
    # What happened to incidents.
    INCIDENTS_CREATED = "IncidentsCreated"
    TRANSITIONS = "Transitions"
    TRANSITION_LATENCY = "TransitionLatency"
    TRANSITION_FAILURES = "TransitionFailures"
    # The HTTP API.
    API_REQUESTS = "ApiRequests"
    API_FAILURES = "ApiFailures"
    API_LATENCY = "ApiLatency"
    # The fan-out.
    EVENTS_PUBLISHED = "EventsPublished"
    EVENTS_FAILED = "EventsFailed"
    FANOUT_LAG = "FanoutLag"
    FANOUT_UNAVAILABLE = "FanoutUnavailable"
    # What went wrong with opx or below it.
    CORRUPTION = "Corruption"
    UNAVAILABLE = "Unavailable"
    CRASHES = "Crashes"
    CONTROLS_UNREAD = "ControlsUnread"
    # What the scheduled functions did and saw.
    INCIDENTS_ARCHIVED = "IncidentsArchived"
    ARCHIVES_REFUSED = "ArchivesRefused"
    ARCHIVES_WAITING = "ArchivesWaiting"
    DEAD_MESSAGES = "DeadMessages"
    REJECTED_WAITING = "RejectedWaiting"
    FANOUT_FAILURES_WAITING = "FanoutFailuresWaiting"
    FANOUT_STOPPED = "FanoutStopped"
    INTAKE_WAITING = "IntakeWaiting"


@dataclass(frozen=True, slots=True)
class Measure:
    """What a metric says. `doors`: the functions that write it."""

    means: str
    doors: tuple[str, ...]
    unit: Unit = Unit.COUNT


_QUEUES: Final = ("candidates", "commands")
_ASKED: Final = (*_QUEUES, "api")
_DECIDING: Final = (*_ASKED, "retention")
_ALL: Final = (*_ASKED, "fanout", "retention", "health")
_CANDIDATES: Final = ("candidates",)
_MOVING: Final = ("commands", "api")
_API: Final = ("api",)
_FANOUT: Final = ("fanout",)
_RETENTION: Final = ("retention",)
_HEALTH: Final = ("health",)

MEASURES: Final[dict[Metric, Measure]] = {
    Metric.APPLIED: Measure("messages and requests that took effect", _ASKED),
    Metric.IDEMPOTENCY_HITS: Measure("copies that got the first answer again", _ASKED),
    Metric.REFUSED: Measure("what was asked and will not be done", _ASKED),
    Metric.REJECTED_MESSAGES: Measure("refused messages copied to the rejected queue", _QUEUES),
    Metric.AUTHORITY_REFUSALS: Measure("refusals because of who asked", _DECIDING),
    Metric.CONFLICTS: Measure("decisions made again because another was faster", _ASKED),
    Metric.CANDIDATES_PROMOTED: Measure("candidates that opened an incident", _CANDIDATES),
    Metric.CANDIDATES_DEFERRED: Measure("candidates whose incident waits for more", _CANDIDATES),
    Metric.CANDIDATES_REJECTED: Measure("candidates that the policy does not let open one", _CANDIDATES),
    Metric.CANDIDATES_SUPPRESSED: Measure("candidates held back by a pause, maintenance or cooldown", _CANDIDATES),
    Metric.CANDIDATES_JOINED: Measure("candidates that became evidence, with nothing to decide", _CANDIDATES),
    Metric.CANDIDATES_WITHOUT_EFFECT: Measure("recoveries of what is not open", _CANDIDATES),
    Metric.DETECTIONS_COUNTED: Measure("detections counted by a rule, below its threshold", _CANDIDATES),
    Metric.INCIDENTS_CREATED: Measure("incidents begun", _ASKED),
    Metric.TRANSITIONS: Measure("states changed", _DECIDING),
    Metric.TRANSITION_LATENCY: Measure("from being sent to the changed state", _ASKED, Unit.MILLISECONDS),
    Metric.TRANSITION_FAILURES: Measure("commands to change a state that were refused or failed", _MOVING),
    Metric.API_REQUESTS: Measure("requests answered", _API),
    Metric.API_FAILURES: Measure("requests answered by 5xx", _API),
    Metric.API_LATENCY: Measure("from a request to its answer", _API, Unit.MILLISECONDS),
    Metric.EVENTS_PUBLISHED: Measure("events that reached the bus", _FANOUT),
    Metric.EVENTS_FAILED: Measure("events put into the failure queue", _FANOUT),
    Metric.FANOUT_LAG: Measure(
        "from an event to its publication; where a batch fails, its oldest one's age", _FANOUT, Unit.MILLISECONDS
    ),
    Metric.FANOUT_UNAVAILABLE: Measure("batches that the stream delivers again", _FANOUT),
    Metric.CORRUPTION: Measure("contradictions found in storage", (*_DECIDING, *_FANOUT)),
    Metric.UNAVAILABLE: Measure("what met something that did not answer", _ALL),
    Metric.CRASHES: Measure("defects of opx met", _ALL),
    Metric.CONTROLS_UNREAD: Measure("batches and requests that went by controls older than they should be", _ASKED),
    Metric.INCIDENTS_ARCHIVED: Measure("incidents archived", _RETENTION),
    Metric.ARCHIVES_REFUSED: Measure("incidents that were due and refused", _RETENTION),
    Metric.ARCHIVES_WAITING: Measure("incidents that were due and not reached in this run", _RETENTION),
    Metric.DEAD_MESSAGES: Measure("messages in all dead-letter queues", _HEALTH),
    Metric.REJECTED_WAITING: Measure("messages in the rejected queue", _HEALTH),
    Metric.FANOUT_FAILURES_WAITING: Measure("messages in the fan-out's failure queue", _HEALTH),
    Metric.FANOUT_STOPPED: Measure("1 while the stream's event source mapping is not enabled", _HEALTH),
    Metric.INTAKE_WAITING: Measure("messages in the intake queues", _HEALTH),
}
