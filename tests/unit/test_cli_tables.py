"""Tables on a terminal of 80 columns: what a person must read is there, whatever the names' lengths."""

import io
from datetime import timedelta

import pytest
from rich.console import Console

from pipeline.cli.queue_letters import Letter
from pipeline.cli.queue_rehearsal import Told
from pipeline.cli.queue_view import letters_table
from pipeline.cli.tables import incidents_table, timeline_table
from pipeline.cli.terminal import Column, Screen, cell
from pipeline.domain.canonical import Document
from pipeline.domain.incidents import advance
from pipeline.domain.transitions import State
from tests.support.clock import NOW
from tests.support.doors import message
from tests.support.histories import INCIDENT_ID, change, incident_in, whole_life

LONG_SERVICE = "a-very-long-service-name-of-the-checkout-in-europe"


def narrow(width: int = 80) -> Screen:
    def console() -> Console:
        return Console(file=io.StringIO(), markup=False, emoji=False, highlight=False, width=width)

    return Screen(False, console(), console())


def lines(screen: Screen) -> list[str]:
    file = screen.out.file
    assert isinstance(file, io.StringIO)
    return file.getvalue().splitlines()


def words(screen: Screen, column: str) -> str:
    """Return what stands in the column that begins below its title, up to the end of the line, in one line."""
    shown = lines(screen)
    head = next(line for line in shown if column in line)
    at = head.index(column)
    return " ".join(line[at:].strip() for line in shown[shown.index(head) + 2 :])


def life() -> list[Document]:
    return [event.to_document() for event in whole_life()[0]]


def storm(count: int) -> list[Document]:
    attached = next(document for document in life() if document["eventType"] == "EvidenceAttached")
    return [attached | {"sequence": number + 1} for number in range(count)]


@pytest.mark.parametrize("width", [80, 100, 140])
def test_a_timeline_keeps_what_happened_beside_a_long_actor(width: int) -> None:
    screen = narrow(width)
    documents = [
        document | {"actor": {**document["actor"], "actorId": "dana.of.the.night.shift@example.com", "assertedBy": "0" * 12}}
        for document in life()
    ]
    timeline_table(screen, documents, collapse=True)
    assert "Paged the database team." in words(screen, "what")
    assert max(len(line.rstrip()) for line in lines(screen)) <= width
    for document in documents:
        assert any(document["eventType"] in line for line in lines(screen))


def test_a_narrow_timeline_leaves_out_milliseconds_and_who_spoke() -> None:
    for width, full in ((80, False), (140, True)):
        screen = narrow(width)
        timeline_table(screen, [life()[4]], collapse=True)
        text = "\n".join(lines(screen))
        assert (".123" in text, " state " in text) == (full, full)


def test_a_narrow_timeline_counts_evidence_that_a_wide_one_names() -> None:
    for width, named in ((80, False), (140, True)):
        screen = narrow(width)
        timeline_table(screen, storm(1), collapse=True)
        said = words(screen, "what")
        assert "firing from monitor" in said
        assert ("logs/1" in said, "2 items" in said) == (named, not named)


def test_a_run_of_evidence_is_drawn_together_unless_all_is_asked_for() -> None:
    for collapse, shown in ((True, 3), (False, 9)):
        screen = narrow(140)
        assert timeline_table(screen, storm(9), collapse=collapse) is collapse
        text = "\n".join(lines(screen))
        assert text.count("EvidenceAttached") == shown
        assert ("7 more" in text) is collapse
    assert timeline_table(narrow(), storm(3), collapse=True) is False


def test_a_long_service_leaves_room_for_title_and_date() -> None:
    screen = narrow()
    fields = {"service": LONG_SERVICE, "title": "more than 5 % of requests fail"}
    moved = incident_in(State.MITIGATING).model_copy(update=fields)
    incidents_table(screen, (moved, incident_in(State.OPEN)))
    row = lines(screen)[2]
    assert moved.incident_id[:8] in row
    assert "MITIGATING" in row
    assert LONG_SERVICE[:8] in row
    assert LONG_SERVICE not in row
    assert "…" in row
    assert "more than 5 %" in row
    assert NOW.strftime("%m-%d %H:%M") in row
    assert max(len(line.rstrip()) for line in lines(screen)) <= 80


def test_a_long_title_ends_with_an_ellipsis_and_takes_one_line() -> None:
    screen = narrow()
    incidents_table(screen, (incident_in(State.OPEN).model_copy(update={"title": f"5xx of {'x' * 80} in europe"}),))
    row, after = lines(screen)[2:4]
    assert "5xx of x" in row
    assert "x…" in row
    assert after.strip() == ""


def test_detections_are_shown_beside_the_evidence() -> None:
    changes = [change("created"), change("opened")]
    incident = advance(None, INCIDENT_ID, changes, NOW + timedelta(seconds=1))[1]
    screen = narrow(140)
    incidents_table(screen, (incident,))
    head, _, row = lines(screen)[:3]
    for title, value in (("seen", incident.metadata.promotion.detections), ("evidence", incident.metadata.evidence.count)):
        assert row[head.index(title) : head.index(title) + len(title)].strip() == str(value)


def test_a_rejection_says_why_whose_and_when_at_80_columns() -> None:
    told = {"code": "unsupported-schema-version", "reason": "schemaVersion: This one is not known here. " * 3}
    told |= {
        "source": "candidates",
        "originalSenderId": "AROAEXAMPLE:detector",
        "originalSentAt": "2026-01-31T03:00:00.000Z",
    }
    screen = narrow()
    bodies = {'{"type":"candidate","title":"x\x1b[2J"}' + "x" * 500: told, "[]": {}}
    letters = [Letter("rejected", message("m", body), explanation) for body, explanation in bodies.items()]
    letters_table(screen, [Told(letter, *letter.trouble()) for letter in letters])
    text = "\n".join(lines(screen))
    for part in (
        "unsupported-schema-version",
        "2026-01-31 03:00:00",
        "candidates · AROAEXAMPLE",
        "schemaVersion",
        "[]",
        "unexplained",
    ):
        assert part in text
    assert "\x1b" not in text
    assert "x" * 300 not in text.replace("\n", "").replace(" ", "")


@pytest.mark.parametrize("width", [20, 40, 60, 80])
def test_no_column_is_lost_on_a_terminal_however_narrow(width: int) -> None:
    screen = narrow(width)
    columns = [Column("a"), Column("b", floor=4, cap=24), Column("c", wrap=True)]
    screen.table(columns, [(cell("1aa01e67"), cell("s" * 60), cell("many words " * 9))])
    head = lines(screen)[0]
    assert head.split() == ["a", "b", "c"]
    assert "many" in "\n".join(lines(screen))
