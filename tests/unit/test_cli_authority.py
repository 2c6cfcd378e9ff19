"""`opx authority check` and `list`: the answer is the gate's own, and a no says what exactly to change."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli.granting import Question, judge, sender_of
from pipeline.cli.main import app
from pipeline.cli.registry_file import formatted
from pipeline.cli.terminal import DONE, REFUSED, Screen
from pipeline.domain.authority import Claim, Registry, Sender, authorize, read_registry, sender_from_id
from pipeline.domain.canonical import normalise
from pipeline.domain.errors import Refusal
from pipeline.domain.transitions import AuthorityType
from tests.support.registry import ACCOUNT
from tests.support.registry_file import DOCUMENT, ENTRIES, ROLE, SIGNED, opx


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "authority.json"
    path.write_text(formatted(DOCUMENT), encoding="utf-8")
    return path


# --- check ----------------------------------------------------------------------------------------------------------------

YES: dict[str, tuple[list[str], str, str, list[str]]] = {
    "a unique id": (["AROAMONITOR", "candidate", "--service", "checkout"], "monitor", "<session>", ["queues", "api"]),
    "a session of it": (["AROAMONITOR:i-1", "candidate"], "monitor", "i-1", ["queues", "api"]),
    "a person": (["AROAPEOPLE:dana", "dismiss", "--as", "HUMAN"], "people", "dana", ["queues", "api"]),
    "a user": (["AIDALEE", "dismiss"], "lee", "AIDALEE", ["queues", "api"]),
    "one for another": (["AROABOT", "dismiss", "--as", "human", "--actor", "lee"], "bot", "lee", ["queues", "api"]),
    "a session's ARN": ([f"{SIGNED}/i-1", "add-note"], "pattern", "i-1", ["api"]),
    "a role's ARN": ([ROLE, "add-note"], "pattern", "<session>", ["api"]),
    "both, as the API knows them": ([f"arn:aws:iam::{ACCOUNT}:root", "audit"], "root", ACCOUNT, ["queues", "api"]),
    "a queue that proves its senders": (["queue:alarms", "candidate"], "alarms", "queue:alarms", ["queues"]),
    "a role of the stack, by its name": (["$redriveRole", "redrive"], "redrive", "<session>", ["queues", "api"]),
}


@pytest.mark.parametrize(("arguments", "by", "actor", "doors"), YES.values(), ids=YES.keys())
def test_a_yes_names_the_entry_that_decides(file: Path, arguments: list[str], by: str, actor: str, doors: list[str]) -> None:
    code, (answer,), _ = opx("check", *arguments, "--file", str(file))
    assert code == DONE
    assert (answer["allowed"], answer["entry"], answer["actorId"], answer["doors"]) == (True, by, actor, doors)


def test_a_yes_by_an_arn_pattern_says_that_it_never_counts_on_the_queues(file: Path) -> None:
    _, (answer,), _ = opx("check", ROLE, "add-note", "--file", str(file))
    assert any("never matches on the queues" in remark for remark in answer["remarks"])
    assert any("made again under the same name" in remark for remark in answer["remarks"])
    code, (refused,), _ = opx("check", "AROAOTHER:i-1", "add-note", "--file", str(file))
    assert (code, refused["allowed"]) == (REFUSED, False)
    assert any("pattern" in remark and "API alone" in remark for remark in refused["remarks"])


NO: dict[str, tuple[list[str], str, tuple[str, ...]]] = {
    "a stranger": (
        ["AROANEW:i-1", "candidate", "--service", "checkout"],
        "principal-unknown",
        ("opx authority add AROANEW --operations candidate --services checkout --authority SYSTEM --stage prod",),
    ),
    "a stranger on another stage": (["AROANEW", "candidate", "--stage", "dev"], "principal-unknown", ("add AROANEW",)),
    "a stranger who is a person": (["AROANEW", "dismiss", "--as", "HUMAN"], "principal-unknown", ("--session-is-person",)),
    "a user who is a person": (["AIDANEW", "dismiss", "--as", "HUMAN"], "principal-unknown", ("--principal-is-person",)),
    "another stage": (
        ["AROAMONITOR", "candidate", "--stage", "dev"],
        "principal-unknown",
        ("prod only", '"dev"', "entry monitor"),
    ),
    "a federated user": ([f"{ACCOUNT}:dana", "audit"], "principal-unknown", ("assume a role",)),
    "an access key": (["AKIAXEXAMPLE", "candidate"], "principal-unknown", ("get-caller-identity",)),
    "another service": (
        ["AROAMONITOR", "candidate", "--service", "search"],
        "operation-not-granted",
        ('"search"', "`services`", "entry monitor"),
    ),
    "another operation": (
        ["AROAMONITOR", "dismiss"],
        "operation-not-granted",
        ('"dismiss"', "`operations`", "entry monitor"),
    ),
    "both": (["AROAMONITOR", "dismiss", "--service", "search"], "operation-not-granted", ("an entry of its own",)),
    "no claim": (["AROABOT", "dismiss"], "authority-unclear", ("--as",)),
    "nobody named": (["AROABOT", "dismiss", "--as", "HUMAN"], "authority-not-granted", ("--actor",)),
    "a robot that is none": (
        ["AROAROBOT", "dismiss", "--as", "HUMAN"],
        "authority-not-granted",
        ("Claim SYSTEM", '"HUMAN"', '"sessionIsPerson": true', "entry robots"),
    ),
    "a person as a robot": (
        ["AROAPEOPLE", "dismiss", "--as", "SYSTEM"],
        "authority-not-granted",
        ('"SYSTEM"', "entry people"),
    ),
    "another's name": (["AROAPEOPLE:dana", "dismiss", "--actor", "lee"], "actor-not-assertable", ("assertsForOthers",)),
}


@pytest.mark.parametrize(("arguments", "code", "told"), NO.values(), ids=NO.keys())
def test_a_no_says_exactly_what_to_change(file: Path, arguments: list[str], code: str, told: tuple[str, ...]) -> None:
    exit_code, (answer,), _ = opx("check", *arguments, "--file", str(file))
    assert exit_code == REFUSED
    assert (answer["allowed"], answer["code"]) == (False, code)
    assert [part for part in told if part not in answer["change"]] == []


def test_the_answer_is_the_gates_own() -> None:
    known = Registry.load(DOCUMENT, "prod", {})
    for signer in ("AROAMONITOR:x", "AROAPEOPLE:x", "AIDALEE", "AROABOT:x", "AROAROBOT:x", ACCOUNT, "AROANEW:x"):
        for operation in ("candidate", "dismiss", "add-note", "audit", "redrive"):
            for claim in (None, Claim(authority_type=AuthorityType.HUMAN), Claim(actor_id="lee")):
                for service in (None, "checkout", "search"):
                    asked = judge(DOCUMENT, Question(signer, operation, "prod", service, claim)).found
                    expected = authorize(known, sender_from_id(signer), claim, operation, service)
                    assert (asked if isinstance(asked, Refusal) else asked.context) == expected


def test_a_change_that_is_proposed_makes_the_answer_yes(file: Path) -> None:
    _, (answer,), _ = opx("check", "AROANEW:i-1", "dismiss", "--service", "search", "--as", "HUMAN", "--file", str(file))
    command = answer["change"].removeprefix("opx authority ").split()
    assert opx(*command, "--file", str(file))[0] == DONE
    assert opx("check", "AROANEW:i-1", "dismiss", "--service", "search", "--as", "HUMAN", "--file", str(file))[0] == DONE


def test_the_same_signer_is_meant_however_it_is_written() -> None:
    assert sender_of("AROAX") == Sender("AROAX", "<session>")
    assert sender_of("AROAX:s") == Sender("AROAX", "s")
    assert sender_of("AIDAX") == Sender("AIDAX")
    assert sender_of("queue:alarms") == Sender("queue:alarms")
    assert sender_of(ROLE).arn == f"{SIGNED}/<session>"
    assert sender_of(f"{SIGNED}/s").session == "s"


@pytest.mark.parametrize("operation", ["candiate", "*", "detection", ""])
def test_an_operation_that_does_not_exist_is_no_question(file: Path, operation: str) -> None:
    code, records, error = opx("check", "AROAMONITOR", operation, "--file", str(file))
    assert (code, records) == (REFUSED, [])
    assert "detections and alarms are candidate" in error["error"]


def test_the_local_engines_account_acts_as_a_person_named_or_not() -> None:
    for more in ([], ["--actor", "dana"]):
        code, (answer,), _ = opx("check", "000000000000", "dismiss", "--as", "HUMAN", "--stage", "local", *more)
        assert (code, answer["entry"]) == (DONE, "local-operators")
    assert opx("check", "000000000000", "dismiss", "--as", "HUMAN")[0] == REFUSED


# --- list -----------------------------------------------------------------------------------------------------------------


def test_the_list_is_what_holds_on_a_stage(file: Path) -> None:
    assert [item["id"] for item in opx("list", "--file", str(file))[1]] == [one["id"] for one in ENTRIES]
    assert opx("list", "--stage", "dev", "--file", str(file))[1][0]["id"] == "people"
    assert {item["id"] for item in opx("list")[1]} == {"alarms-rule", "alertmanager-queue", "redrive-role", "retention-role"}


def test_what_is_listed_can_be_written_as_it_is(file: Path) -> None:
    listed = opx("list", "--file", str(file))[1]
    assert read_registry(normalise({"version": 1, "entries": listed})) == read_registry(DOCUMENT)


def test_people_see_names_and_no_markup(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Screen, "of", classmethod(lambda cls, as_json: cls(as_json)))
    monkeypatch.setenv("COLUMNS", "120")
    shown = CliRunner().invoke(app, ["authority", "list", "--file", str(file)]).stdout
    assert all(one["id"] in shown for one in ENTRIES)
    assert "sessionIsPerson" in shown
    yes = CliRunner().invoke(app, ["authority", "check", "AROAPEOPLE:dana", "dismiss", "--file", str(file)])
    assert "yes: dismiss" in yes.stdout
    assert "entry people" in yes.stdout
    no = CliRunner().invoke(app, ["authority", "check", "AROANEW", "dismiss", "--file", str(file)])
    assert (no.exit_code, no.stdout) == (REFUSED, "")
    assert "Next: opx authority add AROANEW" in no.stderr


def test_every_command_shows_an_example() -> None:
    for name in ("check", "list", "add"):
        assert "Example: opx authority" in CliRunner().invoke(app, ["authority", name, "--help"]).stdout
