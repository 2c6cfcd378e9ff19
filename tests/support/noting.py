"""A whole life in one transaction: many events where what they say does not matter, with all that belongs to them."""

from datetime import datetime

from pipeline.domain.envelope import Change
from pipeline.domain.events import Comment, NoteAdded
from pipeline.domain.incidents import Incident, advance
from pipeline.domain.receipts import Answer, Request, result_of_change
from pipeline.services.ports import Commit
from tests.contract.commits import ACTOR, beginning


def a_life(service: str, dedup_key: str, events: int, now: datetime) -> Commit:
    """Return the commit of an incident that is created and noted upon, `events` in all (1 to 97)."""
    born = beginning(f"{service}:{dedup_key}", service=service, dedup_key=dedup_key, now=now)
    assert born.incident is not None
    more, incident = advance(born.incident, born.incident.incident_id, _notes(born.incident, events - 1), now)
    told = _request(f"{service}:{dedup_key}").receipt(
        result_of_change(Answer.CREATED, 0, incident), incident.incident_id, now
    )
    return Commit((told,), (*born.events, *more), incident, born.pointer)


def noted(incident: Incident, key: str, now: datetime) -> Commit:
    """Return the commit of one more note."""
    events, after = advance(incident, incident.incident_id, _notes(incident, 1), now)
    told = _request(key).receipt(result_of_change(Answer.APPLIED, incident.version, after), incident.incident_id, now)
    return Commit((told,), events, after)


def _notes(incident: Incident, count: int) -> list[Change]:
    said = {"service": incident.service, "title": incident.title}
    return [
        Change(NoteAdded(metadata=Comment(**said, severity=incident.severity, note=f"note {number}")), ACTOR, incident.state)
        for number in range(count)
    ]


def _request(key: str) -> Request:
    return Request(principal=ACTOR.principal, key_kind="caller", key=key, operation="candidate", request_digest="0" * 64)
