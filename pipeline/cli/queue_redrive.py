"""Sends what lies in a queue in again, as its first sender's. Nothing is deleted before its queue has taken it.

Whatever breaks off in between leaves a message in both places: sent again it has no second effect, because its receipt is
its first sender's. So a run needs no notes of its own: the same command goes on with what is still there. No presentation.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from pipeline.cli.outbox import BATCH_BYTES_MAX, BATCH_ENTRIES_MAX, MESSAGE_BYTES_MAX, Queue
from pipeline.cli.queue_letters import Letter, known_by
from pipeline.domain.authority import Registry
from pipeline.domain.canonical import parse_document
from pipeline.domain.errors import Rejected, Unavailable
from pipeline.services.ports import Clock
from pipeline.services.rejection import ATTRIBUTE
from pipeline.stores.clients import translated
from pipeline.stores.queues import sayable_json

# What is taken out at once, and for how long nobody else sees it: at the slowest rate a set is done in that time.
SET_MAX: Final = 200
HIDDEN_S: Final = 300
# After so many looks at nothing, or at nothing new, there is nothing more to see.
EMPTY_MAX: Final = 3
STALE_MAX: Final = 50
ATTEMPTS_MAX: Final = 6
WAIT_S: Final = 0.1
TOO_LARGE = "larger than its queue takes, with what it must carry"


@dataclass(slots=True)
class Tally:
    """What became of a run. `left`: why messages that were chosen stayed. `undeleted` were sent, and stay beside that.

    `copies` had the same sender, id and body as one that was sent, and were deleted with it. `again`: refused anew while it
    ran. `bare` went without their first sender's attributes, for which there was no room.
    """

    redriven: Counter[str] = field(default_factory=Counter)
    by_code: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    copies: int = 0
    again: int = 0
    undeleted: int = 0
    bare: int = 0

    @property
    def sent(self) -> int:
        return self.redriven.total()


@dataclass(frozen=True, slots=True)
class Terms:
    """Which messages are redriven, at most how many, how many a second, and how many lay there at first."""

    code_of: Callable[[Letter], Awaitable[str]]
    chooses: Callable[[Letter, str], bool]
    limit: int
    rate: int
    depth: int


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message ready to be sent, and the copies of it that are done with then."""

    letter: Letter
    known: str
    entry: dict[str, Any]
    size: int
    bare: bool
    copies: list[Letter] = field(default_factory=list)


class Redriver:
    """One run over one queue. `sqs` acts under the redrive role; `urls` are of the queues that take messages."""

    def __init__(
        self, sqs: Any, queue: str, url: str, urls: Mapping[Queue, str], registry: Registry, terms: Terms, clock: Clock
    ) -> None:
        self.sqs = sqs
        self.queue = queue
        self.url = url
        self.urls = urls
        self.registry = registry
        self.terms = terms
        self.clock = clock
        self.tally = Tally()
        # Taken out and not deleted: given back in the end.
        self.held: dict[str, str] = {}
        self.sent: set[str] = set()
        self.codes: dict[str, str] = {}
        self.looked = 0

    async def run(self, on_progress: Callable[[int], None] = lambda done: None) -> Tally:
        """Redrive what is chosen of what lay there at first. Raises `Unavailable`; the tally tells how far it came."""
        try:
            while self.tally.sent < self.terms.limit and self.looked < self.terms.depth:
                found = await self._take_out()
                if not found:
                    break
                for parcels in self._lanes(found):
                    await self._send(parcels, on_progress)
        finally:
            await self._give_back()
        return self.tally

    # --- taking out ----------------------------------------------------------------------------------------------------

    async def _take_out(self) -> list[Letter]:
        """Return some of those that are chosen, oldest first. All others are held until the end: none comes twice."""
        found: list[Letter] = []
        empty = stale = 0
        while len(found) < SET_MAX and self.looked < self.terms.depth and empty < EMPTY_MAX and stale < STALE_MAX:
            letters = await self._receive()
            fresh = [letter for letter in letters if letter.message.message_id not in self.held]
            self.held |= {letter.message.message_id: letter.message.receipt_handle for letter in letters}
            if not letters and found:
                # Of a FIFO group the next show themselves once these are gone.
                break
            empty = 0 if letters else empty + 1
            stale = 0 if fresh else stale + 1
            for letter in self._in_order(fresh, lambda one: one.message.sent_at.isoformat()):
                # No more than lay there at first: what comes in meanwhile is for another run.
                if self.looked < self.terms.depth and await self._is_wanted(letter):
                    found.append(letter)
        return self._in_order(found, lambda one: one.first_sent)[: self.terms.limit - self.tally.sent]

    def _in_order(self, letters: list[Letter], when: Callable[[Letter], str]) -> list[Letter]:
        """Return the oldest first; of a FIFO queue as they came, which is each group's order."""
        return letters if self.queue.startswith(Queue.COMMANDS) else sorted(letters, key=when)

    async def _is_wanted(self, letter: Letter) -> bool:
        unclaimed: str | None = None
        try:
            if known_by(letter, self.registry) in self.sent:
                # Refused again while this runs, or a copy of what was sent: for another run.
                self.tally.again += 1
                return False
        except Rejected as error:
            unclaimed = error.refusal.detail
        self.looked += 1
        code = await self.terms.code_of(letter)
        if not self.terms.chooses(letter, code):
            return False
        if unclaimed is not None:
            self.tally.left[unclaimed] += 1
            return False
        self.codes[letter.message.message_id] = code
        return True

    async def _receive(self) -> list[Letter]:
        with translated(f"taking messages out of {self.queue}"):
            answer = await self.sqs.receive_message(
                QueueUrl=self.url,
                MaxNumberOfMessages=BATCH_ENTRIES_MAX,
                WaitTimeSeconds=1,
                VisibilityTimeout=HIDDEN_S,
                AttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
        return [Letter.of(self.queue, raw) for raw in answer.get("Messages", ())]

    async def _give_back(self) -> None:
        handles = list(self.held.values())
        for start in range(0, len(handles), BATCH_ENTRIES_MAX):
            entries = [
                {"Id": str(number), "ReceiptHandle": handle, "VisibilityTimeout": 0}
                for number, handle in enumerate(handles[start : start + BATCH_ENTRIES_MAX])
            ]
            # What can't be given back shows again by itself.
            with suppress(Unavailable), translated("giving back what was not sent"):
                await self.sqs.change_message_visibility_batch(QueueUrl=self.url, Entries=entries)

    # --- sending -------------------------------------------------------------------------------------------------------

    def _lanes(self, letters: Iterable[Letter]) -> Iterable[dict[str, list[Parcel]]]:
        """Return what goes to each queue: a group of the FIFO queue in its order, any other message by itself."""
        lanes: dict[Queue, dict[str, list[Parcel]]] = {}
        first: dict[str, Parcel] = {}
        for letter in letters:
            parcel = _parcel(letter, self.registry)
            if parcel.known in first:
                first[parcel.known].copies.append(letter)
                continue
            first[parcel.known] = parcel
            lane = str(parcel.entry.get("MessageGroupId")) if letter.destination is Queue.COMMANDS else parcel.known
            lanes.setdefault(letter.destination, {}).setdefault(lane, []).append(parcel)
        return lanes.values()

    async def _send(self, lanes: dict[str, list[Parcel]], on_progress: Callable[[int], None]) -> None:
        """Send one of each lane at a time, delete what was taken, and go on. A lane stops at its first that is refused."""
        attempts = 0
        while lanes:
            batch = self._next(lanes)
            if not batch:
                continue
            began = self.clock.monotonic()
            taken, refused, failed = await self._send_batch([parcel for _, parcel in batch])
            for lane, parcel in batch:
                if parcel.known in taken:
                    lanes[lane].pop(0)
                    self._note(parcel)
                elif parcel.known in refused:
                    self._stop(lanes, lane, refused[parcel.known])
            done = [parcel for _, parcel in batch if parcel.known in taken]
            await self._delete([one for parcel in done for one in (parcel.letter, *parcel.copies)])
            on_progress(self.tally.sent)
            attempts = 0 if taken or refused else attempts + 1
            if attempts == ATTEMPTS_MAX:
                raise Unavailable(f"the queue did not take {len(failed)} messages in {ATTEMPTS_MAX} attempts ({failed[0]})")
            pause = WAIT_S * 2**attempts if attempts else len(taken) / self.terms.rate
            await self.clock.sleep(max(0.0, pause - (self.clock.monotonic() - began)))

    def _next(self, lanes: dict[str, list[Parcel]]) -> list[tuple[str, Parcel]]:
        """Return the heads of lanes that one call carries; what no call carries stops its lane."""
        batch: list[tuple[str, Parcel]] = []
        size = 0
        for lane in list(lanes):
            if not lanes[lane]:
                del lanes[lane]
                continue
            head = lanes[lane][0]
            if head.size > MESSAGE_BYTES_MAX:
                self._stop(lanes, lane, TOO_LARGE)
                continue
            if batch and (len(batch) == min(BATCH_ENTRIES_MAX, self.terms.rate) or size + head.size > BATCH_BYTES_MAX):
                break
            batch.append((lane, head))
            size += head.size
        return batch

    def _stop(self, lanes: dict[str, list[Parcel]], lane: str, why: str) -> None:
        head, *behind = lanes.pop(lane)
        self.tally.left[why] += 1 + len(head.copies)
        if behind:
            self.tally.left["behind one of its group that stays"] += sum(1 + len(parcel.copies) for parcel in behind)

    def _note(self, parcel: Parcel) -> None:
        self.sent.add(parcel.known)
        self.tally.redriven[parcel.letter.destination.value] += 1
        self.tally.by_code[self.codes[parcel.letter.message.message_id]] += 1
        self.tally.copies += len(parcel.copies)
        self.tally.bare += parcel.bare

    async def _send_batch(self, batch: Sequence[Parcel]) -> tuple[set[str], dict[str, str], list[str]]:
        """Return which were taken, which are refused for good and why, and why the others were not taken this time."""
        entries = [{"Id": str(number), **parcel.entry} for number, parcel in enumerate(batch)]
        with translated("sending messages in again"):
            answer = await self.sqs.send_message_batch(QueueUrl=self.urls[batch[0].letter.destination], Entries=entries)
        taken = {batch[int(entry["Id"])].known for entry in answer.get("Successful", ())}
        refused: dict[str, str] = {}
        failed: list[str] = []
        for entry in answer.get("Failed", ()):
            told = f"{entry['Code']}: {entry.get('Message', '')}".removesuffix(": ")
            if entry["SenderFault"]:
                refused[batch[int(entry["Id"])].known] = told
            else:
                failed.append(told)
        return taken, refused, failed

    async def _delete(self, letters: Sequence[Letter]) -> None:
        """Delete what its queue has taken; what can't be deleted stays, and does no harm when it is sent again."""
        for start in range(0, len(letters), BATCH_ENTRIES_MAX):
            chunk = letters[start : start + BATCH_ENTRIES_MAX]
            entries = [
                {"Id": str(number), "ReceiptHandle": letter.message.receipt_handle} for number, letter in enumerate(chunk)
            ]
            self.tally.undeleted += len(chunk)
            with translated(f"deleting from {self.queue} what was sent"):
                answer = await self.sqs.delete_message_batch(QueueUrl=self.url, Entries=entries)
            failed = {int(entry["Id"]) for entry in answer.get("Failed", ())}
            self.tally.undeleted -= len(chunk) - len(failed)
            for number, letter in enumerate(chunk):
                if number not in failed:
                    self.held.pop(letter.message.message_id, None)


def _parcel(letter: Letter, registry: Registry) -> Parcel:
    """Return what is sent: the body as it is, one attribute, and where there are groups, the group it had."""
    claim, bare = letter.claim(registry), False
    if _size(letter.message.body, claim) > MESSAGE_BYTES_MAX:
        # Nobody reads a first sender's attributes; without the other three, nobody would know whose it was.
        told = {name: value for name, value in parse_document(claim).items() if name not in ("attributes", "reason")}
        claim, bare = sayable_json(told), True
    entry: dict[str, Any] = {
        "MessageBody": letter.message.body,
        "MessageAttributes": {ATTRIBUTE: {"DataType": "String", "StringValue": claim}},
    }
    if (group := letter.group()) is not None:
        entry["MessageGroupId"] = group
    if letter.destination is Queue.COMMANDS:
        entry["MessageDeduplicationId"] = letter.deduplication()
    return Parcel(letter, known_by(letter, registry), entry, _size(letter.message.body, claim), bare)


def _size(body: str, claim: str) -> int:
    """Return a message's size as SQS counts it."""
    return len(body.encode()) + len(ATTRIBUTE) + len("String") + len(claim.encode())
