"""The HTTP door in memory against its own document: whatever the document allows or forbids, the answer is a documented one.

The same, a few thousand times, through the deployed stack: `tests/e2e/test_api_fuzz`.
"""

import json
import random
from collections.abc import Iterator

import pytest
import requests

from infra.schemas.texts import texts
from tests.support.audit import audit
from tests.support.fuzzing import Fuzzer
from tests.support.memory_transport import BASE_URL, MemoryTransport

COUNT = 1000


@pytest.fixture
def transport() -> Iterator[MemoryTransport]:
    made = MemoryTransport()
    yield made
    made.close()


@pytest.mark.long
def test_the_door_answers_as_its_document_says(transport: MemoryTransport, rng: random.Random) -> None:
    with requests.Session() as session:
        session.mount(BASE_URL, transport)
        fuzzer = Fuzzer(json.loads(texts()["openapi.json"]), session, BASE_URL, rng)
        fuzzer.prepare()
        before = len(transport.world.store.feed)
        tally = fuzzer.run(COUNT)
    print(tally)
    assert tally.problems == {}, tally.report()
    assert tally.total == COUNT
    assert tally.past >= 0.6 * COUNT
    assert tally.changes >= 0.1 * COUNT
    assert len(transport.world.store.feed) - before >= tally.changes
    audit(transport.world.store)
