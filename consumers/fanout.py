"""Lambda door: the event table's stream, out to the bus. Raises only where the bus or the failure queue is down."""

from typing import Any

from pipeline.runtime import bootstrap
from pipeline.runtime.loop import Environment
from pipeline.runtime.records import stream_records_of
from pipeline.runtime.settings import FanoutSettings
from pipeline.services.fanout import StreamRecord

environment = Environment()
parts = environment.open(bootstrap.fanout(FanoutSettings.read()))


def handler(event: dict[str, Any], context: Any) -> None:
    """Publish a batch; raising makes the stream deliver it again, as often as it keeps the records."""
    parts.telemetry.begin(context.aws_request_id)
    records: tuple[StreamRecord, ...] = ()
    try:
        records = stream_records_of(event)
        parts.telemetry.relayed(environment.run(parts.service.relay(records)))
    except Exception as error:
        parts.telemetry.relay_failed(error, parts.service.oldest_s(records))
        raise
    finally:
        parts.telemetry.flush()
