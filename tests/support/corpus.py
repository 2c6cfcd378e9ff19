"""What the HTTP API's earlier answers have told: incidents, keys, tags, cursors; put into requests that know none.

Only what the document leaves open is replaced, so that a valid request stays one; a few get a parameter too many.
"""

import random
from collections import defaultdict
from typing import Any, Final

from schemathesis import Case
from schemathesis.core.parameters import ParameterLocation

from pipeline.domain.transitions import TRANSITIONS, State

KEPT_MAX: Final = 400
# The path of an incident to each state, by whose word each step is taken.
WALKS: Final[dict[State, tuple[State, ...]]] = {
    State.PENDING: (),
    State.OPEN: (),
    State.MITIGATING: (State.MITIGATING,),
    State.RESOLVED: (State.MITIGATING, State.RESOLVED),
    State.CLOSED: (State.MITIGATING, State.RESOLVED, State.CLOSED),
    State.ARCHIVED: (State.MITIGATING, State.RESOLVED, State.CLOSED, State.ARCHIVED),
    State.CANCELLED: (State.CANCELLED,),
}


class Corpus:
    """Grows with every answer. All its choices are `rng`'s."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.versions: dict[str, int] = {}
        self.states: dict[str, str] = {}
        self.keys: list[str] = []
        self.cursors: dict[str, list[tuple[dict[str, str], str]]] = defaultdict(list)
        self.dedup_keys = [f"trouble-{number}" for number in range(20)]
        self._requests = 0

    def fresh_key(self) -> str:
        self._requests += 1
        return f"fuzz-{self.rng.randrange(10**9)}-{self._requests}"

    def heard(self, case: Case, status: int, body: Any, sent: dict[str, str]) -> None:
        """Take in an answer. `sent`: the request's query."""
        if status not in (200, 201) or not isinstance(body, dict) or body.get("dryRun"):
            return
        if "nextCursor" in body:
            self.cursors[case.path].append((sent, body["nextCursor"]))
        if "decidedAt" not in body:
            return
        identity = body["incidentId"]
        kept = identity in self.versions or len(self.versions) < KEPT_MAX
        # A replay tells what was: the newest told is the highest.
        if kept and body.get("controlVersion", 0) >= self.versions.get(identity, 1):
            self.versions[identity], self.states[identity] = body["controlVersion"], body["state"]
        self.keys.append(body["idempotencyKey"])

    # --- into requests ---------------------------------------------------------------------------------------------------

    def salt(self, case: Case) -> None:
        """Put what is known into a request, where that keeps it as valid as it was."""
        broken = case.meta is not None and case.meta.is_negative_at
        whole = {place for place in ParameterLocation if not (broken and broken(place))}
        if ParameterLocation.PATH in whole:
            self._path(case)
        if ParameterLocation.QUERY in whole:
            self._query(case)
        if ParameterLocation.HEADER in whole:
            self._headers(case)
        if ParameterLocation.BODY in whole and isinstance(case.body, dict):
            self._body(case, case.body)

    def _often(self, share: float) -> bool:
        return self.rng.random() < share

    def _incident(self) -> str:
        # By state first: most incidents are open, and the rare states matter as much.
        state = self.rng.choice(sorted(set(self.states.values())))
        return self.rng.choice([identity for identity, found in self.states.items() if found == state])

    def _path(self, case: Case) -> None:
        if "id" in case.path_parameters and self.versions and self._often(0.93):
            case.path_parameters["id"] = self._incident()
        if "key" in case.path_parameters and self.keys and self._often(0.7):
            case.path_parameters["key"] = self.rng.choice(self.keys)

    def _headers(self, case: Case) -> None:
        if "Idempotency-Key" in case.headers and self._often(0.9):
            case.headers["Idempotency-Key"] = self.fresh_key()
        if "If-Match" in case.headers:
            version = self.versions.get(str(case.path_parameters.get("id")))
            if version is not None and self._often(0.8):
                case.headers["If-Match"] = f'"{version}"'

    def _query(self, case: Case) -> None:
        query = case.query
        if query.get("dryRun") in (True, "true") and self._often(0.6):
            del query["dryRun"]
        for one, other in (("version", "at"), ("after", "cursor")):
            if one in query and other in query and self._often(0.9):
                del query[self.rng.choice((one, other))]
        if "from" in query and "to" in query and self._often(0.95):
            # By their texts: which is earlier, where zones differ, is for the door to say.
            query["from"], query["to"] = "2000-01-01T00:00:00Z", query["to"]
        if "version" in query and self._often(0.8):
            query["version"] = self.rng.randrange(1, 4)
        if "at" in query and self._often(0.5):
            query["at"] = "2100-01-01T00:00:00Z"
        if "principal" in query and self._often(0.5):
            query["principal"] = "000000000000"
        if "cursor" in query and self._often(0.95):
            self._cursor(case, query)
        if self._often(0.03):
            # Nearly a parameter that there is: whoever ignores it does what was only to be tried.
            query["dryrun"] = "true"

    def _cursor(self, case: Case, query: dict[str, Any]) -> None:
        del query["cursor"]
        if known := self.cursors.get(case.path):
            sent, cursor = self.rng.choice(known)
            if "{id}" not in case.path:
                query.clear()
                query.update({name: text for name, text in sent.items() if name != "cursor"} | {"cursor": cursor})

    def _body(self, case: Case, body: dict[str, Any]) -> None:
        if self._often(0.9):
            body["authority"] = "SYSTEM" if self._often(0.15) else "HUMAN"
        if case.operation.definition.raw["operationId"] == "declare":
            if self._often(0.2):
                body |= {"dedupKey": self.rng.choice(self.dedup_keys), "service": "checkout"}
        elif "newState" in body and self._often(0.7):
            self._next_state(case, body)
        if "reason" in body or self._often(0.5):
            body["reason"] = "as the fuzzer sees it"
        if "target" in body and self.versions and self._often(0.8):
            body["target"] = self._incident()

    def _next_state(self, case: Case, body: dict[str, Any]) -> None:
        state = self.states.get(str(case.path_parameters.get("id")))
        rows = [row for row in TRANSITIONS if row.source.value == state]
        if rows:
            row = self.rng.choice(rows)
            body |= {
                "newState": row.target.value,
                "authority": self.rng.choice(sorted(row.authorities)).value,
                "reason": "as the fuzzer sees it",
            }
