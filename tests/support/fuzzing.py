"""Requests made from the OpenAPI document alone, sent to whatever answers them; each answer is held against the document.

A request is valid by the document or breaks it on purpose. Everything depends on one seed, so a run can be had again.
"""

import random
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Semaphore
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok

from tests.support.corpus import WALKS, Corpus


def too_many(case: Case, url: str) -> set[str]:
    """Return the query parameters sent that the operation does not have."""
    sent = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    return {name for name, _ in sent if name} - {parameter.name for parameter in case.operation.query}


def unknown_parameters_are_refused(ctx: Any, response: Any, case: Case) -> None:
    """To schemathesis a parameter too many is no mistake; to us it is one that would quietly ask for something else."""
    unknown = too_many(case, response.request.url)
    assert not unknown or response.status_code >= 400, f"taken with unknown parameters: {sorted(unknown)}"


CHECKS: Final = [
    unknown_parameters_are_refused,
    schemathesis.checks.not_a_server_error,
    schemathesis.checks.status_code_conformance,
    schemathesis.checks.content_type_conformance,
    schemathesis.checks.response_headers_conformance,
    schemathesis.checks.response_schema_conformance,
    schemathesis.checks.negative_data_rejection,
]
# Why a request that the document allows may yet be malformed: what JSON Schema can't say, and the document says in words.
BEYOND_SCHEMA: Final = frozenset({"reason-missing", "authority-unclear", "link-to-itself", "too-large"})
SAID_IN_WORDS: Final = (
    "Say either",
    "must be later than",
    "There is no version",
    "What will be is not known yet",
    "This cursor is not one",
    "day is out of range",
    "year is not between",
    "too close to zero",
    "bytes in UTF-8",
    "bytes as canonical JSON",
    "ested deeper than",
)
UNSIGNED: Final = frozenset({"not-signed", "forbidden"})
# Routes that write are worth more requests than those that read.
WEIGHTS: Final = {"declare": 3, "changeState": 4, "attachEvidence": 2, "addNote": 2, "changeSeverity": 2, "getIncident": 2}
WRONG_SHARE: Final = 5
AHEAD_MAX: Final = 50


@dataclass
class Tally:
    """What became of all requests. `problems`: each kind of mismatch once, with how often and one example."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    codes: Counter[tuple[int, str]] = field(default_factory=Counter)
    refused_though_valid: Counter[str] = field(default_factory=Counter)
    problems: dict[str, list[str]] = field(default_factory=dict)
    valid: int = 0
    past: int = 0
    changes: int = 0

    @property
    def total(self) -> int:
        return self.statuses.total()

    def count(self, route: str, status: int, code: str, *, valid: bool, changed: bool) -> None:
        self.statuses[route, status] += 1
        self.codes.update([(status, code)] if code else [])
        self.valid += valid
        self.past += not (status in (400, 413, 429) or (status == 403 and code in UNSIGNED))
        self.changes += changed

    def problem(self, kind: str, example: str) -> None:
        self.problems.setdefault(kind, []).append(example)

    def __str__(self) -> str:
        routes = sorted({route for route, _ in self.statuses})
        columns = sorted({status for _, status in self.statuses})
        lines = [f"{'':34}" + "".join(f"{status:>7}" for status in columns)]
        for route in routes:
            lines.append(f"{route:34}" + "".join(f"{self.statuses[route, status] or '':>7}" for status in columns))
        lines.append(f"{self.total} requests, {self.valid} of them valid by the document")
        lines.append(
            f"{self.past} past signature and schema ({self.past / max(1, self.total):.0%}), {self.changes} changed something"
        )
        lines += [f"  {status} {code}: {count}" for (status, code), count in sorted(self.codes.items())]
        lines += [f"  valid, yet {why}: {count}" for why, count in self.refused_though_valid.most_common(12)]
        return "\n".join(lines)

    def report(self) -> str:
        return "\n\n".join(f"{len(found)} x {kind}\n{found[0]}" for kind, found in self.problems.items())


class Fuzzer:
    """Sends to `base_url` by `session`, signed by `auth`."""

    def __init__(
        self, document: dict[str, Any], session: requests.Session, base_url: str, rng: random.Random, auth: Any = None
    ) -> None:
        config = SchemathesisConfig()
        config.projects.default.generation.update(with_security_parameters=False)
        # A request may be wrong in two ways: what it says of the version is looked at before what it leaves out.
        config.projects.default.checks.negative_data_rejection.expected_statuses += ["412", "413"]
        self.schema = schemathesis.openapi.from_dict(document, config=config)
        self.operations = [found.ok() for found in self.schema.get_all_operations() if isinstance(found, Ok)]
        self.session, self.base_url, self.auth, self.rng = session, base_url, auth, rng
        self.corpus = Corpus(rng)
        self.tally = Tally()

    # --- incidents to begin with -----------------------------------------------------------------------------------------

    def prepare(self, each: int = 3) -> None:
        """Declare incidents and take them to every state."""
        for state, steps in WALKS.items():
            for number in range(each):
                who = "SYSTEM" if state.value == "PENDING" else "HUMAN"
                body = {"service": "checkout", "severity": "SEV3", "title": f"Trouble {number}", "authority": who}
                identity = self._ask("POST", "/incidents", body)["incidentId"]
                for step in steps:
                    who = "SYSTEM" if step.value == "ARCHIVED" else "HUMAN"
                    told = {"newState": step.value, "authority": who, "reason": "so that there is one"}
                    self._ask("PATCH", f"/incidents/{identity}/state", told)
                assert self.corpus.states[identity] == state.value

    def _ask(self, method: str, path: str, body: dict[str, Any]) -> Any:
        headers = {"Idempotency-Key": self.corpus.fresh_key()}
        answer = self.session.request(method, self.base_url + path, json=body, headers=headers, auth=self.auth, timeout=30)
        assert answer.status_code in (200, 201), answer.text
        told = answer.json()
        case = self.operations[0].Case()
        self.corpus.heard(case, answer.status_code, told, {})
        return told

    # --- the run ---------------------------------------------------------------------------------------------------------

    def run(self, count: int) -> Tally:
        """Send `count` requests, one after the other: what one is answered is known before the next is sent."""

        # Making requests takes as long as answering them. Only their contents may be made ahead: what earlier answers have
        # told is put in when their turn has come, so a run is the same however fast the other side is.
        ahead = Semaphore(AHEAD_MAX)
        sent: list[Future[None]] = []

        @seed(self.rng.randrange(2**32))
        @settings(
            max_examples=count,
            deadline=None,
            database=None,
            derandomize=False,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=self._cases())
        def make(case: Case) -> None:
            ahead.acquire()
            sent.append(wire.submit(self.exchange, case))
            sent[-1].add_done_callback(lambda done: ahead.release())

        with ThreadPoolExecutor(max_workers=1) as wire:
            make()
        for done in sent:
            done.result()
        return self.tally

    def _cases(self) -> st.SearchStrategy[Case]:
        right, wrong = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
        strategies = []
        for operation in self.operations:
            name = operation.definition.raw["operationId"]
            each = [operation.as_strategy(generation_mode=right)] * (WRONG_SHARE - 1)
            each.append(operation.as_strategy(generation_mode=wrong))
            strategies += each * WEIGHTS.get(name, 1)
        return st.sampled_from(range(len(strategies))).flatmap(strategies.__getitem__)

    def exchange(self, case: Case) -> None:
        """Send one request and look at its answer."""
        self.corpus.salt(case)
        query = {name: str(value) for name, value in case.query.items()}
        answer = case.call(session=self.session, base_url=self.base_url, auth=self.auth)
        valid = (
            case.meta is not None and case.meta.generation.mode.is_positive and not too_many(case, str(answer.request.url))
        )
        try:
            body = answer.json()
        except ValueError:
            body = None
        route, status = case.operation.label, answer.status_code
        code = str(body.get("code", "")) if isinstance(body, dict) else ""
        replayed = "idempotent-replayed" in answer.headers
        self.tally.count(route, status, code, valid=valid, changed=not replayed and _changed(status, body))
        if valid and status == 400 and code not in BEYOND_SCHEMA:
            self._refused_though_valid(route, body)
        try:
            case.validate_response(answer, checks=CHECKS)
        except FailureGroup as group:
            for failure in group.exceptions:
                example = f"{failure}\n{case.as_curl_command(base_url=self.base_url)}\n{answer.text[:600]}"
                self.tally.problem(f"{route} {status} {code}: {type(failure).__name__}", example)
        self.corpus.heard(case, status, body, query)

    def _refused_though_valid(self, route: str, problem: dict[str, Any]) -> None:
        why = next((words for words in SAID_IN_WORDS if words in problem["detail"]), None)
        self.tally.refused_though_valid[why or f"{route}: {problem}"] += 1
        if why is None:
            self.tally.problem(f"{route} 400 {problem['code']}: valid, and yet refused", str(problem))


def _changed(status: int, body: Any) -> bool:
    told = status in (200, 201) and isinstance(body, dict) and "decidedAt" in body
    return told and body.get("answer") in ("created", "applied")
