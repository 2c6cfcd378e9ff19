"""What must hold of a store whatever happened to it. Assertions only; each names the incident and the rule that broke."""

from collections import defaultdict
from itertools import pairwise

from pipeline.domain.canonical import Document, canonical_bytes, normalise
from pipeline.domain.envelope import GENESIS_HASH, IncidentEvent, event_hash
from pipeline.domain.events import IncidentCreated, Judgement
from pipeline.domain.ids import event_id, incident_id, pointer_id
from pipeline.domain.incidents import Incident, evolve
from pipeline.domain.promotion import Policies, judge
from pipeline.domain.receipts import RECEIPT
from pipeline.domain.transitions import transition
from pipeline.stores.memory import MemoryStore
from tests.support.histories import POLICIES

UNCONTROLLED = {"EvidenceAttached", "NoteAdded", "IncidentLinked", "PromotionDecided"}


def audit(store: MemoryStore, policies: Policies = POLICIES) -> None:
    """Assert that events, rows, pointers, receipts and the feed of a memory store agree with each other."""
    histories = _histories(store.feed)
    assert set(store.incidents) == set(store.events) == set(histories), "an event without a row, or a row without events"
    for identity, documents in histories.items():
        audit_history(documents, policies)
        folded = fold(documents)
        assert store.incidents[identity] == folded.to_document(), f"{identity}: the row is not what its history folds into"
    _audit_pointers(store)
    _audit_receipts(store)


def fold(documents: list[Document]) -> Incident:
    incident: Incident | None = None
    for document in documents:
        incident = evolve(incident, IncidentEvent.from_document(document))
    assert incident is not None
    return incident


def audit_history(documents: list[Document], policies: Policies = POLICIES) -> None:
    """Assert that one incident's stored events form an intact history."""
    identity = documents[0]["incidentId"]
    assert [document["sequence"] for document in documents] == list(range(1, len(documents) + 1)), f"{identity}: gap"
    assert documents[0]["previousHash"] == GENESIS_HASH
    for document in documents:
        event = IncidentEvent.from_document(document)
        assert event.to_document() == document == normalise(document), f"{identity}: not stored in canonical form"
        assert document["hash"] == event_hash(document), f"{identity}: hash"
        assert event.event_id == event_id(identity, event.sequence)
        if event.previous_state is not event.new_state:
            row = transition(event.previous_state, event.new_state)
            assert row is not None, f"{identity}: {event.previous_state} → {event.new_state}"
            assert event.actor.authority_type in row.authorities
            assert event.fact.event_type is row.event_type
        if isinstance(event.fact.metadata, Judgement):
            recorded = event.fact.metadata.decision
            policy = policies.recorded(recorded)
            assert policy is not None
            assert judge(policy, recorded.inputs)[0] == recorded, f"{identity}: a recorded decision does not recompute"
    for before, after in pairwise(documents):
        assert after["previousHash"] == before["hash"], f"{identity}: the chain is broken"
        assert after["timestamp"] >= before["timestamp"], f"{identity}: time ran backwards"
        assert after["previousState"] == before["newState"]
    controlled = [document["sequence"] for document in documents if document["eventType"] not in UNCONTROLLED]
    assert fold(documents).control_version == controlled[-1], f"{identity}: controlVersion"


def _histories(feed: list[Document]) -> dict[str, list[Document]]:
    histories: dict[str, list[Document]] = defaultdict(list)
    for document in feed:
        histories[document["incidentId"]].append(document)
    return dict(histories)


def _audit_pointers(store: MemoryStore) -> None:
    newest: dict[str, tuple[int, str]] = {}
    for identity, history in store.events.items():
        fact = IncidentEvent.from_document(history[1]).fact
        assert isinstance(fact, IncidentCreated)
        born = fact.metadata
        assert identity == incident_id(born.service, born.dedup_key, born.occurrence)
        if born.occurrence > 1:
            assert born.predecessor == incident_id(born.service, born.dedup_key, born.occurrence - 1)
        key = pointer_id(born.service, born.dedup_key)
        newest[key] = max(newest.get(key, (0, "")), (born.occurrence, identity))
    assert {key: (pointer.occurrence, pointer.incident_id) for key, pointer in store.pointers.items()} == newest


def _audit_receipts(store: MemoryStore) -> None:
    covered: dict[str, list[int]] = defaultdict(list)
    for identity, document in store.receipts.items():
        receipt = RECEIPT.validate_python(document, by_alias=True, by_name=False)
        assert receipt.id == identity
        assert canonical_bytes(receipt.to_document()) == canonical_bytes(document)
        result = receipt.result
        if receipt.incident_id is not None and result.first_sequence is not None and result.last_sequence is not None:
            covered[receipt.incident_id].extend(range(result.first_sequence, result.last_sequence + 1))
    for identity, history in store.events.items():
        assert sorted(covered[identity]) == sorted(history), f"{identity}: an event without exactly one receipt"
