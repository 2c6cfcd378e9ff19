"""Thousands of requests made from the OpenAPI document, signed, through API Gateway and the deployed function.

Every answer is one that the document knows, nothing that it forbids is taken, and the event table has what answers say: each
row is what its events fold into.

`OPX_TEST_SEED` repeats a run.
"""

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from infra.schemas.texts import texts
from tests.e2e.test_pipeline import Outside
from tests.support.fuzzing import Fuzzer
from tests.support.signed import Signed, api_url
from tests.support.stack import Stack

pytestmark = pytest.mark.engine
COUNT = 5000
NOBODY = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as made:
        # Proxies and netrc of whoever runs the tests are none of this.
        made.trust_env = False
        yield made


@pytest.mark.long
def test_every_answer_is_one_that_the_document_knows(stack: Stack, session: requests.Session, rng: random.Random) -> None:
    fuzzer = Fuzzer(json.loads(texts()["openapi.json"]), session, api_url(stack), rng, Signed())
    fuzzer.prepare()
    before = len(stack.rows("EventsTableName"))
    tally = fuzzer.run(COUNT)
    events = len(stack.rows("EventsTableName")) - before
    print(f"\n{tally}\n{events} events more in the table")
    assert tally.problems == {}, tally.report()
    assert tally.total == COUNT
    assert tally.past >= 0.6 * COUNT
    assert tally.changes >= 0.1 * COUNT
    # Each change is an event at least; who joined an incident, or declared and opened one, made more.
    assert events >= tally.changes
    # It has an engine of its own where the suite runs in two processes: nobody else looks at what it left.
    assert Outside(stack).diverging() == {}


def whole(path: str) -> str:
    return path.replace("{id}", NOBODY).replace("{key}", "a-key")


def routes() -> list[tuple[str, str]]:
    paths: dict[str, Any] = json.loads(texts()["openapi.json"])["paths"]
    return [(method.upper(), whole(path)) for path, ways in paths.items() for method in ways]


@pytest.mark.parametrize(("method", "path"), routes())
def test_nobody_is_let_in_without_a_signature(stack: Stack, session: requests.Session, method: str, path: str) -> None:
    answer = session.request(method, api_url(stack) + path, json={} if method != "GET" else None)
    # In AWS's own form: the local engine leaves out what the template has its gateway say instead.
    assert (answer.status_code, answer.headers["x-amzn-ErrorType"]) == (403, "MissingAuthenticationTokenException")
