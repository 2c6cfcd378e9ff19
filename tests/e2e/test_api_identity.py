"""Who may do what through the deployed API, with signatures and permissions checked: an engine that checks, and IAM users.

What the engine cannot check: API Gateway's own answers have AWS's words here, not the template's; the resource policy and
the access log are ignored; a signature's age is looked at by the engine, its region is not. Those are tested as documents.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.credentials import Credentials

from pipeline.clients.signing import sign
from pipeline.domain.commands import COMMAND_TYPES
from pipeline.local import engine as local_engine
from pipeline.local.deploy import deploy
from pipeline.local.environment import REGION
from tests.support.signed import api_url
from tests.support.stack import Stack, wait_until

pytestmark = [pytest.mark.engine, pytest.mark.long]

ARN = "arn:aws:iam::000000000000:user/"
DECLARED = {"service": "checkout", "severity": "SEV2", "title": "Carts are empty", "description": "", "authority": "HUMAN"}


def entry(name: str, kinds: list[str], operations: list[str], **more: Any) -> dict[str, Any]:
    granted = {"authorityTypes": kinds, "operations": operations, "services": ["*"], "stages": ["local"]}
    return {"id": name, "principals": [ARN + name]} | granted | more


REGISTRY = {
    "version": 1,
    "entries": [
        entry("ada", ["HUMAN"], [*sorted(COMMAND_TYPES), "read"], principalIsPerson=True),
        entry("bob", ["HUMAN"], [*sorted(COMMAND_TYPES), "read"], principalIsPerson=True),
        entry("robot", ["SYSTEM"], [*sorted(COMMAND_TYPES), "read"]),
        entry("viewer", ["SYSTEM"], ["read"]),
        entry("auditor", ["SYSTEM"], ["read", "audit"]),
        entry("unpermitted", ["HUMAN"], [*sorted(COMMAND_TYPES), "read"], principalIsPerson=True),
    ],
}
# Which of the template's policies each user holds. `stranger` may call the API, and is in no registry.
POLICIES = {
    "ada": "OperatorPolicyArn",
    "bob": "OperatorPolicyArn",
    "robot": "OperatorPolicyArn",
    "viewer": "ReaderPolicyArn",
    "auditor": "AuditorPolicyArn",
    "stranger": "OperatorPolicyArn",
    "unpermitted": None,
}


@dataclass(frozen=True)
class User:
    """One IAM user with its key."""

    principal: str
    key: str
    secret: str


class Api:
    """The deployed API, called by name."""

    def __init__(self, stack: Stack, users: dict[str, User]) -> None:
        self.stack = stack
        self.url = api_url(stack)
        self.users = users
        self.http = httpx.Client(trust_env=False, timeout=30)

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Request:
        content = json.dumps(body).encode() if body is not None else b""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return self.http.build_request(method, self.url + path, content=content, headers=named)

    def signed(self, user: str, request: httpx.Request) -> httpx.Request:
        sign(request, Credentials(self.users[user].key, self.users[user].secret), REGION)
        return request

    def call(self, user: str, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        return self.http.send(self.signed(user, self.request(method, path, body, **headers)))

    def declare(self, user: str, key: str) -> str:
        answer = self.call(user, "POST", "/incidents", DECLARED, idempotency_key=key)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["incidentId"])


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    config: Path = tmp_path_factory.mktemp("config")
    (config / "authority.json").write_text(json.dumps(REGISTRY), encoding="utf-8")
    state: Path = tmp_path_factory.mktemp("checked-engine")
    engine = local_engine.start(state, checked=True)
    try:
        stack = Stack(engine, deploy(engine, config=config))
        iam = stack.client("iam")
        users = {}
        for name, policy in POLICIES.items():
            principal = iam.create_user(UserName=name)["User"]["UserId"]
            key = iam.create_access_key(UserName=name)["AccessKey"]
            if policy is not None:
                iam.attach_user_policy(UserName=name, PolicyArn=stack.outputs[policy])
            users[name] = User(principal, key["AccessKeyId"], key["SecretAccessKey"])
        users["forger"] = User("", users["ada"].key, "x" * 40)
        users["nobody"] = User("", "AKIANOBODYNOBODYNOBO", "x" * 40)
        opened = Api(stack, users)
        with opened.http:
            yield opened
    finally:
        local_engine.stop(state)


def events(api: Api) -> int:
    return len(api.stack.rows("EventsTableName"))


def test_a_person_declares_and_it_is_theirs(api: Api) -> None:
    identity = api.declare("ada", "declared-1")
    told = api.call("ada", "GET", f"/incidents/{identity}/events").json()["events"]
    assert [event["actor"]["actorId"] for event in told] == [api.users["ada"].principal, "promotion-gate"]
    assert told[0]["actor"]["principal"] == api.users["ada"].principal


def test_an_unsigned_request_is_refused(api: Api) -> None:
    before = events(api)
    request = api.request("POST", "/incidents", DECLARED, idempotency_key="unsigned-1")
    assert api.http.send(request).status_code == 403
    assert api.http.get(api.url + "/incidents").status_code == 403
    assert events(api) == before


@pytest.mark.parametrize("user", ["forger", "nobody"])
def test_a_signature_by_the_wrong_secret_or_an_unknown_key_is_refused(api: Api, user: str) -> None:
    before = events(api)
    assert api.call(user, "POST", "/incidents", DECLARED, idempotency_key="forged-1").status_code == 403
    assert api.call(user, "GET", "/incidents").status_code == 403
    assert events(api) == before


def test_a_request_that_was_changed_on_the_way_is_refused(api: Api) -> None:
    """Body, path, query and signed headers: none may differ from what was signed."""
    before = events(api)
    identity = api.declare("ada", "tampered-1")
    made = events(api) - before
    changed_body = api.signed("ada", api.request("POST", "/incidents", DECLARED, idempotency_key="tampered-2"))
    other = httpx.Request(
        "POST", changed_body.url, headers=changed_body.headers, content=changed_body.content.replace(b"SEV2", b"SEV1")
    )
    assert api.http.send(other).status_code == 403
    path = f"/incidents/{identity}/state"
    original = api.signed("ada", api.request("PATCH", path, {"newState": "MITIGATING"}, if_match='"2"'))
    for url in (f"{api.url}/incidents/{identity[:-1]}0/state", f"{api.url}{path}?dryRun=true"):
        assert (
            api.http.send(httpx.Request("PATCH", url, headers=original.headers, content=original.content)).status_code == 403
        )
    headers = httpx.Headers(original.headers)
    headers["If-Match"] = '"7"'
    forged = httpx.Request("PATCH", original.url, headers=headers, content=original.content)
    assert api.http.send(forged).status_code == 403
    assert events(api) == before + made


def test_who_has_no_permission_is_refused_by_iam_though_the_registry_knows_them(api: Api) -> None:
    before = events(api)
    assert api.call("unpermitted", "POST", "/incidents", DECLARED, idempotency_key="no-1").status_code == 403
    assert api.call("viewer", "POST", "/incidents", DECLARED, idempotency_key="no-2").status_code == 403
    assert api.call("viewer", "GET", "/incidents").status_code == 200
    assert events(api) == before


def logged(api: Api) -> list[dict[str, Any]]:
    group = api.stack.client("logs").get_paginator("filter_log_events").paginate(logGroupName="/aws/lambda/opx-api")
    lines = [event["message"] for page in group for event in page["events"]]
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_a_principal_outside_the_registry_gets_403_and_a_log_line(api: Api) -> None:
    refused = api.call("stranger", "POST", "/incidents", DECLARED, idempotency_key="stranger-1")
    assert (refused.status_code, refused.json()["code"]) == (403, "principal-unknown")
    assert refused.headers["content-type"] == "application/problem+json"
    assert api.call("stranger", "GET", "/incidents").json()["code"] == "principal-unknown"

    def is_told() -> bool:
        lines = [line for line in logged(api) if line.get("principal") == api.users["stranger"].principal]
        return [(line["status"], line["code"]) for line in lines] == [(403, "principal-unknown")] * 2

    wait_until(is_told, within_s=10)


def test_a_persons_transition_by_a_program_is_403_with_its_code(api: Api) -> None:
    identity = api.declare("ada", "cancelled-1")
    refused = api.call("robot", "PATCH", f"/incidents/{identity}/state", {"newState": "CANCELLED", "reason": "r"})
    assert (refused.status_code, refused.json()["code"]) == (403, "transition-authority")
    claimed = {"newState": "CANCELLED", "reason": "r", "authority": "HUMAN"}
    as_human = api.call("robot", "PATCH", f"/incidents/{identity}/state", claimed)
    assert (as_human.status_code, as_human.json()["code"]) == (403, "authority-not-granted")
    assert api.call("robot", "PATCH", f"/incidents/{identity}/state", {"newState": "MITIGATING"}).status_code == 200
    allowed = api.call("robot", "GET", f"/incidents/{identity}").json()["allowedTransitions"]
    assert [(step["to"], step["youMay"]) for step in allowed] == [("RESOLVED", False)]


def test_an_operator_reads_no_other_principals_receipt(api: Api) -> None:
    api.declare("ada", "mine-1")
    assert api.call("ada", "GET", "/receipts/mine-1").json()["outcome"] == "applied"
    theirs = api.call("bob", "GET", "/receipts/mine-1")
    assert (theirs.status_code, theirs.json()["code"]) == (404, "receipt-unknown")
    whose = f"/receipts/mine-1?principal={api.users['ada'].principal}"
    assert api.call("bob", "GET", whose).status_code == 403
    assert api.call("auditor", "GET", whose).json()["outcome"] == "applied"


def test_a_key_is_its_principals_own(api: Api) -> None:
    first = api.declare("ada", "shared-key")
    second = api.declare("bob", "shared-key")
    assert first != second
