"""Runs every contract test against every store. Not against moto: its transactions slow down with the table."""

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from pipeline.stores.memory import MemoryStore
from tests.contract.worlds import MemoryWorld, World, dynamo_world

STORES = [pytest.param("memory"), pytest.param("ministack", marks=pytest.mark.engine)]


@pytest_asyncio.fixture(params=STORES)
async def world(request: pytest.FixtureRequest, rng: random.Random) -> AsyncIterator[World]:
    """A store with nothing in it."""
    if request.param == "memory":
        yield MemoryWorld(MemoryStore())
        return
    running: Any = request.getfixturevalue("engine")
    async with dynamo_world(running.endpoint_url, rng) as found:
        yield found
