"""The commands that pause and plan maintenance: what they take for a time, what they say, and what they never write."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli.controls import Desk, _the_one, caller, duration, held, phase
from pipeline.cli.main import app
from pipeline.cli.session import Invocation
from pipeline.cli.status import Held, held_lines
from pipeline.cli.target import Selection
from pipeline.cli.terminal import FAILED, REFUSED, CommandError, Screen, time_of
from pipeline.domain.controls import Controls, MaintenanceWindow, pause
from pipeline.stores.controls import ControlsParameter
from tests.support.clock import FixedClock
from tests.unit.test_controls_store import BY, NAME, Ssm, edit_of, paused

NOW = datetime(2026, 1, 31, 3, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
HERE = Invocation(Screen(True), Selection())


def window(name: str, starts: datetime, ends: datetime, service: str = "ledger") -> MaintenanceWindow:
    return MaintenanceWindow(id=name, service=service, starts_at=starts, ends_at=ends, reason="upgrade", by=BY)


def desk(ssm: Ssm) -> Desk:
    return Desk(HERE, ControlsParameter(ssm, NAME), BY, NOW, FixedClock())


@pytest.mark.parametrize(
    ("text", "minutes"), [("90m", 90), ("2h", 120), ("1d12h", 36 * 60), ("1d", 1440), ("1h30m", 90), (" 5m ", 5)]
)
def test_a_duration_is_days_hours_and_minutes(text: str, minutes: int) -> None:
    assert duration(text, HERE) == timedelta(minutes=minutes)


@pytest.mark.parametrize("text", ["", "2", "0m", "-2h", "2 h", "2H", "1.5h", "2h1d", "99999999m", "2s"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(CommandError, match="2h") as refused:
        duration(text, HERE)
    assert (refused.value.exit_code, refused.value.then) == (REFUSED, "opx maintenance add --help")


@pytest.mark.parametrize("text", ["2026-01-31T03:00Z", "2026-01-31 03:00:00z", "2026-01-31T04:00+01:00"])
def test_a_time_needs_no_seconds(text: str) -> None:
    assert time_of(text, "--from", HERE.opx) == NOW


@pytest.mark.parametrize("text", ["2026-01-31T03:00", "03:00", "tomorrow", "2026-02-30T03:00Z", "1769828400"])
def test_a_time_without_a_zone_or_a_day_is_refused(text: str) -> None:
    with pytest.raises(CommandError, match="2026-01-31T03:00Z"):
        time_of(text, "--from", HERE.opx)


def test_a_window_is_to_come_then_now_then_over() -> None:
    one = window("w", NOW, NOW + HOUR)
    tick = timedelta(microseconds=1)
    assert [phase(one, when) for when in (NOW - tick, NOW, NOW + HOUR - tick, NOW + HOUR)] == [
        "to come",
        "now",
        "now",
        "over",
    ]


def test_the_status_says_what_holds_incidents_back_now_and_only_that() -> None:
    controls = pause(pause(Controls(), "checkout-*", "load\ntest", BY, NOW), "*", "bad deploy", BY, NOW)
    windows = (
        window("a", NOW - HOUR, NOW + HOUR, "ledger"),
        window("b", NOW - HOUR, NOW, "over"),
        window("c", NOW + HOUR, NOW + 2 * HOUR, "later"),
    )
    assert held(controls.model_copy(update={"maintenance": windows}), NOW) == [
        "every service: paused since 01-31 03:00: bad deploy",
        "checkout-*: paused since 01-31 03:00: load\\ntest",
        "ledger: maintenance until 01-31 04:00: upgrade",
    ]
    assert held(Controls(), NOW) == []
    (line,) = held_lines(Held(unread="AccessDeniedException"), NOW)
    assert line.startswith("can't be read")


def test_a_window_is_named_by_its_id_or_the_beginning_of_it() -> None:
    controls = Controls(maintenance=(window("abc1", NOW, NOW + HOUR), window("abd2", NOW, NOW + HOUR)))
    assert _the_one(controls, "abd", HERE).id == "abd2"
    for unclear, told in (("ab", "2 maintenance windows"), ("x", "No maintenance window"), ("", "No maintenance window")):
        with pytest.raises(CommandError, match=told) as refused:
            _the_one(controls, unclear, HERE)
        assert (refused.value.exit_code, refused.value.then) == (REFUSED, "opx maintenance list")


async def test_a_document_that_is_not_understood_is_shown_and_not_written_over() -> None:
    ssm = Ssm(paused("a"), '{"schemaVersion":2}')
    for attempt in (desk(ssm).read(), desk(ssm).edit(edit_of("b"))):
        with pytest.raises(CommandError, match=r"schemaVersion.*Nothing was written") as failed:
            await attempt
        assert (failed.value.exit_code, failed.value.then) == (FAILED, f"aws ssm get-parameter-history --name {NAME}")
    assert "put" not in ssm.calls


async def test_what_is_refused_names_the_option_or_shows_what_takes_the_room() -> None:
    ssm = Ssm()
    for change, then in (
        (lambda found: pause(found, "s", " ", BY, NOW), "the same command with another --reason"),
        (lambda found: pause(found, "", "r", BY, NOW), "the same command with another --service"),
        (lambda found: pause(pause(found, "s", "x" * 2048, BY, NOW), "t", "x" * 2048, BY, NOW), "opx maintenance list"),
    ):
        with pytest.raises(CommandError) as refused:
            await desk(ssm).edit(change)
        assert (refused.value.exit_code, refused.value.then) == (REFUSED, then)
    assert "put" not in ssm.calls


async def test_where_others_never_stop_writing_a_person_is_told_to_look() -> None:
    ssm = Ssm(paused("a"))
    ssm.before_put = lambda ssm: ssm.texts.append(paused(f"s{len(ssm.texts)}", revision=len(ssm.texts)))
    ssm.apart = timedelta(hours=1)
    with pytest.raises(CommandError, match="others kept writing") as failed:
        await desk(ssm).edit(edit_of("x"))
    assert (failed.value.exit_code, failed.value.then) == (FAILED, "opx maintenance list")


async def test_who_edits_is_the_caller_with_the_sessions_name_cut_to_fit() -> None:
    class Sts:
        arn = BY

        async def get_caller_identity(self) -> dict[str, Any]:
            return {"Arn": self.arn}

    sts = Sts()
    assert await caller(sts) == BY
    sts.arn = "arn:aws:iam::123456789012:user/" + "path/" * 100 + "maria"
    assert (await caller(sts)).endswith("/maria")
    assert len(await caller(sts)) == 256


@pytest.mark.parametrize(
    "arguments",
    [
        ["pause", "--reason", "r"],
        ["resume"],
        ["maintenance", "list"],
        ["maintenance", "end", "abc"],
        ["maintenance", "add", "--service", "s", "--for", "2h", "--reason", "r"],
    ],
)
def test_without_an_engine_nothing_is_paused_and_the_next_command_starts_one(arguments: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [*arguments, "--state-dir", str(tmp_path)])
    assert (result.exit_code, result.stdout) == (FAILED, "")
    assert json.loads(result.stderr)["next"] == "opx up"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--for", "2h", "--to", "2030-01-01T00:00Z"], "either --to TIME or --for"),
        ([], "either --to TIME or --for"),
        (["--from", "2030-01-01T00:00Z", "--to", "2029-01-01T00:00Z"], "before it begins"),
        (["--from", "2020-01-01T00:00Z", "--for", "2h"], "would have ended at 2020-01-01 02:00:00 UTC"),
    ],
)
def test_a_window_that_makes_no_sense_is_refused_before_anything_is_asked(
    arguments: list[str], told: str, tmp_path: Path
) -> None:
    wanted = ["maintenance", "add", "--service", "s", "--reason", "r", *arguments, "--state-dir", str(tmp_path)]
    result = CliRunner().invoke(app, wanted)
    assert result.exit_code == REFUSED
    assert told in json.loads(result.stderr)["error"]


@pytest.mark.parametrize("command", [["pause"], ["resume"], *(["maintenance", name] for name in ("add", "list", "end"))])
def test_every_command_of_the_controls_shows_an_example(command: list[str]) -> None:
    shown = CliRunner().invoke(app, [*command, "--help"])
    assert (shown.exit_code, f"Example: opx {' '.join(command)}" in shown.stdout) == (0, True)
