"""The live controls where they are kept: the deployed parameter, its versions and history, and the commands on it."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli.connection import open_at
from pipeline.cli.main import app
from pipeline.domain.controls import NO_CONTROLS, Controls, pause, text_of
from pipeline.local.engine import RunningEngine
from pipeline.runtime.clock import SystemClock
from pipeline.stores.controls import ControlsParameter, SsmControls
from tests.house.template import load
from tests.support.clock import NOW
from tests.support.stack import Stack, deployed

BY = "arn:aws:iam::000000000000:root"


@pytest.fixture(scope="module")
def whole(engine: RunningEngine) -> Stack:
    return deployed(engine)


@pytest.fixture
def stack(whole: Stack) -> Iterator[Stack]:
    """The stack with nothing paused, before and after: others deploy into the same engine."""
    yield whole
    _put(whole, text_of(Controls(revision=1_000_000)))


def _put(stack: Stack, text: str) -> None:
    name = stack.outputs["ControlsParameterName"]
    stack.client("ssm").put_parameter(Name=name, Value=text, Type="String", Overwrite=True)


def opx(stack: Stack, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    result = CliRunner().invoke(app, [*arguments, "--state-dir", str(stack.engine.state_dir)])
    assert result.exit_code == code, result.output
    return [json.loads(line) for line in (result.stdout or result.stderr).splitlines()]


async def in_force(stack: Stack, *changes: str) -> set[str]:
    """Pause each service, all at once and each with a client of its own; return what a function would go by."""
    async with AsyncExitStack() as open_ones:
        opened = [
            await open_ones.enter_async_context(open_at(("ssm",), "us-east-1", stack.endpoint_url, None))
            for _ in [*changes, "reader"]
        ]
        name = stack.outputs["ControlsParameterName"]

        async def one(client: Any, service: str) -> None:
            change = lambda found: pause(found, service, "why", BY, NOW)  # noqa: E731
            await ControlsParameter(client, name).edit(change, SystemClock())

        await asyncio.gather(*(one(each.ssm, service) for each, service in zip(opened, changes, strict=False)))
        found = await SsmControls(opened[-1].ssm, name, SystemClock()).current()
        return {switch.service for switch in found.controls.kill_switches}


async def test_a_new_stack_holds_nothing_back(stack: Stack) -> None:
    async with open_at(("ssm",), "us-east-1", stack.endpoint_url, None) as clients:
        history = await clients.ssm.get_parameter_history(Name=stack.outputs["ControlsParameterName"])
        assert history["Parameters"][0]["Value"] == text_of(NO_CONTROLS.controls)
        assert history["Parameters"][0]["Version"] == 1


async def test_people_who_pause_at_once_all_get_their_pause(stack: Stack) -> None:
    services = {f"service-{number}" for number in range(6)}
    assert await in_force(stack, *services) == services


async def test_what_an_update_of_the_stack_puts_back_lifts_no_pause(stack: Stack) -> None:
    assert await in_force(stack, "ledger") == {"ledger"}
    _put(stack, load()["Resources"]["ControlsParameter"]["Properties"]["Value"])
    assert await in_force(stack) == {"ledger"}
    assert await in_force(stack, "search") == {"ledger", "search"}


def test_pausing_twice_is_pausing_once_and_resuming_lifts_it(stack: Stack) -> None:
    arguments = ("pause", "--service", "checkout-*", "--reason", "load test {{x}} }}")
    (first,) = opx(stack, *arguments)
    (second,) = opx(stack, *arguments)
    assert (first["changed"], second["changed"]) == (True, False)
    assert first["killSwitch"] == second["killSwitch"]
    assert (first["killSwitch"]["by"], first["killSwitch"]["reason"]) == (BY, "load test {{x}} }}")
    assert [one["service"] for one in opx(stack, "status")[0]["controls"]["killSwitches"]] == ["checkout-*"]
    (lifted,) = opx(stack, "resume", "--service", "checkout-*")
    (again,) = opx(stack, "resume", "--service", "checkout-*")
    assert (lifted["changed"], again["changed"], again["paused"]) == (True, False, [])


def test_a_window_is_planned_listed_and_ended(stack: Stack) -> None:
    later = ("--from", "2099-01-31T02:00Z", "--to", "2099-01-31T04:00:00Z")
    (running,) = opx(stack, "maintenance", "add", "--service", "ledger", "--for", "2h", "--reason", "upgrade")
    (planned,) = opx(stack, "maintenance", "add", "--service", "ledger", *later, "--reason", "upgrade")
    (twice,) = opx(stack, "maintenance", "add", "--service", "ledger", *later, "--reason", "again")
    assert (planned["changed"], twice["changed"], twice["maintenance"]) == (True, False, planned["maintenance"])
    listed = {one["id"]: one["phase"] for one in opx(stack, "maintenance", "list")}
    ids = running["maintenance"]["id"], planned["maintenance"]["id"]
    assert listed == dict(zip(ids, ("now", "to come"), strict=True))
    (ended,) = opx(stack, "maintenance", "end", ids[0])
    assert ended["maintenance"]["endsAt"] < running["maintenance"]["endsAt"]
    assert opx(stack, "maintenance", "end", ids[0])[0]["changed"] is False
    assert opx(stack, "maintenance", "end", ids[1])[0]["maintenance"] is None
    assert "No maintenance window" in opx(stack, "maintenance", "end", ids[1], code=1)[0]["error"]
    assert {one["id"]: one["phase"] for one in opx(stack, "maintenance", "list")} == {ids[0]: "over"}
