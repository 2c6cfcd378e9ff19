"""What must hold of a store whatever happened to it. Assertions only; each names the incident and the rule that broke."""

from collections import Counter, defaultdict
from itertools import pairwise

from pipeline.domain.canonical import Document, canonical_bytes, normalise
from pipeline.domain.correlation import WINDOW
from pipeline.domain.envelope import GENESIS_HASH, IncidentEvent, event_hash
from pipeline.domain.events import IncidentCreated, Judgement
from pipeline.domain.ids import candidate_id, event_id, incident_id, pointer_id
from pipeline.domain.incidents import Incident, evolve
from pipeline.domain.promotion import Policies, judge
from pipeline.domain.receipts import RECEIPT, Answer, IdempotencyRecord
from pipeline.domain.transitions import transition
from pipeline.stores.memory import MemoryStore
from tests.support.histories import POLICIES
from tests.support.replaying import verify_store

UNCONTROLLED = {"EvidenceAttached", "NoteAdded", "IncidentLinked", "PromotionDecided"}


def audit(store: MemoryStore, policies: Policies = POLICIES) -> None:
    """Assert that events, rows, pointers, receipts, windows and the feed of a memory store agree with each other."""
    histories = _histories(store.feed)
    assert set(store.incidents) == set(store.events) == set(histories), "an event without a row, or a row without events"
    for identity, documents in histories.items():
        audit_history(documents, policies)
        folded = fold(documents)
        assert store.incidents[identity] == folded.to_document(), f"{identity}: the row is not what its history folds into"
    _audit_pointers(store)
    _audit_receipts(store)
    _audit_windows(store)
    # And the product's own word for it.
    found = verify_store(store, policies)
    assert found == [], found[:5]


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
    # What was decided together has one range of events, and a receipt each.
    ranges: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for identity, document in store.receipts.items():
        receipt = read_receipt(document)
        assert receipt.id == identity
        assert canonical_bytes(receipt.to_document()) == canonical_bytes(document)
        result = receipt.result
        if receipt.incident_id is not None and result.first_sequence is not None and result.last_sequence is not None:
            ranges[receipt.incident_id].add((result.first_sequence, result.last_sequence))
    for identity, history in store.events.items():
        covered = [number for first, last in ranges[identity] for number in range(first, last + 1)]
        assert sorted(covered) == sorted(history), f"{identity}: an event without exactly one decision's receipts"


def _audit_windows(store: MemoryStore) -> None:
    """Assert that every counted detection has a receipt and every receipt is counted, and where each window went."""
    counted: Counter[str] = Counter()
    told: dict[str, list[tuple[str, Document]]] = defaultdict(list)
    notices = 0
    for document in store.feed:
        correlation = document["metadata"].get("correlation")
        if correlation is not None:
            told[correlation["candidateId"]].append((document["incidentId"], correlation))
        elif document["metadata"].get("observation", {}).get("kind") in ("recovery", "no-data"):
            notices += sum(item["kind"] == "detection" for item in document["metadata"].get("evidence", ()))
    for identity, document in store.windows.items():
        window = WINDOW.validate_python(document, by_alias=True, by_name=False)
        assert window.id == identity
        assert canonical_bytes(window.to_document()) == canonical_bytes(document)
        assert window.starts_at <= window.first_observed_at <= window.newest_observed_at < window.ends_at
        assert 1 <= window.version <= window.detections + window.held, f"{identity}: more commits than detections"
        assert list(window.kept) == sorted(window.kept, key=lambda item: item.rank)
        assert bool(window.kept) is bool(window.detections), f"{identity}: what is kept is not what counts"
        assert not window.kept or window.kept[0].severity is window.severity, f"{identity}: the most severe is not kept"
        counted[f"{window.rule_id}.v{window.rule_version}"] += window.detections + window.held
        events = told.pop(candidate_id(window.rule_id, window.rule_version, window.group, window.starts_at), [])
        assert (window.incident_id is None) or window.incident_id in {incident for incident, _ in events}
        if events:
            assert events[-1][1]["detections"] == window.detections, f"{identity}: the incident was not told of all of it"
        if window.incident_id is not None:
            assert window.incident_id in store.incidents
            assert events[-1][0] == window.incident_id, f"{identity}: it went to another incident than its own"
    assert not told, "an event tells of a window that there is none of"
    receipts = [read_receipt(document) for document in store.receipts.values()]
    under = Counter(one.key_kind.partition("/")[2] for one in receipts if "/" in one.key_kind)
    answers = Counter(one.result.answer for one in receipts if "/" in one.key_kind)
    assert all(counted[name] <= under[name] for name in counted), "something was counted twice"
    # What a rule takes is counted, but for a notice that the trouble is over: that is evidence, or finds nothing open.
    assert sum(counted.values()) == sum(under.values()) - answers[Answer.NOTHING_OPEN] - notices


def read_receipt(document: Document) -> IdempotencyRecord:
    receipt: IdempotencyRecord = RECEIPT.validate_python(document, by_alias=True, by_name=False)
    return receipt
