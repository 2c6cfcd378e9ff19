"""Operators against the real door over the memory store; only the network between them is faked."""

import asyncio
import inspect
import json

import httpx
import pytest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError, CredentialRetrievalError
from botocore.session import Session

from pipeline.clients.operator import ApiRefused, ApiUnavailable, AsyncOperator, Operator, Patience
from tests.support.network import BASE, QUICK, Network
from tests.support.registry import OPERATOR


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def operator(network: Network) -> Operator:
    client = httpx.Client(transport=httpx.MockTransport(network.blocking))
    return Operator(BASE, patience=QUICK, http=client)


def asynchronous(network: Network) -> AsyncOperator:
    client = httpx.AsyncClient(transport=httpx.MockTransport(network))
    return AsyncOperator(BASE, patience=QUICK, http=client)


def test_a_whole_life_is_led_by_the_blocking_operator(operator: Operator) -> None:
    made = operator.declare("checkout", "SEV2", "Carts are empty", dedup_key="carts", metadata={"ratio": 0.5})
    incident = made.incident_id
    assert (made.answer, made.state, made.retry_safe, made.replayed) == ("created", "OPEN", True, False)
    assert "MITIGATING" in [step.to for step in made.allowed_transitions]
    operator.attach_evidence(incident, [{"kind": "log", "ref": "logs/1"}])
    operator.add_note(incident, "looking at the cart service")
    operator.change_severity(incident, "SEV1", reason="all carts")
    assert operator.mitigate(incident, "failing over").state == "MITIGATING"
    assert operator.resolve(incident, "carts are back").state == "RESOLVED"
    assert operator.close_incident(incident, "written up").state == "CLOSED"
    other = operator.declare("checkout", "SEV3", "A second look", dedup_key="other").incident_id
    operator.link(other, "caused-by", incident)
    assert operator.cancel(other, "was the same").state == "CANCELLED"

    found = operator.incident(incident)
    assert (found.state, found.severity, found.as_of_version) == ("CLOSED", "SEV1", None)
    assert found.document["metadata"]["dedupKey"] == "carts"
    past = operator.incident(incident, version=1)
    assert (past.as_of_version, past.version) == (1, 1)
    assert [event.sequence for event in operator.events(incident)] == list(range(1, found.version + 1))
    assert {one.incident_id for one in operator.incidents()} == {incident, other}
    assert [one.incident_id for one in operator.incidents(state="CLOSED", service="checkout")] == [incident]


def test_a_pending_incident_is_promoted_or_dismissed(operator: Operator, network: Network) -> None:
    ids = [asyncio.run(network.world.opened(dedupKey=key, confidence=0.1)) for key in ("one", "two")]
    assert [operator.incident(one).state for one in ids] == ["PENDING", "PENDING"]
    assert operator.request_promotion(ids[0], "seen it myself").operation == "request-promotion"
    assert operator.dismiss(ids[1], "a test of the monitor").state == "CANCELLED"


async def test_the_awaiting_operator_does_the_same(network: Network) -> None:
    async with asynchronous(network) as operator:
        made = await operator.declare("checkout", "SEV2", "Carts are empty")
        assert (await operator.change_state(made.incident_id, "MITIGATING", reason="failing over")).state == "MITIGATING"
        for number in range(5):
            await operator.add_note(made.incident_id, f"note {number}")
        events = [event async for event in operator.events(made.incident_id, after=2, page=2)]
        last = (await operator.incident(made.incident_id)).version
        assert [event.sequence for event in events] == list(range(3, last + 1))
        assert [one.incident_id async for one in operator.incidents(page=1)] == [made.incident_id]
        assert await operator.receipt("never:sent") is None
        with pytest.raises(ApiRefused, match="transition-illegal"):
            await operator.close_incident(made.incident_id, "too soon")


def test_both_operators_have_the_same_methods() -> None:
    def public(kind: type) -> dict[str, str]:
        found = {name: member for name, member in vars(kind).items() if not name.startswith("_")}
        return {name: str(inspect.signature(member).replace(return_annotation="")) for name, member in found.items()}

    assert public(Operator) == public(AsyncOperator)
    assert len(public(Operator)) == 17


def test_pages_are_followed_to_the_end(operator: Operator, network: Network) -> None:
    ids = {asyncio.run(network.world.opened(dedupKey=f"key-{number}")) for number in range(7)}
    assert {one.incident_id for one in operator.incidents(page=2, service="checkout")} == ids
    incident = ids.pop()
    for number in range(6):
        operator.add_note(incident, f"note {number}")
    events = list(operator.events(incident, after=1, page=2))
    assert [event.sequence for event in events] == list(range(2, operator.incident(incident).version + 1))


LATER = [
    httpx.ConnectError("refused"),
    httpx.ReadTimeout("slow"),
    httpx.RemoteProtocolError("cut off"),
    httpx.Response(429, json={"code": "throttled"}),
    httpx.Response(500, text="<html>"),
    httpx.Response(503, json={"code": "unavailable"}, headers={"Retry-After": "0"}),
    httpx.Response(200, text="<html>who are you?</html>"),
]


@pytest.mark.parametrize("late", [False, True], ids=["never-arrived", "answer-lost"])
@pytest.mark.parametrize("trouble", LATER, ids=lambda one: type(one).__name__ + str(getattr(one, "status_code", "")))
def test_a_write_without_an_answer_is_sent_again_under_its_key_and_takes_effect_once(
    trouble: httpx.Response | Exception, late: bool, network: Network, operator: Operator
) -> None:
    network.troubles, network.late = [trouble, trouble], late
    made = operator.declare("checkout", "SEV2", "Carts are empty")
    assert len(network.seen) == 3
    assert len(set(network.keys())) == 1
    assert len({request.content for request in network.seen}) == 1
    assert made.replayed is late
    assert len(network.world.store.incidents) == 1


def test_each_try_is_signed_anew(network: Network, operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(["20260131T030000Z", "20260131T030100Z"])

    def at(auth: object, request: object) -> None:
        request.headers["X-Amz-Date"] = request.headers["Authorization"] = next(times)  # type: ignore[attr-defined]

    monkeypatch.setattr("botocore.auth.SigV4Auth.add_auth", at)
    network.troubles = [httpx.ReadTimeout("slow")]
    operator.declare("checkout", "SEV2", "Carts are empty")
    assert [request.headers["X-Amz-Date"] for request in network.seen] == ["20260131T030000Z", "20260131T030100Z"]


def test_silence_until_the_deadline_names_the_key_to_ask_for(network: Network) -> None:
    # The last one asks for more patience than there is, so that no clock decides how many there are.
    last = httpx.Response(503, json={"code": "unavailable"}, headers={"Retry-After": "60"})
    network.troubles, network.late = [httpx.ReadTimeout("slow"), httpx.ReadTimeout("slow"), last], True
    operator = Operator(BASE, patience=QUICK, http=httpx.Client(transport=httpx.MockTransport(network.blocking)))
    with pytest.raises(ApiUnavailable, match=r"POST /incidents: no answer in 3 attempts \(503 unavailable\)") as caught:
        operator.declare("checkout", "SEV2", "Carts are empty", idempotency_key="deploy:7")
    assert (caught.value.key, caught.value.attempts) == ("deploy:7", len(network.seen))
    network.troubles = []
    receipt = operator.receipt("deploy:7")
    assert receipt is not None
    assert (receipt.outcome, receipt.result["answer"]) == ("applied", "created")
    again = operator.declare("checkout", "SEV2", "Carts are empty", idempotency_key="deploy:7")
    assert (again.replayed, again.incident_id) == (True, receipt.incident_id)


class EndingSession(Session):  # type: ignore[misc] # botocore is not typed
    """A session whose credentials serve `good` requests and then fail."""

    def __init__(self, good: int, error: Exception) -> None:
        super().__init__()
        self.good, self.error = good, error

    def get_credentials(self) -> "EndingSession":
        return self

    def get_frozen_credentials(self) -> Credentials:
        self.good -= 1
        if self.good < 0:
            raise self.error
        return Credentials("AKIDEXAMPLE", "secret")


ENDED = [
    CredentialRetrievalError(provider="sso", error_msg="ended"),
    ClientError({"Error": {"Code": "AccessDenied"}}, "AssumeRole"),
    RuntimeError("the refreshed credentials are still expired"),
]


@pytest.mark.parametrize("error", ENDED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("kind", [Operator, AsyncOperator])
def test_a_write_whose_credentials_end_between_attempts_tells_its_key(
    kind: type[Operator | AsyncOperator], error: Exception, network: Network
) -> None:
    network.troubles, network.late = [httpx.Response(503)], True

    def declare(good: int) -> None:
        session = EndingSession(good, error)
        if kind is Operator:
            blocking = httpx.Client(transport=httpx.MockTransport(network.blocking))
            Operator(BASE, patience=QUICK, http=blocking, session=session).declare("checkout", "SEV2", "Carts")
        else:
            awaiting = httpx.AsyncClient(transport=httpx.MockTransport(network))
            operator = AsyncOperator(BASE, patience=QUICK, http=awaiting, session=session)
            asyncio.run(operator.declare("checkout", "SEV2", "Carts"))

    with pytest.raises(ApiUnavailable, match=type(error).__name__) as caught:
        declare(1)
    assert caught.value.__cause__ is error
    assert caught.value.key == network.keys()[0]
    assert len(network.world.store.incidents) == 1
    # Where nothing was sent yet there is nothing to ask for: the error is what it is.
    with pytest.raises(type(error)):
        declare(0)


@pytest.mark.parametrize("code", ["not-signed", "forbidden", None])
def test_a_refusal_in_front_of_opx_does_not_hide_what_an_earlier_attempt_may_have_done(
    code: str | None, network: Network, operator: Operator
) -> None:
    front = httpx.Response(403, json={"code": code, "detail": "The security token is expired"})
    network.troubles, network.late = [httpx.ReadTimeout("slow"), front], True
    with pytest.raises(ApiUnavailable, match="token is expired") as caught:
        operator.declare("checkout", "SEV2", "Carts are empty")
    assert isinstance(caught.value.__cause__, ApiRefused)
    assert caught.value.key == network.keys()[0]


def test_a_refusal_of_opx_after_silence_is_an_answer(network: Network, operator: Operator) -> None:
    network.troubles = [httpx.ReadTimeout("slow")]
    with pytest.raises(ApiRefused, match="400 invalid-field"):
        operator.declare("checkout", "SEV9", "Carts are empty")


def test_a_redirect_is_never_followed(network: Network) -> None:
    network.troubles = [httpx.Response(302, headers={"Location": "/elsewhere"})]
    client = httpx.Client(transport=httpx.MockTransport(network.blocking), follow_redirects=True)
    with pytest.raises(ApiRefused, match="never redirects"):
        Operator(BASE, patience=QUICK, http=client).add_note("8a0e2b52-4a2e-5c1c-9d6f-0a1b2c3d4e5f", "note")
    assert len(network.seen) == 1


def test_pages_shorter_than_asked_and_empty_ones_are_followed(network: Network, operator: Operator) -> None:
    incident = operator.declare("checkout", "SEV2", "Carts are empty").incident_id
    documents = [event.document for event in operator.events(incident)]
    one = operator.incident(incident).document
    network.seen.clear()
    network.troubles = [
        httpx.Response(200, json={"events": documents[:1], "nextCursor": "a"}),
        httpx.Response(200, json={"events": [], "nextCursor": "b"}),
        httpx.Response(200, json={"events": documents[1:]}),
        httpx.Response(200, json={"incidents": [], "nextCursor": "c"}),
        httpx.Response(200, json={"incidents": [one]}),
    ]
    assert [event.document for event in operator.events(incident, page=50)] == documents
    assert [found.incident_id for found in operator.incidents(page=50)] == [incident]
    assert [request.url.params.get("cursor") for request in network.seen] == [None, "a", "b", None, "c"]


@pytest.mark.parametrize("location", ["/incidents/x", "incidents/x", "https://example.com/incidents/x"])
def test_where_an_incident_is_is_told_by_its_id_and_never_by_its_location(
    location: str, network: Network, operator: Operator
) -> None:
    document = operator.declare("checkout", "SEV2", "Carts are empty").document
    network.troubles = [httpx.Response(201, json=document, headers={"Location": location})]
    made = operator.declare("checkout", "SEV2", "Carts are empty")
    assert operator.incident(made.incident_id).incident_id == document["incidentId"]


def test_the_api_says_how_long_to_wait(network: Network) -> None:
    network.troubles = [httpx.Response(429, headers={"Retry-After": "60"})] * 3
    operator = Operator(
        BASE, patience=Patience(within_s=5.0), http=httpx.Client(transport=httpx.MockTransport(network.blocking))
    )
    # Sixty seconds are past the deadline: it gives up at once instead of asking sooner than told.
    with pytest.raises(ApiUnavailable, match="429"):
        operator.incident("8a0e2b52-4a2e-5c1c-9d6f-0a1b2c3d4e5f")
    assert len(network.seen) == 1


def test_a_refusal_is_raised_with_all_it_says_and_never_sent_again(network: Network, operator: Operator) -> None:
    incident = operator.declare("checkout", "SEV2", "Carts are empty").incident_id
    network.seen.clear()
    with pytest.raises(ApiRefused) as caught:
        operator.resolve(incident, "hop over a state")
    problem = caught.value.problem
    assert (problem.status, problem.code, problem.incident_id, problem.state) == (
        409,
        "transition-illegal",
        incident,
        "OPEN",
    )
    assert set(problem.allowed_transitions) == {"MITIGATING", "CANCELLED"}
    assert problem.next
    assert problem.request_id
    assert len(network.seen) == 1
    with pytest.raises(ApiRefused) as caught:
        operator.change_severity(incident, "SEV9")
    assert (caught.value.problem.status, caught.value.problem.field) == (400, "severity")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 412, 413, 422, 301])
def test_what_others_on_the_way_refuse_is_a_refusal_too(status: int, network: Network, operator: Operator) -> None:
    network.troubles = [httpx.Response(status, text="<html>no</html>"), httpx.ReadTimeout("never reached")]
    with pytest.raises(ApiRefused) as caught:
        operator.add_note("8a0e2b52-4a2e-5c1c-9d6f-0a1b2c3d4e5f", "note")
    assert caught.value.problem.code == f"http-{status}"
    assert "no" in caught.value.problem.detail
    assert len(network.seen) == 1


def test_a_wrong_clock_is_named_and_not_retried(network: Network, operator: Operator) -> None:
    date = {"Date": "Sat, 31 Jan 2026 03:00:00 GMT"}
    document = {"message": "Signature expired: 20260131T020000Z is now earlier than …"}
    network.troubles = [httpx.Response(403, json=document, headers=date)]
    with pytest.raises(ApiRefused, match="This machine's clock is") as caught:
        operator.add_note("8a0e2b52-4a2e-5c1c-9d6f-0a1b2c3d4e5f", "note")
    assert caught.value.problem.detail.startswith("Signature expired")
    assert len(network.seen) == 1


def test_a_dry_run_says_what_would_happen_and_changes_nothing(network: Network, operator: Operator) -> None:
    tried = operator.declare("checkout", "SEV2", "Carts are empty", dry_run=True)
    assert (tried.dry_run, tried.answer) == (True, "created")
    assert tried.events[0]["eventType"] == "IncidentCreated"
    assert network.world.store.incidents == {}


def test_a_version_that_moved_refuses_the_write(operator: Operator) -> None:
    made = operator.declare("checkout", "SEV2", "Carts are empty")
    version = operator.incident(made.incident_id).control_version
    assert operator.mitigate(made.incident_id, "failing over", if_match=version).control_version == version + 1
    with pytest.raises(ApiRefused, match="version-stale"):
        operator.resolve(made.incident_id, "back", if_match=version)
    assert operator.resolve(made.incident_id, "back", if_match="*").state == "RESOLVED"


def test_authority_is_the_operators_own_unless_a_write_says_another(network: Network) -> None:
    client = httpx.Client(transport=httpx.MockTransport(network.blocking))
    operator = Operator(BASE, authority="HUMAN", http=client, patience=QUICK)
    incident = operator.declare("checkout", "SEV2", "Carts are empty").incident_id
    with pytest.raises(ApiRefused, match="authority-not-granted"):
        operator.add_note(incident, "note", authority="SYSTEM")
    said = [json.loads(request.content).get("authority") for request in network.seen]
    assert said == ["HUMAN", "SYSTEM"]
    assert next(operator.events(incident)).actor["principal"] == OPERATOR.principal


@pytest.mark.parametrize("key", ["", "a b", "x" * 129, "line\nbreak", "ä"])
def test_a_key_that_cannot_be_one_is_refused_here(key: str, network: Network, operator: Operator) -> None:
    with pytest.raises(ValueError, match="idempotency key"):
        operator.add_note("i", "note", idempotency_key=key)
    assert network.seen == []


def test_an_answer_of_another_form_is_not_asked_for_again(network: Network, operator: Operator) -> None:
    network.troubles = [httpx.Response(200, json={"hello": "world"})]
    with pytest.raises(ApiUnavailable, match="another form"):
        operator.add_note("8a0e2b52-4a2e-5c1c-9d6f-0a1b2c3d4e5f", "note")
    assert len(network.seen) == 1
