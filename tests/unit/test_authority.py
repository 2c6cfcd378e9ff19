"""The authority gate on recorded identities: who is let through, as whom, and what the others are told."""

from typing import Any, get_args

import pytest

from pipeline.domain.authority import (
    CANDIDATE_OPERATION,
    COMMAND_OPERATIONS,
    OPERATIONS,
    AuthorityContext,
    Claim,
    Registry,
    Sender,
    authorize,
    sender_from_id,
)
from pipeline.domain.canonical import normalise, parse_document
from pipeline.domain.commands import COMMAND_TYPES, Declare, OnIncident
from pipeline.domain.errors import Code, Refusal, Rejected
from pipeline.domain.transitions import AuthorityType
from tests.support.histories import ROOT
from tests.support.registry import (
    ALARMS,
    AUTOMATION,
    CHECKOUT_ONLY,
    DETECTOR,
    OPERATOR,
    PORTAL,
    STRANGER,
    entry,
    registry,
)

HUMAN, SYSTEM = AuthorityType.HUMAN, AuthorityType.SYSTEM
SHIPPED = parse_document((ROOT / "pipeline" / "policies" / "authority.json").read_bytes())

SENDER_IDS = [
    ("AROAXEXAMPLE:session-1", Sender("AROAXEXAMPLE", "session-1")),
    ("AROAXEXAMPLE:a:b", Sender("AROAXEXAMPLE", "a:b")),
    ("AROAXEXAMPLE:", Sender("AROAXEXAMPLE")),
    ("AIDAXEXAMPLE", Sender("AIDAXEXAMPLE")),
    ("123456789012", Sender("123456789012")),
    ("123456789012:dana", Sender("123456789012:dana", "dana")),
    (":session", Sender("", "session")),
    ("::", Sender("", ":")),
    (":", Sender("")),
    ("", Sender("")),
    ("queue:alarms", Sender("queue", "alarms")),
]


@pytest.mark.parametrize(("sender_id", "sender"), SENDER_IDS)
def test_a_principal_is_the_unique_id_without_its_session(sender_id: str, sender: Sender) -> None:
    assert sender_from_id(sender_id) == sender


@pytest.mark.parametrize("sender_id", ["AROAXEXAMPLE:session-1", "AROAXEXAMPLE:a:b", "AIDAXEXAMPLE", ":session", ""])
def test_a_sender_tells_the_identity_it_was_read_from(sender_id: str) -> None:
    assert sender_from_id(sender_id).signed_id == sender_id


PERSON: dict[str, Any] = {"sessionIsPerson": True}


def context(who: Sender, operation: str = "change-state", service: str | None = "checkout", **claim: Any) -> Any:
    return authorize(registry(), who, Claim(**claim) if claim else None, operation, service)


GRANTED = {
    "a detector's candidate": (DETECTOR, "candidate", {}, SYSTEM, "monitor-7", None),
    "a detector that says so": (DETECTOR, "candidate", {"authority_type": SYSTEM}, SYSTEM, "monitor-7", None),
    "the alarms queue itself": (ALARMS, "candidate", {}, SYSTEM, "queue:alarms", None),
    "a person": (OPERATOR, "dismiss", {}, HUMAN, "dana@example.com", None),
    "a person naming himself": (OPERATOR, "dismiss", {"actor_id": "dana@example.com"}, HUMAN, "dana@example.com", None),
    "a user without session": (CHECKOUT_ONLY, "dismiss", {}, HUMAN, "AIDACHECKOUT", None),
    "the portal for a person": (PORTAL, "link", {"authority_type": HUMAN, "actor_id": "lee"}, HUMAN, "lee", "portal"),
    "the portal for itself": (PORTAL, "link", {"authority_type": SYSTEM}, SYSTEM, "portal", None),
}


@pytest.mark.parametrize("case", GRANTED.values(), ids=GRANTED.keys())
def test_a_registered_principal_acts(case: Any) -> None:
    sender, operation, claim, kind, actor_id, asserted_by = case
    found = context(sender, operation, **claim)
    assert found == AuthorityContext(
        authority_type=kind, principal=sender.principal, actor_id=actor_id, asserted_by=asserted_by
    )


REFUSED = {
    "a stranger": (STRANGER, "candidate", {}, Code.PRINCIPAL_UNKNOWN, 403),
    "a stranger's own claim": (STRANGER, "dismiss", {"authority_type": HUMAN}, Code.PRINCIPAL_UNKNOWN, 403),
    "a principal with other letters": (Sender("aroadetector"), "candidate", {}, Code.PRINCIPAL_UNKNOWN, 403),
    "a principal that is only a prefix": (Sender("AROADETECT"), "candidate", {}, Code.PRINCIPAL_UNKNOWN, 403),
    "a principal with something behind": (Sender("AROADETECTORX"), "candidate", {}, Code.PRINCIPAL_UNKNOWN, 403),
    "no principal at all": (Sender(""), "candidate", {}, Code.PRINCIPAL_UNKNOWN, 403),
    "a detector's command": (DETECTOR, "change-state", {}, Code.OPERATION_NOT_GRANTED, 403),
    "a person's candidate": (OPERATOR, "candidate", {}, Code.OPERATION_NOT_GRANTED, 403),
    "HUMAN claimed by a program": (AUTOMATION, "dismiss", {"authority_type": HUMAN}, Code.AUTHORITY_NOT_GRANTED, 403),
    "SYSTEM claimed by a person": (OPERATOR, "dismiss", {"authority_type": SYSTEM}, Code.AUTHORITY_NOT_GRANTED, 403),
    "both granted and none claimed": (PORTAL, "dismiss", {}, Code.AUTHORITY_UNCLEAR, 400),
    "another's name": (OPERATOR, "dismiss", {"actor_id": "lee"}, Code.ACTOR_NOT_ASSERTABLE, 403),
    "a program with a person's name": (AUTOMATION, "dismiss", {"actor_id": "lee"}, Code.ACTOR_NOT_ASSERTABLE, 403),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_whatever_the_registry_does_not_name_is_refused(case: Any) -> None:
    sender, operation, claim, code, status = case
    found = context(sender, operation, **claim)
    assert isinstance(found, Refusal)
    assert (found.code, found.status) == (code, status)


def test_a_justification_is_kept_with_the_authority() -> None:
    assert context(OPERATOR, justification="customers call").justification == "customers call"


SERVICES = [
    (("*",), "checkout", True),
    (("checkout",), "checkout", True),
    (("checkout",), "checkout-eu", False),
    (("checkout*",), "checkout-eu", True),
    (("checkout*",), "my-checkout", False),
    (("pay*", "check*"), "checkout", True),
    (("*-eu",), "checkout-eu", True),
    (("*-eu",), "checkout-us", False),
    (("c?eckout",), "checkout", False),
    (("c.eckout",), "checkout", False),
    (("[c]heckout",), "checkout", False),
    (("Checkout",), "checkout", False),
    (("*",), "line\nbreak", True),
]


@pytest.mark.parametrize(("patterns", "service", "granted"), SERVICES)
def test_a_service_pattern_knows_only_the_star(patterns: tuple[str, ...], service: str, granted: bool) -> None:
    known = registry(entry("one", DETECTOR.principal, services=patterns))
    found = authorize(known, DETECTOR, None, "candidate", service)
    assert isinstance(found, AuthorityContext) is granted
    if isinstance(found, Refusal):
        assert found.code is Code.OPERATION_NOT_GRANTED


def test_without_a_service_only_the_operation_is_asked_for() -> None:
    assert isinstance(context(CHECKOUT_ONLY, service=None), AuthorityContext)
    assert context(CHECKOUT_ONLY, service="search").code is Code.OPERATION_NOT_GRANTED


def test_what_one_grant_allows_does_not_leak_into_another() -> None:
    known = registry(
        entry("person-search", PORTAL.principal, kinds="HUMAN", operations=["dismiss"], services=["search"], **PERSON),
        entry("system-checkout", PORTAL.principal, operations=["dismiss"], services=["checkout"], assertsForOthers=True),
        entry("person-notes", PORTAL.principal, kinds="HUMAN", operations=["add-note"], services=["checkout"], **PERSON),
    )
    human = Claim(authority_type=HUMAN)
    as_another = Claim(authority_type=HUMAN, actor_id="lee")
    assert isinstance(authorize(known, PORTAL, human, "dismiss", "search"), AuthorityContext)
    assert authorize(known, PORTAL, human, "dismiss", "checkout").code is Code.AUTHORITY_NOT_GRANTED  # type: ignore[union-attr]
    assert authorize(known, PORTAL, as_another, "dismiss", "search").code is Code.ACTOR_NOT_ASSERTABLE  # type: ignore[union-attr]


ROLE = "arn:aws:sts::123456789012:assumed-role"
USER = "arn:aws:iam::123456789012:user"
ARNS = [
    (f"{ROLE}/opx-detector/*", f"{ROLE}/opx-detector/i-1", True),
    (f"{ROLE}/opx-detector/i-1", f"{ROLE}/opx-detector/i-1", True),
    (f"{ROLE}/opx-*/*", f"{ROLE}/opx-detector/i-1", True),
    (f"{ROLE}/*/i-1", f"{ROLE}/opx-detector/i-1", True),
    (f"{ROLE}/opx-*/*", f"{ROLE}/other/opx-detector", False),
    (f"{ROLE}/opx-detector/*", f"{ROLE}/opx-detector/", True),
    (f"{ROLE}/opx-detector/*", f"{ROLE}/opx-detector/a/b", False),
    (f"{ROLE}/opx-detector/*", f"{ROLE}/opx-detector/a:b", False),
    (f"{ROLE}/opx-detector/*", f"{ROLE}/opx-detectors/i-1", False),
    (f"{ROLE}/opx-detector/*", "arn:aws:sts::999999999999:assumed-role/opx-detector/i-1", False),
    (f"{ROLE}/opx-detector/*", "arn:aws-cn:sts::123456789012:assumed-role/opx-detector/i-1", False),
    (f"{ROLE}/opx.detector/*", f"{ROLE}/opx-detector/i-1", False),
    (f"{ROLE}/opx-detector/*", None, False),
    (f"{USER}/*", f"{USER}/lee", True),
    (f"{USER}/*", f"{USER}/on-call/lee", False),
    (f"{USER}/on-call/*", f"{USER}/on-call/lee", True),
    (f"{USER}/lee", f"{USER}/lee2", False),
    ("arn:aws:iam::123456789012:root", "arn:aws:iam::123456789012:root", True),
    ("arn:aws:sts::123456789012:federated-user/*", "arn:aws:sts::123456789012:federated-user/dana", True),
]


@pytest.mark.parametrize(("pattern", "arn", "known"), ARNS)
def test_the_star_of_an_arn_pattern_crosses_neither_colon_nor_slash(pattern: str, arn: str | None, known: bool) -> None:
    grants = registry(entry("one", pattern))
    assert bool(grants.of(Sender("AROAXEXAMPLE", "i-1", arn))) is known


@pytest.mark.parametrize("account", ["*", "12345678901*", "", "1234", "1234567890123", "１２３４５６７８９０１２"])
def test_an_arn_pattern_pins_its_account(account: str) -> None:
    with pytest.raises(Rejected, match="names its account in full"):
        registry(entry("one", f"arn:aws:iam::{account}:user/x"))


NOBODY = {
    "a star": "*",
    "a star behind a prefix": "AROA*",
    "a question mark": "AROA?",
    "an ARN of everything": "arn:*",
    "any kind of signer of an account": "arn:aws:iam::123456789012:*",
    "any service": "arn:aws:*::123456789012:root",
    "any partition": "arn:*:iam::123456789012:root",
    "a region": "arn:aws:iam:us-east-1:123456789012:root",
    "a role, which signs by its sessions": "arn:aws:iam::123456789012:role/x",
    "an assumed role without session": f"{ROLE}/opx-detector",
    "an assumed role with a session too many": f"{ROLE}/opx-detector/a/b",
    "a queue's ARN": "arn:aws:sqs:us-east-1:123456789012:opx-alarms",
    "a unique id with a session": "AROAXEXAMPLE:session",
    "a unique id in other letters": "aroaxexample",
    "a prefix alone": "AROA",
    "an access key": "AKIAXEXAMPLE",
    "a passing access key": "ASIAXEXAMPLE",
    "a group": "AGPAXEXAMPLE",
    "half an account": "12345678901",
    "an account in other digits": "１２３４５６７８９０１２",
    "a federated user": "123456789012:dana",
    "a queue without name": "queue:",
    "any queue": "queue:*",
    "a name to be bound, with a star": "$*",
    "a line end": "AROAXEXAMPLE\n",
    "blanks": "  ",
    "nothing": "",
}


@pytest.mark.parametrize("principal", NOBODY.values(), ids=NOBODY.keys())
def test_what_can_be_no_signer_is_refused_in_a_registry(principal: str) -> None:
    with pytest.raises(Rejected) as refused:
        registry(entry("one", DETECTOR.principal, principal))
    assert refused.value.refusal.field == "entries.0.principals.1"


def test_an_account_is_its_root_and_not_whoever_it_lends_its_id_to() -> None:
    known = registry(entry("root", "123456789012", kinds="HUMAN SYSTEM", principalIsPerson=True))
    assert known.of(Sender("123456789012"))
    assert not known.of(Sender("123456789012", "dana"))
    assert not known.of(Sender("AIDAXEXAMPLE", None, "arn:aws:iam::123456789012:user/lee"))


def test_a_grant_holds_on_its_stages_only() -> None:
    local = entry("local", DETECTOR.principal, stages=("local",))
    assert registry(local, stage="local").of(DETECTOR)
    assert registry(local, stage="prod").of(DETECTOR) == ()


def test_a_bound_name_stands_for_its_id_and_an_unbound_one_for_nobody() -> None:
    role = entry("redrive", "$redriveRole", operations=["redrive"], speaksForSenders=True)
    bound = registry(role, redriveRole="AROAREDRIVE")
    assert bound.believes(Sender("AROAREDRIVE", "any"))
    assert not bound.believes(DETECTOR)
    for bindings in ({}, {"redriveRole": ""}, {"other": "AROAREDRIVE"}):
        unbound = registry(role, **bindings)
        assert not any(unbound.of(Sender(name)) for name in ("", "$redriveRole", "redriveRole", "AROAREDRIVE"))


ONE = entry("one", "AROA1")
MALFORMED = {
    "an unknown version": ({"version": 2, "entries": []}, "version"),
    "no version": ({"entries": []}, "version"),
    "no entries": ({"version": 1}, "entries"),
    "an unknown field": ({"version": 1, "entries": [], "comment": "x"}, "comment"),
    "an entry with an unknown field": ({"version": 1, "entries": [ONE | {"admin": True}]}, "entries.0.admin"),
    "an entry for nobody": ({"version": 1, "entries": [entry("one")]}, "entries.0.principals"),
    "an unknown authority": ({"version": 1, "entries": [entry("one", "AROA1", kinds="ROBOT")]}, "entries.0.authorityTypes"),
    "no authority": ({"version": 1, "entries": [entry("one", "AROA1", kinds="")]}, "entries.0.authorityTypes"),
    "no service": ({"version": 1, "entries": [ONE | {"services": []}]}, "entries.0.services"),
    "an empty service": ({"version": 1, "entries": [ONE | {"services": [""]}]}, "entries.0.services.0"),
    "no stage of those named": ({"version": 1, "entries": [ONE | {"stages": []}]}, "entries.0.stages"),
    "null for every stage": ({"version": 1, "entries": [ONE | {"stages": None}]}, "entries.0.stages"),
    "no operation": ({"version": 1, "entries": [ONE | {"operations": []}]}, "entries.0.operations"),
    "an operation misspelt": ({"version": 1, "entries": [ONE | {"operations": ["candiate"]}]}, "entries.0.operations.0"),
    "any operation": ({"version": 1, "entries": [ONE | {"operations": ["*"]}]}, "entries.0.operations.0"),
    "what is a candidate": ({"version": 1, "entries": [ONE | {"operations": ["detection"]}]}, "entries.0.operations.0"),
    "an id twice": ({"version": 1, "entries": [ONE, ONE | {"principals": ["AROA2"]}]}, ""),
    "an id that is none": ({"version": 1, "entries": [ONE | {"id": "two words"}]}, "entries.0.id"),
    "text for a flag": ({"version": 1, "entries": [ONE | {"sessionIsPerson": "false"}]}, "entries.0.sessionIsPerson"),
    "a person who stands nowhere": ({"version": 1, "entries": [entry("one", "AROA1", kinds="HUMAN")]}, "entries.0"),
    "a role that is a person": ({"version": 1, "entries": [ONE | {"principalIsPerson": True}]}, "entries.0"),
    "a queue that is a person": (
        {"version": 1, "entries": [entry("one", "queue:alarms", kinds="HUMAN", principalIsPerson=True)]},
        "entries.0",
    ),
    "a user's session": ({"version": 1, "entries": [entry("one", "AIDA1", kinds="HUMAN", **PERSON)]}, "entries.0"),
    "an outsider that speaks for senders": (
        {"version": 1, "entries": [entry("one", "AROA1", operations=["redrive"], speaksForSenders=True)]},
        "entries.0",
    ),
    "a redriver that may do more": (
        {"version": 1, "entries": [entry("one", "$role", operations=["redrive", "dismiss"], speaksForSenders=True)]},
        "entries.0",
    ),
}


@pytest.mark.parametrize("document", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_registry_that_cannot_be_read_grants_nothing(document: Any) -> None:
    content, where = document
    with pytest.raises(Rejected) as refused:
        Registry.load(normalise(content), "test", {})
    assert (refused.value.refusal.field or "").startswith(where)


def test_audit_is_of_all_services_or_not_at_all() -> None:
    assert registry(entry("auditors", "AROAXAUDITOR", operations=("audit", "read"))).entries
    with pytest.raises(Rejected, match="audit"):
        registry(entry("auditors", "AROAXAUDITOR", operations=("audit",), services=("payments*",)))


def test_the_operations_of_the_registry_are_those_there_are() -> None:
    commands = {member.model_fields["type"].default for member in (Declare, *get_args(OnIncident))}
    assert commands == COMMAND_OPERATIONS == COMMAND_TYPES
    assert {*COMMAND_OPERATIONS, CANDIDATE_OPERATION, "redrive", "audit", "read"} == OPERATIONS
    for operation in OPERATIONS:
        assert registry(entry("one", "AROA1", operations=[operation])).entries


@pytest.mark.parametrize("stage", ["dev", "prod", "anything"])
def test_the_shipped_registry_knows_nobody_but_the_stack_itself(stage: str) -> None:
    shipped = Registry.load(SHIPPED, stage, {"redriveRole": "AROAREDRIVE"})
    named = {name for grant in shipped.entries for name in grant.principals}
    assert named == {"queue:alarms", "queue:alertmanager", "AROAREDRIVE"}
    assert not any(HUMAN in grant.authority_types for grant in shipped.entries)


def test_the_shipped_registry_lets_the_local_engine_act() -> None:
    local = Registry.load(SHIPPED, "local", {})
    engine = Sender("000000000000")
    assert isinstance(authorize(local, engine, None, "candidate", "any"), AuthorityContext)
    asserted = Claim(authority_type=HUMAN, actor_id="dana")
    assert isinstance(authorize(local, engine, asserted, "change-state", "any"), AuthorityContext)
    assert not local.believes(engine)
