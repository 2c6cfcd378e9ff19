"""A subscriber as a Lambda function behind a rule's SQS queue: who is told of what, in order. README.md says what it needs.

An event comes again after a crash between this function and the table: so the page carries the event_id, to page once.
"""

import os

from pipeline.clients.operator import Operator
from pipeline.clients.subscriber import Event, subscriber
from pipeline.clients.table import TableProgress


@subscriber(progress=TableProgress(os.environ["PROGRESS_TABLE"]), history=Operator(os.environ["OPX_API_URL"]))
def handler(event: Event) -> None:
    if event.event_type == "IncidentOpened":
        print(f"page on call: {event.metadata['severity']} {event.metadata['title']} (once for {event.event_id})")
