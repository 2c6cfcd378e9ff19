"""Signed identities as both doors show them: the same principal from both, and HUMAN believed of persons only."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain.authority import (
    AuthorityContext,
    Claim,
    Registry,
    Sender,
    authorize,
    grant,
    sender_from_identity,
)
from pipeline.domain.errors import Code, Refusal, Rejected
from pipeline.domain.transitions import AuthorityType
from pipeline.runtime.records import messages_of
from pipeline.services.rejection import origin
from tests.support.bodies import candidate_body, command_body
from tests.support.doors import Doors, command_message, message
from tests.support.histories import INCIDENT_ID, ROOT
from tests.support.registry import ACCOUNT, entry, registry

HUMAN, SYSTEM = AuthorityType.HUMAN, AuthorityType.SYSTEM
IDENTITIES = {
    path.stem: json.loads(path.read_text("utf-8")) for path in sorted((ROOT / "tests/data/identities").glob("*.json"))
}
RELEASE, TASK, PERSON, USER = (
    IDENTITIES[name]["identity"]["caller"].partition(":")[0]
    for name in ("role_session", "ecs_task", "sso_person", "iam_user")
)
NOBODY = registry(entry("nobody", "AROANOBODY"))


def from_queue(name: str, known: Registry = NOBODY) -> Sender:
    (message,) = messages_of({"Records": [IDENTITIES[name]["sqsRecord"]]}, {}, "candidates")
    return origin(message, known).sender


def from_api(name: str) -> Sender:
    return sender_from_identity(IDENTITIES[name]["identity"])


BOTH_DOORS = [name for name, signer in IDENTITIES.items() if signer["sqsRecord"] and signer["identity"]]
ON_THE_QUEUE = [name for name, signer in IDENTITIES.items() if signer["sqsRecord"]]


@pytest.mark.parametrize("name", BOTH_DOORS)
def test_a_signer_is_the_same_principal_at_both_doors(name: str) -> None:
    queue, api = from_queue(name), from_api(name)
    assert (queue.principal, queue.session) == (api.principal, api.session)
    assert (queue.arn, api.arn) == (None, IDENTITIES[name]["identity"]["userArn"])
    assert queue.signed_id == IDENTITIES[name]["identity"]["caller"]


SESSIONS = {
    "role_session": "release-42",
    "ec2_instance": "i-0f3a9b7c6d5e4f321",
    "lambda_function": "remediate-checkout",
    "sso_person": "dana@example.com",
    "iam_user": None,
    "root": None,
    "federated_user": "dana",
    "sns_topic": None,
    "eventbridge_rule": None,
    "local_engine": None,
}


@pytest.mark.parametrize(("name", "session"), SESSIONS.items())
def test_the_session_is_what_follows_the_unique_id(name: str, session: str | None) -> None:
    assert from_queue(name).session == session


def test_a_container_that_was_started_again_is_the_same_sender() -> None:
    first, again = from_queue("ecs_task"), from_queue("ecs_task_restarted")
    assert first.principal == again.principal == TASK
    assert first.session != again.session
    known = registry(entry("search", TASK))
    for sender in (first, again):
        assert isinstance(authorize(known, sender, None, "candidate", "search"), AuthorityContext)


@pytest.mark.parametrize("name", [name for name in ON_THE_QUEUE if not name.startswith("role_session")])
def test_a_grant_to_one_role_lets_in_nobody_else(name: str) -> None:
    known = registry(entry("release", RELEASE))
    for sender in (from_queue(name), from_api(name) if name in BOTH_DOORS else from_queue(name)):
        refused = authorize(known, sender, None, "candidate", "checkout")
        assert isinstance(refused, Refusal)
        assert refused.code is Code.PRINCIPAL_UNKNOWN


def test_a_role_made_again_under_its_name_is_a_stranger_though_its_arn_is_the_same() -> None:
    known = registry(entry("release", RELEASE))
    old, new = from_api("role_session"), from_api("recreated_role")
    assert old.arn == new.arn
    assert known.of(old)
    assert known.of(new) == ()


def test_an_arn_pattern_counts_at_the_api_alone_and_only_in_its_account() -> None:
    known = registry(entry("release", f"arn:aws:sts::{ACCOUNT}:assumed-role/checkout-release/*"))
    assert known.of(from_api("role_session"))
    assert known.of(from_queue("role_session")) == ()
    assert known.of(from_api("other_account")) == ()


def test_single_sign_on_is_matched_by_its_permission_set_whatever_suffix_it_was_given() -> None:
    pattern = f"arn:aws:sts::{ACCOUNT}:assumed-role/AWSReservedSSO_OnCall_*/*"
    known = registry(entry("on-call", pattern, kinds="HUMAN", operations=["dismiss"], sessionIsPerson=True))
    found = authorize(known, from_api("sso_person"), None, "dismiss", "checkout")
    assert isinstance(found, AuthorityContext)
    assert (found.principal, found.actor_id) == (PERSON, "dana@example.com")
    assert all(known.of(from_api(name)) == () for name in BOTH_DOORS if name != "sso_person")


UNSIGNED = [{}, {"caller": None}, {"caller": ""}, {"caller": 7}, {"caller": ":x"}, {"caller": "a\nb"}]


@pytest.mark.parametrize("identity", UNSIGNED)
def test_a_request_that_nobody_signed_has_no_sender(identity: dict[str, Any]) -> None:
    arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/checkout-release/release-42"
    with pytest.raises(Rejected) as refused:
        sender_from_identity({"userArn": arn} | identity)
    assert refused.value.refusal.code is Code.PRINCIPAL_UNKNOWN


def test_an_unsigned_request_as_the_api_shows_it_has_no_sender() -> None:
    with pytest.raises(Rejected):
        from_api("unsigned")


@pytest.mark.parametrize("sender_id", ["", ":", ":session", "  ", "AROAX\n:s", f"AROAX:{'s' * 300}", "\x00"])
def test_a_message_whose_sender_is_nobody_is_refused_and_not_tried_again(sender_id: str) -> None:
    record = IDENTITIES["role_session"]["sqsRecord"]
    attributes = record["attributes"] | {"SenderId": sender_id}
    (message,) = messages_of({"Records": [record | {"attributes": attributes}]}, {}, "candidates")
    with pytest.raises(Rejected) as refused:
        origin(message, NOBODY)
    assert refused.value.refusal.code is Code.PRINCIPAL_UNKNOWN


@pytest.mark.parametrize("sender_id", ["", ":session", "AROAX\n:s"])
async def test_both_doors_keep_such_a_message_instead_of_trying_it_again(sender_id: str) -> None:
    doors = Doors()
    note = command_body("add-note", INCIDENT_ID, note="x")
    assert await doors.offer(message("candidate", candidate_body(), sender_id=sender_id)) == ()
    assert await doors.order(command_message("command", note, sender_id=sender_id)) == ()
    assert doors.rejected.codes() == [Code.PRINCIPAL_UNKNOWN] * 2
    assert [kept.explanation["originalSenderId"] for kept in doors.rejected.messages] == [sender_id] * 2
    assert doors.store.calls == []


# --- who is a person ----------------------------------------------------------------------------------------------------

SSO = entry("sso", PERSON, kinds="HUMAN SYSTEM", operations=["dismiss"], sessionIsPerson=True)
LONE = entry("lone", USER, kinds="HUMAN SYSTEM", operations=["dismiss"], principalIsPerson=True)
BOT = entry("bot", RELEASE, kinds="HUMAN SYSTEM", operations=["dismiss"], assertsForOthers=True)
ROBOT = entry("robot", TASK, operations=["dismiss"])
PEOPLE = registry(SSO, LONE, BOT, ROBOT)


def asked(name: str, known: Registry = PEOPLE, **claim: Any) -> Any:
    return authorize(known, from_queue(name), Claim(**claim) if claim else None, "dismiss", "checkout")


@pytest.mark.parametrize(
    ("name", "claim", "actor", "asserted_by"),
    [
        ("sso_person", {}, "dana@example.com", None),
        ("sso_person", {"actor_id": "dana@example.com"}, "dana@example.com", None),
        ("sso_person", {"actor_id": f"{PERSON}:dana@example.com"}, "dana@example.com", None),
        ("sso_person", {"actor_id": PERSON}, "dana@example.com", None),
        ("iam_user", {}, USER, None),
        ("role_session", {"actor_id": "lee"}, "lee", "release-42"),
    ],
)
def test_human_is_believed_of_a_person(name: str, claim: Any, actor: str, asserted_by: str | None) -> None:
    found = asked(name, authority_type=HUMAN, **claim)
    assert isinstance(found, AuthorityContext)
    assert (found.authority_type, found.actor_id, found.asserted_by) == (HUMAN, actor, asserted_by)


@pytest.mark.parametrize(
    ("name", "claim", "told"),
    [
        ("role_session", {}, "authority.actorId"),
        ("role_session", {"actor_id": "release-42"}, "authority.actorId"),
        ("role_session", {"actor_id": RELEASE}, "authority.actorId"),
        ("role_session", {"actor_id": f"{RELEASE}:release-42"}, "authority.actorId"),
        ("ecs_task", {}, "not granted"),
    ],
)
def test_automation_that_claims_human_is_told_what_to_do(name: str, claim: Any, told: str) -> None:
    found = asked(name, authority_type=HUMAN, **claim)
    assert isinstance(found, Refusal)
    assert (found.code, found.status, found.field) == (Code.AUTHORITY_NOT_GRANTED, 403, "authority")
    assert told in found.detail


def test_a_flag_about_sessions_makes_no_person_of_a_signer_without_one_and_the_other_way_round() -> None:
    role, user = Sender(PERSON), Sender(USER, "session")
    for sender, told in ((role, "principalIsPerson"), (user, "sessionIsPerson")):
        found = authorize(PEOPLE, sender, Claim(authority_type=HUMAN), "dismiss", "checkout")
        assert isinstance(found, Refusal)
        assert found.code is Code.AUTHORITY_NOT_GRANTED
        assert told in found.detail


@pytest.mark.parametrize("name", ["sso_person", "iam_user", "role_session"])
def test_a_system_claim_makes_nobody_a_person(name: str) -> None:
    found = asked(name, authority_type=SYSTEM)
    assert isinstance(found, AuthorityContext)
    assert (found.authority_type, found.asserted_by) == (SYSTEM, None)


def test_the_only_type_that_is_granted_is_no_way_around_the_person() -> None:
    known = registry(entry("bot", RELEASE, kinds="HUMAN", operations=["dismiss"], assertsForOthers=True))
    assert asked("role_session", known).code is Code.AUTHORITY_NOT_GRANTED
    assert asked("role_session", known, actor_id="lee").authority_type is HUMAN


def test_one_entrys_flag_does_not_serve_another_entrys_grant() -> None:
    known = registry(
        entry("person", PERSON, kinds="HUMAN", operations=["add-note"], sessionIsPerson=True),
        entry("bot", PERSON, kinds="HUMAN", operations=["dismiss"], assertsForOthers=True),
    )
    assert asked("sso_person", known, authority_type=HUMAN).code is Code.AUTHORITY_NOT_GRANTED
    assert asked("sso_person", known, authority_type=HUMAN, actor_id="lee").actor_id == "lee"


def test_the_entry_that_decides_is_the_first_that_allows_all_that_was_asked() -> None:
    known = registry(BOT | {"id": "first"}, BOT | {"id": "second", "assertsForOthers": False, "sessionIsPerson": True})
    human = Claim(authority_type=HUMAN)
    deciding = grant(known, from_queue("role_session"), human, "dismiss", "checkout")
    asserting = grant(known, from_queue("role_session"), Claim(authority_type=HUMAN, actor_id="lee"), "dismiss", None)
    assert not isinstance(deciding, Refusal)
    assert not isinstance(asserting, Refusal)
    assert (deciding.entry.id, asserting.entry.id) == ("second", "first")


# --- what holds for every registry ---------------------------------------------------------------------------------------


ASKING = ["role_session", "sso_person", "iam_user", "root", "federated_user", "other_account"]
ASKED_FOR = ["candidate", "dismiss", "add-note"]


def random_entry(rng: random.Random, number: int) -> dict[str, Any]:
    principal = rng.choice([RELEASE, PERSON, USER, ACCOUNT, f"arn:aws:sts::{ACCOUNT}:assumed-role/*/*"])
    kinds = rng.choice(["HUMAN", "SYSTEM", "HUMAN SYSTEM"])
    role = principal.startswith(("AROA", "arn:aws:sts"))
    flags = {
        "sessionIsPerson": role and rng.random() < 0.5,
        "principalIsPerson": not role and rng.random() < 0.5,
        "assertsForOthers": rng.random() < 0.5,
    }
    if "HUMAN" in kinds and not any(flags.values()):
        flags["assertsForOthers"] = True
    operations = rng.sample(ASKED_FOR, rng.randint(1, 2))
    services = rng.choice([["*"], ["checkout"], ["check*", "search"]])
    return entry(f"entry-{number}", principal, kinds=kinds, operations=operations, services=services, **flags)


def test_no_registry_lets_anybody_do_more_than_one_of_its_entries_says(rng: random.Random) -> None:
    allowed = 0
    for _ in range(5000):
        known = registry(*(random_entry(rng, number) for number in range(rng.randint(1, 4))))
        sender = rng.choice([from_queue, from_api])(rng.choice(ASKING))
        kind, actor = rng.choice([None, HUMAN, SYSTEM]), rng.choice([None, "lee", sender.signed_id])
        claim = Claim(authority_type=kind, actor_id=actor)
        operation, service = rng.choice(ASKED_FOR), rng.choice(["checkout", "search", "other"])
        found = grant(known, sender, claim, operation, service)
        if isinstance(found, Refusal):
            continue
        allowed += 1
        one, context = found.entry, found.context
        assert one in known.of(sender)
        assert operation in one.operations
        assert context.authority_type in one.authority_types
        assert kind in (None, context.authority_type)
        assert context.asserted_by is None or one.asserts_for_others
        if context.authority_type is HUMAN and context.asserted_by is None:
            assert one.session_is_person if sender.session else one.principal_is_person
        assert grant(Registry((one,)), sender, claim, operation, service) == found
        # Whoever may do it on this service is not turned away before the incident's service is known.
        before = authorize(known, sender, claim, operation, None)
        assert isinstance(before, AuthorityContext) or before.code is Code.AUTHORITY_UNCLEAR
    assert allowed > 150


def test_the_files_of_identities_are_all_used_and_say_who_they_are() -> None:
    assert {*BOTH_DOORS, *ON_THE_QUEUE, "unsigned"} == set(IDENTITIES)
    assert all(signer["what"] for signer in IDENTITIES.values())
    assert Path(ROOT / "tests/data/identities/README.md").exists()
