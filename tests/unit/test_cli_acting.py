"""What a person does to one incident at the command line, through the real HTTP door over the memory store."""

import json

import httpx
import pytest
from typer.testing import CliRunner

from pipeline.cli.acting import Step, Terms, between, first_key, lead
from pipeline.cli.main import app
from pipeline.cli.target import Selection
from pipeline.cli.terminal import DONE, FAILED, REFUSED, CommandError
from pipeline.cli.verbs import VERBS
from pipeline.clients.answers import ApiRefused
from pipeline.domain.transitions import TRANSITIONS, State
from tests.support.command_line import CommandLine

UNKNOWN = "ffffffff-ffff-4fff-8fff-ffffffffffff"


@pytest.fixture
def opx() -> CommandLine:
    return CommandLine()


def test_an_incident_is_led_through_its_life(opx: CommandLine) -> None:
    one = opx.declared()
    steps = [("mitigate", "MITIGATING"), ("resolve", "RESOLVED"), ("close", "CLOSED")]
    for verb, state in steps:
        ran = opx(verb, one, "--reason", "a test")
        assert (ran.code, [line["state"] for line in ran.lines], ran.err) == (DONE, [state], "")
    assert opx.kinds(one)[2:] == ["MitigationStarted", "IncidentResolved", "IncidentClosed"]


def test_every_write_of_the_api_has_a_command(opx: CommandLine) -> None:
    one, other, wrong = opx.declared(), opx.declared(title="Payments fail"), opx.declared(title="A probe is broken")
    for arguments, kind in (
        (["note", one, "seen it"], "NoteAdded"),
        (["evidence", one, "graph=https://observe.example/1", "log=logs/1"], "EvidenceAttached"),
        (["severity", one, "sev1", "--reason", "spreading"], "SeverityChanged"),
        (["link", one, "caused-by", other[:12]], "IncidentLinked"),
        (["cancel", wrong, "--reason", "broken probe"], "IncidentCancelled"),
    ):
        ran = opx(*arguments)
        assert (ran.code, ran.lines[0]["answer"]) == (DONE, "applied"), ran.err
        assert opx.kinds(arguments[1])[-1] == kind
    assert [opx(verb, opx.pending(verb), "--reason", "seen").code for verb in ("promote", "dismiss")] == [DONE, DONE]
    assert {event["newState"] for event in opx.events()} == {"PENDING", "OPEN", "CANCELLED"}


def test_a_declaration_says_all_that_an_incident_can_hold(opx: CommandLine) -> None:
    given = ["--description", "since 3 AM", "--dedup-key", "carts", "--evidence", "log=logs/1", "--metadata", '{"a": 1.5}']
    given += ["--link", "runbook=https://wiki.example/carts?x=1", "--reason", "customers call"]
    ran = opx("declare", "--service", "checkout", "--severity", "sev1", "--title", "Carts are empty", *given)
    made = opx.events(ran.lines[0]["incidentId"])[0]["metadata"]
    assert (made["description"], made["dedupKey"], made["severity"]) == ("since 3 AM", "carts", "SEV1")
    assert (made["links"][0]["href"], made["evidence"][0]["ref"]) == ("https://wiki.example/carts?x=1", "logs/1")
    assert json.loads(json.dumps(made["tags"], default=float)) == {"a": 1.5}
    assert opx("declare", "--service", "s", "--severity", "sev1", "--title", "t", "--metadata", "[1]").code == REFUSED


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "then"),
    [
        (["close", "ID", "--reason", "x"], "transition-illegal", "opx open ID"),
        (["severity", "ID", "sev1", "--expect", "1"], "version-stale", "opx open ID"),
        (["cancel", "ID"], "reason-missing", "the same command with --reason TEXT"),
        (["mitigate", "ID", "--as", "system"], "authority-not-granted", "the same command with --as HUMAN or SYSTEM"),
        (["note", "ID", "x", "--actor", "eve"], "actor-not-assertable", "the same command without --actor"),
        (["link", "ID", "caused-by", "ID"], "link-to-itself", "the same command with another incident as the target"),
        (["note", UNKNOWN, "x"], "incident-unknown", "opx list"),
        (["note", "ID", " "], "invalid-field", "opx note --help"),
    ],
)
def test_a_refusal_is_told_with_its_code_the_next_command_and_exit_1(
    opx: CommandLine, arguments: list[str], code: str, then: str
) -> None:
    one = opx.declared()
    before = len(opx.events())
    ran = opx(*(one if part == "ID" else part for part in arguments))
    assert (ran.code, ran.out, ran.error["code"]) == (REFUSED, "", code)
    assert ran.next == then.replace("ID", one[:8])
    assert len(opx.events()) == before
    shown = opx(*(one if part == "ID" else part for part in arguments), people=True)
    assert shown.err.startswith("refused: ")
    assert shown.err.splitlines()[-1].startswith("Next: ")


@pytest.mark.parametrize("verb", ["mitigate", "resolve", "close", "cancel"])
def test_what_waits_at_the_gate_is_promoted_or_dismissed_next(opx: CommandLine, verb: str) -> None:
    one = opx.pending("waiting")
    ran = opx(verb, one, "--reason", "x", "--yes")
    assert (ran.code, ran.error["code"]) == (REFUSED, "transition-illegal")
    assert ran.next == f"opx promote {one[:8]} --reason TEXT, or opx dismiss {one[:8]} --reason TEXT"


def test_a_repeated_command_is_answered_again_and_a_reused_key_refused(opx: CommandLine) -> None:
    one = opx.declared()
    first = opx("note", one, "once", "--key", "k-1").lines[0]
    assert opx("note", one, "once", "--key", "k-1").lines[0] == first | {"replayed": True}
    ran = opx("note", one, "other", "--key", "k-1")
    assert (ran.code, ran.error["code"], ran.next) == (REFUSED, "key-reused", "the same command without --key")
    assert opx.kinds(one).count("NoteAdded") == 1


def test_silence_is_a_failure_that_names_the_key_under_which_another_try_is_safe(opx: CommandLine) -> None:
    one = opx.declared()
    opx.network.late = True
    opx.network.troubles = [httpx.ConnectError("down")] * 10_000
    ran = opx("note", one, "heard?", "--key", "k-2")
    assert (ran.code, ran.next) == (FAILED, "opx receipt k-2")
    assert "--key k-2" in ran.error["error"]
    opx.network.troubles = []
    assert opx("receipt", "k-2").lines[0]["outcome"] == "applied"
    assert opx("note", one, "heard?", "--key", "k-2").lines[0]["replayed"] is True
    assert opx.kinds(one).count("NoteAdded") == 1


def test_what_became_of_a_key_is_told_or_that_nobody_knows_it(opx: CommandLine) -> None:
    one = opx.declared()
    assert opx("cancel", one, "--reason", "x", "--expect", "1", "--key", "k-3").code == REFUSED
    found = opx("receipt", "k-3")
    assert (found.code, found.lines[0]["outcome"], found.lines[0]["result"]["code"]) == (DONE, "refused", "version-stale")
    shown = opx("receipt", "k-3", people=True).out
    assert "refused  version-stale" in shown
    assert f"Next: opx open {one[:8]}" in shown
    unknown = opx("receipt", "never")
    assert (unknown.code, unknown.out, unknown.error["outcome"]) == (REFUSED, "", "unknown")


# --- dry runs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["mitigate", "ID"], "MitigationStarted"),
        (["note", "ID", "x"], "NoteAdded"),
        (["evidence", "ID", "log=logs/1"], "EvidenceAttached"),
        (["severity", "ID", "sev1"], "SeverityChanged"),
        (["link", "ID", "duplicate-of", UNKNOWN], "IncidentLinked"),
        (["declare", "--service", "s", "--severity", "sev1", "--title", "t"], "IncidentCreated"),
        (["close", "ID", "--reason", "x"], None),
    ],
)
def test_a_dry_run_tells_the_events_or_the_refusal_and_changes_nothing(
    opx: CommandLine, arguments: list[str], kind: str | None
) -> None:
    one = opx.declared()
    store = opx.network.world.store
    before = (dict(store.incidents), dict(store.receipts), list(store.feed))
    given = [one if part == "ID" else part for part in arguments]
    ran, shown = opx(*given, "--dry-run"), opx(*given, "--dry-run", people=True)
    assert (dict(store.incidents), dict(store.receipts), list(store.feed)) == before
    if kind is None:
        assert (ran.code, ran.out) == (REFUSED, "")
        return
    assert (ran.code, ran.lines[0]["dryRun"]) == (DONE, True)
    assert ran.lines[0]["events"][0]["eventType"] == kind
    assert kind in shown.out
    assert "can't read it" not in shown.out
    assert "Next: the same command without --dry-run" in shown.out


# --- resolving what is OPEN ------------------------------------------------------------------------------------------

BOTH = ["MitigationStarted", "IncidentResolved"]


def test_resolving_what_is_open_is_refused_where_nobody_can_be_asked(opx: CommandLine) -> None:
    one = opx.declared()
    assert opx("resolve", one, "--reason", "over", people=True).code == REFUSED
    assert opx.asked != []
    opx.answer = True
    # A program is never asked, whoever sits there.
    ran = opx("resolve", one, "--reason", "over")
    assert (ran.code, ran.error["code"]) == (REFUSED, "transition-illegal")
    assert ran.next == "the same command with --yes, which takes both"
    assert opx.kinds(one)[2:] == []


@pytest.mark.parametrize(("answer", "kinds", "code"), [(True, BOTH, DONE), (False, [], REFUSED)])
def test_resolving_what_is_open_takes_both_steps_when_the_person_says_so(
    opx: CommandLine, answer: bool, kinds: list[str], code: int
) -> None:
    one, opx.answer = opx.declared(), answer
    ran = opx("resolve", one, "--reason", "over", people=True)
    assert (ran.code, opx.kinds(one)[2:]) == (code, kinds)
    assert answer or ran.err.endswith("Next: the same command with --yes\n")
    assert opx.asked == ["It is OPEN. Take both steps, OPEN → MITIGATING → RESOLVED?"]
    # With what `ask` puts behind it, it stays one line of a narrow terminal.
    assert len(f"{opx.asked[0]} [y/N] y") < 80


def test_with_yes_nobody_is_asked_and_both_outcomes_are_told(opx: CommandLine) -> None:
    one = opx.declared()
    ran = opx("resolve", one, "--reason", "over", "--yes", "--key", "both")
    assert [line["state"] for line in ran.lines] == ["MITIGATING", "RESOLVED"]
    assert [line["idempotencyKey"] for line in ran.lines] == ["both.first", "both"]
    assert (opx.asked, opx.kinds(one)[2:]) == ([], BOTH)
    assert {event["metadata"]["reason"] for event in opx.events(one)[2:]} == {"over"}


def test_what_is_mitigating_is_resolved_in_one_step_without_a_question(opx: CommandLine) -> None:
    one = opx.declared()
    opx("mitigate", one)
    assert len(opx("resolve", one, "--reason", "over").lines) == 1
    assert opx.asked == []


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
def test_no_step_is_taken_where_the_second_needs_another_authority(opx: CommandLine, dry_run: list[str]) -> None:
    one = opx.declared()
    opx.by_portal()
    ran = opx("resolve", one, "--reason", "over", "--as", "system", "--yes", *dry_run)
    assert (ran.code, ran.out, ran.error["code"], ran.error["state"]) == (REFUSED, "", "transition-authority", "OPEN")
    assert "MITIGATING → RESOLVED needs HUMAN authority" in ran.error["error"]
    assert ran.next == "the same command with --as HUMAN"
    assert opx.kinds(one)[2:] == []


async def test_no_step_is_taken_where_the_second_needs_a_reason_that_is_missing() -> None:
    opx = CommandLine()
    one = await opx.network.world.opened(service="ledger")
    async with opx.reach(Selection()) as api:
        with pytest.raises(ApiRefused) as refused:
            await lead(api, Step(State.RESOLVED, None), one, Terms().keyed("resolve"), lambda *_: True)
    assert refused.value.problem.code == "reason-missing"
    assert opx.kinds(one)[-1] == "IncidentOpened"


def test_a_second_step_that_is_refused_hides_no_first_one(opx: CommandLine) -> None:
    one = opx.declared()
    opx.overtaken(one, "both", "RESOLVED")
    ran = opx("resolve", one, "--reason", "over", "--yes", "--key", "both", "--expect", "2")
    assert (ran.code, ran.out, ran.error["code"]) == (REFUSED, "", "version-stale")
    assert [(done["state"], done["firstSequence"]) for done in ran.error["done"]] == [("MITIGATING", 3)]
    assert "now MITIGATING (event 3, stored); the second step was refused: version-stale" in ran.error["error"]
    assert ran.next == f"opx open {one[:8]}"


@pytest.mark.parametrize("consent", [[], ["--yes"]])
def test_a_dry_run_of_two_steps_tells_both_and_asks_nobody(opx: CommandLine, consent: list[str]) -> None:
    one = opx.declared()
    command = ["resolve", one, "--reason", "over", "--dry-run", *consent]
    ran, shown = opx(*command), opx(*command, people=True)
    assert (ran.code, shown.code, opx.asked, opx.kinds(one)[2:]) == (DONE, DONE, [], [])
    assert [(line["state"], line["dryRun"]) for line in ran.lines] == [("MITIGATING", True), ("RESOLVED", True)]
    assert ran.lines[1]["follows"] == "MITIGATING"
    assert "MitigationStarted" in shown.out
    assert "Then MITIGATING → RESOLVED, by HUMAN" in shown.out
    assert "Nothing would change" not in shown.out
    assert "Next: the same command without --dry-run" in shown.out


@pytest.mark.parametrize("expect", [[], ["--expect", "2"]])
@pytest.mark.parametrize("lost", ["first", "second"])
def test_two_steps_that_broke_off_are_finished_by_the_same_command(opx: CommandLine, lost: str, expect: list[str]) -> None:
    one = opx.declared()
    command = ["resolve", one, "--reason", "over", "--yes", "--key", "both", *expect]
    heard = opx.network.carry

    async def cut(request: httpx.Request) -> httpx.Response:
        found = await heard(request)
        wanted = "both.first" if lost == "first" else "both"
        if request.headers.get("Idempotency-Key") == wanted and "dryRun" not in str(request.url):
            raise httpx.ConnectError("cut off behind it")
        return found

    opx.network.carry = cut  # type: ignore[method-assign]
    ran = opx(*command)
    assert (ran.code, ran.next) == (FAILED, "opx receipt both")
    opx.network.carry = heard  # type: ignore[method-assign]
    assert opx(*command).lines[-1]["state"] == "RESOLVED"
    assert opx(*command).code == DONE
    assert opx.kinds(one)[2:] == BOTH


@pytest.mark.parametrize(("verb", "state"), [("close", "OPEN"), ("close", "MITIGATING"), ("cancel", "MITIGATING")])
def test_nothing_else_is_chained_however_hard_one_asks(opx: CommandLine, verb: str, state: str) -> None:
    one, opx.answer = opx.declared(), True
    if state == "MITIGATING":
        opx("mitigate", one)
    before = len(opx.events(one))
    ran = opx(verb, one, "--reason", "x", "--yes")
    assert (ran.code, ran.error["code"]) == (REFUSED, "transition-illegal")
    assert (opx.asked, len(opx.events(one))) == ([], before)


def test_the_step_in_between_is_the_tables_own() -> None:
    found = {state: between(state, State.RESOLVED) for state in State}
    assert {state: halfway for state, halfway in found.items() if halfway} == {State.OPEN: State.MITIGATING}
    assert between("ASLEEP", State.RESOLVED) is None
    assert all(between(row.source, row.target) is None for row in TRANSITIONS)


# --- keys, names, ids ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "a b", "x" * 129, "ä"])
def test_a_key_that_is_none_is_refused_before_anything_is_sent(opx: CommandLine, key: str) -> None:
    ran = opx("mitigate", UNKNOWN, "--key", key)
    assert (ran.code, ran.next) == (REFUSED, "opx mitigate --help")
    assert opx.network.seen == []


def test_the_longest_key_leaves_room_for_the_step_in_between() -> None:
    longest = Terms(key="x" * (128 - len(first_key("")))).keyed("resolve", len(first_key(""))).key
    assert len(first_key(str(longest))) == 128
    with pytest.raises(CommandError, match="1 to 122"):
        Terms(key=f"{longest}x").keyed("resolve", len(first_key("")))


def test_a_person_is_named_at_the_local_engine_and_by_their_signature_elsewhere(opx: CommandLine) -> None:
    for local in (False, True):
        opx.is_local = local
        opx("declare", "--service", "s", "--severity", "sev1", "--title", "t", "--dry-run")
        said = json.loads(opx.network.seen[-1].content)["authority"]
        assert ("actorId" in said, said["authorityType"]) == (local, "HUMAN")


@pytest.mark.parametrize("length", [36, 12, 8, 4])
def test_an_id_may_be_cut_short(opx: CommandLine, length: int) -> None:
    one = opx.declared()
    assert opx("note", f" {one[:length].upper()} ", "x").code == DONE
    # A whole id is not looked for: whoever may act need not be allowed to list.
    assert any(request.method == "GET" for request in opx.network.seen) is (length < 36)


@pytest.mark.parametrize("text", ["zz", " ", ""])
def test_an_id_that_means_nothing_is_refused_with_the_list_as_next_command(opx: CommandLine, text: str) -> None:
    opx.declared()
    ran = opx("note", text, "x")
    assert (ran.code, ran.next) == (REFUSED, "opx list")


@pytest.mark.parametrize(
    ("arguments", "then"),
    [
        (["note", "one"], "opx note --help"),
        (["note", "one", "two", "three"], "opx note --help"),
        (["mitigate"], "opx mitigate --help"),
        (["mitigate", "one", "two"], "opx mitigate --help"),
    ],
)
def test_too_little_or_too_much_is_refused_with_the_help(opx: CommandLine, arguments: list[str], then: str) -> None:
    ran = opx(*arguments)
    assert (ran.code, ran.next) == (REFUSED, then)
    assert ran.error["error"] == f"usage: opx {arguments[0]} {'ID TEXT' if arguments[0] == 'note' else 'ID'}"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["severity", "ID", "sev1"], "applied, now SEV1"),
        (["severity", "ID", "sev2"], "unchanged, now SEV2"),
        (["note", "ID", "seen"], "applied, note added"),
        (["evidence", "ID", "log=logs/1"], "applied, evidence attached"),
        (["link", "ID", "caused-by", UNKNOWN], f"applied, caused-by {UNKNOWN[:8]}"),
        (["mitigate", "ID"], "applied, now MITIGATING"),
    ],
)
def test_an_outcome_says_what_was_done(opx: CommandLine, arguments: list[str], line: str) -> None:
    one = opx.declared()
    shown = opx(*(one if part == "ID" else part for part in arguments), people=True)
    assert shown.out.splitlines()[0].split("  ")[0].strip() == line


@pytest.mark.parametrize("verb", [verb.name for verb in VERBS])
def test_the_help_of_a_verb_names_its_words_and_no_type_of_python(verb: str) -> None:
    shown = CliRunner().invoke(app, [verb, "--help"]).stdout
    assert "list[str]" not in shown
    assert f"{verb} [OPTIONS] [ID" in shown.splitlines()[0]
    assert "the beginning of it" in " ".join(shown.split())
