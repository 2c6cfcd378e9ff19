"""A subscriber whose environments come and go, with its progress in a real table; the example runs as it is."""

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import yaml

from pipeline.clients.answers import Event
from pipeline.clients.subscriber import Subscriber
from pipeline.clients.table import TableProgress
from pipeline.domain.envelope import detail_of
from pipeline.local.deploy import aws
from pipeline.local.engine import RunningEngine
from tests.support.histories import whole_life
from tests.support.sources import ROOT

pytestmark = pytest.mark.engine

EXAMPLE = ROOT / "examples" / "subscriber"
HISTORY = [json.loads(detail_of(event.to_document())) for event in whole_life()[0]]
INCIDENT = HISTORY[0]["incidentId"]


@pytest.fixture
def dynamodb(engine: RunningEngine) -> Iterator[Any]:
    client = aws(engine.endpoint_url, "dynamodb")
    yield client
    client.close()


@pytest.fixture
def table(dynamodb: Any, rng: random.Random) -> Iterator[str]:
    """A table as the example's README says it is to be made."""
    (snippet,) = re.findall(r"```yaml\n(.*?)```", (EXAMPLE / "README.md").read_text("utf-8"), re.DOTALL)
    (resource,) = yaml.safe_load(snippet).values()
    assert resource["Type"] == "AWS::DynamoDB::Table"
    name = f"t{rng.getrandbits(64):016x}"
    dynamodb.create_table(TableName=name, **resource["Properties"])
    yield name
    dynamodb.delete_table(TableName=name)


def batch(*sequences: int) -> dict[str, Any]:
    bodies = [json.dumps(HISTORY[sequence - 1]) for sequence in sequences]
    return {"Records": [{"messageId": str(number), "body": body} for number, body in enumerate(bodies)]}


def test_environments_that_know_nothing_of_each_other_hand_each_event_over_once_in_order(dynamodb: Any, table: str) -> None:
    seen: list[int] = []

    def handle(event: Event) -> None:
        seen.append(event.sequence)

    def fresh() -> Subscriber:
        return Subscriber(handle, TableProgress(table, client=dynamodb))

    assert fresh()(batch(2, 1)) == {"batchItemFailures": []}
    assert fresh()(batch(3)) == {"batchItemFailures": []}
    # What is delivered again does nothing, and a gap goes back to the queue until another environment closes it.
    assert fresh()(batch(1, 3)) == {"batchItemFailures": []}
    assert fresh()(batch(5)) == {"batchItemFailures": [{"itemIdentifier": "0"}]}
    assert fresh()(batch(4)) == {"batchItemFailures": []}
    assert fresh()(batch(5)) == {"batchItemFailures": []}
    assert seen == [1, 2, 3, 4, 5]


def test_a_crash_between_handler_and_table_hands_the_event_over_again(dynamodb: Any, table: str) -> None:
    class Crashing(TableProgress):
        def advance(self, incident_id: str, sequence: int) -> None:
            raise KeyboardInterrupt

    seen: list[str] = []

    def handle(event: Event) -> None:
        seen.append(event.event_id)

    with pytest.raises(KeyboardInterrupt):
        Subscriber(handle, Crashing(table, client=dynamodb))(batch(1))
    Subscriber(handle, TableProgress(table, client=dynamodb))(batch(1))
    assert seen == [HISTORY[0]["eventId"]] * 2


def test_of_two_that_write_at_once_the_one_further_on_stays_and_none_goes_back(
    dynamodb: Any, table: str, rng: random.Random
) -> None:
    orders = [rng.sample(range(1, 61), 60) for _ in range(2)]

    def advance(order: list[int]) -> None:
        progress, highest = TableProgress(table, client=dynamodb), 0
        for sequence in order:
            progress.advance(INCIDENT, sequence)
            highest, before = progress.position(INCIDENT), highest
            assert highest >= max(before, sequence)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(advance, orders))
    progress = TableProgress(table, client=dynamodb)
    assert (progress.position(INCIDENT), progress.position("another")) == (60, 0)


def test_what_another_environment_has_just_written_is_read(dynamodb: Any, table: str) -> None:
    asked: list[bool] = []
    dynamodb.meta.events.register(
        "provide-client-params.dynamodb.GetItem", lambda params, **_: asked.append(params.get("ConsistentRead", False))
    )
    TableProgress(table, client=dynamodb).position(INCIDENT)
    assert asked == [True]


def test_a_table_that_is_not_there_loses_nothing(dynamodb: Any, table: str) -> None:
    lambda_ = Subscriber(lambda event: None, TableProgress(table + "-gone", client=dynamodb))
    with pytest.raises(dynamodb.exceptions.ResourceNotFoundException):
        lambda_(batch(1))
    progress = TableProgress(table + "-gone", client=dynamodb)
    with pytest.raises(dynamodb.exceptions.ResourceNotFoundException):
        progress.advance(INCIDENT, 1)


def test_the_example_pages_once_in_order_and_not_again_after_a_cold_start(engine: RunningEngine, table: str) -> None:
    records = json.loads((EXAMPLE / "event.json").read_text("utf-8"))["Records"]
    sequences = [json.loads(record["body"])["detail"]["sequence"] for record in records]
    assert sequences != sorted(sequences)
    assert len(set(sequences)) < len(sequences)
    code = "import json, handler; print(handler.handler(json.load(open('event.json')), None))"
    settings = {
        "AWS_ENDPOINT_URL_DYNAMODB": engine.endpoint_url,
        "PROGRESS_TABLE": table,
        "OPX_API_URL": "http://127.0.0.1:9/v1",
        "PYTHONPATH": str(ROOT),
    }

    def cold_start() -> list[str]:
        command = [sys.executable, "-c", code]
        ran = subprocess.run(command, env=os.environ | settings, cwd=EXAMPLE, check=True, capture_output=True, text=True)
        return ran.stdout.splitlines()

    paged, answer = cold_start()
    assert paged.startswith("page on call: SEV2 5xx above 5 %")
    assert answer == "{'batchItemFailures': []}"
    assert cold_start() == [answer]
