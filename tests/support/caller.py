"""Somebody who uses a deployed stack: candidates and commands by its queues, the rest by its API, as one principal."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from botocore.session import Session

from pipeline.clients.answers import ApiRefused, Problem
from pipeline.clients.operator import Operator
from pipeline.domain.ids import incident_id
from pipeline.local.environment import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY
from tests.support.signed import api_url
from tests.support.stack import Stack, wait_until

WITHIN_S = 60.0
CREATED, OPENED = "IncidentCreated", "IncidentOpened"
# The commands that lead from a declaration to a state.
WAYS: dict[str, tuple[str, ...]] = {
    "OPEN": (),
    "MITIGATING": ("MITIGATING",),
    "RESOLVED": ("MITIGATING", "RESOLVED"),
    "CLOSED": ("MITIGATING", "RESOLVED", "CLOSED"),
    "CANCELLED": ("CANCELLED",),
    "ARCHIVED": ("MITIGATING", "RESOLVED", "CLOSED", "ARCHIVED"),
}


class Caller:
    """`api` speaks as a person, unless a call says otherwise. `service` is nobody else's."""

    def __init__(self, stack: Stack, api: Operator) -> None:
        self.stack = stack
        self.api = api
        self.service = f"caller-{uuid4().hex[:12]}"

    def report(self, dedup_key: str = "slow", **fields: Any) -> str:
        """Send a candidate of a key; return the id of the key's first incident."""
        body = {"type": "candidate", "service": self.service, "severity": "SEV2", "title": "slow", "dedupKey": dedup_key}
        self.put("CandidatesQueueUrl", body | fields)
        return incident_id(self.service, dedup_key, 1)

    def order(self, incident: str, kind: str, **fields: Any) -> None:
        """Send a command by the queue."""
        body = {"type": kind, "incidentId": incident, "authority": "HUMAN"} | fields
        self.put("CommandsQueueUrl", body, MessageGroupId=incident, MessageDeduplicationId=uuid4().hex)

    def put(self, output: str, body: Any, **options: str) -> None:
        sqs = self.stack.client("sqs")
        sqs.send_message(QueueUrl=self.stack.outputs[output], MessageBody=json.dumps(body), **options)

    def declared(self, state: str = "OPEN", **fields: Any) -> str:
        """Declare an incident and lead it to `state`; return its id."""
        asked: dict[str, Any] = {"severity": "SEV2", "title": "down", "idempotency_key": uuid4().hex} | fields
        found = self.api.declare(service=self.service, **asked)
        for target in WAYS[state]:
            authority = "SYSTEM" if target == "ARCHIVED" else "HUMAN"
            self.api.change_state(found.incident_id, target, reason="because", authority=authority)
        return found.incident_id

    def types(self, incident: str) -> list[str]:
        """Return the types of an incident's events; none where there is no incident yet."""
        try:
            return [event.event_type for event in self.api.events(incident)]
        except ApiRefused as refused:
            if refused.problem.code != "incident-unknown":
                raise
            return []

    def waits_for(self, incident: str, *types: str) -> None:
        """Wait until an incident's history is of these types, one after the other."""
        wait_until(lambda: self.types(incident) == list(types), WITHIN_S)

    def worked_off(self) -> None:
        """Wait until no message is left in the queues that are worked off."""
        names = ("CandidatesQueueUrl", "AlertmanagerQueueUrl", "CommandsQueueUrl")
        wait_until(lambda: not any(self.stack.depth(name) for name in names), WITHIN_S)


@contextmanager
def calling(stack: Stack) -> Iterator[Operator]:
    session = Session()
    session.set_credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY)
    with Operator(api_url(stack), region=REGION, session=session, authority="HUMAN") as api:
        yield api


@contextmanager
def refusal() -> Iterator[list[Problem]]:
    """Expect one refusal by the API, and tell it."""
    told: list[Problem] = []
    try:
        yield told
    except ApiRefused as refused:
        told.append(refused.problem)
    assert told, "it was not refused"
