"""What a person sees of incidents through the HTTP API: lists, and one incident with all that is known of it."""

import asyncio
from datetime import timedelta

import pytest
from rich.text import Text

from pipeline.cli.lifeline import Signal, life_line, signal, stays
from pipeline.cli.listing import nothing_found
from pipeline.cli.telling import steps_of
from pipeline.cli.terminal import DONE, REFUSED, json_line
from pipeline.clients.answers import Incident
from pipeline.domain.canonical import Document, format_time
from tests.support.bodies import alarm_body, candidate_body
from tests.support.clock import NOW
from tests.support.command_line import CommandLine
from tests.support.registry import ALARMS


@pytest.fixture
def opx() -> CommandLine:
    return CommandLine()


# --- lists -----------------------------------------------------------------------------------------------------------


def test_a_list_follows_the_pages_to_its_limit_newest_first(opx: CommandLine) -> None:
    async def storm() -> None:
        for number in range(230):
            opx.network.world.clock.jump(timedelta(seconds=1))
            await opx.network.world.offer(candidate_body(dedupKey=f"key-{number}"))

    asyncio.run(storm())
    ran = opx("list", "--limit", "220")
    created = [line["createdAt"] for line in ran.lines]
    assert (ran.code, len(created), created) == (DONE, 220, sorted(created, reverse=True))
    assert "newest 220" in ran.err
    assert opx("list", "--limit", "230").err == ""
    assert len(opx("list").lines) == 50


def test_a_list_is_narrowed_by_every_filter(opx: CommandLine) -> None:
    opx.declared(severity="SEV1")
    opx.network.world.clock.jump(timedelta(hours=1))
    opx.declared(severity="SEV3", service="search")
    opx("mitigate", "--service", "search", "--all-matching", "--yes")
    later = format_time(NOW + timedelta(minutes=30))
    for arguments, service in (
        (["--state", "open"], "checkout"),
        (["--state", "MITIGATING"], "search"),
        (["--service", "search"], "search"),
        (["--severity", "sev1"], "checkout"),
        (["--from", later], "search"),
        (["--to", later], "checkout"),
    ):
        assert [line["service"] for line in opx("list", *arguments).lines] == [service]


def test_a_list_for_people_is_a_table_that_ends_with_the_next_command(opx: CommandLine) -> None:
    one = opx.declared(title="Carts\u202e are empty")
    shown = opx("list", people=True).out
    assert "\u202e" not in shown
    assert shown.splitlines()[-1] == f"Next: opx open {one[:8]}"
    assert "OPEN" in shown


def test_a_list_leads_to_the_most_severe_that_is_not_over(opx: CommandLine) -> None:
    ids = {}
    for key, severity in (("over", "SEV1"), ("worst", "SEV2"), ("newest", "SEV3")):
        opx.network.world.clock.jump(timedelta(seconds=1))
        ids[key] = opx.declared(severity=severity, title=key)
    assert opx("list", people=True).out.splitlines()[-1] == f"Next: opx open {ids['over'][:8]}"
    opx("cancel", ids["over"], "--reason", "a test")
    assert opx("list", people=True).out.splitlines()[-1] == f"Next: opx open {ids['worst'][:8]}"
    for key in ("worst", "newest"):
        opx("cancel", ids[key], "--reason", "a test")
    assert opx("list", people=True).out.splitlines()[-1] == f"Next: opx open {ids['newest'][:8]}"


def test_a_filter_without_a_hit_is_named(opx: CommandLine) -> None:
    assert nothing_found({}) == "There are no incidents."
    assert nothing_found({"state": "RESOLVED"}) == "No incident is RESOLVED."
    assert nothing_found({"service": "x\x1b"}) == "No incident of service x\\x1b is known."
    full = {"state": "OPEN", "service": "x", "severity": "SEV1", "created_to": NOW}
    assert nothing_found(full) == "No SEV1 incident of service x of that time is OPEN."  # type: ignore[arg-type]
    assert opx("list", people=True).out.splitlines()[-1] == "Next: opx declare --help"
    assert opx("list", "--state", "open", people=True).out.splitlines()[-1] == "Next: opx list"


# --- one incident ----------------------------------------------------------------------------------------------------


def walked(opx: CommandLine) -> str:
    """Return the id of an incident that was declared, mitigated after 5 minutes and resolved after 10 more."""
    one = opx.declared()
    for verb, minutes in (("mitigate", 5), ("resolve", 10)):
        opx.network.world.clock.jump(timedelta(minutes=minutes))
        opx(verb, one, "--reason", "p99 is back")
    return one


def test_an_incident_is_told_with_its_states_and_who_may_do_what(opx: CommandLine) -> None:
    one = walked(opx)
    ran = opx("open", one[:6])
    told = ran.lines[0]
    assert (ran.code, len(ran.lines), told["state"]) == (DONE, 1, "RESOLVED")
    assert [(row["to"], row["youMay"]) for row in told["allowedTransitions"]] == [("CLOSED", True)]
    assert [stay["state"] for stay in told["states"]] == ["PENDING", "OPEN", "MITIGATING", "RESOLVED"]
    assert told["states"][2]["until"] == told["states"][3]["since"]
    assert told["signal"]["kind"] == "declaration"


@pytest.mark.parametrize("width", [80, 140])
def test_a_person_reads_it_all_on_one_screen(opx: CommandLine, width: int) -> None:
    one = walked(opx)
    shown = opx("open", one, people=True, width=width).out
    assert "PENDING ─► OPEN ─ 5 min ─► MITIGATING ─ 10 min ─► RESOLVED for " in shown
    assert "you may  become CLOSED by HUMAN, with a reason" in shown
    for kind in opx.kinds(one):
        assert kind in shown
    assert "can't read it" not in shown
    assert f"opx close {one[:8]} --reason TEXT" in shown
    assert max(map(len, shown.splitlines())) <= width


def test_what_the_reader_may_not_do_is_not_offered(opx: CommandLine) -> None:
    pending = opx.pending("one")
    shown = opx("open", pending, people=True).out
    assert "you may  become OPEN, if the gate agrees, asked by " in shown
    offered = [f"opx {verb} {pending[:8]} --reason TEXT" for verb in ("promote", "dismiss")]
    assert all(line in shown for line in offered)
    rows = [{"to": "MITIGATING", "authority": ["SYSTEM"], "needsReason": False, "youMay": False, "by": "change-state"}]
    document = opx("open", pending).lines[0] | {"allowedTransitions": rows}
    assert steps_of(Incident.of(document)) == []


def test_the_past_is_told_as_it_was_with_the_events_that_made_it_so(opx: CommandLine) -> None:
    one = walked(opx)
    moment = format_time(NOW + timedelta(minutes=7))
    for arguments in (["--version", "3"], ["--at", moment]):
        told = opx("open", one, *arguments).lines[0]
        assert (told["state"], told["asOf"], "allowedTransitions" in told) == ("MITIGATING", {"version": 3}, False)
        assert [event["sequence"] for event in opx("open", one, *arguments, "--events").lines] == [1, 2, 3]
        shown = opx("open", one, *arguments, people=True).out
        assert "as of version 3" in shown
        assert "IncidentResolved" not in shown
        assert shown.splitlines()[-1] == f"Next: opx open {one[:8]}"
    both = opx("open", one, "--version", "3", "--at", moment)
    early = opx("open", one, "--at", "2020-01-01T00:00Z")
    assert (both.code, both.next, early.code, early.next) == (REFUSED, "opx open --help", REFUSED, "opx list")


def test_events_are_given_exactly_as_they_are_stored(opx: CommandLine) -> None:
    one = walked(opx)

    async def stored() -> list[Document]:
        return [document async for document in opx.network.world.store.history(one)]

    assert opx("open", one, "--events").out.splitlines() == [json_line(document) for document in asyncio.run(stored())]


def test_a_long_run_of_evidence_is_drawn_together_unless_all_is_asked_for(opx: CommandLine) -> None:
    one = opx.declared()
    for number in range(6):
        opx("evidence", one, f"log=logs/{number}")
    shown, whole = opx("open", one, people=True).out, opx("open", one, "--all", people=True).out
    assert (shown.count("EvidenceAttached"), whole.count("EvidenceAttached")) == (3, 6)
    assert f"opx open {one[:8]} --all" in shown


# --- whether it goes on ----------------------------------------------------------------------------------------------


def observed(kind: str, minutes: int, sequence: int = 1) -> Document:
    at = format_time(NOW + timedelta(minutes=minutes))
    observation = {"kind": kind, "observedAt": at, "source": "cloudwatch"}
    return {"sequence": sequence, "timestamp": at, "newState": "OPEN", "metadata": {"observation": observation}}


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("firing", "still firing: seen 5 min ago, no recovery since, by cloudwatch"),
        ("recovery", "recovery seen 5 min ago, by cloudwatch"),
        ("no-data", "no data since 5 min ago: nobody can tell, by cloudwatch"),
        ("declaration", "declared 5 min ago, no detector has reported it, by cloudwatch"),
        ("of-a-later-version", "of-a-later-version 5 min ago, by cloudwatch"),
    ],
)
def test_the_newest_observation_says_whether_it_goes_on(kind: str, told: str) -> None:
    found = signal([observed("firing", 0), observed(kind, 10)])
    assert found is not None
    assert found.told(NOW + timedelta(minutes=15)).plain == told


def test_an_observation_that_is_reported_late_is_not_the_newest() -> None:
    found = signal([observed("recovery", 10), observed("firing", 5), {"metadata": {}}])
    assert found == Signal("recovery", NOW + timedelta(minutes=10), "cloudwatch")
    assert signal([{"metadata": {"note": "x"}}, {}]) is None


def test_an_alarm_that_recovered_is_seen_to_have(opx: CommandLine) -> None:
    world = opx.network.world
    asyncio.run(world.offer(alarm_body(), ALARMS))
    one = next(iter(world.store.incidents))
    assert opx("open", one).lines[0]["signal"]["kind"] == "firing"
    again = alarm_body("OK", event_id="00000000-0000-0000-0000-000000000001", timestamp="2026-01-31T03:00:00.000+0000")
    asyncio.run(world.offer(again, ALARMS))
    assert opx("open", one).lines[0]["signal"]["kind"] == "recovery"
    assert "recovery seen" in opx("open", one, people=True).out


def test_a_length_over_a_month_is_told_in_days_alone() -> None:
    for days, told in ((29, "seen 29 d 7 h ago"), (30, "seen 30 d ago"), (4607, "seen 4607 d ago")):
        found = signal([observed("firing", 0)])
        assert found is not None
        assert told in found.told(NOW + timedelta(days=days, hours=7)).plain
    lived = stays([observed("firing", 0)])
    assert life_line(lived, NOW + timedelta(days=31, hours=7)).plain == "OPEN for 31 d"


def test_states_are_told_with_how_long_they_lasted() -> None:
    moments = (("PENDING", 0), ("PENDING", 1), ("OPEN", 90), ("MITIGATING", 90))
    events = [{"newState": state, "timestamp": format_time(NOW + timedelta(minutes=at))} for state, at in moments]
    found = stays(events)
    assert [(stay.state, stay.until is None) for stay in found] == [
        ("PENDING", False),
        ("OPEN", False),
        ("MITIGATING", True),
    ]
    line = life_line(found, NOW + timedelta(minutes=100))
    assert isinstance(line, Text)
    assert line.plain == "PENDING ─ 1 h 30 min ─► OPEN ─► MITIGATING for 10 min"
    assert life_line(found, None).plain.endswith("─► MITIGATING")
