"""Lambda door: retention, by the clock. Raises for a defect alone; what fails otherwise is told, and the next run's."""

from typing import Any

from pipeline.runtime import bootstrap
from pipeline.runtime.loop import Environment, deadline_of
from pipeline.runtime.records import scheduled_at
from pipeline.runtime.settings import RetentionSettings

environment = Environment()
parts = environment.open(bootstrap.retention(RetentionSettings.read()))


def handler(event: dict[str, Any], context: Any) -> None:
    """Archive what is due, as far as the bound and the time go."""
    telemetry = parts.telemetry
    telemetry.begin(context.aws_request_id)
    try:
        deadline = deadline_of(context, parts.clock.monotonic())
        telemetry.ran(environment.run(parts.service.run(scheduled_at(event), deadline, telemetry.archived)))
    except Exception as error:
        telemetry.run_failed(error)
        raise
    finally:
        telemetry.flush()
