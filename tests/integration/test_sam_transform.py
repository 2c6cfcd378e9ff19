"""template.yaml as SAM makes CloudFormation of it, by the SAM CLI's own translator; no engine, no AWS."""

import json
import os
import subprocess
from typing import Any

import pytest

from pipeline.local.paths import PROJECT_ROOT, SAM
from tests.house.template import load

TEMPLATE = PROJECT_ROOT / "template.yaml"
# Runs in the SAM CLI's environment: prints the resources that each of several deployments comes to.
TRANSFORM = """
import json, sys
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse


class NoPolicies:
    def load(self):
        return {}


text, made = open(sys.argv[1], encoding="utf-8").read(), {}
for name, (parameters, code) in json.loads(sys.argv[2]).items():
    template = yaml_parse(text)
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"]["CodeUri"] = code
    made[name] = transform(template, parameters, NoPolicies())["Resources"]
print(json.dumps(made))
"""
DEPLOYMENTS = {
    "local": ({"Stage": "local"}, "s3://bucket/code"),
    "direct": ({"Stage": "prod"}, "s3://bucket/code"),
    "gradual": ({"Stage": "prod", "DeploymentType": "Canary10Percent5Minutes"}, "s3://bucket/code"),
    "newer code": ({"Stage": "prod"}, "s3://bucket/other"),
}
FUNCTIONS = sorted(name for name, body in load()["Resources"].items() if body["Type"] == "AWS::Serverless::Function")


@pytest.fixture(scope="module")
def made() -> dict[str, dict[str, Any]]:
    """The resources of each of DEPLOYMENTS."""
    command = [str(SAM.parent / "python"), "-c", TRANSFORM, str(TEMPLATE), json.dumps(DEPLOYMENTS)]
    environment = {"PATH": os.defpath, "AWS_DEFAULT_REGION": "us-east-1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    resources: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return resources


def types(resources: dict[str, Any]) -> set[str]:
    return {body["Type"] for body in resources.values()}


def versions(resources: dict[str, Any]) -> set[str]:
    return {name for name, body in resources.items() if body["Type"] == "AWS::Lambda::Version"}


@pytest.mark.parametrize("deployment", ["local", "direct", "gradual"])
def test_whatever_invokes_a_function_invokes_its_alias(made: dict[str, Any], deployment: str) -> None:
    resources = made[deployment]
    aliases = {f"{name}Aliaslive" for name in FUNCTIONS}
    assert aliases <= resources.keys()
    invoked = {
        json.dumps(body["Properties"]["FunctionName"])
        for body in resources.values()
        if body["Type"] in ("AWS::Lambda::EventSourceMapping", "AWS::Lambda::Permission")
    }
    assert invoked == {json.dumps({"Ref": alias}) for alias in aliases}
    api = json.dumps(resources["Api"])
    assert "${ApiFunctionAliaslive}" in api
    assert "${ApiFunction.Arn}" not in api


def test_codedeploy_is_there_where_a_deployment_is_gradual_and_under_our_role_alone(made: dict[str, Any]) -> None:
    direct, gradual = made["direct"], made["gradual"]
    assert not any(kind.startswith("AWS::CodeDeploy") for kind in types(direct)), "the local engine would refuse it"
    groups = {name: body for name, body in gradual.items() if body["Type"] == "AWS::CodeDeploy::DeploymentGroup"}
    assert set(groups) == {f"{name}DeploymentGroup" for name in FUNCTIONS}
    assert "CodeDeployServiceRole" not in gradual
    for group in groups.values():
        assert group["Properties"]["ServiceRoleArn"]["Fn::If"][:2] == ["Gradual", {"Fn::GetAtt": ["DeploymentRole", "Arn"]}]
        assert "DEPLOYMENT_STOP_ON_ALARM" in group["Properties"]["AutoRollbackConfiguration"]["Events"]
        assert len(group["Properties"]["AlarmConfiguration"]["Fn::If"][1]["Alarms"]) == 4
    for name in FUNCTIONS:
        assert "CodeDeployLambdaAliasUpdate" in gradual[f"{name}Aliaslive"]["UpdatePolicy"]


def test_new_code_is_a_new_version_and_a_new_parameter_is_one_by_its_description(made: dict[str, Any]) -> None:
    before, after = versions(made["direct"]), versions(made["newer code"])
    assert len(before) == len(after) == len(FUNCTIONS)
    assert not before & after
    # SAM compares a parameter by its name: only what CloudFormation itself sees in the version makes another one of it.
    resources = made["direct"]
    told = {name: json.dumps(resources[name]["Properties"]["Description"]) for name in before}
    writers = {name for name, text in told.items() if "EventSchemaVersion" in text}
    assert {name.partition("Version")[0] for name in writers} == {
        f"{name}Function" for name in ("Candidates", "Commands", "Api", "Retention")
    }
