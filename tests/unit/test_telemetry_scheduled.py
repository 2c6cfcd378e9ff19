"""What retention and health write: figures in EMF, canonical lines, never a reason."""

import itertools
import json
from typing import Any

import pytest

from pipeline.domain.errors import Corrupt, Unavailable
from pipeline.runtime.metrics import MEASURES, Metric
from pipeline.runtime.telemetry_scheduled import HealthTelemetry, RetentionTelemetry
from pipeline.services.health import Measured
from pipeline.services.retention import REASON
from tests.support.registry import registry
from tests.unit.test_health import Place
from tests.unit.test_retention import Archive, Failing
from tests.unit.test_telemetry import Written

_names = itertools.count()
# What each run tells, also that it did not happen: RetentionFailing is raised where one of these does not come.
NOTHING = {"IncidentsArchived": 0, "ArchivesRefused": 0, "ArchivesWaiting": 0, "Unavailable": 0}


class RetentionOf(RetentionTelemetry):
    """Under a name of its own: the logger remembers where it wrote first."""

    def __init__(self) -> None:
        super(RetentionTelemetry, self).__init__(f"opx-retention-{next(_names)}")
        self.begin("request-1")


class HealthOf(HealthTelemetry):
    def __init__(self) -> None:
        super(HealthTelemetry, self).__init__(f"opx-health-{next(_names)}")
        self.begin("request-1")


async def ran(archive: Archive, capsys: Any) -> Written:
    telemetry = RetentionOf()
    telemetry.ran(await archive.service.run(None, 1e9, telemetry.archived))
    return written(telemetry, capsys)


def written(telemetry: Any, capsys: Any) -> Written:
    telemetry.flush()
    text = capsys.readouterr().out
    return Written([json.loads(line) for line in text.splitlines()], text)


def told(written: Written) -> dict[str, float]:
    """Return each metric that was written, and assert that the function may write it."""
    names = {metric["Name"] for line in written.emf for metric in line["_aws"]["CloudWatchMetrics"][0]["Metrics"]}
    for line in written.emf:
        assert line["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["service"]]
        door = line["service"].split("-")[1]
        assert all(door in MEASURES[Metric(name)].doors for name in names)
    return {name: written.metric(name) for name in names}


async def test_an_archived_incident_is_a_line_a_transition_and_a_count(capsys: Any) -> None:
    archive = Archive()
    incident = await archive.closed("one")
    wrote = await ran(archive, capsys)
    assert told(wrote) == NOTHING | {"IncidentsArchived": 1, "Transitions": 1}
    (line,) = wrote.of("incident")
    assert (line["outcome"], line["incident_id"], line["attempts"], line["request_id"]) == (
        "applied",
        incident,
        1,
        "request-1",
    )
    (moved,) = wrote.of("transition")
    assert (moved["from"], moved["to"], moved["actor_type"], moved["version"]) == ("CLOSED", "ARCHIVED", "SYSTEM", 6)
    (run,) = wrote.of("run")
    assert (run["outcome"], run["archived"], run["waiting"]) == ("done", 1, 0)
    assert REASON not in wrote.text


async def test_a_run_that_finds_nothing_says_so_in_every_figure(capsys: Any) -> None:
    assert told(await ran(Archive(), capsys)) == NOTHING


async def test_what_is_left_for_the_next_run_is_told(capsys: Any) -> None:
    archive = Archive(archived_max=2)
    for number in range(5):
        await archive.closed(f"key-{number}")
    wrote = await ran(archive, capsys)
    assert (told(wrote)["IncidentsArchived"], told(wrote)["ArchivesWaiting"]) == (2, 3)
    (run,) = wrote.of("run")
    assert run["waiting"] == 3


async def test_each_failure_is_told_under_its_kind(capsys: Any) -> None:
    store = Failing()
    archive = Archive(store)
    names = [await archive.closed(f"key-{number}") for number in range(4)]
    store.errors = {names[0]: Corrupt("x", names[0]), names[1]: Unavailable("y"), names[2]: KeyError("secret")}
    wrote = await ran(archive, capsys)
    figures = told(wrote)
    assert (figures["Corruption"], figures["Unavailable"], figures["Crashes"], figures["IncidentsArchived"]) == (1, 1, 1, 1)
    failed = {line["incident_id"]: line["error"] for line in wrote.of("incident") if line["outcome"] == "failed"}
    assert failed == {names[0]: "Corrupt", names[1]: "Unavailable", names[2]: "KeyError"}
    assert "secret" not in wrote.text


async def test_where_retention_is_not_allowed_it_is_refused_and_of_authority(capsys: Any) -> None:
    archive = Archive(known=registry())
    await archive.closed("one")
    wrote = await ran(archive, capsys)
    assert (told(wrote)["ArchivesRefused"], told(wrote)["AuthorityRefusals"]) == (1, 1)
    (line,) = wrote.of("incident")
    assert (line["level"], line["outcome"], line["code"]) == ("ERROR", "refused", "principal-unknown")
    (run,) = wrote.of("run")
    assert run["outcome"] == "unfinished"


def test_a_run_that_ends_by_a_defect_is_a_crash(capsys: Any) -> None:
    telemetry = RetentionOf()
    telemetry.run_failed(ValueError("secret"))
    wrote = written(telemetry, capsys)
    assert told(wrote) == {"Crashes": 1}
    assert "secret" not in wrote.text


async def test_health_tells_its_figures_and_what_they_are_made_of(capsys: Any) -> None:
    telemetry = HealthOf()
    telemetry.measured(await Place({"candidates": 7, "alarms-dlq": 2}, "Disabled").measure())
    wrote = written(telemetry, capsys)
    assert told(wrote) == {
        "IntakeWaiting": 7,
        "DeadMessages": 2,
        "RejectedWaiting": 0,
        "FanoutFailuresWaiting": 0,
        "FanoutStopped": 1,
    }
    (line,) = wrote.of("health")
    assert (line["depths"]["alarms-dlq"], line["mapping"], line["DeadMessages"]) == (2, "Disabled", 2)


@pytest.mark.parametrize("error", [Unavailable("GetQueueAttributes: AccessDenied"), Corrupt("ValidationException")], ids=str)
async def test_what_health_cannot_read_is_an_error_and_a_figure_that_does_not_come(error: Exception, capsys: Any) -> None:
    telemetry = HealthOf()
    telemetry.measured(await Place({"alarms-dlq": error, "rejected": 4}).measure())
    wrote = written(telemetry, capsys)
    assert told(wrote) == {
        "IntakeWaiting": 0,
        "RejectedWaiting": 4,
        "FanoutFailuresWaiting": 0,
        "FanoutStopped": 0,
        "Unavailable": 1,
    }
    failed, measured = wrote.of("health")
    assert (failed["level"], failed["place"], failed["outcome"]) == ("ERROR", "alarms-dlq", "failed")
    assert "alarms-dlq" not in measured["depths"]


def test_a_measurement_that_ends_by_a_defect_is_a_crash_and_tells_no_figure(capsys: Any) -> None:
    telemetry = HealthOf()
    telemetry.measuring_failed(TypeError("secret"))
    assert told(written(telemetry, capsys)) == {"Crashes": 1}


def test_nothing_is_measured_that_no_metric_is_named_for() -> None:
    figures = Measured(dict.fromkeys(("candidates", "rejected"), 0), "Enabled", {}).figures()
    assert all(Metric(name) in MEASURES for name in figures)
