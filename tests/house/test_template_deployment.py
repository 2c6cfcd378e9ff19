"""What template.yaml promises of deployments, one check a promise (see test_template for how they run).

Everything that invokes a function invokes its alias, which moves to what was changed, gradually where that is asked for and
back where an alarm is raised; and nobody can be told to write a schema version that the code does not read.
"""

import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.domain.envelope import SCHEMA_VERSION
from tests.house.template import GONE, OPTIONS, ROOT, STAGES, Change, Parts, Promises, load, of_type
from tests.support.alarms import alarms, runbook_of

PROMISES = Promises()
ROLLBACK_ALARMS = ["ApiAvailabilityAlarm", "CorruptionAlarm", "CrashesAlarm", "FunctionErrorsAlarm"]
# Of a function's own properties these reach its alias and what calls it, not the published version.
NOT_PUBLISHED = {"Events", "EventInvokeConfig", "VersionDescription", "AutoPublishAlias", "DeploymentPreference", "Tags"}


@PROMISES.promise(
    ("Globals/Function/AutoPublishAlias", GONE),
    ("FanoutFunction/Properties/AutoPublishAlias", "newest"),
    ("ApiFunction/Properties/AutoPublishAliasAllProperties", GONE),
)
def every_function_is_called_by_an_alias_that_follows_all_its_properties(parts: Parts) -> Iterator[str]:
    for name, function in of_type(parts, "AWS::Serverless::Function"):
        if (function.get("AutoPublishAlias"), function.get("AutoPublishAliasAllProperties")) != ("live", True):
            yield name


@PROMISES.promise(
    ("Globals/Function/DeploymentPreference/Alarms/Fn::If/1/3", {"Ref": "ControlsUnreadAlarm"}),
    ("Globals/Function/DeploymentPreference/Alarms", GONE),
    ("Globals/Function/DeploymentPreference/Enabled", True),
    ("Globals/Function/DeploymentPreference/Type", "AllAtOnce"),
    ("Globals/Function/DeploymentPreference/Role", GONE),
    ("DeploymentRole/Condition", GONE),
    ("DeploymentRole/Properties/AssumeRolePolicyDocument/Statement/0/Condition", GONE),
    ("HealthFunction/Properties/DeploymentPreference", {"Enabled": False}),
    ("CorruptionAlarm", GONE),
)
def a_gradual_deployment_goes_back_where_an_alarm_is_raised(parts: Parts) -> Iterator[str]:
    kind = parts["Parameters"]["DeploymentType"]
    gradual = kind != "Direct"
    if ("DeploymentRole" in parts["Resources"]) != gradual:
        yield "DeploymentRole"
    if gradual:
        (trust,) = parts["Resources"]["DeploymentRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
        if trust.get("Condition") != {"StringEquals": {"aws:SourceAccount": "123456789012"}}:
            yield "DeploymentRole: trust"
    alarms = [] if parts["Stage"] == "local" else ROLLBACK_ALARMS
    yield from (alarm for alarm in alarms if alarm not in parts["Resources"])
    expected = {"Enabled": gradual, "Type": kind, "Alarms": alarms} | ({"Role": "DeploymentRole.Arn"} if gradual else {})
    for name, function in of_type(parts, "AWS::Serverless::Function"):
        if function["DeploymentPreference"] != expected:
            yield f"{name}: {function['DeploymentPreference']}"


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", PROMISES.checks)
def test_promise_is_kept(name: str, stage: str) -> None:
    assert PROMISES.broken(name, stage) == []


@pytest.mark.parametrize(("name", "change"), PROMISES.changes, ids=PROMISES.change_names())
def test_promise_can_be_broken(name: str, change: Change) -> None:
    assert any(PROMISES.broken(name, stage, change) for stage in STAGES)


# --- parameters and what is published --------------------------------------------------------------------------------


def parameters_in(node: Any, template: Any) -> set[str]:
    """Return the parameters that a value hangs on, through conditions, too."""
    if isinstance(node, list):
        return {found for item in node for found in parameters_in(item, template)}
    if isinstance(node, str) or not isinstance(node, dict):
        return set()
    found: set[str] = set()
    for key, value in node.items():
        match key:
            case "Ref":
                found |= {value}
            case "Fn::Sub":
                found |= set(re.findall(r"\$\{(\w+)\}", value))
            case "Condition" | "Fn::If":
                condition = value if key == "Condition" else value[0]
                found |= parameters_in(template["Conditions"].get(condition), template)
                found |= parameters_in(value, template)
            case _:
                found |= parameters_in(value, template)
    return found & template["Parameters"].keys()


def functions(template: Any) -> dict[str, Any]:
    defaults = template["Globals"]["Function"]
    return {
        name: {part: value for part, value in (defaults | body["Properties"]).items() if part not in NOT_PUBLISHED}
        | {"Environment": [defaults["Environment"], body["Properties"]["Environment"]]}
        | {"LoggingConfig": [defaults["LoggingConfig"], body["Properties"]["LoggingConfig"]]}
        for name, body in template["Resources"].items()
        if body["Type"] == "AWS::Serverless::Function"
    }


@pytest.mark.parametrize("name", functions(load()))
def test_a_version_is_published_where_a_parameter_of_its_function_changes_and_nowhere_else(name: str) -> None:
    template = load()
    own = functions(template)[name]
    # Another prefix is another function.
    needed = parameters_in(own, template) - {"Prefix"}
    told = parameters_in(template["Resources"][name]["Properties"]["VersionDescription"], template)
    assert told == needed, f"{name}: put into VersionDescription what its properties hang on, and no more"


def test_the_deployment_may_name_the_schema_versions_that_the_code_reads_and_no_other() -> None:
    parameter = load()["Parameters"]["EventSchemaVersion"]
    readable = list(range(1, SCHEMA_VERSION + 1))
    assert parameter["AllowedValues"] == readable, (
        "allow a version in the release that reads it, and write it in a later one"
    )
    assert parameter["Default"] in readable


def test_every_writer_is_told_the_schema_version() -> None:
    template = load()
    environments = {name: parameters_in(body["Environment"], template) for name, body in functions(template).items()}
    told = {name for name, parameters in environments.items() if "EventSchemaVersion" in parameters}
    assert told == {f"{name}Function" for name in ("Candidates", "Commands", "Api", "Retention")}


def test_every_type_of_deployment_is_known_to_the_table_that_turns_codedeploy_on() -> None:
    template = load()
    parameter, table = template["Parameters"]["DeploymentType"], template["Mappings"]["DeploymentTypes"]
    assert list(table) == parameter["AllowedValues"]
    assert [name for name, row in table.items() if row != {"Gradual": True}] == ["Direct"] == [parameter["Default"]]
    assert OPTIONS["DeploymentType"] in table


def test_prod_deploys_gradually_dev_at_once_and_local_without_codedeploy() -> None:
    config = tomllib.loads((ROOT / "samconfig.toml").read_text(encoding="utf-8"))
    told = {
        stage: dict(pair.split("=") for pair in config[stage]["deploy"]["parameters"]["parameter_overrides"])
        for stage in STAGES
    }
    kinds = {stage: overrides.get("DeploymentType", "Direct") for stage, overrides in told.items()}
    assert kinds == {"local": "Direct", "dev": "AllAtOnce", "prod": "Canary10Percent15Minutes"}


def test_prod_waits_for_as_long_as_the_slowest_alarm_looks_back_and_all_at_once_says_that_it_does_not() -> None:
    template = load()
    config = tomllib.loads((ROOT / "samconfig.toml").read_text(encoding="utf-8"))
    (minutes,) = re.findall(r"Canary10Percent(\d+)Minutes", str(config["prod"]["deploy"]["parameters"]))
    looked_at = [template["Resources"][name]["Properties"]["EvaluationPeriods"] for name in ROLLBACK_ALARMS]
    assert int(minutes) >= max(looked_at)
    assert "AllAtOnce is over before" in template["Parameters"]["DeploymentType"]["Description"]


@pytest.mark.parametrize("name", ROLLBACK_ALARMS)
def test_the_runbook_of_what_stops_a_deployment_says_how_to_deploy_what_mends_it(name: str) -> None:
    page = (ROOT / "infra" / "runbooks" / f"{runbook_of(alarms()[name])}.md").read_text(encoding="utf-8")
    assert "`sam deploy --config-env prod --parameter-overrides DeploymentType=Direct`" in " ".join(page.split())
