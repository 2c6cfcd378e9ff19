"""Commands as they come in: each type with its least, and what no command may say."""

from typing import Any

import pytest

from pipeline.domain.authority import Claim
from pipeline.domain.base import read
from pipeline.domain.canonical import parse_document
from pipeline.domain.commands import COMMAND, COMMAND_TYPES, Command
from pipeline.domain.errors import Code, Rejected
from pipeline.domain.transitions import AuthorityType
from tests.support.bodies import command_body, declare_body, text_of
from tests.support.histories import INCIDENT_ID, OTHER_ID

EVIDENCE = {"kind": "log", "ref": "logs/1"}
LEAST: dict[str, dict[str, Any]] = {
    "change-state": {"newState": "MITIGATING"},
    "attach-evidence": {"evidence": [EVIDENCE]},
    "change-severity": {"severity": "SEV1"},
    "add-note": {"note": "Paged the database team."},
    "request-promotion": {},
    "dismiss": {},
    "link": {"relation": "duplicate-of", "target": OTHER_ID},
}


def command(body: Any) -> Command:
    return read(COMMAND, parse_document(text_of(body)))


def refusal(body: Any) -> Any:
    with pytest.raises(Rejected) as caught:
        command(body)
    assert caught.value.refusal.status == 400
    return caught.value.refusal


@pytest.mark.parametrize(("kind", "fields"), LEAST.items())
def test_each_command_needs_no_more_than_this(kind: str, fields: dict[str, Any]) -> None:
    assert command(command_body(kind, INCIDENT_ID, **fields)).type == kind


@pytest.mark.parametrize(("kind", "fields"), LEAST.items())
def test_each_field_a_command_needs_is_named_when_missing(kind: str, fields: dict[str, Any]) -> None:
    for missing in ("incidentId", *fields):
        found = refusal(command_body(kind, INCIDENT_ID, **(fields | {missing: ...})))
        assert (found.code, found.field) == (Code.INVALID_FIELD, missing)


def test_a_declaration_needs_what_a_person_knows() -> None:
    assert command(declare_body()).type == "declare"
    for missing in ("service", "severity", "title"):
        assert refusal(declare_body(**{missing: ...})).field == missing


def test_the_list_of_types_is_complete() -> None:
    assert {*LEAST, "declare"} == COMMAND_TYPES


@pytest.mark.parametrize("kind", LEAST)
def test_every_command_takes_key_claim_reason_and_expected_version(kind: str) -> None:
    claim = {"authorityType": "HUMAN", "actorId": "dana", "justification": "why"}
    common = {"idempotencyKey": "k-1", "authority": claim, "reason": "because", "expectedVersion": 3, "schemaVersion": 1}
    found = command(command_body(kind, INCIDENT_ID, **LEAST[kind], **common))
    assert found.authority == Claim(authority_type=AuthorityType.HUMAN, actor_id="dana", justification="why")
    assert (found.idempotency_key, found.reason) == ("k-1", "because")


def test_an_authority_in_one_word_is_a_claim() -> None:
    found = command(command_body("dismiss", INCIDENT_ID, authority="HUMAN"))
    assert found.authority == Claim(authority_type=AuthorityType.HUMAN)


@pytest.mark.parametrize(
    ("fields", "justification"),
    [
        ({}, None),
        ({"reason": "r"}, "r"),
        ({"authority": {"justification": "j"}}, "j"),
        ({"reason": "r", "authority": {"justification": "j"}}, "r"),
    ],
    ids=["nothing", "reason", "justification", "both"],
)
def test_a_reason_stands_in_either_of_two_places(fields: Any, justification: str | None) -> None:
    assert command(command_body("dismiss", INCIDENT_ID, **fields)).justification == justification


WRONG: dict[str, tuple[dict[str, Any], Code, str]] = {
    "an unknown type": ({"type": "reopen"}, Code.UNKNOWN_TYPE, "type"),
    "no type": ({"type": ...}, Code.UNKNOWN_TYPE, "type"),
    "a type that is no text": ({"type": 5}, Code.UNKNOWN_TYPE, "type"),
    "a principal": ({"principal": "AROAOPERATOR"}, Code.UNKNOWN_FIELD, "principal"),
    "a principal in the claim": ({"authority": {"principal": "x"}}, Code.UNKNOWN_FIELD, "authority.principal"),
    "an unknown authority": ({"authority": "ROOT"}, Code.INVALID_FIELD, "authority.authorityType"),
    "an unknown state": ({"newState": "REOPENED"}, Code.INVALID_FIELD, "newState"),
    "a state in small letters": ({"newState": "resolved"}, Code.INVALID_FIELD, "newState"),
    "an upper-case id": ({"incidentId": INCIDENT_ID.upper()}, Code.INVALID_FIELD, "incidentId"),
    "an id that is a number": ({"incidentId": 5}, Code.INVALID_FIELD, "incidentId"),
    "version zero": ({"expectedVersion": 0}, Code.INVALID_FIELD, "expectedVersion"),
    "version true": ({"expectedVersion": True}, Code.INVALID_FIELD, "expectedVersion"),
    "version in words": ({"expectedVersion": "3"}, Code.INVALID_FIELD, "expectedVersion"),
    "a version and a half": ({"expectedVersion": 1.5}, Code.INVALID_FIELD, "expectedVersion"),
    "an empty reason": ({"reason": ""}, Code.INVALID_FIELD, "reason"),
    "a blank reason": ({"reason": " \n "}, Code.INVALID_FIELD, "reason"),
    "a reason of 2049 characters": ({"reason": "r" * 2049}, Code.TOO_LARGE, "reason"),
    "a 3 KB key": ({"idempotencyKey": "k" * 3072}, Code.INVALID_FIELD, "idempotencyKey"),
    "a future schema version": ({"schemaVersion": 2}, Code.UNSUPPORTED_SCHEMA_VERSION, "schemaVersion"),
    "a time of its own": ({"timestamp": "2026-01-31T03:00:00Z"}, Code.UNKNOWN_FIELD, "timestamp"),
    "another command's field": ({"note": "x"}, Code.UNKNOWN_FIELD, "note"),
    "python's spelling": ({"expected_version": 1}, Code.UNKNOWN_FIELD, "expected_version"),
}


@pytest.mark.parametrize(("fields", "code", "field"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_command_is_refused_naming_the_field(fields: Any, code: Code, field: str) -> None:
    found = refusal(command_body("change-state", INCIDENT_ID, **({"newState": "MITIGATING"} | fields)))
    assert (found.code, found.field) == (code, field)


def test_attaching_no_evidence_is_refused() -> None:
    assert refusal(command_body("attach-evidence", INCIDENT_ID, evidence=[])).field == "evidence"


def test_a_link_has_one_of_two_relations() -> None:
    for relation in ("duplicate-of", "caused-by"):
        assert command(command_body("link", INCIDENT_ID, relation=relation, target=OTHER_ID)).type == "link"
    assert refusal(command_body("link", INCIDENT_ID, relation="related-to", target=OTHER_ID)).field == "relation"
