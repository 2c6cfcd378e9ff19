"""The authority registry that ships refuses everybody but the stack's own roles, wherever it is deployed."""

import pytest

from pipeline.cli.registry_file import SHIPPED, formatted
from pipeline.domain.authority import OPERATIONS, Claim, Registry, Sender, authorize, read_registry
from pipeline.domain.canonical import parse_document
from pipeline.domain.errors import Code, Refusal
from pipeline.domain.transitions import AuthorityType
from tests.house.template import load

TEXT = SHIPPED.read_text("utf-8")
DOCUMENT = parse_document(TEXT)
TEMPLATE = load()
DEPLOYED = ("dev", "prod")
ACCOUNT = "123456789012"
# Role sessions, people, users, root, federated users, AWS services, the local engine, and nobody at all.
OTHERS = [
    Sender("AROAEXAMPLE", "session", f"arn:aws:sts::{ACCOUNT}:assumed-role/opx-redrive/session"),
    Sender("AROAEXAMPLE", "dana@example.com", f"arn:aws:sts::{ACCOUNT}:assumed-role/AWSReservedSSO_X_0/dana@example.com"),
    Sender("AIDAEXAMPLE", None, f"arn:aws:iam::{ACCOUNT}:user/lee"),
    Sender(ACCOUNT, None, f"arn:aws:iam::{ACCOUNT}:root"),
    Sender(ACCOUNT, "dana", f"arn:aws:sts::{ACCOUNT}:federated-user/dana"),
    Sender("AIDAIT2UOQQY3AUEKVGXU"),
    Sender("000000000000"),
    Sender("$redriveRole"),
    Sender("$retentionRole"),
    Sender("queue", "alarms"),
    Sender("queue", "alertmanager"),
    Sender(""),
]
CLAIMS = [None, *(Claim(authority_type=kind, actor_id=actor) for kind in AuthorityType for actor in (None, "dana"))]


def test_the_stages_are_those_of_the_template() -> None:
    assert set(TEMPLATE["Parameters"]["Stage"]["AllowedValues"]) == {"local", *DEPLOYED}


@pytest.mark.parametrize("stage", DEPLOYED)
@pytest.mark.parametrize("sender", OTHERS, ids=str)
def test_the_shipped_registry_refuses_everybody_else(stage: str, sender: Sender) -> None:
    shipped = Registry.load(DOCUMENT, stage, {"redriveRole": "AROAREDRIVE", "retentionRole": "AROARETENTION"})
    for operation in OPERATIONS:
        for claim in CLAIMS:
            found = authorize(shipped, sender, claim, operation, "checkout")
            assert isinstance(found, Refusal)
            assert found.code is Code.PRINCIPAL_UNKNOWN
    assert not shipped.believes(sender)


@pytest.mark.parametrize("stage", DEPLOYED)
def test_what_is_deployed_names_only_what_the_stack_itself_is(stage: str) -> None:
    held = [entry for entry in read_registry(DOCUMENT).entries if entry.holds_on(stage)]
    names = {name for entry in held for name in entry.principals}
    # A queue proves its senders by its own policy; a bound name is a role that the template makes.
    assert all(name.startswith(("queue:", "$")) for name in names)
    assert not any(AuthorityType.HUMAN in entry.authority_types for entry in held)


def test_every_bound_name_is_bound_by_the_template() -> None:
    names = {name for entry in read_registry(DOCUMENT).entries for name in entry.principals if name.startswith("$")}
    assert names == {"$redriveRole", "$retentionRole"}
    for function in ("CandidatesFunction", "CommandsFunction"):
        assert "RedriveRole" in str(variables_of(function)["OPX_REDRIVE_ROLE_ID"])
    assert variables_of("RetentionFunction")["OPX_RETENTION_ROLE_ID"] == {"Fn::GetAtt": "RetentionRole.RoleId"}


def test_no_door_that_takes_what_others_send_knows_the_role_of_retention() -> None:
    told = [name for name, part in TEMPLATE["Resources"].items() if part["Type"] == "AWS::Serverless::Function"]
    assert [name for name in told if "OPX_RETENTION_ROLE_ID" in variables_of(name)] == ["RetentionFunction"]


@pytest.mark.parametrize("stage", [*DEPLOYED, "local"])
def test_the_role_of_retention_may_change_states_as_the_system_and_nothing_else(stage: str) -> None:
    shipped = Registry.load(DOCUMENT, stage, {"retentionRole": "AROARETENTION"})
    sender = Sender("AROARETENTION", "opx-retention")
    allowed = {
        (operation, kind)
        for operation in OPERATIONS
        for kind in AuthorityType
        if not isinstance(authorize(shipped, sender, Claim(authority_type=kind), operation, "checkout"), Refusal)
    }
    assert allowed == {("change-state", AuthorityType.SYSTEM)}
    assert not shipped.believes(sender)


def variables_of(function: str) -> dict[str, object]:
    variables: dict[str, object] = TEMPLATE["Resources"][function]["Properties"]["Environment"]["Variables"]
    return variables


def test_an_account_stands_only_where_the_local_engine_runs() -> None:
    for entry in read_registry(DOCUMENT).entries:
        if any(name.isdigit() or not name.startswith(("queue:", "$")) for name in entry.principals):
            assert entry.stages == ("local",)


def test_the_shipped_registry_is_written_as_the_command_line_writes_one() -> None:
    assert formatted(DOCUMENT) == TEXT
