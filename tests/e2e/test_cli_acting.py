"""What an operator does by the command line, through the signed API of the deployed stack. One engine for all."""

from uuid import uuid4

import pytest

from tests.support.engine_cli import Opx, calling, candidate, declared, incident_of
from tests.support.stack import Stack

pytestmark = [pytest.mark.engine, pytest.mark.long]


@pytest.fixture
def opx(stack: Stack) -> Opx:
    return calling(stack)


@pytest.fixture
def service() -> str:
    return f"cli-{uuid4().hex[:12]}"


def test_an_incident_is_taken_through_its_life_by_commands(opx: Opx, service: str) -> None:
    identity = declared(opx, service)
    steps = [("mitigate", "MITIGATING"), ("resolve", "RESOLVED"), ("close", "CLOSED")]
    for verb, state in steps:
        code, out, _ = opx(verb, identity, "--reason", "a test")
        assert (code, [(line["answer"], line["state"]) for line in out]) == (0, [("applied", state)])
    _, shown, _ = opx("open", identity)
    assert shown[0]["authority"]["authorityType"] == "HUMAN"
    assert [stay["state"] for stay in shown[0]["states"]] == ["PENDING", "OPEN", "MITIGATING", "RESOLVED", "CLOSED"]
    _, past, _ = opx("open", identity, "--version", "3")
    assert (past[0]["state"], past[0]["asOf"]) == ("MITIGATING", {"version": 3})


def test_what_is_open_is_resolved_in_two_steps_only_if_that_is_said(opx: Opx, service: str) -> None:
    identity, key = declared(opx, service), f"key-{uuid4().hex}"
    command = ["resolve", identity, "--reason", "rolled back", "--key", key]
    code, out, err = opx(*command)
    assert (code, out, err[0]["code"]) == (1, [], "transition-illegal")
    assert err[0]["next"] == "the same command with --yes, which takes both"
    for _ in range(2):
        code, out, _ = opx(*command, "--yes")
        assert (code, [line["state"] for line in out]) == (0, ["MITIGATING", "RESOLVED"])
    _, events, _ = opx("open", identity, "--events")
    assert [event["eventType"] for event in events][2:] == ["MitigationStarted", "IncidentResolved"]


def test_a_dry_run_changes_nothing_and_tells_what_would(opx: Opx, service: str) -> None:
    identity = declared(opx, service)
    _, before, _ = opx("open", identity, "--events")
    code, out, _ = opx("cancel", identity, "--reason", "false alarm", "--dry-run")
    assert (code, out[0]["dryRun"], out[0]["state"]) == (0, True, "CANCELLED")
    assert [event["eventType"] for event in out[0]["events"]] == ["IncidentCancelled"]
    assert opx("close", identity, "--reason", "x", "--dry-run")[0] == 1
    assert opx("open", identity, "--events")[1] == before
    assert opx("receipt", out[0].get("idempotencyKey", "never"))[0] == 1


def test_many_are_acted_on_at_once_each_with_an_outcome_of_its_own(opx: Opx, service: str) -> None:
    ids = [declared(opx, service) for _ in range(12)]
    opx("cancel", ids[0], "--reason", "false alarm")
    many = ["--service", service, "--all-matching"]
    code, shown, _ = opx("mitigate", *many)
    assert (code, {line["incidentId"] for line in shown}) == (0, set(ids[1:]))
    for _ in range(2):
        code, out, _ = opx("mitigate", *many, "--yes", "--key", service)
        assert (code, {line["incidentId"]: line["outcome"] for line in out}) == (0, dict.fromkeys(ids[1:], "applied"))
    code, out, _ = opx("mitigate", *many, "--state", "cancelled", "--yes")
    assert (code, [(line["incidentId"], line["code"]) for line in out]) == (1, [(ids[0], "transition-illegal")])
    code, out, _ = opx("resolve", *many, "--state", "mitigating", "--reason", "over", "--yes")
    assert (code, len(out)) == (0, 11)
    for identity in ids[1:]:
        _, events, _ = opx("open", identity, "--events")
        assert [event["eventType"] for event in events].count("MitigationStarted") == 1


def test_every_command_takes_effect(opx: Opx, service: str) -> None:
    one, other = declared(opx, service), declared(opx, f"{service}-other")
    for arguments in (
        ["note", one, "seen"],
        ["evidence", one, "graph=https://observe.example/1"],
        ["severity", one, "sev1", "--reason", "spreading"],
        ["link", one, "caused-by", other],
    ):
        code, out, _ = opx(*arguments)
        assert (code, out[0]["answer"]) == (0, "applied")
    _, events, _ = opx("open", one, "--events")
    kinds = ["NoteAdded", "EvidenceAttached", "SeverityChanged", "IncidentLinked"]
    assert [event["eventType"] for event in events][2:] == kinds


@pytest.mark.parametrize(("verb", "state"), [("promote", "OPEN"), ("dismiss", "CANCELLED")])
def test_a_pending_incident_is_promoted_or_dismissed_by_a_person(opx: Opx, service: str, verb: str, state: str) -> None:
    opx("send", "--json-body", candidate(service, severity="SEV4"))
    pending = incident_of(opx, service)
    assert pending["state"] == "PENDING"
    code, out, _ = opx(verb, pending["incidentId"], "--reason", "looked at it")
    assert (code, out[0]["state"]) == (0, state)


@pytest.mark.parametrize(
    ("arguments", "code", "then"),
    [
        (["close", "ID", "--reason", "x"], "transition-illegal", "open ID"),
        (["severity", "ID", "sev1", "--expect", "1"], "version-stale", "open ID"),
        (["cancel", "ID", "--reason", "x", "--as", "SYSTEM"], "transition-authority", "the same command with --as HUMAN"),
        (["cancel", "ID"], "reason-missing", "the same command with --reason TEXT"),
        (["note", "ffffffff-ffff-4fff-8fff-ffffffffffff", "x"], "incident-unknown", "list"),
    ],
)
def test_a_refusal_is_told_with_its_code_the_next_command_and_exit_1(
    opx: Opx, service: str, arguments: list[str], code: str, then: str
) -> None:
    identity = declared(opx, service)
    exit_code, out, err = opx(*(identity if part == "ID" else part for part in arguments))
    assert (exit_code, out, err[0]["code"]) == (1, [], code)
    assert err[0]["next"].endswith(then.replace("ID", identity[:8]))


def test_a_reused_key_is_refused_and_a_repeated_command_is_answered_again(opx: Opx, service: str) -> None:
    identity, key = declared(opx, service), f"key-{uuid4().hex}"
    first = opx("note", identity, "once", "--key", key)
    assert opx("note", identity, "once", "--key", key) == (0, [first[1][0] | {"replayed": True}], [])
    code, _, err = opx("note", identity, "other", "--key", key)
    assert (code, err[0]["code"]) == (1, "key-reused")
    _, told, _ = opx("receipt", key)
    assert (told[0]["outcome"], told[0]["incidentId"]) == ("applied", identity)
    _, events, _ = opx("open", identity, "--events")
    assert [event["eventType"] for event in events].count("NoteAdded") == 1
