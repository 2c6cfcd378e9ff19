"""The error tree: every code has one meaning, and every refusal says what to do next."""

import pytest

from pipeline.domain.errors import MEANINGS, Code, Conflict, Corrupt, OpxError, Refusal, Rejected, Unavailable

# Senders and runbooks match on these: status by code, as the specification's table has them.
STATUS = {
    400: "malformed-json too-large invalid-field unknown-field unknown-type unsupported-schema-version observed-in-future "
    "mapping-missing reason-missing link-to-itself authority-unclear",
    403: "principal-unknown operation-not-granted authority-not-granted actor-not-assertable transition-authority",
    404: "incident-unknown policy-unknown",
    409: "transition-illegal severity-frozen",
    412: "version-stale",
    422: "key-reused",
}


@pytest.mark.parametrize(("status", "codes"), STATUS.items())
def test_released_codes_keep_their_names_and_statuses(status: int, codes: str) -> None:
    assert {MEANINGS[Code(code)].status for code in codes.split()} == {status}


@pytest.mark.parametrize("code", Code)
def test_every_refusal_says_what_to_do_next(code: Code) -> None:
    refusal = Refusal(code, "It was not done.", "a.b")
    assert refusal.advice.endswith(".")
    assert refusal.sentence() == f"a.b: It was not done. {refusal.advice}"
    assert str(Rejected(refusal)) == refusal.sentence()


@pytest.mark.parametrize("code", Code)
def test_only_refusals_about_an_incidents_state_are_remembered_and_say_so(code: Code) -> None:
    refusal = Refusal(code, "")
    assert refusal.remembered is (refusal.status in (409, 412))
    assert not refusal.remembered or "new idempotency key" in refusal.advice


def test_codes_have_one_spelling() -> None:
    assert set(MEANINGS) == set(Code)
    assert all(code.value == code.name.lower().replace("_", "-") for code in Code)


@pytest.mark.parametrize("kind", [Rejected, Conflict, Unavailable, Corrupt])
def test_everything_raised_on_purpose_has_one_root(kind: type[OpxError]) -> None:
    assert kind.__mro__[1] is OpxError


def test_corruption_names_its_incident() -> None:
    assert str(Corrupt("a gap", "i-1")) == "i-1: a gap"
    assert str(Corrupt("a gap")) == "a gap"
