"""What template.yaml promises about the webhook, one check a promise (see test_template for how they run).

Which events are posted, in what form, and that nothing of it exists unless it was asked for. That it is the only way from
our bus is in test_template_permissions.
"""

import json
import re
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from pipeline.domain.transitions import EventType, State
from tests.house.event_patterns import matches, transformed
from tests.house.template import GONE, ROOT, STAGES, Change, Parts, Promises, load

PROMISES = Promises()
RULE = "WebhookRule/Properties"
POSTED = {
    EventType.INCIDENT_OPENED,
    EventType.MITIGATION_STARTED,
    EventType.INCIDENT_RESOLVED,
    EventType.INCIDENT_CANCELLED,
    EventType.SEVERITY_CHANGED,
}
# What a sender may write into a title or a service, and a chat must show as it stands.
HOSTILE = (
    'a "quoted" title',
    "ends in a backslash \\",
    '"}], "text": "<!channel>", "x": [{"y": "',
    "<!here> <severity>",
    "naïve {0} $x",
)
WORDS = re.compile(r"SEV[1-4] [A-Za-z]+, now [A-Z]+: [0-9a-f-]{36}")


def events() -> Iterator[Parts]:
    """Yield every event of the golden files as the bus has it."""
    for path in sorted((ROOT / "tests" / "golden" / "events").glob("*.json")):
        stored = json.loads(path.read_text(encoding="utf-8"))
        yield {"source": "opx.incidents", "detail-type": stored["eventType"], "detail": stored}


def rules(parts: Parts) -> Iterator[Parts]:
    """Yield the webhook's rule, where there is one."""
    if "WebhookRule" in parts["Resources"]:
        yield parts["Resources"]["WebhookRule"]["Properties"]


def changed(event: Parts, **fields: Any) -> Parts:
    """Return an event whose detail, or metadata where the field stands there, says something else."""
    metadata = event["detail"]["metadata"]
    inner = {key: value for key, value in fields.items() if key in metadata}
    outer = {key: value for key, value in fields.items() if key not in metadata}
    detail = event["detail"] | outer | {"metadata": metadata | inner}
    return event | {"detail": detail}


@PROMISES.promise(
    (f"{RULE}/EventPattern/detail", GONE),
    (f"{RULE}/EventPattern/source/0", "aws.cloudwatch"),
    (f"{RULE}/EventPattern/$or/0/detail", GONE),
    (f"{RULE}/EventPattern/$or/1/detail", GONE),
    (f"{RULE}/EventPattern/$or/1/detail/newState/1", GONE),
    (f"{RULE}/EventPattern/$or/2/detail-type/0", "NoteAdded"),
)
def what_is_told_is_what_concerns_an_open_incident_once(parts: Parts) -> Iterator[str]:
    for rule, event in product(rules(parts), events()):
        pattern, kind = rule["EventPattern"], EventType(event["detail-type"])
        for state in State:
            expected = kind in POSTED
            if kind is EventType.SEVERITY_CHANGED:
                expected = state in (State.OPEN, State.MITIGATING)
            if matches(pattern, changed(event, newState=state.value)) is not expected:
                yield f"{kind} in {state}"
        if matches(pattern, changed(event, replayed=True)):
            yield f"{kind} again"
        if kind is EventType.INCIDENT_OPENED:
            dismissed = event["detail"]["metadata"]["decision"] | {"policyId": "dismissed"}
            if matches(pattern, changed(event, decision=dismissed)):
                yield "opened only to be dismissed"


@PROMISES.promise(
    (f"{RULE}/Targets/0/InputTransformer", GONE),
    (f"{RULE}/Targets/0/InputTransformer/InputPathsMap/title", "$.detail.metadata.service"),
    (f"{RULE}/Targets/0/InputTransformer/InputPathsMap/severity", "$.detail.metadata.title"),
    (f"{RULE}/Targets/0/InputTransformer/InputTemplate", '{"text": "<severity> <what>, now <state>: <id> <title>"}'),
    (f"{RULE}/Targets/0/InputTransformer/InputTemplate", '{"text": <title>}'),
)
def what_senders_wrote_is_shown_as_plain_text_and_breaks_nothing(parts: Parts) -> Iterator[str]:
    for rule, event, hostile in product(rules(parts), events(), HOSTILE):
        (target,) = rule["Targets"]
        told = changed(event, title=hostile, service=hostile[::-1])
        sent = transformed(target["InputTransformer"], told) if "InputTransformer" in target else json.dumps(told)
        if not _is_message(sent, [hostile[::-1], hostile]):
            yield f"{event['detail-type']}: {sent}"


def _is_message(sent: str, told: list[str]) -> bool:
    """Say whether a chat gets our words as text, and nothing else but plain text, with what was told in it."""
    try:
        message = json.loads(sent)
    except ValueError:
        return False
    if not isinstance(message, dict) or set(message) != {"text", "blocks"} or not WORDS.fullmatch(message["text"]):
        return False
    shown = [text for block in message["blocks"] for text in [block.get("text"), *block.get("fields", [])] if text]
    return all(text["type"] == "plain_text" for text in shown) and [text["text"] for text in shown] == [
        message["text"],
        *told,
    ]


@PROMISES.promise(
    ("WebhookConnection/Condition", "NotLocal"),
    ("WebhookRule/Condition", GONE),
    ("Conditions/HasWebhook", {"Condition": "NotLocal"}),
    ("Conditions/HasWebhook", {"Fn::Not": [{"Fn::Equals": [{"Ref": "WebhookUrl"}, ""]}]}),
    ("WebhookDestination", GONE),
)
def a_webhook_is_whole_where_it_was_asked_for_and_absent_elsewhere(parts: Parts) -> Iterator[str]:
    asked = parts["Parameters"]["WebhookUrl"] != "" and parts["Stage"] != "local"
    whole = {f"Webhook{part}" for part in ("Rule", "Destination", "Connection", "Role", "Dlq", "DlqPolicy")}
    found = {name for name in parts["Resources"] if name.startswith("Webhook")}
    if found != (whole if asked else set()) or ("WebhookDlqUrl" in parts["Outputs"]) is not asked:
        yield str(sorted(found))


@PROMISES.promise(
    ("WebhookConnection/Properties/AuthParameters/ApiKeyAuthParameters/ApiKeyValue", "a-key-in-the-file"),
    ("WebhookConnection/Properties/AuthorizationType", "BASIC"),
    ("WebhookDestination/Properties/ConnectionArn", {"Fn::GetAtt": "Bus.Arn"}),
    ("WebhookDestination/Properties/HttpMethod", "GET"),
    ("Outputs/ApiUrl/Value", {"Ref": "WebhookUrl"}),
    ("Outputs/ApiUrl/Value", {"Ref": "WebhookHeaderValue"}),
)
def the_address_and_its_key_come_from_whoever_deploys_and_are_told_nobody(parts: Parts) -> Iterator[str]:
    given = parts["Parameters"]
    secrets = {given[name] for name in ("WebhookUrl", "WebhookHeaderValue")} - {""}
    yield from (name for name, output in parts["Outputs"].items() if output["Value"] in secrets)
    if "WebhookConnection" in parts["LeftOut"]:
        return
    connection, destination = (
        parts["Resources"][name]["Properties"] for name in ("WebhookConnection", "WebhookDestination")
    )
    key = {"ApiKeyName": given["WebhookHeaderName"], "ApiKeyValue": given["WebhookHeaderValue"]}
    if (connection["AuthorizationType"], connection["AuthParameters"]) != ("API_KEY", {"ApiKeyAuthParameters": key}):
        yield "WebhookConnection"
    if (destination["ConnectionArn"], destination["HttpMethod"]) != ("WebhookConnection.Arn", "POST"):
        yield "WebhookDestination"


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", PROMISES.checks)
def test_promise_is_kept(name: str, stage: str) -> None:
    assert PROMISES.broken(name, stage) == []


@pytest.mark.parametrize(("name", "change"), PROMISES.changes, ids=PROMISES.change_names())
def test_promise_can_be_broken(name: str, change: Change) -> None:
    assert any(PROMISES.broken(name, stage, change) for stage in STAGES)


def test_every_kind_of_event_is_tried_on_the_rule() -> None:
    assert {event["detail-type"] for event in events()} == set(EventType)


def test_what_is_secret_is_masked_and_addresses_are_encrypted() -> None:
    parameters = load()["Parameters"]
    assert {name for name, body in parameters.items() if body.get("NoEcho")} == {"WebhookUrl", "WebhookHeaderValue"}
    address = re.compile(parameters["WebhookUrl"]["AllowedPattern"])
    assert all(address.fullmatch(right) for right in ("", "https://hooks.example.com/services/T0/B0/x"))
    assert not any(address.fullmatch(wrong) for wrong in ("http://hooks.example.com", "https://", "hooks.example.com"))


def test_an_organization_is_one_id_or_none() -> None:
    organization = re.compile(load()["Parameters"]["OrganizationId"]["AllowedPattern"])
    assert all(organization.fullmatch(right) for right in ("", "o-a1b2c3d4e5"))
    assert not any(organization.fullmatch(wrong) for wrong in ("*", "o-short", "r-a1b2", "o-A1B2C3D4E5", "o-a1b2c3d4e5/*"))
