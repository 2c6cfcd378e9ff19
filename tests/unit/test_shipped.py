"""The data files that ship with the code can be read on every stage, and nobody is let in who should not be."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain.authority import AuthorityContext, Claim, Registry, Sender, authorize
from pipeline.domain.candidates import OPERATION
from pipeline.domain.cloudwatch import AlarmMapping
from pipeline.domain.commands import COMMAND_TYPES
from pipeline.domain.errors import Code, Refusal
from pipeline.domain.promotion import DECLARED_POLICY, DEFAULT_POLICY
from pipeline.domain.transitions import AuthorityType
from pipeline.runtime import shipped
from pipeline.runtime.overlay import ConfigError

TEMPLATE = Path(__file__).parents[2] / "template.yaml"
STAGES = ("local", "dev", "prod")
DEPLOYED = ("dev", "prod")
EVERYBODY_LOCALLY = Sender("000000000000")
OPERATIONS = sorted({OPERATION, *COMMAND_TYPES})
CLAIMS = [None, *(Claim(authority_type=kind) for kind in AuthorityType)]


def refusal(registry: Registry, sender: Sender, operation: str, claim: Claim | None = None) -> Refusal:
    answer = authorize(registry, sender, claim, operation, "checkout")
    assert isinstance(answer, Refusal), answer
    return answer


def test_the_stages_of_this_test_are_the_templates() -> None:
    assert f"AllowedValues: [{', '.join(STAGES)}]" in TEMPLATE.read_text(encoding="utf-8")


@pytest.mark.parametrize("stage", STAGES)
def test_every_shipped_file_is_read_on_every_stage(stage: str) -> None:
    policies = shipped.policies()
    for name in (DEFAULT_POLICY, DECLARED_POLICY):
        assert policies.newest(name) is not None
    assert shipped.registry(stage, "AROAREDRIVE").entries
    assert isinstance(shipped.alarm_mappings(), tuple)


@pytest.mark.parametrize("stage", DEPLOYED)
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("claim", CLAIMS, ids=str)
def test_a_deployed_stage_refuses_the_local_engines_account(stage: str, operation: str, claim: Claim | None) -> None:
    registry = shipped.registry(stage, "AROAREDRIVE")
    assert refusal(registry, EVERYBODY_LOCALLY, operation, claim).code is Code.PRINCIPAL_UNKNOWN


@pytest.mark.parametrize("stage", DEPLOYED)
def test_a_deployed_stage_knows_nobody_but_the_stacks_own(stage: str) -> None:
    principals = {name for entry in shipped.registry(stage, "AROAREDRIVE").entries for name in entry.principals}
    assert principals == {"queue:alarms", "queue:alertmanager", "AROAREDRIVE"}


@pytest.mark.parametrize("stage", STAGES)
def test_alarms_may_send_candidates_and_nothing_else(stage: str) -> None:
    registry, alarms = shipped.registry(stage), Sender("queue:alarms")
    answer = authorize(registry, alarms, None, OPERATION, "any service")
    assert isinstance(answer, AuthorityContext)
    assert answer.authority_type is AuthorityType.SYSTEM
    for operation in COMMAND_TYPES:
        assert refusal(registry, alarms, operation).code is Code.OPERATION_NOT_GRANTED
    assert refusal(registry, alarms, OPERATION, CLAIMS[1]).code is Code.AUTHORITY_NOT_GRANTED


@pytest.mark.parametrize("stage", STAGES)
def test_only_the_redrive_role_is_believed_about_others_and_only_where_it_is_named(stage: str) -> None:
    bound = shipped.registry(stage, "AROAREDRIVE")
    assert bound.believes(Sender("AROAREDRIVE", "session"))
    assert not bound.believes(EVERYBODY_LOCALLY)
    assert not bound.believes(Sender("queue:alarms"))
    unbound = shipped.registry(stage)
    for principal in ("", "$redriveRole", "redriveRole"):
        assert not unbound.believes(Sender(principal)), "an unbound role must match nobody"


def test_at_the_local_engine_everybody_may_detect_and_operate() -> None:
    registry = shipped.registry("local")
    for operation in OPERATIONS:
        claim = None if operation == OPERATION else Claim(authority_type=AuthorityType.HUMAN, actor_id="dana")
        assert isinstance(authorize(registry, EVERYBODY_LOCALLY, claim, operation, "checkout"), AuthorityContext)


def changed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, name: str, content: Any) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / name).write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.setattr(shipped, "_PACKAGE", tmp_path)


def test_alarm_mappings_are_read_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = {"alarmName": "payments-*", "service": "payments", "severity": "SEV2"}
    changed_files(tmp_path, monkeypatch, "rules", "alarm-mappings.json", {"mappings": [good]})
    assert shipped.alarm_mappings() == (AlarmMapping(alarm_name="payments-*", service="payments", severity="SEV2"),)  # type: ignore[arg-type]
    (tmp_path / "rules" / "alarm-mappings.json").write_text(json.dumps({"mappings": [good | {"severity": "SEV9"}]}))
    with pytest.raises(ConfigError, match=r"rules/alarm-mappings.json: mappings.0.severity: "):
        shipped.alarm_mappings()


def test_a_registry_that_cannot_be_read_stops_the_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed_files(tmp_path, monkeypatch, "policies", "authority.json", {"version": 2, "entries": []})
    with pytest.raises(ConfigError, match=r"policies/authority.json: version: "):
        shipped.registry("prod")


def test_policy_files_are_named_by_what_they_hold() -> None:
    folder = TEMPLATE.parent / "pipeline" / "policies"
    for path in folder.glob("*.v*.json"):
        held = json.loads(path.read_text(encoding="utf-8"))
        assert re.fullmatch(rf"{held['policyId']}\.v{held['version']}\.json", path.name)
