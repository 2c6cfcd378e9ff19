"""Lambda door: the commands queue (FIFO by incident)."""

from typing import Any

from consumers.queue_function import QueueFunction
from pipeline.runtime import bootstrap
from pipeline.runtime.settings import CommandsSettings

function = QueueFunction(bootstrap.commands(CommandsSettings.read()), ordered=True)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Take a batch of commands; answer with those to deliver again, and all behind them in their groups."""
    return function(event, context)
