"""Receipts: the first answer, kept whole, under a key that nobody else can reach."""

import pytest

from pipeline.domain.base import read
from pipeline.domain.candidates import Key
from pipeline.domain.canonical import canonical_bytes, parse_document
from pipeline.domain.errors import Code, Refusal
from pipeline.domain.receipts import RECEIPT, Answer, Request, Result, result_of_change, result_of_refusal
from pipeline.domain.transitions import State
from tests.support.clock import NOW
from tests.support.histories import INCIDENT_ID, ROOT, incident_in

GOLDEN = sorted((ROOT / "tests" / "golden" / "rows").glob("IdempotencyRecord.*.json"))


def request(principal: str = "AROAOPERATOR", kind: str = "caller", key: str = "k-1") -> Request:
    return Request.of(principal, Key(kind, key), "change-state", "ab" * 32)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_stored_receipt_is_still_read_and_written_byte_for_byte(path: object) -> None:
    stored = (ROOT / "tests" / "golden" / "rows" / path.name).read_bytes()  # type: ignore[attr-defined]
    receipt = read(RECEIPT, parse_document(stored))
    assert canonical_bytes(receipt.to_document()) + b"\n" == stored


def test_the_result_of_a_change_names_its_events_and_where_they_led() -> None:
    incident = incident_in(State.MITIGATING)
    receipt = request().receipt(result_of_change(Answer.APPLIED, 2, incident), INCIDENT_ID, NOW)
    result = receipt.result
    assert (result.first_sequence, result.last_sequence) == (3, 3)
    assert (result.state, result.control_version) == (State.MITIGATING, 3)
    assert receipt.refusal() is None
    assert read(RECEIPT, receipt.to_document()) == receipt


def test_a_remembered_refusal_comes_back_as_it_was() -> None:
    refusal = Refusal(
        Code.VERSION_STALE, "It is 4, not 3.", "expectedVersion", INCIDENT_ID, "OPEN", ("MITIGATING", "CANCELLED")
    )
    receipt = request().receipt(result_of_refusal(refusal), INCIDENT_ID, NOW)
    assert read(RECEIPT, receipt.to_document()).refusal() == refusal


def test_an_answer_without_change_says_nothing_of_events() -> None:
    receipt = request().receipt(Result(answer=Answer.NOTHING_OPEN), None, NOW)
    assert receipt.to_document()["result"] == {"answer": "nothing-open"}
    assert "incidentId" not in receipt.to_document()


def test_receipt_and_request_agree_on_the_id() -> None:
    assert request().receipt(Result(answer=Answer.UNCHANGED), None, NOW).id == request().receipt_id


def test_a_key_is_its_principals_own() -> None:
    ids = {
        request(principal, kind, key).receipt_id
        for principal in ("AROAOPERATOR", "AROAAUTOMATION")
        for kind in ("caller", "message")
        for key in ("k-1", "k-2")
    }
    assert len(ids) == 8
    assert [request(kind=kind).keyed_by_caller for kind in ("caller", "body", "message", "cloudwatch")] == [True] + [
        False
    ] * 3
