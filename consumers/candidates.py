"""Lambda door: the candidates, alarms and Alertmanager queues."""

from typing import Any

from consumers.queue_function import QueueFunction
from pipeline.runtime import bootstrap
from pipeline.runtime.settings import CandidatesSettings

function = QueueFunction(bootstrap.candidates(CandidatesSettings.read()), ordered=False)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Take a batch of candidates; answer with those to deliver again."""
    return function(event, context)
