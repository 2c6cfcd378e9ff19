"""Kill switches and maintenance windows: whom they hold, from when to when, and that an edit asked for twice is one."""

import random
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.base import covers
from pipeline.domain.canonical import Document, parse_document
from pipeline.domain.controls import (
    CONTROLS_BYTES_MAX,
    KEPT_AFTER_END,
    NO_CONTROLS,
    Controls,
    KillSwitch,
    MaintenanceWindow,
    PinnedControls,
    add_window,
    end_window,
    merged,
    new_window,
    pause,
    pruned,
    resume,
    same,
    size_of,
    text_of,
    written,
)
from pipeline.domain.errors import Code, Rejected
from tests.house.template import load

NOW = datetime(2026, 1, 31, 3, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
TICK = timedelta(microseconds=1)
BY = "arn:aws:sts::123456789012:assumed-role/oncall/maria"


def switch(service: str, reason: str = "why", since: datetime = NOW) -> KillSwitch:
    return KillSwitch(service=service, reason=reason, by=BY, since=since)


def window(name: str, service: str = "ledger", starts: datetime = NOW, ends: datetime = NOW + HOUR) -> MaintenanceWindow:
    return MaintenanceWindow(id=name, service=service, starts_at=starts, ends_at=ends, reason="upgrade", by=BY)


def pinned(*parts: KillSwitch | MaintenanceWindow) -> PinnedControls:
    controls = Controls(
        kill_switches=tuple(one for one in parts if isinstance(one, KillSwitch)),
        maintenance=tuple(one for one in parts if isinstance(one, MaintenanceWindow)),
    )
    return PinnedControls.load(controls.to_document())


# --- whom, and when --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "service", "held"),
    [
        ("checkout", "checkout", True),
        ("checkout", "checkout-eu", False),
        ("checkout", "Checkout", False),
        ("checkout-*", "checkout-eu", True),
        ("checkout-*", "checkout", False),
        ("*", "anything: at all", True),
        ("*-eu", "checkout-eu", True),
        ("a*b*c", "a-b-b-c", True),
        ("a.c", "abc", False),
        ("a?c", "abc", False),
        ("[ab]", "a", False),
        ("*", "two\nlines", True),
    ],
)
def test_a_star_stands_for_any_text_and_nothing_else_does(pattern: str, service: str, held: bool) -> None:
    assert covers(pattern, service) is held
    assert (pinned(switch(pattern)).paused(service) is not None) is held


def test_the_switch_for_everything_comes_before_one_for_a_service() -> None:
    every, one = switch("*"), switch("!first-by-code-point")
    for order in permutations([one, every]):
        assert pinned(*order).paused("!first-by-code-point") == every


def test_which_switch_or_window_is_named_does_not_depend_on_the_documents_order() -> None:
    parts = [switch("check*", "b"), switch("check*", "a"), switch("checkout")]
    windows = [window("b"), window("a", "*"), window("a", "led*"), window("c")]
    assert {found.reason for order in permutations(parts) if (found := pinned(*order).paused("checkout"))} == {"a"}
    found_windows = [pinned(*order).maintenance("ledger", NOW) for order in permutations(windows)]
    assert all(found == window("a", "*") for found in found_windows)


@pytest.mark.parametrize(
    ("observed_at", "held"),
    [(NOW - TICK, False), (NOW, True), (NOW + HOUR - TICK, True), (NOW + HOUR, False)],
)
def test_a_window_holds_from_its_start_until_just_before_its_end(observed_at: datetime, held: bool) -> None:
    controls = pinned(window("w"))
    assert (controls.maintenance("ledger", observed_at) is not None) is held
    assert controls.maintenance("search", observed_at) is None


def test_no_controls_hold_nothing_and_are_what_a_new_stack_has() -> None:
    assert NO_CONTROLS.paused("checkout") is None
    assert NO_CONTROLS.maintenance("checkout", NOW) is None
    value = load()["Resources"]["ControlsParameter"]["Properties"]["Value"]
    assert PinnedControls.load(parse_document(value)) == NO_CONTROLS
    assert text_of(Controls()) == value


# --- the document ----------------------------------------------------------------------------------------------------


def test_the_digest_is_over_the_document_as_received() -> None:
    short = PinnedControls.load({"schemaVersion": 1})
    assert short.controls == NO_CONTROLS.controls
    assert short.digest != NO_CONTROLS.digest
    assert pinned(switch("a")).digest != pinned(switch("b")).digest


def broken(change: Document) -> Document:
    document = pinned(switch("a"), window("w")).controls.to_document()
    first_window = document["maintenance"][0]
    return document | {"maintenance": (first_window | change,)}


@pytest.mark.parametrize(
    ("document", "code", "field"),
    [
        ({"schemaVersion": 2}, Code.UNSUPPORTED_SCHEMA_VERSION, "schemaVersion"),
        ({"paused": True}, Code.UNKNOWN_FIELD, "paused"),
        ({"revision": -1}, Code.INVALID_FIELD, "revision"),
        (broken({"endsAt": "2026-01-31T03:00:00Z"}), Code.INVALID_FIELD, "maintenance.0.endsAt"),
        (broken({"startsAt": "2026-01-31T03:00:00"}), Code.INVALID_FIELD, "maintenance.0.startsAt"),
        (broken({"id": "no spaces"}), Code.INVALID_FIELD, "maintenance.0.id"),
        (broken({"until": "x"}), Code.UNKNOWN_FIELD, "maintenance.0.until"),
    ],
)
def test_what_is_not_understood_wholly_is_refused_by_its_field(document: Document, code: Code, field: str) -> None:
    with pytest.raises(Rejected) as refused:
        PinnedControls.load(document)
    assert (refused.value.refusal.code, refused.value.refusal.field) == (code, field)


@given(st.text(alphabet='{}"\\ax ', min_size=1, max_size=40).filter(str.strip))
def test_no_two_braces_stand_side_by_side_and_nothing_is_changed_by_that(reason: str) -> None:
    controls = pinned(switch("a", reason), window("w")).controls
    text = text_of(controls)
    assert "{{" not in text
    assert "}}" not in text
    assert PinnedControls.load(parse_document(text)).controls == controls


# --- edits -----------------------------------------------------------------------------------------------------------


def test_pausing_twice_keeps_the_first_and_resuming_twice_is_once() -> None:
    once = pause(Controls(), "checkout", "load test", BY, NOW)
    assert pause(once, "checkout", "again", "somebody", NOW + HOUR) == once
    assert once.kill_switches == (switch("checkout", "load test"),)
    assert resume(once, "check*") == once
    assert resume(once, "checkout") == Controls() == resume(Controls(), "checkout")


@pytest.mark.parametrize(
    ("service", "reason", "field"), [("", "r", "service"), ("s", " ", "reason"), ("s\n", "r", "service")]
)
def test_a_pause_that_says_nothing_is_refused_by_its_field(service: str, reason: str, field: str) -> None:
    with pytest.raises(Rejected) as refused:
        pause(Controls(), service, reason, BY, NOW)
    assert refused.value.refusal.field == field


def test_the_same_window_asked_for_again_is_the_one_that_is_there() -> None:
    first = new_window(Controls(), "ledger", NOW, NOW + HOUR, "upgrade", BY)
    controls = add_window(Controls(), first)
    again = new_window(controls, "ledger", NOW, NOW + HOUR, "other words", "somebody")
    assert again == first
    assert add_window(controls, again) == controls
    other = new_window(controls, "ledger", NOW, NOW + 2 * HOUR, "upgrade", BY)
    assert other.id != first.id
    with pytest.raises(Rejected, match="endsAt"):
        new_window(controls, "ledger", NOW, NOW, "upgrade", BY)


def test_a_window_that_was_ended_early_can_be_had_again() -> None:
    first = new_window(Controls(), "ledger", NOW, NOW + HOUR, "upgrade", BY)
    ended = end_window(add_window(Controls(), first), first.id, NOW + HOUR / 2)
    again = new_window(ended, "ledger", NOW, NOW + HOUR, "upgrade", BY)
    assert again.id not in (first.id, "")
    assert again.id.startswith(first.id)
    assert len(add_window(ended, again).maintenance) == 2


def test_ending_a_window_keeps_what_was_observed_in_it_and_takes_back_one_that_has_not_begun() -> None:
    controls = pinned(window("w"), window("other")).controls
    ended = end_window(controls, "w", NOW + HOUR / 2)
    assert ended.maintenance == (window("w", ends=NOW + HOUR / 2), window("other"))
    assert end_window(ended, "w", NOW + HOUR) == ended
    for before in (NOW - HOUR, NOW):
        assert end_window(controls, "w", before).maintenance == (window("other"),)
    assert end_window(controls, "unknown", NOW) == controls
    assert end_window(controls, "w", NOW + HOUR) == controls


def test_a_window_counts_for_a_day_after_its_end_and_is_then_dropped() -> None:
    controls = pinned(window("w"), switch("a")).controls
    end = NOW + HOUR
    assert pruned(controls, end + KEPT_AFTER_END - TICK) == controls
    assert pruned(controls, end + KEPT_AFTER_END) == pinned(switch("a")).controls


def long(name: str, ends: datetime) -> MaintenanceWindow:
    return window(name, starts=ends - HOUR, ends=ends).model_copy(update={"reason": "x" * 1000})


def test_where_room_is_short_what_is_over_goes_first_and_what_holds_never() -> None:
    windows = (long("now", NOW + HOUR), long("new", NOW - TICK), long("old", NOW - HOUR), long("older", NOW - 2 * HOUR))
    found = written(Controls(maintenance=windows), 7, NOW)
    assert [one.id for one in found.maintenance] == ["now", "new", "old"]
    assert found.revision == 7
    assert size_of(found) <= CONTROLS_BYTES_MAX


def test_what_does_not_fit_is_refused_with_its_size() -> None:
    windows = tuple(long(f"w{number}", NOW + HOUR) for number in range(4))
    with pytest.raises(Rejected, match=rf"\d+ bytes of {CONTROLS_BYTES_MAX}") as refused:
        written(Controls(maintenance=windows), 1, NOW)
    assert refused.value.refusal.code is Code.TOO_LARGE


def test_two_edits_of_one_document_are_both_kept() -> None:
    base = pinned(switch("a"), switch("b"), window("w"), window("v")).controls
    theirs = end_window(resume(pause(base, "c", "r", BY, NOW), "a"), "w", NOW + HOUR / 2)
    ours = add_window(resume(base, "b"), window("new"))
    both = merged(base, theirs, ours)
    assert {one.service for one in both.kill_switches} == {"c"}
    assert {(one.id, one.ends_at) for one in both.maintenance} == {
        ("w", NOW + HOUR / 2),
        ("v", NOW + HOUR),
        ("new", NOW + HOUR),
    }
    assert merged(base, theirs, both) == both


def test_merging_in_any_order_loses_no_edit(rng: random.Random) -> None:
    for _ in range(200):
        services = [f"s{number}" for number in range(8)]
        base = Controls(kill_switches=tuple(switch(name) for name in services[:4]))
        toggled = rng.sample(services, 6)
        edits = [resume(base, name) if name in services[:4] else pause(base, name, "r", BY, NOW) for name in toggled]
        result = base
        for edited in rng.sample(edits, len(edits)):
            result = merged(base, edited, result)
        expected = {name for name in services if (name in services[:4]) is not (name in toggled)}
        assert {one.service for one in result.kill_switches} == expected


def test_which_edit_it_was_does_not_make_a_document_another() -> None:
    controls = pinned(switch("a")).controls
    assert same(controls, controls.model_copy(update={"revision": 9}))
    assert not same(controls, Controls())
