"""A whole life in one transaction: many events where what they say does not matter, with all that belongs to them."""

from datetime import datetime

from pipeline.domain.envelope import Change
from pipeline.domain.events import Comment, NoteAdded
from pipeline.domain.incidents import advance
from pipeline.domain.receipts import Answer, Request, result_of_change
from pipeline.services.ports import Commit, Pointer
from tests.contract.commits import ACTOR, beginning


def a_life(service: str, dedup_key: str, events: int, now: datetime) -> Commit:
    """Return the commit of an incident that is created and noted upon, `events` in all (97 are the most)."""
    born = beginning(f"{service}:{dedup_key}", service=service, dedup_key=dedup_key, now=now)
    assert born.incident is not None
    first = born.incident
    changes = [
        Change(
            NoteAdded(metadata=Comment(service=service, severity=first.severity, title=first.title, note=f"note {number}")),
            ACTOR,
            first.state,
        )
        for number in range(2, events + 1)
    ]
    more, incident = advance(first, first.incident_id, changes, now) if changes else ((), first)
    request = Request(
        principal=ACTOR.principal,
        key_kind="caller",
        key=f"{service}:{dedup_key}",
        operation="candidate",
        request_digest="0" * 64,
    )
    told = request.receipt(result_of_change(Answer.CREATED, 0, incident), incident.incident_id, now)
    pointer: Pointer | None = born.pointer
    return Commit((told,), (*born.events, *more), incident, pointer)
