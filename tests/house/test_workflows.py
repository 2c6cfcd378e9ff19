"""What the repository's workflows may do: no secrets, no permission more than they need, nothing that is not pinned.

And what the role may do that a deployment runs under. GitHub itself and AWS are not asked.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
import yaml

from pipeline.cli.main import app
from tests.house.template import ROOT, as_list, load

FOLDER = ROOT / ".github" / "workflows"
FILES = sorted(path.name for path in FOLDER.iterdir())
PINNED = re.compile(r"uses: (?:\./\.github/workflows/[a-z-]+\.yml|[a-z-]+/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+)$")
READ = {"contents": "read"}
ROLES = load("infra/deploy-role.yaml")


def workflow(name: str) -> Any:
    parsed = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    # YAML takes the word `on` for a truth value.
    return parsed | {"on": parsed.pop(True)}


def steps(name: str) -> Iterator[Any]:
    for job in workflow(name)["jobs"].values():
        yield from job.get("steps", [])


def commands(name: str) -> list[str]:
    return [step["run"] for step in steps(name) if "run" in step]


def statements(role: str) -> list[Any]:
    (policy,) = ROLES["Resources"][role]["Properties"]["Policies"]
    found: list[Any] = policy["PolicyDocument"]["Statement"]
    return found


def test_these_are_all_the_workflows() -> None:
    assert FILES == ["ci.yml", "deploy-stage.yml", "deploy.yml"]


@pytest.mark.parametrize("name", FILES)
def test_no_workflow_knows_a_secret_or_runs_strangers_code_with_rights(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert not re.search(r"\bsecrets\s*[.:\[]|aws-access-key-id|pull_request_target|workflow_run", text)


@pytest.mark.parametrize("name", FILES)
def test_an_action_is_pinned_to_a_commit_whose_version_is_named(name: str) -> None:
    used = [line.strip() for line in (FOLDER / name).read_text(encoding="utf-8").splitlines() if "uses:" in line]
    assert used
    assert [line for line in used if not PINNED.search(line)] == []


def test_one_action_is_of_one_version_everywhere() -> None:
    used = {line.strip(" -") for name in FILES for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()}
    pins = [line.partition("@")[0] for line in used if line.startswith("uses:") and "@" in line]
    assert len(pins) == len(set(pins))


@pytest.mark.parametrize("name", FILES)
def test_a_workflow_may_read_the_code_and_only_a_deployment_may_ask_for_a_token(name: str) -> None:
    told = workflow(name)
    assert told["permissions"] == READ
    for job_name, job in told["jobs"].items():
        deploys = (name, job_name) in {("deploy-stage.yml", "deploy"), ("deploy.yml", "dev"), ("deploy.yml", "prod")}
        assert job.get("permissions", READ) == (READ | {"id-token": "write"} if deploys else READ), job_name


@pytest.mark.parametrize("name", FILES)
def test_what_comes_from_outside_is_no_part_of_a_command(name: str) -> None:
    assert [command for command in commands(name) if "${{" in command] == []


@pytest.mark.parametrize("name", ["ci.yml", "deploy-stage.yml"])
def test_a_job_ends_by_itself_and_leaves_no_credentials_in_the_clone(name: str) -> None:
    for job in workflow(name)["jobs"].values():
        assert 0 < job["timeout-minutes"] <= 60
        assert job["runs-on"] == "ubuntu-24.04"
    clones = [step for step in steps(name) if str(step.get("uses", "")).startswith("actions/checkout@")]
    assert clones
    assert all(step["with"] == {"persist-credentials": False} for step in clones)


@pytest.mark.parametrize("name", FILES)
def test_what_is_run_is_there(name: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    known = typer.main.get_command(app)
    for command in commands(name):
        first, *rest = command.split()
        if first == "make":
            assert re.search(rf"^{re.escape(rest[0])}:", makefile, re.MULTILINE), command
        elif first == ".venv/bin/opx":
            found: Any = known
            assert rest[:2] == ["--region", '"$AWS_REGION"'], command
            for word in rest[2:]:
                if word.startswith("-"):
                    assert word in {option for parameter in found.params for option in parameter.opts}, command
                    break
                found = found.commands[word]
        else:
            assert first == ".opx/sam/bin/sam", command


def test_ci_runs_every_check_on_the_oldest_and_the_newest_python() -> None:
    told = workflow("ci.yml")
    assert set(told["on"]) == {"push", "pull_request", "workflow_call"}
    assert [command for command in commands("ci.yml") if command.startswith("make")] == [
        "make check",
        "make validate",
        "make test",
    ]
    runtimes = load()["Parameters"]["PythonRuntime"]["AllowedValues"]
    assert told["jobs"]["test"]["strategy"]["matrix"]["python"] == [
        runtime.removeprefix("python") for runtime in (runtimes[0], runtimes[-1])
    ]


def test_environments_are_cached_by_their_pins() -> None:
    caches = [step for step in steps("ci.yml") if str(step.get("uses", "")).startswith("actions/cache@")]
    assert len(caches) == 2
    for step in caches:
        assert "hashFiles('infra/requirements/*.txt')" in step["with"]["key"]
        assert "restore-keys" not in step["with"], "what other pins made is no beginning"


# --- deployments -----------------------------------------------------------------------------------------------------


def test_prod_comes_after_dev_and_dev_after_the_tests() -> None:
    told = workflow("deploy.yml")
    jobs = told["jobs"]
    assert set(told["on"]) == {"push", "workflow_dispatch"}
    assert told["on"]["push"] == {"tags": ["v*"]}
    assert jobs["ci"]["uses"] == "./.github/workflows/ci.yml"
    assert (jobs["dev"]["needs"], jobs["prod"]["needs"]) == ("ci", "dev")
    assert [jobs[stage]["with"]["stage"] for stage in ("dev", "prod")] == ["dev", "prod"]
    assert told["concurrency"] == {"group": "deploy", "cancel-in-progress": False}


def test_a_stage_is_deployed_under_its_environments_role_and_looked_at_afterwards() -> None:
    job = workflow("deploy-stage.yml")["jobs"]["deploy"]
    assert job["environment"] == "${{ inputs.stage }}", "who must approve, and which role is given, hang on it"
    kinds = [str(step.get("uses") or step["run"]).split()[0].partition("@")[0] for step in job["steps"]]
    assert kinds.index("aws-actions/configure-aws-credentials") == len(kinds) - 4, "as late as can be"
    (credentials,) = (step["with"] for step in job["steps"] if "configure-aws" in str(step.get("uses")))
    assert credentials["role-to-assume"] == "${{ vars.OPX_DEPLOY_ROLE }}"
    deploy, *looks = (step["run"] for step in job["steps"][-3:])
    assert deploy.startswith(".opx/sam/bin/sam deploy --config-env")
    assert "--role-arn" in deploy
    assert [re.search(r'"\$AWS_REGION" (\w+)', look)[1] for look in looks] == ["status", "replay"]  # type: ignore[index]


def test_what_builds_can_ask_for_no_role_and_what_deploys_builds_nothing() -> None:
    jobs = workflow("deploy-stage.yml")["jobs"]
    build, deploy = jobs["build"], jobs["deploy"]
    assert list(jobs) == ["build", "deploy"]
    assert deploy["needs"] == "build"
    assert not {"environment", "permissions"} & build.keys(), "either would give it what only the deployment is given"
    assert any("sam build" in step.get("run", "") for step in build["steps"])
    assert not any("sam build" in step.get("run", "") for step in deploy["steps"])
    kept, taken = (
        next(step["with"] for step in job["steps"] if f"/{verb}-artifact@" in str(step.get("uses")))
        for job, verb in ((build, "upload"), (deploy, "download"))
    )
    # One run deploys both stages, and artifacts of one name would be each other's; the folder's name begins with a dot.
    assert kept["name"] == taken["name"] == "built-${{ inputs.stage }}"
    assert kept["path"] == taken["path"] == ".aws-sam"
    assert kept["include-hidden-files"] is True


def test_what_mends_may_be_deployed_although_an_alarm_is_raised() -> None:
    told = workflow("deploy.yml")
    assert told["on"]["workflow_dispatch"]["inputs"]["direct"] | {"description": ""} == {
        "description": "",
        "default": False,
        "type": "boolean",
    }
    assert [told["jobs"][stage]["with"]["direct"] for stage in ("dev", "prod")] == ["${{ inputs.direct || false }}"] * 2
    (deploy,) = [step for step in steps("deploy-stage.yml") if " deploy --config-env" in step.get("run", "")]
    assert deploy["run"].endswith(" $OVERRIDES")
    assert deploy["env"]["OVERRIDES"] == "${{ inputs.direct && '--parameter-overrides DeploymentType=Direct' || '' }}"


def test_the_variables_that_a_deployment_needs_are_outputs_of_the_roles_file() -> None:
    text = (FOLDER / "deploy-stage.yml").read_text(encoding="utf-8")
    needed = set(re.findall(r"vars\.(OPX_\w+)", text)) - {"OPX_REGION", "OPX_CONFIG"}
    told = " ".join(output["Description"] for output in ROLES["Outputs"].values())
    assert needed == set(re.findall(r"OPX_\w+", told))


def test_only_one_environment_of_one_repository_is_given_the_role() -> None:
    (trust,) = ROLES["Resources"]["DeployRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    issuer = "token.actions.githubusercontent.com"
    assert trust["Action"] == "sts:AssumeRoleWithWebIdentity"
    assert trust["Principal"]["Federated"]["Fn::Sub"].endswith(f":oidc-provider/{issuer}")
    assert trust["Condition"] == {
        "StringEquals": {
            f"{issuer}:aud": "sts.amazonaws.com",
            f"{issuer}:sub": {"Fn::Sub": "repo:${Repository}:environment:${Environment}"},
        }
    }
    (other,) = ROLES["Resources"]["ExecutionRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert other["Principal"] == {"Service": "cloudformation.amazonaws.com"}


def test_no_deployment_can_change_the_roles_that_it_runs_under() -> None:
    for role in ("DeployRole", "ExecutionRole"):
        assert ROLES["Resources"][role]["Properties"]["RoleName"]["Fn::Sub"].startswith("deploy-${Prefix}-")
    places = {
        text
        for statement in statements("ExecutionRole")
        if any(action.startswith("iam:") for action in as_list(statement["Action"]))
        for text in [one["Fn::Sub"] for one in as_list(statement["Resource"])]
    }
    assert {place.partition("iam::${AWS::AccountId}:")[2] for place in places} == {
        "role/${Prefix}-*",
        "policy/${Prefix}-*",
        "role/${StackName}-ApiGatewayRole-*",
        "role/aws-service-role/apidestinations.events.amazonaws.com/*",
    }


@pytest.mark.parametrize("prefix", ["opx", "opx-deploy", "deployer", "d-2"])
def test_a_prefix_may_be_what_the_stack_takes(prefix: str) -> None:
    assert re.fullmatch(ROLES["Parameters"]["Prefix"]["AllowedPattern"], prefix)


@pytest.mark.parametrize("prefix", ["deploy", "deploy-opx", "deploy-2", "Opx", "o", "opx-"])
def test_a_prefix_that_begins_the_names_of_these_roles_is_refused(prefix: str) -> None:
    assert not re.fullmatch(ROLES["Parameters"]["Prefix"]["AllowedPattern"], prefix)


def names_of(kind: str, name: str) -> set[str]:
    """Return the template's resources of a kind by the beginnings of their names; CloudFormation names what we do not."""
    return {
        f"{kind}/{body['Properties'].get(name, {'Fn::Sub': '${StackName}-' + logical + '-x'})['Fn::Sub']}"
        for logical, body in load()["Resources"].items()
        if body["Type"] == {"role": "AWS::IAM::Role", "policy": "AWS::IAM::ManagedPolicy"}[kind]
    }


@pytest.mark.parametrize(
    ("sid", "kind", "name"),
    [
        ("Roles", "role", "RoleName"),
        ("AttachTheStacksPolicies", "role", "RoleName"),
        ("GiveTheServicesTheirRoles", "role", "RoleName"),
        ("Policies", "policy", "ManagedPolicyName"),
    ],
)
def test_every_role_and_policy_of_the_template_is_one_that_cloudformation_may_make(sid: str, kind: str, name: str) -> None:
    (statement,) = [one for one in statements("ExecutionRole") if one["Sid"] == sid]
    places = [one["Fn::Sub"].partition("iam::${AWS::AccountId}:")[2] for one in as_list(statement["Resource"])]
    named = names_of(kind, name)
    assert len(named) > 9
    assert [one for one in named if not any(one.startswith(place.removesuffix("*")) for place in places)] == []


def test_an_artifact_is_kept_for_as_long_as_a_deployment_may_go_back_to_it() -> None:
    assert "LifecycleConfiguration" not in ROLES["Resources"]["Artifacts"]["Properties"]


def test_the_workflow_itself_changes_nothing_but_by_cloudformation() -> None:
    allowed = {action for statement in statements("DeployRole") for action in as_list(statement["Action"])}
    writes = {action for action in allowed if not re.search(r":(Get|BatchGet|Describe|List|Query|Scan)", action)}
    assert writes == {
        "cloudformation:CreateChangeSet",
        "cloudformation:ExecuteChangeSet",
        "cloudformation:DeleteChangeSet",
        "iam:PassRole",
        "s3:PutObject",
    }


def test_cloudformation_touches_no_item_no_message_and_no_table_that_holds_any() -> None:
    forbidden = re.compile(
        r"^(\w+:\*|dynamodb:(\w*Item\w*|Delete\w*|Query|Scan|PartiQL\w*)|sqs:(Send|Receive|Purge|DeleteMessage)\w*"
        r"|sns:Publish\w*|events:PutEvents|lambda:Invoke\w*|iam:CreateUser|iam:CreateAccessKey|iam:\*|\*)$"
    )
    for statement in statements("ExecutionRole"):
        assert [action for action in as_list(statement["Action"]) if forbidden.match(action)] == [], statement["Sid"]


@pytest.mark.parametrize("role", ["DeployRole", "ExecutionRole"])
def test_everybodys_resources_are_named_only_where_aws_knows_no_others(role: str) -> None:
    everywhere = [statement for statement in statements(role) if "*" in as_list(statement["Resource"])]
    assert {statement["Sid"] for statement in everywhere} <= {
        "SeeAlarmsAgesAndWhetherTheFanoutRuns",
        "WhatFeedsThem",
        "LookUp",
    }
    assert all("Condition" in statement for statement in everywhere)


def test_every_kind_of_resource_in_the_template_may_be_made_by_the_role() -> None:
    """By service: a new kind of resource in template.yaml is one that the deployment would be refused."""
    services = {body["Type"].split("::")[1].lower() for body in load()["Resources"].values()} - {"serverless"}
    actions = {action for statement in statements("ExecutionRole") for action in as_list(statement["Action"])}
    assert services | {"lambda", "codedeploy"} <= {action.partition(":")[0] for action in actions}
