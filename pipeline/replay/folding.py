"""The fold on plain documents: what `domain.incidents.evolve` does, some ten times faster, for replaying millions of events.

Not a second meaning: the tests hold it to the core's fold over every history they make, and where it and a stored row
differ, the core's own fold decides (see `partition`). What it doesn't know it refuses.
"""

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
_KEPT: Final = ("predecessor", "tags", "links")
_NOTHING: Final = ("SeverityChanged", "NoteAdded", "MitigationStarted", "IncidentClosed", "IncidentArchived")


class DocumentFold:
    """Implements `Fold`. The row it makes is the stored one, with the keys that find it."""

    def __init__(self) -> None:
        self._row: Document = {}
        self._metadata: Document = {}
        self._severity = ""
        self._schema_version = 1
        # The last event, and the last that controls: what a row says of them is asked for once, at the end.
        self._last: Document = {}
        self._controlling: Document = {}

    @property
    def control_version(self) -> int:
        version: int = self._controlling["sequence"]
        return version

    def row(self) -> Document:
        last, identity, service = self._last, self._row["incidentId"], self._row["service"]
        row = {
            **self._row,
            "state": last["newState"],
            "severity": self._severity,
            "updatedAt": last["timestamp"],
            "authority": self._controlling["actor"],
            "version": last["sequence"],
            "controlVersion": self._controlling["sequence"],
            "lastEventHash": last["hash"],
            "metadata": self._metadata,
            "pk": identity,
            "stateShard": f"{last['newState']}#{shard(identity, STATE_SHARDS)}",
            "serviceShard": f"{service}#{shard(identity, SERVICE_SHARDS)}",
            "createdShard": str(shard(identity, CREATED_SHARDS)),
            "createdKey": f"{self._row['createdAt']}#{identity[:8]}",
        }
        return row if self._schema_version == 1 else row | {"schemaVersion": self._schema_version}

    def take(self, event: Document) -> None:
        """Fold one stored event in. Raises KeyError or ValueError for what no history of opx holds."""
        # Not by its value: true is 1, and no version.
        if event["schemaVersion"] is not SCHEMA_VERSION:
            event = upcast(event)
        kind, fact = event["eventType"], event["metadata"]
        if kind == "IncidentCreated":
            self._create(event, fact)
        elif not self._row:
            raise ValueError("a history starts with IncidentCreated")
        elif kind == "EvidenceAttached":
            self._attach(fact, event["actor"])
        elif kind not in _NOTHING:
            self._take_other(kind, fact, event)
        self._last, self._severity = event, fact["severity"]
        if event["schemaVersion"] > self._schema_version:
            self._schema_version = event["schemaVersion"]
        if kind not in _UNCONTROLLED:
            if "actor" not in event:
                raise KeyError("actor")
            self._controlling = event

    def _take_other(self, kind: str, fact: Document, event: Document) -> None:
        metadata = self._metadata
        if kind in ("PromotionDecided", "IncidentOpened"):
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
        else:
            raise ValueError(f"no event is called {kind}")

    def _create(self, event: Document, fact: Document) -> None:
        seen = fact["observation"]
        self._metadata = {
            "dedupKey": fact["dedupKey"],
            "occurrence": fact["occurrence"],
            **{name: fact[name] for name in _KEPT if name in fact},
            "evidence": {"count": 0, "newest": (), "lastObservation": seen["kind"]},
            "promotion": _first(fact["policyId"], seen, event["actor"]["authorityType"], fact.get("keyEndedAt")),
        }
        _add_evidence(self._metadata["evidence"], fact.get("evidence", ()))
        self._row = {
            "incidentId": event["incidentId"],
            "service": fact["service"],
            "title": fact["title"],
            "description": fact["description"],
            "createdAt": event["timestamp"],
        }
        self._controlling = event

    def _attach(self, fact: Document, actor: Document) -> None:
        metadata = self._metadata
        evidence = metadata["evidence"]
        if "evidence" in fact:
            _add_evidence(evidence, fact["evidence"])
        if (seen := fact.get("observation")) is not None:
            evidence["lastObservation"] = seen["kind"]
            if seen["kind"] in _TROUBLE:
                metadata["promotion"] = _accumulate(
                    metadata["promotion"], seen, actor["authorityType"], fact.get("policies", ())
                )


def _add_evidence(summary: Document, items: tuple[Document, ...]) -> None:
    summary["count"] += len(items)
    summary["newest"] = (*summary["newest"], *[item["ref"] for item in items])[-NEWEST_MAX:]


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
    """Return what waits for the gate after one more observation of trouble: mostly `promotion` itself, changed."""
    detections = seen.get("detections", 1)
    if detections == 0:
        return promotion
    waits = promotion.get("outcome") != _PROMOTE
    newest = max(promotion["newestObservedAt"], seen["observedAt"])
    if "maintenance" in seen:
        if promotion["detections"] or not waits:
            return promotion
        held = min(filter(None, (promotion.get("maintenance"), seen["maintenance"])))
        return promotion | {"newestObservedAt": newest, "maintenance": held}
    if promotion["detections"] == 0 and waits:
        first, *others = sorted(set(policies) or {promotion["policyId"]})
        begun = _first(first, seen, authority_type, promotion.get("keyEndedAt"))
        return _present(begun | {"outcome": promotion.get("outcome"), "policies": tuple(others[:POLICIES_MAX]) or None})
    promotion["newestObservedAt"] = newest
    promotion["confidence"] = max(promotion["confidence"], seen["confidence"])
    promotion["detections"] += detections
    if not waits:
        return promotion
    under = set(policies) or {promotion["policyId"]}
    known = set(promotion.get("authorityTypes", (_SYSTEM,)))
    further = {*promotion.get("policies", ()), *under} - {promotion["policyId"]}
    waiting = {
        "authorityTypes": _beyond_system(known | {authority_type}),
        "policies": tuple(sorted(further)[:POLICIES_MAX]) or None,
        "ageS": min(seen.get("ageS", 0), promotion.get("ageS", 0)) or None,
    }
    return _present(promotion | waiting)


def _beyond_system(kinds: set[str]) -> tuple[str, ...] | None:
    return None if kinds == {_SYSTEM} else tuple(sorted(kinds))


def _present(document: Document) -> Document:
    return {name: value for name, value in document.items() if value is not None}
