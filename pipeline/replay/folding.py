"""The fold on plain documents: what `domain.incidents.evolve` does, some ten times faster, for replaying millions of events.

Not a second meaning: the tests hold it to the core's fold over every history they make, and where it and a stored row
differ, the core's own fold decides (see `partition`). What it doesn't know it hands to the core.
"""

from decimal import Decimal
from typing import Any, Final

from pipeline.domain.canonical import Document
from pipeline.domain.envelope import SCHEMA_VERSION, upcast
from pipeline.domain.events import REPORTS_TROUBLE
from pipeline.domain.ids import CREATED_SHARDS, SERVICE_SHARDS, STATE_SHARDS, shard
from pipeline.domain.incidents import NEWEST_MAX, POLICIES_MAX, RELATED_MAX
from pipeline.domain.promotion import Outcome
from pipeline.domain.transitions import UNCONTROLLED, AuthorityType

_PROMOTE: Final = Outcome.PROMOTE.value
_SYSTEM: Final = AuthorityType.SYSTEM.value
_UNCONTROLLED: Final = frozenset(kind.value for kind in UNCONTROLLED)
_TROUBLE: Final = frozenset(kind.value for kind in REPORTS_TROUBLE)
_OF_THE_GATE: Final = ("policies", "authorityTypes", "ageS", "maintenance")
_NO_EVIDENCE: Final[Document] = {"count": 0, "newest": ()}
_KEPT: Final = ("predecessor", "tags", "links")
_NOTHING: Final = ("SeverityChanged", "NoteAdded", "MitigationStarted", "IncidentClosed", "IncidentArchived")


class DocumentFold:
    """Implements `Fold`. The row it makes is the stored one, with the keys that find it."""

    def __init__(self) -> None:
        self._row: Document = {}
        self._metadata: Document = {}

    @property
    def control_version(self) -> int:
        version: int = self._row["controlVersion"]
        return version

    def row(self) -> Document:
        row = self._row
        number = shard(row["incidentId"], STATE_SHARDS), shard(row["incidentId"], SERVICE_SHARDS)
        return {
            **row,
            "metadata": self._metadata,
            "pk": row["incidentId"],
            "stateShard": f"{row['state']}#{number[0]}",
            "serviceShard": f"{row['service']}#{number[1]}",
            "createdShard": str(shard(row["incidentId"], CREATED_SHARDS)),
            "createdKey": f"{row['createdAt']}#{row['incidentId'][:8]}",
        }

    def take(self, event: Document) -> None:
        """Fold one stored event in. Raises KeyError or ValueError for what no history of opx holds."""
        if event["schemaVersion"] != SCHEMA_VERSION:
            event = upcast(event)
        kind, fact = event["eventType"], event["metadata"]
        if kind == "IncidentCreated":
            self._create(event, fact)
            return
        if not self._row:
            raise ValueError("a history starts with IncidentCreated")
        metadata = self._metadata
        if kind == "EvidenceAttached":
            self._attach(fact, event["actor"])
        elif kind in ("PromotionDecided", "IncidentOpened"):
            promotion = metadata["promotion"]
            promotion["outcome"] = fact["decision"]["outcome"]
            if promotion["outcome"] == _PROMOTE:
                for name in _OF_THE_GATE:
                    promotion.pop(name, None)
        elif kind in ("IncidentResolved", "IncidentCancelled"):
            ending = {"at": event.get("decidedAt", event["timestamp"])}
            metadata["resolution"] = ending | ({"reason": fact["reason"]} if "reason" in fact else {})
        elif kind == "IncidentLinked":
            related = {"relation": fact["relation"], "target": fact["target"]}
            metadata["related"] = (*metadata.get("related", ()), related)[-RELATED_MAX:]
        elif kind not in _NOTHING:
            raise ValueError(f"no event is called {kind}")
        row = self._row
        row["state"] = event["newState"]
        row["severity"] = fact["severity"]
        row["updatedAt"] = event["timestamp"]
        row["version"] = event["sequence"]
        row["lastEventHash"] = event["hash"]
        if event["schemaVersion"] > row.get("schemaVersion", 1):
            row["schemaVersion"] = event["schemaVersion"]
        if kind not in _UNCONTROLLED:
            row["authority"] = event["actor"]
            row["controlVersion"] = event["sequence"]

    def _create(self, event: Document, fact: Document) -> None:
        seen = fact["observation"]
        self._metadata = {
            "dedupKey": fact["dedupKey"],
            "occurrence": fact["occurrence"],
            **{name: fact[name] for name in _KEPT if name in fact},
            "evidence": _with_evidence({"count": 0, "newest": ()}, fact.get("evidence", ()))
            | {"lastObservation": seen["kind"]},
            "promotion": _first(fact["policyId"], seen, event["actor"]["authorityType"], fact.get("keyEndedAt")),
        }
        self._row = {
            "incidentId": event["incidentId"],
            "state": event["newState"],
            "severity": fact["severity"],
            "service": fact["service"],
            "title": fact["title"],
            "description": fact["description"],
            "createdAt": event["timestamp"],
            "updatedAt": event["timestamp"],
            "authority": event["actor"],
            "version": event["sequence"],
            "controlVersion": event["sequence"],
            "lastEventHash": event["hash"],
        }
        if event["schemaVersion"] > 1:
            self._row["schemaVersion"] = event["schemaVersion"]

    def _attach(self, fact: Document, actor: Document) -> None:
        metadata = self._metadata
        evidence = _with_evidence(metadata["evidence"], fact.get("evidence", ()))
        if (seen := fact.get("observation")) is not None:
            evidence["lastObservation"] = seen["kind"]
            under = fact.get("policies", ())
            metadata["promotion"] = _accumulate(metadata["promotion"], seen, actor["authorityType"], under)
        metadata["evidence"] = evidence


def _with_evidence(summary: Document, items: tuple[Document, ...]) -> Document:
    newest = (*summary["newest"], *(item["ref"] for item in items))[-NEWEST_MAX:]
    return summary | {"count": summary["count"] + len(items), "newest": newest}


def _first(policy_id: str, seen: Document, authority_type: str, key_ended_at: str | None) -> Document:
    counts = "maintenance" not in seen
    found: dict[str, Any] = {
        "policyId": policy_id,
        "confidence": seen["confidence"] if counts else 0,
        "detections": seen.get("detections", 1) if counts else 0,
        "newestObservedAt": seen["observedAt"],
        "authorityTypes": _beyond_system({authority_type}),
        "ageS": seen.get("ageS") if counts else None,
        "keyEndedAt": key_ended_at,
        "maintenance": seen.get("maintenance"),
    }
    return _present(found)


def _accumulate(promotion: Document, seen: Document, authority_type: str, policies: tuple[str, ...]) -> Document:
    detections = seen.get("detections", 1)
    if seen["kind"] not in _TROUBLE or detections == 0:
        return promotion
    waits = promotion.get("outcome") != _PROMOTE
    newest = max(promotion["newestObservedAt"], seen["observedAt"])
    if "maintenance" in seen:
        if promotion["detections"] or not waits:
            return promotion
        held = min(filter(None, (promotion.get("maintenance"), seen["maintenance"])))
        return promotion | {"newestObservedAt": newest, "maintenance": held}
    under = set(policies) or {promotion["policyId"]}
    if promotion["detections"] == 0 and waits:
        first, *others = sorted(under)
        begun = _first(first, seen, authority_type, promotion.get("keyEndedAt"))
        return _present(begun | {"outcome": promotion.get("outcome"), "policies": tuple(others[:POLICIES_MAX]) or None})
    update: dict[str, Any] = {
        "newestObservedAt": newest,
        "confidence": max(promotion["confidence"], seen["confidence"], key=Decimal),
        "detections": promotion["detections"] + detections,
    }
    if waits:
        known = set(promotion.get("authorityTypes", (_SYSTEM,)))
        further = {*promotion.get("policies", ()), *under} - {promotion["policyId"]}
        update["authorityTypes"] = _beyond_system(known | {authority_type})
        update["policies"] = tuple(sorted(further)[:POLICIES_MAX]) or None
        update["ageS"] = min(seen.get("ageS", 0), promotion.get("ageS", 0)) or None
    return _present(promotion | update)


def _beyond_system(kinds: set[str]) -> tuple[str, ...] | None:
    return None if kinds == {_SYSTEM} else tuple(sorted(kinds))


def _present(document: Document) -> Document:
    return {name: value for name, value in document.items() if value is not None}
