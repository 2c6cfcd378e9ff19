"""One's own configuration is laid over what ships: it adds, replaces nothing released, and what is wrong is named."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain.authority import AuthorityContext, Claim, Sender, authorize
from pipeline.domain.errors import Refusal
from pipeline.domain.promotion import DEFAULT_POLICY
from pipeline.domain.transitions import AuthorityType, Severity
from pipeline.local.deploy import build_digest
from pipeline.local.environment import for_sam
from pipeline.local.paths import PROJECT_ROOT, StateFolder
from pipeline.runtime import overlay, shipped
from tests.support.registry import entry

PACKAGE = PROJECT_ROOT / "pipeline"
POLICY = {"policyId": "flap-damped", "version": 1, "cooldownS": 1800}
RULE = {
    "ruleId": "three-firings",
    "version": 1,
    "windowS": 21600,
    "threshold": {"detections": 3},
    "confidence": 1,
    "title": "{service}: {threshold} firings",
    "policyId": "flap-damped",
}
MAPPING = {"alarmName": "payments-*", "service": "payments", "severity": "SEV2"}
WHOLE: dict[str, Any] = {
    "policies/flap-damped.v1.json": POLICY,
    "rules/three-firings.v1.json": RULE,
    "rules/alarm-mappings.json": {"mappings": [MAPPING]},
    "rules/alertmanager-mapping.json": {"serviceLabel": "team", "severities": {"page": "SEV1"}},
    "authority.json": {"version": 1, "entries": [entry("monitor", "AROAMONITOR")]},
}


def folder(at: Path, files: dict[str, Any]) -> Path:
    """Write a configuration; text is written as it is."""
    at.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = at / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return at


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return folder(tmp_path / "own", WHOLE)


# --- what it adds -------------------------------------------------------------------------------------------------------


def test_ones_own_policies_and_rules_stand_beside_the_shipped_ones(own: Path) -> None:
    policies, rules = shipped.policies(own), shipped.rules(own)
    assert set(policies.pinned) == {*shipped.policies().pinned, ("flap-damped", 1)}
    assert set(rules.pinned) == {*shipped.rules().pinned, ("three-firings", 1)}
    assert not isinstance(policies.newest(DEFAULT_POLICY), Refusal)


def test_a_later_version_of_a_shipped_policy_is_in_force_and_the_shipped_one_still_known(tmp_path: Path) -> None:
    config = folder(tmp_path, {"policies/default.v1000.json": {"policyId": "default", "version": 1000}})
    policies = shipped.policies(config)
    newest = policies.newest(DEFAULT_POLICY)
    assert not isinstance(newest, Refusal)
    assert newest.policy.version == 1000
    assert policies.pinned["default", 1] == shipped.policies().pinned["default", 1]


def test_ones_own_patterns_for_alarms_are_asked_first(own: Path, tmp_path: Path) -> None:
    package = tmp_path / "package"
    shutil.copytree(PACKAGE / "rules", package / "rules")
    (package / "rules" / "alarm-mappings.json").write_text(json.dumps({"mappings": [MAPPING | {"severity": "SEV4"}]}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shipped, "_PACKAGE", package)
        assert [mapping.severity for mapping in shipped.alarm_mappings(own)] == [Severity.SEV2, Severity.SEV4]


def test_ones_own_labels_for_alertmanager_replace_the_shipped_ones(own: Path) -> None:
    assert shipped.alert_mapping().service_label == "service"
    mapping = shipped.alert_mapping(own)
    assert (mapping.service_label, mapping.severities) == ("team", {"page": Severity.SEV1})


@pytest.mark.parametrize("stage", ["local", "dev", "prod"])
def test_ones_own_grants_are_added_and_the_stacks_own_stay_in_force(own: Path, stage: str) -> None:
    registry = shipped.registry(stage, "AROAREDRIVE", own)
    assert isinstance(authorize(registry, Sender("AROAMONITOR", "s"), None, "candidate", "checkout"), AuthorityContext)
    for name in ("queue:alarms", "queue:alertmanager"):
        assert isinstance(authorize(registry, Sender(name), None, "candidate", "checkout"), AuthorityContext)
    assert registry.believes(Sender("AROAREDRIVE"))
    assert {held.id for held in registry.entries} == {held.id for held in shipped.registry(stage, "AROAREDRIVE").entries} | {
        "monitor"
    }


def test_a_registry_that_began_as_a_copy_of_the_shipped_one_adds_what_was_added(tmp_path: Path) -> None:
    document = json.loads((PACKAGE / "policies" / "authority.json").read_text("utf-8"))
    document["entries"].append(entry("monitor", "AROAMONITOR"))
    config = folder(tmp_path, {"authority.json": document})
    assert [one["id"] for one in shipped.authority(config)["entries"]] == [one["id"] for one in document["entries"]]


def test_nothing_of_ones_own_is_in_force_where_none_is_named() -> None:
    assert not (PACKAGE / overlay.IN_PACKAGE).exists(), "a checkout carries no configuration; name one with OPX_CONFIG"
    claim = Claim(authority_type=AuthorityType.SYSTEM)
    assert isinstance(authorize(shipped.registry("prod"), Sender("AROAMONITOR"), claim, "candidate", "x"), Refusal)


def test_a_function_finds_its_configuration_in_the_artifact(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "artifact" / "pipeline"
    for name in ("policies", "rules"):
        shutil.copytree(PACKAGE / name, package / name)
    shutil.copytree(own, package / overlay.IN_PACKAGE)
    monkeypatch.setattr(shipped, "_PACKAGE", package)
    assert ("flap-damped", 1) in shipped.policies().pinned
    assert ("three-firings", 1) in shipped.rules().pinned
    assert "monitor" in {held.id for held in shipped.registry("prod").entries}
    assert len(shipped.alarm_mappings()) == 1
    assert shipped.alert_mapping().service_label == "team"


def test_notes_and_hidden_files_stay_out(own: Path) -> None:
    folder(own, {"README.md": "# ours", "rules/README.md": "why", ".git/config": "x", "policies/.flap.json.swp": "x"})
    assert [file.name for file in overlay.files(own, PACKAGE)] == sorted(WHOLE)


def test_the_example_can_be_used() -> None:
    assert shipped.problem(PROJECT_ROOT / "examples" / "config") is None


# --- what is refused ----------------------------------------------------------------------------------------------------

TAKEN = entry("alarms-rule", "AROASOMEBODY")
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a misspelt folder": ({"policy/x.v1.json": {}}, r"^policy/x\.v1\.json: nothing would read this file\. .*rename"),
    "a policy without a version": ({"policies/x.json": {}}, r"^policies/x\.json: nothing would read this file"),
    "a policy among the rules' mappings": ({"alarm-mappings.json": {}}, r"^alarm-mappings\.json: nothing would read"),
    "a folder too deep": ({"policies/team/x.v1.json": {}}, r"^policies/team/x\.v1\.json: nothing would read"),
    "an editor's copy": ({"authority.json~": "{}"}, r"^authority\.json~: nothing would read"),
    "no JSON": ({"policies/x.v1.json": "{"}, r"^policies/x\.v1\.json: it is not JSON \(.*line 1"),
    "not UTF-8": ({"policies/x.v1.json": "\udcff"}, r"^policies/x\.v1\.json: it is not JSON"),
    "a list": ({"authority.json": []}, r"^authority\.json: it must hold one JSON object\.$"),
    "the shipped version": (
        {"policies/default.v1.json": {"policyId": "default", "version": 1}},
        r"^policies/default\.v1\.json: policyId: this version ships with opx and is never changed",
    ),
    "the shipped version under another name": (
        {"policies/mine.v1.json": {"policyId": "default", "version": 1}},
        r"^policies/mine\.v1\.json: policyId: .* in it stand 'default' and 1\.$",
    ),
    "a version written otherwise": (
        {"policies/default.v01.json": {"policyId": "default", "version": 1}},
        r"^policies/default\.v01\.json: policyId: a file is named after",
    ),
    "an unknown field": (
        {"policies/x.v1.json": {"policyId": "x", "version": 1, "cooldown": 1800}},
        r"^policies/x\.v1\.json: cooldown: This field is not known\.$",
    ),
    "a name twice": (
        {"policies/x.v1.json": '{"policyId": "x", "version": 1, "cooldownS": 1, "cooldownS": 1800}'},
        r"^policies/x\.v1\.json: .*cooldownS",
    ),
    "a wrong value": (
        {"rules/three-firings.v1.json": RULE | {"policyId": "default", "windowS": 5}},
        r"^rules/three-firings\.v1\.json: windowS: ",
    ),
    "a rule of an unknown policy": (
        {"rules/three-firings.v1.json": RULE},
        r"^rules/three-firings\.v1\.json: rule 'three-firings': there is no policy 'flap-damped'",
    ),
    "a grant of an unknown operation": (
        {"authority.json": {"version": 1, "entries": [entry("x", "AROAX", operations=["rule"])]}},
        r"^authority\.json: entries\.0\.operations\.0: ",
    ),
    "a grant under a shipped id": (
        {"authority.json": {"version": 1, "entries": [TAKEN]}},
        r"^authority\.json: entries: an entry with the id 'alarms-rule' ships with opx; remove yours, or give",
    ),
    "a pattern without a severity": (
        {"rules/alarm-mappings.json": {"mappings": [{"alarmName": "*", "service": "x"}]}},
        r"^rules/alarm-mappings\.json: mappings\.0\.severity: This field is required\.$",
    ),
    "patterns under another name": ({"rules/alarm-mappings.json": {"patterns": []}}, r"^rules/alarm-mappings\.json: "),
    "a label that is no severity": (
        {"rules/alertmanager-mapping.json": {"severities": {"page": "SEV9"}}},
        r"^rules/alertmanager-mapping\.json: severities\.page: ",
    ),
}


@pytest.mark.parametrize(("files", "told"), REFUSED.values(), ids=REFUSED.keys())
def test_what_can_not_be_used_is_named_by_file_and_field(tmp_path: Path, files: dict[str, Any], told: str) -> None:
    config = tmp_path / "own"
    for name, content in files.items():
        (config / name).parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        (config / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    problem = shipped.problem(config)
    assert problem is not None
    assert re.search(told, problem), problem


def test_a_folder_that_is_not_there_is_not_an_empty_one(tmp_path: Path) -> None:
    assert "There is no folder" in str(shipped.problem(tmp_path / "misspelt"))


# --- when it is built again ---------------------------------------------------------------------------------------------


def test_any_change_of_the_configuration_is_another_build_and_none_is_not(own: Path, tmp_path: Path) -> None:
    before = build_digest(config=own)
    assert before == build_digest(config=Path(shutil.copytree(own, tmp_path / "moved"))), "what counts is what it holds"
    folder(own, {"README.md": "only a note", "policies/.swp": "x"})
    assert build_digest(config=own) == before
    digests = {build_digest(), before}
    folder(own, {"policies/flap-damped.v2.json": POLICY | {"version": 2}})
    digests.add(build_digest(config=own))
    (own / "policies" / "flap-damped.v2.json").write_text(json.dumps(POLICY | {"version": 2, "cooldownS": 60}))
    digests.add(build_digest(config=own))
    (own / "policies" / "flap-damped.v2.json").unlink()
    (own / "rules" / "three-firings.v1.json").unlink()
    digests.add(build_digest(config=own))
    assert len(digests) == 5


def test_sam_builds_the_configuration_it_is_given_and_never_a_persons_own(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(overlay.VARIABLE, "somewhere/else")
    state = StateFolder(tmp_path)
    assert overlay.VARIABLE not in for_sam(state, "http://127.0.0.1:9", "3.13")
    assert for_sam(state, "http://127.0.0.1:9", "3.13", own)[overlay.VARIABLE] == str(own)
