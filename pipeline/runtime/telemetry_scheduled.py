"""Logs and metrics of the functions that run by the clock: what retention did, and what health measured.

As in `telemetry`: canonical lines, never a body or a reason, `service` the one dimension. A run of retention tells its
figures also where they are 0; a figure that health could not have is not told.
"""

from typing import Any

from pipeline.domain.errors import Corrupt, Unavailable
from pipeline.runtime.metrics import Metric
from pipeline.runtime.telemetry import Telemetry
from pipeline.services.decision import Applied, Refused, Replayed
from pipeline.services.health import Measured
from pipeline.services.retention import Archival, Run

_AUTHORITY_STATUS = 403


class RetentionTelemetry(Telemetry):
    """Of retention."""

    def __init__(self, service: str = "opx-retention") -> None:
        super().__init__(service)

    def archived(self, archival: Archival) -> None:
        """Log and count what became of one incident."""
        line: dict[str, Any] = {
            "operation": "archive",
            "incident_id": archival.incident_id,
            "duration_ms": round(archival.duration_s * 1000, 3),
            "request_id": self.request_id,
        }
        match archival.outcome:
            case Applied():
                line |= self._moved(archival.outcome)
            case Replayed():
                line["outcome"] = "replayed"
            case Refused(refusal) if archival.moved:
                line |= {"outcome": "moved", "code": refusal.code}
            case Refused(refusal):
                self._count(Metric.ARCHIVES_REFUSED)
                if refusal.status == _AUTHORITY_STATUS:
                    self._count(Metric.AUTHORITY_REFUSALS)
                line |= {"outcome": "refused", "code": refusal.code}
            case None:
                pass
        if archival.error is not None:
            line |= self._failed(archival.error)
        wrong = archival.error is not None or archival.refused
        (self.log.error if wrong else self.log.info)("incident", extra=line)

    def _moved(self, applied: Applied) -> dict[str, Any]:
        self._count(Metric.INCIDENTS_ARCHIVED)
        line: dict[str, Any] = {"outcome": "applied", "attempts": applied.attempts}
        for event in applied.events:
            self._count(Metric.TRANSITIONS)
            step = {"from": event.previous_state, "to": event.new_state, "version": event.sequence}
            step |= {"incident_id": event.incident_id, "actor_type": event.actor.authority_type}
            self.log.info("transition", extra=line | step | {"request_id": self.request_id})
        return line

    def ran(self, run: Run) -> None:
        """Log and count a whole run."""
        # The alarm takes what does not come for a run that was not: what did not happen is told as 0.
        for metric in (Metric.INCIDENTS_ARCHIVED, Metric.ARCHIVES_REFUSED, Metric.UNAVAILABLE):
            self._count(metric, 0)
        self._count(Metric.ARCHIVES_WAITING, len(run.waiting))
        figures = {
            "outcome": "done" if run.whole else "unfinished",
            "archived": run.archived,
            "refused": run.refused,
            "failed": run.failed,
            "waiting": len(run.waiting),
            "request_id": self.request_id,
        }
        (self.log.info if run.whole else self.log.warning)("run", extra=figures)

    def run_failed(self, error: Exception) -> None:
        """Log and count a run that ended by a defect."""
        self.log.error("run", extra={"request_id": self.request_id} | self._failed(error))


class HealthTelemetry(Telemetry):
    """Of health."""

    def __init__(self, service: str = "opx-health") -> None:
        super().__init__(service)

    def measured(self, measured: Measured) -> None:
        """Log and count what was measured, and what could not be."""
        figures = measured.figures()
        for name, value in figures.items():
            self._count(Metric(name), value)
        for name, error in measured.unread.items():
            place = {"operation": "measure", "place": name, "request_id": self.request_id}
            # A call that AWS won't take as it is says nothing of what is stored.
            failed = Unavailable(str(error)) if isinstance(error, Corrupt) else error
            self.log.error("health", extra=place | self._failed(failed))
        line: dict[str, Any] = {"outcome": "measured", "depths": dict(measured.depths), "mapping": measured.mapping}
        self.log.info("health", extra=line | figures | {"request_id": self.request_id})

    def measuring_failed(self, error: Exception) -> None:
        """Log and count a measurement that ended by a defect."""
        self.log.error("health", extra={"request_id": self.request_id} | self._failed(error))
