"""What may be done to the stored tables, and what replay must call it: each damage, as a change of items, and its name.

The tables are those of a key's two incidents, the first with a whole life, and of another key's: `lived`.
"""

from collections.abc import Callable

from pipeline.domain.divergences import Divergence
from pipeline.domain.ids import event_id, incident_id, pointer_id
from pipeline.domain.replay import fold
from pipeline.stores.items import Item, from_item, incident_item, read_receipt, to_item
from pipeline.stores.memory import MemoryStore
from tests.simulation.world import VirtualClock
from tests.support.doors import Doors, command_message, message
from tests.support.exporting import Tables
from tests.support.streams import sealed

SERVICE, KEY = "checkout", "5xx"
INCIDENT = incident_id(SERVICE, KEY, 1)
NEXT = incident_id(SERVICE, KEY, 2)
POINTER = pointer_id(SERVICE, KEY)
Told = set[tuple[str, str, str]]


async def lived() -> MemoryStore:
    """Return a store with a key's two incidents, of which the first had a life, and another key's."""
    clock = VirtualClock()
    doors = Doors(clock=clock)
    body = {"type": "candidate", "service": SERVICE, "severity": "SEV2", "title": "5xx", "dedupKey": KEY}
    await doors.offer(message("a", body))
    await doors.offer(message("b", body | {"severity": "SEV1", "evidence": [{"kind": "log", "ref": "logs/1"}]}))
    await doors.offer(message("c", body | {"dedupKey": "latency"}))
    for step in ("MITIGATING", "RESOLVED", "CLOSED"):
        order = {"type": "change-state", "incidentId": INCIDENT, "newState": step, "authority": "HUMAN", "reason": "why"}
        await doors.order(command_message(step, order))
        clock.seconds += 60
    clock.seconds += 3600
    await doors.offer(message("d", body, sent_at=clock.now()))
    return doors.memory


def event(tables: Tables, sequence: int, of: str = INCIDENT) -> Item:
    wanted = {"incidentId": {"S": of}, "sequence": {"N": str(sequence)}}
    return next(item for item in tables["incident-events"] if item | wanted == item)


def last(tables: Tables) -> int:
    return max(int(item["sequence"]["N"]) for item in tables["incident-events"] if item["incidentId"]["S"] == INCIDENT)


def row(tables: Tables, of: str = INCIDENT) -> Item:
    return next(item for item in tables["incidents"] if item["pk"]["S"] == of)


def receipt_until(tables: Tables, sequence: int) -> Item:
    """Return the receipt of the incident that names this event as its last."""
    for item in tables["idempotency"]:
        result = item["result"]["M"]
        if item.get("incidentId") == {"S": INCIDENT} and result.get("lastSequence") == {"N": str(sequence)}:
            return item
    raise AssertionError(f"no receipt ends with event {sequence}")


def told(found: list[Divergence]) -> Told:
    return {(one.incident_id, one.kind.value, one.where) for one in found}


# --- the events -----------------------------------------------------------------------------------------------------------


def change_text(item: Item, name: str) -> None:
    """Change one byte of a text."""
    text = item[name]["S"]
    item[name] = {"S": text[:-1] + ("x" if text[-1] != "x" else "y")}


def change_metadata(tables: Tables) -> None:
    change_text(event(tables, 3)["metadata"]["M"], "title")


def change_actor(tables: Tables) -> None:
    change_text(event(tables, 3)["actor"]["M"], "principal")


def change_timestamp(tables: Tables) -> None:
    at = event(tables, 3)["timestamp"]
    at["S"] = at["S"][:-2] + ("1" if at["S"][-2] == "0" else "0") + "Z"


def swap(tables: Tables) -> None:
    one, other = event(tables, 3), event(tables, 5)
    one["sequence"], other["sequence"] = other["sequence"], one["sequence"]


def drop(sequence: int) -> Callable[[Tables], None]:
    def damage(tables: Tables) -> None:
        tables["incident-events"].remove(event(tables, sequence or last(tables)))

    return damage


def drop_the_whole_history(tables: Tables) -> None:
    for sequence in range(1, last(tables) + 1):
        tables["incident-events"].remove(event(tables, sequence))


def insert(tables: Tables) -> None:
    """Append an event that was never decided, as well made as whoever may write the table can make it."""
    end = from_item(event(tables, last(tables)))
    number = end["sequence"] + 1
    note = {"eventType": "NoteAdded", "metadata": {"service": SERVICE, "severity": "SEV1", "title": "5xx", "note": "x"}}
    made = end | {"sequence": number, "eventId": event_id(INCIDENT, number), "previousHash": end["hash"]} | note
    tables["incident-events"].append(to_item(sealed(made | {"previousState": end["newState"]})))


def duplicate(tables: Tables) -> None:
    tables["incident-events"].append(event(tables, 3) | {"sequence": {"N": str(last(tables) + 1)}})


def twice(tables: Tables) -> None:
    tables["incident-events"].append(dict(event(tables, 3)))


# --- what was written with them -------------------------------------------------------------------------------------------


def row_state(tables: Tables) -> None:
    row(tables)["state"] = {"S": "OPEN"}


def row_version(tables: Tables) -> None:
    row(tables)["version"] = {"N": "3"}


def row_gone(tables: Tables) -> None:
    tables["incidents"].remove(row(tables))


def row_listed_elsewhere(tables: Tables) -> None:
    row(tables)["stateShard"] = {"S": "OPEN#0"}


def row_set_back(tables: Tables) -> None:
    folded = fold([from_item(event(tables, number)) for number in range(1, 4)])
    assert folded is not None
    tables["incidents"].remove(row(tables))
    tables["incidents"].append(incident_item(folded))


def pointer_back(tables: Tables) -> None:
    pointer = row(tables, POINTER)
    pointer["occurrence"], pointer["incidentId"] = {"N": "1"}, {"S": INCIDENT}


def pointer_gone(tables: Tables) -> None:
    tables["incidents"].remove(row(tables, POINTER))


def pointer_made_up(tables: Tables) -> None:
    key = pointer_id(SERVICE, "another")
    tables["incidents"].append(row(tables, POINTER) | {"pk": {"S": key}, "dedupKey": {"S": "another"}})


def receipt_state(tables: Tables) -> None:
    receipt_until(tables, last(tables))["result"]["M"]["state"] = {"S": "OPEN"}


def receipt_principal(tables: Tables) -> None:
    receipt_until(tables, last(tables))["principal"] = {"S": "AROASOMEBODYELSE"}


def receipt_time(tables: Tables) -> None:
    change = receipt_until(tables, last(tables))["createdAt"]
    change["S"] = change["S"][:-2] + "9Z"


def receipt_gone(tables: Tables) -> None:
    tables["idempotency"].remove(receipt_until(tables, last(tables)))


def receipt_of_other_events(tables: Tables) -> None:
    receipt_until(tables, last(tables))["result"]["M"]["firstSequence"] = {"N": str(last(tables) - 1)}


DAMAGES: dict[str, tuple[Callable[[Tables], None], Callable[[Tables], Told]]] = {
    "metadata": (change_metadata, lambda _: {(INCIDENT, "changed", "event 3")}),
    "actor": (change_actor, lambda _: {(INCIDENT, "changed", "event 3: actor")}),
    "timestamp": (change_timestamp, lambda _: {(INCIDENT, "changed", "event 3: timestamp")}),
    "swapped": (swap, lambda _: {(INCIDENT, "swapped", "events 3 and 5")}),
    "dropped first": (drop(1), lambda _: {(INCIDENT, "missing", "event 1")}),
    "dropped middle": (drop(4), lambda _: {(INCIDENT, "missing", "event 4")}),
    "dropped last": (drop(0), lambda tables: {(INCIDENT, "missing", f"event {last(tables) + 1}")}),
    "dropped all": (drop_the_whole_history, lambda _: {(INCIDENT, "missing", "events 1 to 7")}),
    "inserted": (insert, lambda tables: {(INCIDENT, "inserted", f"event {last(tables)}")}),
    "duplicated": (duplicate, lambda _: {(INCIDENT, "duplicated", "event 3")}),
    "twice in an export": (twice, lambda _: {(INCIDENT, "duplicated", "event 3")}),
    "row state": (row_state, lambda _: {(INCIDENT, "row", "state")}),
    "row version": (row_version, lambda _: {(INCIDENT, "row", "version")}),
    "row gone": (row_gone, lambda _: {(INCIDENT, "row-missing", "row")}),
    "row's index key": (row_listed_elsewhere, lambda _: {(INCIDENT, "row", "stateShard")}),
    "row set back": (row_set_back, lambda _: {(INCIDENT, "row", "version")}),
    "pointer": (
        pointer_back,
        lambda _: {(NEXT, "pointer", f"pointer {POINTER}: {name}") for name in ("occurrence", "incidentId")},
    ),
    "pointer gone": (pointer_gone, lambda _: {(NEXT, "pointer-missing", f"pointer {POINTER}")}),
    "pointer made up": (
        pointer_made_up,
        lambda _: {(NEXT, "pointer", f"pointer {pointer_id(SERVICE, 'another')}")},
    ),
    "receipt's state": (receipt_state, lambda tables: {of_receipt(tables, "result.state")}),
    "receipt's principal": (
        receipt_principal,
        lambda tables: {of_receipt(tables, "key"), of_receipt(tables, "principal", new_key=True)},
    ),
    "receipt's time": (receipt_time, lambda tables: {of_receipt(tables, "createdAt")}),
    "receipt gone": (receipt_gone, lambda tables: {(INCIDENT, "receipt-missing", f"event {last(tables)}")}),
    "receipt of other events": (receipt_of_other_events, lambda tables: {of_receipt(tables, "events")}),
}


def of_receipt(tables: Tables, name: str, *, new_key: bool = False) -> tuple[str, str, str]:
    item = receipt_until(tables, last(tables))
    key = read_receipt(item).id if new_key else item["pk"]["S"]
    return INCIDENT, "receipt", f"receipt {key}: {name}"


def forge_last(tables: Tables) -> None:
    """Make another event of the last, with everything about it made right but what its row and receipt say of it."""
    stored = event(tables, last(tables))
    forged = from_item(stored)
    forged["metadata"] = forged["metadata"] | {"reason": "another"}
    stored.update(to_item(sealed(forged)))
