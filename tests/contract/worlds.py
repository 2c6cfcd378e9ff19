"""Stores under test, each with a way to look at all it holds and to damage it behind its back."""

import asyncio
import copy
import random
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.domain.canonical import Document
from pipeline.domain.errors import Conflict
from pipeline.runtime.clock import SystemClock
from pipeline.services.ports import Commit, IncidentStore
from pipeline.stores.clients import open_clients
from pipeline.stores.dynamodb import DynamoIncidentStore, Tables
from pipeline.stores.items import to_item
from pipeline.stores.memory import MemoryStore
from tests.contract.tables import create_tables, delete_tables


async def raced(world: "World", commits: Sequence[Commit]) -> list[Any]:
    """Try commits all at once, each once more where another's transaction was in its way; return their results."""

    async def attempt(commit: Commit) -> Any:
        try:
            return await world.store.commit(commit)
        except Conflict:
            return await world.store.commit(commit)

    return await asyncio.gather(*(attempt(commit) for commit in commits))


class World(Protocol):
    """A store with its insides open."""

    @property
    def store(self) -> IncidentStore: ...

    async def everything(self) -> Any:
        """Return all that is stored, comparable with ==."""
        ...

    async def put_event(self, document: Document) -> None:
        """Write an event behind the store's back."""
        ...

    async def drop_pointer(self, pointer_id: str) -> None:
        """Lose a pointer behind the store's back."""
        ...


@dataclass(frozen=True)
class MemoryWorld:
    store: MemoryStore

    async def everything(self) -> Any:
        store = self.store
        held = (store.incidents, store.pointers, store.receipts, store.windows, store.events, store.feed)
        return copy.deepcopy(held)

    async def put_event(self, document: Document) -> None:
        self.store.events.setdefault(document["incidentId"], {})[document["sequence"]] = document

    async def drop_pointer(self, pointer_id: str) -> None:
        del self.store.pointers[pointer_id]


@dataclass(frozen=True)
class DynamoWorld:
    store: DynamoIncidentStore
    client: Any
    tables: Tables

    async def everything(self) -> Any:
        held = {}
        for table in (self.tables.incidents, self.tables.events, self.tables.idempotency):
            pages = self.client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
            rows = [row async for page in pages for row in page["Items"]]
            held[table] = sorted(rows, key=lambda row: repr(sorted(row.items())))
        return held

    async def put_event(self, document: Document) -> None:
        await self.client.put_item(TableName=self.tables.events, Item=to_item(document))

    async def drop_pointer(self, pointer_id: str) -> None:
        await self.client.delete_item(TableName=self.tables.incidents, Key={"pk": {"S": pointer_id}})


@asynccontextmanager
async def dynamo_world(endpoint_url: str, rng: random.Random, **options: Any) -> AsyncIterator[DynamoWorld]:
    """Open a store on tables of its own, and remove them afterwards."""
    prefix = f"t{uuid.UUID(int=rng.getrandbits(128)).hex[:16]}"
    async with open_clients(("dynamodb",), endpoint_url=endpoint_url) as clients:
        tables = await create_tables(clients.dynamodb, prefix)
        store = DynamoIncidentStore(clients.dynamodb, tables, SystemClock(), **options)
        yield DynamoWorld(store, clients.dynamodb, tables)
        await delete_tables(clients.dynamodb, tables)
