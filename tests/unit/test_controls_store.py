"""The controls in their parameter: what can't be read lifts no pause, and nobody's edit is lost to somebody else's."""

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from pipeline.domain.controls import NO_CONTROLS, Controls, PinnedControls, pause, resume, text_of
from pipeline.domain.errors import Conflict, Corrupt, Rejected, Unavailable
from pipeline.stores.controls import FRESH_S, RETRY_S, ControlsParameter, FixedControls, SsmControls
from tests.support.clock import NOW, FixedClock

NAME = "opx-controls"
BY = "arn:aws:iam::123456789012:user/maria"
TEMPLATES = text_of(Controls())


def paused(*services: str, revision: int = 1) -> str:
    controls = Controls(revision=revision)
    for service in services:
        controls = pause(controls, service, "why", BY, NOW)
    return text_of(controls)


def held(controls: Controls) -> set[str]:
    return {one.service for one in controls.kill_switches}


class Ssm:
    """AWS's side: one parameter with its versions. `before_put` runs before a put takes effect, as another writer would."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts or (TEMPLATES,))
        self.calls: list[str] = []
        self.down = False
        self.before_put: Callable[[Ssm], None] = lambda ssm: None
        self.pause: Callable[[], float] = lambda: 0
        self.kept = 100
        self.apart = timedelta(milliseconds=100)
        self.lag = 0
        self.page = 50

    def version(self, number: int) -> dict[str, Any]:
        at = NOW + number * self.apart
        return {"Name": NAME, "Version": number, "Value": self.texts[number - 1], "LastModifiedDate": at}

    async def _called(self, name: str) -> None:
        self.calls.append(name)
        await asyncio.sleep(self.pause())
        if self.down:
            raise EndpointConnectionError(endpoint_url="https://ssm.us-east-1.amazonaws.com")

    async def get_parameter(self, **request: Any) -> dict[str, Any]:
        await self._called("get")
        assert request == {"Name": NAME}
        if not self.texts:
            raise ClientError({"Error": {"Code": "ParameterNotFound", "Message": ""}}, "GetParameter")
        return {"Parameter": self.version(len(self.texts))}

    async def get_parameter_history(self, **request: Any) -> dict[str, Any]:
        await self._called("history")
        if self.lag:
            self.lag -= 1
            return {"Parameters": []}
        known = [self.version(number) for number in range(1, len(self.texts) + 1)][-self.kept :]
        start = int(request.get("NextToken", 0))
        end = start + min(self.page, request["MaxResults"])
        return {"Parameters": known[start:end]} | ({"NextToken": str(end)} if end < len(known) else {})

    async def put_parameter(self, **request: Any) -> dict[str, Any]:
        await self._called("put")
        assert (request["Name"], request["Type"], request["Overwrite"]) == (NAME, "String", True)
        self.before_put(self)
        self.texts.append(request["Value"])
        return {"Version": len(self.texts)}

    def once(self, *texts: str) -> "Ssm":
        """Have somebody else write these just before the next put."""

        def write(ssm: "Ssm") -> None:
            ssm.before_put = lambda ssm: None
            ssm.texts += texts

        self.before_put = write
        return self


def edit_of(service: str) -> Callable[[Controls], Controls]:
    return lambda found: pause(found, service, "why", BY, NOW)


# --- reading ---------------------------------------------------------------------------------------------------------


async def test_controls_are_read_once_in_thirty_seconds() -> None:
    ssm, clock = Ssm(paused("a")), FixedClock()
    source = SsmControls(ssm, NAME, clock)
    assert ssm.calls == [], "a cold start asks nobody"
    for elapsed, calls in ((0, 1), (FRESH_S - 0.1, 1), (FRESH_S, 2), (2 * FRESH_S - 0.1, 2), (2 * FRESH_S, 3)):
        clock.elapsed_s = elapsed
        assert held((await source.current()).controls) == {"a"}
        assert len(ssm.calls) == calls


@pytest.mark.parametrize("jump", [timedelta(seconds=FRESH_S), -timedelta(seconds=1)])
async def test_a_process_that_was_frozen_reads_again_though_its_own_clock_stood_still(jump: timedelta) -> None:
    ssm, clock = Ssm(TEMPLATES), FixedClock()
    source = SsmControls(ssm, NAME, clock)
    await source.current()
    ssm.texts.append(paused("a"))
    clock.jump(jump)
    assert (await source.current()).paused("a") is not None


async def test_the_digest_is_that_of_the_document_in_the_parameter() -> None:
    found = await SsmControls(Ssm('{"schemaVersion": 1, "killSwitches": []}'), NAME, FixedClock()).current()
    assert found == PinnedControls.load({"schemaVersion": 1, "killSwitches": ()})


def break_down(ssm: Ssm) -> None:
    ssm.down = True


UNREADABLE: dict[str, Callable[[Ssm], None]] = {
    "down": break_down,
    "not there": lambda ssm: ssm.texts.clear(),
    "no JSON": lambda ssm: ssm.texts.append("paused"),
    "a later schema": lambda ssm: ssm.texts.append('{"schemaVersion": 2}'),
    "an unknown field": lambda ssm: ssm.texts.append('{"killSwitch": []}'),
    "empty": lambda ssm: ssm.texts.append(""),
}


@pytest.mark.parametrize("how", UNREADABLE)
async def test_what_cannot_be_read_leaves_the_last_document_in_force_however_old(how: str) -> None:
    ssm, clock = Ssm(paused("a")), FixedClock()
    source = SsmControls(ssm, NAME, clock)
    await source.current()
    UNREADABLE[how](ssm)
    for days in (1, 2, 365):
        clock.elapsed_s = days * 86_400.0
        assert (await source.current()).paused("a") is not None
        assert source.failure


@pytest.mark.parametrize("how", UNREADABLE)
async def test_what_never_could_be_read_is_unavailable_until_it_can_be(how: str) -> None:
    ssm, clock = Ssm(paused("a")), FixedClock()
    whole = list(ssm.texts)
    UNREADABLE[how](ssm)
    source = SsmControls(ssm, NAME, clock)
    for _ in range(2):
        with pytest.raises(Unavailable, match="controls can't be read"):
            await source.current()
    ssm.down, ssm.texts = False, whole
    assert (await source.current()).paused("a") is not None
    assert source.failure is None


async def test_a_failed_read_is_not_repeated_at_every_message() -> None:
    ssm, clock = Ssm(paused("a")), FixedClock()
    source = SsmControls(ssm, NAME, clock)
    await source.current()
    ssm.down, clock.elapsed_s = True, FRESH_S
    for _ in range(5):
        await source.current()
    assert len(ssm.calls) == 2
    ssm.down, ssm.texts, clock.elapsed_s = False, [paused("b")], FRESH_S + RETRY_S
    assert (await source.current()).paused("b") is not None, "and is repeated before long"


@pytest.mark.parametrize("down", [False, True])
async def test_who_comes_while_a_read_is_under_way_takes_what_it_finds(down: bool) -> None:
    ssm, clock = Ssm(TEMPLATES), FixedClock()
    source = SsmControls(ssm, NAME, clock)
    if not down:
        await source.current()
        clock.elapsed_s = 3600
    ssm.calls.clear()
    ssm.texts, ssm.down = [paused("a")], down
    found = await asyncio.gather(*(source.current() for _ in range(10)), return_exceptions=True)
    assert ssm.calls == ["get"]
    if down:
        assert all(isinstance(one, Unavailable) for one in found)
    else:
        assert all(isinstance(one, PinnedControls) and one.paused("a") for one in found), "nobody takes the older one"


async def test_a_read_that_was_given_up_leaves_the_next_one_to_read() -> None:
    ssm = Ssm(paused("a"))
    source = SsmControls(ssm, NAME, FixedClock())
    ssm.pause = lambda: 60
    first = asyncio.ensure_future(source.current())
    await asyncio.sleep(0)
    second = asyncio.ensure_future(source.current())
    await asyncio.sleep(0)
    ssm.pause = lambda: 0
    first.cancel()
    assert (await second).paused("a") is not None


async def test_no_answer_in_time_is_unavailable() -> None:
    ssm = Ssm(paused("a"))
    ssm.pause = lambda: 60
    with pytest.raises(Unavailable, match="no answer in time"):
        await SsmControls(ssm, NAME, FixedClock(), within_s=0.01).current()


async def test_an_answer_without_a_parameter_is_no_answer() -> None:
    class Proxy(Ssm):
        async def get_parameter(self, **request: Any) -> dict[str, Any]:
            return {}

    with pytest.raises(Unavailable):
        await SsmControls(Proxy(), NAME, FixedClock()).current()


async def test_fixed_controls_are_those_that_were_given() -> None:
    assert await FixedControls().current() == NO_CONTROLS
    given = PinnedControls.load({"schemaVersion": 1})
    assert await FixedControls(given).current() is given


# --- what CloudFormation does ----------------------------------------------------------------------------------------


async def test_an_update_of_the_stack_lifts_no_pause() -> None:
    ssm = Ssm(TEMPLATES, paused("a"), paused("a", "b", revision=2), TEMPLATES, TEMPLATES)
    ssm.page = 2
    clock = FixedClock()
    source = SsmControls(ssm, NAME, clock)
    assert held((await source.current()).controls) == {"a", "b"}
    ssm.calls.clear()
    clock.elapsed_s = FRESH_S
    await source.current()
    assert ssm.calls == ["get"], "the history is read once for each version"
    ssm.texts.append(text_of(Controls(revision=3)))
    clock.elapsed_s = 2 * FRESH_S
    assert held((await source.current()).controls) == set(), "and what a person lifted is lifted"


@pytest.mark.parametrize("versions", [1, 2, 120])
async def test_in_a_new_stack_nothing_is_held_however_often_it_was_updated(versions: int) -> None:
    found = await ControlsParameter(Ssm(*[TEMPLATES] * versions), NAME).read()
    assert (found.version, found.pinned) == (versions, NO_CONTROLS)


async def test_an_edit_after_an_update_of_the_stack_goes_on_from_what_was_in_force() -> None:
    ssm = Ssm(TEMPLATES, paused("a"), TEMPLATES)
    edited = await ControlsParameter(ssm, NAME).edit(edit_of("b"), FixedClock())
    assert held(edited.controls) == {"a", "b"}
    ssm = Ssm(TEMPLATES, paused("a")).once(TEMPLATES)
    edited = await ControlsParameter(ssm, NAME).edit(edit_of("b"), FixedClock())
    assert (held(edited.controls), edited.others) == ({"a", "b"}, 0)


# --- editing ---------------------------------------------------------------------------------------------------------


async def test_an_edit_is_one_read_and_one_put_and_none_where_nothing_changes() -> None:
    ssm = Ssm()
    parameter = ControlsParameter(ssm, NAME)
    edited = await parameter.edit(edit_of("a"), FixedClock())
    assert (edited.changed, edited.others, edited.controls.revision) == (True, 0, 1)
    assert ssm.calls == ["get", "put"]
    again = await parameter.edit(edit_of("a"), FixedClock())
    assert (again.changed, again.controls) == (False, edited.controls)
    assert ssm.calls == ["get", "put", "get"]


async def test_what_somebody_wrote_between_reading_and_writing_is_brought_back() -> None:
    ssm = Ssm(paused("a", "b")).once(paused("a", "b", "theirs"), paused("b", "theirs", revision=2))
    edited = await ControlsParameter(ssm, NAME).edit(edit_of("ours"), FixedClock())
    assert held(edited.controls) == {"b", "theirs", "ours"}
    assert (edited.changed, edited.others) == (True, 2)
    assert ssm.texts[-1] == text_of(edited.controls)


async def test_what_was_written_on_top_of_ours_is_kept_too() -> None:
    ssm = Ssm(paused("a")).once(paused("a", "hidden"))
    history = ssm.get_parameter_history

    async def and_then(**request: Any) -> dict[str, Any]:
        # A third person reads our document, which hides the second's, and adds to it.
        if len(ssm.texts) == 3:
            ssm.texts.append(paused("a", "ours", "third", revision=3))
        return await history(**request)

    ssm.get_parameter_history = and_then  # type: ignore[method-assign]
    edited = await ControlsParameter(ssm, NAME).edit(edit_of("ours"), FixedClock())
    assert held(edited.controls) == {"a", "hidden", "ours", "third"}


async def test_a_put_that_the_transport_sent_twice_is_nobody_elses() -> None:
    ssm = Ssm()
    put = ssm.put_parameter

    async def twice(**request: Any) -> dict[str, Any]:
        await put(**request)
        return await put(**request)

    ssm.put_parameter = twice  # type: ignore[method-assign]
    edited = await ControlsParameter(ssm, NAME).edit(edit_of("a"), FixedClock())
    assert (held(edited.controls), edited.changed, edited.others) == ({"a"}, True, 0)
    assert len(ssm.texts) == 3


async def test_any_number_of_people_at_once_all_get_what_they_asked_for(rng: random.Random) -> None:
    for _ in range(30):
        ssm = Ssm(paused("a", "b", "c"))
        ssm.pause = lambda: rng.choice([0, 0, 0.001, 0.002])
        count = rng.randrange(2, 7)
        changes = [edit_of(f"new-{number}") for number in range(count)]
        changes += [lambda found: resume(found, "a"), lambda found: resume(found, "b")]
        rng.shuffle(changes)
        edits = (ControlsParameter(ssm, NAME).edit(change, FixedClock()) for change in changes)
        await asyncio.gather(*edits)
        found = (await ControlsParameter(ssm, NAME).read()).pinned.controls
        assert held(found) == {"c", *(f"new-{number}" for number in range(count))}


async def test_an_edit_waits_for_a_history_that_lags() -> None:
    ssm = Ssm(paused("a")).once(paused("a", "theirs"))
    ssm.lag = 3
    edited = await ControlsParameter(ssm, NAME).edit(edit_of("ours"), FixedClock())
    assert held(edited.controls) == {"a", "theirs", "ours"}


async def test_where_the_history_stays_behind_an_edit_says_so() -> None:
    ssm = Ssm(paused("a")).once(paused("a", "theirs"))
    ssm.lag = 99
    with pytest.raises(Unavailable, match="up to version 3"):
        await ControlsParameter(ssm, NAME).edit(edit_of("ours"), FixedClock())


async def test_what_an_edit_hid_and_died_over_is_brought_back_by_the_next() -> None:
    ssm = Ssm(TEMPLATES, paused("hidden"), paused("died", revision=1))
    edited = await ControlsParameter(ssm, NAME).edit(edit_of("next"), FixedClock())
    assert (held(edited.controls), edited.others) == ({"hidden", "died", "next"}, 1)
    same_again = await ControlsParameter(ssm, NAME).edit(edit_of("hidden"), FixedClock())
    assert not same_again.changed


async def test_an_edit_that_was_held_up_for_hours_still_brings_back_what_it_hid() -> None:
    ssm = Ssm(TEMPLATES).once(paused("theirs"))
    ssm.apart = timedelta(hours=1)
    edited = await ControlsParameter(ssm, NAME).edit(edit_of("ours"), FixedClock())
    assert (held(edited.controls), edited.others) == ({"theirs", "ours"}, 1)


async def test_what_a_person_put_back_by_hand_stays_as_they_put_it() -> None:
    ssm = Ssm(TEMPLATES, paused("a"), paused("a", "b", revision=2), paused("a"))
    ssm.apart = timedelta(minutes=2)
    edited = await ControlsParameter(ssm, NAME).edit(edit_of("c"), FixedClock())
    assert (held(edited.controls), edited.others) == ({"a", "c"}, 0)


async def test_where_others_never_stop_writing_an_edit_ends() -> None:
    ssm = Ssm(paused("a"))
    ssm.before_put = lambda ssm: ssm.texts.append(paused(f"s{len(ssm.texts)}"))
    with pytest.raises(Conflict, match="others kept writing"):
        await ControlsParameter(ssm, NAME).edit(lambda found: resume(edit_of("x")(found), "a"), FixedClock())


@pytest.mark.parametrize("text", ["paused", '{"schemaVersion": 2}', '{"killSwitches": 1}'])
async def test_what_is_not_understood_is_not_written_over(text: str) -> None:
    ssm = Ssm(paused("a"), text)
    with pytest.raises(Corrupt, match="Version 2 of the parameter opx-controls holds no controls"):
        await ControlsParameter(ssm, NAME).edit(edit_of("b"), FixedClock())
    assert ssm.texts[-1] == text


async def test_what_does_not_fit_is_not_written() -> None:
    ssm = Ssm()
    parameter = ControlsParameter(ssm, NAME)
    await parameter.edit(lambda found: pause(found, "a", "x" * 2048, BY, NOW), FixedClock())
    with pytest.raises(Rejected, match="bytes of 4096"):
        await parameter.edit(lambda found: pause(found, "b", "x" * 2048, BY, NOW), FixedClock())
    assert len(ssm.texts) == 2


async def test_times_are_those_of_the_clock_that_is_given() -> None:
    late = datetime(2026, 3, 1, tzinfo=UTC)
    old = '{"schemaVersion":1,"maintenance":[{"id":"w","service":"s","startsAt":"2026-01-01T00:00:00Z",'
    old += '"endsAt":"2026-01-02T00:00:00Z","reason":"r","by":"b"}]}'
    edited = await ControlsParameter(Ssm(old), NAME).edit(edit_of("a"), FixedClock(late))
    assert edited.controls.maintenance == ()
