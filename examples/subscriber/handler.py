"""A subscriber as a Lambda function behind a rule's SQS queue: who is told of what, in order. Try it with event.json.

What it has handled is kept as long as its environment lives; then events come again, so tell repetitions by event_id.
"""

from pipeline.clients.progress import MemoryProgress
from pipeline.clients.subscriber import Event, subscriber


@subscriber(progress=MemoryProgress())
def handler(event: Event) -> None:
    if event.event_type == "IncidentOpened":
        print(f"page on call: {event.metadata['severity']} {event.metadata['title']} (once for {event.event_id})")
