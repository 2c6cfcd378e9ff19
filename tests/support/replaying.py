"""Replay a store, or the tables it would be stored in, in memory: the code of `opx replay verify` without its files."""

from itertools import groupby

from pipeline.domain.divergences import Divergence
from pipeline.domain.promotion import Policies
from pipeline.replay.alone import check_alone
from pipeline.replay.lines import line_of
from pipeline.replay.live import ORDER, table_name
from pipeline.replay.partition import Counts, Replaying, Wanted, creation_of
from pipeline.replay.pointers import check_key
from pipeline.replay.ranks import PLACES, PointerRank, Table
from pipeline.replay.spill import Entry, RawEntry
from pipeline.stores.memory import MemoryStore
from pipeline.stores.stored_items import StoredItems
from tests.support.exporting import Tables, tables_of
from tests.support.histories import POLICIES

# The fast fold by its own word, with nobody to mend it.
WANTED = Wanted(confirm=False)


def verify_store(store: MemoryStore, policies: Policies | None = POLICIES) -> list[Divergence]:
    """Return all that replay finds wrong with a memory store."""
    return verify_tables(tables_of(store), policies)


def verify_tables(tables: Tables, policies: Policies | None = POLICIES, wanted: Wanted = WANTED) -> list[Divergence]:
    entries: list[Entry] = []
    pointers: list[Entry] = []
    for name, items in tables.items():
        for item in items:
            line = line_of(item)
            place = PLACES[Table(name)](line)
            if place is None:
                check_alone(line)
            else:
                (pointers if place.is_pointer else entries).append(Entry(place.key, place.place, place.rank, line))
    found: list[Divergence] = []
    unborn: set[str] = set()
    for key, group in groupby(sorted(entries), key=lambda one: one.key):
        incident = Replaying(key.decode(), wanted, policies)
        found += incident.take_all(map(_as_read, group))
        if (creation := creation_of(incident.replay)) is not None:
            pointers.append(Entry(creation.key, creation.place, PointerRank.CREATION, creation.line))
        elif incident.replay.version or incident.receipts:
            unborn.add(key.decode())
    for key, group in groupby(sorted(pointers), key=lambda one: one.key):
        found += check_key(key.decode(), group, Counts(), frozenset(unborn))
    return found


def _as_read(entry: Entry) -> RawEntry:
    return [entry.key, b"%d" % entry.place, b"%d" % entry.rank, entry.line]


async def verify_stored(stored: StoredItems, policies: Policies | None = POLICIES) -> list[Divergence]:
    """Return all that replay finds wrong with tables in an engine."""
    tables: Tables = {}
    for table in ORDER:
        tables[table.value] = [item async for page in stored.scan(table_name(stored.tables, table)) for item in page]
    return verify_tables(tables, policies)
