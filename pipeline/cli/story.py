"""What became of something, told: from its receipt to what went out on the bus, top to bottom. What is told is handed in.

Says what was found, and what could not be looked at; where something lies in no place that can be looked into, says where
it may still be.
"""

from collections.abc import Sequence
from typing import Final

from rich.table import Table
from rich.text import Text

from pipeline.cli.following import YOURSELF, Chapter, Ending, Fate, Findings
from pipeline.cli.telling import refusal_line, short
from pipeline.cli.terminal import Column, Screen, cell, severity_cell, state_cell
from pipeline.cli.traces import trace_table
from pipeline.cli.verdicts import check_document, doubt, reported
from pipeline.clients.answers import Incident
from pipeline.domain.canonical import Document, format_time
from pipeline.domain.errors import MEANINGS, Code
from pipeline.domain.explanation import reason
from pipeline.domain.receipts import Answer

NEVER_READ_BACK: Final = "The bus is never read back: only a subscriber can tell whether it got them."
_STYLES: Final = {
    Ending.APPLIED: "bold green",
    Ending.COUNTED: "bold green",
    Ending.WAITING: "bold yellow",
    Ending.UNKNOWN: "bold yellow",
}
_ANSWERS: Final = {
    Answer.CREATED: "it began a new incident",
    Answer.JOINED: "it joined the incident of its key",
    Answer.APPLIED: "it took effect",
    Answer.COUNTED: "a rule counted it",
    Answer.NOTHING_OPEN: "it reported an end, and nothing of its key was open",
    Answer.UNCHANGED: "it was so already: nothing changed",
}
Fact = tuple[str, Text]


def tell(screen: Screen, found: Findings, said: str | None) -> None:
    """Tell the findings to a person: one thing as a story, several as a table. `said`: the key or id that was asked for."""
    if len(found.fates) > 1:
        rows = [_row(fate, found) for fate in found.fates]
        screen.table((Column("line", right=True), Column("what", wrap=True), Column("became", wrap=True)), rows)
    else:
        for fate in found.fates:
            _tell_one(screen, fate, found, said)
    doubts = [line for look in found.looks if (line := look.doubt()) is not None]
    if isinstance(found.waiting, str):
        doubts.append(f"what waits can't be counted: {found.waiting}")
    if found.unpublished is not None and found.unpublished.doubt is not None:
        doubts.append(found.unpublished.doubt)
    for line in dict.fromkeys(doubts):
        screen.notice(f"Not known: {line}.")


def _row(fate: Fate, found: Findings) -> tuple[Text, Text, Text]:
    chapter = fate.chapters[0] if fate.chapters and not fate.reused else None
    line = Text.assemble((fate.ending.value, _STYLES.get(fate.ending, "bold red")), "  ")
    if chapter is not None and chapter.incident is not None:
        line += Text.assemble(
            cell(short(chapter.incident.incident_id), "cyan"), " ", state_cell(chapter.incident.state), "  "
        )
    line += cell(" ".join(_in_short(one) for one in fate.chapters) if chapter is not None else _nowhere(fate, found))
    number = "" if fate.asked.number is None else str(fate.asked.number)
    return cell(number, "dim"), cell(fate.asked.what), line


def _in_short(chapter: Chapter) -> str:
    if chapter.is_refused:
        return _refusal(chapter)
    return counted(chapter) if chapter.is_counted else _answer(chapter)


def _tell_one(screen: Screen, fate: Fate, found: Findings, said: str | None) -> None:
    what = fate.asked.what or said or ""
    if found.named is not None:
        screen.say(Text.assemble(cell(what, "bold"), " names an incident, no message or command, which opx why follows"))
        facts(screen, [("incident", _incident(found.named))])
        return
    screen.say(Text.assemble((fate.ending.value, _STYLES.get(fate.ending, "bold red")), "  ", cell(what, "bold")))
    if not fate.chapters or fate.reused:
        facts(screen, _lost(fate, found))
        return
    for chapter in fate.chapters:
        facts(screen, _receipt(chapter))
        _gate(screen, chapter)
        _events(screen, chapter, found)
    if any(chapter.events for chapter in fate.chapters):
        failures = found.unpublished
        others = "" if failures is None or not failures.unnamed else f" {failures.unnamed} batches there name no event."
        screen.say(f"{NEVER_READ_BACK}{others}", "dim")


def facts(screen: Screen, pairs: Sequence[Fact]) -> None:
    """Write names and values; a long value goes on under itself."""
    if screen.as_json or not pairs:
        return
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True, width=8)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(name, value)
    screen.out.print(grid)


# --- what has a receipt ----------------------------------------------------------------------------------------------


def _receipt(chapter: Chapter) -> list[Fact]:
    receipt, incident = chapter.receipt, chapter.incident
    when = f"{receipt.created_at:%Y-%m-%d %H:%M:%S} UTC"
    told = [("receipt", cell(f"{receipt.operation} of {receipt.principal}, decided {when}: {_in_short(chapter)}"))]
    if chapter.is_refused and receipt.next:
        told.append(("advice", cell(receipt.next)))
    if incident is not None:
        told.append(("incident", _incident(incident)))
    if chapter.unread is not None:
        told.append(("unread", cell(chapter.unread, "yellow")))
    return told


def _incident(incident: Incident) -> Text:
    line = Text.assemble(cell(short(incident.incident_id), "bold cyan"), "  ", state_cell(incident.state), " ")
    return line + Text.assemble(severity_cell(incident.severity), cell(f"  {incident.service}: {incident.title}"))


def _answer(chapter: Chapter) -> str:
    result = chapter.receipt.result
    answer, state = str(result.get("answer")), result.get("state")
    said = next((words for known, words in _ANSWERS.items() if known.value == answer), answer)
    return said + (f", {state} then" if state else "")


def _refusal(chapter: Chapter) -> str:
    result = chapter.receipt.result
    field = f"{result['field']}: " if result.get("field") else ""
    told = refusal_line(str(result["code"]), field + str(result.get("detail", "")))
    allowed = result.get("allowed")
    return told + (f" From {result.get('state')} it may become: {', '.join(map(str, allowed))}." if allowed else "")


def counted(chapter: Chapter) -> str:
    """Return how far the rule has counted that counted something: of the window, where it is known which one."""
    rule, window, span = chapter.rule, chapter.window, chapter.span
    kind = chapter.receipt.key_kind.partition("/")[2].replace(".v", " v")
    if rule is None:
        return f"rule {kind} counted it (not among the rules known here)"
    wanted = rule.rule.threshold.detections
    if window is None or span is None:
        return f"rule {kind} counted it; it wants {wanted} in {rule.rule.window_s} s. Its window is told with --message."
    where = f"from {span.starts_at:%m-%d %H:%M} to {span.ends_at:%m-%d %H:%M} UTC"
    if window.incident_id is not None:
        return f"rule {kind} counted it; its window {where} has {window.detections} of {wanted}, which became an incident"
    return f"rule {kind} counted it: {window.detections} of {wanted} {where}, so there is no incident of it"


def _gate(screen: Screen, chapter: Chapter) -> None:
    if not chapter.decisions:
        if chapter.events and chapter.unread is None:
            told = "it was not asked again: none of the events is a decision of it"
            facts(screen, [("gate", cell(told, "dim"))])
        return
    one = chapter.decisions[-1]
    facts(screen, [("gate", cell(f"{one.decision.outcome} by {one.policy}: {reason(one)}", "bold"))])
    if (said := doubt(one)) is not None:
        screen.say(cell(said, "bold red"))
    else:
        trace_table(screen, one)


def _events(screen: Screen, chapter: Chapter, found: Findings) -> None:
    if not chapter.events or found.unpublished is None:
        return
    identity = str(chapter.receipt.incident_id)
    rows = []
    for event in chapter.events:
        fate = found.unpublished.fate(identity, int(event["sequence"]))
        style = "bold red" if fate.startswith("FAILED") else "dim"
        number, kind = cell(event["sequence"], "dim"), cell(event["eventType"], "bold")
        rows.append((number, kind, cell(event["eventId"]), cell(fate, style)))
    columns = (Column("#", right=True), Column("detail-type"), Column("eventId", floor=36), Column("fan-out", wrap=True))
    screen.table(columns, rows)


# --- what has none ---------------------------------------------------------------------------------------------------


def _lost(fate: Fate, found: Findings) -> list[Fact]:
    told: list[Fact] = []
    if fate.reused:
        chapter = fate.chapters[0]
        when = f"{chapter.receipt.created_at:%Y-%m-%d %H:%M:%S} UTC"
        words = f"under its key another request was decided {when}: what is not the same is refused (key-reused)"
        told.append(("receipt", cell(words)))
    elif fate.asked.key is not None:
        told.append(("receipt", cell(f"none under {fate.asked.key} of {_either(found.whose)}")))
    copy = fate.rejected or fate.dead
    if copy is not None and fate.rejected is not None:
        told += [
            ("rejected", cell(str(copy.explanation.get("reason") or "it doesn't say why"), "bold")),
            ("from", cell(f"{copy.explanation.get('source', '?')}, by {copy.explanation.get('originalSenderId', '?')}")),
            ("sent", cell(f"{copy.explanation.get('originalSentAt', '?')}")),
            ("id", cell(f"{copy.explanation.get('originalMessageId', '?')}")),
        ]
        return told
    return [*told, ("queues", cell(_nowhere(fate, found)))]


def _nowhere(fate: Fate, found: Findings) -> str:
    """Return in a sentence where something is that has no receipt of its own, or where it may be."""
    match fate.ending:
        case Ending.REJECTED if fate.rejected is not None:
            return str(fate.rejected.explanation.get("reason") or "it doesn't say why")
        case Ending.DEAD if fate.dead is not None:
            return f"it lies in {fate.dead.queue}: opx could not decide it in a hundred tries; somebody has to redrive it"
        case Ending.UNREADABLE:
            refusal = fate.asked.refusal
            why = refusal if isinstance(refusal, str) or refusal is None else refusal_line(refusal.code, refusal.sentence())
            return f"opx refuses it as it is written: {why} No copy of it lies in a queue that could be looked into."
        case _ if fate.asked.needs_message_id:
            return "it has neither a key nor observedAt: only the id that the queue gave it names it; say it as MESSAGE_ID"
        case _:
            return f"nothing of it among the rejected and the dead letters; {_waiting(found)}"


def _either(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _waiting(found: Findings) -> str:
    if isinstance(found.waiting, str):
        return "whether anything waits can't be told"
    waiting = {name: depth.total for name, depth in found.waiting.items() if depth.total}
    if not waiting:
        return "no message waits"
    named = ", ".join(f"{count} in {name}" for name, count in waiting.items())
    return f"messages wait ({named}), and it may be one of them: those are not looked into, only counted"


def next_steps(found: Findings, said: str | None, opx: str, file: str | None) -> list[str]:
    """Return what to do next."""
    if found.named is not None:
        return [f"{opx} open {short(found.named.incident_id)}", f"{opx} policy explain {short(found.named.incident_id)}"]
    incidents = [one.incident for fate in found.fates for one in fate.chapters if one.incident is not None]
    steps = [f"{opx} open {short(incidents[0].incident_id)}"] if incidents else []
    endings = {fate.ending for fate in found.fates}
    caused = [chapter for fate in found.fates for chapter in fate.chapters if chapter.events]
    if caused and not any(chapter.decisions for chapter in caused):
        steps.append(f"{opx} policy explain {short(str(caused[0].receipt.incident_id))}")
    if len(found.fates) > 1:
        keys = [fate.asked.key for fate in found.fates if fate.asked.key is not None]
        steps += [f"{opx} why {keys[0]}" for _ in keys[:1]]
    if endings & {Ending.REJECTED, Ending.UNREADABLE}:
        steps += [f"{opx} lint {file or 'FILE'}", f"{opx} queue show rejected"]
    if Ending.DEAD in endings:
        steps.append(f"{opx} queue list")
    if endings & {Ending.DEAD, Ending.WAITING}:
        steps.append(f"{opx} status")
    if endings & {Ending.WAITING, Ending.UNKNOWN, Ending.COUNTED} and said is not None and file is None:
        steps.append(f"{opx} why {said} --message FILE, which may have another key")
    if any(fate.asked.needs_message_id for fate in found.fates):
        steps.append(f"{opx} why MESSAGE_ID --message {file}")
    elif Ending.UNKNOWN in endings and file is not None:
        steps.append("the same command with --moved-by DAYS, if opx send moved its times")
    if Ending.UNKNOWN in endings and found.whose[:1] == (YOURSELF,):
        steps.append("the same command with --principal ID, if somebody else sent it")
    if Ending.COUNTED in endings and file not in (None, "-"):
        steps.append(f"{opx} policy explain --message {file}")
    if Ending.REFUSED in endings and not incidents:
        steps.append(f"{opx} list")
    return steps or [f"{opx} status"]


# --- for programs ----------------------------------------------------------------------------------------------------


def document(found: Findings, said: str | None, steps: Sequence[str]) -> Document:
    """Return the findings as one document."""
    parts = [_fate_document(fate, found) for fate in found.fates]
    told: Document = {"parts": parts, "principals": list(found.whose), "busReadBack": False, "next": list(steps)}
    told |= {"asked": said} if said is not None else {}
    told |= {"namesIncident": found.named.incident_id} if found.named is not None else {}
    if not isinstance(found.waiting, str) and found.waiting:
        told["waiting"] = {name: depth.total for name, depth in found.waiting.items()}
    doubts = [line for look in found.looks if (line := look.doubt()) is not None]
    if isinstance(found.waiting, str):
        doubts.append(found.waiting)
    if found.unpublished is not None and found.unpublished.doubt is not None:
        doubts.append(found.unpublished.doubt)
    closed = [f"receipts of {name} can't be read" for name in found.closed]
    return told | ({"notKnown": [*doubts, *closed]} if doubts or closed else {})


def _fate_document(fate: Fate, found: Findings) -> Document:
    asked = fate.asked
    named = {"line": asked.number, "what": asked.what or None, "idempotencyKey": asked.key, "keyKind": asked.kind}
    told: Document = {"outcome": fate.ending.value} | {name: value for name, value in named.items() if value is not None}
    if fate.reused:
        told["code"] = Code.KEY_REUSED.value
        told["detail"] = MEANINGS[Code.KEY_REUSED].advice
    if fate.chapters:
        told["receipts"] = [_chapter_document(chapter, found) for chapter in fate.chapters]
    if fate.rejected is not None:
        told["rejected"] = fate.rejected.explanation
    if fate.dead is not None:
        told["deadLetter"] = {"queue": fate.dead.queue, "messageId": fate.dead.message_id}
    if fate.ending is Ending.UNREADABLE and asked.refusal is not None:
        refusal = asked.refusal
        told["refusal"] = refusal if isinstance(refusal, str) else refusal.sentence()
    return told


def _chapter_document(chapter: Chapter, found: Findings) -> Document:
    told: Document = {name: value for name, value in chapter.receipt.document.items() if name != "others"}
    if chapter.incident is not None:
        told["incident"] = chapter.incident.document
    if chapter.rule is not None:
        counts: Document = {"threshold": chapter.rule.rule.threshold.detections, "windowS": chapter.rule.rule.window_s}
        if chapter.window is not None:
            counts |= {"detections": chapter.window.detections, "startsAt": format_time(chapter.window.starts_at)}
            counts |= {"incidentId": found_id} if (found_id := chapter.window.incident_id) is not None else {}
        told["counting"] = counts
    if chapter.decisions:
        one = chapter.decisions[-1]
        checks = {"trace": [check_document(check) for check in one.trace], "agrees": one.problem is None}
        told["gate"] = checks | {"decision": one.decision.to_document(), "reason": reason(one), "about": dict(reported(one))}
    if chapter.events and found.unpublished is not None:
        fates = found.unpublished
        told["events"] = [
            _event_document(event, fates.fate(event["incidentId"], event["sequence"])) for event in chapter.events
        ]
    return told | ({"unread": chapter.unread} if chapter.unread is not None else {})


def _event_document(event: Document, fanout: str) -> Document:
    kept = {name: event[name] for name in ("sequence", "eventId", "timestamp")}
    return {"detailType": event["eventType"], "fanout": fanout} | kept
