"""Many incidents at once: nothing without --yes, an outcome of each, and a repetition that does nothing twice."""

import asyncio

import httpx
import pytest

from pipeline.cli.bulk import AT_ONCE, KEY_ROOM
from pipeline.cli.terminal import DONE, FAILED, REFUSED, TERMINATED
from pipeline.cli.verbs import VERBS
from pipeline.domain.transitions import State
from tests.support.bodies import candidate_body
from tests.support.command_line import CommandLine
from tests.support.registry import AUTOMATION, OPERATOR

ALL = ["--service", "ledger", "--all-matching"]


@pytest.fixture
def opx() -> CommandLine:
    return CommandLine()


def several(opx: CommandLine, number: int, service: str = "ledger") -> list[str]:
    """Return the ids of open incidents of a service."""

    async def offer() -> None:
        for key in range(number):
            await opx.network.world.offer(candidate_body(service=service, dedupKey=f"{service}-{key}"))

    asyncio.run(offer())
    return [incident for incident, row in opx.network.world.store.incidents.items() if row["service"] == service]


def led(opx: CommandLine, *states: str) -> str:
    """Return the id of an incident that was declared and led through `states`."""
    one = opx.declared()
    for state in states:
        who, sender = ("SYSTEM", AUTOMATION) if state == "ARCHIVED" else ("HUMAN", OPERATOR)
        body = {"newState": state, "reason": "r", "authority": who}
        call = opx.network.world.call("PATCH", f"/incidents/{one}/state", body, sender, Idempotency_Key=f"{one}.{state}")
        assert asyncio.run(call).status == 200
    return one


def written(opx: CommandLine) -> list[httpx.Request]:
    return [request for request in opx.network.seen if request.method != "GET"]


def test_without_yes_all_that_matches_is_shown_and_nothing_is_sent(opx: CommandLine) -> None:
    # More than two pages of the API, and one of another service.
    ids = several(opx, 205) + several(opx, 1, "search")
    before = len(opx.events())
    ran = opx("mitigate", *ALL)
    assert (ran.code, {line["incidentId"] for line in ran.lines}) == (DONE, set(ids[:-1]))
    assert {line["outcome"] for line in ran.lines} == {"matches"}
    shown = opx("mitigate", *ALL, people=True).out
    assert "205 incidents would be acted on. Nothing was changed." in shown
    assert "Next: the same command with --yes" in shown
    assert (written(opx), len(opx.events())) == ([], before)


def test_what_is_shown_says_who_takes_two_steps_and_what_is_left_out(opx: CommandLine) -> None:
    ids = several(opx, 5)
    opx("mitigate", ids[0])
    opx("cancel", ids[1], "--reason", "r")
    opx("resolve", ids[2], "--reason", "r", "--yes")
    shown = opx("resolve", *ALL, "--reason", "r", people=True).out
    assert "3 incidents would be acted on. Nothing was changed." in shown
    assert "2 incidents in two steps: OPEN → MITIGATING → RESOLVED." in shown
    assert "2 more match, but are over (CANCELLED, RESOLVED)." in shown
    assert ids[1][:8] not in shown
    shown = opx("close", *ALL, "--reason", "r", people=True).out
    assert "1 incident would be acted on." in shown
    assert "1 more matches, but is over (CANCELLED)." in shown
    assert "3 more match, but can't be acted on by close (MITIGATING, OPEN)." in shown
    assert "two steps" not in shown
    shown = opx("note", *ALL, "x", people=True).out
    assert ("5 incidents would be acted on." in shown, "more match" in shown) == (True, False)


def test_only_what_a_verb_can_act_on_is_acted_on_unless_the_state_is_named(opx: CommandLine) -> None:
    ids = several(opx, 3)
    opx("cancel", ids[1], "--reason", "r")
    for more in (["--dry-run"], ["--yes"]):
        ran = opx("mitigate", *ALL, *more)
        assert (ran.code, {line["incidentId"] for line in ran.lines}) == (DONE, {ids[0], ids[2]})
        assert "1 more matches, but is over (CANCELLED)." in ran.err
    named = ["--state", "cancelled", *ALL]
    assert [line["outcome"] for line in opx("mitigate", *named).lines] == ["would-be-refused"]
    shown = opx("mitigate", *named, people=True).out
    assert "0 incidents would be acted on." in shown
    assert "1 incident is CANCELLED and would be refused." in shown
    assert "with --yes" not in shown
    for more in (["--dry-run"], ["--yes"]):
        assert [line["outcome"] for line in opx("mitigate", *named, *more).lines] == ["refused"]
    none = opx("cancel", *ALL, "--reason", "r", "--yes", people=True)
    assert (none.code, "Nothing to do: none that matches can be acted on by cancel." in none.out) == (DONE, True)
    assert "1 matches, but is over (CANCELLED)." in none.out
    assert "2 match, but can't be acted on by cancel (MITIGATING)." in none.out


def test_what_every_verb_can_act_on_is_what_the_api_takes(opx: CommandLine) -> None:
    ways = {
        State.PENDING: None,
        State.OPEN: (),
        State.MITIGATING: ("MITIGATING",),
        State.RESOLVED: ("MITIGATING", "RESOLVED"),
        State.CLOSED: ("MITIGATING", "RESOLVED", "CLOSED"),
        State.CANCELLED: ("CANCELLED",),
        State.ARCHIVED: ("MITIGATING", "RESOLVED", "CLOSED", "ARCHIVED"),
    }
    there = {state: opx.pending("waits") if way is None else led(opx, *way) for state, way in ways.items()}
    for verb in VERBS:
        for state, one in there.items():
            value = {"SEVERITY": ["sev1"], "TEXT": ["x"]}.get(verb.value, [])
            ran = opx(verb.name, one, *value, "--reason", "r", "--yes", "--dry-run")
            assert (ran.code == DONE) is verb.can_act_on(state), f"{verb.name} on {state}: {ran.err}"
    assert all(verb.can_act_on("OF-A-LATER-VERSION") for verb in VERBS)


def test_each_is_acted_on_under_a_key_of_its_own_and_only_what_matches(opx: CommandLine) -> None:
    ids, other = several(opx, 20), several(opx, 1, "search")
    ran = opx("mitigate", *ALL, "--yes", "--key", "base")
    assert (ran.code, len(ran.lines)) == (DONE, 20)
    for line in ran.lines:
        assert (line["outcome"], line["state"]) == ("applied", "MITIGATING")
        assert line["idempotencyKey"] == f"base.{line['incidentId']}"
        assert line["next"] == f"opx open {line['incidentId'][:8]}"
    assert all(opx.kinds(one)[-1] == "MitigationStarted" for one in ids)
    assert "MitigationStarted" not in opx.kinds(other[0])
    assert "If this is interrupted, run it again with --key base" in ran.err


def test_the_whole_command_can_be_repeated_under_its_key(opx: CommandLine) -> None:
    several(opx, 5)
    command = ["resolve", *ALL, "--reason", "drained", "--yes", "--key", "base"]
    first, before = opx(*command), len(opx.events())
    again = opx(*command)
    assert (first.code, again.code, len(opx.events())) == (DONE, DONE, before)
    assert sorted(first.out.splitlines()) == sorted(again.out.splitlines())


def test_every_verb_that_may_act_on_many_does(opx: CommandLine) -> None:
    ids = several(opx, 2)
    for arguments, kind in (
        (["note", "seen"], "NoteAdded"),
        (["severity", "sev1", "--severity", "sev2"], "SeverityChanged"),
        (["mitigate", "--state", "open"], "MitigationStarted"),
        (["resolve", "--state", "mitigating", "--reason", "r"], "IncidentResolved"),
        (["close", "--from", "2026-01-01T00:00Z", "--reason", "r"], "IncidentClosed"),
    ):
        assert opx(*arguments, *ALL, "--yes").code == DONE
        assert {opx.kinds(one)[-1] for one in ids} == {kind}
    other = several(opx, 2, "search")
    assert opx("cancel", "--service", "search", "--all-matching", "--reason", "r", "--yes").code == DONE
    assert {opx.kinds(one)[-1] for one in other} == {"IncidentCancelled"}
    for verb in ("promote", "dismiss"):
        waiting = [opx.pending("one", service=verb), opx.pending("two", service=verb)]
        ran = opx(verb, "--service", verb, "--all-matching", "--reason", "r", "--yes")
        assert {line["incidentId"] for line in ran.lines} == set(waiting)


def test_a_dry_run_tells_each_outcome_and_changes_nothing(opx: CommandLine) -> None:
    ids = several(opx, 2)
    opx("mitigate", ids[0])
    store = opx.network.world.store
    before = (dict(store.incidents), dict(store.receipts), len(store.feed))
    command = ["resolve", *ALL, "--reason", "drained", "--dry-run"]
    ran, shown = opx(*command), opx(*command, people=True, width=140)
    assert (dict(store.incidents), dict(store.receipts), len(store.feed)) == before
    told = {line["incidentId"]: (line["outcome"], line["state"], line["dryRun"]) for line in ran.lines}
    assert told == dict.fromkeys(ids, ("applied", "RESOLVED", True))
    assert (ran.code, shown.code) == (DONE, DONE)
    assert "would be applied" in shown.out
    assert "in two steps: OPEN → MITIGATING → RESOLVED" in shown.out
    assert "2 incidents: 2 would be done. A dry run." in shown.out


def test_a_refusal_of_one_stops_no_other_and_ends_with_exit_1(opx: CommandLine) -> None:
    ids = several(opx, 6)
    opx.overtaken(ids[2], f"base.{ids[2]}", "CANCELLED")
    ran = opx("mitigate", *ALL, "--yes", "--key", "base")
    refused = [line for line in ran.lines if line["outcome"] == "refused"]
    assert (ran.code, len(ran.lines)) == (REFUSED, 6)
    assert [(line["incidentId"], line["code"]) for line in refused] == [(ids[2], "transition-illegal")]
    assert refused[0]["next"] == f"opx open {ids[2][:8]}"
    shown = opx("note", "x", "--as", "system", *ALL, "--yes", people=True)
    assert "6 incidents: 0 done, 6 refused." in shown.out
    again = opx("mitigate", *ALL, "--yes", "--key", "base", people=True)
    ids_told = [line.split()[0] for line in again.out.splitlines() if "ledger" in line]
    assert (len(ids_told), ids_told[-1]) == (6, ids[2][:8])
    assert shown.code == REFUSED


def test_of_many_none_takes_a_step_whose_second_needs_another_authority(opx: CommandLine) -> None:
    ids = several(opx, 2)
    opx.by_portal()
    shown = opx("resolve", *ALL, "--reason", "r", "--as", "system", people=True).out
    assert "0 incidents would be acted on." in shown
    assert "2 incidents are OPEN and would be refused." in shown
    assert "2 incidents would be acted on." in opx("mitigate", *ALL, "--as", "system", people=True).out
    ran = opx("resolve", *ALL, "--reason", "r", "--as", "system", "--yes")
    assert (ran.code, {line["code"] for line in ran.lines}) == (REFUSED, {"transition-authority"})
    assert {line["state"] for line in ran.lines} == {"OPEN"}
    assert [opx.kinds(one)[-1] for one in ids] == ["IncidentOpened"] * 2


def test_what_is_half_done_is_told_with_the_state_after_and_counted_apart(opx: CommandLine) -> None:
    ids = several(opx, 2)
    opx.overtaken(ids[0], f"base.{ids[0]}", "RESOLVED", "CLOSED")
    command = ["resolve", *ALL, "--reason", "r", "--yes", "--key", "base"]
    ran, shown = opx(*command), opx(*command, people=True, width=200)
    told = {line["incidentId"]: line for line in ran.lines}
    assert (ran.code, told[ids[1]]["outcome"]) == (REFUSED, "applied")
    half = told[ids[0]]
    assert (half["outcome"], half["state"], half["code"]) == ("half-done", "MITIGATING", "transition-illegal")
    assert [done["state"] for done in half["done"]] == ["MITIGATING"]
    assert "now MITIGATING (event 3, stored); the second step was refused" in shown.out
    assert "2 incidents: 1 done, 1 half done." in shown.out


def test_without_an_answer_nothing_further_is_begun_and_the_exit_code_is_2(opx: CommandLine) -> None:
    several(opx, AT_ONCE * 3)
    heard = opx.network.carry

    async def deaf(request: httpx.Request) -> httpx.Response:
        if request.method != "GET":
            raise httpx.ConnectError("down")
        return await heard(request)

    opx.network.carry = deaf  # type: ignore[method-assign]
    ran = opx("mitigate", *ALL, "--yes", "--key", "base")
    outcomes = [line["outcome"] for line in ran.lines]
    assert (ran.code, outcomes.count("failed"), outcomes.count("not-tried")) == (FAILED, AT_ONCE, AT_ONCE * 2)
    shown = opx("mitigate", *ALL, "--yes", "--key", "base", people=True)
    assert "Next: the same command with --key base" in shown.out
    opx.network.carry = heard  # type: ignore[method-assign]
    assert opx("mitigate", *ALL, "--yes", "--key", "base").code == DONE


def test_what_is_stopped_in_between_has_told_what_was_done(opx: CommandLine) -> None:
    several(opx, AT_ONCE * 2)
    heard, left = opx.network.carry, 5

    async def stopped(request: httpx.Request) -> httpx.Response:
        nonlocal left
        left -= request.method != "GET"
        if left < 0:
            raise asyncio.CancelledError
        return await heard(request)

    opx.network.carry = stopped  # type: ignore[method-assign]
    ran = opx("mitigate", *ALL, "--yes", "--key", "base")
    assert (ran.code, [line["outcome"] for line in ran.lines]) == (TERMINATED, ["applied"] * 5)
    left = 5
    shown = opx("mitigate", *ALL, "--yes", "--key", "base", people=True)
    assert "16 incidents: 5 done, 11 not begun." in shown.out
    assert "Next: the same command with --key base" in shown.out


def test_only_so_many_are_on_their_way_at_once(opx: CommandLine) -> None:
    several(opx, AT_ONCE * 2)
    heard, going, most = opx.network.carry, 0, 0

    async def counted(request: httpx.Request) -> httpx.Response:
        nonlocal going, most
        going += 1
        most = max(most, going)
        await asyncio.sleep(0.01)
        found = await heard(request)
        going -= 1
        return found

    opx.network.carry = counted  # type: ignore[method-assign]
    assert opx("mitigate", *ALL, "--yes").code == DONE
    assert 1 < most <= AT_ONCE


@pytest.mark.parametrize(
    ("arguments", "then"),
    [
        (["mitigate", "--service", "ledger"], "the same command with --all-matching"),
        (["mitigate", "1aa0", "--service", "ledger"], "the same command with --all-matching"),
        (["mitigate", "--all-matching"], "opx mitigate --help"),
        (["mitigate", "1aa0", *ALL], "opx mitigate --help"),
        (["mitigate", *ALL, "--expect", "2"], "opx mitigate --help"),
        (["mitigate", *ALL, "--key", "x" * (129 - KEY_ROOM)], "opx mitigate --help"),
        (["note", *ALL], "opx note --help"),
        (["resolve", *ALL], "the same command with --reason TEXT"),
        (["mitigate", *ALL, "--from", "yesterday"], "opx mitigate --help"),
    ],
)
def test_what_can_not_be_meant_for_many_is_refused_before_anything_is_asked(
    opx: CommandLine, arguments: list[str], then: str
) -> None:
    ran = opx(*arguments, "--yes")
    assert (ran.code, ran.out, ran.next) == (REFUSED, "", then)
    assert opx.network.seen == []


def test_the_longest_key_of_many_still_fits_with_all_that_is_put_behind_it(opx: CommandLine) -> None:
    several(opx, 1)
    assert opx("resolve", *ALL, "--reason", "r", "--yes", "--key", "x" * (128 - KEY_ROOM)).code == DONE
    assert max(len(request.headers.get("Idempotency-Key", "")) for request in opx.network.seen) == 128


def test_nothing_that_matches_is_said_and_done(opx: CommandLine) -> None:
    shown = opx("mitigate", *ALL, "--yes", people=True)
    assert (shown.code, "No incident of service ledger is known." in shown.out) == (DONE, True)
