"""A page of the DynamoDB store asks several partitions at once; whatever one of them meets, none goes on alone."""

import asyncio
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from pipeline.domain.errors import Unavailable
from pipeline.services.ports import Listing
from pipeline.stores.dynamodb import DynamoIncidentStore, Tables
from tests.support.clock import FixedClock


class OneDown:
    """A client whose first query fails at once, and whose others take a while."""

    def __init__(self) -> None:
        self.asked = self.ended = 0

    async def query(self, **request: Any) -> Any:
        self.asked += 1
        if self.asked == 1:
            raise EndpointConnectionError(endpoint_url="http://127.0.0.1:9")
        await asyncio.sleep(0.01)
        self.ended += 1
        return {"Items": []}


async def test_a_partition_that_fails_leaves_no_query_running_behind() -> None:
    client = OneDown()
    store = DynamoIncidentStore(client, Tables.with_prefix("opx"), FixedClock())
    before = asyncio.all_tasks()
    with pytest.raises(Unavailable):
        await store.page(Listing())
    assert client.asked == 4
    assert client.ended == 3
    assert asyncio.all_tasks() == before
