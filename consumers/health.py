"""Lambda door: health, each minute. What can't be measured is told as an error and as a figure that doesn't come."""

from typing import Any

from pipeline.runtime import bootstrap
from pipeline.runtime.loop import Environment
from pipeline.runtime.settings import HealthSettings

environment = Environment()
parts = environment.open(bootstrap.health(HealthSettings.read()))


def handler(event: dict[str, Any], context: Any) -> None:
    """Measure, whatever the event says."""
    parts.telemetry.begin(context.aws_request_id)
    try:
        parts.telemetry.measured(environment.run(parts.service.measure()))
    except Exception as error:
        parts.telemetry.measuring_failed(error)
        raise
    finally:
        parts.telemetry.flush()
