"""One canonical line per message, metrics in valid EMF, and never a word of a body in either."""

import itertools
import json
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.domain.candidates import Received
from pipeline.domain.errors import Conflict, Corrupt, Unavailable
from pipeline.domain.ids import incident_id
from pipeline.runtime.metrics import MEASURES, Metric
from pipeline.runtime.telemetry import Report, Telemetry
from pipeline.services.fanout import FanoutService, Published
from pipeline.services.ports import FailedRecord
from tests.bad_input_cases import CANDIDATES, CASES
from tests.simulation.world import Bus, Failures, VirtualClock
from tests.support.bodies import alarm_body, candidate_body, command_body, declare_body
from tests.support.doors import CountedStore, Doors, command_message, message
from tests.support.registry import entry, registry
from tests.support.streams import read, read_all, record, stored

DIMENSIONS_ALLOWED = {"service"}
LINE = {"operation", "message_id", "source", "receive_count", "duration_ms", "request_id", "outcome"}

_names = itertools.count()


@dataclass
class Written:
    """What a function wrote to standard output."""

    lines: list[dict[str, Any]]
    text: str

    def of(self, name: str) -> list[dict[str, Any]]:
        """Return the log lines with this message."""
        return [line for line in self.lines if line.get("message") == name]

    @property
    def emf(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if "_aws" in line]

    def metric(self, name: str) -> float:
        return sum(sum(line[name]) for line in self.emf if name in line)


class Watched:
    """Doors whose reports go to real telemetry. Each has a name of its own: the logger remembers where it wrote first."""

    def __init__(self, capsys: pytest.CaptureFixture[str], **options: Any) -> None:
        self.capsys = capsys
        self.telemetry = Telemetry(f"watched-{next(_names)}")
        self.telemetry.begin("request-1")
        self.doors = Doors(report=self.telemetry.settled, **options)

    def written(self) -> Written:
        self.telemetry.flush()
        text = self.capsys.readouterr().out
        return Written([json.loads(line) for line in text.splitlines()], text)


async def test_every_message_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    watched = Watched(capsys)
    batch = [message("a", candidate_body()), message("b", "not json"), message("c", candidate_body(service="other"))]
    await watched.doors.offer(*batch)
    written = watched.written()
    lines = written.of("message")
    assert sorted(line["message_id"] for line in lines) == ["a", "b", "c"]
    assert all(set(line) >= LINE for line in lines)
    assert {line["request_id"] for line in lines} == {"request-1"}
    assert len(written.of("transition")) == 2, "one line per transition, beside the message's"


async def test_a_line_of_an_applied_message_says_who_moved_what_from_where_to_where(capsys: Any) -> None:
    watched = Watched(capsys)
    for name in "ab":
        await watched.doors.offer(message(name, candidate_body()))
    identity = incident_id("checkout", "checkout-5xx", 1)
    body = command_body("change-state", identity, newState="MITIGATING", authority="HUMAN")
    await watched.doors.order(command_message("c", body))
    written = watched.written()
    created, joined, moved = written.of("message")
    assert created["from"] == "PENDING", "every incident begins there"
    assert (created["to"], created["answer"], created["version"]) == ("OPEN", "created", 2)
    assert (joined["from"], joined["to"], joined["answer"], joined["attempts"]) == ("OPEN", "OPEN", "joined", 1)
    assert (moved["from"], moved["to"], moved["actor_type"]) == ("OPEN", "MITIGATING", "HUMAN")
    assert {line["incident_id"] for line in (created, joined, moved)} == {identity}
    assert [(line.get("from"), line["to"]) for line in written.of("transition")] == [
        ("PENDING", "OPEN"),
        ("OPEN", "MITIGATING"),
    ]
    assert (written.metric("Applied"), written.metric("IncidentsCreated"), written.metric("Transitions")) == (3, 1, 2)


async def test_what_is_decided_together_is_told_once_beside_a_line_for_each_message(capsys: Any) -> None:
    watched = Watched(capsys)
    await watched.doors.offer(*[message(name, candidate_body()) for name in "abc"])
    written = watched.written()
    lines = written.of("message")
    assert sorted(line["answer"] for line in lines) == ["created", "joined", "joined"]
    assert {(line["from"], line["to"], line["version"]) for line in lines} == {("PENDING", "OPEN", 3)}
    (moved,) = written.of("transition")
    assert (moved["from"], moved["to"], moved["answer"]) == ("PENDING", "OPEN", "created")
    assert (written.metric("Applied"), written.metric("IncidentsCreated"), written.metric("Transitions")) == (3, 1, 1)
    assert len([value for line in written.emf for value in line.get("TransitionLatency", ())]) == 1


async def test_conflicts_of_what_is_decided_together_are_counted_once(capsys: pytest.CaptureFixture[str]) -> None:
    conflicts = iter([Conflict("another transaction was in the way")] * 2)
    store = CountedStore(lambda call, about: next(conflicts, None) if call == "commit" else None)
    watched = Watched(capsys, store=store)
    assert await watched.doors.offer(*[message(name, candidate_body()) for name in "abc"]) == ()
    assert watched.written().metric("Conflicts") == 2


async def test_an_incident_that_waits_for_the_gate_has_not_moved(capsys: pytest.CaptureFixture[str]) -> None:
    watched = Watched(capsys)
    await watched.doors.offer(message("a", candidate_body(confidence=0.1)))
    written = watched.written()
    assert written.of("transition") == []
    assert written.metric("IncidentsCreated") == 1
    assert written.metric("Transitions") == 0


async def test_a_refusal_names_its_code_field_and_principal(capsys: pytest.CaptureFixture[str]) -> None:
    watched = Watched(capsys)
    bad = message("a", candidate_body(severity="SEV9"), sender_id="AROASTRANGER:session")
    await watched.doors.offer(bad, message("b", candidate_body(), sender_id="AROASTRANGER:session"))
    written = watched.written()
    malformed, stranger = written.of("message")
    assert (malformed["outcome"], malformed["code"], malformed["field"]) == ("refused", "invalid-field", "severity")
    assert (stranger["code"], stranger["principal"]) == ("principal-unknown", "AROASTRANGER")
    assert "session" not in written.text.replace("AROASTRANGER:", "")
    assert written.metric("Refused") == written.metric("RejectedMessages") == 2
    assert written.metric("AuthorityRefusals") == 1


async def test_a_replayed_message_is_a_hit_and_a_replayed_refusal_is_rejected_again(capsys: Any) -> None:
    watched = Watched(capsys)
    await watched.doors.offer(message("a", candidate_body()), message("a", candidate_body()))
    identity = incident_id("checkout", "checkout-5xx", 1)
    body = command_body("change-state", identity, newState="CLOSED", authority="HUMAN", reason="r", idempotencyKey="k")
    await watched.doors.order(command_message("b", body), command_message("c", body))
    written = watched.written()
    assert [line["outcome"] for line in written.of("message")] == ["applied", "replayed", "refused", "replayed"]
    assert written.metric("IdempotencyHits") == 2
    assert written.metric("RejectedMessages") == len(watched.doors.rejected.messages) == 2


@pytest.mark.parametrize(
    ("error", "metric"),
    [
        (Unavailable("the table does not answer"), "Unavailable"),
        (Conflict("somebody was faster"), "Unavailable"),
        (Corrupt("an event exists"), "Corruption"),
        (ZeroDivisionError("a defect"), "Crashes"),
    ],
    ids=repr,
)
async def test_a_failure_is_counted_by_its_kind(error: Exception, metric: str, capsys: pytest.CaptureFixture[str]) -> None:
    telemetry = Telemetry(f"failed-{next(_names)}")
    telemetry.settled(Report(message("a", "{}"), "candidate", None, error, 0.25))
    telemetry.flush()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (line,) = [one for one in lines if one.get("message") == "message"]
    assert (line["outcome"], line["error"], line["level"]) == ("failed", type(error).__name__, "ERROR")
    assert line["duration_ms"] == 250.0
    assert [one[metric] for one in lines if "_aws" in one] == [[1.0]]


async def test_conflicts_are_counted_by_attempts(capsys: pytest.CaptureFixture[str]) -> None:
    conflicts = iter([Conflict("moved"), Conflict("moved")])
    watched = Watched(capsys, store=CountedStore(lambda call, about: next(conflicts, None) if call == "commit" else None))
    await watched.doors.offer(message("a", candidate_body()))
    written = watched.written()
    assert written.of("message")[0]["attempts"] == 3
    assert written.metric("Conflicts") == 2


# --- fan-out ------------------------------------------------------------------------------------------------------------


async def test_every_record_is_one_line_and_lags_are_milliseconds(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry = Telemetry(f"fanout-{next(_names)}")
    telemetry.begin("request-1")
    fanout = FanoutService(Bus(), Failures(), VirtualClock())
    documents = stored()
    relayed = await fanout.relay([*read_all(documents), *read(record(documents[0], "MODIFY"))])
    telemetry.relayed(relayed)
    telemetry.flush()
    written = Written([json.loads(line) for line in capsys.readouterr().out.splitlines()], "")
    lines = written.of("event")
    assert [(line["incident_id"], line["sequence"]) for line in lines if line["outcome"] == "published"] == [
        (document["incidentId"], document["sequence"]) for document in documents
    ]
    assert [line["error"] for line in lines if line["outcome"] == "failed"] == ["corruption"]
    lags = [value for line in written.emf for value in line["FanoutLag"]]
    assert lags == [lag * 1000 for lag in relayed.lags_s]
    assert {line["request_id"] for line in lines} == {"request-1"}


async def test_a_batch_that_comes_again_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry = Telemetry(f"fanout-{next(_names)}")
    telemetry.relay_failed(Unavailable("PutEvents: no answer"))
    telemetry.flush()
    written = Written([json.loads(line) for line in capsys.readouterr().out.splitlines()], "")
    assert [(line["outcome"], line["error"]) for line in written.of("batch")] == [("failed", "Unavailable")]
    assert written.metric("FanoutUnavailable") == 1


# --- metrics ------------------------------------------------------------------------------------------------------------


def check_emf(line: dict[str, Any]) -> None:
    """Assert that a line is what CloudWatch takes for metrics, with names and dimensions that are bounded."""
    assert set(line["_aws"]) == {"Timestamp", "CloudWatchMetrics"}
    assert isinstance(line["_aws"]["Timestamp"], int)
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "opx"
    assert len(directive["Metrics"]) <= 100
    for metric in directive["Metrics"]:
        assert metric["Unit"] == MEASURES[Metric(metric["Name"])].unit
        values = line[metric["Name"]]
        assert 1 <= len(values) <= 100
        assert all(isinstance(value, float | int) for value in values)
    for dimensions in directive["Dimensions"]:
        assert set(dimensions) <= DIMENSIONS_ALLOWED
        assert all(isinstance(line[name], str) for name in dimensions)
    beside = set(line) - {"_aws"} - {metric["Name"] for metric in directive["Metrics"]}
    assert beside <= DIMENSIONS_ALLOWED, "nothing of a message may become a field of its own"


async def test_metrics_of_everything_are_valid_emf(capsys: pytest.CaptureFixture[str]) -> None:
    watched = Watched(capsys)
    for case in CASES:
        if case.queue == CANDIDATES:
            await watched.doors.offer(message(case.name, case.body, sender_id=case.sender), message("n", case.neighbour))
        else:
            await watched.doors.order(command_message(case.name, case.body), command_message("n", case.neighbour))
    relayed = await FanoutService(Bus(), Failures(), VirtualClock()).relay(read_all(stored()))
    for _ in range(12):
        watched.telemetry.relayed(relayed)
    written = watched.written()
    assert written.metric("EventsPublished") == 12 * len(stored()) > 100
    assert written.emf
    for line in written.emf:
        check_emf(line)


def test_nothing_is_written_where_nothing_happened(capsys: pytest.CaptureFixture[str]) -> None:
    Telemetry(f"idle-{next(_names)}").flush()
    assert capsys.readouterr().out == ""


# --- no bodies ----------------------------------------------------------------------------------------------------------

MARK = "Xq7zMarkerNobodyGuesses"
KNOWN = registry(
    entry("everybody", "000000000000", kinds="SYSTEM", operations=["candidate"]),
    entry(
        "person",
        "000000000000",
        kinds="HUMAN",
        operations=["declare", "change-state", "add-note", "attach-evidence", "dismiss"],
        principalIsPerson=True,
    ),
)
EVIDENCE = [{"kind": "log", "ref": f"{MARK}-ref", "note": f"{MARK}-note"}]
FULL = candidate_body(
    service=f"{MARK}-service",
    title=f"{MARK}-title",
    description=f"{MARK}-description",
    dedupKey=f"{MARK}-key",
    source=f"{MARK}-source",
    metadata={"secret": f"{MARK}-value"},
    links=[{"rel": "runbook", "href": f"https://example.com/{MARK}"}],
    evidence=EVIDENCE,
)
ABOUT = incident_id(f"{MARK}-service", f"{MARK}-key", 1)
ALARM = alarm_body(name=f"{MARK}-alarm", description=f'{{"service": "{MARK}", "severity": "SEV2", "owner": "{MARK}"}}')
REASONED = {"reason": f"{MARK}-reason", "authority": {"authorityType": "HUMAN", "justification": f"{MARK}-justification"}}
COMMANDS = [
    declare_body(title=MARK, description=MARK, authority={"authorityType": "HUMAN", "justification": MARK}),
    command_body("add-note", ABOUT, note=f"{MARK}-note", authority="HUMAN"),
    command_body("attach-evidence", ABOUT, evidence=EVIDENCE, authority="HUMAN"),
    command_body("change-state", ABOUT, newState="CLOSED", **REASONED),
    command_body("change-state", ABOUT, newState="CANCELLED", **REASONED),
    command_body("dismiss", ABOUT, **REASONED),
    command_body("change-severity", ABOUT, severity=MARK, authority="HUMAN"),
    MARK,
]


def wrong_in_every_field() -> list[dict[str, Any]]:
    """Return candidates that are refused because of one field each, the marker being part of what is wrong."""
    wrong: dict[str, Any] = {name: f"{MARK}\0" for name in ("service", "title", "description", "dedupKey", "source")}
    wrong |= dict.fromkeys(("severity", "observedAt", "confidence", "schemaVersion", "policyId"), MARK)
    wrong |= {"type": MARK, "authority": MARK, "metadata": MARK, "links": MARK, "evidence": MARK}
    wrong |= {"idempotencyKey": f"{MARK} {MARK}", "unknown": MARK}
    return [FULL | {name: value} for name, value in wrong.items()]


class Blurting:
    """A service with a defect whose exception repeats the body."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def read(self, body: str, received: Received) -> Any:
        raise ZeroDivisionError(f"could not digest {body!r}")


@pytest.mark.parametrize("options", [{}, {"services": Blurting}], ids=["sound", "with a defect"])
async def test_no_log_line_holds_a_word_of_a_body(options: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    watched = Watched(capsys, registry=KNOWN, **options)
    bodies: list[Any] = [FULL, FULL | {"severity": "SEV1"}, ALARM, *wrong_in_every_field(), MARK, f'{{"type": "{MARK}']
    for number, body in enumerate(bodies):
        await watched.doors.offer(message(f"c{number}", body))
    for number, body in enumerate(COMMANDS):
        await watched.doors.order(command_message(f"o{number}", body))
    written = watched.written()
    assert len(written.of("message")) == len(bodies) + len(COMMANDS)
    outcomes = {line["outcome"] for line in written.of("message")}
    assert outcomes == ({"failed"} if options else {"applied", "refused"})
    assert MARK not in written.text


async def test_no_log_line_of_the_fanout_holds_a_word_of_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    doors = Doors(registry=KNOWN)
    await doors.offer(message("a", FULL))
    telemetry = Telemetry(f"fanout-{next(_names)}")
    documents = doors.memory.feed
    poison = [
        record(documents[0], "MODIFY"),
        record(documents[0], title={"B": MARK}),
        record(documents[0], hash={"S": MARK}),
    ]
    relayed = await FanoutService(Bus(), Failures(), VirtualClock()).relay([*read_all(documents), *read(*poison)])
    assert len(relayed.failed) == len(poison)
    telemetry.relayed(relayed)
    telemetry.relay_failed(ZeroDivisionError(MARK))
    telemetry.flush()
    assert MARK not in capsys.readouterr().out


def test_a_failed_records_detail_stays_out_of_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    """The bus's own words may repeat the event; they are in the failure queue."""
    telemetry = Telemetry(f"fanout-{next(_names)}")
    telemetry.relayed(Published(failed=(FailedRecord("i", 1, "MalformedDetail", MARK),)))
    telemetry.flush()
    assert MARK not in capsys.readouterr().out
