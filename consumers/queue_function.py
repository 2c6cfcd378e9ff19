"""A Lambda function over a queue: event in, partial batch answer out. Wiring only; messages are settled in `queue_door`."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from consumers.queue_door import QueueDoor
from pipeline.runtime.bootstrap import QueueParts
from pipeline.runtime.loop import Environment, deadline_of
from pipeline.runtime.records import messages_of


class QueueFunction:
    """Made once per execution environment, called once per batch."""

    def __init__(self, parts: AbstractAsyncContextManager[QueueParts], *, ordered: bool) -> None:
        self.environment = Environment()
        self.parts = self.environment.open(parts)
        self.door = QueueDoor(
            self.parts.service,
            self.parts.rejected,
            self.parts.sources,
            self.parts.registry,
            self.parts.clock,
            self.parts.telemetry.settled,
            ordered=ordered,
        )

    def __call__(self, event: Mapping[str, Any], context: Any) -> dict[str, Any]:
        """Settle a batch; name the messages that must be delivered again (ReportBatchItemFailures)."""
        telemetry = self.parts.telemetry
        telemetry.begin(context.aws_request_id)
        deadline = deadline_of(context, self.parts.clock.monotonic())
        messages = messages_of(event, self.parts.source_of, self.parts.default_source)
        try:
            failed = self.environment.run(self.door.handle(messages, deadline))
        finally:
            telemetry.controls_unread(self.parts.controls.failure)
            telemetry.flush()
        return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}
