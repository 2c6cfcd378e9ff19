"""The event bus on EventBridge: PutEvents in as few calls as entries and bytes allow, only failed entries sent again.

At least once, in no promised order: whoever needs either reads the sequence. What an event looks like is in
`domain.envelope`; what becomes of an entry that is refused is the fan-out's business.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_after_attempt, wait_random_exponential

from pipeline.domain.envelope import SOURCE
from pipeline.domain.errors import Corrupt, Unavailable
from pipeline.services.ports import BusEntry, BusRefusal, Clock
from pipeline.stores.clients import translated

REQUEST_ENTRIES_MAX: Final = 10
# The total must be *less* than 256 KB; one entry may use all of it.
REQUEST_BYTES_MAX: Final = 256 * 1024 - 1
TIME_BYTES: Final = 14
ROUNDS_MAX: Final = 5
ROUND_WAIT = wait_random_exponential(multiplier=0.1, max=2)

# The bus will never take the entry as it is. Every other code may pass (InternalFailure, throttling, a permission that is
# missing today, one not known here), so it is retried and then the whole record: nothing is given up for a bus's bad day.
NEVER: Final = frozenset({"MalformedDetail", "InvalidArgument", "InvalidParameter", "ValidationException"})


class EventBridgeBus:
    """Implements `EventBus` on an open client."""

    def __init__(self, client: Any, bus_name: str, clock: Clock) -> None:
        self.client = client
        self.bus_name = bus_name
        self.clock = clock

    async def publish(self, entries: Sequence[BusEntry]) -> tuple[BusRefusal | None, ...]:
        """Publish, resending what failed with jitter for a few rounds; return per entry None or why it is refused for good.

        Raises `Unavailable` where the bus is down or entries keep failing; entries taken by then go out again later.
        """
        refusals: dict[int, BusRefusal] = {}
        pending: dict[int, str] = {}
        for index, entry in enumerate(entries):
            if (size := entry_size(entry)) > REQUEST_BYTES_MAX:
                refusals[index] = BusRefusal("EntryTooLarge", f"{size} bytes; less than {REQUEST_BYTES_MAX + 1} are taken")
            else:
                pending[index] = ""

        async def one_round() -> bool:
            nonlocal pending
            failed: dict[int, str] = {}
            for chosen in cut(entries, pending):
                taken = await self._put(entries, chosen)
                refusals.update({index: found for index, found in taken.items() if isinstance(found, BusRefusal)})
                failed |= {index: found for index, found in taken.items() if isinstance(found, str)}
            pending = failed
            return bool(pending)

        def given_up(state: RetryCallState) -> bool:
            codes = ", ".join(sorted(set(pending.values())))
            raise Unavailable(f"PutEvents: {len(pending)} entries still fail after {state.attempt_number} rounds: {codes}")

        retrying = AsyncRetrying(
            retry=retry_if_result(bool),
            wait=ROUND_WAIT,
            stop=stop_after_attempt(ROUNDS_MAX),
            sleep=self.clock.sleep,
            retry_error_callback=given_up,
        )
        if pending:
            await retrying(one_round)
        return tuple(refusals.get(index) for index in range(len(entries)))

    async def _put(self, entries: Sequence[BusEntry], chosen: Sequence[int]) -> dict[int, BusRefusal | str]:
        """Send one request; return only what was not taken: refused for good, or the code of a failure that may pass."""
        try:
            with translated("PutEvents"):
                answer = await self.client.put_events(Entries=[self._entry(entries[index]) for index in chosen])
        except Corrupt as error:
            # The service refuses the request as a whole and names no entry: each goes alone, so that one can't stop others.
            if len(chosen) == 1:
                return {chosen[0]: BusRefusal("ValidationException", str(error))}
            alone: dict[int, BusRefusal | str] = {}
            for index in chosen:
                alone |= await self._put(entries, [index])
            return alone
        results = answer.get("Entries", [])
        # An answer too short says nothing of the rest: they are sent again, a duplicate is harmless.
        results += [{"ErrorCode": "NoAnswer"}] * (len(chosen) - len(results))
        return {
            index: _verdict(result)
            for index, result in zip(chosen, results, strict=False)
            if result.get("ErrorCode") or not result.get("EventId")
        }

    def _entry(self, entry: BusEntry) -> dict[str, Any]:
        return {
            "EventBusName": self.bus_name,
            "Source": SOURCE,
            "DetailType": entry.detail_type,
            "Detail": entry.detail,
            "Time": entry.time,
            "Resources": [entry.resource],
        }


def _verdict(result: dict[str, Any]) -> BusRefusal | str:
    code = str(result.get("ErrorCode") or "NoEventId")
    return BusRefusal(code, str(result.get("ErrorMessage", ""))[:512]) if code in NEVER else code


def entry_size(entry: BusEntry) -> int:
    """Return an entry's size as EventBridge counts it: time 14 bytes; source, detail type, detail and resources in UTF-8."""
    texts = (SOURCE, entry.detail_type, entry.detail, entry.resource)
    return TIME_BYTES + sum(len(text.encode()) for text in texts)


def cut(entries: Sequence[BusEntry], chosen: Sequence[int] | dict[int, str]) -> Iterator[tuple[int, ...]]:
    """Cut the chosen entries, in order, into as few requests as entry count and bytes allow."""
    request: list[int] = []
    room = REQUEST_BYTES_MAX
    for index in chosen:
        size = entry_size(entries[index])
        if request and (len(request) == REQUEST_ENTRIES_MAX or size > room):
            yield tuple(request)
            request, room = [], REQUEST_BYTES_MAX
        request.append(index)
        room -= size
    if request:
        yield tuple(request)
