"""What `opx queue` shows: how many lie in each queue and why, each message, and what became of a redrive."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from pipeline.cli.counting import WEBHOOK_DLQ
from pipeline.cli.failure_records import HIDDEN_S as RECORDS_HIDDEN_S
from pipeline.cli.peeking import Look
from pipeline.cli.queue_letters import FAILURES
from pipeline.cli.queue_redrive import HIDDEN_S, Tally
from pipeline.cli.queue_rehearsal import Fate, Told
from pipeline.cli.terminal import Column, Screen, cell, key_values
from pipeline.domain.canonical import Document, format_time

BODY_CHARACTERS_MAX: Final = 160
WHERE_CHARACTERS_MAX: Final = 28
REASON_CHARACTERS_MIN: Final = 40
_FATE_STYLES: Final = {Fate.APPLIED: "green", Fate.ALREADY: "green", Fate.REFUSED: "red", Fate.UNKNOWN: "yellow"}


@dataclass(frozen=True, slots=True)
class Heap:
    """What lies in one queue, and why, as far as it was looked at."""

    look: Look
    codes: Counter[str]

    def to_document(self) -> Document:
        facts: Document = {"queue": self.look.queue, "messages": self.look.depth, "seen": self.look.seen}
        doubt = doubt_of(self.look)
        return facts | {"codes": dict(self.codes)} | ({"doubt": doubt} if doubt else {})


def counted(number: int) -> str:
    return "1 message" if number == 1 else f"{number} messages"


def held(queue: str) -> str:
    """Return why messages of a queue don't show themselves, and when they do: nobody gives back what a killed run held."""
    return f"held by somebody, perhaps by a run that was broken off, and seen again within {_minutes(queue)} minutes"


def later(queue: str) -> str:
    return f"the same command after that, in {_minutes(queue)} minutes"


def _minutes(queue: str) -> int:
    return (RECORDS_HIDDEN_S if queue == FAILURES else HIDDEN_S) // 60


def doubt_of(look: Look) -> str | None:
    """Return what a look can't tell, or None where it saw everything."""
    if look.is_hidden:
        return f"about {counted(look.depth)} of {look.queue} could not be looked at: {held(look.queue)}"
    return look.doubt()


def listed(codes: Mapping[str, int]) -> str:
    return ", ".join(f"{count} × {code}" for code, count in Counter(codes).most_common())


def heaps_table(screen: Screen, heaps: Sequence[Heap]) -> None:
    """Show every queue with how many lie in it and why."""
    columns = (Column("queue"), Column("messages", right=True), Column("why", wrap=True, floor=REASON_CHARACTERS_MIN))
    rows = []
    for heap in heaps:
        style = "" if heap.look.depth else "dim"
        count = cell("?" if heap.look.unread else heap.look.depth, style)
        partly = "" if heap.look.is_whole else f"of the {heap.look.seen} that could be looked at: "
        why = heap.look.unread or (partly + listed(heap.codes) if heap.codes else "")
        if heap.look.is_hidden:
            why = held(heap.look.queue)
        rows.append((cell(heap.look.queue, style), count, cell(why, "red" if heap.codes else style)))
    screen.table(columns, rows)


def letters_table(screen: Screen, shown: Sequence[Told]) -> None:
    """Show messages: on the left why, when and whose, on the right what is said of it, and how the body begins."""
    columns = (Column("why", cap=WHERE_CHARACTERS_MAX), Column("what", wrap=True, floor=REASON_CHARACTERS_MIN))
    screen.table(columns, [_row(item) for item in shown])


def _row(item: Told) -> tuple[Text, Text]:
    letter, message = item.letter, item.letter.message
    when = letter.explanation.get("originalSentAt") or format_time(message.sent_at)
    whose = letter.explanation.get("originalSenderId") or message.sender_id
    left = [
        cell(item.code, "red"),
        cell(str(when).replace("T", " ")[:19], "dim"),
        cell(f"{message.source} · {whose}" if letter.is_redrivable else "", "dim"),
        cell(f"received {message.receive_count} times" if letter.is_dead else "", "dim"),
    ]
    right = [cell(item.reason)]
    if item.verdict is not None:
        told = ": ".join(part for part in (item.verdict.fate.value, item.verdict.detail) if part)
        right.append(cell(f"Sent in again: {told}", _FATE_STYLES[item.verdict.fate]))
    begins = message.body[:BODY_CHARACTERS_MAX] + ("…" if len(message.body) > BODY_CHARACTERS_MAX else "")
    right += [cell(message.message_id, "cyan"), cell(begins, "dim")]
    return Text("\n").join([line for line in left if line.plain]), Text("\n").join(right)


def fates(shown: Sequence[Told]) -> Counter[str]:
    """Count what would become of messages: by code where they would be refused."""
    told = [item.verdict for item in shown if item.verdict is not None]
    return Counter(one.fate.value + (f": {one.code}" if one.code else "") for one in told)


def tell(screen: Screen, queue: str, tally: Tally, unseen: int) -> None:
    """Say what became of a redrive."""
    if screen.as_json:
        screen.record(_record(queue, tally, unseen))
        return
    to = ", ".join(f"{count} to {name}" for name, count in tally.redriven.items())
    pairs = [("redriven", f"{counted(tally.sent)}{f': {to}' if to else ''}")]
    if tally.by_code:
        pairs.append(("had been", listed(tally.by_code)))
    if tally.copies:
        pairs.append(("copies", f"{tally.copies} more of the same, deleted with them"))
    pairs += [("stay", f"{count}: {why}") for why, count in tally.left.items()]
    if tally.undeleted:
        pairs.append(("not deleted", f"{tally.undeleted} of them also still lie there; sent again they change nothing"))
    if tally.again:
        pairs.append(("again there", f"{tally.again}: refused anew, or copies; a later run takes them"))
    if tally.bare:
        pairs.append(("shortened", f"{tally.bare} without their first sender's attributes, for which there was no room"))
    if unseen:
        pairs.append(("not seen", f"about {unseen}: {held(queue)}; or behind others of their group"))
    key_values(screen, pairs)


def _record(queue: str, tally: Tally, unseen: int) -> Document:
    numbers = {"copies": tally.copies, "undeleted": tally.undeleted, "again": tally.again, "bare": tally.bare}
    told: Document = {"queue": queue, "redriven": tally.sent, "to": dict(tally.redriven), "codes": dict(tally.by_code)}
    again = {"seenAgainWithinS": HIDDEN_S} if unseen else {}
    return told | numbers | {"left": dict(tally.left), "unseen": unseen} | again


def leads(opx: str, queue: str, found: Sequence[Told] = ()) -> list[str]:
    """Return what to do next about what lies in a queue, and was `found` there."""
    if queue == FAILURES:
        return [f"{opx} republish --failures"]
    if queue == WEBHOOK_DLQ:
        details = [item.letter.document.get("detail") for item in found]
        named = [str(detail["incidentId"]) for detail in details if isinstance(detail, dict) and "incidentId" in detail]
        return [f"{opx} republish {' '.join(dict.fromkeys(named)) or '--help'}"]
    return [f"{opx} queue redrive {queue} --all --dry-run"]
