"""`opx audit` over an export, and what it asks of a table: who did what is found, exactly; what was altered is no answer."""

import asyncio
import copy
import gzip
import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from rich.console import Console
from typer.testing import CliRunner

from pipeline.cli.audit_question import Question
from pipeline.cli.audit_reading import read_table
from pipeline.cli.audit_view import Actor, Newest, Tally
from pipeline.cli.main import app
from pipeline.cli.session import Around, Invocation
from pipeline.cli.target import Selection
from pipeline.cli.terminal import DONE, FAILED, REFUSED, CommandError, Screen
from pipeline.cli.whole_table import LARGE_BYTES
from pipeline.domain.canonical import Document
from pipeline.domain.errors import Unavailable
from pipeline.stores.dynamodb import Tables as TableNames
from pipeline.stores.items import from_item, to_item
from pipeline.stores.stored_items import StoredItems
from tests.support.audited import CARTS, LEDGER, QUESTIONS, worked
from tests.support.command_line import CommandLine, Ran, console, text_of
from tests.support.exporting import Tables, export
from tests.support.streams import sealed

WITHIN_S = 10


@pytest.fixture(scope="module")
def stored() -> Tables:
    return asyncio.run(worked())


@pytest.fixture(scope="module")
def exported(stored: Tables, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(stored, tmp_path_factory.mktemp("export"))


def audit(folder: Path, *options: str, **how: Any) -> Ran:
    return CommandLine()("audit", "--export", str(folder), *options, **how)


def events_of(ran: Ran) -> list[Document]:
    """Return the events of an answer; the last line is its summary."""
    *lines, last = ran.lines
    assert list(last) == ["summary"]
    return [line for line in lines if "divergence" not in line]


def told(ran: Ran) -> set[str]:
    return {f"{event['metadata']['service']} {event['eventType']}" for event in events_of(ran)}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_finds_what_it_asks_for_and_nothing_else(question: str, exported: Path) -> None:
    options, expected = QUESTIONS[question]
    ran = audit(exported, *options)
    assert (ran.code, told(ran)) == (DONE, expected)
    assert ran.lines[-1]["summary"]["events"] == len(expected)


def test_a_span_begins_with_its_first_moment_and_ends_before_its_last(stored: Tables, exported: Path) -> None:
    times = sorted({item["timestamp"]["S"] for item in stored["incident-events"]})
    assert len(times) == 6
    found = {event["timestamp"] for event in events_of(audit(exported, "--from", times[1], "--to", times[3]))}
    assert found == {times[1], times[2]}
    assert {event["timestamp"] for event in events_of(audit(exported, "--from", times[4]))} == set(times[4:])
    assert {event["timestamp"] for event in events_of(audit(exported, "--to", times[1]))} == {times[0]}


def test_as_json_each_event_is_as_it_is_stored(stored: Tables, exported: Path) -> None:
    found = {(event["incidentId"], event["sequence"]): event["hash"] for event in events_of(audit(exported))}
    events = [from_item(item) for item in stored["incident-events"]]
    assert found == {(event["incidentId"], event["sequence"]): event["hash"] for event in events}


def test_the_summary_counts_by_actor_for_whom_and_type(exported: Path) -> None:
    summary = audit(exported, "--actor", "dana@*").lines[-1]["summary"]
    dana = {"authorityType": "HUMAN", "actorId": "dana@example.com", "principal": "AROAOPERATOR"}
    gate = {"authorityType": "SYSTEM", "actorId": "promotion-gate", "principal": "opx", "requestedBy": "dana@example.com"}
    assert summary == {
        "events": 2,
        "divergences": 0,
        "actors": [dana | {"events": {"IncidentResolved": 1}}, gate | {"events": {"IncidentOpened": 1}}],
    }


# --- for people -----------------------------------------------------------------------------------------------------------


def test_people_read_who_did_what_as_what_and_why_the_newest_last(exported: Path) -> None:
    shown = audit(exported, "--service", "checkout*", people=True, width=200).out.splitlines()
    rows = [line for line in shown if line.startswith("2026-")]
    assert [row.split()[0] for row in rows] == sorted(row.split()[0] for row in rows)
    assert len(rows) == 5
    for part in ("dana@example.com", "AROAOPERATOR", "HUMAN", "IncidentResolved MITIGATING → RESOLVED", "rolled back"):
        assert part in rows[-1]
    assert "sam@example.com via portal" in rows[-2]
    assert "SeverityChanged SEV2 → SEV1" in rows[-2]
    assert "SYSTEM" in rows[-3]


def test_people_read_for_whom_the_gate_acted(exported: Path) -> None:
    ran = audit(exported, "--service", "ledger", "--type", "IncidentOpened", people=True, width=220)
    (row,) = [line for line in ran.out.splitlines() if line.startswith("2026-")]
    assert "promotion-gate, asked by dana@example.com" in row
    assert "customers call · PROMOTE by policy default" in row


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_row_is_lost_on_a_narrow_terminal(exported: Path, width: int) -> None:
    shown = audit(exported, "--actor", "dana@*", people=True, width=width).out
    assert max(map(len, shown.splitlines())) <= width
    assert (shown.count(CARTS[:8]), shown.count(LEDGER[:8])) == (1, 1)


def test_more_than_fits_is_counted_and_how_to_get_it_is_said(exported: Path) -> None:
    ran = audit(exported, "--service", "checkout*", "--limit", "2", people=True, width=200)
    rows = [line for line in ran.out.splitlines() if line.startswith("2026-")]
    assert ["SeverityChanged" in rows[0], "IncidentResolved" in rows[1], len(rows)] == [True, True, 2]
    said = " ".join(ran.err.split())
    assert (
        f"The newest 2 of 5 events are shown; all of them: opx audit --service 'checkout*' --export {exported} --json"
        in said
    )
    assert "1 MitigationStarted" in ran.out, "the summary is of all"
    assert [event["eventType"] for event in events_of(audit(exported, "--service", "checkout*", "--limit", "2"))] == [
        "SeverityChanged",
        "IncidentResolved",
    ]


@pytest.mark.parametrize("shared", [True, False], ids=["one terminal", "a file"])
def test_no_progress_is_written_between_lines_on_the_same_terminal(exported: Path, shared: bool) -> None:
    out, err = (Console(file=io.StringIO(), force_terminal=terminal, width=80) for terminal in (shared, True))
    around = Around(screen=Screen(True, out, err))
    assert CliRunner().invoke(app, ["audit", "--export", str(exported)], obj=around).exit_code == DONE
    assert (text_of(err) == "", len(text_of(out).splitlines())) == (shared, 10)


def test_nothing_found_is_an_answer(exported: Path) -> None:
    ran = audit(exported, "--actor", "nobody", people=True)
    assert (ran.code, ran.out.strip()) == (DONE, "No event matches.")


def test_the_newest_are_kept_in_whatever_order_they_come(rng: random.Random) -> None:
    events = [{"timestamp": f"2026-01-31T{n % 24:02}", "incidentId": str(n % 5), "sequence": n} for n in range(500)]
    newest = Newest(20)
    for event in rng.sample(events, len(events)):
        newest.take(event)
        assert len(newest.in_order()) <= 20
    expected = sorted(events, key=lambda event: (event["timestamp"], event["incidentId"], event["sequence"]))[-20:]
    assert newest.in_order() == expected


def test_actors_without_end_are_counted_together_from_some_number_on() -> None:
    tally = Tally(actors_max=3)
    for number in range(10):
        tally.take(Actor("HUMAN", f"actor-{number % 5}", "AROA"), "NoteAdded")
    assert (tally.events, len(tally.by), tally.others) == (10, 3, 4)
    assert tally.to_document()["others"] == 4


# --- what can't be believed ---------------------------------------------------------------------------------------------


def resolved(tables: Tables) -> dict[str, Any]:
    """Return the item of the event by which dana resolved."""
    return next(item for item in tables["incident-events"] if item["eventType"]["S"] == "IncidentResolved")


def in_actor(item: dict[str, Any]) -> None:
    item["actor"]["M"]["justification"] = {"S": "I was told to"}


def in_reason(item: dict[str, Any]) -> None:
    item["metadata"]["M"]["reason"]["S"] = "rolled on"


def in_time(item: dict[str, Any]) -> None:
    item["timestamp"]["S"] = item["timestamp"]["S"].replace(".000000Z", ".000001Z")


def without_hash(item: dict[str, Any]) -> None:
    del item["hash"]


@pytest.mark.parametrize("damage", [in_actor, in_reason, in_time, without_hash])
def test_an_altered_event_is_named_and_not_believed(
    damage: Callable[[dict[str, Any]], None], stored: Tables, tmp_path: Path
) -> None:
    tables = copy.deepcopy(stored)
    damage(resolved(tables))
    export({"incident-events": tables["incident-events"]}, tmp_path)
    ran = audit(tmp_path, "--actor", "dana@*")
    assert (ran.code, told(ran)) == (REFUSED, {"ledger IncidentOpened"})
    (named,) = [line["divergence"] for line in ran.lines if "divergence" in line]
    assert (named["incidentId"], named["kind"], named["where"]) == (CARTS, "changed", "event 5")
    assert ran.lines[-1]["summary"]["divergences"] == 1
    shown = audit(tmp_path, "--actor", "dana@*", people=True, width=120)
    assert shown.code == REFUSED
    assert "Not believed and not counted: 1 event." in shown.out
    assert f"{CARTS} event 5: an event is not what its hash says" in shown.out
    assert f"Next: opx replay verify {CARTS}" in shown.out
    assert audit(tmp_path, "--service", "ledger").code == DONE, "of what it was not asked it says nothing"


def test_what_is_no_event_is_named_though_its_hash_holds(stored: Tables, tmp_path: Path) -> None:
    tables = copy.deepcopy(stored)
    item = resolved(tables)
    document = sealed(from_item(item) | {"actor": "dana"})
    tables["incident-events"][tables["incident-events"].index(item)] = to_item(document)
    export({"incident-events": tables["incident-events"]}, tmp_path)
    ran = audit(tmp_path, "--service", "checkout*")
    assert (ran.code, len(events_of(ran))) == (REFUSED, 4)
    assert [line["divergence"]["kind"] for line in ran.lines if "divergence" in line] == ["unreadable"]


@pytest.mark.parametrize("options", [[], ["--actor", "nobody"]], ids=["all", "nobody"])
def test_a_line_that_can_not_be_read_is_named_whatever_was_asked(options: list[str], stored: Tables, tmp_path: Path) -> None:
    items = copy.deepcopy(stored["incident-events"])
    items[0]["odd"] = {"B": "AAEC"}
    export({"incident-events": items}, tmp_path)
    ran = audit(tmp_path, *options)
    named = [line["divergence"] for line in ran.lines if "divergence" in line]
    assert (ran.code, [one["kind"] for one in named]) == (REFUSED, ["unreadable"])
    assert named[0]["incidentId"] == items[0]["incidentId"]["S"]


def test_no_stored_text_moves_a_terminal(stored: Tables, tmp_path: Path) -> None:
    items = copy.deepcopy(stored["incident-events"])
    first = sealed(
        from_item(items[0]) | {"actor": {"authorityType": "HUMAN", "principal": "p", "actorId": "a\x1b[2J[red]b"}}
    )
    altered = from_item(items[1]) | {"incidentId": "\x1b[2J"}
    export({"incident-events": [to_item(first), to_item(altered)]}, tmp_path)
    ran = audit(tmp_path, people=True, width=160)
    assert "\x1b" not in ran.out + ran.err
    assert "a\\x1b[2J[red]b" in ran.out
    assert "\x1b" not in audit(tmp_path).out


def test_an_export_that_ends_too_early_ends_with_2(stored: Tables, tmp_path: Path) -> None:
    export({"incident-events": stored["incident-events"]}, tmp_path)
    last = max(tmp_path.rglob("*.json.gz"))
    lines = gzip.decompress(last.read_bytes()).splitlines(keepends=True)
    last.write_bytes(gzip.compress(b"".join(lines[:-1])))
    ran = audit(tmp_path)
    assert (ran.code, "Broken off after" in ran.error["error"]) == (FAILED, True)
    assert all("summary" not in line for line in ran.lines), "half an answer has no sum"


@pytest.mark.parametrize(
    "options",
    [
        ["--type", "IncidentReopened"],
        ["--from", "yesterday"],
        ["--from", "2026-01-31T03:00Z", "--to", "2026-01-31T03:00Z"],
        ["--incident", CARTS[:8]],
        ["--tables", "restored"],
    ],
    ids=" ".join,
)
def test_a_question_that_can_not_be_answered_is_refused(options: list[str], exported: Path) -> None:
    ran = audit(exported, *options)
    assert (ran.code, ran.out) == (REFUSED, "")


def test_an_export_that_is_not_there_is_no_answer_and_no_damage(exported: Path) -> None:
    ran = audit(exported, "--export", "nowhere")
    assert (ran.code, ran.out) == (FAILED, "")


# --- of a table -----------------------------------------------------------------------------------------------------------


def test_dynamodb_is_asked_for_as_much_as_it_can_filter() -> None:
    def asked(**fields: Any) -> tuple[str, list[str]]:
        made = Question(**fields).filters()
        return made["FilterExpression"], [value["S"] for value in made["ExpressionAttributeValues"].values()]

    assert Question().filters() == {}
    assert Question(actor="*", service="**").filters() == {}
    assert asked(service="ledger") == ("(#metadata.#service = :v0)", ["ledger"])
    assert asked(service="check*out") == ("(begins_with(#metadata.#service, :v0))", ["check"])
    assert asked(service="*out*cart") == ("(contains(#metadata.#service, :v0))", ["cart"])
    assert asked(types=("NoteAdded", "IncidentLinked")) == ("#eventType IN (:v0, :v1)", ["NoteAdded", "IncidentLinked"])
    actor, values = asked(actor="dana")
    assert (actor.count("#actor."), actor.count("#metadata.#requestedBy."), actor.count(" OR "), values) == (
        3,
        3,
        5,
        ["dana"],
    )


class Table:
    """The event table's client: one page a segment. `down`: the segment whose scan fails."""

    def __init__(self, size_bytes: int = 0, down: int | None = None) -> None:
        self.size_bytes = size_bytes
        self.down = down
        self.begun: set[int] = set()
        self.ended = 0

    async def describe_table(self, **_: Any) -> dict[str, Any]:
        return {"Table": {"ItemCount": 12, "TableSizeBytes": self.size_bytes}}

    async def scan(self, Segment: int, **_: Any) -> dict[str, Any]:
        self.begun.add(Segment)
        if self.down is not None:
            await asyncio.sleep(0 if self.down == Segment else 10 * WITHIN_S)
            raise EndpointConnectionError(endpoint_url="https://dynamodb.us-east-1.amazonaws.com")
        self.ended += 1
        return {"Items": [{"incidentId": {"S": str(Segment)}, "sequence": {"N": "1"}}]}


def read(table: Table, *, answer: bool | None = None, yes: bool = False) -> tuple[list[Any], Console, list[str]]:
    taken: list[Any] = []
    questions: list[str] = []

    def ask(question: str) -> bool | None:
        questions.append(question)
        return answer

    written = console(400)
    invocation = Invocation(Screen(False, written, written), Selection(), around=Around(ask=ask))
    stored = StoredItems(table, TableNames.with_prefix("opx"))
    reading = read_table(invocation, stored, Question(), taken.append, yes=yes)
    asyncio.run(asyncio.wait_for(reading, WITHIN_S))
    return taken, written, questions


def test_every_segment_of_a_table_is_read() -> None:
    table = Table(LARGE_BYTES)
    taken, written, questions = read(table)
    assert sorted(document["incidentId"] for document in taken) == sorted(map(str, table.begun))
    assert (len(taken), questions) == (8, [])
    assert "1024 MiB, 262144 read units, 0.03 USD" in text_of(written)


def test_before_much_is_read_it_is_asked() -> None:
    for answer in (None, False):
        with pytest.raises(CommandError, match="othing was read"):
            read(table := Table(2 * LARGE_BYTES), answer=answer)
        assert table.begun == set()
    assert len(read(Table(2 * LARGE_BYTES), answer=True)[0]) == 8
    assert read(Table(2 * LARGE_BYTES), yes=True)[2] == []


def test_a_segment_that_can_not_be_read_ends_the_others_at_once() -> None:
    table = Table(down=3)
    with pytest.raises(Unavailable):
        read(table)
    assert table.begun == set(range(8))
