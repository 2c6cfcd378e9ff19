"""The incident controller on a real store: each row of the specification's table of outcomes."""

from datetime import timedelta
from typing import Any

import pytest

from pipeline.domain.errors import Code, Conflict, Unavailable
from pipeline.domain.receipts import Answer
from pipeline.domain.transitions import State
from pipeline.services.decision import Applied, Refused, Replayed, View
from pipeline.services.ports import Commit, CommitResult
from pipeline.stores.memory import MemoryStore
from tests.support.audit import audit
from tests.support.bodies import alarm_body, candidate_body, command_body, declare_body, text_of
from tests.support.histories import INCIDENT_ID, OTHER_ID
from tests.support.registry import AUTOMATION, CHECKOUT_ONLY, DETECTOR, OPERATOR, PORTAL, STRANGER
from tests.support.world import World, applied, refused, replayed

MITIGATE = command_body("change-state", INCIDENT_ID, newState="MITIGATING")
RESOLVE = command_body("change-state", INCIDENT_ID, newState="RESOLVED", reason="rolled back")
CLOSE = command_body("change-state", INCIDENT_ID, newState="CLOSED", reason="reviewed")


async def opened() -> World:
    """Return a world with one open incident of the service checkout."""
    world = World()
    await world.offer(candidate_body())
    return world


async def test_a_command_is_applied() -> None:
    world = await opened()
    outcome = await world.order(MITIGATE)
    incident = applied(outcome)
    assert isinstance(outcome, Applied)
    assert (incident.state, incident.authority.actor_id) == (State.MITIGATING, "dana@example.com")
    assert outcome.before is not None
    assert outcome.before.state is State.OPEN
    result = outcome.receipt.result
    assert (result.answer, result.first_sequence, result.last_sequence) == (Answer.APPLIED, 3, 3)
    assert (result.state, result.control_version) == (State.MITIGATING, 3)
    audit(world.store)


async def test_an_incident_is_walked_to_its_end() -> None:
    world = await opened()
    await world.walk(INCIDENT_ID, "MITIGATING", "RESOLVED", "CLOSED")
    archive = command_body("change-state", INCIDENT_ID, newState="ARCHIVED")
    assert refused(await world.order(archive)).code is Code.TRANSITION_AUTHORITY
    assert applied(await world.order(archive, AUTOMATION)).state is State.ARCHIVED
    audit(world.store)


REFUSED: dict[str, tuple[Any, Any, Code, int]] = {
    "an illegal transition": (CLOSE, OPERATOR, Code.TRANSITION_ILLEGAL, 409),
    "SEV9": (command_body("change-severity", INCIDENT_ID, severity="SEV9"), OPERATOR, Code.INVALID_FIELD, 400),
    "no authority for the transition": (
        command_body("change-state", INCIDENT_ID, newState="CANCELLED", reason="r"),
        AUTOMATION,
        Code.TRANSITION_AUTHORITY,
        403,
    ),
    "a stranger": (MITIGATE, STRANGER, Code.PRINCIPAL_UNKNOWN, 403),
    "a detector": (MITIGATE, DETECTOR, Code.OPERATION_NOT_GRANTED, 403),
    "HUMAN claimed by a program": (MITIGATE | {"authority": "HUMAN"}, AUTOMATION, Code.AUTHORITY_NOT_GRANTED, 403),
    "both granted, none claimed": (MITIGATE, PORTAL, Code.AUTHORITY_UNCLEAR, 400),
    "another's name": (MITIGATE | {"authority": {"actorId": "lee"}}, OPERATOR, Code.ACTOR_NOT_ASSERTABLE, 403),
    "an unknown incident": (MITIGATE | {"incidentId": OTHER_ID}, OPERATOR, Code.INCIDENT_UNKNOWN, 404),
    "a stale version": (MITIGATE | {"expectedVersion": 1}, OPERATOR, Code.VERSION_STALE, 412),
    "no reason": (
        command_body("change-state", INCIDENT_ID, newState="CANCELLED"),
        OPERATOR,
        Code.REASON_MISSING,
        400,
    ),
    "a link to itself": (
        command_body("link", INCIDENT_ID, relation="caused-by", target=INCIDENT_ID),
        OPERATOR,
        Code.LINK_TO_ITSELF,
        400,
    ),
    "a candidate": (candidate_body(), OPERATOR, Code.UNKNOWN_TYPE, 400),
    "an alarm": (alarm_body(), OPERATOR, Code.UNKNOWN_TYPE, 400),
    "an unknown type": (command_body("reopen", INCIDENT_ID), OPERATOR, Code.UNKNOWN_TYPE, 400),
    "a type that is no text": (command_body("link", INCIDENT_ID, type=[1]), OPERATOR, Code.UNKNOWN_TYPE, 400),
    "a principal in the body": (MITIGATE | {"principal": "x"}, OPERATOR, Code.UNKNOWN_FIELD, 400),
    "a future schema version": (MITIGATE | {"schemaVersion": 2}, OPERATOR, Code.UNSUPPORTED_SCHEMA_VERSION, 400),
    "not JSON": ("{", OPERATOR, Code.MALFORMED_JSON, 400),
    "a body over 256 KB": ('"' + "x" * 256 * 1024, OPERATOR, Code.TOO_LARGE, 400),
}


@pytest.mark.parametrize("keyed", [True, False], ids=["own key", "derived key"])
@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
async def test_a_refusal_changes_nothing_and_only_409_and_412_under_the_callers_key_are_remembered(
    case: Any, keyed: bool
) -> None:
    body, sender, code, status = case
    if keyed and isinstance(body, dict) and body.get("type") != "candidate" and "detail-type" not in body:
        body = body | {"idempotencyKey": "k-1"}
    world = await opened()
    before = (dict(world.store.incidents), len(world.store.feed), len(world.store.receipts))
    refusal = refused(await world.order(body, sender))
    assert (refusal.code, refusal.status) == (code, status)
    remembered = keyed and status in (409, 412)
    after = (world.store.incidents, len(world.store.feed), len(world.store.receipts) - remembered)
    assert after == before
    audit(world.store)


async def test_the_same_request_again_is_answered_as_the_first_time() -> None:
    world = await opened()
    body = MITIGATE | {"idempotencyKey": "k-1"}
    first = await world.order(body)
    assert isinstance(first, Applied)
    await world.walk(INCIDENT_ID, "RESOLVED", "CLOSED")
    world.clock.jump(timedelta(days=365))
    assert replayed(await world.order(body)) == first.receipt
    audit(world.store)


async def test_a_redelivered_command_without_key_is_replayed_though_the_state_moved_on() -> None:
    world = await opened()
    first = await world.order(MITIGATE, message_id="m-1")
    assert isinstance(first, Applied)
    assert replayed(await world.order(MITIGATE, message_id="m-1")) == first.receipt
    await world.walk(INCIDENT_ID, "RESOLVED")
    assert replayed(await world.order(MITIGATE, message_id="m-1")) == first.receipt
    assert refused(await world.order(MITIGATE, message_id="m-2")).code is Code.TRANSITION_ILLEGAL
    audit(world.store)


async def test_a_redelivered_command_is_replayed_though_its_version_is_stale_by_now() -> None:
    world = await opened()
    body = MITIGATE | {"expectedVersion": 2}
    assert isinstance(await world.order(body, message_id="m-1"), Applied)
    assert isinstance(await world.order(body, message_id="m-1"), Replayed)


async def test_a_key_used_for_another_request_is_refused() -> None:
    world = await opened()
    await world.order(MITIGATE | {"idempotencyKey": "k-1"})
    for body in (RESOLVE | {"idempotencyKey": "k-1"}, MITIGATE | {"idempotencyKey": "k-1", "reason": "why"}):
        refusal = refused(await world.order(body))
        assert (refusal.code, refusal.status) == (Code.KEY_REUSED, 422)
    assert world.row(INCIDENT_ID)["state"] == "MITIGATING"


async def test_a_key_is_scoped_to_its_principal() -> None:
    world = await opened()
    body = command_body("add-note", INCIDENT_ID, note="n", idempotencyKey="k-1")
    outcomes = [await world.order(body, sender) for sender in (OPERATOR, AUTOMATION, CHECKOUT_ONLY, OPERATOR)]
    assert [type(outcome) for outcome in outcomes] == [Applied, Applied, Applied, Replayed]


async def test_a_remembered_refusal_stays_the_answer_though_it_would_be_legal_now() -> None:
    world = await opened()
    body = RESOLVE | {"idempotencyKey": "k-1"}
    refusal = refused(await world.order(body))
    assert (refusal.state, set(refusal.allowed)) == ("OPEN", {"MITIGATING", "CANCELLED"})
    await world.walk(INCIDENT_ID, "MITIGATING")
    assert replayed(await world.order(body)).refusal() == refusal
    assert isinstance(await world.order(RESOLVE | {"idempotencyKey": "k-2"}), Applied)
    audit(world.store)


async def test_a_refusal_under_a_derived_key_may_succeed_later() -> None:
    world = await opened()
    assert isinstance(await world.order(RESOLVE, message_id="m-1"), Refused)
    await world.walk(INCIDENT_ID, "MITIGATING")
    assert isinstance(await world.order(RESOLVE, message_id="m-1"), Applied)


@pytest.mark.parametrize("sender", [STRANGER, DETECTOR])
async def test_a_stranger_learns_nothing_of_what_exists(sender: Any) -> None:
    world = await opened()
    known, unknown = [
        refused(await world.order(MITIGATE | {"incidentId": target}, sender)) for target in (INCIDENT_ID, OTHER_ID)
    ]
    assert known == unknown


async def test_a_grant_on_one_service_is_none_on_another() -> None:
    world = await opened()
    assert applied(await world.order(MITIGATE, CHECKOUT_ONLY)).state is State.MITIGATING
    other = applied(await world.offer(candidate_body(service="search")))
    body = command_body("change-state", other.incident_id, newState="MITIGATING")
    assert refused(await world.order(body, CHECKOUT_ONLY)).code is Code.OPERATION_NOT_GRANTED


async def test_who_spoke_for_whom_is_stored() -> None:
    world = await opened()
    claim = {"authorityType": "HUMAN", "actorId": "lee", "justification": "on the phone"}
    authority = applied(await world.order(RESOLVE | {"newState": "MITIGATING", "authority": claim}, PORTAL)).authority
    assert authority.to_document() == {
        "authorityType": "HUMAN",
        "principal": PORTAL.principal,
        "actorId": "lee",
        "assertedBy": "portal",
        "justification": "on the phone",
    }


async def test_a_view_that_is_behind_never_causes_a_refusal() -> None:
    world = await opened()
    view = View()
    await world.order(command_body("add-note", INCIDENT_ID, note="n"), view=view)
    assert view.by_id[INCIDENT_ID].state is State.OPEN
    await world.walk(INCIDENT_ID, "MITIGATING")
    assert applied(await world.order(RESOLVE, view=view)).state is State.RESOLVED


async def test_a_view_that_is_behind_does_not_let_a_stale_version_pass() -> None:
    world = await opened()
    view = View()
    await world.order(command_body("add-note", INCIDENT_ID, note="n"), view=view)
    await world.order(command_body("change-severity", INCIDENT_ID, severity="SEV1"))
    refusal = refused(await world.order(MITIGATE | {"expectedVersion": 2}, view=view))
    assert refusal.code is Code.VERSION_STALE
    current = MITIGATE | {"expectedVersion": world.row(INCIDENT_ID)["controlVersion"]}
    assert isinstance(await world.order(current, view=view), Applied)


async def test_an_expected_version_survives_a_storm_of_evidence() -> None:
    world = await opened()
    for _ in range(20):
        await world.offer(candidate_body())
    assert world.row(INCIDENT_ID)["version"] == 22
    assert isinstance(await world.order(MITIGATE | {"expectedVersion": 2}), Applied)


async def test_the_same_severity_is_an_answer_without_event() -> None:
    world = await opened()
    outcome = await world.order(command_body("change-severity", INCIDENT_ID, severity="SEV2", idempotencyKey="k-1"))
    assert isinstance(outcome, Applied)
    assert (outcome.receipt.result.answer, outcome.incident) == (Answer.UNCHANGED, None)
    await world.order(command_body("change-severity", INCIDENT_ID, severity="SEV1"))
    again = await world.order(command_body("change-severity", INCIDENT_ID, severity="SEV2", idempotencyKey="k-1"))
    assert replayed(again) == outcome.receipt


async def test_an_unknown_incident_may_be_known_later() -> None:
    world = World()
    body = MITIGATE | {"idempotencyKey": "k-1"}
    assert refused(await world.order(body)).status == 404
    await world.offer(candidate_body())
    assert isinstance(await world.order(body), Applied)


async def test_a_dismissal_is_two_steps_in_one_transaction() -> None:
    world = World()
    await world.offer(candidate_body(confidence=0.1))
    outcome = await world.order(command_body("dismiss", INCIDENT_ID, authority={"justification": "a test"}))
    assert applied(outcome).state is State.CANCELLED
    assert world.types(INCIDENT_ID)[-2:] == ["IncidentOpened", "IncidentCancelled"]
    audit(world.store)


async def test_a_person_promotes_what_the_gate_deferred() -> None:
    world = World()
    await world.offer(candidate_body(severity="SEV4", confidence=0.1))
    assert applied(await world.order(command_body("request-promotion", INCIDENT_ID, reason="calls"))).state is State.OPEN
    audit(world.store)


# --- declarations ----------------------------------------------------------------------------------------------------


async def test_what_a_person_declares_is_open_in_the_answer() -> None:
    world = World()
    outcome = await world.order(declare_body(idempotencyKey="k-1", reason="customers call"))
    incident = applied(outcome)
    assert isinstance(outcome, Applied)
    assert (outcome.receipt.result.answer, incident.state) == (Answer.CREATED, State.OPEN)
    created = world.store.feed[0]
    assert created["actor"]["justification"] == "customers call"
    assert created["metadata"]["observation"]["kind"] == "declaration"
    assert isinstance(await world.order(declare_body(idempotencyKey="k-1", reason="customers call")), Replayed)
    audit(world.store)


async def test_what_a_program_declares_waits_for_a_person() -> None:
    world = World()
    incident = applied(await world.order(declare_body(dedupKey="carts"), AUTOMATION))
    assert incident.state is State.PENDING
    body = command_body("request-promotion", incident.incident_id, reason="seen")
    assert applied(await world.order(body)).state is State.OPEN


async def test_a_declaration_joins_the_open_incident_of_its_key() -> None:
    world = await opened()
    outcome = await world.order(declare_body(dedupKey="checkout-5xx", severity="SEV1"))
    assert isinstance(outcome, Applied)
    assert (outcome.receipt.result.answer, outcome.receipt.incident_id) == (Answer.JOINED, INCIDENT_ID)
    assert applied(outcome).severity.value == "SEV1"
    audit(world.store)


async def test_a_declaration_opens_what_the_gate_deferred() -> None:
    world = World()
    await world.offer(candidate_body(confidence=0.1))
    assert applied(await world.order(declare_body(dedupKey="checkout-5xx"))).state is State.OPEN
    audit(world.store)


async def test_declarations_without_dedup_key_are_troubles_of_their_own() -> None:
    world = World()
    ids = {applied(await world.order(declare_body(idempotencyKey=key))).incident_id for key in ("k-1", "k-2")}
    ids |= {applied(await world.order(declare_body())).incident_id for _ in range(2)}
    assert len(ids) == 4


@pytest.mark.parametrize(
    ("sender", "code"),
    [(STRANGER, Code.PRINCIPAL_UNKNOWN), (DETECTOR, Code.OPERATION_NOT_GRANTED), (PORTAL, Code.AUTHORITY_UNCLEAR)],
    ids=["a stranger", "a detector", "unclear"],
)
async def test_a_declaration_without_authority_leaves_no_row(sender: Any, code: Code) -> None:
    world = World()
    assert refused(await world.order(declare_body(idempotencyKey="k-1"), sender)).code is code
    assert (world.store.incidents, world.store.receipts) == ({}, {})


# --- contention ------------------------------------------------------------------------------------------------------


class ContendedStore(MemoryStore):
    """A memory store in which the first `conflicts` commits meet somebody else's transaction."""

    def __init__(self, conflicts: int) -> None:
        super().__init__()
        self.conflicts = conflicts

    async def commit(self, commit: Commit) -> CommitResult:
        if self.conflicts > 0:
            self.conflicts -= 1
            raise Conflict("another transaction holds the item")
        return await super().commit(commit)


async def test_a_conflict_is_decided_again() -> None:
    world = World(ContendedStore(0))
    await world.offer(candidate_body())
    world.store.conflicts = 7  # type: ignore[attr-defined]
    outcome = await world.order(MITIGATE)
    assert isinstance(outcome, Applied)
    assert outcome.attempts == 8
    assert world.clock.elapsed_s > 0
    audit(world.store)


async def test_what_is_still_contended_at_the_deadline_is_unavailable_and_may_be_sent_again() -> None:
    world = World(ContendedStore(0))
    await world.offer(candidate_body())
    world.store.conflicts = 10_000  # type: ignore[attr-defined]
    work = world.controller.read(text_of(MITIGATE), world.received(OPERATOR, "m-1"))
    with pytest.raises(Unavailable):
        await world.controller.take(work, View(), world.clock.monotonic() + 20)
    assert 18 < world.clock.elapsed_s <= 20
    assert world.store.conflicts > 9_000  # type: ignore[attr-defined]
    world.store.conflicts = 0  # type: ignore[attr-defined]
    assert isinstance(await world.order(MITIGATE, message_id="m-1"), Applied)
